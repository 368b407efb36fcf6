"""train(): one loop for every method, linear and readable top to bottom."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from supernet.data.batches import Normalisation, chunks, training_batches
from supernet.errors import InvalidConfigError, TrainingDivergedError
from supernet.spaces.presets import find_space
from supernet.training.checkpoint import CHECKPOINT, RunState, epochs_done_of, load_checkpoint, save_checkpoint
from supernet.training.log import EpochReport, RunLog
from supernet.training.method import Epoch, Teacher
from supernet.training.methods.registry import build_method
from supernet.training.passes import run_passes
from supernet.training.ranks import Ranks
from supernet.training.schedule import learning_rate_at
from supernet.training.teacher import teacher_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from supernet.data.images import ImageSet
    from supernet.network.elastic_net import Supernet
    from supernet.training.config import TrainConfig
    from supernet.training.method import Method, Phase

# An epoch that diverges is tried again from the last checkpoint, with other draws and half the learning rate each time.
ATTEMPTS = 3


@dataclass(frozen=True)
class StepReport:
    """What a progress bar shows after a step; `step` counts from 1 over the whole run."""

    step: int
    steps: int
    epoch: int
    loss: float


def train(
    config: TrainConfig,
    images: ImageSet,
    out_dir: Path,
    *,
    method: Method | None = None,
    resume: bool = False,
    initial: Supernet | None = None,
    teacher: nn.Module | None = None,
    origin: Mapping[str, Any] | None = None,
    device: str = "cpu",
    report: Callable[[StepReport], None] = lambda _: None,
) -> Supernet:
    """Train a supernet with the method the config names.

    Every epoch ends with a checkpoint and a line of the log; a run resumed from it takes the steps an uninterrupted one
    would have taken, since all random choices of an epoch follow from the seed and its number. Under `torchrun` each
    process takes its part of every batch, and all run the same archs.

    Args:
        config: Settings.
        images: Training images at least as large as the space's largest resolution.
        out_dir: Gets `checkpoint.safetensors` and what `RunLog` writes.
        method: The one the config names, from `build_method`; it holds what it learnt afterwards.
        resume: Go on from the checkpoint in `out_dir`, if there is one.
        initial: Whose weights to start from. With other classes than the images', all but its classifier are taken.
        teacher: For methods that distil from a given network, in train mode and without gradients.
        origin: What the run learns from, as JSON values such as names and hashes; a resumed run must have the same.
        device: Of torch.
        report: Called after every step.

    Returns:
        The supernet in eval mode; its BN statistics mix all archs.

    Raises:
        InvalidConfigError: `out_dir` holds another run, there are fewer images than one batch, or settings do not fit.
        FingerprintMismatchError: The initial weights belong to another space.
        TrainingDivergedError: The gradient was no longer finite, again and again; the last checkpoint stands.
    """
    ranks = Ranks.join(device)
    method = method or build_method(config, find_space(config.space).with_classes(len(images.classes)))
    plan = _plan(method.phases())
    distils = any(epoch.phase.teacher is Teacher.GIVEN for epoch in plan)
    if distils != (teacher is not None):
        raise InvalidConfigError(
            f"'{config.method}' with these settings "
            + ("distils from a teacher, and none was given." if distils else "has no use for a teacher: leave it out.")
        )
    steps_per_epoch = _steps_per_epoch(config, len(images), ranks)
    supernet = method.build_supernet(torch.Generator().manual_seed(config.seed))
    if initial is not None:
        method.take_over(supernet, initial)
    # Twice the speed of NCHW for depthwise convolutions on a CPU.
    supernet.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    supernet.train()
    if teacher is not None:
        teacher.to(torch.device(device))
    state = RunState(supernet, build_optimizer(supernet, config), average_of(supernet, config), method=method.state())

    path = out_dir / CHECKPOINT
    out_dir.mkdir(parents=True, exist_ok=True)
    # What ended before its first epoch did has nothing to lose.
    is_begun = path.exists() and epochs_done_of(path, supernet.space) > 0
    ranks.wait()  # until all have looked, before the first one writes
    if is_begun:
        if not resume:
            raise InvalidConfigError(f"'{out_dir}' holds a run already. Resume it or choose another folder.")
        load_checkpoint(path, state, config, origin=origin)
        method.load_state(state.method or {})
    elif ranks.is_first:
        save_checkpoint(path, state, config, origin=origin)  # what a diverging first epoch goes back to
    ranks.wait()

    log = RunLog(out_dir, state.epochs_done)
    normalisation = Normalisation(*images.normalisation())
    attempt = 0
    while state.epochs_done < len(plan):
        epoch = plan[state.epochs_done]
        if epoch.in_phase == 0:
            method.begin_phase(epoch.phase, state)
            state.optimizer, state.average = build_optimizer(supernet, config), average_of(supernet, config)
            if epoch.phase.teacher is Teacher.LARGEST and state.teacher is None:
                state.teacher = teacher_of(supernet)
        method.begin_epoch(epoch, state)
        # The first attempt's numbers are those of runs that never diverge.
        rng = np.random.default_rng((config.seed, epoch.number, attempt) if attempt else (config.seed, epoch.number))
        started, totals, rate = time.perf_counter(), np.zeros(2), 0.0
        batches = training_batches(
            images, normalisation, batch_size=config.batch_size, rng=rng, part=ranks.part_of(config.batch_size)
        )
        try:
            for step, (batch, labels) in enumerate(batches):
                rate = _rate(config, epoch, step, steps_per_epoch=steps_per_epoch) * 0.5**attempt
                loss, label_loss, hits = _take_step(
                    state,
                    method,
                    epoch,
                    step,
                    batch,
                    labels,
                    rng=rng,
                    rate=rate,
                    teacher=teacher,
                    config=config,
                    ranks=ranks,
                )
                totals += (label_loss, hits)
                done = epoch.number * steps_per_epoch + step + 1
                report(StepReport(done, len(plan) * steps_per_epoch, epoch.number + 1, loss))
        except TrainingDivergedError as error:
            attempt += 1
            if attempt == ATTEMPTS:
                raise _given_up(error, epoch, out_dir, steps_per_epoch=steps_per_epoch) from error
            warnings.warn(
                f"{error} The epoch is taken again from its checkpoint, with other draws and half the rate.",
                RuntimeWarning,
                stacklevel=2,
            )
            load_checkpoint(path, state, config, origin=origin)
            method.load_state(state.method or {})
            continue
        attempt = 0
        state.epochs_done, state.method = epoch.number + 1, method.state()
        label_loss_sum, hits_sum = ranks.sums(totals.tolist())
        line = EpochReport(
            epoch=epoch.number + 1,
            phase=epoch.phase.name,
            learning_rate=rate,
            loss=label_loss_sum / steps_per_epoch,
            top1=hits_sum / (steps_per_epoch * config.batch_size),
            seconds=time.perf_counter() - started,
        )
        if ranks.is_first:
            log.add(line)  # first, since a resumed run drops the lines its checkpoint does not know
            save_checkpoint(path, state, config, origin=origin)
        ranks.wait()
    if state.average is not None:
        supernet.load_state_dict(state.average.module.state_dict())
    supernet.eval()
    return supernet


def build_optimizer(supernet: Supernet, config: TrainConfig) -> torch.optim.SGD:
    """SGD with weight decay on convolution and linear weights only.

    Differs from OFA, which also decays its kernel matrices towards 0, although the identity is their neutral value.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in supernet.named_parameters():
        plain_weight = parameter.ndim > 1 and "kernel_matrices" not in name
        (decayed if plain_weight else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)


