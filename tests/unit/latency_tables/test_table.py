from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latency_tables.calibration import Calibration
from latency_tables.device import DeviceProfile
from latency_tables.errors import InvalidSettingError, LatencyError, TableFormatError
from latency_tables.table import (
    SPEC_FIELDS,
    LatencyStats,
    LatencyTable,
    load_table,
    parse_table,
    save_table,
    spec_from_dict,
    spec_to_dict,
)
from supernet.spaces.blocks import BlockSpec
from supernet.spaces.space import SearchSpace

Edit = Callable[[dict[str, Any]], None]


def edited(table: LatencyTable, edit: Edit) -> str:
    data = json.loads(table.to_json())
    edit(data)
    return json.dumps(data)


def set_row(number: int, **change: Any) -> Edit:
    return lambda data: data["rows"][number - 1].update(change)


def set_stats(number: int, stats: Any) -> Edit:
    return set_row(number, latency_ms=stats)


def test_spec_fields_are_all_fields_of_a_block_spec() -> None:
    assert tuple(BlockSpec.__dataclass_fields__) == SPEC_FIELDS


def test_every_block_survives_its_dict(small_space: SearchSpace) -> None:
    for spec in small_space.distinct_blocks():
        assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec


def test_file_carries_format_units_and_typed_fields(table: LatencyTable) -> None:
    data = json.loads(table.to_json())
    assert data["format"] == "tailor-latency-table/1"
    assert data["device"]["device_id"] == "board-1t"
    assert data["space"] == "small"
    assert data["calibration"] is None
    row = data["rows"][0]
    assert row["kind"] == "conv"
    assert row["shortcut"] is False
    assert set(row["latency_ms"]) == {"median", "std", "count"}


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_saved_table_is_the_same_table(table: LatencyTable, tmp_path: Path, suffix: str) -> None:
    first = next(iter(table.rows))
    full = replace(
        table,
        calibration=Calibration(0.01, 0.0, 1.1, (0.9, 1.1)),
        energy_mj={first: 0.25},
        source={"who": 'é, "x"\n'},
        rows_at={16: {first: LatencyStats(0.5)}, 24: {first: LatencyStats(0.75, 0.1, 7, "mean")}},
        energy_mj_at={24: {first: 0.5}},
    )
    save_table(full, tmp_path / f"table{suffix}")
    loaded = load_table(tmp_path / f"table{suffix}", space="small")
    assert loaded == full
    assert loaded.fingerprint == full.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == [f"table{suffix}"]


def test_format_is_told_by_content_not_by_name(table: LatencyTable, tmp_path: Path) -> None:
    (tmp_path / "table.txt").write_text("\ufeff" + table.to_csv())
    assert load_table(tmp_path / "table.txt") == table


def test_csv_with_windows_line_ends_is_read(table: LatencyTable) -> None:
    assert parse_table(table.to_csv().replace("\n", "\r\n")) == table


def test_csv_with_empty_lines_is_read(table: LatencyTable) -> None:
    assert parse_table("\n" + table.to_csv().replace("\n", "\n\n")) == table


def test_errors_stay_short_whatever_was_given(table: LatencyTable) -> None:
    for value in ("x" * 10**6, [[1] * 10**5] * 3, 10**4000):
        with pytest.raises(TableFormatError) as caught:
            parse_table(edited(table, set_row(3, in_chs=value)))
        assert len(str(caught.value)) < 300


def test_means_and_medians_may_be_mixed(table: LatencyTable) -> None:
    first = next(iter(table.rows))
    mixed = replace(table, rows={**table.rows, first: LatencyStats(0.5, 0.1, 7, "mean")})
    assert parse_table(mixed.to_json()) == mixed == parse_table(mixed.to_csv())


def test_fingerprint_depends_on_every_part_but_not_on_the_order_of_rows(table: LatencyTable) -> None:
    rows = dict(reversed(table.rows.items()))
    assert replace(table, rows=rows).fingerprint == table.fingerprint
    assert hash(replace(table, rows=rows)) == hash(table)
    first = next(iter(rows))
    others = [
        replace(table, rows={**rows, first: replace(rows[first], value_ms=rows[first].value_ms * 2)}),
        replace(table, source={"method": "another"}),
        replace(table, calibration=Calibration(0.01)),
        replace(table, device=replace(table.device, threads=2)),
        replace(table, space="other"),
        replace(table, energy_mj={first: 1.0}),
        replace(table, rows_at={16: {first: rows[first]}}),
        replace(table, rows_at={24: {first: rows[first]}}),
        replace(table, rows_at={24: {first: rows[first]}}, energy_mj_at={24: {first: 1.0}}),
    ]
    assert len({table.fingerprint, *(other.fingerprint for other in others)}) == 10
    assert replace(table, rows_at={16: {}}) == table


