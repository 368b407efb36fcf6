"""Which tables migrations may see. Without this, autogenerate drops every table of the queue library."""

from __future__ import annotations

from service.db.models import Base


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Whether Alembic may look at a table; everything inside our tables is ours."""
    return kind != "table" or name in Base.metadata.tables
