"""Pools come back from their file as they were, and any other file is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supernet.errors import FingerprintMismatchError, InvalidBundleError
from supernet.pools.storage import FORMAT, PoolChoice, load_pools, save_pools
from supernet.predictors.storage import read_file, write_file
from supernet.spaces.space import SearchSpace

Edit = Callable[[Callable[[dict[str, Any], dict[str, Any]], object]], None]


@pytest.fixture
def file(choices: list[PoolChoice], space: SearchSpace, tmp_path: Path) -> Path:
    path = tmp_path / "pools.safetensors"
    save_pools(path, choices, space)
    return path


@pytest.fixture
def edit(file: Path, space: SearchSpace) -> Edit:
    """Change the list of pools and the arrays in place."""

    def edit(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
        content, arrays = read_file(file)
        change(content, arrays)
        write_file(file, space, file_format=content.pop("format"), content=content, arrays=arrays)

    return edit


def test_choices_come_back(choices: list[PoolChoice], file: Path, space: SearchSpace) -> None:
    loaded = load_pools(file, space)
    assert loaded == choices
    for choice, original in zip(loaded, choices, strict=True):
        np.testing.assert_array_equal(choice.statistics, original.statistics)


def test_equal_choices_give_equal_files(choices: list[PoolChoice], file: Path, space: SearchSpace) -> None:
    before = file.read_bytes()
    save_pools(file, choices, space)
    assert file.read_bytes() == before


def test_pools_of_another_space_are_refused(file: Path, space: SearchSpace) -> None:
    with pytest.raises(FingerprintMismatchError, match="Load it with the space of its own bundle"):
        load_pools(file, replace(space, resolutions=(8, 16)))


def test_a_file_of_something_else_is_refused(file: Path, space: SearchSpace) -> None:
    write_file(file, space, file_format="tailor-predictor/1", content={}, arrays={})
    with pytest.raises(InvalidBundleError, match=f"format 'tailor-predictor/1', not '{FORMAT}'"):
        load_pools(file, space)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("resource", value) for value in ("", "a\nb", "x" * 65, 7, None, "\ud800")),
        *(("low", value) for value in (-1, "0", True, float("nan"), 10**400, 1e300)),
        *(("high", value) for value in (-1, None, float("inf"), 0.5e5 - 1e5)),
        *(("top1", value) for value in (-0.1, 1.1, "0.7", None)),
        *(("images", value) for value in (0, 1.5, True, 10**12)),
        *(("arch", value) for value in (None, [], {}, {"resolution": 8}, {"resolution": 9, "depths": [1]})),
        ("surprise", 1),
    ],
)
def test_a_pool_with_a_wrong_value_is_refused(file: Path, space: SearchSpace, edit: Edit, key: str, value: Any) -> None:
    edit(lambda content, _: content["pools"][0].update({key: value}))
    with pytest.raises(InvalidBundleError, match="is damaged: ") as caught:
        load_pools(file, space)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda content, _: content.pop("pools"),
        lambda content, _: content.update(pools=[]),
        lambda content, _: content.update(pools={"0": content["pools"][0]}),
        lambda content, _: content["pools"].pop(),
        lambda content, _: content["pools"].append(content["pools"][0]),
        lambda content, _: content["pools"].reverse(),  # the statistics of one arch do not fit the other
        lambda content, _: content["pools"][0].pop("top1"),
        lambda content, _: content["pools"].__setitem__(0, "pool"),
        lambda _, arrays: arrays.pop("pool1.statistics"),
        lambda _, arrays: arrays.update({"pool2.statistics": arrays["pool0.statistics"]}),
        lambda _, arrays: arrays.update({"pool0.statistics": arrays["pool0.statistics"].astype(np.float16)}),
        lambda _, arrays: arrays.update({"pool0.statistics": arrays["pool0.statistics"][:, 1:]}),
        lambda _, arrays: arrays["pool0.statistics"].__setitem__((0, 0), np.nan),
        lambda _, arrays: arrays["pool0.statistics"].__setitem__((1, 0), np.inf),
        lambda _, arrays: arrays["pool0.statistics"].__setitem__((1, 0), -1e-6),
    ],
)
def test_contradicting_pools_are_refused(
    file: Path, space: SearchSpace, edit: Edit, change: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    edit(change)
    with pytest.raises(InvalidBundleError, match="is damaged: "):
        load_pools(file, space)


def test_more_pools_than_a_service_keeps_are_refused(
    file: Path, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernet.pools.storage.MAX_POOLS", 1)
    with pytest.raises(InvalidBundleError, match="must list 1 to 1 pools"):
        load_pools(file, space)


def test_an_absent_or_cut_file_is_refused(file: Path, space: SearchSpace) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidBundleError, match="cannot be read as safetensors"):
        load_pools(file, space)
    file.unlink()
    with pytest.raises(InvalidBundleError, match="cannot be read as safetensors"):
        load_pools(file, space)
