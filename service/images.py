"""Folders of images on the server that requests may name. A name, never a path; it knows no database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import ConflictError, InvalidRequestError, NotFoundError, StorageError
from service.names import RULE, is_name

if TYPE_CHECKING:
    from pathlib import Path

_MOST_SHOWN = 20


def find_images(images_dir: Path | None, name: str) -> Path:
    """The folder of this name directly below the folder of all images.

    Args:
        images_dir: `TAILOR_IMAGES_DIR`.
        name: What a request says.

    Raises:
        ConflictError: `no_images_dir`: the service has no folder of images.
        InvalidRequestError: The name cannot be one.
        NotFoundError: `unknown_images`: there is no such folder, or it is a link that leads elsewhere.
        StorageError: The folder of images cannot be read.
    """
    if images_dir is None:
        raise ConflictError(
            "This service has no folder of images. Set TAILOR_IMAGES_DIR to one with a sub-folder per set of images, "
            "and start the service again.",
            code="no_images_dir",
        )
    if not is_name(name):
        raise InvalidRequestError(f"The name of a folder of images has {RULE}; got {name[:80]!a}.")
    try:
        root = images_dir.resolve(strict=True)
        if found := _find_below(root, name):
            return found
        known = sorted(entry.name for entry in root.iterdir() if is_name(entry.name) and _find_below(root, entry.name))
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is a loop of links"
        raise StorageError(f"The folder of images cannot be read: {reason}. Check TAILOR_IMAGES_DIR.") from error
    shown = ", ".join(known[:_MOST_SHOWN]) or "none"
    raise NotFoundError(
        f"No folder {name!r} below the one of TAILOR_IMAGES_DIR. There are: {shown}.", code="unknown_images"
    )


def _find_below(root: Path, name: str) -> Path | None:
    try:
        place = (root / name).resolve(strict=True)
        return place if place.parent == root and place.is_dir() else None
    except (OSError, RuntimeError):  # a broken link, or one that leads to itself, which Python 3.13 calls an OSError
        return None
