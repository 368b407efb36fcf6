"""TrainConfig: every number of a training run, read from TOML and written into the bundle."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from supernet.errors import InvalidConfigError, InvalidSpaceError
from supernet.spaces.presets import find_space
from supernet.training.schedule import learning_rate_at

METHODS = ("rss",)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run.

    Attributes:
        space: Name of the search space, or the TOML or JSON file of a user's own.
        method: `rss`: plain cross-entropy on randomly sampled subnets, no teacher, no phases.
        epochs: Passes over the training images.
        batch_size: Images per optimizer step.
        learning_rate: Peak of the schedule.
        warmup_epochs: Epochs of a linear rise to the peak.
        level_epochs: Epochs at the peak after it; a cosine to 0 fills the rest.
        momentum: Of SGD with Nesterov's correction.
        weight_decay: On convolution and linear weights only; biases, normalisation and kernel matrices have none.
        label_smoothing: Share of the target spread over all classes.
        gradient_clip: Largest norm of the gradient of a step.
        validation_images: Held out of the training images.
        seed: Of weights, order, augmentation and sampled archs.
    """

    space: str
    method: str = "rss"
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.4
    warmup_epochs: float = 0.0
    level_epochs: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    gradient_clip: float = 5.0
    validation_images: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings no run can use."""
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = {"str": str, "int": int, "float": (int, float)}[str(field.type)]
            if isinstance(value, bool) or not isinstance(value, wanted):  # type: ignore[arg-type]
                raise InvalidConfigError(f"'{field.name}' must be a {field.type}, got {value!r}.")
        try:
            find_space(self.space)
        except InvalidSpaceError as error:
            raise InvalidConfigError(f"'space': {error}") from error
        if self.method not in METHODS:
            raise InvalidConfigError(f"'method' must be one of {list(METHODS)}, got '{self.method}'.")
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 2, 65_536),
            ("learning_rate", 0, 100),
            ("warmup_epochs", 0, min(self.epochs, 100_000)),
            ("level_epochs", 0, min(self.epochs, 100_000) - self.warmup_epochs),
            ("momentum", 0, 0.9999),
            ("weight_decay", 0, 1),
            ("label_smoothing", 0, 0.99),
            ("gradient_clip", 1e-6, 1e6),
            ("validation_images", 1, 10**9),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidConfigError(f"'{name}' must be from {low} to {high}, got {value}.")

    def learning_rate_at(self, step: int, *, steps_per_epoch: int) -> float:
        """Learning rate of the step that counts `step` from 0 over the whole run."""
        return learning_rate_at(
            step,
            steps=self.epochs * steps_per_epoch,
            peak=self.learning_rate,
            warmup=round(self.warmup_epochs * steps_per_epoch),
            level=round(self.level_epochs * steps_per_epoch),
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self)


def load_config(path: Path) -> TrainConfig:
    """Read a TOML file of settings.

    Raises:
        InvalidConfigError: It cannot be read, or a key or value is wrong; the message says what is allowed.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidConfigError(f"'{path}' cannot be read as TOML: {error}") from error
    allowed = [field.name for field in fields(TrainConfig)]
    if unknown := sorted(set(data) - set(allowed)):
        raise InvalidConfigError(f"'{path}' has unknown keys {unknown}; allowed are {allowed}.")
    if "space" not in data:
        raise InvalidConfigError(f"'{path}' needs the key 'space', the name of a search space.")
    space = data["space"]
    if isinstance(space, str) and space.endswith((".toml", ".json")):
        data["space"] = str(path.parent / space)  # found from wherever the command runs
    return TrainConfig(**data)
