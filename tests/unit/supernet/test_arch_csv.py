"""Archs in CSV files: round trips, files written by people, and lines that are refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.arch_csv import arch_columns, read_archs, write_arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.presets import list_spaces, load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


@pytest.fixture
def space() -> SearchSpace:
    """Elastic in everything, with ratios that are no whole numbers."""
    return SearchSpace(
        "tiny_csv",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 16), kernel_sizes=(3,)),
            Stage(
                BlockKind.INVERTED,
                widths=(8, 24),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(0.35, 1, 2.5),
                shortcut=True,
            ),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(4,), norm=False, bias=True),
        ),
        resolutions=(8, 16),
    )


@pytest.fixture
def rigid() -> SearchSpace:
    """Elastic in nothing but depth."""
    return SearchSpace(
        "rigid",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,)),
            Stage(BlockKind.INVERTED, widths=(8,), depths=(1, 2), kernel_sizes=(3,), expand_ratios=(2,)),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(4,), norm=False, bias=True),
        ),
        resolutions=(8,),
    )


def write(path: Path, space: SearchSpace, archs: list[Arch]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, arch_columns(space))
        writer.writeheader()
        writer.writerows(write_arch(space, arch) for arch in archs)
    return path


def test_columns_name_widths_only_where_they_are_elastic(space: SearchSpace, rigid: SearchSpace) -> None:
    assert arch_columns(space) == ["ks", "e", "d", "r", "w"]
    assert arch_columns(rigid) == ["ks", "e", "d", "r"]


def test_a_row_joins_values_by_dashes_and_writes_0_for_skipped_blocks(space: SearchSpace, rigid: SearchSpace) -> None:
    arch = space.canonicalize(Arch(16, (1,), (5, 3), (0.35, 1), (8, 24)))
    assert write_arch(space, arch) == {"ks": "5-0", "e": "0.35-0", "d": "1", "r": "16", "w": "8-24"}
    assert write_arch(rigid, Arch(8, (2,))) == {"ks": "", "e": "", "d": "2", "r": "8"}


def test_sampled_archs_come_back(space: SearchSpace, rigid: SearchSpace, tmp_path: Path) -> None:
    for chosen in (space, rigid):
        archs = chosen.from_rows(chosen.sample_rows(np.random.default_rng(1), 40))
        path = write(tmp_path / f"{chosen.name}.csv", chosen, archs)
        assert [arch for arch, _ in read_archs(path, chosen)] == archs


@pytest.mark.parametrize("name", list_spaces())
def test_archs_of_every_shipped_space_come_back(name: str, tmp_path: Path) -> None:
    shipped = load_space(name)
    archs = [shipped.smallest(), shipped.largest(), shipped.sample(np.random.default_rng(2))]
    assert [arch for arch, _ in read_archs(write(tmp_path / "a.csv", shipped, archs), shipped)] == archs


def test_rows_come_whole_in_order_and_canonical(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "source,r,w,d,e,ks,top1_percent\nmine,8,8-8,1,2.5-2.5,3-5,71.5\nyours,16,16-24,2,1.0-2.5,3-5,\n"
    )
    (first, first_row), (second, second_row) = read_archs(tmp_path / "a.csv", space)
    assert first == Arch(8, (1,), (3, 0), (2.5, 0), (8, 8))
    assert second == Arch(16, (2,), (3, 5), (1, 2.5), (16, 24))
    assert (first_row["source"], first_row["top1_percent"]) == ("mine", "71.5")
    assert second_row["top1_percent"] == ""


def test_files_of_spreadsheets_are_read(space: SearchSpace, tmp_path: Path) -> None:
    """They start with a byte order mark, end lines with CR LF and quote what they like."""
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"ks","e","d","r","w"\r\n"3-5","1-1",2,8,"8-8"\r\n')
    assert [arch for arch, _ in read_archs(tmp_path / "a.csv", space)] == [Arch(8, (2,), (3, 5), (1, 1), (8, 8))]


@pytest.mark.parametrize("text", ["", "ks,e,d,r,w\n"])
def test_a_file_without_rows_gives_no_archs(space: SearchSpace, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert read_archs(tmp_path / "a.csv", space) == []


@pytest.mark.parametrize("rows", ["", "3-5,1-1,2,8\n"])
def test_missing_columns_are_named_with_rows_or_without(space: SearchSpace, tmp_path: Path, rows: str) -> None:
    (tmp_path / "a.csv").write_text("ks,e,d,r\n" + rows)
    with pytest.raises(InvalidArchError, match=r"lacks the columns \['w'\].*'tiny_csv' need"):
        read_archs(tmp_path / "a.csv", space)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3-7,1-1,2,8,8-8", "'kernel_sizes' of stage 1, block 1.*got 7"),
        ("3-5-3,1-1,2,8,8-8", "'kernel_sizes'.*needs 2 values, the arch has 3"),
        ("3-5,1-1,2,8,", "'widths'.*needs 2 values, the arch has 0"),
        ("3-5,1-1,2,8", "'widths'.*needs 2 values, the arch has 0"),
        ("3-5,1-1,2,9,8-8", "'resolution'"),
        ("3-5,1-1,2,8-16,8-8", "'r' must be one whole number, got '8-16'"),
        ("3-5,1-1,2,,8-8", "'r' must be one whole number, got ''"),
        ("3-5,1-x,2,8,8-8", "'e' must be numbers joined by '-', got '1-x'"),
        ("3-5,1-nan,2,8,8-8", "'e' must be .*, got '1-nan'"),
        ("3-5,1--1,2,8,8-8", "'e' must be .*, got '1--1'"),
        # Python would read these as numbers.
        ("3-5,1-1,2,1_6,8-8", "'r' must be one whole number, got '1_6'"),
        ("3-5,1-1,2,١٦,8-8", "'r' must be one whole number"),
        ("3-5,1-1,2,+8,8-8", "'r' must be one whole number"),
        ("3-5,1-1e0,2,8,8-8", "'e' must be numbers"),
        ("3-May,1-1,2,8,8-8", "'ks' must be numbers joined by '-', got '3-May'"),
        pytest.param(f"3-5,1-1,2,{'9' * 5000},8-8", "'r' must be one whole number, got '9{80}'", id="long number"),
        ("3-5,1-1,2.0,8,8-8", "'depths' must hold whole numbers"),
        ("3-5,1-1,2,8,8-8,surplus", "more values than the header"),
    ],
)
def test_a_bad_row_names_its_line(space: SearchSpace, tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(f"ks,e,d,r,w\n3-5,1-1,2,8,8-8\n\n{row}\n")
    with pytest.raises(InvalidArchError, match=rf"a\.csv', line 4: .*{message}"):
        read_archs(tmp_path / "a.csv", space)


def test_rows_without_any_value_are_no_rows(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ks,e,d,r,w,,\n3-5,1-1,2,8,8-8,,\n,,,,,,\n \n\n3-5,1-1,2,16,8-8,,\n")
    assert [arch.resolution for arch, _ in read_archs(tmp_path / "a.csv", space)] == [8, 16]


def test_a_ratio_of_many_digits_comes_back(rigid: SearchSpace, tmp_path: Path) -> None:
    stages = list(rigid.stages)
    stages[1] = replace(stages[1], expand_ratios=(1 / 3, 2 / 3))
    thirds = replace(rigid, stages=tuple(stages))
    assert [arch for arch, _ in read_archs(write(tmp_path / "a.csv", thirds, [thirds.largest()]), thirds)] == [
        thirds.largest()
    ]


@pytest.mark.parametrize(
    ("header", "doubled"), [("ks,e,d,r,w,r", "r"), ("ks,e,d,r,w,top1_percent,top1_percent", "top1_percent")]
)
def test_a_column_that_occurs_twice_is_refused(space: SearchSpace, tmp_path: Path, header: str, doubled: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n3-5,1-1,2,8,8-8,16\n")
    with pytest.raises(InvalidArchError, match=rf"has the columns \['{doubled}'\] twice"):
        read_archs(tmp_path / "a.csv", space)


def test_a_quote_nobody_closes_does_not_swallow_the_rows_below(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('ks,e,d,r,w,note\n3-5,1-1,2,8,8-8,"open\n3-5,1-1,2,16,8-8,\n')
    with pytest.raises(InvalidArchError, match="cannot be read as CSV"):
        read_archs(tmp_path / "a.csv", space)


def test_columns_with_other_separators_are_shown(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ks;e;d;r;w\n")
    with pytest.raises(InvalidArchError, match=r"with commas between them, it has \['ks;e;d;r;w'\]"):
        read_archs(tmp_path / "a.csv", space)


def test_values_for_a_dimension_the_space_fixes_are_refused(rigid: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ks,e,d,r\n3-3,,2,8\n")
    with pytest.raises(InvalidArchError, match="'kernel_sizes' of space 'rigid' needs 0 values"):
        read_archs(tmp_path / "a.csv", rigid)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"ks,e,d,r,w\n3-5,\x00,2,8,8-8\n"])
def test_what_is_no_text_is_refused(space: SearchSpace, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InvalidArchError, match=r"a\.csv'"):
        read_archs(tmp_path / "a.csv", space)


def test_an_absent_file_or_a_folder_is_refused(space: SearchSpace, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InvalidArchError, match="cannot be read as CSV"):
            read_archs(path, space)
