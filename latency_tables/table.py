"""LatencyTable: block specs to measured milliseconds on one device, and its JSON and CSV files.

Input from outside is checked row by row; a table that exists is sound. It knows nothing of search spaces but a name.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from latency_tables.calibration import Calibration
from latency_tables.device import MAX_TEXT, DeviceProfile
from latency_tables.errors import InvalidSettingError, TableFormatError
from latency_tables.json_values import finite_number, key_difference, load_json, shown
from latency_tables.table_csv import read_csv, write_csv
from supernet.spaces.blocks import Act, BlockKind, BlockSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Key = TypeVar("Key", int, BlockSpec)
Value = TypeVar("Value")

FORMAT = "tailor-latency-table/1"
STATISTICS = ("median", "mean")
MAX_LATENCY_MS = 1e7
# A sum of energies stays finite: infinity stands for those nobody measured.
MAX_ENERGY_MJ = 1e9
MAX_COUNT = 10**12
# A calibration beyond these would turn estimates and intervals into infinities.
MAX_SLOPE = 1e6
MAX_RATIO = 1e3

_POSITIVE = ("in_size", "in_chs", "mid_chs", "out_chs", "kernel_size", "stride")
_FLAGS = ("shortcut", "norm", "bias")
SPEC_FIELDS = (
    *("kind", "in_size", "in_chs", "mid_chs", "out_chs", "kernel_size", "stride"),
    *("act", "out_act", "se_chs", "shortcut", "norm", "bias"),
)
_HEADER = ("format", "device", "space", "source", "calibration")
_OPTIONAL = ("resolution", "energy_mj")


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
        if not 0 < finite_number(self.statistic, self.value_ms) <= MAX_LATENCY_MS:
            raise TableFormatError(
                f"'{self.statistic}' must be positive and at most {MAX_LATENCY_MS:g} milliseconds, got {self.value_ms}."
            )
        if not 0 <= finite_number("std", self.std_ms) <= MAX_LATENCY_MS:
            raise TableFormatError(f"'std' lies between 0 and {MAX_LATENCY_MS:g} milliseconds, got {self.std_ms}.")
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= MAX_COUNT:
            raise TableFormatError(f"'count' must be a whole number from 1 to {MAX_COUNT}, got {shown(self.count)}.")
        if self.statistic not in STATISTICS:
            raise TableFormatError(f"The statistic must be one of {list(STATISTICS)}, got {self.statistic!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The JSON form `{median or mean, std, count}`."""
        return {self.statistic: self.value_ms, "std": self.std_ms, "count": self.count}

    @classmethod
    def from_dict(cls, data: Any) -> LatencyStats:
        """Read what `to_dict` wrote; raises `TableFormatError` for anything else."""
        if not isinstance(data, dict):
            raise TableFormatError(f"'latency_ms' must be an object such as {{median, std, count}}, got {shown(data)}.")
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
        energy_mj: Energy of a block in millijoules, positive, where known.
        rows_at: By input resolution of the network: rows that hold for it alone and go before those in `rows`.
        energy_mj_at: As `energy_mj`, for `rows_at`.
    """

    device: DeviceProfile
    space: str
    source: Mapping[str, Any]
    rows: Mapping[BlockSpec, LatencyStats]
    calibration: Calibration | None = None
    energy_mj: Mapping[BlockSpec, float] = field(default_factory=dict)
    rows_at: Mapping[int, Mapping[BlockSpec, LatencyStats]] = field(default_factory=dict)
    energy_mj_at: Mapping[int, Mapping[BlockSpec, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse empty tables and values JSON cannot hold; sort the rows."""
        if not isinstance(self.space, str) or not 0 < len(self.space) <= MAX_TEXT or not self.space.isprintable():
            raise TableFormatError(
                f"'space' must be the name of a search space, 1 to {MAX_TEXT} printable characters, got "
                f"{shown(self.space)}."
            )
        if self.calibration is not None:
            _check_calibration(self.calibration)
        for resolution in {**self.rows_at, **self.energy_mj_at}:
            _check_whole("resolution", resolution, least=1)
        for name in ("rows", "energy_mj"):
            object.__setattr__(self, name, _sorted(getattr(self, name)))
        for name in ("rows_at", "energy_mj_at"):
            groups = {key: _sorted(group) for key, group in getattr(self, name).items() if group}
            object.__setattr__(self, name, _sorted(groups))
        if not self.n_rows:
            raise TableFormatError("A latency table needs at least one row.")
        groups_of_energy = [(self.energy_mj, self.rows)]
        groups_of_energy += [(group, self.rows_at.get(size, {})) for size, group in self.energy_mj_at.items()]
        if not all(set(energy) <= set(rows) for energy, rows in groups_of_energy):
            raise TableFormatError("'energy_mj' is known for blocks that have no latency.")
        for energy, _ in groups_of_energy:
            for value_mj in energy.values():
                _check_energy(value_mj)
        try:
            text = json.dumps(dict(self.source), allow_nan=False, ensure_ascii=False)
            text.encode()  # halves of surrogate pairs are valid JSON that no file can hold
            source = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise TableFormatError(f"'source' must be an object of JSON values: {error}.") from error
        object.__setattr__(self, "source", MappingProxyType(source))

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def n_rows(self) -> int:
        """Number of rows, those for one resolution included."""
        return len(self.rows) + sum(map(len, self.rows_at.values()))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hex: the same for the JSON and the CSV of a table."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def rows_fingerprint(self) -> str:
        """The same of space and rows alone, which a recalibration leaves as they are."""
        canonical = json.dumps([self.space, self.to_dict()["rows"]], separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def with_calibration(self, calibration: Calibration | None, **source: Any) -> LatencyTable:
        """The same rows with another calibration, and the given keys added to `source`."""
        return replace(self, calibration=calibration, source={**self.source, **source})

    def stats_of(self, spec: BlockSpec, *, resolution: int) -> LatencyStats | None:
        """Latency of a block in networks of an input resolution: the row for it, else the row for any, else None."""
        at = self.rows_at.get(resolution)
        return self.rows.get(spec) if at is None else at.get(spec) or self.rows.get(spec)

    def energy_of(self, spec: BlockSpec, *, resolution: int) -> float | None:
        """Millijoules of a block, from the row that `stats_of` reads its latency from; None where that row has none."""
        if spec in self.rows_at.get(resolution, {}):
            return self.energy_mj_at.get(resolution, {}).get(spec)
        return self.energy_mj.get(spec)

    def row_groups(self) -> Iterator[tuple[int | None, Mapping[BlockSpec, LatencyStats]]]:
        """Rows by the resolution they hold for: None (any) first, then ascending."""
        yield None, self.rows
        yield from self.rows_at.items()

    def to_dict(self) -> dict[str, Any]:
        """The whole table as JSON values."""
        rows = []
        for resolution, group in self.row_groups():
            energy_mj = self.energy_mj if resolution is None else self.energy_mj_at.get(resolution, {})
            for spec, stats in group.items():
                row = spec_to_dict(spec) | {"latency_ms": stats.to_dict()}
                row |= {} if resolution is None else {"resolution": resolution}
                rows.append(row | {"energy_mj": energy_mj[spec]} if spec in energy_mj else row)
        return self._header() | {"rows": rows}

    def to_json(self) -> str:
        """A JSON document with one line per row, so that differences between versions can be read."""
        data = self.to_dict()
        head = [f"  {json.dumps(key)}: {json.dumps(data[key], ensure_ascii=False)}" for key in _HEADER]
        rows = ",\n".join(f"    {json.dumps(row)}" for row in data["rows"])
        return "{\n" + ",\n".join(head) + ',\n  "rows": [\n' + rows + "\n  ]\n}\n"

    def to_csv(self) -> str:
        """The same table as CSV: `# key: json` lines, then one line per row."""
        return write_csv(self.to_dict(), spec_fields=SPEC_FIELDS)

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
            raise TableFormatError(f"'format' must be {FORMAT!r}, got {shown(data.get('format'))}.")
        unknown, missing = key_difference(data, required=(*_HEADER[:-1], "rows"), optional=("calibration",))
        if unknown or missing:
            raise TableFormatError(f"A table has the keys {[*_HEADER, 'rows']}; unknown {unknown}, missing {missing}.")
        if space is not None and data["space"] != space:
            raise TableFormatError(f"This table is for the space {shown(data['space'])}, expected {space!r}.")
        if not isinstance(data["source"], dict):
            raise TableFormatError(f"'source' must be an object: who measured, how; got {shown(data['source'])}.")
        if not isinstance(data["rows"], list):
            raise TableFormatError(f"'rows' must be a list, got {type(data['rows']).__name__}.")
        rows: dict[int | None, dict[BlockSpec, LatencyStats]] = {None: {}}
        energy_mj: dict[int | None, dict[BlockSpec, float]] = {None: {}}
        numbers: dict[tuple[int | None, BlockSpec], int] = {}
        for number, row in enumerate(data["rows"], 1):
            try:
                resolution, spec, stats, energy = _read_row(row)
            except TableFormatError as error:
                raise TableFormatError(f"Row {number}: {error}", row=number) from error
            first = numbers.setdefault((resolution, spec), number)
            if first != number:
                raise TableFormatError(
                    f"Row {number} repeats the block of row {first}; keep one row per block and resolution.", row=number
                )
            rows.setdefault(resolution, {})[spec] = stats
            if energy is not None:
                energy_mj.setdefault(resolution, {})[spec] = energy
        calibration = data.get("calibration")
        return cls(
            device=DeviceProfile.from_dict(data["device"]),
            space=data["space"],
            source=data["source"],
            rows=rows.pop(None),
            calibration=None if calibration is None else Calibration.from_dict(calibration),
            energy_mj=energy_mj.pop(None),
            rows_at={size: group for size, group in rows.items() if size is not None},
            energy_mj_at={size: group for size, group in energy_mj.items() if size is not None},
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
    data = load_json(text, "table") if text.lstrip().startswith(("{", "[")) else read_csv(text, spec_fields=SPEC_FIELDS)
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
        InvalidSettingError: Another ending, or a folder that does not exist.
    """
    target = Path(path)
    if target.suffix not in (".json", ".csv"):
        raise InvalidSettingError(f"A latency table is saved as .json or .csv, got {target.name!r}.")
    if not target.parent.is_dir():
        raise InvalidSettingError(f"'{target}' cannot be written: there is no folder '{target.parent}'.")
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
        raise TableFormatError(f"A block spec is an object with the keys {list(SPEC_FIELDS)}, got {shown(data)}.")
    unknown, missing = key_difference(data, required=SPEC_FIELDS)
    if unknown or missing:
        raise TableFormatError(f"A block spec has the keys {list(SPEC_FIELDS)}; unknown {unknown}, missing {missing}.")
    for name in (*_POSITIVE, "se_chs"):
        _check_whole(name, data[name], least=0 if name == "se_chs" else 1)
    if data["kernel_size"] % 2 == 0:
        raise TableFormatError(f"'kernel_size' must be odd, got {data['kernel_size']}.")
    for name in _FLAGS:
        if not isinstance(data[name], bool):
            raise TableFormatError(f"'{name}' must be true or false, got {shown(data[name])}.")
    members: dict[str, BlockKind | Act] = {}
    for name, choices in (("kind", BlockKind), ("act", Act), ("out_act", Act)):
        allowed = [str(choice) for choice in choices]
        if data[name] not in allowed:
            raise TableFormatError(f"'{name}' must be one of {allowed}, got {shown(data[name])}.")
        members[name] = choices(data[name])
    return BlockSpec(**{**data, **members})


def _read_row(row: Any) -> tuple[int | None, BlockSpec, LatencyStats, float | None]:
    if not isinstance(row, dict):
        raise TableFormatError(f"a row is an object, got {shown(row)}.")
    required = (*SPEC_FIELDS, "latency_ms")
    unknown, missing = key_difference(row, required=required, optional=_OPTIONAL)
    if unknown or missing:
        raise TableFormatError(
            f"a row has the keys {list(required)} and may have {list(_OPTIONAL)}; unknown {unknown}, missing "
            f"{missing}. Latencies are in milliseconds."
        )
    resolution, energy = row.get("resolution"), row.get("energy_mj")
    if resolution is not None:
        _check_whole("resolution", resolution, least=1)
    if energy is not None:
        _check_energy(energy)
    spec = spec_from_dict({name: row[name] for name in SPEC_FIELDS})
    return resolution, spec, LatencyStats.from_dict(row["latency_ms"]), energy


def _check_calibration(calibration: Calibration) -> None:
    largest = {"call_ms": MAX_LATENCY_MS, "per_block_ms": MAX_LATENCY_MS, "slope": MAX_SLOPE}
    for name, most in largest.items():
        if abs(value := getattr(calibration, name)) > most:
            raise TableFormatError(f"'{name}' of a calibration must be at most {most:g} in size, got {shown(value)}.")
    for ratio in calibration.residuals:
        if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
            raise TableFormatError(
                f"'residuals' of a calibration are measured over estimated latencies from {1 / MAX_RATIO:g} to "
                f"{MAX_RATIO:g}, got {ratio!r}."
            )


def _check_energy(value_mj: Any) -> None:
    if not 0 < finite_number("energy_mj", value_mj) <= MAX_ENERGY_MJ:
        raise TableFormatError(
            f"'energy_mj' must be positive and at most {MAX_ENERGY_MJ:g} millijoules, got {shown(value_mj)}."
        )


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**6:
        raise TableFormatError(f"'{name}' must be a whole number from {least} to 1000000, got {shown(value)}.")


def _sorted(mapping: Mapping[Key, Value]) -> Mapping[Key, Value]:
    return MappingProxyType(dict(sorted(mapping.items(), key=itemgetter(0))))
