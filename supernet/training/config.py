"""TrainConfig: every number of a training run, read from TOML and written into the bundle."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from supernet.errors import InvalidConfigError, InvalidSpaceError
from supernet.spaces.presets import find_space
from supernet.training.methods.registry import SETTINGS

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run.

    Attributes:
        space: Name of the search space, or the TOML or JSON file of a user's own.
        method: A name of `methods.registry.SETTINGS`.
        settings: Of the method; in TOML a table of its name.
        epochs: Passes over the training images.
        batch_size: Images per optimizer step, over all processes.
        accumulate: Parts of a batch that run one after another in each process, for want of memory.
        learning_rate: Peak of the schedule.
        warmup_epochs: Epochs of a linear rise to the peak; of several phases each has its share.
        level_epochs: Epochs at the peak after it, likewise; a cosine to 0 fills the rest.
        momentum: Of SGD with Nesterov's correction.
        weight_decay: On convolution and linear weights only; biases, normalisation and kernel matrices have none.
        label_smoothing: Share of the target spread over all classes.
        gradient_clip: Largest norm of the gradient of a step.
        precision: `bf16` computes convolutions and products in half the bits where the device is faster so.
        ema: Decay per step of an average of the weights, which the run ends with; 0 for none.
        validation_images: Held out of the training images.
        seed: Of weights, order, augmentation and sampled archs.
    """

    space: str
    method: str = "rss"
    settings: Any = None
    epochs: int = 30
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 0.4
    warmup_epochs: float = 0.0
    level_epochs: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    gradient_clip: float = 5.0
    precision: str = "fp32"
    ema: float = 0.0
    validation_images: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings no run can use; a method's absent ones are its defaults."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "settings":
                _check_type(field.name, value, str(field.type))
        try:
            find_space(self.space)
        except InvalidSpaceError as error:
            raise InvalidConfigError(f"'space': {error}") from error
        for name, choices in (("method", tuple(SETTINGS)), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise InvalidConfigError(f"'{name}' must be one of {list(choices)}, got '{getattr(self, name)}'.")
        if self.settings is None:
            object.__setattr__(self, "settings", SETTINGS[self.method]())
        if not isinstance(self.settings, SETTINGS[self.method]):
            raise InvalidConfigError(f"The settings of '{self.method}' are a {SETTINGS[self.method].__name__}.")
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 2, 65_536),
            ("accumulate", 1, 4096),
            ("learning_rate", 0, 100),
            ("warmup_epochs", 0, min(self.epochs, 100_000)),
            ("level_epochs", 0, min(self.epochs, 100_000) - self.warmup_epochs),
            ("momentum", 0, 0.9999),
            ("weight_decay", 0, 1),
            ("label_smoothing", 0, 0.99),
            ("gradient_clip", 1e-6, 1e6),
            ("ema", 0, 0.999999),
            ("validation_images", 1, 10**9),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidConfigError(f"'{name}' must be from {low} to {high}, got {value}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, those of the method under its name."""
        values = asdict(self)
        own = values.pop("settings")
        return values | {self.method: {key: list(v) if isinstance(v, tuple) else v for key, v in own.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Read what `to_dict` wrote, or what stands in a TOML file.

        Raises:
            InvalidConfigError: A key or value is wrong; the message says what is allowed.
        """
        method = data.get("method", "rss")
        if not isinstance(method, str) or method not in SETTINGS:
            raise InvalidConfigError(f"'method' must be one of {list(SETTINGS)}, got {method!r}.")
        allowed = [field.name for field in fields(cls) if field.name != "settings"]
        if unknown := sorted(set(data) - {*allowed, method}):
            raise InvalidConfigError(f"Unknown keys {unknown}; allowed are {allowed} and the table [{method}].")
        if "space" not in data:
            raise InvalidConfigError("The key 'space' is needed, the name of a search space.")
        values = {key: value for key, value in data.items() if key != method}
        return cls(**values, settings=_method_settings(method, data.get(method, {})))


def load_config(path: Path) -> TrainConfig:
    """Read a TOML file of settings.

    Raises:
        InvalidConfigError: It cannot be read, or a key or value is wrong; the message says what is allowed.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidConfigError(f"'{path}' cannot be read as TOML: {error}") from error
    space = data.get("space")
    if isinstance(space, str) and space.endswith((".toml", ".json")):
        data["space"] = str(path.parent / space)  # found from wherever the command runs
    own = data.get(str(data.get("method")))
    if isinstance(own, dict) and str(own.get("target")).endswith(".json"):
        own["target"] = str(path.parent / str(own["target"]))
    try:
        return TrainConfig.from_dict(data)
    except InvalidConfigError as error:
        raise InvalidConfigError(f"'{path}': {error}") from error


def _method_settings(method: str, data: Any) -> Any:
    """Settings of a method from a table of a config."""
    kind = SETTINGS[method]
    if not isinstance(data, Mapping):
        raise InvalidConfigError(f"'{method}' must be a table of settings, got {data!r}.")
    types = {field.name: str(field.type) for field in fields(kind)}
    if unknown := sorted(set(data) - set(types)):
        raise InvalidConfigError(f"Unknown keys {unknown} in [{method}]; allowed are {sorted(types)}.")
    for name, value in data.items():
        _check_type(f"{method}.{name}", value, types[name])
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


def _check_type(name: str, value: Any, kind: str) -> None:
    items = value if kind.startswith("tuple") and isinstance(value, list | tuple) else [value]
    wanted: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool}
    plain = kind.removeprefix("tuple[").split(",")[0]
    is_listed = kind.startswith("tuple") == isinstance(value, list | tuple)
    for item in items:
        if not is_listed or (isinstance(item, bool) and plain != "bool") or not isinstance(item, wanted[plain]):
            what = f"a list of {plain}" if kind.startswith("tuple") else f"a {plain}"
            raise InvalidConfigError(f"'{name}' must be {what}, got {value!r}.")
