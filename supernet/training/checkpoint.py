"""Checkpoints of a run: all that the next epoch needs, in one file that appears whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from supernet.errors import InvalidBundleError, InvalidConfigError
from supernet.network.checkpoint import load_tensors, save_tensors
from supernet.training.config import TrainConfig
from supernet.training.teacher import teacher_from

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from supernet.network.elastic_net import Supernet

CHECKPOINT = "checkpoint.safetensors"
# Settings that say only how long a run is.
LENGTH_SETTINGS = {"epochs", "level_epochs"}


@dataclass
class RunState:
    """What changes over a run.

    Attributes:
        supernet: In train mode.
        optimizer: Of the current phase.
        average: Of the weights, where one is kept.
        teacher: Where the method has one.
        method: What the method remembers, as JSON values.
        epochs_done: Over the whole run.
    """

    supernet: Supernet
    optimizer: torch.optim.SGD
    average: AveragedModel | None = None
    teacher: nn.Module | None = None
    method: dict[str, Any] | None = None
    epochs_done: int = 0


def save_checkpoint(path: Path, state: RunState, config: TrainConfig) -> None:
    """Write weights, momentum, average and teacher with the settings they belong to."""
    supernet = state.supernet
    names: dict[Tensor, str] = {parameter: name for name, parameter in supernet.named_parameters()}
    tensors = {f"weights.{name}": tensor for name, tensor in supernet.state_dict().items()}
    tensors |= {
        f"momentum.{names[parameter]}": entry["momentum_buffer"]
        for parameter, entry in state.optimizer.state.items()
        if entry.get("momentum_buffer") is not None
    }
    if state.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in state.average.state_dict().items()}
    if state.teacher is not None:
        tensors |= {f"teacher.{name}": tensor for name, tensor in state.teacher.state_dict().items()}
    save_tensors(
        path,
        tensors,
        supernet.space,
        config=config.to_dict(),
        epochs_done=state.epochs_done,
        method=state.method or {},
    )


def load_checkpoint(path: Path, state: RunState, config: TrainConfig) -> None:
    """Fill a run's state from `save_checkpoint`.

    The settings must be the checkpoint's; one it does not know yet counts as left at its default. A run may be made
    longer or shorter as long as every epoch it took would have had the same learning rates: before the cosine starts,
    `epochs` and `level_epochs` can still change.

    Raises:
        InvalidBundleError: The file is broken, no checkpoint, or belongs to another space.
        InvalidConfigError: It was written with other settings.
    """
    supernet = state.supernet
    tensors, metadata = load_tensors(path, supernet.space)
    settings, epochs_done = metadata.get("config"), metadata.get("epochs_done")
    shapes = {name: tensor.shape for name, tensor in supernet.state_dict().items()}
    weights = _below("weights.", tensors)
    if (
        not isinstance(settings, dict)
        or not isinstance(epochs_done, int)
        or {name: tensor.shape for name, tensor in weights.items()} != shapes
    ):
        raise InvalidBundleError(
            f"'{path}' is no checkpoint of a training run of '{supernet.space.name}'. Train in another folder."
        )
    _check_settings(path, config, settings, epochs_done)
    supernet.load_state_dict(weights)
    state.optimizer.state.clear()
    for name, parameter in supernet.named_parameters():
        if (buffer := tensors.get(f"momentum.{name}")) is not None:
            state.optimizer.state[parameter]["momentum_buffer"] = buffer.to(parameter.device)
    if state.average is not None:
        state.average.load_state_dict(_below("average.", tensors))
    if teacher := _below("teacher.", tensors):
        state.teacher = teacher_from(supernet.space, teacher).to(next(supernet.parameters()).device)
    state.method = metadata.get("method", {})
    state.epochs_done = epochs_done


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_settings(path: Path, config: TrainConfig, settings: dict[str, Any], epochs_done: int) -> None:
    # A method of another name has other settings; those of the checkpoint's would be unknown keys.
    known = TrainConfig(config.space, config.method).to_dict() if settings.get("method") == config.method else {}
    stored = known | settings
    changed = {key for key, value in config.to_dict().items() if stored.get(key) != value}
    if not changed:
        return
    if changed <= LENGTH_SETTINGS and _is_on_the_level(config, epochs_done) and _is_on_the_level(stored, epochs_done):
        return
    raise InvalidConfigError(
        f"'{path}' was trained with other settings of {sorted(changed)}. Resume with its own, "
        f"or start anew in another folder. Only {sorted(LENGTH_SETTINGS)} may change, and only before the cosine."
    )


def _is_on_the_level(config: TrainConfig | dict[str, Any], epochs_done: int) -> bool:
    """Whether all epochs so far came before the cosine."""
    values = config if isinstance(config, dict) else config.to_dict()
    return bool(epochs_done <= values["warmup_epochs"] + values["level_epochs"] and epochs_done <= values["epochs"])