def average_of(supernet: Supernet, config: TrainConfig) -> AveragedModel | None:
    """An exponential average of the weights, where the config asks for one."""
    if not config.ema:
        return None
    averaging: Any = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(supernet, multi_avg_fn=averaging)


def _take_step(
    state: RunState,
    method: Method,
    epoch: Epoch,
    step: int,
    batch: torch.Tensor,
    labels: torch.Tensor,
    *,
    rng: np.random.Generator,
    rate: float,
    teacher: nn.Module | None,
    config: TrainConfig,
    ranks: Ranks,
) -> tuple[float, float, int]:
    """One optimizer step; loss, label loss and hits of its first pass, this rank's share of the sum over the batch."""
    supernet, optimizer = state.supernet, state.optimizer
    device = next(supernet.parameters()).device
    for group in optimizer.param_groups:
        group["lr"] = rate
    passes = method.passes(epoch, step, rng)
    teachers = {Teacher.FIRST_PASS: None, Teacher.LARGEST: state.teacher, Teacher.GIVEN: teacher}
    # Blocks that did not run keep no gradient, so neither momentum nor decay moves them.
    optimizer.zero_grad(set_to_none=True)
    results = [
        run_passes(
            supernet,
            passes,
            images.to(device, non_blocking=True),
            targets.to(device, non_blocking=True),
            teacher=teachers[epoch.phase.teacher],
            label_smoothing=config.label_smoothing,
            scale=len(images) / config.batch_size,
            autocast=_autocast(config, device),
        )
        for images, targets in _parts(batch, labels, config.accumulate)
    ]
    ranks.sum_gradients(supernet.parameters())
    norm = nn.utils.clip_grad_norm_(supernet.parameters(), config.gradient_clip)
    share = 1 / (len(results) * ranks.count)
    loss = sum(first.loss for first, *_ in results) / len(results)
    # A finite loss may have an infinite gradient, which the last step of an epoch would put in the checkpoint. The norm
    # is that of the summed gradients, so all ranks see the same.
    if not torch.isfinite(norm):
        raise TrainingDivergedError(
            f"In step {step} of epoch {epoch.number + 1} at learning rate {rate:.4g} the loss is {loss} and the norm "
            f"of its gradient {norm.item()}.",
            step=step,
            loss=loss,
        )
    optimizer.step()
    if state.average is not None:
        state.average.update_parameters(supernet)
    label_losses = [share * sum(result.label_loss for result in of_pass) for of_pass in zip(*results, strict=True)]
    method.observe(passes, ranks.sums(label_losses))
    return loss, label_losses[0], sum(first.hits for first, *_ in results)