def test_tables_without_resolutions_keep_their_keys_and_columns(table: LatencyTable) -> None:
    assert all(set(row) == {*SPEC_FIELDS, "latency_ms"} for row in table.to_dict()["rows"])
    header = next(line for line in table.to_csv().splitlines() if not line.startswith("#"))
    assert header.split(",") == [*SPEC_FIELDS, "statistic", "latency_ms", "std_ms", "count"]


def test_a_row_may_name_the_resolution_it_holds_for(table: LatencyTable) -> None:
    first, *_ = table.rows
    text = edited(
        table, lambda data: data["rows"].extend([data["rows"][0] | {"resolution": size} for size in (24, 16)])
    )
    read = parse_table(text)
    assert read.rows == table.rows
    assert read.rows_at == {16: {first: table.rows[first]}, 24: {first: table.rows[first]}}
    assert read.n_rows == table.n_rows + 2
    assert [row.get("resolution") for row in read.to_dict()["rows"][-3:]] == [None, 16, 24]
    assert parse_table(edited(table, set_row(1, resolution=None))) == table
    csv_rows = [line for line in read.to_csv().splitlines() if not line.startswith("#")]
    assert csv_rows[0].endswith(",resolution")
    assert csv_rows[1].endswith(",")
    assert csv_rows[-1].endswith(",24")


def test_the_row_for_the_resolution_goes_before_the_row_for_any(table: LatencyTable) -> None:
    first, second, *_ = table.rows
    special = LatencyStats(5.0)
    placed = replace(table, rows={first: table.rows[first]}, rows_at={16: {first: special, second: special}})
    assert placed.stats_of(first, resolution=16) == special
    assert placed.stats_of(first, resolution=24) == table.rows[first]
    assert placed.stats_of(second, resolution=16) == special
    assert placed.stats_of(second, resolution=24) is None


def test_a_table_cannot_be_changed(table: LatencyTable) -> None:
    first = next(iter(table.rows))
    with pytest.raises(TypeError):
        table.rows[first] = LatencyStats(1.0)  # type: ignore[index]
    with pytest.raises(TypeError):
        replace(table, rows_at={16: table.rows}).rows_at[16][first] = LatencyStats(1.0)  # type: ignore[index]
    with pytest.raises(TypeError):
        table.source["who"] = "me"  # type: ignore[index]


def test_source_is_the_callers_copy(device: DeviceProfile, table: LatencyTable) -> None:
    notes = ["a"]
    copied = replace(table, source={"notes": notes})
    notes.append("b")
    assert copied.source["notes"] == ["a"]


BAD_ROWS: dict[str, tuple[Edit, str]] = {
    "negative": (set_stats(3, {"median": -1.0, "std": 0, "count": 1}), "positive"),
    "zero": (set_stats(3, {"median": 0, "std": 0, "count": 1}), "positive"),
    "text": (set_stats(3, {"median": "1.0", "std": 0, "count": 1}), "finite number"),
    "bool": (set_stats(3, {"median": True, "std": 0, "count": 1}), "finite number"),
    "huge": (set_stats(3, {"median": 10**400, "std": 0, "count": 1}), "finite number"),
    "above an hour": (set_stats(3, {"median": 1e9, "std": 0, "count": 1}), "milliseconds"),
    "negative spread": (set_stats(3, {"median": 1, "std": -0.1, "count": 1}), "std"),
    "no runs": (set_stats(3, {"median": 1, "std": 0, "count": 0}), "count"),
    "absurdly many runs": (set_stats(3, {"median": 1, "std": 0, "count": 10**400}), "count"),
    "half a run": (set_stats(3, {"median": 1, "std": 0, "count": 1.5}), "count"),
    "two statistics": (set_stats(3, {"median": 1, "mean": 1, "std": 0, "count": 1}), "exactly one"),
    "no statistic": (set_stats(3, {"std": 0, "count": 1}), "exactly one"),
    "plain number": (set_stats(3, 1.0), "object"),
    "other statistic": (set_stats(3, {"p90": 1, "std": 0, "count": 1}), "exactly one"),
    "microseconds": (set_row(3, latency_us=1.0), r"unknown \['latency_us'\].*milliseconds"),
    "missing key": (lambda data: data["rows"][2].pop("stride"), r"missing \['stride'\]"),
    "missing latency": (lambda data: data["rows"][2].pop("latency_ms"), r"missing \['latency_ms'\]"),
    "no object": (lambda data: data["rows"].__setitem__(2, [1]), "object"),
    "null": (lambda data: data["rows"].__setitem__(2, None), "object"),
    "kind": (set_row(3, kind="lstm"), "'kind' must be one of"),
    "act": (set_row(3, act="gelu"), "'act' must be one of"),
    "unhashable act": (set_row(3, act=["relu"]), "'act' must be one of"),
    "even kernel": (set_row(3, kernel_size=4), "odd"),
    "zero stride": (set_row(3, stride=0), "stride"),
    "float size": (set_row(3, in_size=16.0), "in_size"),
    "bool size": (set_row(3, in_size=True), "in_size"),
    "negative se": (set_row(3, se_chs=-8), "se_chs"),
    "int flag": (set_row(3, shortcut=1), "true or false"),
    "negative energy": (set_row(3, energy_mj=-1.0), "'energy_mj' must be positive"),
    "no energy at all": (set_row(3, energy_mj=0), "'energy_mj' must be positive"),
    "endless energy": (set_row(3, energy_mj=1e300), "at most 1e[+]09 millijoules"),
    "text energy": (set_row(3, energy_mj="1.5"), "'energy_mj' must be a finite number"),
    "duplicate": (lambda data: data["rows"].__setitem__(2, data["rows"][0]), "repeats the block of row 1"),
    "duplicate at a resolution": (
        lambda data: data["rows"].__setitem__(slice(0, 3), [data["rows"][0] | {"resolution": r} for r in (8, 16, 16)]),
        "repeats the block of row 2",
    ),
    "text resolution": (set_row(3, resolution="160"), "'resolution' must be a whole number"),
    "bool resolution": (set_row(3, resolution=True), "'resolution' must be a whole number"),
    "float resolution": (set_row(3, resolution=160.0), "'resolution' must be a whole number"),
    "zero resolution": (set_row(3, resolution=0), "'resolution' must be a whole number"),
}


