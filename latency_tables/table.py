"""LatencyTable: block specs to measured milliseconds on one device, and its JSON and CSV files.

Input from outside is checked row by row; a table that exists is sound. It knows nothing of search spaces but a name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from latency_tables.calibration import Calibration
from latency_tables.device import DeviceProfile
from latency_tables.errors import InvalidSettingError, TableFormatError
from supernet.spaces.blocks import Act, BlockKind, BlockSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "tailor-latency-table/1"
STATISTICS = ("median", "mean")
MAX_LATENCY_MS = 1e7

_POSITIVE = ("in_size", "in_chs", "mid_chs", "out_chs", "kernel_size", "stride")
_FLAGS = ("shortcut", "norm", "bias")
SPEC_FIELDS = (
    *("kind", "in_size", "in_chs", "mid_chs", "out_chs", "kernel_size", "stride"),
    *("act", "out_act", "se_chs", "shortcut", "norm", "bias"),
)
_HEADER = ("format", "device", "space", "source", "calibration")
_CSV_VALUES = ("statistic", "latency_ms", "std_ms", "count")


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """Time of one block or network.

    Attributes:
        value_ms: Milliseconds, positive.
        std_ms: Spread of the value between repetitions, milliseconds.
        count: Runs that were timed.
        statistic: What `value_ms` is: `median` or `mean`.
    """

    value_ms: float
    std_ms: float = 0.0
    count: int = 1
    statistic: str = "median"

    def __post_init__(self) -> None:
        """Refuse what no clock can show."""
        if not 0 < _finite(self.statistic, self.value_ms) <= MAX_LATENCY_MS:
            raise TableFormatError(
                f"'{self.statistic}' must be positive and at most {MAX_LATENCY_MS:g} milliseconds, got {self.value_ms}."
            )
        if _finite("std", self.std_ms) < 0:
            raise TableFormatError(f"'std' must not be negative, got {self.std_ms}.")
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise TableFormatError(f"'count' must be a whole number from 1, got {self.count!r}.")
        if self.statistic not in STATISTICS:
            raise TableFormatError(f"The statistic must be one of {list(STATISTICS)}, got {self.statistic!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The JSON form `{median or mean, std, count}`."""
        return {self.statistic: self.value_ms, "std": self.std_ms, "count": self.count}

    @classmethod
    def from_dict(cls, data: Any) -> LatencyStats:
        """Read what `to_dict` wrote; raises `TableFormatError` for anything else."""
        if not isinstance(data, dict):
            raise TableFormatError(f"'latency_ms' must be an object such as {{median, std, count}}, got {data!r}.")
        given = [name for name in STATISTICS if name in data]
        if len(given) != 1 or set(data) != {*given, "std", "count"}:
            raise TableFormatError(
                f"'latency_ms' has exactly one of {list(STATISTICS)} and 'std', 'count'; got the keys {sorted(data)}."
            )
        return cls(data[given[0]], data["std"], data["count"], given[0])


