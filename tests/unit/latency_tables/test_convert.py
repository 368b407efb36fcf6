from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from latency_tables.convert import import_ofa_tables, ofa_keys
from latency_tables.errors import LatencyError, TableFormatError
from latency_tables.estimator import LatencyEstimator
from latency_tables.table import LatencyStats, parse_table
from supernet.spaces.arch import Arch
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

OFA = load_space("ofa_mbv3_w1.2")

# From methods.md §6.3: sums over the published tables, in ms, per resolution: (7,6,4), (5,4,3) and (3,3,2).
GOLDEN_MS = {
    160: (47.773, 20.033, 9.890),
    176: (58.038, 24.210, 11.721),
    192: (67.562, 27.836, 13.325),
    208: (81.192, 33.471, 15.834),
    224: (92.398, 37.806, 17.769),
}


def uniform_archs(resolution: int) -> list[Arch]:
    return [
        Arch.from_ofa({"ks": [kernel] * 20, "e": [expand] * 20, "d": [depth] * 5, "r": resolution}, OFA)
        for kernel, expand, depth in ((7, 6, 4), (5, 4, 3), (3, 3, 2))
    ]


def write(folder: Path, resolution: int, entries: Any) -> None:
    (folder / f"{resolution}_lookup_table.yaml").write_text(yaml.safe_dump(entries))


def made_up(resolution: int, ms: float = 1.0) -> dict[str, Any]:
    return {key: {"mean": ms, "std": 0.1, "count": 10} for key in ofa_keys(OFA, resolution)}


def test_keys_follow_the_reference_grammar() -> None:
    keys = ofa_keys(OFA, 224)
    assert len(keys) == 96
    assert {
        "Conv-input:224x224x3-output:112x112x24",
        "expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
        "expanded_conv-input:112x112x24-output:56x56x32-expand:144-kernel:7-stride:2-idskip:0-se:0-hs:0",
        "Conv_1-input:7x7x192-output:7x7x1152",
        "AvgPool2D-input:7x7x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536",
        "Logits-input:1x1x1536-output:1000",
    } <= set(keys)


def test_a_space_the_grammar_cannot_name_is_refused() -> None:
    stages = (*OFA.stages[:-1], OFA.stages[-2], OFA.stages[-1])
    with pytest.raises(TableFormatError, match="plain convolutions"):
        ofa_keys(SearchSpace("more", stages, (160,)), 160)


@pytest.mark.shared_data
@pytest.mark.parametrize("resolution", GOLDEN_MS)
def test_published_tables_add_up_to_the_known_latencies(shared_data: Path, resolution: int) -> None:
    table = import_ofa_tables(shared_data / "ofa_note10", OFA, "note10", resolutions=[resolution])
    assert table.n_rows == 96
    assert table.source["unknown_keys"] == table.source["missing_keys"] == 0
    estimator = LatencyEstimator(table, OFA)
    assert estimator.resolutions == (resolution,)
    # Recomputing with our float order leaves the third decimal alone.
    assert estimator.cost.of(uniform_archs(resolution)) == pytest.approx(GOLDEN_MS[resolution], abs=6e-4)


@pytest.mark.shared_data
def test_one_table_of_all_published_ones_adds_up_to_the_known_latencies(shared_data: Path) -> None:
    table = import_ofa_tables(shared_data / "ofa_note10", OFA, "note10")
    assert {resolution: len(rows) for resolution, rows in table.rows_at.items()} == dict.fromkeys(OFA.resolutions, 96)
    assert table.n_rows == 17 * 96
    assert table.source["unknown_keys"] == table.source["missing_keys"] == 0
    assert table.source["licence"] == "Apache-2.0"
    assert "Once-for-All" in table.source["origin"]
    for read in (table, parse_table(table.to_json()), parse_table(table.to_csv())):
        estimator = LatencyEstimator(read, OFA)
        assert estimator.resolutions == OFA.resolutions
        sums = {resolution: estimator.cost.of(uniform_archs(resolution)).round(3) for resolution in GOLDEN_MS}
        assert {resolution: tuple(values) for resolution, values in sums.items()} == GOLDEN_MS


def test_absent_files_leave_resolutions_out(tmp_path: Path) -> None:
    write(tmp_path, 160, made_up(160))
    write(tmp_path, 999, {"anything": 1})
    table = import_ofa_tables(tmp_path, OFA, "phone")
    assert table.source["resolutions"] == [160]
    assert LatencyEstimator(table, OFA).resolutions == (160,)
    assert table.device.device_id == "phone"


