"""A bundle as one tar archive: packed to be sent, unpacked from senders nobody knows.

Python's own reader of tar files keeps extended headers in memory, however large they claim to be, and follows links.
This one reads block by block, writes only the files a bundle has, and stops at its limits.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from typing import IO, TYPE_CHECKING, Protocol

from supernet.bundle import MANIFEST, PARTS, Bundle, BundleManifest, open_bundle
from supernet.errors import InvalidBundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A folder, five files, and before each of them what some tools note: times, owners.
MAX_HEADERS = 16
# Read whole by the API, in contrast to weights and calibration.
MAX_FILE_BYTES = {MANIFEST: 4 * 2**20, PARTS["predictor"]: 256 * 2**20, PARTS["pools"]: 64 * 2**20}
_FILES = (*PARTS.values(), MANIFEST)
_GZIP = b"\x1f\x8b"
_PIECE_BYTES = 2**20
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
# Their bodies are skipped: no name and no size of ours needs them.
_NOTES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def bundle_files(manifest: BundleManifest) -> list[str]:
    """Names of a bundle's files; the manifest, which vouches for the others, is the last."""
    return [*(PARTS[part] for part in manifest.parts), MANIFEST]


def pack_bundle(bundle: Bundle, archive: IO[bytes]) -> None:
    """Write the files of a bundle as an uncompressed tar; the same bundle gives the same bytes."""
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in bundle_files(bundle.manifest):
            with (bundle.path / name).open("rb") as file:
                entry = tarfile.TarInfo(name)
                entry.size = (bundle.path / name).stat().st_size
                tar.addfile(entry, file)


def extract_bundle(archive: IO[bytes], folder: Path, *, max_bytes: int) -> Bundle:
    """Unpack a tar or tar.gz into an empty folder and open what it holds.

    Args:
        archive: Read from its beginning, in pieces.
        folder: Gets `manifest.json` and the parts, whatever folder they lie in inside the archive.
        max_bytes: Of all members together, unpacked.

    Raises:
        InvalidBundleError: The archive is truncated, too large, or holds anything but the files of one bundle; or the
            bundle does not open. What was unpacked until then stays in the folder.
    """
    is_gzip = archive.read(len(_GZIP)) == _GZIP
    archive.seek(0)
    stream: _Readable = gzip.GzipFile(fileobj=archive, mode="rb") if is_gzip else archive
    try:
        found = _extract_files(stream, folder, max_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.HeaderError) as error:
        raise InvalidBundleError(
            f"The archive is no tar or tar.gz, or it is truncated or damaged: {error}. Pack the bundle's folder again."
        ) from error
    if MANIFEST not in found:
        raise InvalidBundleError(f"The archive holds no '{MANIFEST}'. Pack the folder of a bundle with all its files.")
    bundle = open_bundle(folder)
    if unlisted := sorted(found - set(bundle_files(bundle.manifest))):
        raise InvalidBundleError(f"The archive holds {unlisted}, which its manifest does not list. Leave them out.")
    return bundle


def _extract_files(stream: _Readable, folder: Path, max_bytes: int) -> set[str]:
    places: set[tuple[str, ...]] = set()
    found: set[str] = set()
    for member in _members(stream, max_bytes):
        *place, name = _path_of(member)
        if name in found:
            raise InvalidBundleError(f"The archive holds '{name}' twice. Pack the bundle's folder again.")
        if member.size > MAX_FILE_BYTES.get(name, member.size):
            raise InvalidBundleError(
                f"'{name}' has {member.size} bytes; at most {MAX_FILE_BYTES[name]} are accepted. Is it the right file?"
            )
        found.add(name)
        places.add(tuple(place))
        if len(places) > 1:
            raise InvalidBundleError(
                f"The archive holds files in several folders, '{name}' among them. "
                "Pack them at the top, or all in one folder."
            )
        with (folder / name).open("xb") as file:
            for piece in _pieces(stream, member.size):
                file.write(piece)
    return found


def _members(stream: _Readable, max_bytes: int) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive; whoever takes one has to read its content before the next."""
    left = max_bytes
    for _ in range(MAX_HEADERS):
        block = b"".join(_pieces(stream, tarfile.BLOCKSIZE))
        if not any(block):  # the end mark
            return
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.isdir():
            _path_of(member)
            continue
        if member.size < 0:
            raise tarfile.HeaderError("a size is negative")
        left -= member.size
        if left < 0:
            raise InvalidBundleError(
                f"The archive unpacks to more than {max_bytes} bytes, the most that is accepted "
                "(TAILOR_MAX_BUNDLE_BYTES)."
            )
        if member.type in _NOTES:
            for _piece in _pieces(stream, member.size):
                pass
        else:
            yield member
        for _piece in _pieces(stream, -member.size % tarfile.BLOCKSIZE):
            pass
    raise InvalidBundleError(f"The archive has more than {MAX_HEADERS} members. Pack only {', '.join(_FILES)}.")


def _path_of(member: tarfile.TarInfo) -> list[str]:
    """The parts of a member's name, checked; a folder's may be empty."""
    shown = f"{member.name!a:.100}"
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.name.startswith("/") or ".." in parts:
        raise InvalidBundleError(f"The archive's member {shown} leads out of its folder. Pack the bundle's folder.")
    if member.isdir():
        if len(parts) > 1:
            raise InvalidBundleError(f"The archive holds the folder {shown}; a bundle has none inside.")
        return parts
    if member.type not in _REGULAR:
        kind = _KINDS.get(member.type, "no regular file")
        raise InvalidBundleError(f"The archive's member {shown} is {kind}; a bundle has regular files only.")
    if len(parts) not in (1, 2) or parts[-1] not in _FILES:
        raise InvalidBundleError(
            f"The archive holds {shown}, which is no file of a bundle. Allowed are {', '.join(_FILES)}, at the top or "
            "in one folder."
        )
    return parts


def _pieces(stream: _Readable, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = stream.read(min(size, _PIECE_BYTES))
        if not piece:
            raise EOFError("it ends too early")
        size -= len(piece)
        yield piece
