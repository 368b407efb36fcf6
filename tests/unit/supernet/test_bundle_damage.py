"""Bundles under any damage: cut, changed, mutated or mixed with another one."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supernet.bundle import (
    MANIFEST,
    PARTS,
    Bundle,
    BundleManifest,
    open_bundle,
    write_manifest,
)
from supernet.errors import FingerprintMismatchError, InvalidBundleError
from supernet.network.checkpoint import load_supernet, load_weights, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.pools.storage import PoolChoice, load_pools, save_pools
from supernet.predictors.accuracy import AccuracyPredictor
from supernet.predictors.loading import load_predictor, space_name_of
from supernet.spaces.blocks import BlockKind
from supernet.spaces.norms import norm_layers
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


def describe(folder: Path, space: SearchSpace, **changes: Any) -> Bundle:
    facts: dict[str, Any] = {
        "name": "tiny",
        "classes": ("ant", "bee", "cat"),
        "normalisation": ((0.5, 0.4, 0.3), (0.2, 0.2, 0.25)),
        "training": {"method": "rss", "seed": 1},
        "versions": {"tailor": "1"},
    }
    return write_manifest(folder, space=space, **(facts | changes))


JUNK: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**400, float("nan"), float("inf"), "", "x", "\ud800", "a\nb", "0" * 64),
    *([], {}, [1], ["a"], {"a": 1}, [["a", 1]], ["x"] * 3),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle all of whose parts are real ones, for tests that damage copies."""
    space = SearchSpace(
        "tiny_sound",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2),
            Stage(BlockKind.INVERTED, widths=(8,), depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(1, 2)),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(3,), norm=False, bias=True),
        ),
        resolutions=(8, 12),
    )
    folder = tmp_path_factory.mktemp("sound")
    save_tensors(folder / PARTS["weights"], Supernet(space, torch.Generator().manual_seed(1)).state_dict(), space)
    rng = np.random.default_rng(3)
    rows = np.unique(space.sample_rows(rng, 200), axis=0)
    AccuracyPredictor.fit(space, rows, rng.uniform(0.5, 0.9, len(rows)), n_images=100, rng=rng).save(
        folder / PARTS["predictor"]
    )
    (folder / PARTS["calibration"]).write_bytes(b"calibration")
    arch = space.largest()
    channels = sum(found.layer.out_chs for found in norm_layers(space, arch))
    choice = PoolChoice("macs", 1e4, 2e4, arch, 0.8, 100, np.ones((2, channels), np.float32))
    save_pools(folder / PARTS["pools"], [choice], space)
    describe(folder, space)
    return folder


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(deep for key, child in inner for deep in places(child, (*path, key)))]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_mutated_manifest_is_read_as_it_is_written_or_refused(sound: Path, data: st.DataObject) -> None:
    document = json.loads((sound / MANIFEST).read_text())
    path = data.draw(st.sampled_from(places(document)))
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    match data.draw(st.sampled_from(["drop", "replace", "add"])):
        case "drop":
            del holder[path[-1]]
        case "add" if isinstance(holder, dict):
            holder["surprise"] = data.draw(st.sampled_from(JUNK))
        case _:
            holder[path[-1]] = data.draw(st.sampled_from(JUNK))
    text = json.dumps(document)
    try:
        read = BundleManifest.from_dict(json.loads(text)).to_dict()
    except InvalidBundleError as error:
        message = str(error)
    else:
        defaults = {"in_chs": 3, "divisor": 8, "norm_eps": 1e-5}
        document["space"] = defaults | document["space"]
        assert read == document
        return
    assert 10 < len(message) < 1000


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_part_that_was_cut_or_changed_anywhere_is_refused(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    part = data.draw(st.sampled_from(sorted(PARTS)))
    content = bytearray((folder / PARTS[part]).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["cut", "flip", "grow", "swap"])):
        case "cut":
            content = content[:position]
        case "flip":
            content[position] ^= data.draw(st.integers(1, 255))
        case "grow":
            content += b"\0"
        case _:
            content = bytearray((folder / PARTS["weights" if part != "weights" else "predictor"]).read_bytes())
    (folder / PARTS[part]).write_bytes(content)
    with pytest.raises(InvalidBundleError, match=f"{PARTS[part]}' is truncated or changed"):
        open_bundle(folder)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_part_alone_with_a_damaged_header_is_refused_or_harmless(
    sound: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Without the manifest's hash there is the file's own structure; the loaders never raise anything else."""
    part = data.draw(st.sampled_from(["weights", "predictor", "pools"]))
    content = bytearray((sound / PARTS[part]).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 2))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    file = tmp_path / PARTS[part]
    file.write_bytes(content)
    space = open_bundle(sound).space
    with contextlib.suppress(InvalidBundleError):
        if part == "weights":
            supernet = Supernet(space, torch.Generator())
            load_weights(supernet, file)
            assert all(tensor.isfinite().all() for tensor in supernet.state_dict().values())
        elif part == "pools":
            assert all(space.contains(choice.arch) and choice.top1 <= 1 for choice in load_pools(file, space))
        else:
            assert isinstance(space_name_of(file), str)
            low, high = load_predictor(file, space).interval(space.to_rows([space.smallest(), space.largest()]))
            assert ((low >= 0) & (low <= high) & (high <= 1)).all()


def test_parts_of_another_bundle_are_refused_even_where_the_manifest_lists_them(sound: Path, tmp_path: Path) -> None:
    """Each part names its search space itself."""
    space = open_bundle(sound).space
    other = replace(space, resolutions=(8, 16))
    shutil.copytree(sound, tmp_path / "other")
    describe(tmp_path / "other", other)
    with pytest.raises(FingerprintMismatchError, match="Load it with the space of its own bundle"):
        load_supernet(tmp_path / "other")
    bundle = open_bundle(tmp_path / "other")
    with pytest.raises(FingerprintMismatchError, match="Load it with the space of its own bundle"):
        load_predictor(bundle.predictor_path, bundle.space)
    with pytest.raises(FingerprintMismatchError, match="Load it with the space of its own bundle"):
        load_pools(bundle.pools_path, bundle.space)
