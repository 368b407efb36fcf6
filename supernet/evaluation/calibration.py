"""BN recalibration from the bundle alone: synthesised images, corrected by the statistics of a few anchor subnets.

A bundle that we train holds no image of its data set. It holds synthesised ones and, for each anchor, the statistics
that real and that synthesised images leave in its normalisation layers; the step from the one to the other carries over
to subnets that share blocks with the anchors. Without anchors the images are real ones, which an owner put there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from supernet.data.batches import Normalisation, chunks, resize_batch
from supernet.errors import InvalidBundleError, InvalidConfigError
from supernet.evaluation.statistics import Statistics, apply_statistics, measure_statistics, recalibrate_bn
from supernet.network.checkpoint import load_tensors, save_tensors
from supernet.network.extract import extract_subnet
from supernet.spaces.arch import Arch
from supernet.spaces.norms import norm_layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace

BATCH_SIZE = 128
# Weight of an anchor's correction where its block differs from the target's, per kind of difference.
MISMATCH_WEIGHT = 0.1


@dataclass(frozen=True)
class Anchor:
    """A subnet whose statistics are known; one flat vector over its normalisation layers in network order.

    Attributes:
        real: Mean and standard deviation from real images, `(2, channels)` float32.
        synthetic: The same from the synthesised images.
    """

    arch: Arch
    real: Tensor
    synthetic: Tensor


@dataclass(frozen=True)
class Calibration:
    """All a bundle needs to recalibrate any subnet of its supernet.

    Attributes:
        anchors: None where the images are real.
        images: `(n, size, size, 3)` uint8, at the space's largest resolution.
    """

    space: SearchSpace
    normalisation: Normalisation
    anchors: tuple[Anchor, ...]
    images: NDArray[np.uint8]


def record_calibration(
    supernet: Supernet,
    anchors: Iterable[tuple[Arch, Statistics]],
    images: NDArray[np.uint8],
    *,
    normalisation: Normalisation,
) -> Calibration:
    """Measure what the synthesised images leave in the anchor subnets.

    Args:
        supernet: Trained.
        anchors: Subnets with their statistics from real images; the largest must be among them, so that every channel
            has one.
        images: Synthesised, `(n, size, size, 3)` at the space's largest resolution.
        normalisation: Of the images.

    Raises:
        InvalidConfigError: The largest arch is not among the anchors.
    """
    space = supernet.space
    recorded = []
    for arch, real in anchors:
        batches = pixel_batches(images, normalisation, arch.resolution)
        synthetic = measure_statistics(extract_subnet(supernet, arch), batches)
        recorded.append(Anchor(space.canonicalize(arch), _flatten(real), _flatten(synthetic)))
    if not any(replace(anchor.arch, resolution=0) == replace(space.largest(), resolution=0) for anchor in recorded):
        raise InvalidConfigError("The largest arch must be among the anchors: others lack statistics of some channels.")
    return Calibration(space, normalisation, tuple(recorded), images)


def recalibrate_from(calibration: Calibration, subnet: nn.Module, *, arch: Arch) -> str:
    """Replace the BN statistics of an extracted subnet by what its bundle holds, in place.

    Returns:
        What they come from: `anchors` or `images`.
    """
    if calibration.anchors:
        recalibrate_from_anchors(subnet, arch, calibration)
        return "anchors"
    recalibrate_bn(subnet, pixel_batches(calibration.images, calibration.normalisation, arch.resolution))
    return "images"


def recalibrate_from_anchors(subnet: nn.Module, arch: Arch, calibration: Calibration) -> None:
    """Replace the BN statistics of an extracted subnet without any real image, in place.

    Synthesised images run through the subnet; per layer and channel, their statistics are moved by what separates real
    from synthetic statistics in the anchors, an average weighted towards anchors with the same block at the same size:
    `mean + shift * std` and `std * exp(log_ratio)`.
    """
    images = pixel_batches(calibration.images, calibration.normalisation, arch.resolution)
    measured = measure_statistics(subnet, images)
    layers = norm_layers(calibration.space, arch)
    if [found.name for found in layers] != list(measured):
        raise InvalidBundleError("The subnet is not the one this arch describes: its normalisation layers differ.")
    corrections = [_anchor_corrections(calibration.space, anchor) for anchor in calibration.anchors]
    corrected: Statistics = {}
    for found in layers:
        name, key = found.name, (found.position, found.layer.name)
        mean, variance = measured[name]
        std = variance.sqrt()
        weights, shift, log_ratio = (torch.zeros_like(mean) for _ in range(3))
        for blocks in corrections:
            if key not in blocks:
                continue
            anchor_spec, anchor_shift, anchor_log_ratio = blocks[key]
            chs = min(len(mean), len(anchor_shift))
            weight = _weight(found.block, anchor_spec)
            weights[:chs] += weight
            shift[:chs] += weight * anchor_shift[:chs]
            log_ratio[:chs] += weight * anchor_log_ratio[:chs]
        if not weights.all():
            raise InvalidBundleError(f"No anchor of the calibration covers every channel of layer '{name}'.")
        moved_std = std * torch.exp(log_ratio / weights)
        corrected[name] = (mean + std * shift / weights, moved_std**2)
    apply_statistics(subnet, corrected)


def pixel_batches(images: NDArray[np.uint8], normalisation: Normalisation, resolution: int) -> Iterator[Tensor]:
    """Images `(n, size, size, 3)` as normalised batches `(≤ BATCH_SIZE, 3, resolution, resolution)`, in order."""
    for part in chunks(len(images), BATCH_SIZE):
        yield resize_batch(normalisation.apply(images[part]), resolution)


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, its statistics in half precision."""
    tensors = {"images": torch.from_numpy(calibration.images)}
    for index, anchor in enumerate(calibration.anchors):
        tensors[f"anchor{index}.real"] = anchor.real.half()
        tensors[f"anchor{index}.synthetic"] = anchor.synthetic.half()
    save_tensors(
        path,
        tensors,
        calibration.space,
        anchors=[anchor.arch.to_dict() for anchor in calibration.anchors],
        mean=calibration.normalisation.mean,
        std=calibration.normalisation.std,
    )


