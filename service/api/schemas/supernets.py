"""Supernets and search spaces."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from service.api.schemas.base import UtcTime


class PredictorModel(BaseModel):
    """The accuracy predictor of a supernet."""

    quality: dict[str, Any] | None = Field(
        description="How well it did on archs left out of its fit; None for an imported one, of which nobody knows."
    )
    resolutions: list[int] = Field(description="The only ones it predicts for, pixels.")


class NormalisationModel(BaseModel):
    """What to subtract from and divide pixels in [0, 1] by, per channel."""

    mean: list[float]
    std: list[float]


class SupernetModel(BaseModel):
    """A trained supernet that can be searched."""

    id: str
    space: str
    space_fingerprint: str
    resolutions: list[int]
    classes: list[str]
    normalisation: NormalisationModel
    predictor: PredictorModel | None = Field(description="None: it cannot be searched (`no_predictor`).")
    deployable: bool = Field(description="Whether it has weights and what a subnet is recalibrated with.")
    parts: dict[str, int] = Field(description="Bytes of each part its bundle has.")
    training: dict[str, Any] = Field(description="Method, settings and data set the weights come from.")
    versions: dict[str, str]
    bundle_sha256: str
    is_default: bool = Field(description="Whether requests that name no supernet mean this one.")
    created_at: UtcTime


class SupernetList(BaseModel):
    """One page of supernets, newest first."""

    items: list[SupernetModel]
    next_cursor: str | None


class BlockModel(BaseModel):
    """One concrete block: the key of a row of a latency table, and what it costs."""

    kind: str
    in_size: int
    in_chs: int
    mid_chs: int
    out_chs: int
    kernel_size: int
    stride: int
    act: str
    out_act: str
    se_chs: int
    shortcut: bool
    norm: bool
    bias: bool


class BlockList(BaseModel):
    """Every distinct block of a space, sorted, on one page."""

    space: str
    resolutions: list[int]
    items: list[BlockModel]
    next_cursor: None = None
