"""BN recalibration from the bundle alone: seeded noise, corrected by the statistics of a few anchor subnets.

A bundle holds no image of its data set. It holds, for each anchor, the statistics that real images and that noise
images leave in its normalisation layers; the step from the one to the other carries over to subnets that share
blocks with the anchors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from supernet.data.batches import Normalisation
from supernet.errors import InvalidBundleError, InvalidConfigError
from supernet.evaluation.statistics import Statistics, apply_statistics, measure_statistics
from supernet.network.checkpoint import load_tensors, save_tensors
from supernet.network.extract import extract_subnet
from supernet.spaces.arch import Arch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from torch import nn

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace

NOISE_IMAGES = 512
BATCH_SIZE = 128
# Weight of an anchor's correction where its block differs from the target's, per kind of difference.
MISMATCH_WEIGHT = 0.1


@dataclass(frozen=True)
class Anchor:
    """A subnet whose statistics are known; one flat vector over its normalisation layers in network order.

    Attributes:
        real: Mean and standard deviation from real images, `(2, channels)` float32.
        noise: The same from the noise images.
    """

    arch: Arch
    real: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Calibration:
    """All a bundle needs to recalibrate any subnet of its supernet."""

    space: SearchSpace
    normalisation: Normalisation
    anchors: tuple[Anchor, ...]
    noise_seed: int


def record_calibration(
    supernet: Supernet,
    archs: Iterable[Arch],
    real_batches: Callable[[int], Iterable[Tensor]],
    *,
    normalisation: Normalisation,
    noise_seed: int,
) -> Calibration:
    """Measure the statistics of anchor subnets.

    Args:
        supernet: Trained.
        archs: The anchors; the largest must be among them, so that every channel has one.
        real_batches: Real images at a resolution, normalised, in random order of classes.
        normalisation: Of the images.
        noise_seed: Of the noise images.

    Raises:
        InvalidConfigError: The largest arch is not among the anchors.
    """
    archs = list(archs)
    if not any(replace(arch, resolution=0) == replace(supernet.space.largest(), resolution=0) for arch in archs):
        raise InvalidConfigError("The largest arch must be among the anchors: others lack statistics of some channels.")
    anchors = []
    for arch in archs:
        subnet = extract_subnet(supernet, arch)
        real = _flatten(measure_statistics(subnet, real_batches(arch.resolution)))
        noise = measure_statistics(subnet, noise_batches(normalisation, arch.resolution, seed=noise_seed))
        anchors.append(Anchor(supernet.space.canonicalize(arch), real, _flatten(noise)))
    return Calibration(supernet.space, normalisation, tuple(anchors), noise_seed)


def recalibrate_from_anchors(subnet: nn.Module, arch: Arch, calibration: Calibration) -> None:
    """Replace the BN statistics of an extracted subnet without any real image, in place.

    Noise images run through the subnet; per layer and channel, their statistics are moved by what separates real
    from noise statistics in the anchors, an average weighted towards anchors with the same block at the same size:
    `mean + shift * std` and `std * exp(log_ratio)`.
    """
    noise = noise_batches(calibration.normalisation, arch.resolution, seed=calibration.noise_seed)
    measured = measure_statistics(subnet, noise)
    layers = norm_layers(calibration.space, arch)
    if [name for name, *_ in layers] != list(measured):
        raise InvalidBundleError("The subnet is not the one this arch describes: its normalisation layers differ.")
    corrections = [_anchor_corrections(calibration.space, anchor) for anchor in calibration.anchors]
    corrected: Statistics = {}
    for name, position, layer, spec in layers:
        mean, variance = measured[name]
        std = variance.sqrt()
        weights, shift, log_ratio = (torch.zeros_like(mean) for _ in range(3))
        for blocks in corrections:
            if (position, layer) not in blocks:
                continue
            anchor_spec, anchor_shift, anchor_log_ratio = blocks[position, layer]
            chs = min(len(mean), len(anchor_shift))
            weight = _weight(spec, anchor_spec)
            weights[:chs] += weight
            shift[:chs] += weight * anchor_shift[:chs]
            log_ratio[:chs] += weight * anchor_log_ratio[:chs]
        if not weights.all():
            raise InvalidBundleError(f"No anchor of the calibration covers every channel of layer '{name}'.")
        moved_std = std * torch.exp(log_ratio / weights)
        corrected[name] = (mean + std * shift / weights, moved_std**2)
    apply_statistics(subnet, corrected)


def noise_batches(normalisation: Normalisation, resolution: int, *, seed: int) -> Iterator[Tensor]:
    """Gaussian images with the data set's mean and spread per channel, rounded to whole pixels.

    Yields:
        `(BATCH_SIZE, 3, resolution, resolution)` normalised; the same for the same seed and resolution everywhere.
    """
    shape = (BATCH_SIZE, resolution, resolution, len(normalisation.mean))
    generator = np.random.PCG64([seed, resolution])
    for _ in range(NOISE_IMAGES // BATCH_SIZE):
        # The sum of a word's eight bytes is close to Gaussian, and numpy promises the raw words for all its versions.
        words = generator.random_raw(int(np.prod(shape))).astype("<u8")
        sums = words.view(np.uint8).reshape(*shape, 8).sum(-1, dtype=np.int64)
        deviates = (sums - 8 * 127.5) / sqrt(8 * (256**2 - 1) / 12)
        values = np.asarray(normalisation.mean) + np.asarray(normalisation.std) * deviates
        yield normalisation.apply(np.clip(np.rint(255 * values), 0, 255).astype(np.uint8))


def norm_layers(space: SearchSpace, arch: Arch) -> list[tuple[str, int, str, BlockSpec]]:
    """Normalisation layers of the extracted subnet in network order: name there, position, layer name, block."""
    return [
        (f"blocks.{place}.layers.{layer.name}.norm", position, layer.name, spec)
        for place, (position, spec) in enumerate(space.walk(arch))
        for layer in spec.layers
        if layer.norm
    ]


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration in half precision."""
    tensors = {}
    for index, anchor in enumerate(calibration.anchors):
        tensors[f"anchor{index}.real"] = anchor.real.half()
        tensors[f"anchor{index}.noise"] = anchor.noise.half()
    save_tensors(
        path,
        tensors,
        calibration.space,
        anchors=[anchor.arch.to_dict() for anchor in calibration.anchors],
        noise_seed=calibration.noise_seed,
        noise_images=NOISE_IMAGES,
        mean=calibration.normalisation.mean,
        std=calibration.normalisation.std,
    )


