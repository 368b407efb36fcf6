"""The artefact store: files that are written once and never changed. Local folder or object storage, by URL.

An artefact appears whole or not at all: the store writes beside and renames, and refuses to write a key twice.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from service.errors import ConflictError, InvalidRequestError, NotFoundError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from obstore import GetOptions

_CHUNK_BYTES = 1 << 20
# Of an upload; object stores take at least 5 MiB, and at most 10,000 of them.
_PART_BYTES = 8 << 20
_PROBE = "probe"
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", re.ASCII)


class ArtifactStore:
    """Files by key, such as `deployments/ID/1/model.onnx`.

    Args:
        url: `file:///…` (created where absent) or another scheme obstore knows, such as `s3://bucket/prefix`.

    Raises:
        StorageError: The URL is not understood, or the folder cannot be created.
    """

    def __init__(self, url: str) -> None:
        try:
            # Only folders are created or emptied; a bucket has to exist.
            local = url.startswith("file:")
            if local and not url.startswith("file:///"):
                raise ValueError("a folder is written with its whole path")
            self._store = from_url(url, mkdir=True, automatic_cleanup=True) if local else from_url(url)
        except (BaseError, OSError, ValueError) as error:
            raise StorageError(
                f"The artefact store {url} cannot be used: {_first_line(error)}. Set TAILOR_ARTIFACTS_URL to one such "
                "as file:///folder or s3://bucket/prefix, or unset it for a folder in the data folder."
            ) from error

    def put_file(self, key: str, path: Path) -> None:
        """Store a file; see `put_bytes`."""
        self.put_bytes(key, path.read_bytes())

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store bytes under a new key. The same content again is fine.

        Raises:
            ConflictError: The key holds other content.
            InvalidRequestError: The key is malformed.
            StorageError: The store cannot be written.
        """
        _validate_key(key)
        try:
            obstore.put(self._store, key, data, mode="create")
        except AlreadyExistsError as error:
            if self.read_bytes(key) != data:
                raise ConflictError(
                    f"Artefact '{key}' exists with other content; artefacts are never changed. Use another key."
                ) from error
        except (BaseError, OSError) as error:
            raise _storage_error(key, error) from error

    def put_content(self, key: str, path: Path) -> None:
        """Store a file of any size, in pieces, under a key that names its content by a hash.

        An artefact of this size that is there already is taken for the same file.

        Raises:
            InvalidRequestError: The key is malformed.
            StorageError: The store cannot be written.
        """
        _validate_key(key)
        with suppress(NotFoundError):
            if self.size(key) == path.stat().st_size:
                return
        try:
            obstore.put(self._store, key, path, chunk_size=_PART_BYTES, max_concurrency=2)
        except (BaseError, OSError) as error:
            raise _storage_error(key, error) from error

    def size(self, key: str) -> int:
        """Size in bytes.

        Raises:
            NotFoundError: There is no such artefact.
            StorageError: The store cannot be read.
        """
        _validate_key(key)
        with _reading(key):
            return int(obstore.head(self._store, key)["size"])

    def exists(self, key: str) -> bool:
        """Whether the key holds an artefact."""
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in pieces of about 1 MiB.

        A missing artefact raises at the call, not at the first piece.

        Raises:
            NotFoundError: There is no such artefact.
            InvalidRequestError: The range is empty, reversed or begins beyond the end.
            StorageError: The store cannot be read.
        """
        size = self.size(key)
        if start == 0 and end is None:
            options: GetOptions = {}  # the only way to read an empty artefact
        elif 0 <= start < size and (end is None or start < end):
            options = {"range": (start, size if end is None else min(end, size))}
        else:
            raise InvalidRequestError(
                f"Bytes {start} to {end} of '{key}' are no range: it has {size} bytes.", code="invalid_range"
            )
        with _reading(key):
            result = obstore.get(self._store, key, options=options)
        return self._pieces(key, result)

    def read_bytes(self, key: str) -> bytes:
        """The whole content.

        Raises:
            NotFoundError: There is no such artefact.
            StorageError: The store cannot be read.
        """
        return b"".join(self.stream(key))

    def list_keys(self, prefix: str, *, older_than_s: float = 0.0) -> list[str]:
        """Keys below a prefix (a folder, not the beginning of a name), in order; empty where there are none.

        Args:
            prefix: The folder.
            older_than_s: Only of artefacts that were stored so many seconds ago or earlier.
        """
        _validate_key(prefix)
        newest = datetime.now(UTC) - timedelta(seconds=older_than_s) if older_than_s else None
        with _reading(prefix):
            found = [meta for page in obstore.list(self._store, prefix) for meta in page]
        return sorted(meta["path"] for meta in found if newest is None or meta["last_modified"] <= newest)

    def delete_prefix(self, prefix: str) -> None:
        """Delete everything below a prefix; nothing happens where there is nothing."""
        for key in self.list_keys(prefix):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                continue  # somebody else was faster
            except (BaseError, OSError) as error:
                raise _storage_error(key, error) from error

    def check(self) -> None:
        """Make sure that artefacts can be written and read: a full disk shows here.

        Raises:
            StorageError: They cannot.
        """
        try:
            obstore.put(self._store, _PROBE, b"ok")
            obstore.head(self._store, _PROBE)
        except (BaseError, OSError) as error:
            raise _storage_error(_PROBE, error) from error

    @staticmethod
    def _pieces(key: str, result: obstore.GetResult) -> Iterator[bytes]:
        with _reading(key):
            for piece in result.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(piece)


def _validate_key(key: str) -> None:
    # No segment begins with a dot, so none is '.' or '..'; no '#', which marks files the store is still writing.
    if not _KEY.fullmatch(key):
        raise InvalidRequestError(
            f"'{key}' is no artefact key: letters, digits and '_.-' in segments separated by single '/', "
            "none beginning with a dot.",
            code="invalid_key",
        )


@contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no artefact '{key}'.", code="artifact_not_found") from error
    except (BaseError, OSError) as error:
        raise _storage_error(key, error) from error


def _storage_error(key: str, error: Exception) -> StorageError:
    return StorageError(
        f"Artefact '{key}' cannot be read or written: {_first_line(error)}. "
        "Check the store named by TAILOR_ARTIFACTS_URL and its free space."
    )


def _first_line(error: Exception) -> str:
    # The rest is the library's debug output.
    return str(error).partition("\n")[0].rstrip(".")
