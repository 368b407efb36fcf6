"""DeviceProfile: where a latency table was measured. A frozen value with a JSON form; standard library only."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, Any

from latency_tables.errors import TableFormatError
from latency_tables.json_values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
MAX_THREADS = 1024
MAX_BATCH_SIZE = 65_536
MAX_TEXT = 200

_ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Hardware and software a latency is true for. Checked when it is made; `TableFormatError` names the field.

    Attributes:
        device_id: Lower-case name, `[a-z0-9][a-z0-9._-]{0,63}`; a path segment of the API.
        chip: Name of the processor as its vendor writes it.
        runtime: What runs the graph, such as `onnxruntime`.
        runtime_version: Its version.
        precision: Of weights and activations; one of `fp32`, `fp16`, `bf16`, `int8`.
        threads: Threads one inference may use.
        batch_size: Images per call.
        clock_mhz: Clock of the processor while it was measured; None where unknown.
        governor: Its frequency governor; None where unknown.
        temperature_c: Its temperature in °C; None where unknown.
    """

    device_id: str
    chip: str
    runtime: str
    runtime_version: str
    precision: str = "fp32"
    threads: int = 1
    batch_size: int = 1
    clock_mhz: float | None = None
    governor: str | None = None
    temperature_c: float | None = None

    def __post_init__(self) -> None:
        """Refuse wrong types and values out of range."""
        for name in ("device_id", "chip", "runtime", "runtime_version", "precision"):
            _check_text(name, getattr(self, name))
        if self.governor is not None:
            _check_text("governor", self.governor)
        if not _ID_PATTERN.fullmatch(self.device_id):
            raise TableFormatError(
                f"'device_id' must be 1 to 64 lower-case letters, digits, '.', '_' or '-' and start with a letter or "
                f"digit, got {shown(self.device_id)}."
            )
        if self.precision not in PRECISIONS:
            raise TableFormatError(f"'precision' must be one of {list(PRECISIONS)}, got {shown(self.precision)}.")
        for name, largest in (("threads", MAX_THREADS), ("batch_size", MAX_BATCH_SIZE)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
                raise TableFormatError(f"'{name}' must be a whole number from 1 to {largest}, got {shown(value)}.")
        if self.clock_mhz is not None and _number("clock_mhz", self.clock_mhz) <= 0:
            raise TableFormatError(f"'clock_mhz' must be positive, got {self.clock_mhz!r}.")
        if self.temperature_c is not None and not -273 < _number("temperature_c", self.temperature_c) < 1000:
            raise TableFormatError(f"'temperature_c' must be in °C, got {self.temperature_c!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The known fields as JSON values, in the order of the class."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DeviceProfile:
        """Read what `to_dict` wrote.

        Raises:
            TableFormatError: A key is unknown or missing, or a value has the wrong type or range.
        """
        if not isinstance(data, dict):
            raise TableFormatError(f"'device' must be a JSON object, got {type(data).__name__}.")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(data) - set(known))
        missing = [name for name in known[:4] if name not in data]
        if unknown or missing:
            raise TableFormatError(f"A device has the keys {known}; unknown {unknown}, missing {missing}.")
        return cls(**data)


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT or not value.isprintable():
        raise TableFormatError(f"'{name}' must be 1 to {MAX_TEXT} printable characters, got {shown(value)}.")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12 or not isfinite(value):
        raise TableFormatError(f"'{name}' must be a finite number, got {shown(value)}.")
    return value
