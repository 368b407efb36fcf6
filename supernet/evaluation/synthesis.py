"""Images made up from a supernet: no image of the data set, but nearly its statistics in every subnet.

They stand in for real images wherever statistics of activations are needed without the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from supernet.data.batches import resize_batch
from supernet.network.extract import extract_subnet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from supernet.data.batches import Normalisation
    from supernet.evaluation.statistics import Statistics
    from supernet.network.elastic_net import Supernet
    from supernet.spaces.arch import Arch

BATCH_SIZE = 128
PATCH_SIZE = 3
# Of the losses beside the match of patches, which has weight 1.
STATISTICS_WEIGHT = 0.1
CLASSES_WEIGHT = 0.1
LEARNING_RATE = 0.1
BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class PatchStatistics:
    """Mean `(27,)` and covariance `(27, 27)` of the 3×3 patches of normalised images."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> PatchStatistics:
        """Measure them on images `(n, 3, height, width)`; at least one batch."""
        moments = [_patch_moments(batch) for batch in batches]
        mean = torch.stack([mean for mean, _ in moments]).mean(0)
        second = torch.stack([covariance + mean.outer(mean) for mean, covariance in moments]).mean(0)
        return cls(mean, second - mean.outer(mean))


@dataclass(frozen=True)
class SynthesisSettings:
    """How much is spent on synthesised images.

    Attributes:
        images: How many to make, a multiple of `BATCH_SIZE` or fewer than that.
        steps: Of the optimizer.
    """

    images: int = 256
    steps: int = 400


def synthesise_images(
    supernet: Supernet,
    anchors: Sequence[tuple[Arch, Statistics]],
    patches: PatchStatistics,
    *,
    normalisation: Normalisation,
    settings: SynthesisSettings,
    generator: torch.Generator,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> NDArray[np.uint8]:
    """Make images whose activations have the anchors' statistics, whose patches those of the data set.

    Every step takes a batch, mirrors half of it, and lowers one anchor's distance to its real statistics, the cross-
    entropy to balanced classes and the distance of the patches' moments. Images are spectra with a prior of 1/f, which
    matters: pixels as parameters end far from the statistics of other subnets.

    Args:
        supernet: Trained.
        anchors: Subnets with their statistics from real images.
        patches: Of the data set at the space's largest resolution.
        normalisation: Of the images.
        settings: How many, and how long.
        generator: Draws the first spectra, batches, flips and anchors.
        report: Called with the steps done and their number.

    Returns:
        `(images, size, size, 3)` at the largest resolution.

    Source: DeepInversion's match of BN statistics (arXiv 1912.08795). Differs: several subnets of one supernet, spectra
    as parameters, and patch moments in place of total variation.
    """
    size, count, steps = max(supernet.space.resolutions), settings.images, settings.steps
    subnets = [(arch, extract_subnet(supernet, arch).train(), statistics) for arch, statistics in anchors]
    labels = torch.arange(count) % supernet.space.classes
    spectrum = torch.randn(count, 3, size, size // 2 + 1, 2, generator=generator).requires_grad_()
    decode = _Decoder(size, patches, normalisation)
    optimizer = torch.optim.Adam([spectrum], lr=LEARNING_RATE, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order: list[Tensor] = []
    for step in range(steps):
        order = order or list(torch.split(torch.randperm(count, generator=generator), BATCH_SIZE))
        chosen = order.pop()
        images = decode(spectrum[chosen])
        mirrored = torch.rand(len(chosen), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
        arch, subnet, statistics = subnets[int(torch.randint(len(subnets), (), generator=generator))]
        distance, logits = _statistics_distance(subnet, resize_batch(images, arch.resolution), statistics)
        loss = (
            STATISTICS_WEIGHT * distance
            + CLASSES_WEIGHT * F.cross_entropy(logits, labels[chosen])
            + _patch_distance(images, patches)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        report(step + 1, steps)
    with torch.no_grad():
        return decode.pixels(spectrum)


class _Decoder:
    """Spectra to normalised images: amplitudes fall as 1/f, colours are correlated as in the data set."""

    def __init__(self, size: int, patches: PatchStatistics, normalisation: Normalisation) -> None:
        vertical, horizontal = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
        frequency = torch.hypot(vertical, horizontal).clamp(min=1 / size)
        # A spectrum of unit variance gives images of unit variance.
        self.amplitude = size / (frequency * torch.sqrt((1 / frequency**2).sum() * 2 * 2))
        self.size = size
        centre = torch.arange(3) * PATCH_SIZE**2 + PATCH_SIZE**2 // 2
        values, vectors = torch.linalg.eigh(patches.covariance[centre][:, centre])
        self.colours = vectors * values.clamp(min=0).sqrt()
        self.mean, self.std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
        self.low, self.high = (
            (bound - self.mean).div(self.std).view(1, 3, 1, 1) for bound in (torch.tensor(0.0), torch.tensor(1.0))
        )

    def __call__(self, spectrum: Tensor) -> Tensor:
        """Turn `(n, 3, size, size // 2 + 1, 2)` into `(n, 3, size, size)` within the range of pixels."""
        planes = torch.fft.irfft2(
            torch.view_as_complex(spectrum) * self.amplitude, (self.size, self.size), norm="ortho"
        )
        images = torch.einsum("cd,ndhw->nchw", self.colours, planes)
        return torch.minimum(torch.maximum(images, self.low), self.high)

    def pixels(self, spectrum: Tensor) -> NDArray[np.uint8]:
        """The images as whole pixels `(n, size, size, 3)`."""
        values = self(spectrum).permute(0, 2, 3, 1) * self.std + self.mean
        return (values * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _statistics_distance(subnet: nn.Module, images: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor]:
    """How far the batch statistics of a subnet are from the given ones, mean over layers, and its logits."""
    distances: list[Tensor] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        mean, variance = statistics[name]
        std = variance.clamp(min=1e-5).sqrt()

        def compare(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found_variance, found_mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
            of_means = ((found_mean - mean) / std).square().mean()
            of_stds = (found_variance.clamp(min=1e-5).sqrt() / std).log().square().mean()
            distances.append((of_means + of_stds + 1e-12).sqrt())

        return compare

    hooks = [subnet.get_submodule(name).register_forward_pre_hook(hook(name)) for name in statistics]
    try:
        logits = subnet(images)
    finally:
        for handle in hooks:
            handle.remove()
    return torch.stack(distances).mean(), logits


def _patch_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    patches = F.unfold(images, PATCH_SIZE).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    centred = patches - mean
    return mean, centred.T @ centred / len(patches)


def _patch_distance(images: Tensor, patches: PatchStatistics) -> Tensor:
    mean, covariance = _patch_moments(images)
    scale = patches.covariance.diagonal().mean()
    of_means = (mean - patches.mean).square().mean() / scale
    of_covariances = (covariance - patches.covariance).square().mean() / scale**2
    return of_means + of_covariances
