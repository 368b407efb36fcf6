"""NetAug keeps the weights it starts from, and without augmented networks it is ordinary training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from supernet.data.images import ImageSet
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.spaces.space import SearchSpace
from supernet.training.checkpoint import RunState
from supernet.training.config import TrainConfig
from supernet.training.loop import build_optimizer, train
from supernet.training.method import Epoch, Phase
from supernet.training.methods.fine_tuning import FineTuningSettings
from supernet.training.methods.netaug import NetAug, NetAugSettings


def epoch_of(number: int) -> Epoch:
    return Epoch(number, Phase("train", 10), number, 10)


def begin(method: NetAug, state: RunState, number: int) -> bool:
    """Begin an epoch; whether that moved any weight."""
    before = [parameter.clone() for parameter in state.supernet.parameters()]
    method.begin_epoch(epoch_of(number), state)
    return not all(map(torch.equal, before, state.supernet.parameters()))


def started(method: NetAug, initial: Supernet, config: TrainConfig) -> RunState:
    supernet = method.build_supernet(torch.Generator().manual_seed(0))
    method.take_over(supernet, initial)
    return RunState(supernet, build_optimizer(supernet, config))


@pytest.fixture
def initial(tiny_space: SearchSpace) -> Supernet:
    return Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(9))


@pytest.mark.parametrize("resumed", [False, True])
def test_the_first_epoch_begins_with_the_weights_that_were_taken_over(
    config: TrainConfig, initial: Supernet, resumed: bool
) -> None:
    target = initial.space.sample(np.random.default_rng(3))
    method = NetAug(initial.space, target, 10)
    state = started(method, initial, config)
    if resumed:  # a run that was killed in its first epoch is resumed by a method made anew
        method = NetAug(initial.space, target, 10)
    assert not begin(method, state, 0)
    x = torch.randn(8, 3, target.resolution, target.resolution, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(state.supernet.train()(x, method.space.smallest()), initial.train()(x, target))
    assert begin(method, state, 1)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"augmented_per_step": 0}])
def test_weights_stay_in_place_where_no_augmented_network_is_trained(
    config: TrainConfig, initial: Supernet, settings: dict[str, Any]
) -> None:
    method = NetAug(initial.space, initial.space.smallest(), 10, NetAugSettings(**settings))
    state = started(method, initial, config)
    assert not any(begin(method, state, number) for number in range(10))
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    assert [one.arch for one in method.passes(epoch_of(0), 0, rng)] == [method.space.smallest()]
    assert rng.random() == untouched.random()  # the batches depend on it


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"augmented_per_step": 0}])
def test_without_augmented_networks_a_run_ends_as_fine_tuning(
    config: TrainConfig, images: ImageSet, initial: Supernet, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = replace(config, epochs=2)
    alone = replace(config, method="fine_tuning", settings=FineTuningSettings(target="smallest"))
    tuned = train(alone, images, tmp_path / "alone", initial=initial)
    inside = replace(config, method="netaug", settings=NetAugSettings(**settings))
    augmented = train(inside, images, tmp_path / "inside", initial=initial)
    expected, found = (extract_subnet(net, net.space.smallest()).state_dict() for net in (tuned, augmented))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
