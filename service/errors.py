"""Errors of the service, and the one table that turns every error into an HTTP status and a code.

ServiceError
├─ NotFoundError           404  unknown id, in the path or in a body
├─ ConflictError           409  the thing exists, but not in the state this call needs
├─ InvalidRequestError     422  well-formed JSON that asks for something not on offer
├─ InvalidTransitionError  409  a job cannot go from this state to that one
├─ BusyError               429  others are being served; ask again in a moment
├─ StorageError            503  the data folder or the artefact store cannot be used
└─ RemoteError             502  the service that a command talks to refused or did not answer
"""

from __future__ import annotations

import errno
from http import HTTPStatus
from typing import Any

from latency_tables import errors as latency_errors
from supernet import errors as supernet_errors


class ServiceError(Exception):
    """Root of the service's own errors.

    Attributes:
        code: Stable word for programs, snake_case.
        status: HTTP status.
        extra: Members added to the problem body.
    """

    code = "service_error"
    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, message: str, *, code: str | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.extra = extra


class NotFoundError(ServiceError):
    """An unknown id; the message says which are known or where to list them."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND


class ConflictError(ServiceError):
    """The thing exists, but not in the state this call needs."""

    code = "conflict"
    status = HTTPStatus.CONFLICT


class InvalidRequestError(ServiceError):
    """A value that is well-formed but not on offer."""

    code = "invalid_request"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidTransitionError(ConflictError):
    """A job cannot go from this state to that one."""

    code = "invalid_transition"


class BusyError(ServiceError):
    """Others are being served; the message says when to ask again."""

    code = "busy"
    status = HTTPStatus.TOO_MANY_REQUESTS


class StorageError(ServiceError):
    """The data folder or the artefact store cannot be used."""

    code = "storage_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class RemoteError(ServiceError):
    """The service named by a command's `--server` refused or did not answer; the API itself never raises it."""

    code = "remote_error"
    status = HTTPStatus.BAD_GATEWAY


_UNPROCESSABLE, _CONFLICT = HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.CONFLICT

# Library error -> (status, code). The first class of an error's MRO that is listed decides.
HTTP_TABLE: dict[type[Exception], tuple[HTTPStatus, str]] = {
    supernet_errors.InvalidArchError: (_UNPROCESSABLE, "invalid_arch"),
    supernet_errors.InvalidSpaceError: (_UNPROCESSABLE, "invalid_space"),
    supernet_errors.InvalidConfigError: (_UNPROCESSABLE, "invalid_setting"),
    supernet_errors.InvalidDatasetError: (_UNPROCESSABLE, "invalid_dataset"),
    supernet_errors.FingerprintMismatchError: (_CONFLICT, "fingerprint_mismatch"),
    supernet_errors.InvalidBundleError: (_UNPROCESSABLE, "invalid_bundle"),
    supernet_errors.InvalidCheckpointError: (_UNPROCESSABLE, "invalid_checkpoint"),
    supernet_errors.MissingPartError: (_CONFLICT, "missing_part"),
    supernet_errors.InfeasibleBudgetError: (_CONFLICT, "infeasible_budget"),
    supernet_errors.TrainingDivergedError: (HTTPStatus.INTERNAL_SERVER_ERROR, "training_diverged"),
    supernet_errors.ExportParityError: (HTTPStatus.INTERNAL_SERVER_ERROR, "export_parity"),
    supernet_errors.InvalidDeploymentError: (HTTPStatus.INTERNAL_SERVER_ERROR, "invalid_deployment"),
    latency_errors.TableFormatError: (_UNPROCESSABLE, "invalid_table"),
    latency_errors.MissingEntryError: (_CONFLICT, "incomplete_table"),
    latency_errors.InvalidSettingError: (_UNPROCESSABLE, "invalid_setting"),
    latency_errors.DeviceMismatchError: (_CONFLICT, "device_mismatch"),
    latency_errors.UnstableMeasurementError: (_CONFLICT, "unstable_measurement"),
    latency_errors.MeasurementError: (HTTPStatus.INTERNAL_SERVER_ERROR, "measurement_failed"),
}


def status_and_code(error: Exception) -> tuple[HTTPStatus, str]:
    """HTTP status and code of an error; 500 `internal_error` for one nobody listed."""
    if isinstance(error, ServiceError):
        return error.status, error.code
    for kind in type(error).__mro__:
        if kind in HTTP_TABLE:
            status, code = HTTP_TABLE[kind]
            if isinstance(error, supernet_errors.MissingPartError):
                return status, f"no_{error.part}"
            return status, code
    return HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error"


def full_disk_error(error: OSError) -> StorageError | None:
    """What to tell whoever asked for a job when its disk is full or read-only; None for every other reason."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return None
    return StorageError(
        f"The job's files cannot be written: {error.strerror}. Free some space where the worker runs (its data folder "
        "and the folder of temporary files), then create it again."
    )
