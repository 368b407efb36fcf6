"""What each method runs in a step, and what it does between epochs and phases."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from supernet.errors import InvalidConfigError
from supernet.network.elastic_net import Supernet
from supernet.network.switchable import SwitchableSupernet
from supernet.spaces.arch import Arch
from supernet.spaces.costs import macs, macs_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Dimension, SearchSpace
from supernet.training.checkpoint import RunState
from supernet.training.config import TrainConfig
from supernet.training.loop import build_optimizer
from supernet.training.method import Epoch, Method, Phase, Teacher
from supernet.training.methods.netaug import NetAug, NetAugSettings
from supernet.training.methods.progressive_shrinking import ProgressiveShrinking, ProgressiveShrinkingSettings
from supernet.training.methods.pss_net import PssNet, PssNetSettings
from supernet.training.methods.registry import SETTINGS, build_method
from supernet.training.methods.rss import RandomSubnetSampling, RssSettings
from supernet.training.methods.us_nets import UsNets, UsNetsSettings
from supernet.training.passes import Pass

CIFAR = load_space("cifar_mbv3")
US = load_space("us_mobilenet_v1")
PSS = load_space("pss_mobilenet_v2")


def epoch_of(method: Method, number: int = 0) -> Epoch:
    phases = list(method.phases())
    total = sum(phase.epochs for phase in phases)
    start = 0
    for phase in phases:
        if number < start + phase.epochs:
            return Epoch(number, phase, number - start, total)
        start += phase.epochs
    raise IndexError(number)


def steps(method: Method, count: int, *, number: int = 0, seed: int = 0) -> list[list[Pass]]:
    rng = np.random.default_rng(seed)
    epoch = epoch_of(method, number)
    return [list(method.passes(epoch, step, rng)) for step in range(count)]


def alike(arch: Arch) -> Arch:
    """The arch whatever its resolution."""
    return replace(arch, resolution=0)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_equal_seeds_give_equal_steps_and_every_arch_belongs_to_the_space(name: str) -> None:
    config = TrainConfig("cifar_mbv3", name, epochs=20)
    method, again = (build_method(config, CIFAR) for _ in range(2))
    for number in range(0, 20, 3):
        first, second = steps(method, 4, number=number), steps(again, 4, number=number)
        assert first == second
        assert all(method.space.contains(one.arch) for passes in first for one in passes)
    assert sum(phase.epochs for phase in method.phases()) == 20


# ---------------------------------------------------------------------- RSS


def rss(**settings: object) -> RandomSubnetSampling:
    return RandomSubnetSampling(CIFAR, 10, RssSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(("stay", "distinct"), [(1, 12), (4, 3), (0, 1)])
def test_a_subnet_stays_for_its_number_of_steps(stay: int, distinct: int) -> None:
    archs = [passes[0].arch for passes in steps(rss(steps_per_subnet=stay), 12)]
    assert len(set(archs)) == distinct
    assert archs == sorted(archs, key=archs.index)
    if stay:
        assert all(archs[index] == archs[index - index % stay] for index in range(12))


def test_random_sampling_learns_from_labels_alone() -> None:
    for passes in steps(rss(subnets_per_step=3), 5):
        assert [(one.labels, one.distil) for one in passes] == [(1.0, 0.0)] * 3
        assert len({one.arch for one in passes}) == 3


def test_blocks_draw_uniformly() -> None:
    archs = [passes[0].arch for passes in steps(rss(), 3000)]
    for values in ([arch.resolution for arch in archs], [arch.depths[2] for arch in archs]):
        # False alarm once in 10,000 runs; the seed is fixed.
        assert stats.chisquare(list(Counter(values).values())).pvalue > 1e-4


def test_stages_or_the_network_can_choose_together() -> None:
    for passes in steps(rss(level="stage"), 50):
        for values in (passes[0].arch.kernel_sizes, passes[0].arch.expand_ratios):
            for stage in range(5):
                assert len(set(values[3 * stage : 3 * stage + 3]) - {0}) == 1
    drawn = set()
    for passes in steps(rss(level="network"), 200):
        arch = passes[0].arch
        choices = tuple(set(values) - {0} for values in (arch.depths, arch.kernel_sizes, arch.expand_ratios))
        assert all(len(values) == 1 for values in choices)
        drawn.add(tuple(map(min, choices)))
    assert len(drawn) == 27


# ---------------------------------------------------------------------- progressive shrinking


def shrinking(epochs: int = 121, **settings: object) -> ProgressiveShrinking:
    return ProgressiveShrinking(CIFAR, epochs, ProgressiveShrinkingSettings(**settings))  # type: ignore[arg-type]


def test_phases_follow_the_reference_in_order_epochs_and_rates() -> None:
    phases = list(shrinking(605).phases())
    assert [phase.name for phase in phases] == ["full", "kernel 3", "depth 2", "depth 3", "expand 2", "expand 3"]
    assert [phase.epochs for phase in phases] == [180, 125, 25, 125, 25, 125]
    assert [round(2.6 * phase.rate_factor, 4) for phase in phases] == [2.6, 0.96, 0.08, 0.24, 0.08, 0.24]
    assert [phase.teacher for phase in phases] == [Teacher.FIRST_PASS, *[Teacher.LARGEST] * 5]


def test_a_phase_offers_only_its_choices() -> None:
    method = shrinking()
    allowed = {
        "full": ({7}, {3}, {4}, 1),
        "kernel 3": ({3, 5, 7}, {3}, {4}, 1),
        "depth 2": ({3, 5, 7}, {2, 3}, {4}, 2),
        "depth 3": ({3, 5, 7}, {1, 2, 3}, {4}, 2),
        "expand 2": ({3, 5, 7}, {1, 2, 3}, {3, 4}, 4),
        "expand 3": ({3, 5, 7}, {1, 2, 3}, {2, 3, 4}, 4),
    }
    number = 0
    for phase in method.phases():
        kernels, depths, ratios, subnets = allowed[phase.name]
        seen: tuple[set[float], ...] = (set(), set(), set())
        for passes in steps(method, 60, number=number):
            assert len(passes) == subnets
            assert len({one.arch.resolution for one in passes}) == 1
            assert {one.distil for one in passes} == {1.0 if phase.teacher is Teacher.LARGEST else 0.0}
            for one in passes:
                for values, found in zip(
                    (one.arch.kernel_sizes, one.arch.depths, one.arch.expand_ratios), seen, strict=True
                ):
                    found |= set(values) - {0}
        assert seen == (kernels, depths, ratios)
        number += phase.epochs


def test_spaces_with_fewer_elastic_dimensions_have_fewer_phases() -> None:
    assert [phase.name for phase in ProgressiveShrinking(US, 300).phases()][:2] == ["full", "width 2"]
    resnet = ProgressiveShrinking(load_space("ofa_resnet50"), 20)
    names = ["full", "depth 2", "depth 3", "expand 2", "expand 3", "width 2", "width 3"]
    assert [phase.name for phase in resnet.phases()] == names
    with pytest.raises(InvalidConfigError, match="has 6 phases, so 'epochs' must be at least that, got 5"):
        shrinking(5)


def test_without_a_ratio_nobody_teaches() -> None:
    assert {phase.teacher for phase in shrinking(kd_ratio=0.0).phases()} == {Teacher.FIRST_PASS}


# ---------------------------------------------------------------------- US-Nets


def test_every_step_has_the_largest_first_and_the_smallest_once() -> None:
    method = UsNets(US, 10, UsNetsSettings(subnets_per_step=4))
    for passes in steps(method, 20):
        assert len(passes) == 4
        assert passes[0].arch == US.largest()
        assert [one.arch for one in passes].count(US.smallest()) >= 1
        assert passes[1].arch == US.smallest()
        assert [(one.labels, one.distil) for one in passes] == [(1.0, 0.0), *[(0.0, 1.0)] * 3]


def test_one_ratio_is_drawn_for_the_network_or_one_per_layer() -> None:
    def ratios(*, nonuniform: bool) -> list[set[float]]:
        method = UsNets(US, 10, UsNetsSettings(nonuniform=nonuniform))
        largest = US.largest().widths
        wide = [index for index, width in enumerate(largest) if width == 1024]
        return [{passes[2].arch.widths[index] / largest[index] for index in wide} for passes in steps(method, 20)]

    assert all(len(found) == 1 for found in ratios(nonuniform=False))
    assert any(len(found) == 2 for found in ratios(nonuniform=True))


def test_lower_bound_and_divisor_of_the_widths_are_kept() -> None:
    method = UsNets(US, 10, UsNetsSettings(width_min=0.5, width_divisor=16))
    for passes in steps(method, 30):
        for one in passes:
            for width, largest in zip(one.arch.widths, US.largest().widths, strict=True):
                assert width % 16 == 0
                assert width >= 0.5 * largest


def test_widths_that_are_listed_sparsely_are_all_trained() -> None:
    sparse = replace(
        US, stages=tuple(replace(stage, widths=stage.widths[:: max(1, len(stage.widths) // 3)]) for stage in US.stages)
    )
    method = UsNets(sparse, 10, UsNetsSettings(subnets_per_step=3))
    widths = {passes[2].arch.widths for passes in steps(method, 200)}
    assert len(widths) >= 4
    assert {width for found in widths for width in found} == {
        width for slot in sparse.slots if slot.dimension is Dimension.WIDTH for width in slot.choices
    }


def test_other_dimensions_draw_on_their_own_beside_widths() -> None:
    space = load_space("ofa_resnet50")
    drawn = [passes[2].arch for passes in steps(UsNets(space, 10), 40)]
    assert len({arch.depths for arch in drawn}) > 5
    assert len({arch.expand_ratios for arch in drawn}) > 5
    assert len({arch.widths for arch in drawn}) > 2


def test_widths_that_are_no_switches_are_refused() -> None:
    for settings in (UsNetsSettings(widths=(0.25, 0.2501, 1.0)), UsNetsSettings(widths=(0.1, 1.0))):
        with pytest.raises(
            InvalidConfigError, match=r"must be ratios from 0\.25 to 1 that 'us_mobilenet_v1' tells apart"
        ):
            UsNets(US, 10, settings)
    with pytest.raises(InvalidConfigError, match="leave out 'width_min'"):
        UsNetsSettings(widths=(0.5, 1.0), width_min=0.5)


def test_switches_are_all_trained_in_every_step_from_wide_to_narrow() -> None:
    method = UsNets(US, 10, UsNetsSettings(widths=(0.25, 0.5, 0.75, 1.0), distil=False))
    (passes,) = steps(method, 1)
    assert [one.arch.widths[-1] for one in passes] == [1024, 768, 512, 256]
    assert {(one.labels, one.distil) for one in passes} == {(1.0, 0.0)}


def test_switchable_normalisation_is_one_per_width() -> None:
    settings = UsNetsSettings(widths=(0.5, 1.0), bn="switchable")
    method = UsNets(US, 1, settings)
    supernet = method.build_supernet(torch.Generator().manual_seed(0))
    assert isinstance(supernet, SwitchableSupernet)
    (passes,) = steps(method, 1)
    assert {alike(one.arch) for one in passes} == set(supernet.switches)
    for wrong in ({"bn": "private"}, {"bn": "switchable"}, {"bn_images": 0}):
        with pytest.raises(InvalidConfigError, match=r"'us_nets\.(bn|widths)'"):
            UsNetsSettings(**wrong)  # type: ignore[arg-type]


def test_the_sandwich_serves_spaces_without_elastic_widths() -> None:
    method = UsNets(CIFAR, 10)
    for passes in steps(method, 10):
        assert alike(passes[0].arch) == alike(CIFAR.largest())
        assert alike(passes[1].arch) == alike(CIFAR.smallest())
        assert len({one.arch.resolution for one in passes}) == 1
    for settings in (
        UsNetsSettings(width_min=0.5),
        UsNetsSettings(widths=(0.5, 1.0)),
        UsNetsSettings(width_divisor=16),
        UsNetsSettings(nonuniform=True),
    ):
        with pytest.raises(InvalidConfigError, match="has no elastic widths"):
            UsNets(CIFAR, 10, settings)
    with pytest.raises(InvalidConfigError, match=r"ratio of 0\.1"):
        UsNets(US, 10, UsNetsSettings(width_min=0.1))


# ---------------------------------------------------------------------- PSS-Net


def pss(**settings: object) -> PssNet:
    return PssNet(PSS, 10, PssNetSettings(prior_archs=3000, **settings))  # type: ignore[arg-type]


def test_schedules_fall_exponentially_from_end_to_end() -> None:
    method = PssNet(PSS, 100)
    phase = Phase("train", 100)
    for number, value in ((0, 1.0), (50, 0.1), (100, 0.01)):
        at = Epoch(number, phase, number, 100)
        assert method.chance_to_explore(at) == pytest.approx(value)
        assert method.temperature(at) == pytest.approx(value)


def test_every_step_runs_the_largest_a_prioritized_and_the_smallest() -> None:
    method = pss(bins=10)
    for passes in steps(method, 40):
        assert [one.arch for one in (passes[0], passes[2])] == [PSS.largest(), PSS.smallest()]
        assert [(one.labels, one.distil) for one in passes] == [(1.0, 0.0), (0.0, 1.0), (0.0, 1.0)]


def test_what_is_explored_lies_in_its_bin() -> None:
    method = pss(bins=10)
    ends = [macs(PSS, arch) for arch in (PSS.smallest(), PSS.largest())]
    edges = np.linspace(*ends, 11)
    rng, epoch = np.random.default_rng(0), epoch_of(method)
    for _ in range(60):
        middle = list(method.passes(epoch, 0, rng))[1]
        pool = method._pool
        assert pool is not None
        assert pool.low <= macs(PSS, middle.arch) < pool.high
        assert pool.low in edges
        assert edges[0] < pool.low
        assert pool.high < edges[-1]


def test_a_full_pool_drops_its_worst_and_known_subnets_move_slowly() -> None:
    method = pss(pool_size=3)
    pool = method.pools[0]
    archs = PSS.from_rows(np.unique(pool.known, axis=0)[:5])
    for score, arch in enumerate(archs):
        pool.record(arch, -float(score), memory=0.9, size=3)
    assert pool.best(5) == archs[:3]
    pool.record(archs[2], 8.0, memory=0.9, size=3)
    assert pool.scores[archs[2]] == pytest.approx(0.9 * -2 + 0.1 * 8)
    assert len(pool.scores) == 3


def test_exploiting_follows_the_scores() -> None:
    method = pss(pool_size=3, explore=(1e-9, 1e-9), temperature=(1.0, 1.0))
    for pool in method.pools:
        for score, arch in enumerate(PSS.from_rows(np.unique(pool.known, axis=0)[:3])):
            pool.record(arch, float(score), memory=0.9, size=3)
    first = method.pools[0]
    archs = list(first.scores)
    rng, epoch = np.random.default_rng(0), epoch_of(method)
    counts = Counter(archs.index(method._exploit(first, epoch, rng)) for _ in range(3000))
    expected = np.exp([0.0, 1.0, 2.0])
    observed = [counts[index] for index in range(3)]
    # False alarm once in 10,000 runs; the seed is fixed.
    assert stats.chisquare(observed, 3000 * expected / expected.sum()).pvalue > 1e-4
    cold = replace(epoch, number=10)
    method.settings = replace(method.settings, temperature=(1e-3, 1e-3))
    assert {archs.index(method._exploit(first, cold, rng)) for _ in range(50)} == {2}


def test_a_pool_is_scored_by_the_labels_loss_of_its_subnet() -> None:
    method = pss()
    (passes,) = steps(method, 1)
    method.observe(passes, [0.1, 2.5, 3.0])
    scores = [pool.scores for pool in method.pools if pool.scores]
    assert scores == [{passes[1].arch: -2.5}]


def test_pools_survive_a_resumed_run() -> None:
    method, again = pss(), pss()
    for passes in steps(method, 30):
        method.observe(passes, [1.0, 2.0, 3.0])
    again.load_state(method.state())
    assert [pool.scores for pool in again.pools] == [pool.scores for pool in method.pools]


def test_pools_can_be_measured_by_several_costs() -> None:
    cost = macs_cost(PSS)
    method = PssNet(
        PSS, 10, PssNetSettings(prior_archs=1000, bins=5), resources={"macs": cost, "ms": cost.scaled(1e-6)}
    )
    assert [pool.resource for pool in method.pools] == ["macs"] * 3 + ["ms"] * 3


# ---------------------------------------------------------------------- NetAug


def netaug(**settings: object) -> NetAug:
    target = CIFAR.from_rows(CIFAR.sample_rows(np.random.default_rng(3), 1))[0]
    return NetAug(CIFAR, target, 155, NetAugSettings(**settings))  # type: ignore[arg-type]


def test_the_target_comes_first_and_augmented_networks_follow() -> None:
    method = netaug(augmented_per_step=2, alpha=0.5)
    for passes in steps(method, 10):
        assert passes[0].arch == method.space.smallest()
        assert [one.labels for one in passes] == [1.0, 0.5, 0.5]
        for one in passes[1:]:
            assert macs(method.space, one.arch) >= macs(CIFAR, method.target)


def test_alpha_0_is_ordinary_training() -> None:
    for passes in steps(netaug(alpha=0.0), 3):
        assert len(passes) == 1


def test_widths_are_augmented_in_the_first_epochs_only() -> None:
    method = netaug()
    widths = [index for index, slot in enumerate(method.space.slots) if slot.dimension is Dimension.WIDTH]
    for number, augmented in ((0, True), (79, True), (80, False), (154, False)):
        rows = method.space.to_rows([passes[1].arch for passes in steps(method, 20, number=number)])
        assert rows[:, widths].any() == augmented
        others = [index for index in range(rows.shape[1]) if index not in widths]
        assert rows[:, others].any()


def test_channels_are_sorted_while_widths_are_augmented() -> None:
    method = netaug()
    supernet = Supernet(method.space, torch.Generator().manual_seed(0))
    state = RunState(supernet, build_optimizer(supernet, TrainConfig("cifar_mbv3")))

    def sorted_blocks() -> bool:
        weights = [block.layers["project"].conv.weight for block in supernet.blocks if "expand" in block.layers]
        return all((weight.abs().sum((0, 2, 3)).diff() <= 1e-6).all() for weight in weights)

    method.begin_epoch(epoch_of(method, 80), state)
    assert not sorted_blocks()
    method.begin_epoch(epoch_of(method, 79), state)
    assert sorted_blocks()


def test_targets_are_named_or_read_from_a_file() -> None:
    for target in ("smallest", "largest"):
        method = build_method(TrainConfig("cifar_mbv3", "netaug", NetAugSettings(target)), CIFAR)
        assert isinstance(method, NetAug)
        assert method.target == getattr(CIFAR, target)()
    with pytest.raises(InvalidConfigError, match=r"'target': An arch is 'smallest', 'largest' or the JSON file"):
        build_method(TrainConfig("cifar_mbv3", "netaug", NetAugSettings("nowhere.json")), CIFAR)


def test_spaces_are_those_of_the_supernet(tiny_space: SearchSpace) -> None:
    assert build_method(TrainConfig("tiny"), tiny_space).space is tiny_space
