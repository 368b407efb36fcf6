"""Archs as CSV: columns `ks,e,d,r` and, where the space has elastic widths, `w`; values joined by `-`."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.space import Dimension

if TYPE_CHECKING:
    from pathlib import Path

    from supernet.spaces.space import SearchSpace

# What Python reads as a number is more than this: 3_2 is 32, and so are two Arabic digits.
_NUMBER = re.compile(r"\s*[0-9]{1,9}(\.[0-9]{1,20})?\s*")
_FIELDS = {"ks": "kernel_sizes", "e": "expand_ratios", "d": "depths", "w": "widths"}


def arch_columns(space: SearchSpace) -> list[str]:
    """The columns that hold an arch of this space."""
    elastic_width = any(slot.dimension is Dimension.WIDTH for slot in space.slots)
    return ["ks", "e", "d", "r", *(["w"] if elastic_width else [])]


def write_arch(space: SearchSpace, arch: Arch) -> dict[str, str]:
    """One CSV row; kernel sizes and expand ratios of skipped blocks are 0."""
    row = {column: "-".join(map(str, getattr(arch, field))) for column, field in _FIELDS.items()}
    row["r"] = str(arch.resolution)
    return {column: row[column] for column in arch_columns(space)}


def read_archs(path: Path, space: SearchSpace) -> list[tuple[Arch, dict[str, str]]]:
    """Read a CSV of archs.

    Returns:
        Canonical archs with the whole row each, in order.

    Raises:
        InvalidArchError: The file cannot be read, a column is missing or doubled, or a row lies outside the space;
            names the line.
    """
    try:
        # Spreadsheets write a byte order mark, which "utf-8-sig" skips.
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Strict, so that a quote nobody closed does not swallow the rest of the file.
            reader = csv.DictReader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if None in row or any(map(str.strip, _texts(row)))]
            columns = list(reader.fieldnames or arch_columns(space))
    except OSError as error:
        raise InvalidArchError(f"'{path}' cannot be read as CSV: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidArchError(f"'{path}' cannot be read as CSV: {error}.") from error
    if missing := sorted(set(arch_columns(space)) - set(columns)):
        raise InvalidArchError(
            f"'{path}' lacks the columns {missing}; archs of '{space.name}' need {arch_columns(space)} with commas "
            f"between them, it has {columns[:20]}."
        )
    if doubled := sorted({column for column in columns if column and columns.count(column) > 1}):
        raise InvalidArchError(f"'{path}' has the columns {doubled} twice; keep one of each.")
    archs = []
    for line, row in rows:
        try:
            if None in row:
                raise InvalidArchError("this row has more values than the header has columns.")
            choice = {column: _numbers(column, row[column]) for column in arch_columns(space)}
            (resolution,) = choice.pop("r") or (None,)
            values = {_FIELDS[column]: tuple(numbers) for column, numbers in choice.items()}
            archs.append((space.canonicalize(Arch(resolution, **values)), row))  # type: ignore[arg-type]
        except InvalidArchError as error:
            raise InvalidArchError(f"'{path}', line {line}: {error}") from error
    return archs


def _texts(row: dict[str, str]) -> list[str]:
    return [cell or "" for cell in row.values()]


def _numbers(column: str, text: str | None) -> list[float]:
    parts = text.split("-") if text else []
    if (column == "r" and len(parts) != 1) or not all(map(_NUMBER.fullmatch, parts)):
        wanted = "one whole number" if column == "r" else "numbers joined by '-'"
        raise InvalidArchError(f"'{column}' must be {wanted}, got {(text or '')[:80]!r}.")
    return [float(part) if "." in part else int(part) for part in parts]
