from __future__ import annotations

from dataclasses import replace

import pytest

from latency_tables.errors import TableFormatError
from latency_tables.probe import default_device_id, matches, this_device


def test_this_machine_has_a_chip_a_version_and_a_legal_id() -> None:
    device = this_device(threads=2)
    assert device.runtime == "onnxruntime"
    assert device.runtime_version[0].isdigit()
    assert device.chip
    assert device.device_id.endswith("-2t")


def test_a_given_id_is_kept_and_checked() -> None:
    assert this_device("my-board").device_id == "my-board"
    with pytest.raises(TableFormatError, match="device_id"):
        this_device("My Board")


@pytest.mark.parametrize(
    ("chip", "expected"),
    [
        ("Intel(R) Xeon(R) Processor @ 2.00GHz", "intel-xeon-processor-2-00ghz-8c-1t"),
        ("東芝", "unknown-8c-1t"),
        ("x" * 100, "x" * 48 + "-8c-1t"),
    ],
)
def test_default_id_is_a_slug_of_the_chip(chip: str, expected: str) -> None:
    assert default_device_id(chip, cores=8, threads=1) == expected


def test_a_table_matches_its_own_machine_and_a_patch_release() -> None:
    this = replace(this_device(), runtime_version="1.31.1")
    assert matches(this, this)
    assert matches(replace(this, device_id="other-name", runtime_version="1.31.9", governor="performance"), this)


@pytest.mark.parametrize(
    "change",
    [{"chip": "another"}, {"runtime": "tflite"}, {"runtime_version": "1.30.1"}, {"threads": 2}, {"precision": "int8"}],
)
def test_a_table_of_another_machine_does_not_match(change: dict[str, object]) -> None:
    this = replace(this_device(), runtime_version="1.31.1")
    assert not matches(replace(this, **change), this)  # type: ignore[arg-type]
