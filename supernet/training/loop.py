"""train(): random subnet sampling, linear and readable top to bottom."""

from __future__ import annotations

import csv
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from supernet.data.batches import Normalisation, resize_batch, training_batches
from supernet.errors import InvalidBundleError, InvalidConfigError, TrainingDivergedError
from supernet.network.checkpoint import load_tensors, load_weights, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.spaces.presets import find_space

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernet.data.images import ImageSet
    from supernet.training.config import TrainConfig

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.csv"
# Settings that say only how long a run is.
LENGTH_SETTINGS = {"epochs", "level_epochs"}


@dataclass(frozen=True)
class StepReport:
    """What a progress bar shows after a step; `step` counts from 1 over the whole run."""

    step: int
    steps: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class EpochReport:
    """One line of the log: means over the epoch's steps, in train mode and on augmented images."""

    epoch: int
    learning_rate: float
    loss: float
    top1: float
    seconds: float


def train(
    config: TrainConfig,
    images: ImageSet,
    out_dir: Path,
    *,
    resume: bool = False,
    initial_weights: Path | None = None,
    report: Callable[[StepReport], None] = lambda _: None,
) -> Supernet:
    """Train a supernet: every step draws one arch uniformly and takes one SGD step on its cross-entropy.

    Every epoch ends with a checkpoint and a line of the log; a run resumed from it takes the steps an uninterrupted
    one would have taken, since all random choices of an epoch follow from the seed and its number.

    Args:
        config: Settings.
        images: Training images at least as large as the space's largest resolution.
        out_dir: Gets `checkpoint.safetensors` and `log.csv`.
        resume: Go on from the checkpoint in `out_dir`, if there is one.
        initial_weights: Weights file of a bundle of the same space and number of classes to start from.
        report: Called after every step.

    Returns:
        The supernet in eval mode; its BN statistics mix all archs.

    Raises:
        InvalidConfigError: `out_dir` holds another run, or there are fewer images than one batch.
        FingerprintMismatchError: The initial weights belong to another space or number of classes.
        TrainingDivergedError: The loss or its gradient is no longer finite; the last epoch's checkpoint stands.

    Source: random subnet sampling, §1.2 "RSS Network Batch" of the RSS-Interference code; here every block and stage
    draws on its own. Differs: no warm-up there; gradient clipping and a peak of 0.4 learn clearly faster here.
    """
    space = find_space(config.space).with_classes(len(images.classes))
    supernet = Supernet(space, torch.Generator().manual_seed(config.seed))
    if initial_weights is not None:
        load_weights(supernet, initial_weights)
    # Twice the speed of NCHW for depthwise convolutions on a CPU.
    supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(supernet, config)
    steps_per_epoch = len(images) // config.batch_size
    steps = config.epochs * steps_per_epoch
    if steps_per_epoch == 0:
        raise InvalidConfigError(f"'batch_size' {config.batch_size} is larger than the {len(images)} training images.")

    out_dir.mkdir(parents=True, exist_ok=True)
    first_epoch = 0
    if (out_dir / CHECKPOINT).exists():
        if not resume:
            raise InvalidConfigError(f"'{out_dir}' holds a run already. Resume it or choose another folder.")
        first_epoch = load_checkpoint(
            out_dir / CHECKPOINT, supernet, optimizer, config, steps_per_epoch=steps_per_epoch
        )

    normalisation = Normalisation(*images.normalisation())
    supernet.train()
    for epoch in range(first_epoch, config.epochs):
        rng = np.random.default_rng((config.seed, epoch))
        started, losses, hits, rate = time.perf_counter(), 0.0, 0, 0.0
        batches = training_batches(images, normalisation, batch_size=config.batch_size, rng=rng)
        for step, (batch, labels) in enumerate(batches, start=epoch * steps_per_epoch):
            rate = config.learning_rate_at(step, steps_per_epoch=steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            arch = space.sample(rng)
            logits = supernet(resize_batch(batch, arch.resolution), arch)
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            # Blocks that did not run keep no gradient, so neither momentum nor decay moves them.
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(supernet.parameters(), config.gradient_clip)
            # A finite loss may have an infinite gradient, which the last step of an epoch would put in the checkpoint.
            if not torch.isfinite(loss) or not torch.isfinite(norm):
                kept = f"The checkpoint of epoch {epoch} stands in '{out_dir}'" if epoch else "No checkpoint exists yet"
                raise TrainingDivergedError(
                    f"In step {step} at learning rate {rate:.4g} the loss is {loss.item()} and the norm of its "
                    f"gradient {norm.item()}. {kept}; lower 'learning_rate' and start anew.",
                    step=step,
                    loss=loss.item(),
                )
            optimizer.step()
            losses += loss.item()
            hits += int((logits.argmax(1) == labels).sum())
            report(StepReport(step + 1, steps, epoch + 1, loss.item()))
        line = EpochReport(
            epoch=epoch + 1,
            learning_rate=rate,
            loss=losses / steps_per_epoch,
            top1=hits / (steps_per_epoch * config.batch_size),
            seconds=time.perf_counter() - started,
        )
        save_checkpoint(out_dir / CHECKPOINT, supernet, optimizer, config, epochs_done=epoch + 1)
        append_log(out_dir / LOG, line)
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


def save_checkpoint(
    path: Path, supernet: Supernet, optimizer: torch.optim.SGD, config: TrainConfig, *, epochs_done: int
) -> None:
    """Write weights, momentum and the settings they belong to."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in supernet.named_parameters()}
    momentum: dict[str, Tensor] = {
        f"momentum.{names[parameter]}": state["momentum_buffer"]
        for parameter, state in optimizer.state.items()
        if state.get("momentum_buffer") is not None
    }
    weights = {f"weights.{name}": tensor for name, tensor in supernet.state_dict().items()}
    save_tensors(path, weights | momentum, supernet.space, config=config.to_dict(), epochs_done=epochs_done)


def load_checkpoint(
    path: Path, supernet: Supernet, optimizer: torch.optim.SGD, config: TrainConfig, *, steps_per_epoch: int
) -> int:
    """Fill supernet and optimizer from `save_checkpoint`.

    The settings must be the checkpoint's, but a run may be made longer or shorter as long as every step it took would
    have had the same learning rate: before the cosine starts, `epochs` and `level_epochs` can still change.

    Returns:
        The epochs done.

    Raises:
        InvalidBundleError: The file is broken, no checkpoint, or belongs to another space.
        InvalidConfigError: It was written with other settings.
    """
    tensors, metadata = load_tensors(path, supernet.space)
    settings, epochs_done = metadata.get("config"), metadata.get("epochs_done")
    weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
    shapes = {name: tensor.shape for name, tensor in supernet.state_dict().items()}
    if (
        not isinstance(settings, dict)
        or not isinstance(epochs_done, int)
        or {name: tensor.shape for name, tensor in weights.items()} != shapes
    ):
        raise InvalidBundleError(
            f"'{path}' is no checkpoint of a training run of '{supernet.space.name}'. Train in another folder."
        )
    changed = {key for key, value in config.to_dict().items() if settings.get(key) != value}
    if changed and not (
        changed <= LENGTH_SETTINGS
        and _took_same_steps(config, settings, epochs_done * steps_per_epoch, steps_per_epoch)
    ):
        raise InvalidConfigError(
            f"'{path}' was trained with other settings of {sorted(changed)}. Resume with its own, "
            f"or start anew in another folder. Only {sorted(LENGTH_SETTINGS)} may change, and only before the cosine."
        )
    supernet.load_state_dict(weights)
    for name, parameter in supernet.named_parameters():
        if (buffer := tensors.get(f"momentum.{name}")) is not None:
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return epochs_done


def _took_same_steps(config: TrainConfig, settings: dict[str, Any], steps_done: int, steps_per_epoch: int) -> bool:
    """Whether a run of these settings would have had the learning rates of `config` up to here."""
    if config.epochs * steps_per_epoch < steps_done or not settings.keys() >= LENGTH_SETTINGS:
        return False
    earlier = replace(config, **{key: settings[key] for key in LENGTH_SETTINGS})
    return all(
        config.learning_rate_at(step, steps_per_epoch=steps_per_epoch)
        == earlier.learning_rate_at(step, steps_per_epoch=steps_per_epoch)
        for step in range(steps_done)
    )


def append_log(path: Path, line: EpochReport) -> None:
    """Add one epoch to the CSV log."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(line)))
        if fresh:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in asdict(line).items()})
