"""Errors: one root per package, and a tree in the docstring that is the tree of the classes."""

from __future__ import annotations

import inspect
import re

import pytest

from supernet import errors
from supernet.errors import SupernetError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, tuple[str, str]]:
    """Name of each class in the docstring with its parent and the builtin in brackets, read from the indentation."""
    drawn: dict[str, tuple[str, str]] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)([A-Z]\w+Error)\b(?: \((\w+)\))?", line)
        if match:
            indent = len(match[1])
            above[indent] = match[2]
            drawn[match[2]] = (above[indent - 3] if indent else "Exception", match[3] or "")
    return drawn


def test_every_error_is_drawn_and_every_drawn_error_exists() -> None:
    assert set(drawn_tree()) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_has_the_parents_that_are_drawn(name: str) -> None:
    parent, builtin = drawn_tree()[name]
    bases = [base.__name__ for base in CLASSES[name].__bases__]
    assert bases == [parent, *([builtin] if builtin else [])]
    assert issubclass(CLASSES[name], SupernetError)
    assert CLASSES[name].__doc__
    assert name.endswith("Error")


def test_errors_with_data_document_it() -> None:
    for cls in CLASSES.values():
        if "__init__" in vars(cls):
            data = list(inspect.signature(cls).parameters)[1:]
            assert data
            documented = inspect.getdoc(cls) or ""
            assert "Attributes:" in documented
            assert all(f"{attribute}:" in documented for attribute in data)
