"""What all schemas share: strict requests, aware times, archs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

MAX_NAME = 64
EXAMPLE_ARCH: JsonDict = {
    "resolution": 28,
    "depths": [1, 2, 1, 2, 1],
    "kernel_sizes": [3, 0, 0, 5, 3, 0, 3, 0, 0, 3, 7, 0, 3, 0, 0],
    "expand_ratios": [3, 0, 0, 4, 2, 0, 4, 0, 0, 3, 4, 0, 4, 0, 0],
    "widths": [],
}


def _aware(value: datetime) -> datetime:
    """SQLite forgets the zone of a time; all ours are UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


UtcTime = Annotated[datetime, AfterValidator(_aware)]
Whole = Annotated[int, BeforeValidator(_whole), Field(strict=True)]
"""A whole number; 30e6 is one, "5" and true are not."""
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_NAME)]


class RequestModel(BaseModel):
    """A request body: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(set(map(str, data)) - set(cls.model_fields))
            if unknown:
                raise PydanticCustomError(
                    "unknown_field",
                    "unknown fields {unknown}; allowed are {allowed}",
                    {"unknown": [name[:MAX_NAME] for name in unknown[:10]], "allowed": sorted(cls.model_fields)},
                )
        return data


class ArchModel(RequestModel):
    """One choice in a search space. A list is empty where the space fixes that dimension."""

    resolution: Whole
    depths: list[Whole] = Field([], max_length=1000)
    kernel_sizes: list[Whole] = Field([], max_length=1000)
    expand_ratios: list[Whole | Real] = Field([], max_length=1000)
    widths: list[Whole] = Field([], max_length=1000)
