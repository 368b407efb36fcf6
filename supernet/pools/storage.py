"""The subnets chosen from pools, as one file of a bundle. It needs no torch, since the API lists them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.errors import InvalidBundleError
from supernet.predictors.storage import read_file, validate_number, validate_space, write_file
from supernet.spaces.arch import Arch
from supernet.spaces.norms import norm_layers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from supernet.predictors.storage import Arrays
    from supernet.spaces.space import SearchSpace

FORMAT = "tailor-pools/1"
# What is read comes from anybody: a service keeps and shows it all.
MAX_POOLS = 1000
_KEYS = ("resource", "low", "high", "arch", "top1", "images")
_MAX_NAME = 64
_MAX_COST = 1e18
_MAX_IMAGES = 10**9


@dataclass(frozen=True)
class PoolChoice:
    """The subnet to deploy for one amount of a resource.

    Attributes:
        resource: What the pools were measured by: `macs`, or the device of a latency table.
        low: Of the pool's bin, in the unit of the resource: multiply-adds or milliseconds.
        high: The bin ends before it.
        arch: Canonical.
        top1: Evaluated with these statistics.
        images: It was evaluated on.
        statistics: `(2, channels)` float32, mean and variance of the input of every normalisation layer, in network
            order.
    """

    resource: str
    low: float
    high: float
    arch: Arch
    top1: float
    images: int
    statistics: NDArray[np.float32] = field(compare=False, repr=False)


def save_pools(path: Path, choices: Sequence[PoolChoice], space: SearchSpace) -> None:
    """Write choices, whole or not at all."""
    entries = [
        {
            "resource": choice.resource,
            "low": choice.low,
            "high": choice.high,
            "arch": choice.arch.to_dict(),
            "top1": choice.top1,
            "images": choice.images,
        }
        for choice in choices
    ]
    arrays = {_array_name(index): choice.statistics for index, choice in enumerate(choices)}
    write_file(path, space, file_format=FORMAT, content={"pools": entries}, arrays=arrays)


def load_pools(path: Path, space: SearchSpace) -> list[PoolChoice]:
    """Read what `save_pools` wrote.

    Returns:
        At least one choice, in the order of the file.

    Raises:
        InvalidBundleError: The file is absent, truncated, inconsistent or of another format.
        FingerprintMismatchError: It was made for another search space.
    """
    content, arrays = read_file(path)
    if content.get("format") != FORMAT:
        raise InvalidBundleError(f"'{path}' holds no pools: format {content.get('format')!r:.100}, not '{FORMAT}'.")
    validate_space(path, content, space)
    try:
        return _read_choices(content.get("pools"), arrays, space)
    except ValueError as error:
        raise InvalidBundleError(
            f"'{path}' is damaged: {error}. Take the bundle as its training run wrote it."
        ) from error


def _read_choices(entries: Any, arrays: Arrays, space: SearchSpace) -> list[PoolChoice]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_POOLS:
        raise ValueError(f"it must list 1 to {MAX_POOLS} pools")
    if set(arrays) != set(map(_array_name, range(len(entries)))):
        raise ValueError(f"it must hold one array per pool, {len(entries)} in all")
    return [_read_choice(entry, arrays[_array_name(index)], space) for index, entry in enumerate(entries)]


def _read_choice(entry: Any, statistics: NDArray[Any], space: SearchSpace) -> PoolChoice:
    if not isinstance(entry, dict) or set(entry) != set(_KEYS):
        raise ValueError(f"each pool must be an object with the keys {', '.join(_KEYS)}")
    resource, low, high = entry["resource"], entry["low"], entry["high"]
    if not isinstance(resource, str) or not resource.isprintable() or not 1 <= len(resource) <= _MAX_NAME:
        raise ValueError(f"'resource' must be a printable name of at most {_MAX_NAME} characters")
    validate_number("low", low, 0, _MAX_COST)
    validate_number("high", high, low, _MAX_COST)
    validate_number("top1", entry["top1"], 0, 1)
    validate_number("images", entry["images"], 1, _MAX_IMAGES, whole=True)
    arch = space.canonicalize(Arch.from_dict(entry["arch"]))
    channels = sum(found.layer.out_chs for found in norm_layers(space, arch))
    if (
        statistics.dtype != np.float32
        or statistics.shape != (2, channels)
        or not np.isfinite(statistics).all()
        or (statistics[1] < 0).any()
    ):
        raise ValueError(
            f"the statistics of '{arch.arch_id}' must be float32 means and variances of {channels} channels"
        )
    return PoolChoice(resource, float(low), float(high), arch, float(entry["top1"]), entry["images"], statistics)


def _array_name(index: int) -> str:
    return f"pool{index}.statistics"
