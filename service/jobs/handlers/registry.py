"""Per kind of job: the function the child calls, by name, and what the worker stores. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from service.bundles import ARTIFACT
from service.db.job_repository import publish_deployment
from service.jobs.states import ExportPayload, JobKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Session

    from service.bundles import BundleStore


class Record(Protocol):
    """Writes a job's result, in the transaction in which the job succeeds."""

    def __call__(self, session: Session, payload: dict[str, Any], *, prefix: str, result: dict[str, Any]) -> None:
        """Write it.

        Args:
            session: The transaction.
            payload: The job's.
            prefix: Where the attempt's files lie in the artefact store.
            result: What the child returned.
        """


@dataclass(frozen=True)
class Handler:
    """What is done for one kind of job.

    Attributes:
        target: `module:function` of `run(payload, out_dir, report) -> result`; only the child imports it.
        prefix: Where the files of all attempts lie in the artefact store; each has a folder of its own below.
        record: What the worker writes after the files are stored.
        fetch: Brings what the payload refers to onto this machine; returns the payload for the child, which knows no
            artefact store.
    """

    target: str
    prefix: Callable[[dict[str, Any]], str]
    record: Record
    fetch: Callable[[dict[str, Any], BundleStore], dict[str, Any]] = lambda payload, _bundles: payload

    @property
    def module(self) -> str:
        """The module of the target."""
        return self.target.partition(":")[0]


def _deployment_prefix(payload: dict[str, Any]) -> str:
    return f"deployments/{ExportPayload.model_validate(payload).deployment_id}"


def _fetch_bundle(payload: dict[str, Any], bundles: BundleStore) -> dict[str, Any]:
    uri = ExportPayload.model_validate(payload).bundle_uri
    return {**payload, "bundle_uri": f"folder:{bundles.open(uri).path}"} if uri.startswith(ARTIFACT) else payload


def _record_deployment(session: Session, payload: dict[str, Any], *, prefix: str, result: dict[str, Any]) -> None:
    deployment_id = ExportPayload.model_validate(payload).deployment_id
    publish_deployment(session, deployment_id, prefix=prefix, manifest=result)


HANDLERS: Mapping[JobKind, Handler] = {
    JobKind.EXPORT_SUBNET: Handler(
        target="service.jobs.handlers.export_subnet:run",
        prefix=_deployment_prefix,
        record=_record_deployment,
        fetch=_fetch_bundle,
    )
}
