"""CSV files of latency tables: `# key: json` lines, then one line per row; to and from the JSON form of a table."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from latency_tables.errors import TableFormatError
from latency_tables.json_values import key_difference, load_json

_TEXTS = ("kind", "act", "out_act")
_VALUES = ("statistic", "latency_ms", "std_ms", "count")
# Columns a file has only where a row has the key; an empty cell is a row without it.
_OPTIONAL = ("resolution", "energy_mj")


def write_csv(document: dict[str, Any], *, spec_fields: tuple[str, ...]) -> str:
    """Turn what `LatencyTable.to_dict` gives into CSV.

    Args:
        document: Of a sound table.
        spec_fields: Keys of a block spec.
    """
    lines = [f"# {key}: {json.dumps(value)}\n" for key, value in document.items() if key != "rows"]
    text = io.StringIO()
    optional = [name for name in _OPTIONAL if any(name in row for row in document["rows"])]
    writer = csv.DictWriter(text, [*spec_fields, *_VALUES, *optional], restval="", lineterminator="\n")
    writer.writeheader()
    for row in document["rows"]:
        stats = dict(row["latency_ms"])
        cells = {name: _cell(row[name]) for name in (*spec_fields, *optional) if name in row}
        cells |= {"std_ms": repr(stats.pop("std")), "count": str(stats.pop("count"))}
        ((statistic, value_ms),) = stats.items()
        writer.writerow(cells | {"statistic": statistic, "latency_ms": repr(value_ms)})
    return "".join(lines) + text.getvalue()


def read_csv(text: str, *, spec_fields: tuple[str, ...]) -> dict[str, Any]:
    """Turn CSV into what `LatencyTable.from_dict` reads.

    Args:
        text: Of a whole file.
        spec_fields: Keys of a block spec.

    Returns:
        The JSON form; cells keep their text where they are no JSON, for the row's own error.

    Raises:
        TableFormatError: This is no CSV, has other columns, or a row has too few or too many cells.
    """
    lines = text.splitlines()
    data: dict[str, Any] = {}
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        if not (line := lines.pop(0).removeprefix("#").strip()):
            continue
        key, _, value = line.partition(":")
        if key in data:
            raise TableFormatError(f"The CSV line '# {key}: …' occurs twice.")
        if key == "rows":
            raise TableFormatError("The CSV line '# rows: …' is not allowed: rows stand below the line of columns.")
        data[key] = load_json(value, f"CSV line '# {key}: …'")
    if "format" not in data:
        raise TableFormatError("This is neither a JSON table nor a CSV that starts with a line '# format: …'.")
    reader = csv.DictReader(lines, strict=True)
    required = (*spec_fields, *_VALUES)
    rows = []
    try:
        columns = list(reader.fieldnames or [])
        unknown, missing = key_difference(dict.fromkeys(columns), required=required, optional=_OPTIONAL)
        if unknown or missing or len(columns) != len(set(columns)):
            raise TableFormatError(
                f"The columns of a CSV table are {list(required)} and may have {list(_OPTIONAL)}; unknown {unknown}, "
                f"missing {missing}. Latencies are in milliseconds."
            )
        for number, cells in enumerate(reader, 1):
            if None in cells or None in cells.values():
                raise TableFormatError(f"Row {number}: it needs {len(columns)} cells.", row=number)
            rows.append(_row_of_cells(cells, spec_fields))
    except csv.Error as error:
        raise TableFormatError(f"This CSV cannot be read: {error}.") from error
    return data | {"rows": rows}


def _row_of_cells(cells: dict[str, str], spec_fields: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {name: cells[name] if name in _TEXTS else _value(cells[name]) for name in spec_fields}
    stats = {"std": _value(cells["std_ms"]), "count": _value(cells["count"])}
    row["latency_ms"] = {cells["statistic"]: _value(cells["latency_ms"])} | stats
    return row | {name: _value(cells[name]) for name in _OPTIONAL if cells.get(name)}


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(cell: str) -> Any:
    try:
        return json.loads(cell, parse_constant=str)
    except (ValueError, RecursionError):
        return cell