@dataclass(frozen=True)
class LatencyTable:
    """Measured blocks of one search space on one device; immutable.

    Attributes:
        device: Where it was measured.
        space: Name of the search space.
        source: Who measured, when, how, under which licence; JSON values.
        rows: Latency of each block at the device's batch size, the cost of a call taken off.
        calibration: How sums of rows relate to whole networks; None where nobody measured any.
        energy_mj: Energy of a block in millijoules, where known.
    """

    device: DeviceProfile
    space: str
    source: Mapping[str, Any]
    rows: Mapping[BlockSpec, LatencyStats]
    calibration: Calibration | None = None
    energy_mj: Mapping[BlockSpec, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse empty tables and values JSON cannot hold; sort the rows."""
        if not isinstance(self.space, str) or not self.space:
            raise TableFormatError(f"'space' must be the name of a search space, got {self.space!r}.")
        if not self.rows:
            raise TableFormatError("A latency table needs at least one row.")
        if not set(self.energy_mj) <= set(self.rows):
            raise TableFormatError("'energy_mj' is known for blocks that have no latency.")
        try:
            source = json.loads(json.dumps(dict(self.source), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise TableFormatError(f"'source' must be an object of JSON values: {error}.") from error
        object.__setattr__(self, "source", MappingProxyType(source))
        object.__setattr__(self, "rows", MappingProxyType(dict(sorted(self.rows.items()))))
        object.__setattr__(self, "energy_mj", MappingProxyType(dict(sorted(self.energy_mj.items()))))

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hex: the same for the JSON and the CSV of a table."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def with_calibration(self, calibration: Calibration | None, **source: Any) -> LatencyTable:
        """The same rows with another calibration, and the given keys added to `source`."""
        return replace(self, calibration=calibration, source={**self.source, **source})

    def to_dict(self) -> dict[str, Any]:
        """The whole table as JSON values."""
        rows = []
        for spec, stats in self.rows.items():
            row = spec_to_dict(spec) | {"latency_ms": stats.to_dict()}
            rows.append(row | {"energy_mj": self.energy_mj[spec]} if spec in self.energy_mj else row)
        return self._header() | {"rows": rows}

    def to_json(self) -> str:
        """A JSON document with one line per row, so that differences between versions can be read."""
        data = self.to_dict()
        head = [f"  {json.dumps(key)}: {json.dumps(data[key], ensure_ascii=False)}" for key in _HEADER]
        rows = ",\n".join(f"    {json.dumps(row)}" for row in data["rows"])
        return "{\n" + ",\n".join(head) + ',\n  "rows": [\n' + rows + "\n  ]\n}\n"

    def to_csv(self) -> str:
        """The same table as CSV: `# key: json` lines, then one line per row."""
        lines = [f"# {key}: {json.dumps(value)}\n" for key, value in self._header().items()]
        text = io.StringIO()
        columns = [*SPEC_FIELDS, *_CSV_VALUES, *(["energy_mj"] if self.energy_mj else [])]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for spec, stats in self.rows.items():
            cells = {name: _cell(value) for name, value in spec_to_dict(spec).items()}
            cells |= {"statistic": stats.statistic, "count": str(stats.count)}
            cells |= {"latency_ms": repr(stats.value_ms), "std_ms": repr(stats.std_ms)}
            if self.energy_mj:
                cells["energy_mj"] = repr(self.energy_mj[spec]) if spec in self.energy_mj else ""
            writer.writerow(cells)
        return "".join(lines) + text.getvalue()

    @classmethod
    def from_dict(cls, data: Any, *, space: str | None = None) -> LatencyTable:
        """Read what `to_dict` wrote.

        Args:
            data: From a JSON document.
            space: Name the table must carry; None accepts any.

        Raises:
            TableFormatError: Anything is unknown, missing, doubled, of the wrong type or range; names the row.
        """
        if not isinstance(data, dict):
            raise TableFormatError(f"A latency table is a JSON object, got {type(data).__name__}.")
        if data.get("format") != FORMAT:
            raise TableFormatError(f"'format' must be {FORMAT!r}, got {data.get('format')!r}.")
        unknown, missing = _difference(data, required=(*_HEADER[:-1], "rows"), optional=("calibration",))
        if unknown or missing:
            raise TableFormatError(f"A table has the keys {[*_HEADER, 'rows']}; unknown {unknown}, missing {missing}.")
        if space is not None and data["space"] != space:
            raise TableFormatError(f"This table is for the space {data['space']!r}, expected {space!r}.")
        if not isinstance(data["source"], dict):
            raise TableFormatError(f"'source' must be an object: who measured, when, how; got {data['source']!r}.")
        if not isinstance(data["rows"], list):
            raise TableFormatError(f"'rows' must be a list, got {type(data['rows']).__name__}.")
        rows: dict[BlockSpec, LatencyStats] = {}
        numbers: dict[BlockSpec, int] = {}
        energy_mj: dict[BlockSpec, float] = {}
        for number, row in enumerate(data["rows"], 1):
            try:
                spec, stats, energy = _read_row(row)
            except TableFormatError as error:
                raise TableFormatError(f"Row {number}: {error}", row=number) from error
            if spec in rows:
                raise TableFormatError(
                    f"Row {number} repeats the block of row {numbers[spec]}; keep one row per block.", row=number
                )
            rows[spec], numbers[spec] = stats, number
            if energy is not None:
                energy_mj[spec] = energy
        calibration = data.get("calibration")
        return cls(
            device=DeviceProfile.from_dict(data["device"]),
            space=data["space"],
            source=data["source"],
            rows=rows,
            calibration=None if calibration is None else Calibration.from_dict(calibration),
            energy_mj=energy_mj,
        )

    def _header(self) -> dict[str, Any]:
        calibration = None if self.calibration is None else self.calibration.to_dict()
        values = (FORMAT, self.device.to_dict(), self.space, dict(self.source), calibration)
        return dict(zip(_HEADER, values, strict=True))


def parse_table(text: str, *, space: str | None = None) -> LatencyTable:
    """Read a table from the text of a JSON document or, if it does not start with a brace, of a CSV file.

    Args:
        text: Of a whole file.
        space: Name the table must carry; None accepts any.

    Raises:
        TableFormatError: See `LatencyTable.from_dict`; or the text is neither JSON nor CSV.
    """
    text = text.removeprefix("\ufeff")
    data = _load_json(text, "table") if text.lstrip().startswith(("{", "[")) else _read_csv(text)
    return LatencyTable.from_dict(data, space=space)


def load_table(path: str | os.PathLike[str], *, space: str | None = None) -> LatencyTable:
    """Read a table from a JSON or CSV file; see `parse_table`. The file's name does not matter.

    Raises:
        TableFormatError: As `parse_table`, with the path in front.
        OSError: The file cannot be read.
    """
    try:
        return parse_table(Path(path).read_bytes().decode(), space=space)
    except UnicodeDecodeError as error:
        raise TableFormatError(f"{path}: this is no UTF-8 text: {error}.") from error
    except TableFormatError as error:
        raise TableFormatError(f"{path}: {error}", row=error.row) from error


def save_table(table: LatencyTable, path: str | os.PathLike[str]) -> None:
    """Write a table as JSON or CSV, by the ending of `path`. The file appears whole or not at all.

    Raises:
        InvalidSettingError: Another ending.
    """
    target = Path(path)
    if target.suffix not in (".json", ".csv"):
        raise InvalidSettingError(f"A latency table is saved as .json or .csv, got {target.name!r}.")
    text = table.to_json() if target.suffix == ".json" else table.to_csv()
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def spec_to_dict(spec: BlockSpec) -> dict[str, Any]:
    """The fields of a block spec as JSON values, in the order of the class."""
    return {name: str(value) if isinstance(value := getattr(spec, name), str) else value for name in SPEC_FIELDS}


def spec_from_dict(data: Any) -> BlockSpec:
    """Read what `spec_to_dict` wrote.

    Raises:
        TableFormatError: A key is unknown or missing, or a value has the wrong type or range.
    """
    if not isinstance(data, dict):
        raise TableFormatError(f"A block spec is an object with the keys {list(SPEC_FIELDS)}, got {data!r}.")
    unknown, missing = _difference(data, required=SPEC_FIELDS)
    if unknown or missing:
        raise TableFormatError(f"A block spec has the keys {list(SPEC_FIELDS)}; unknown {unknown}, missing {missing}.")
    for name in (*_POSITIVE, "se_chs"):
        value, least = data[name], 0 if name == "se_chs" else 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**6:
            raise TableFormatError(f"'{name}' must be a whole number from {least} to 1000000, got {value!r}.")
    if data["kernel_size"] % 2 == 0:
        raise TableFormatError(f"'kernel_size' must be odd, got {data['kernel_size']}.")
    for name in _FLAGS:
        if not isinstance(data[name], bool):
            raise TableFormatError(f"'{name}' must be true or false, got {data[name]!r}.")
    members: dict[str, BlockKind | Act] = {}
    for name, choices in (("kind", BlockKind), ("act", Act), ("out_act", Act)):
        allowed = [str(choice) for choice in choices]
        if data[name] not in allowed:
            raise TableFormatError(f"'{name}' must be one of {allowed}, got {data[name]!r}.")
        members[name] = choices(data[name])
    return BlockSpec(**{**data, **members})


def _read_row(row: Any) -> tuple[BlockSpec, LatencyStats, float | None]:
    if not isinstance(row, dict):
        raise TableFormatError(f"a row is an object, got {row!r}.")
    unknown, missing = _difference(row, required=(*SPEC_FIELDS, "latency_ms"), optional=("energy_mj",))
    if unknown or missing:
        raise TableFormatError(
            f"a row has the keys {[*SPEC_FIELDS, 'latency_ms']} and may have 'energy_mj'; unknown {unknown}, missing "
            f"{missing}. Latencies are in milliseconds."
        )
    energy = row.get("energy_mj")
    if energy is not None and _finite("energy_mj", energy) <= 0:
        raise TableFormatError(f"'energy_mj' must be positive, got {energy!r}.")
    spec = spec_from_dict({name: row[name] for name in SPEC_FIELDS})
    return spec, LatencyStats.from_dict(row["latency_ms"]), energy


def _read_csv(text: str) -> dict[str, Any]:
    """Turn CSV into the JSON form; cells keep their text where they are no JSON, for the row's own error."""
    lines = text.splitlines()
    data: dict[str, Any] = {}
    while lines and lines[0].startswith("#"):
        key, _, value = lines.pop(0).removeprefix("#").strip().partition(":")
        if key in data:
            raise TableFormatError(f"The CSV line '# {key}: …' occurs twice.")
        data[key] = _load_json(value, f"CSV line '# {key}: …'")
    if "format" not in data:
        raise TableFormatError(f"This is neither a JSON table nor a CSV that starts with '# format: \"{FORMAT}\"'.")
    reader = csv.DictReader(lines, strict=True)
    rows = []
    try:
        columns = list(reader.fieldnames or [])
        unknown, missing = _difference(
            dict.fromkeys(columns), required=(*SPEC_FIELDS, *_CSV_VALUES), optional=("energy_mj",)
        )
        if unknown or missing or len(columns) != len(set(columns)):
            raise TableFormatError(
                f"The columns of a CSV table are {[*SPEC_FIELDS, *_CSV_VALUES]} and may have 'energy_mj'; unknown "
                f"{unknown}, missing {missing}. Latencies are in milliseconds."
            )
        for number, cells in enumerate(reader, 1):
            if None in cells or None in cells.values():
                raise TableFormatError(f"Row {number}: it needs {len(columns)} cells.", row=number)
            rows.append(_row_of_cells(cells))
    except csv.Error as error:
        raise TableFormatError(f"This CSV cannot be read: {error}.") from error
    return data | {"rows": rows}


def _row_of_cells(cells: dict[str, str]) -> dict[str, Any]:
    texts = ("kind", "act", "out_act")
    row: dict[str, Any] = {name: cells[name] if name in texts else _value(cells[name]) for name in SPEC_FIELDS}
    stats = {"std": _value(cells["std_ms"]), "count": _value(cells["count"])}
    row["latency_ms"] = {cells["statistic"]: _value(cells["latency_ms"])} | stats
    if cells.get("energy_mj"):
        row["energy_mj"] = _value(cells["energy_mj"])
    return row


def _cell(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _value(cell: str) -> Any:
    try:
        return json.loads(cell, parse_constant=str)
    except (ValueError, RecursionError):
        return cell


def _load_json(text: str, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise TableFormatError(f"This {what} is no JSON: {error}.") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError(f"a key occurs twice among {[key for key, _ in pairs]}")
    return data


def _difference(
    data: Mapping[Any, Any], *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    unknown = sorted(str(key) for key in data if key not in required and key not in optional)
    return unknown, [key for key in required if key not in data]


def _finite(name: str, value: Any) -> float:
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or (isinstance(value, int) and abs(value) > 10**15) or not isfinite(value):
        raise TableFormatError(f"'{name}' must be a finite number, got {value!r}.")
    return float(value)