def _plan(phases: Sequence[Phase]) -> list[Epoch]:
    """Every epoch of the run, in order."""
    total = sum(phase.epochs for phase in phases)
    places = [(phase, number) for phase in phases for number in range(phase.epochs)]
    return [Epoch(index, phase, number, total) for index, (phase, number) in enumerate(places)]


def _steps_per_epoch(config: TrainConfig, n_images: int, ranks: Ranks) -> int:
    if config.batch_size % (ranks.count * config.accumulate):
        raise InvalidConfigError(
            f"'batch_size' {config.batch_size} must be a multiple of the {ranks.count} processes times 'accumulate' "
            f"{config.accumulate}."
        )
    if config.batch_size == ranks.count * config.accumulate:
        raise InvalidConfigError(
            f"Normalisation needs at least 2 images at a time: 'batch_size' {config.batch_size} gives each of "
            f"{ranks.count} processes and {config.accumulate} parts one."
        )
    steps = n_images // config.batch_size
    if steps == 0:
        raise InvalidConfigError(f"'batch_size' {config.batch_size} is larger than the {n_images} training images.")
    return steps


def _rate(config: TrainConfig, epoch: Epoch, step: int, *, steps_per_epoch: int) -> float:
    """Learning rate of a step: each phase has a schedule of its own, with its share of the run's warm-up."""
    phase = epoch.phase
    share = phase.epochs / epoch.epochs
    warmup, level = share * config.warmup_epochs, share * config.level_epochs
    return learning_rate_at(
        epoch.in_phase * steps_per_epoch + step,
        steps=phase.epochs * steps_per_epoch,
        peak=config.learning_rate * phase.rate_factor,
        warmup=round(warmup * steps_per_epoch),
        level=round(level * steps_per_epoch),
    )


def _parts(batch: torch.Tensor, labels: torch.Tensor, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for part in chunks(len(batch), len(batch) // count):
        yield batch[part], labels[part]


def _autocast(config: TrainConfig, device: torch.device) -> Any:
    """Half precision for convolutions and products where the config asks for it; sums and weights keep all bits."""
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()


def _given_up(
    error: TrainingDivergedError, epoch: Epoch, out_dir: Path, *, steps_per_epoch: int
) -> TrainingDivergedError:
    return TrainingDivergedError(
        f"{error} So it went in {ATTEMPTS} attempts at this epoch, with other draws and half the rate each time. The "
        f"checkpoint of epoch {epoch.number} stands in '{out_dir}'; lower 'learning_rate' and start anew.",
        step=epoch.number * steps_per_epoch + error.step,
        loss=error.loss,
    )
