"""A table fits its space whatever the number of classes it was measured with."""

from __future__ import annotations

from dataclasses import replace

from latency_tables.check import check_table, space_of
from latency_tables.device import DeviceProfile
from latency_tables.table import LatencyStats, LatencyTable
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

DEVICE = DeviceProfile(device_id="board", chip="chip", runtime="onnxruntime", runtime_version="1.31.1")


def table_of(space: SearchSpace) -> LatencyTable:
    rows = {spec: LatencyStats(0.01 + spec.macs / 1e8, 0.001, 100) for spec in space.distinct_blocks()}
    return LatencyTable(device=DEVICE, space=space.name, source={}, rows=rows)


def test_a_table_of_a_bundle_with_other_classes_is_complete() -> None:
    preset = load_space("cifar_mbv3")
    table = table_of(preset.with_classes(37))
    assert space_of(table, preset) == preset.with_classes(37)
    assert not check_table(table, space_of(table, preset)).missing


def test_a_classifier_larger_than_any_space_may_have_is_missing_and_no_crash() -> None:
    preset = load_space("cifar_mbv3")
    table = table_of(preset)
    rows = {
        replace(spec, out_chs=500_000) if spec.kind == "linear" else spec: stats for spec, stats in table.rows.items()
    }
    wrong = replace(table, rows=rows)
    report = check_table(wrong, space_of(wrong, preset))
    assert "No resolution of 'cifar_mbv3' is complete: 1 blocks have no row" in report.errors[0]


def test_a_table_of_the_preset_keeps_its_space() -> None:
    preset = load_space("cifar_mbv3")
    assert space_of(table_of(preset), preset) == preset
