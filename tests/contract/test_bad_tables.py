"""A damaged latency table is read as what it says or refused by the name of the field; nothing else ever happens."""

from __future__ import annotations

import copy
import csv
import json
import math
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from latency_tables.calibration import Calibration
from latency_tables.check import check_table, space_of
from latency_tables.device import DeviceProfile
from latency_tables.errors import TableFormatError
from latency_tables.estimator import LatencyEstimator
from latency_tables.table import LatencyStats, LatencyTable, parse_table
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

SPACE = SearchSpace(
    "tiny_table",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
        Stage(BlockKind.INVERTED, widths=(8,), depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(2, 3), se=True),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(4,), norm=False, bias=True),
    ),
    resolutions=(16, 24),
)
JUNK: list[Any] = [
    *(None, True, False, "", "x", "1.0", "\ud800", "a\nb", "y" * 500, [], {}, [1], {"a": 1}, [[]]),
    *(0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, 2**53 + 1, 10**6 + 1, 10**400, math.nan, math.inf, -math.inf),
]


@cache
def table() -> LatencyTable:
    """Rows of every kind: for any resolution, for one, with energy; and a calibration."""
    rows = {spec: LatencyStats(1e-3 + spec.macs * 1e-6, 1e-6, 100) for spec in SPACE.distinct_blocks()}
    first = next(iter(rows))
    device = DeviceProfile(device_id="board-1t", chip="Board", runtime="rt", runtime_version="1", clock_mhz=2400.0)
    return LatencyTable(
        device=device,
        space=SPACE.name,
        source={"method": "made up", "seed": 3},
        rows=rows,
        calibration=Calibration(0.01, 0.002, 1.1, (0.9, 0.95, 1.0, 1.05)),
        energy_mj={first: 0.25},
        rows_at={16: {first: LatencyStats(0.5, 0.01, 20, "mean")}},
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(deep for key, child in inner for deep in places(child, (*path, key)))]


def parsed(text: str) -> tuple[LatencyTable | None, str]:
    """The table, or what is said against it; any other error fails the test."""
    try:
        return parse_table(text), ""
    except TableFormatError as error:
        return None, str(error)


def meaning(document: dict[str, Any]) -> str:
    """A document as its canonical text: absent is null, 1 is 1.0, rows and residuals have no order."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(child) for key, child in sorted(value.items()) if child is not None}
        if isinstance(value, list):
            return [plain(child) for child in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    document = plain(document)
    document["rows"] = sorted(json.dumps(row) for row in document["rows"])
    if "residuals" in document.get("calibration", {}):
        document["calibration"]["residuals"].sort()
    device = {"precision": "fp32", "threads": 1.0, "batch_size": 1.0} | document["device"]
    return json.dumps(document | {"device": device}, sort_keys=True)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_mutated_document_means_what_it_says_or_is_refused_by_name(data: st.DataObject) -> None:
    document = copy.deepcopy(table().to_dict())
    path = data.draw(st.sampled_from(places(document)))
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    match data.draw(st.sampled_from(["drop", "replace", "add", "double"])):
        case "drop":
            del holder[path[-1]]
        case "replace":
            holder[path[-1]] = data.draw(st.sampled_from(JUNK))
        case "add" if isinstance(holder, dict):
            path = (*path[:-1], "surprise")
            holder["surprise"] = data.draw(st.sampled_from(JUNK))
        case _ if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
            path = (*path[:-1], len(holder) - 1)
    read, message = parsed(json.dumps(document))
    if read is None:
        named = {str(key) for key in path if isinstance(key, str)}
        named |= {f"Row {path[1] + 1}" if len(path) > 1 else "row"} if path[0] == "rows" else set()
        # Text that is no JSON at all is named by its place.
        assert "is no JSON" in message or any(name.lower() in message.lower() for name in named), (path, message)
        assert len(message) < 1500
        return
    assert meaning(read.to_dict()) == meaning(document)
    space = space_of(read, SPACE)
    if not check_table(read, space).errors:
        estimator = LatencyEstimator(read, space)
        known = [arch for arch in (space.smallest(), space.largest()) if arch.resolution in estimator.resolutions]
        for estimate in estimator.estimate(known, level=0.999):
            assert 0 < estimate.low_ms <= estimate.high_ms < math.inf


TOKENS = st.sampled_from(
    [
        *("", " ", "-1", "0", "1", "3", "+3", "03", "3.0", "1e3", "1e400", "1_0", "٣", "0x10", "1,5", '"', "'", "\0"),
        *("NaN", "nan", "Infinity", "-Infinity", "true", "True", "null", "[]", "{}", "#", "median", "conv", "1 ms"),
    ]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), TOKENS, st.sampled_from(["\n", "\r\n"]))
def test_a_mutated_cell_means_what_it_says_or_is_refused_by_name(data: st.DataObject, token: str, end: str) -> None:
    head, _, body = table().to_csv().partition("\nkind,")
    columns, *rows = csv.reader(f"kind,{body}".splitlines())
    number = data.draw(st.integers(1, len(rows)))
    column = data.draw(st.integers(0, len(columns) - 1))
    rows[number - 1][column] = token
    text = end.join([*head.splitlines(), ",".join(columns), *map(",".join, rows)])
    read, message = parsed(text)
    if read is None:
        assert f"Row {number}" in message or "cannot be read" in message, message
        return
    again = list(csv.DictReader(read.to_csv()[read.to_csv().index("kind,") :].splitlines()))
    wanted = dict(zip(columns, (cell.strip() for cell in rows[number - 1]), strict=True))
    for cells in again:
        if all(cells.get(name, "") == wanted[name] for name in columns if name != columns[column]):
            given, kept = wanted[columns[column]], cells.get(columns[column], "")
            assert given == kept or (given, kept) == ("null", "") or float(given) == float(kept)
            return
    raise AssertionError("the row is gone")
