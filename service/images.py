"""Folders of images on the server that requests may name. A name, never a path; it knows no database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.errors import ConflictError, InvalidRequestError, NotFoundError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
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
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"The name of a folder of images has 1 to 64 letters, digits, '.', '_' or '-' and begins with a letter or "
            f"digit; got {name[:80]!a}."
        )
    try:
        root = images_dir.resolve(strict=True)
        known = {
            entry.name: place
            for entry in root.iterdir()
            if _NAME.fullmatch(entry.name) and (place := entry.resolve()).parent == root and place.is_dir()
        }
    except OSError as error:
        raise StorageError(
            f"The folder of images cannot be read: {error.strerror or error}. Check TAILOR_IMAGES_DIR."
        ) from error
    if name not in known:
        shown = ", ".join(sorted(known)[:_MOST_SHOWN]) or "none"
        raise NotFoundError(
            f"No folder {name!r} below the one of TAILOR_IMAGES_DIR. There are: {shown}.", code="unknown_images"
        )
    return known[name]
