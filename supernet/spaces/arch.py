"""Arch: one choice in a search space. A frozen value with a JSON form; it knows nothing of the space's rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernet.errors import InvalidArchError
from supernet.strict_json import unique_keys

if TYPE_CHECKING:
    from supernet.spaces.space import SearchSpace


@dataclass(frozen=True, slots=True)
class Arch:
    """One choice in a search space.

    A tuple is empty where the space fixes that dimension. In the canonical form (`SearchSpace.canonicalize`) the
    kernel size and expand ratio of a block beyond its stage's depth are 0, so that equal networks are equal archs.

    Attributes:
        resolution: Height and width of the input image, pixels.
        depths: Blocks to run, per elastic stage.
        kernel_sizes: Per block, in network order.
        expand_ratios: Per block, inner width over input width.
        widths: Output channels, per stage or layer as the space declares.
    """

    resolution: int
    depths: tuple[int, ...] = ()
    kernel_sizes: tuple[int, ...] = ()
    expand_ratios: tuple[float, ...] = ()
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check types and write whole numbers as ints, so that equal archs have equal JSON."""
        object.__setattr__(self, "resolution", _whole("resolution", self.resolution))
        for name in ("depths", "kernel_sizes", "widths"):
            object.__setattr__(self, name, tuple(_whole(name, value) for value in _listed(name, getattr(self, name))))
        ratios = tuple(_ratio(value) for value in _listed("expand_ratios", self.expand_ratios))
        object.__setattr__(self, "expand_ratios", ratios)

    @property
    def arch_id(self) -> str:
        """Stable name: 16 hex digits of the SHA-256 of the JSON. Only canonical archs should be named."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain lists and numbers, ready for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def to_json(self) -> str:
        """One line of JSON with the keys in the order of the fields."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Arch:
        """Read what `to_dict` wrote.

        Raises:
            InvalidArchError: A key is unknown or missing, or a value has the wrong type.
        """
        if not isinstance(data, Mapping):
            raise InvalidArchError(f"An arch is a JSON object with the key 'resolution', got {type(data).__name__}.")
        known = [field.name for field in fields(cls)]
        unknown = sorted(map(str, set(data) - set(known)))
        if unknown:
            raise InvalidArchError(f"Unknown arch keys {unknown}; allowed are {known}.")
        if "resolution" not in data:
            raise InvalidArchError(f"An arch needs 'resolution'; got the keys {sorted(data)}.")
        return cls(**data)

    @classmethod
    def from_json(cls, text: str) -> Arch:
        """Read what `to_json` wrote; raises `InvalidArchError` for anything else."""
        try:
            data = json.loads(text, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            raise InvalidArchError(f"This is no JSON, so no arch: {error}.") from error
        return cls.from_dict(data)

    @classmethod
    def from_ofa(cls, choice: Mapping[str, Any], space: SearchSpace) -> Arch:
        """Read an architecture dictionary of the once-for-all reference code; see `ofa_dicts.arch_from_ofa`."""
        # Here, since the dictionaries' module needs this one.
        from supernet.spaces.ofa_dicts import arch_from_ofa

        return arch_from_ofa(choice, space)


def load_arch(path: Path) -> Arch:
    """Read an arch from the JSON file of one, or of a search's answer.

    Raises:
        InvalidArchError: The file cannot be read or holds neither.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArchError(f"'{path}' cannot be read as JSON: {error}.") from error
    return Arch.from_dict(document["arch"] if isinstance(document, dict) and "arch" in document else document)


def find_arch(space: SearchSpace, name: str) -> Arch:
    """The `smallest` or the `largest` arch of a space, or the one of a file as `load_arch` reads it; canonical.

    Raises:
        InvalidArchError: As `load_arch`, or the arch lies outside the space.
    """
    if name in ("smallest", "largest"):
        return space.smallest() if name == "smallest" else space.largest()
    try:
        return space.canonicalize(load_arch(Path(name)))
    except InvalidArchError as error:
        raise InvalidArchError(
            f"An arch is 'smallest', 'largest' or the JSON file of one of '{space.name}', got {name!r}: {error}"
        ) from error


def _listed(name: str, value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidArchError(f"'{name}' must be a list of numbers, got {value!r}.")
    return value


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArchError(f"'{name}' must hold whole numbers, got {value!r}.")
    return value


def _ratio(value: Any) -> float:
    # -inf < NaN < inf is false; ints beyond the range of floats compare well.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -inf < value < inf:
        raise InvalidArchError(f"'expand_ratios' must hold numbers, got {value!r}.")
    return int(value) if isinstance(value, float) and value.is_integer() else value
