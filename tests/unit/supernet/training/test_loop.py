"""train(): it learns, it resumes to the bit, and it refuses what it cannot go on from."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from supernet.data.images import ImageSet
from supernet.errors import (
    FingerprintMismatchError,
    InvalidBundleError,
    InvalidConfigError,
    TrainingDivergedError,
)
from supernet.network.checkpoint import load_tensors, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.spaces.blocks import BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.checkpoint import CHECKPOINT, RunState, load_checkpoint
from supernet.training.config import TrainConfig
from supernet.training.log import LOG
from supernet.training.loop import StepReport, average_of, build_optimizer, train
from supernet.training.methods.fine_tuning import FineTuningSettings
from supernet.training.methods.netaug import NetAugSettings
from supernet.training.methods.pss_net import PssNetSettings
from supernet.training.methods.registry import SETTINGS, build_method
from supernet.training.methods.us_nets import UsNetsSettings
from supernet.training.teacher import teacher_of


class InterruptedRunError(Exception):
    """What kills a run in these tests."""


def interrupt_after(steps: int) -> Callable[[StepReport], None]:
    def report(line: StepReport) -> None:
        if line.step == steps:
            raise InterruptedRunError

    return report


def log_of(out_dir: Path) -> list[dict[str, str]]:
    with (out_dir / LOG).open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint_of(out_dir: Path, space: SearchSpace) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_tensors(out_dir / CHECKPOINT, space.with_classes(2))


def test_training_learns_a_plain_task(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    steps: list[StepReport] = []
    supernet = train(replace(config, epochs=8), images, tmp_path, report=steps.append)
    lines = log_of(tmp_path)
    assert [int(line["epoch"]) for line in lines] == list(range(1, 9))
    assert float(lines[-1]["loss"]) < 0.5 * float(lines[0]["loss"])
    assert float(lines[-1]["top1"]) > 0.9
    assert [step.step for step in steps] == list(range(1, 41))
    assert {step.steps for step in steps} == {40}
    assert [step.epoch for step in steps] == [epoch for epoch in range(1, 9) for _ in range(5)]
    mean_of_first = np.mean([step.loss for step in steps[:5]])
    assert float(lines[0]["loss"]) == pytest.approx(float(mean_of_first), rel=1e-4)
    assert not supernet.training
    assert supernet.space.classes == 2


def test_equal_seeds_train_equal_weights(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    first, second = (train(replace(config, epochs=1), images, tmp_path / name).state_dict() for name in "ab")
    other = train(replace(config, epochs=1, seed=1), images, tmp_path / "c").state_dict()
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    assert not all(torch.equal(first[name], tensor) for name, tensor in other.items())


def test_a_run_starts_from_the_weights_it_is_given(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path
) -> None:
    start = Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(9))
    still = replace(config, learning_rate=0.0)
    parameters = dict(train(still, images, tmp_path / "run", initial=start).named_parameters())
    assert all(torch.equal(parameters[name], tensor) for name, tensor in start.named_parameters())
    elsewhere = Supernet(replace(tiny_space, resolutions=(8, 16)), torch.Generator())
    with pytest.raises(FingerprintMismatchError, match="Start from a bundle of the same space"):
        train(still, images, tmp_path / "other", initial=elsewhere)
    assert not (tmp_path / "other").exists()


def test_a_run_that_never_finished_an_epoch_may_be_begun_anew(
    config: TrainConfig, images: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train(config, images, tmp_path, report=interrupt_after(1))
    train(replace(config, learning_rate=0.05), images, tmp_path)
    assert len(log_of(tmp_path)) == 3


def test_a_resumed_run_learns_from_what_it_learnt_from(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    train(config, images, tmp_path, origin={"dataset": "a", "teacher": "b"})
    train(config, images, tmp_path, origin={"dataset": "a", "teacher": "b"}, resume=True)
    with pytest.raises(InvalidConfigError, match=r"learnt from \{'teacher': 'b'\}, this one has \{'teacher': None\}"):
        train(config, images, tmp_path, origin={"dataset": "a"}, resume=True)


def test_only_methods_without_a_plan_for_the_run_change_its_length(
    config: TrainConfig, images: ImageSet, tmp_path: Path
) -> None:
    settings = PssNetSettings(bins=4, pool_size=2, prior_archs=200)
    config = replace(config, method="pss_net", settings=settings, level_epochs=2.0)
    with pytest.raises(InterruptedRunError):
        train(config, images, tmp_path, report=interrupt_after(7))
    with pytest.raises(InvalidConfigError, match=r"other settings of \['epochs'\]"):
        train(replace(config, epochs=9), images, tmp_path, resume=True)


def test_one_image_at_a_time_is_refused_before_anything_is_written(
    config: TrainConfig, images: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfigError, match="at least 2 images at a time"):
        train(replace(config, batch_size=4, accumulate=4), images, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_of_other_classes_are_taken_but_for_the_classifier(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path
) -> None:
    ten = Supernet(tiny_space, torch.Generator().manual_seed(9))
    trained = train(replace(config, learning_rate=0.0), images, tmp_path, initial=ten)
    classifier = f"blocks.{len(ten.blocks) - 1}."
    ours = {name: tensor for name, tensor in trained.named_parameters() if not name.startswith(classifier)}
    assert ours
    assert all(torch.equal(dict(ten.named_parameters())[name], tensor) for name, tensor in ours.items())
    assert trained.space.classes == 2


def test_a_fine_tuned_subnet_starts_where_it_was(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path
) -> None:
    start = Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(9)).eval()
    target = start.space.sample(np.random.default_rng(3))
    (tmp_path / "answer.json").write_text(json.dumps({"arch": target.to_dict(), "accuracy": {}}))
    settings = FineTuningSettings(target=str(tmp_path / "answer.json"))
    still = replace(config, method="fine_tuning", settings=settings, learning_rate=0.0)
    tuned = train(still, images, tmp_path / "run", initial=start)
    x = torch.randn(4, 3, target.resolution, target.resolution, generator=torch.Generator().manual_seed(0))
    alone, before = tuned.train()(x, tuned.space.smallest()), start.train()(x, target)
    assert tuned.space.size() == 1
    torch.testing.assert_close(alone, before)
    learnt = train(replace(still, learning_rate=0.1), images, tmp_path / "learns", initial=start)
    assert float(log_of(tmp_path / "learns")[-1]["loss"]) < float(log_of(tmp_path / "run")[-1]["loss"])
    assert learnt.space == tuned.space


@pytest.mark.parametrize("settings", [FineTuningSettings(distil=1.0), NetAugSettings(distil=1.0)])
def test_what_distils_needs_a_teacher_and_learns_from_it(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, settings: Any
) -> None:
    method = next(name for name, kind in SETTINGS.items() if isinstance(settings, kind))
    config = replace(config, method=method, settings=settings)
    with pytest.raises(InvalidConfigError, match=f"'{method}' with these settings distils from a teacher"):
        train(config, images, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    supernet = Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(9))
    taught = train(config, images, tmp_path / "taught", teacher=teacher_of(supernet)).state_dict()
    config_without = replace(config, settings=replace(settings, distil=0.0))
    plain = train(config_without, images, tmp_path / "plain").state_dict()
    assert not all(torch.equal(taught[name], tensor) for name, tensor in plain.items())
    with pytest.raises(InvalidConfigError, match="has no use for a teacher"):
        train(config_without, images, tmp_path / "useless", teacher=teacher_of(supernet))


# ---------------------------------------------------------------------- resume


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, momentum: float
) -> None:
    config = replace(config, momentum=momentum)
    whole = train(config, images, tmp_path / "whole").state_dict()
    for steps in (7, 13):
        with pytest.raises(InterruptedRunError):
            train(config, images, tmp_path / "parts", resume=True, report=interrupt_after(steps))
    parts = train(config, images, tmp_path / "parts", resume=True).state_dict()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    expected, metadata = checkpoint_of(tmp_path / "whole", tiny_space)
    found, same_metadata = checkpoint_of(tmp_path / "parts", tiny_space)
    assert metadata == same_metadata
    assert set(found) == set(expected)
    assert any(name.startswith("momentum.") for name in found) is (momentum > 0)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [line["loss"] for line in log_of(tmp_path / "parts")] == [
        line["loss"] for line in log_of(tmp_path / "whole")
    ]


@pytest.mark.parametrize("method", list(SETTINGS))
def test_every_method_resumes_to_the_bit(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, method: str
) -> None:
    few = {"pss_net": PssNetSettings(bins=4, pool_size=2, prior_archs=200)}
    # Five epochs: progressive shrinking has four phases here.
    config = replace(config, method=method, settings=few.get(method, SETTINGS[method]()), epochs=5, ema=0.9)
    train(config, images, tmp_path / "whole")
    for steps in (3, 8, 13, 21):
        with pytest.raises(InterruptedRunError):
            train(config, images, tmp_path / "parts", resume=True, report=interrupt_after(steps))
    train(config, images, tmp_path / "parts", resume=True)
    space = build_method(config, tiny_space.with_classes(2)).space
    (expected, metadata), (found, same_metadata) = (
        load_tensors(tmp_path / name / CHECKPOINT, space) for name in ("whole", "parts")
    )
    assert metadata == same_metadata
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_switchable_normalisation_resumes_to_the_bit(
    config: TrainConfig, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = SearchSpace(
        "tiny",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 16), kernel_sizes=(3,), stride=2),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(10,), norm=False, bias=True),
        ),
        resolutions=(12,),
    )
    monkeypatch.setattr("supernet.training.loop.find_space", lambda _: slim)
    settings = UsNetsSettings(widths=(0.5, 1.0), bn="switchable")
    config = replace(config, method="us_nets", settings=settings)
    whole = train(config, images, tmp_path / "whole").state_dict()
    with pytest.raises(InterruptedRunError):
        train(config, images, tmp_path / "parts", report=interrupt_after(8))
    parts = train(config, images, tmp_path / "parts", resume=True).state_dict()
    assert any("norms.1" in name for name in whole)
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_resuming_a_finished_run_changes_nothing(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    done = train(config, images, tmp_path).state_dict()
    before = (tmp_path / CHECKPOINT).read_bytes()
    again = train(config, images, tmp_path, resume=True, report=interrupt_after(1)).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in done.items())
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_folder_with_a_run_is_not_overwritten(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    train(config, images, tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(InvalidConfigError, match="holds a run already"):
        train(config, images, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("changes", [{"epochs": 4}, {"learning_rate": 0.2, "seed": 3}])
def test_a_run_is_not_resumed_with_other_settings(
    config: TrainConfig, images: ImageSet, tmp_path: Path, changes: dict[str, Any]
) -> None:
    train(config, images, tmp_path)
    with pytest.raises(InvalidConfigError, match="other settings") as caught:
        train(replace(config, **changes), images, tmp_path, resume=True)
    assert str(sorted(changes)) in str(caught.value)


def test_a_run_at_its_peak_can_be_made_longer(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    longer = replace(config, epochs=4, level_epochs=2)
    whole = train(longer, images, tmp_path / "whole").state_dict()
    with pytest.raises(InterruptedRunError):
        train(replace(config, level_epochs=1), images, tmp_path / "parts", report=interrupt_after(7))
    parts = train(longer, images, tmp_path / "parts", resume=True).state_dict()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("length", [{"epochs": 4, "level_epochs": 2.0}, {"epochs": 2}])
def test_a_run_is_not_lengthened_or_cut_after_its_peak(
    config: TrainConfig, images: ImageSet, tmp_path: Path, length: dict[str, Any]
) -> None:
    train(replace(config, level_epochs=1), images, tmp_path)
    with pytest.raises(InvalidConfigError, match=r"only before the cosine"):
        train(replace(config, **({"level_epochs": 1.0} | length)), images, tmp_path, resume=True)


def test_a_run_is_not_resumed_with_other_classes(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    train(config, images, tmp_path)
    with pytest.raises(FingerprintMismatchError):
        train(config, replace(images, classes=("a", "b", "c")), tmp_path, resume=True)


def test_a_truncated_checkpoint_is_refused(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    train(config, images, tmp_path)
    os.truncate(tmp_path / CHECKPOINT, 1000)
    with pytest.raises(InvalidBundleError, match="Is the file complete"):
        train(config, images, tmp_path, resume=True)


@pytest.mark.parametrize("missing", ["config", "epochs_done", "weights", "one weight", "shape"])
def test_weights_that_are_no_checkpoint_are_refused(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, missing: str
) -> None:
    supernet = train(config, images, tmp_path)
    tensors, metadata = checkpoint_of(tmp_path, tiny_space)
    first = next(name for name in tensors if name.startswith("weights."))
    if missing == "weights":
        tensors = supernet.state_dict()
    elif missing == "one weight":
        del tensors[first]
    elif missing == "shape":
        tensors[first] = torch.zeros(1)
    else:
        del metadata[missing]
    save_tensors(tmp_path / CHECKPOINT, tensors, supernet.space, **metadata)
    with pytest.raises(InvalidBundleError, match=CHECKPOINT):
        train(config, images, tmp_path, resume=True)


# ---------------------------------------------------------------------- what a run refuses


def test_fewer_images_than_a_batch_are_refused(config: TrainConfig, images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="'batch_size' 8 is larger than the 7 training images"):
        train(config, images.take(np.arange(7)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def poison(monkeypatch: pytest.MonkeyPatch, *at_steps: int) -> None:
    """Make the loss NaN in some steps; those of repeated attempts count on."""
    plain, calls = torch.nn.functional.cross_entropy, iter(range(10**6))

    def cross_entropy(*args: Any, **kwargs: Any) -> Tensor:
        loss = plain(*args, **kwargs)
        return loss * torch.nan if next(calls) in at_steps else loss

    monkeypatch.setattr("supernet.training.passes.F.cross_entropy", cross_entropy)


def test_an_epoch_that_diverges_once_is_taken_again_from_its_checkpoint(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(config, images, tmp_path / "plain")
    poison(monkeypatch, 12)
    with pytest.warns(RuntimeWarning, match="taken again from its checkpoint") as told:
        trained = train(config, images, tmp_path / "run")
    assert len(told) == 1
    lines, expected = log_of(tmp_path / "run"), log_of(tmp_path / "plain")
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert [line["loss"] for line in lines[:2]] == [line["loss"] for line in expected[:2]]
    assert float(lines[2]["learning_rate"]) == pytest.approx(0.5 * float(expected[2]["learning_rate"]), rel=1e-4)
    assert not torch.equal(trained.blocks[0].layers["conv"].conv.weight, plain.blocks[0].layers["conv"].conv.weight)
    tensors, metadata = checkpoint_of(tmp_path / "run", tiny_space)
    assert metadata["epochs_done"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_run_that_diverges_again_and_again_stops_and_leaves_the_last_checkpoint(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, *range(12, 1000))
    with (
        pytest.warns(RuntimeWarning, match="taken again"),
        pytest.raises(TrainingDivergedError, match=r"in 3 attempts .* checkpoint of epoch 2 stands") as caught,
    ):
        train(config, images, tmp_path)
    assert caught.value.step == 10  # the first of the third epoch, in the last attempt
    assert np.isnan(caught.value.loss)
    tensors, metadata = checkpoint_of(tmp_path, tiny_space)
    assert metadata["epochs_done"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert len(log_of(tmp_path)) == 2


def test_a_first_epoch_that_diverges_goes_back_to_the_first_weights(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, *range(2, 1000))
    with pytest.warns(RuntimeWarning, match="taken again"), pytest.raises(TrainingDivergedError):
        train(config, images, tmp_path)
    tensors, metadata = checkpoint_of(tmp_path, tiny_space)
    first = Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(config.seed)).state_dict()
    assert metadata["epochs_done"] == 0
    assert all(torch.equal(tensors[f"weights.{name}"], tensor) for name, tensor in first.items())


def test_gradients_that_are_not_finite_never_reach_the_weights(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss may have an infinite gradient; in the last step of an epoch no later loss would tell."""
    plain, calls = torch.nn.utils.clip_grad_norm_, iter(range(10**6))

    def clip(parameters: Any, max_norm: float) -> Tensor:
        parameters = list(parameters)
        if next(calls) >= 9:
            next(p for p in parameters if p.grad is not None).grad.fill_(torch.inf)
        return plain(parameters, max_norm)

    monkeypatch.setattr("supernet.training.loop.nn.utils.clip_grad_norm_", clip)
    with pytest.warns(RuntimeWarning, match="taken again"), pytest.raises(TrainingDivergedError):
        train(config, images, tmp_path)
    tensors, metadata = checkpoint_of(tmp_path, tiny_space)
    assert metadata["epochs_done"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


# ---------------------------------------------------------------------- optimizer


def test_only_weights_of_convolutions_and_the_classifier_decay(config: TrainConfig, tiny_space: SearchSpace) -> None:
    supernet = Supernet(tiny_space, torch.Generator().manual_seed(0))
    optimizer = build_optimizer(supernet, replace(config, weight_decay=0.5))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in supernet.named_parameters():
        plain = name.endswith(("conv.weight", "linear.weight", "reduce_weight", "expand_weight"))
        assert decay.pop(id(parameter)) == (0.5 if plain else 0.0), name
    assert not decay


def test_blocks_that_never_run_keep_their_first_weights(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smallest = tiny_space.smallest()
    monkeypatch.setattr(SearchSpace, "sample_rows", lambda self, rng, n_archs: self.to_rows([smallest] * n_archs))
    trained = train(replace(config, weight_decay=0.1), images, tmp_path)
    first = Supernet(trained.space, torch.Generator().manual_seed(config.seed)).state_dict()
    active = {index for index, _ in tiny_space.walk(smallest)}
    changed: set[int] = set()
    for name, tensor in trained.state_dict().items():
        if not torch.equal(tensor, first[name]):
            changed.add(int(name.split(".")[1]))
    assert changed == active - {3}  # the pool has no weights
    assert len(active) < len(trained.blocks)


def test_loading_a_checkpoint_brings_back_the_state_of_a_run(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path
) -> None:
    config = replace(config, ema=0.9)
    train(config, images, tmp_path)
    tensors, _ = checkpoint_of(tmp_path, tiny_space)
    supernet = Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(5))
    state = RunState(supernet, build_optimizer(supernet, config), average_of(supernet, config))
    load_checkpoint(tmp_path / CHECKPOINT, state, config)
    assert state.epochs_done == 3
    assert state.average is not None
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, tensors[f"weights.{name}"])
        assert torch.equal(state.average.module.state_dict()[name], tensors[f"average.module.{name}"])
    entries = state.optimizer.state.values()
    assert sum("momentum_buffer" in entry for entry in entries) == len(entries) > 0
