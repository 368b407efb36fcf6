"""Any sound table survives JSON and CSV unchanged; text gives a sound table or a TableFormatError, nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_tables.calibration import Calibration
from latency_tables.device import PRECISIONS, DeviceProfile
from latency_tables.errors import TableFormatError
from latency_tables.table import STATISTICS, LatencyStats, LatencyTable, parse_table
from supernet.spaces.blocks import Act, BlockKind, BlockSpec

SIZES = st.integers(1, 4096)
LATENCIES = st.floats(1e-6, 1e6)
ENERGIES = st.floats(1e-6, 1e6)
# Letters, numbers, punctuation and symbols: printable in every script.
WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)

SPECS = st.builds(
    BlockSpec,
    kind=st.sampled_from(BlockKind),
    in_size=SIZES,
    in_chs=SIZES,
    mid_chs=SIZES,
    out_chs=SIZES,
    kernel_size=st.sampled_from((1, 3, 5, 7)),
    stride=st.integers(1, 4),
    act=st.sampled_from(Act),
    out_act=st.sampled_from(Act),
    se_chs=st.integers(0, 512),
    shortcut=st.booleans(),
    norm=st.booleans(),
    bias=st.booleans(),
)
STATS = st.builds(LatencyStats, LATENCIES, st.floats(0, 1e3), st.integers(1, 10**6), st.sampled_from(STATISTICS))
DEVICES = st.builds(
    DeviceProfile,
    device_id=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    chip=WORDS,
    runtime=WORDS,
    runtime_version=WORDS,
    precision=st.sampled_from(PRECISIONS),
    threads=st.integers(1, 128),
    clock_mhz=st.none() | st.floats(1, 1e5),
)
CALIBRATIONS = st.builds(
    Calibration,
    st.floats(0, 10),
    st.floats(0, 1),
    st.floats(0.1, 10),
    st.lists(st.floats(0.1, 10), max_size=5).map(tuple),
)
JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@st.composite
def tables_of(draw: st.DrawFn, **parts: st.SearchStrategy[Any]) -> LatencyTable:
    """Tables of which some rows have energies."""
    table = LatencyTable(**{name: draw(part) for name, part in parts.items()})
    numbers = st.none() | ENERGIES

    def energies_of(rows: Mapping[BlockSpec, LatencyStats]) -> dict[BlockSpec, float]:
        drawn = {spec: draw(numbers) for spec in rows}
        return {spec: energy for spec, energy in drawn.items() if energy is not None}

    at = {resolution: energies_of(rows) for resolution, rows in table.rows_at.items()}
    return replace(table, energy_mj=energies_of(table.rows), energy_mj_at=at)


TABLES = tables_of(
    device=DEVICES,
    space=WORDS,
    source=st.dictionaries(st.text(), JSON_VALUES, max_size=3),
    rows=st.dictionaries(SPECS, STATS, min_size=1, max_size=4),
    calibration=st.none() | CALIBRATIONS,
    rows_at=st.dictionaries(SIZES, st.dictionaries(SPECS, STATS, max_size=2), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_table_survives_json_and_csv(table: LatencyTable) -> None:
    for text in (table.to_json(), table.to_csv()):
        read = parse_table(text, space=table.space)
        assert read == table
        assert read.fingerprint == table.fingerprint


@settings(max_examples=100, deadline=None)
@given(TABLES, st.data())
def test_a_changed_value_is_read_or_refused_but_never_breaks(table: LatencyTable, data: st.DataObject) -> None:
    document: Any = json.loads(table.to_json())
    row = data.draw(st.sampled_from(document["rows"]))
    place = data.draw(st.sampled_from([document, document["device"], row, row["latency_ms"]]))
    key = data.draw(st.sampled_from(sorted(place)) | st.text(max_size=5))
    place[key] = data.draw(JSON_VALUES | st.lists(JSON_VALUES, max_size=2) | st.floats() | st.just(10**400))
    with contextlib.suppress(TableFormatError):
        assert parse_table(json.dumps(document)).n_rows


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text().map(lambda text: '# format: "tailor-latency-table/1"\n' + text))
def test_text_that_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(TableFormatError):
        parse_table(text)