@pytest.mark.parametrize(("edit", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_its_number(table: LatencyTable, edit: Edit, message: str) -> None:
    with pytest.raises(TableFormatError, match=f"(?s)Row 3.*{message}") as caught:
        parse_table(edited(table, edit))
    assert caught.value.row == 3


def calibration(**changes: Any) -> dict[str, Any]:
    return {"call_ms": 0.0, "per_block_ms": 0.0, "slope": 1.0, "residuals": []} | changes


BAD_TABLES: dict[str, tuple[Edit, str]] = {
    "newer format": (lambda data: data.update(format="tailor-latency-table/2"), "format.*tailor-latency-table/1"),
    "no format": (lambda data: data.pop("format"), "format"),
    "unknown key": (lambda data: data.update(units="us"), r"unknown \['units'\]"),
    "no source": (lambda data: data.pop("source"), r"missing \['source'\]"),
    "source is text": (lambda data: data.update(source="me"), "source"),
    "no rows": (lambda data: data.update(rows=[]), "at least one row"),
    "rows by key": (lambda data: data.update(rows={}), "list"),
    "no space": (lambda data: data.update(space=""), "space"),
    "space is a number": (lambda data: data.update(space=3), "space"),
    "space is half a surrogate pair": (lambda data: data.update(space="\ud800"), "'space'.*printable"),
    "space is a book": (lambda data: data.update(space="x" * 1000), "'space'.*1 to 200"),
    "source holds half a surrogate pair": (lambda data: data.update(source={"x": "\ud800"}), "'source'.*surrogates"),
    "slope": (lambda data: data.update(calibration=calibration(slope=1e308)), "'slope'.*at most 1e\\+06"),
    "call": (lambda data: data.update(calibration=calibration(call_ms=1e299)), "'call_ms'.*at most 1e\\+07"),
    "residuals": (lambda data: data.update(calibration=calibration(residuals=[1e-320, 1e300])), "'residuals'.*0.001"),
    "device": (lambda data: data["device"].pop("chip"), "chip"),
    "calibration": (lambda data: data.update(calibration={"slope": 1}), "calibration"),
}


@pytest.mark.parametrize(("edit", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_head_is_refused(table: LatencyTable, edit: Edit, message: str) -> None:
    with pytest.raises(TableFormatError, match=f"(?s){message}"):
        parse_table(edited(table, edit))


def test_another_space_than_expected_is_refused(table: LatencyTable) -> None:
    with pytest.raises(TableFormatError, match=r"'small', expected 'cifar_mbv3'"):
        parse_table(table.to_json(), space="cifar_mbv3")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "hello", "{}", '{"format": NaN}', "[" * 100_000, "kind,in_size\n"),
        *('# format: "tailor-latency-table/1"\n', '# format: "tailor-latency-table/1"\nkind,in_size\nconv,1\n'),
        '{"format": "tailor-latency-table/1", "format": "tailor-latency-table/1"}',
    ],
)
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(TableFormatError):
        parse_table(text)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_latencies_that_are_no_number_are_refused(table: LatencyTable, constant: str) -> None:
    stats = next(iter(table.rows.values()))
    with pytest.raises(TableFormatError):
        parse_table(table.to_json().replace(f'"median": {stats.value_ms!r}', f'"median": {constant}', 1))
    with pytest.raises(TableFormatError, match="Row"):
        parse_table(table.to_csv().replace(f"median,{stats.value_ms!r}", f"median,{constant}", 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("latency_ms,std_ms", "latency_us,std_ms", r"unknown \['latency_us'\]"),
        ("kind,in_size", "kind,kind", "missing"),
        (",false,true,false,median,", ",false,yes,false,median,", "Row 1: 'norm'"),
        (",median,", ",p50,", "Row 1"),
        (",median,", ",median,1,", "Row 1: it needs"),
        ("conv,16,", "conv,16.5,", "Row 1: 'in_size'"),
        ("# space:", "# spaces:", "unknown"),
        ('# space: "small"\n', '# space: "small"\n# space: "small"\n', "twice"),
        ('# space: "small"', "# space: small", "no JSON"),
        ("# space:", "# rows: []\n# space:", "'# rows: …' is not allowed"),
    ],
)
def test_a_bad_csv_is_refused(table: LatencyTable, old: str, new: str, message: str) -> None:
    text = table.to_csv()
    assert old in text
    with pytest.raises(TableFormatError, match=message):
        parse_table(text.replace(old, new, 1))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableFormatError, match=r"t\.json"):
        load_table(tmp_path / "t.json")
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path / "absent.json")


