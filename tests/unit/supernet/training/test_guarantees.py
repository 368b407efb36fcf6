"""What all methods promise of a run: rates and weights from phase to phase, who is drawn, and a way back."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from supernet.data.batches import resize_batch
from supernet.data.images import ImageSet
from supernet.network.checkpoint import load_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.spaces.arch import Arch
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace
from supernet.training.checkpoint import CHECKPOINT, RunState
from supernet.training.config import TrainConfig
from supernet.training.loop import StepReport, build_optimizer, train
from supernet.training.method import Epoch
from supernet.training.methods.fine_tuning import FineTuningSettings
from supernet.training.methods.netaug import NetAugSettings
from supernet.training.methods.progressive_shrinking import ProgressiveShrinkingSettings
from supernet.training.methods.pss_net import PssNet, PssNetSettings
from supernet.training.methods.registry import SETTINGS, build_method
from supernet.training.methods.rss import RssSettings
from supernet.training.passes import PassResult, run_passes
from supernet.training.teacher import teacher_of

STEPS_PER_EPOCH = 2
# Where all four have two epochs.
STEPS_PER_PHASE = 2 * STEPS_PER_EPOCH
PSS = load_space("pss_mobilenet_v2")

State = dict[str, Tensor]


@pytest.fixture
def config(config: TrainConfig) -> TrainConfig:
    return replace(config, batch_size=20)  # of 40 images


def parameters_of(network: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in network.named_parameters()}


def state_of(network: nn.Module | None) -> State:
    return {} if network is None else {name: tensor.clone() for name, tensor in network.state_dict().items()}


def differing(first: State, second: State) -> set[str]:
    assert set(first) == set(second)
    return {name for name, tensor in first.items() if not torch.equal(tensor, second[name])}


# ---------------------------------------------------------------------- phases


@dataclass
class Steps:
    """Of every optimizer step of a run: its rate, and the weights before and after it."""

    rates: list[float] = field(default_factory=list)
    before: list[State] = field(default_factory=list)
    after: list[State] = field(default_factory=list)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    found = Steps()

    def build(supernet: Supernet, config: TrainConfig) -> torch.optim.SGD:
        optimizer = build_optimizer(supernet, config)

        def before(*_: Any) -> None:
            (rate,) = {group["lr"] for group in optimizer.param_groups}
            found.rates.append(rate)
            found.before.append(parameters_of(supernet))

        def after(*_: Any) -> None:
            found.after.append(parameters_of(supernet))

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
        return optimizer

    monkeypatch.setattr("supernet.training.loop.build_optimizer", build)
    return found


@pytest.fixture
def shrinking(config: TrainConfig) -> TrainConfig:
    """Four phases of two epochs: full, kernel 2, depth 2, expand 2."""
    return replace(config, method="progressive_shrinking", settings=ProgressiveShrinkingSettings(), epochs=8)


def test_each_phase_warms_up_to_its_own_peak_and_falls(
    shrinking: TrainConfig, images: ImageSet, tmp_path: Path, steps: Steps
) -> None:
    train(replace(shrinking, learning_rate=0.26, warmup_epochs=4.0), images, tmp_path)  # one of the two of each phase
    assert len(steps.rates) == 4 * STEPS_PER_PHASE
    # A tenth of the reference's peaks; its last dimensions have no step on the way here.
    for number, peak in enumerate((0.26, 0.096, 0.024, 0.024)):
        rates = steps.rates[number * STEPS_PER_PHASE : (number + 1) * STEPS_PER_PHASE]
        assert rates == pytest.approx([peak / 2, peak, peak, peak / 2])


@pytest.mark.parametrize("sorts", [True, False])
def test_each_phase_goes_on_with_the_weights_of_the_one_before_and_sorts_them_for_expand_ratios_alone(
    shrinking: TrainConfig, images: ImageSet, tmp_path: Path, steps: Steps, *, sorts: bool
) -> None:
    train(replace(shrinking, settings=ProgressiveShrinkingSettings(sort_channels=sorts)), images, tmp_path)
    for number, name in enumerate(("kernel", "depth", "expand"), start=1):
        left, taken_up = steps.after[number * STEPS_PER_PHASE - 1], steps.before[number * STEPS_PER_PHASE]
        assert bool(differing(left, taken_up)) is (sorts and name == "expand"), name
        for weight, tensor in left.items():  # at most, channels have moved
            assert torch.equal(tensor.flatten().sort().values, taken_up[weight].flatten().sort().values), weight


def test_the_teacher_stays_the_largest_network_as_its_phase_left_it(
    shrinking: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, steps: Steps
) -> None:
    train(shrinking, images, tmp_path)
    space = tiny_space.with_classes(2)
    left = Supernet(space, torch.Generator())
    left.load_state_dict(steps.after[STEPS_PER_PHASE - 1], strict=False)
    tensors, _ = load_tensors(tmp_path / CHECKPOINT, space)
    largest = parameters_of(extract_subnet(left, space.largest()))
    assert all(torch.equal(tensors[f"teacher.{name}"], tensor) for name, tensor in largest.items())


# ---------------------------------------------------------------------- random subnet sampling


def test_an_arch_stays_a_whole_epoch_and_the_next_epoch_has_another(
    config: TrainConfig, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archs: list[Arch] = []

    def record(supernet: Supernet, passes: Any, *args: Any, **options: Any) -> list[PassResult]:
        archs.extend(one.arch for one in passes)
        return run_passes(supernet, passes, *args, **options)

    monkeypatch.setattr("supernet.training.loop.run_passes", record)
    train(replace(config, settings=RssSettings(steps_per_subnet=0), epochs=8), images, tmp_path)
    epochs = [archs[start : start + STEPS_PER_EPOCH] for start in range(0, len(archs), STEPS_PER_EPOCH)]
    assert len(epochs) == 8
    assert all(len(set(epoch)) == 1 for epoch in epochs)
    # Of 40 archs; 1.1 of the 28 pairs are expected to be equal. The seed is fixed.
    assert len(set(archs)) >= 6


@pytest.mark.parametrize("method", ["rss", "us_nets", "pss_net", "progressive_shrinking", "netaug"])
def test_only_methods_that_sort_channels_move_them(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, method: str
) -> None:
    """Nothing is learnt at a rate of 0, so a weight that is not where it was has been moved."""
    settings = PssNetSettings(bins=4, prior_archs=200) if method == "pss_net" else SETTINGS[method]()
    config = replace(config, method=method, settings=settings, epochs=4, learning_rate=0.0, weight_decay=0.1)
    first = build_method(config, tiny_space.with_classes(2)).build_supernet(torch.Generator().manual_seed(config.seed))
    moved = differing(parameters_of(first), parameters_of(train(config, images, tmp_path)))
    assert bool(moved) is (method in ("progressive_shrinking", "netaug"))


def test_random_sampling_descends_the_plain_cross_entropy(
    config: TrainConfig, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0

    def compare(supernet: Supernet, passes: Any, x: Tensor, labels: Tensor, **options: Any) -> list[PassResult]:
        nonlocal compared
        (one,) = passes
        twin = copy.deepcopy(supernet)
        loss = F.cross_entropy(twin(resize_batch(x, one.arch.resolution), one.arch), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        results = run_passes(supernet, passes, x, labels, **options)
        assert results[0].loss == loss.item()
        for found, expected in zip(supernet.parameters(), twin.parameters(), strict=True):
            assert (found.grad is None) is (expected.grad is None)
            assert found.grad is None or torch.equal(found.grad, expected.grad)  # type: ignore[arg-type]
        compared += 1
        return results

    monkeypatch.setattr("supernet.training.loop.run_passes", compare)
    train(config, images, tmp_path)
    assert compared == 3 * STEPS_PER_EPOCH


# ---------------------------------------------------------------------- prioritized subnet sampling


@pytest.mark.parametrize(
    ("explore", "scored", "exploits"),
    [(1.0, 3, False), (1e-9, 2, False), (1e-9, 3, True)],
    ids=["always exploring", "pools not full", "pools full"],
)
def test_pools_are_exploited_once_full_and_not_while_all_is_explored(
    explore: float, scored: int, exploits: bool
) -> None:
    method = PssNet(PSS, 10, PssNetSettings(bins=10, pool_size=3, prior_archs=2000, explore=(explore, explore)))
    # Beside every bin, so that exploring never finds them.
    marks = [replace(PSS.smallest(), resolution=resolution) for resolution in PSS.resolutions[:scored]]
    for pool in method.pools:
        pool.scores = dict.fromkeys(marks, 0.0)
    rng, (phase,) = np.random.default_rng(0), method.phases()
    drawn = [list(method.passes(Epoch(5, phase, 5, 10), 0, rng))[1].arch for _ in range(60)]
    assert [arch in marks for arch in drawn] == [exploits] * 60


def test_resolutions_of_mobilenet_v2_are_multiples_of_8_from_128_to_224() -> None:
    method = PssNet(PSS, 10, PssNetSettings(bins=10, prior_archs=2000))
    rng, (phase,) = np.random.default_rng(0), method.phases()
    drawn = {one.arch.resolution for _ in range(200) for one in method.passes(Epoch(0, phase, 0, 10), 0, rng)}
    assert drawn == set(range(128, 225, 8))


# ---------------------------------------------------------------------- after a divergence


def diverge_in(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gradient of one step, counted from 0 over the run and its attempts, be no number."""
    clip, calls = nn.utils.clip_grad_norm_, iter(range(10**6))

    def clip_or_diverge(parameters: Any, max_norm: float) -> Tensor:
        norm = clip(parameters, max_norm)
        return norm * torch.nan if next(calls) == step else norm

    monkeypatch.setattr("supernet.training.loop.nn.utils.clip_grad_norm_", clip_or_diverge)


