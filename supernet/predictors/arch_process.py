"""A fitted Gaussian process over the archs of a space: mean and deviation for whole populations, in little time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from supernet.predictors.gaussian_process import Distances, Hyperparameters, inverse_of, squared_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supernet.predictors.inputs import ArchInputs
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows

# Rows at once: their covariances stay in the cache.
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class ArchProcess:
    """What the process says about archs, as standardised targets.

    Attributes:
        inputs: Of the space.
        hyper: Of the covariance.
        rows: `(n_known, n_slots)` canonical archs it was fitted on.
        weights: `(n_known,)` of the covariances with these archs.
        trend_scale: `(2, n_trends)` mean and standard deviation of each trend.
    """

    inputs: ArchInputs
    hyper: Hyperparameters
    rows: Rows
    weights: Values
    trend_scale: Values

    def mean(self, rows: Rows) -> Values:
        """`(n_archs,)` for canonical rows `(n_archs, n_slots)`. The covariances are float32."""
        mean = self.hyper.slope * (self._trends @ self.weights) @ self._trends_of(rows)
        weights = (self.hyper.amplitude * self.weights).astype(np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            mean[part] += weights @ self._bell(rows[part])
        return mean

    def deviation(self, rows: Rows) -> Values:
        """`(n_archs,)` standard deviations, noise included."""
        trends = self._trends_of(rows)
        variance: Values = self.hyper.amplitude + self.hyper.slope * np.square(trends).sum(axis=0)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            bell = self.hyper.amplitude * self._bell(rows[part])
            covariance = bell + self.hyper.slope * (self._trends.T @ trends[:, part])
            variance[part] -= np.einsum("ij,ij->j", covariance, self._inverse @ covariance)
        return np.sqrt(np.maximum(variance, 0) + self.hyper.noise)

    @cached_property
    def _inverse(self) -> Values:
        covariance = distances_within(self.inputs, self.rows, self.trend_scale).covariance(self.hyper)
        return inverse_of(covariance, self.hyper.noise)

    @cached_property
    def _trends(self) -> Values:
        return self._trends_of(self.rows)

    def _trends_of(self, rows: Rows) -> Values:
        return standardise(self.inputs.trends(rows), self.trend_scale)

    def _bell(self, rows: Rows) -> NDArray[np.float32]:
        """`(n_known, n_archs)`: one matrix product gives the exponents. Without the amplitude."""
        bits = self.inputs.bits(rows)
        squares = (-0.5 * self._closeness @ bits**2)[None]
        exponents = self._known @ np.concatenate([bits, squares, np.ones_like(squares)])
        bell: NDArray[np.float32] = np.exp(exponents, out=exponents)
        return bell

    @cached_property
    def _known(self) -> NDArray[np.float32]:
        """`(n_known, n_bits + 2)`: the left side of the product in `_bell`."""
        bits = self.inputs.bits(self.rows).T
        constant = -0.5 * (bits**2 @ self._closeness)
        return np.column_stack([bits * self._closeness, np.ones(len(bits)), constant]).astype(np.float32)

    @cached_property
    def _closeness(self) -> NDArray[np.float32]:
        """`(n_bits,)` what one bit adds to a squared distance, in squared lengths."""
        lengths = np.full(self.inputs.n_bits, self.hyper.length)
        lengths[: self.inputs.n_resolution_bits] = self.hyper.resolution_length
        return (1 / lengths**2).astype(np.float32)


def distances_within(inputs: ArchInputs, rows: Rows, trend_scale: Values) -> Distances:
    """Of archs to each other; see `ArchProcess` for the arguments."""
    resolution, network = np.split(inputs.bits(rows).T, [inputs.n_resolution_bits], axis=1)
    trends = standardise(inputs.trends(rows), trend_scale)
    return Distances(
        network=squared_distances(network),
        resolution=squared_distances(resolution),
        trend=trends.T @ trends,
    )


def mean_and_deviation(samples: Values) -> Values:
    """`(2,)` of samples `(n,)`, `(2, k)` of `(k, n)`; a deviation of almost 0 becomes 1."""
    deviation = samples.std(axis=-1)
    return np.array([samples.mean(axis=-1), np.where(deviation > 1e-9, deviation, 1.0)])


def standardise(samples: Values, scale: Values) -> Values:
    """Samples in deviations from the mean; `scale` is from `mean_and_deviation`."""
    mean, deviation = scale[..., None]
    standardised: Values = (samples - mean) / deviation
    return standardised
