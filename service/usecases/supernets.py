"""Supernets and spaces: what can be searched."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from service.db import repositories
from service.errors import ConflictError, NotFoundError
from supernet.errors import InvalidSpaceError
from supernet.spaces.presets import list_spaces, load_space
from supernet.spaces.space import SearchSpace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from service.db.models import Supernet


def get_supernet(session: Session, supernet_id: str | None, *, lock: bool = False) -> Supernet:
    """The supernet with this id; the default one for None.

    Args:
        session: Any; a writing transaction to lock.
        supernet_id: The id.
        lock: Keep everybody else from changing or deleting the one with the id until the transaction ends.

    Raises:
        NotFoundError: `unknown_supernet`.
        ConflictError: `no_default_supernet`: none was named and none is the default.
    """
    if supernet_id is None:
        default = repositories.find_default_supernet(session)
        if default is None:
            raise ConflictError(
                "The request names no supernet and none is the default. GET /v1/supernets lists those there are.",
                code="no_default_supernet",
            )
        return default
    found = repositories.find_supernet(session, supernet_id, lock=lock)
    if found is None:
        known = ", ".join(repositories.list_supernet_ids(session)[:20]) or "none"
        raise NotFoundError(f"No supernet {supernet_id[:80]!r}. Known are: {known}.", code="unknown_supernet")
    return found


def validate_current(session: Session, supernet_id: str, *, bundle_uri: str) -> None:
    """Refuse to work on a bundle that its supernet no longer has: its files may be gone any moment.

    Until the transaction ends nobody can change that.

    Raises:
        ConflictError: The supernet was deleted or replaced.
    """
    row = repositories.find_supernet(session, supernet_id, lock=True)
    if row is None or row.bundle_uri != bundle_uri:
        raise ConflictError(f"Supernet '{supernet_id}' was deleted or replaced at the same time. Ask again.")


def get_space(session: Session, name: str) -> SearchSpace:
    """The search space with this name: a preset, or that of a registered supernet.

    Supernets of one space differ in their classes; those of the oldest one are taken.

    Raises:
        NotFoundError: `unknown_space`.
    """
    try:
        return load_space(name)
    except InvalidSpaceError as error:
        owner = repositories.find_supernet_of_space(session, name)
        if owner is not None:
            return _read_space(json.dumps(owner.manifest["space"]))
        known = ", ".join(sorted({*list_spaces(), *repositories.list_supernet_spaces(session)}))
        raise NotFoundError(f"No search space {name[:80]!r}. Known are: {known}.", code="unknown_space") from error


@lru_cache(maxsize=16)
def _read_space(text: str) -> SearchSpace:
    """Once per space: what it lists of itself takes seconds for a large one, and it remembers."""
    return SearchSpace.from_dict(json.loads(text))