def test_keys_without_a_block_and_blocks_without_a_key_are_counted(tmp_path: Path) -> None:
    entries = made_up(160)
    entries.pop("Conv-input:160x160x3-output:80x80x24")
    write(tmp_path, 160, entries | {"Conv-input:1x1x1-output:1x1x1": {"mean": 1, "std": 0, "count": 1}})
    source = import_ofa_tables(tmp_path, OFA, "phone").source
    assert (source["unknown_keys"], source["missing_keys"]) == (1, 1)


def test_a_block_of_several_files_keeps_the_numbers_of_each(tmp_path: Path) -> None:
    for resolution, ms in ((160, 1.0), (224, 2.0)):
        write(tmp_path, resolution, made_up(resolution, ms))
    table = import_ofa_tables(tmp_path, OFA, "phone")
    head = next(spec for spec in table.rows_at[160] if spec.in_chs == 1152 and spec.out_chs == 1536)
    assert table.rows_at[160][head] == LatencyStats(1.0, 0.1, 10, "mean")
    assert table.rows_at[224][head] == LatencyStats(2.0, 0.1, 10, "mean")
    assert table.stats_of(head, resolution=176) is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"mean": 1.0, "var": 0.1, "count": 3}, "needs 'mean', 'std'"),
        (3, "needs"),
        ({"mean": -1, "std": 0, "count": 1}, "positive"),
        ({"mean": 1, "std": 0, "count": 1, "unit": "us"}, "and nothing else, .*milliseconds"),
        ([1, 2], "needs"),
        ([[["x"] * 9] * 9] * 9, "needs"),
    ],
)
def test_a_broken_entry_is_named(tmp_path: Path, entry: Any, message: str) -> None:
    write(tmp_path, 160, made_up(160) | {"Conv-input:160x160x3-output:80x80x24": entry})
    with pytest.raises(TableFormatError, match=f"160_lookup_table.yaml: 'Conv-input:160x160x3.*{message}"):
        import_ofa_tables(tmp_path, OFA, "phone")


@pytest.mark.parametrize("key", ["Conv-input:160x160x3-output:80x80x24", "mean"])
def test_a_repeated_key_is_refused_instead_of_the_last_one_read(tmp_path: Path, key: str) -> None:
    first = "Conv-input:160x160x3-output:80x80x24:"
    entry = "{mean: 1.0, std: 0, count: 1}" if key != "mean" else "{mean: 1.0, mean: 2.0, std: 0, count: 1}"
    more = f"{first} {{mean: 2.0, std: 0, count: 1}}" if key != "mean" else ""
    (tmp_path / "160_lookup_table.yaml").write_text(f"{first} {entry}\n{more}\n")
    with pytest.raises(TableFormatError, match=rf"160_lookup_table\.yaml: the key '{key}' occurs twice"):
        import_ofa_tables(tmp_path, OFA, "phone")


@pytest.mark.parametrize(
    "text",
    [
        *("", "- 1\n", "{", "!!python/object/apply:os.system ['true']", "a: *b", "? [1]\n: 2", "a: 1\n---\nb: 2"),
        # What PyYAML converts and lets fail: dates, numbers, flags.
        *("a: 2001-99-99", "a: !!timestamp x", "a: !!int x", "a: !!int ''", "a: !!float x", "a: !!bool x"),
        "[" * 500,
    ],
    ids=lambda text: text[:20],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "160_lookup_table.yaml").write_text(text)
    with pytest.raises(TableFormatError, match="160_lookup_table"):
        import_ofa_tables(tmp_path, OFA, "phone")


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableFormatError, match="absent' is no folder"):
        import_ofa_tables(tmp_path / "absent", OFA, "phone")
    with pytest.raises(TableFormatError, match="holds no file"):
        import_ofa_tables(tmp_path, OFA, "phone")
    write(tmp_path, 160, {"Conv-input:1x1x1-output:1x1x1": {"mean": 1, "std": 0, "count": 1}})
    with pytest.raises(TableFormatError, match="No key"):
        import_ofa_tables(tmp_path, OFA, "phone")


def test_without_pyyaml_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 160, made_up(160))
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(LatencyError, match="PyYAML"):
        import_ofa_tables(tmp_path, OFA, "phone")
