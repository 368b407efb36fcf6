"""Locks in the data folder that end with their process, however it dies."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from service.db.migrate import prepare_folder
from service.errors import ConflictError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def folder_lock(folder: Path, role: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only process with this role on a data folder.

    Args:
        folder: The data folder; created where absent.
        role: `worker` or `server`.
        wait_s: How long to wait for another one that is about to stop.

    Raises:
        ConflictError: Another process has the role.
        StorageError: The folder cannot be written.
    """
    prepare_folder(folder)
    lock = FileLock(folder / f"{role}.lock", timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConflictError(
            f"Another {role} is running on the data folder {folder.resolve()}. "
            "Stop it, or choose another folder with TAILOR_DATA_DIR or --data-dir.",
            code="data_folder_in_use",
        ) from error
    except OSError as error:
        raise StorageError(f"The data folder {folder} cannot be locked: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()
