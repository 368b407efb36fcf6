"""Bundles that users registered: their files lie in the artefact store, and in the data folder to be opened there.

Both are named by the hash of the bundle's manifest, which holds those of its parts: what lies under a name is either
the right thing or damaged, and several supernets may share it. It knows no database.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from service.bundle_archive import bundle_files
from service.errors import ConflictError, NotFoundError, StorageError
from supernet.bundle import Bundle, open_bundle
from supernet.errors import InvalidBundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.artifacts import ArtifactStore

ARTIFACT = "artifact:"
_BUNDLES = "bundles"
_URI = re.compile(rf"{ARTIFACT}{_BUNDLES}/([0-9a-f]{{64}})")
_PARTIAL = ".partial-"
# Nothing takes that long to arrive: whoever began it was killed.
_ABANDONED_S = 24 * 3600.0

logger = logging.getLogger(__name__)


class BundleStore:
    """Files of bundles by URI, `artifact:KEY`.

    Args:
        artifacts: Where they are kept.
        data_dir: Its folder `bundles` gets the copies they are opened from; several processes may share it.
    """

    def __init__(self, artifacts: ArtifactStore, data_dir: Path) -> None:
        self.artifacts = artifacts
        self._folder = data_dir / _BUNDLES

    def save(self, bundle: Bundle) -> str:
        """Bring an opened bundle's files into the artefact store; those it has already stay.

        Returns:
            The URI.

        Raises:
            StorageError: The store cannot be written.
        """
        for name in bundle_files(bundle.manifest):
            self.artifacts.put_content(f"{_key_of(bundle.sha256)}/{name}", bundle.path / name)
        return uri_of(bundle)

    def holds(self, bundle: Bundle) -> bool:
        """Whether the artefact store has every file of an opened bundle."""
        keys = [f"{_key_of(bundle.sha256)}/{name}" for name in bundle_files(bundle.manifest)]
        return all(map(self.artifacts.exists, keys))

    def open(self, uri: str) -> Bundle:
        """Open a bundle in the data folder; what is not there yet, or no longer whole, is fetched first.

        Raises:
            ConflictError: `bundle_unavailable`: the store does not have it. `bundle_changed`: its files there are
                damaged.
            StorageError: The store cannot be read, or the data folder not be written.
        """
        sha256 = _sha256_of(uri)
        folder = self._folder / sha256
        if folder.is_dir():
            try:
                bundle = open_bundle(folder)
                if bundle.sha256 == sha256:
                    return bundle
            except InvalidBundleError as error:
                logger.warning("a bundle is fetched again: %s", error)
            shutil.rmtree(folder, ignore_errors=True)
        with self.workspace() as partial:
            return self.adopt(self._fetch(uri, partial))

    def adopt(self, bundle: Bundle) -> Bundle:
        """Keep a bundle that was opened elsewhere in the data folder, so that it need not be fetched."""
        folder = self._folder / bundle.sha256
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            bundle.path.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise  # else somebody was faster, and theirs was checked as well
        return Bundle(folder, bundle.manifest)

    def list_older(self, seconds: float) -> list[str]:
        """URIs of the bundles with files that the artefact store has had for so long.

        Raises:
            StorageError: The store cannot be read.
        """
        keys = self.artifacts.list_keys(_BUNDLES, older_than_s=seconds)
        uris = {f"{ARTIFACT}{key.rpartition('/')[0]}" for key in keys}
        return sorted(uri for uri in uris if _URI.fullmatch(uri))

    def delete(self, uri: str) -> None:
        """Delete a bundle's files here and in the artefact store.

        Raises:
            StorageError: The store cannot be written.
        """
        sha256 = _sha256_of(uri)
        self.artifacts.delete_prefix(_key_of(sha256))
        shutil.rmtree(self._folder / sha256, ignore_errors=True)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder beside the bundles, gone afterwards. Errors of what lies in it do not show where it was.

        Raises:
            StorageError: A file could not be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=self._folder, ignore_cleanup_errors=True) as name:
                try:
                    yield Path(name)
                except InvalidBundleError as error:
                    error.args = (str(error).replace(f"{name}/", "").replace(f"'{name}'", "The bundle"),)
                    raise
        except OSError as error:
            raise StorageError(
                f"The bundle's files cannot be written: {error.strerror or error}. Check the data folder and its free "
                "space (TAILOR_DATA_DIR)."
            ) from error

    def _fetch(self, uri: str, folder: Path) -> Bundle:
        sha256 = _sha256_of(uri)
        keys = self.artifacts.list_keys(_key_of(sha256))
        if not keys:
            raise _unavailable(uri)
        try:
            for key in keys:
                with (folder / key.rpartition("/")[2]).open("wb") as file:
                    for piece in self.artifacts.stream(key):
                        file.write(piece)
            bundle = open_bundle(folder)
        except NotFoundError as error:  # deleted in between
            raise _unavailable(uri) from error
        except InvalidBundleError as error:
            raise _changed(uri) from error
        if bundle.sha256 != sha256:
            raise _changed(uri)
        return bundle

    def _remove_abandoned(self) -> None:
        oldest = time.time() - _ABANDONED_S
        for folder in self._folder.glob(f"{_PARTIAL}*"):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def uri_of(bundle: Bundle) -> str:
    """Where the store keeps a bundle."""
    return f"{ARTIFACT}{_key_of(bundle.sha256)}"


def _key_of(sha256: str) -> str:
    return f"{_BUNDLES}/{sha256}"


def _sha256_of(uri: str) -> str:
    match = _URI.fullmatch(uri)
    if match is None:
        raise _unavailable(uri)
    return match[1]


def _unavailable(uri: str) -> ConflictError:
    return ConflictError(
        f"The bundle '{uri}' neither comes with this version nor lies in the artefact store. Restore the store, or "
        "delete its supernet and register the bundle again.",
        code="bundle_unavailable",
    )


def _changed(uri: str) -> ConflictError:
    return ConflictError(
        f"The files of the bundle '{uri}' in the artefact store are damaged. Restore them, or delete its supernet and "
        "register the bundle again.",
        code="bundle_changed",
    )