def load_calibration(path: Path, space: SearchSpace) -> Calibration:
    """Read what `save_calibration` wrote.

    Raises:
        InvalidBundleError: The file is broken or of another space.
    """
    tensors, metadata = load_tensors(path, space)
    try:
        images = tensors["images"]
        size = max(space.resolutions)
        if images.dtype != torch.uint8 or images.ndim != 4 or not len(images) or images.shape[1:] != (size, size, 3):
            raise InvalidBundleError(
                f"'{path}': the images must be bytes of shape (n, {size}, {size}, 3), got {tuple(images.shape)}."
            )
        anchors = []
        for index, data in enumerate(metadata["anchors"]):
            arch = space.canonicalize(Arch.from_dict(data))
            real, synthetic = (tensors[f"anchor{index}.{kind}"].float() for kind in ("real", "synthetic"))
            channels = sum(found.layer.out_chs for found in norm_layers(space, arch))
            if any(kind.shape != (2, channels) or not kind.isfinite().all() for kind in (real, synthetic)):
                raise InvalidBundleError(f"'{path}': the statistics of anchor {index} do not fit its arch.")
            anchors.append(Anchor(arch, real, synthetic))
        normalisation = Normalisation(tuple(map(float, metadata["mean"])), tuple(map(float, metadata["std"])))
        return Calibration(space, normalisation, tuple(anchors), images.numpy())
    except InvalidBundleError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidBundleError(f"'{path}' is no calibration file: {error!r} is missing or malformed.") from error


def _flatten(statistics: Statistics) -> Tensor:
    means = torch.cat([mean for mean, _ in statistics.values()])
    stds = torch.cat([variance.sqrt() for _, variance in statistics.values()])
    return torch.stack([means, stds]).cpu()


def _anchor_corrections(space: SearchSpace, anchor: Anchor) -> dict[tuple[int, str], tuple[BlockSpec, Tensor, Tensor]]:
    """Per position and layer: the anchor's block, and the shift and log ratio from synthetic to real statistics."""
    # A channel that never varies, or less than half precision can hold, has no spread to divide by; the network adds
    # epsilon to the variance for the same reason.
    real_std, synthetic_std = (stds.clamp(min=sqrt(space.norm_eps)) for stds in (anchor.real[1], anchor.synthetic[1]))
    shift = (anchor.real[0] - anchor.synthetic[0]) / synthetic_std
    log_ratio = torch.log(real_std / synthetic_std)
    corrections, start = {}, 0
    for found in norm_layers(space, anchor.arch):
        end = start + found.layer.out_chs
        corrections[found.position, found.layer.name] = (found.block, shift[start:end], log_ratio[start:end])
        start = end
    return corrections


def _weight(target: BlockSpec, anchor: BlockSpec) -> float:
    same_form = (target.kernel_size, target.mid_chs) == (anchor.kernel_size, anchor.mid_chs)
    same_size = target.in_size == anchor.in_size
    return (1.0 if same_form else MISMATCH_WEIGHT) * (1.0 if same_size else MISMATCH_WEIGHT)
