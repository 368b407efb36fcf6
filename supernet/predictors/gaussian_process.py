"""Gaussian process over archs: its covariance, and hyper-parameters by the marginal likelihood.

It knows arrays only. Source: Rasmussen & Williams 2006, equations 2.25, 5.8, 5.9 and 5.12.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from supernet.spaces.costs import Values

_STEPS = 80


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Of the covariance `amplitude * exp(-distance² / 2 length²) + slope * trend * trend' + noise`.

    Targets and trends have mean 0 and variance 1; the products of several trends are added.

    Attributes:
        amplitude: Variance of what the choices explain.
        length: How many bits two networks differ in before they say little about each other.
        resolution_length: The same for the bits of the resolution.
        slope: Variance of the weight of each linear trend.
        noise: Variance that nothing explains.
    """

    amplitude: float = 1.0
    length: float = 7.0
    resolution_length: float = 2.0
    slope: float = 0.4
    noise: float = 0.05


# A large amplitude over a small noise would cancel more digits than the float32 of predictions has.
BOUNDS = {
    "amplitude": (0.02, 10.0),
    "length": (0.5, 100.0),
    "resolution_length": (0.3, 100.0),
    "slope": (3e-4, 50.0),
    "noise": (1e-3, 1.0),
}


@dataclass(frozen=True, slots=True)
class Distances:
    """What the covariance of every two archs depends on; each `(n, n)`.

    Attributes:
        network: Squared distance of the network bits.
        resolution: Squared distance of the resolution bits.
        trend: Products of the trends, summed over these.
    """

    network: Values
    resolution: Values
    trend: Values

    def covariance(self, hyper: Hyperparameters) -> Values:
        """`(n, n)`, without the noise."""
        return self._bell(hyper) + hyper.slope * self.trend

    def _bell(self, hyper: Hyperparameters) -> Values:
        exponent = self.network * (-0.5 / hyper.length**2) + self.resolution * (-0.5 / hyper.resolution_length**2)
        return hyper.amplitude * np.exp(exponent)

    def log_likelihood(self, hyper: Hyperparameters, targets: Values) -> tuple[float, Values]:
        """Log marginal likelihood of targets `(n,)`, and its gradient by the logarithm of each hyper-parameter."""
        bell = self._bell(hyper)
        covariance = bell + hyper.slope * self.trend
        inverse = inverse_of(covariance, hyper.noise)
        _, log_determinant = np.linalg.slogdet(inverse)
        weights = inverse @ targets
        pull = np.outer(weights, weights) - inverse
        pulled = pull * bell
        gradient = 0.5 * np.array(
            [
                pulled.sum(),
                np.vdot(pulled, self.network) / hyper.length**2,
                np.vdot(pulled, self.resolution) / hyper.resolution_length**2,
                np.vdot(pull, self.trend) * hyper.slope,
                np.trace(pull) * hyper.noise,
            ]
        )
        return float(0.5 * (log_determinant - targets @ weights - len(targets) * np.log(2 * np.pi))), gradient


def squared_distances(points: NDArray[np.floating]) -> Values:
    """`(n, n)` squared Euclidean distances of points `(n, k)` to each other."""
    products = np.asarray(points @ points.T, np.float64)
    squares = np.diag(products)
    return np.maximum(squares[:, None] + squares - 2 * products, 0)


def inverse_of(covariance: Values, noise: float) -> Values:
    """Inverse of a covariance matrix `(n, n)` with noise on its diagonal."""
    noisy = covariance.copy()
    noisy[np.diag_indices(len(noisy))] += noise
    return np.asarray(np.linalg.inv(noisy), np.float64)


def choose_hyperparameters(distances: Distances, targets: Values) -> Hyperparameters:
    """Maximise the marginal likelihood over the logarithms of the hyper-parameters, within bounds.

    Args:
        distances: Of the training archs to each other.
        targets: `(n,)`, mean 0 and variance 1.
    """
    # Only fitting needs it, so that predictions run on numpy alone.
    from scipy.optimize import minimize

    def loss(position: Values) -> tuple[float, Values]:
        value, gradient = distances.log_likelihood(Hyperparameters(*np.exp(position).tolist()), targets)
        return -value, -gradient

    start = np.log(list(asdict(Hyperparameters()).values()))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=np.log(list(BOUNDS.values())), options={"maxiter": _STEPS}
    )
    return Hyperparameters(*np.exp(found.x).tolist())


def left_out(inverse: Values, targets: Values, folds: Iterable[NDArray[np.intp]]) -> tuple[Values, Values]:
    """What the process says about each fold when fitted on all others, without fitting again.

    Args:
        inverse: `(n, n)`, of the noisy covariance.
        targets: `(n,)`.
        folds: Indices; every arch in one fold.

    Returns:
        Mean and standard deviation (noise included), each `(n,)`, in the unit of the targets.
    """
    weights = inverse @ targets
    mean, deviation = np.empty_like(targets), np.empty_like(targets)
    for fold in folds:
        block = np.linalg.inv(inverse[np.ix_(fold, fold)])
        mean[fold] = targets[fold] - block @ weights[fold]
        deviation[fold] = np.sqrt(np.diag(block))
    return mean, deviation
