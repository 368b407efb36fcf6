"""A damaged arch, as JSON or as a CSV row, is read as what it says or refused by the name of the field."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.arch_csv import arch_columns, read_archs, write_arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

SPACES = [
    load_space("cifar_mbv3"),
    SearchSpace(
        "tiny_widths",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 16), kernel_sizes=(3,)),
            Stage(BlockKind.INVERTED, widths=(8, 24), depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(0.35, 1, 2.5)),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(4,), norm=False, bias=True),
        ),
        resolutions=(8, 16),
    ),
]
JUNK: list[Any] = [
    *(None, True, "", "3", "x", [], {}, [3], 0, 1, 2, 3, 5, 8, 16, 24, 32, 33, -1, -3, 2.0, 2.5, 0.35, 1e-320),
    *(10**400, math.nan, math.inf, -math.inf, -0.0),
]
PROFILE = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@PROFILE
@given(data=st.data())
def test_a_mutated_arch_means_what_it_says_or_is_refused_by_name(space: SearchSpace, data: st.DataObject) -> None:
    (arch,) = space.from_rows(space.sample_rows(np.random.default_rng(data.draw(st.integers(0, 99))), 1))
    document = arch.to_dict()
    name = data.draw(st.sampled_from(sorted(document)))
    listed = document[name]
    match data.draw(st.sampled_from(["replace", "drop", "one", "longer", "unknown"])):
        case "drop":
            del document[name]
        case "one" if listed:
            if isinstance(listed, list):
                listed[data.draw(st.integers(0, len(listed) - 1))] = data.draw(st.sampled_from(JUNK))
        case "longer" if isinstance(listed, list):
            listed.append(data.draw(st.sampled_from(JUNK)))
        case "unknown":
            name = "surprise"
            document[name] = data.draw(st.sampled_from(JUNK))
        case _:
            document[name] = data.draw(st.sampled_from(JUNK))
    try:
        read = space.canonicalize(Arch.from_json(json.dumps(document)))
    except InvalidArchError as error:
        message = str(error)
    else:
        assert space.canonicalize(read) == read
        wanted = dict.fromkeys(read.to_dict(), ()) | document
        for key, value in read.to_dict().items():
            # What a skipped block was given is forgotten.
            pairs = zip(value, wanted[key], strict=True) if isinstance(value, list) else [(value, wanted[key])]
            assert all(kept in (given, 0) and type(given) is not bool for kept, given in pairs)
        return
    # A larger depth runs blocks that have no choices yet.
    assert name in message or (name == "depths" and "got 0" in message)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@PROFILE
@given(data=st.data())
def test_a_mutated_csv_keeps_the_other_rows_or_is_refused_by_line(
    space: SearchSpace, tmp_path: Path, data: st.DataObject
) -> None:
    archs = space.from_rows(space.sample_rows(np.random.default_rng(data.draw(st.integers(0, 99))), 3))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*arch_columns(space), "note"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(write_arch(space, arch) | {"note": "n"} for arch in archs)
    lines = text.getvalue().splitlines()
    number = data.draw(st.integers(1, 3))
    cells = lines[number].split(",")
    column = data.draw(st.integers(0, len(arch_columns(space)) - 1))
    junk = ["", " ", "-", "--", "x", "3", "3-3", "+3", "3_2", "٣٢", "1e1", "nan", "0x8", "8", "16", "24", "32", "32.0"]
    cells[column] = data.draw(st.sampled_from([*junk, "9" * 400, '"', '"3', "3,3", "03-May", cells[column] + "-3"]))
    lines[number] = ",".join(cells)
    path = tmp_path / "a.csv"
    path.write_text(data.draw(st.sampled_from(["", "\ufeff"])) + data.draw(st.sampled_from(["\n", "\r\n"])).join(lines))
    try:
        read = [arch for arch, _ in read_archs(path, space)]
    except InvalidArchError as error:
        message = str(error)
    else:
        assert len(read) == 3
        assert all(read[index] == archs[index] for index in range(3) if index != number - 1)
        changed = write_arch(space, read[number - 1])[arch_columns(space)[column]]
        said = [float(part) for part in cells[column].strip().split("-") if part]
        kept = [float(part) for part in changed.split("-") if part]
        assert all(value in (one, 0.0) for value, one in zip(kept, said, strict=True))
        return
    assert f"line {number + 1}:" in message or "cannot be read as CSV" in message
