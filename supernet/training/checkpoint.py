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
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.space import SearchSpace

CHECKPOINT = "checkpoint.safetensors"
# Settings that say only how long a run is.
LENGTH_SETTINGS = {"epochs", "level_epochs"}
# Methods that do in an epoch what they would do in a longer run.
WITHOUT_PLAN = {"rss", "us_nets", "fine_tuning"}


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


def save_checkpoint(
    path: Path, state: RunState, config: TrainConfig, *, origin: Mapping[str, Any] | None = None
) -> None:
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
        origin=dict(origin or {}),
        epochs_done=state.epochs_done,
        method=state.method or {},
    )


def epochs_done_of(path: Path, space: SearchSpace) -> int:
    """How far the run of a checkpoint is; raises as `load_checkpoint` where it is none."""
    _, metadata = load_tensors(path, space)
    done = metadata.get("epochs_done")
    return done if isinstance(done, int) else 1  # `load_checkpoint` says what is wrong with it


def load_checkpoint(
    path: Path, state: RunState, config: TrainConfig, *, origin: Mapping[str, Any] | None = None
) -> None:
    """Fill a run's state from `save_checkpoint`.

    The settings must be the checkpoint's; one it does not know yet counts as left at its default. A run may be made
    longer or shorter as long as every epoch it took would have been the same: before the cosine starts, `epochs` and
    `level_epochs` can still change, unless the method itself has a plan for the whole run.

    Raises:
        InvalidBundleError: The file is broken, no checkpoint, or belongs to another space.
        InvalidConfigError: It was written with other settings, or the run learns from something else.
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
    _check_origin(path, dict(origin or {}), metadata.get("origin"))
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
    if (
        config.method in WITHOUT_PLAN
        and changed <= LENGTH_SETTINGS
        and _is_on_the_level(config, epochs_done)
        and _is_on_the_level(stored, epochs_done)
    ):
        return
    raise InvalidConfigError(
        f"'{path}' was trained with other settings of {sorted(changed)}. Resume with its own, "
        f"or start anew in another folder. Only {sorted(LENGTH_SETTINGS)} may change, only before the cosine and with "
        f"the methods {sorted(WITHOUT_PLAN)}."
    )


def _check_origin(path: Path, origin: dict[str, Any], stored: Any) -> None:
    """Earlier checkpoints do not say what they come from."""
    if not stored or not origin or stored == origin:
        return
    changed = sorted(key for key in {*stored, *origin} if stored.get(key) != origin.get(key))
    raise InvalidConfigError(
        f"'{path}' belongs to a run that learnt from { ({key: stored.get(key) for key in changed}) }, this one has "
        f"{ ({key: origin.get(key) for key in changed}) }. Resume it with the same, or start anew in another folder."
    )


def _is_on_the_level(config: TrainConfig | dict[str, Any], epochs_done: int) -> bool:
    """Whether all epochs so far came before the cosine."""
    values = config if isinstance(config, dict) else config.to_dict()
    return bool(epochs_done <= values["warmup_epochs"] + values["level_epochs"] and epochs_done <= values["epochs"])