def load_calibration(path: Path, space: SearchSpace) -> Calibration:
    """Read what `save_calibration` wrote.

    Raises:
        InvalidBundleError: The file is broken, of another space, or made with another number of noise images.
    """
    tensors, metadata = load_tensors(path, space)
    try:
        if (found := metadata["noise_images"]) != NOISE_IMAGES:
            raise InvalidBundleError(
                f"'{path}' was made with {found} noise images, this version makes {NOISE_IMAGES}. Build it anew."
            )
        anchors = []
        for index, data in enumerate(metadata["anchors"]):
            arch = space.canonicalize(Arch.from_dict(data))
            real, noise = (tensors[f"anchor{index}.{kind}"].float() for kind in ("real", "noise"))
            channels = sum(_channels(spec, layer) for _, _, layer, spec in norm_layers(space, arch))
            if any(kind.shape != (2, channels) or not kind.isfinite().all() for kind in (real, noise)):
                raise InvalidBundleError(f"'{path}': the statistics of anchor {index} do not fit its arch.")
            anchors.append(Anchor(arch, real, noise))
        normalisation = Normalisation(tuple(map(float, metadata["mean"])), tuple(map(float, metadata["std"])))
        return Calibration(space, normalisation, tuple(anchors), int(metadata["noise_seed"]))
    except InvalidBundleError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidBundleError(f"'{path}' is no calibration file: {error!r} is missing or malformed.") from error


def _flatten(statistics: Statistics) -> Tensor:
    means = torch.cat([mean for mean, _ in statistics.values()])
    stds = torch.cat([variance.sqrt() for _, variance in statistics.values()])
    return torch.stack([means, stds]).cpu()


def _anchor_corrections(space: SearchSpace, anchor: Anchor) -> dict[tuple[int, str], tuple[BlockSpec, Tensor, Tensor]]:
    """Per position and layer: the anchor's block, and the shift and log ratio from noise to real statistics."""
    # A channel that never varies, or less than half precision can hold, has no spread to divide by; the network adds
    # epsilon to the variance for the same reason.
    real_std, noise_std = (stds.clamp(min=sqrt(space.norm_eps)) for stds in (anchor.real[1], anchor.noise[1]))
    shift = (anchor.real[0] - anchor.noise[0]) / noise_std
    log_ratio = torch.log(real_std / noise_std)
    corrections, start = {}, 0
    for _, position, layer, spec in norm_layers(space, anchor.arch):
        end = start + _channels(spec, layer)
        corrections[position, layer] = (spec, shift[start:end], log_ratio[start:end])
        start = end
    return corrections


def _channels(spec: BlockSpec, layer_name: str) -> int:
    return next(layer.out_chs for layer in spec.layers if layer.name == layer_name)


def _weight(target: BlockSpec, anchor: BlockSpec) -> float:
    same_form = (target.kernel_size, target.mid_chs) == (anchor.kernel_size, anchor.mid_chs)
    same_size = target.in_size == anchor.in_size
    return (1.0 if same_form else MISMATCH_WEIGHT) * (1.0 if same_size else MISMATCH_WEIGHT)
