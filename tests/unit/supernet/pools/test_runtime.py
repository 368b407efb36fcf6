"""One set of weights runs every pool's subnet as if it were alone, and switching leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from supernet.bundle import PARTS, open_bundle, write_manifest
from supernet.errors import InvalidArchError, InvalidConfigError, MissingPartError
from supernet.evaluation.statistics import apply_statistics
from supernet.network.checkpoint import save_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.pools.runtime import PoolRuntime
from supernet.pools.storage import PoolChoice, save_pools
from supernet.spaces.norms import norm_layers
from supernet.spaces.space import SearchSpace


def images_for(choice: PoolChoice, seed: int = 3) -> Tensor:
    size = choice.arch.resolution
    return torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_logits_are_the_same_bit_for_bit_after_a_switch_and_back(supernet: Supernet, choices: list[PoolChoice]) -> None:
    runtime = PoolRuntime(supernet, choices)
    images = [images_for(choice) for choice in choices]
    first = runtime(images[0])
    runtime.switch(1)
    second = runtime(images[1])
    for _ in range(3):
        runtime.switch(0)
        assert torch.equal(runtime(images[0]), first)
        runtime.switch(1)
        assert torch.equal(runtime(images[1]), second)


@pytest.mark.parametrize("index", [0, 1])
def test_a_pool_runs_what_its_extracted_subnet_runs(
    supernet: Supernet, space: SearchSpace, choices: list[PoolChoice], index: int
) -> None:
    choice = choices[index]
    subnet = extract_subnet(supernet, choice.arch)
    layers = [name for name, module in subnet.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    channels = [found.layer.out_chs for found in norm_layers(space, choice.arch)]
    means, variances = (torch.from_numpy(flat).split(channels) for flat in choice.statistics)
    apply_statistics(subnet, dict(zip(layers, zip(means, variances, strict=True), strict=True)))

    runtime = PoolRuntime(supernet, choices)
    runtime.switch(1 - index)
    runtime.switch(index)
    assert runtime.arch == choice.arch
    images = images_for(choice)
    # The same sums, in which the supernet's layers may take another order than the plain ones.
    assert torch.allclose(runtime(images), subnet(images), rtol=1e-5, atol=1e-5)


def test_switching_writes_statistics_and_no_weight(supernet: Supernet, choices: list[PoolChoice]) -> None:
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    runtime = PoolRuntime(supernet.train(), choices)
    places = {name: tensor.data_ptr() for name, tensor in supernet.state_dict().items()}
    runtime.switch(1)
    after = supernet.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in after if "running_" in name}
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == places
    assert not supernet.training


@pytest.mark.parametrize("index", [-1, 2])
def test_a_pool_that_is_not_there_leaves_the_active_one(
    supernet: Supernet, choices: list[PoolChoice], index: int
) -> None:
    runtime = PoolRuntime(supernet, choices)
    runtime.switch(1)
    with pytest.raises(InvalidConfigError, match=f"No pool {index}: there are 0 to 1"):
        runtime.switch(index)
    assert runtime.index == 1


def test_images_of_another_resolution_are_refused(supernet: Supernet, choices: list[PoolChoice]) -> None:
    runtime = PoolRuntime(supernet, choices)
    with pytest.raises(InvalidArchError, match="takes images of shape"):
        runtime(images_for(choices[1]))


def test_no_pools_no_runtime(supernet: Supernet) -> None:
    with pytest.raises(InvalidConfigError, match="at least one pool"):
        PoolRuntime(supernet, [])


def write_bundle(folder: Path, space: SearchSpace) -> None:
    write_manifest(
        folder,
        name="tiny",
        space=space,
        classes=("ant", "bee", "cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training={"method": "pss_net"},
        versions={},
    )


def test_the_pools_of_a_bundle_are_loaded(
    supernet: Supernet, space: SearchSpace, choices: list[PoolChoice], tmp_path: Path
) -> None:
    save_tensors(tmp_path / PARTS["weights"], supernet.state_dict(), space)
    save_pools(tmp_path / PARTS["pools"], choices, space)
    write_bundle(tmp_path, space)
    loaded, made = PoolRuntime.load(tmp_path), PoolRuntime(supernet, choices)
    assert list(loaded.pools) == choices
    assert torch.equal(loaded(images_for(choices[0])), made(images_for(choices[0])))


def test_a_bundle_without_pools_says_where_they_come_from(
    supernet: Supernet, space: SearchSpace, tmp_path: Path
) -> None:
    save_tensors(tmp_path / PARTS["weights"], supernet.state_dict(), space)
    write_bundle(tmp_path, space)
    assert "pools" not in open_bundle(tmp_path).manifest.parts
    with pytest.raises(MissingPartError, match=r"'tiny' has no pools\. Train with the method `pss_net`"):
        PoolRuntime.load(tmp_path)
