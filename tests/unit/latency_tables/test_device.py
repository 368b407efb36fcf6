from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from latency_tables.device import DeviceProfile
from latency_tables.errors import TableFormatError

REQUIRED = {"device_id": "phone", "chip": "A chip", "runtime": "tflite", "runtime_version": "2.3"}


def test_profile_survives_its_dict() -> None:
    full = DeviceProfile(
        **REQUIRED, threads=4, precision="int8", batch_size=8, clock_mhz=2400, governor="powersave", temperature_c=41.5
    )
    assert DeviceProfile.from_dict(full.to_dict()) == full


def test_unknown_clock_is_left_out_of_the_dict() -> None:
    assert "clock_mhz" not in DeviceProfile(**REQUIRED).to_dict()


@pytest.mark.parametrize("device_id", ["", "-a", "A", "a b", "a/b", "a" * 65, "é", "a\n"])
def test_ids_that_are_no_path_segment_are_refused(device_id: str) -> None:
    with pytest.raises(TableFormatError, match="device_id"):
        DeviceProfile(**{**REQUIRED, "device_id": device_id})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 0),
        ("threads", 10**6),
        ("threads", True),
        ("threads", 1.0),
        ("batch_size", -1),
        ("precision", "fp64"),
        ("chip", ""),
        ("chip", 3),
        ("chip", "a\x00b"),
        ("governor", ""),
        ("clock_mhz", 0),
        ("clock_mhz", float("nan")),
        ("clock_mhz", 10**400),
        ("clock_mhz", "2400"),
        ("temperature_c", -400),
        ("temperature_c", True),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TableFormatError, match=name):
        DeviceProfile.from_dict({**REQUIRED, name: value})


def test_unknown_and_missing_keys_are_named() -> None:
    with pytest.raises(TableFormatError, match=r"unknown \['cores'\], missing \['chip'\]"):
        DeviceProfile.from_dict({"cores": 8, **{key: value for key, value in REQUIRED.items() if key != "chip"}})


def test_a_device_must_be_an_object() -> None:
    with pytest.raises(TableFormatError, match="object"):
        DeviceProfile.from_dict([REQUIRED])  # type: ignore[arg-type]


def test_replace_checks_again() -> None:
    with pytest.raises(TableFormatError):
        replace(DeviceProfile(**REQUIRED), threads=-1)
