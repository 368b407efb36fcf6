"""Query parameters nobody reads are refused: a misspelled `limit` must not look as if it had worked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.exceptions import RequestValidationError

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant


def refuse_unknown_query(request: Request) -> None:
    """Look at the parameters of the route in use.

    Raises:
        RequestValidationError: The URL has others; the message names what is allowed.
    """
    allowed = _names(request.scope["route"].dependant)
    offer = f"allowed are {', '.join(sorted(allowed))}" if allowed else "this call takes none"
    errors = [
        {
            "type": "extra_forbidden",
            "loc": ("query", name),
            "msg": f"Unknown query parameter; {offer}",
            "input": value,
        }
        for name, value in request.query_params.items()
        if name not in allowed
    ]
    if errors:
        raise RequestValidationError(errors)


def _names(dependant: Dependant) -> set[str]:
    found = {field.alias for field in dependant.query_params}
    return found.union(*map(_names, dependant.dependencies))