def test_saving_to_another_ending_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"\.json or \.csv"):
        save_table(table, tmp_path / "table.pkl")
    assert not list(tmp_path.iterdir())


def test_saving_into_a_folder_that_is_not_there_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"absent/t\.json' cannot be written: there is no folder"):
        save_table(table, tmp_path / "absent" / "t.json")


@pytest.mark.parametrize("source", [{"x": float("nan")}, {"x": object()}])
def test_a_source_json_cannot_hold_is_refused(table: LatencyTable, source: dict[str, Any]) -> None:
    with pytest.raises(TableFormatError, match="source"):
        replace(table, source=source)


def test_energy_needs_a_row(table: LatencyTable) -> None:
    first, *_ = table.rows
    with pytest.raises(TableFormatError, match="energy"):
        replace(table, energy_mj={replace(first, in_size=999): 1.0})
    with pytest.raises(TableFormatError, match="energy"):
        replace(table, energy_mj_at={16: {first: 1.0}})


@pytest.mark.parametrize("energy", [0.0, -1.0, float("nan"), float("inf"), 2e9, "1"])
def test_an_energy_is_positive_and_finite(table: LatencyTable, energy: Any) -> None:
    first, *_ = table.rows
    with pytest.raises(TableFormatError, match="'energy_mj' must be"):
        replace(table, energy_mj={first: energy})
    with pytest.raises(TableFormatError, match="'energy_mj' must be"):
        replace(table, rows_at={16: {first: table.rows[first]}}, energy_mj_at={16: {first: energy}})


def test_energy_is_that_of_the_row_for_the_resolution(table: LatencyTable) -> None:
    first, second, third, *_ = table.rows
    special = replace(
        table,
        energy_mj={first: 1.0, second: 2.0},
        rows_at={16: {first: LatencyStats(0.5), second: LatencyStats(0.5)}},
        energy_mj_at={16: {first: 3.0}},
    )
    asked = [(spec, resolution) for spec in (first, second, third) for resolution in (16, 24)]
    energies = [special.energy_of(spec, resolution=resolution) for spec, resolution in asked]
    assert energies == [3.0, 1.0, None, 2.0, None, None]


@pytest.mark.parametrize("resolution", [0, -1, "16", 16.0, True])
def test_a_resolution_is_a_whole_number(table: LatencyTable, resolution: Any) -> None:
    with pytest.raises(TableFormatError, match="'resolution' must be a whole number"):
        replace(table, rows_at={resolution: table.rows})


def test_a_table_without_any_row_is_refused(table: LatencyTable) -> None:
    assert replace(table, rows={}, rows_at={16: table.rows}).n_rows == table.n_rows
    with pytest.raises(TableFormatError, match="at least one row"):
        replace(table, rows={}, rows_at={16: {}})


def test_every_error_has_the_one_root() -> None:
    assert issubclass(TableFormatError, LatencyError)
    assert issubclass(TableFormatError, ValueError)