@pytest.mark.parametrize(
    ("method", "epoch"),
    [
        pytest.param("pss_net", 2, id="pools"),
        pytest.param("progressive_shrinking", 2, id="first epoch with a teacher"),
        pytest.param("progressive_shrinking", 3, id="second epoch with a teacher"),
        pytest.param("progressive_shrinking", 6, id="first epoch after a sort"),
    ],
)
def test_another_attempt_starts_from_the_state_of_the_first(
    config: TrainConfig,
    tiny_space: SearchSpace,
    images: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    epoch: int,
) -> None:
    settings = PssNetSettings(bins=4, pool_size=2, prior_archs=200) if method == "pss_net" else SETTINGS[method]()
    config = replace(config, method=method, settings=settings, epochs=8, ema=0.9)
    run = build_method(config, tiny_space.with_classes(2))
    attempts: list[dict[str, Any]] = []

    def record(at: Epoch, state: RunState) -> None:
        if at.number == epoch:
            names = {id(parameter): name for name, parameter in state.supernet.named_parameters()}
            attempts.append(
                {
                    "weights": state_of(state.supernet),
                    "average": state_of(state.average),
                    "teacher": {} if state.teacher is None else parameters_of(state.teacher),
                    "momentum": {
                        names[id(parameter)]: entry["momentum_buffer"].clone()
                        for parameter, entry in state.optimizer.state.items()
                    },
                    "method": copy.deepcopy(run.state()),
                }
            )

    monkeypatch.setattr(run, "begin_epoch", record)
    # In the last step, after one that has changed everything.
    diverge_in((epoch + 1) * STEPS_PER_EPOCH - 1, monkeypatch)
    with pytest.warns(RuntimeWarning, match="taken again from its checkpoint"):
        train(config, images, tmp_path, method=run)

    first, second = attempts
    assert first["method"] == second["method"]
    for part in ("weights", "average", "teacher", "momentum"):
        assert not differing(first[part], second[part]), part
    assert first["average"]
    assert bool(first["teacher"]) is (method == "progressive_shrinking")
    assert any(pool for pool in first["method"].get("pools", [])) is (method == "pss_net")


# ---------------------------------------------------------------------- resume


class InterruptedRunError(Exception):
    """What kills a run here."""


@pytest.mark.parametrize("settings", [FineTuningSettings(distil=1.0), NetAugSettings(distil=1.0)])
def test_what_a_given_teacher_taught_resumes_to_the_bit(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, settings: Any
) -> None:
    method = next(name for name, kind in SETTINGS.items() if isinstance(settings, kind))
    config = replace(config, method=method, settings=settings)
    initial, teaches = (Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(seed)) for seed in (8, 9))

    def run(name: str, interrupt_at: int = 0) -> State:
        def report(line: StepReport) -> None:
            if line.step == interrupt_at:
                raise InterruptedRunError

        teacher = teacher_of(teaches)
        return state_of(
            train(config, images, tmp_path / name, resume=True, initial=initial, teacher=teacher, report=report)
        )

    whole = run("whole")
    for step in (1, 3, 6):
        with pytest.raises(InterruptedRunError):
            run("parts", step)
    assert not differing(whole, run("parts"))
