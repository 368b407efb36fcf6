"""AccuracyPredictor: top-1 accuracy of archs nobody evaluated, with an interval.

A Gaussian process on the logarithm of the error with a trend in log MACs: of the models compared (a process on one-hot
bits, with and without a trend, ridge regression on single choices and on pairs of choices) the most accurate on
held-out subnets, above all where these are smaller than the ones it was fitted on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.predictors.arch_process import ArchProcess, distances_within, mean_and_deviation, standardise
from supernet.predictors.evaluate import report_on, validate_top1
from supernet.predictors.gaussian_process import BOUNDS, Hyperparameters, choose_hyperparameters, inverse_of, left_out
from supernet.predictors.inputs import ArchInputs
from supernet.predictors.predictor import PredictorQuality, validate_resolutions
from supernet.predictors.storage import validate_number, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from supernet.predictors.storage import Arrays
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

FORMAT = "tailor-predictor/1"
LEAST_ARCHS = 20
# More archs make every prediction slower and hardly better; a random part is taken.
MOST_ARCHS = 3000
# Archs the hyper-parameters are chosen on: the time grows with the cube.
_TUNING_ARCHS = 500
_QUALITY_FOLDS = 10
_INTERVAL_FOLDS = 5
_LEAST_ERROR = 1e-4
# An error far above 1 is as good as infinite, and stays a number.
_MOST_LOG_ERROR = 50
# No fit gives a larger number or a scale below its inverse; single precision could not compute with it.
_LARGEST = 1e9
_SLACK = 10


@dataclass(frozen=True, eq=False)
class AccuracyPredictor:
    """Predicts top-1 accuracies of one search space; made by `fit` or `from_file`.

    Attributes:
        inputs: Archs as it sees them.
        quality: From cross-validation.
        hyper: Of the Gaussian process.
        rows: `(n_archs, n_slots)` distinct archs it was fitted on.
        weights: `(n_archs,)`, of the covariances with these archs.
        residuals: `(n_archs,)` absolute errors in predicted standard deviations, ascending; see `interval`.
        scale: Mean and standard deviation of the log errors.
        trend_scale: `(2, n_trends)` mean and standard deviation of each trend.
    """

    inputs: ArchInputs
    quality: PredictorQuality
    hyper: Hyperparameters
    rows: Rows
    weights: Values
    residuals: Values
    scale: Values
    trend_scale: Values

    @classmethod
    def fit(
        cls, space: SearchSpace, rows: Rows, top1: Values, *, n_images: int | None, rng: np.random.Generator
    ) -> AccuracyPredictor:
        """Fit on evaluated archs of a space; see `fit_inputs`."""
        return cls.fit_inputs(ArchInputs(space), rows, top1, n_images=n_images, rng=rng)

    @classmethod
    def fit_inputs(
        cls, inputs: ArchInputs, rows: Rows, top1: Values, *, n_images: int | None, rng: np.random.Generator
    ) -> AccuracyPredictor:
        """Fit on evaluated archs.

        Args:
            inputs: Of the search space, with the trends that the accuracy is taken to follow.
            rows: `(n_archs, n_slots)` choice indices, at least `LEAST_ARCHS` distinct ones. Accuracies of the same
                arch are averaged; of more than `MOST_ARCHS` archs a random part is used.
            top1: `(n_archs,)` fractions.
            n_images: Images behind each accuracy, the same for all archs; None where unknown.
            rng: Draws the folds of the cross-validation.

        Raises:
            InvalidArchError: A row lies outside the space.
            InvalidConfigError: Too few archs, an accuracy that is no fraction, or no images.
        """
        rows = inputs.check(np.asarray(rows))
        top1 = validate_top1(rows, top1, least=LEAST_ARCHS)
        if n_images is not None and n_images < 1:
            raise InvalidConfigError(
                f"Accuracies are evaluated on at least one image, got {n_images}; None if unknown."
            )
        rows, top1 = _averaged(rows, top1)
        if len(rows) < LEAST_ARCHS:
            raise InvalidConfigError(
                f"A predictor needs at least {LEAST_ARCHS} distinct archs, got {len(rows)}; evaluate more."
            )
        order = rng.permutation(len(rows))[:MOST_ARCHS]
        rows, top1 = rows[order], top1[order]

        errors = log_errors(top1)
        scale = mean_and_deviation(errors)
        targets = standardise(errors, scale)
        trend_scale = mean_and_deviation(inputs.trends(rows))
        part = slice(0, _TUNING_ARCHS)
        hyper = choose_hyperparameters(distances_within(inputs, rows[part], trend_scale), targets[part])

        inverse = inverse_of(distances_within(inputs, rows, trend_scale).covariance(hyper), hyper.noise)
        # Folds by accuracy, so that the worst and the best archs are predicted from others that are unlike them, as
        # a search does: random folds gave intervals that were too narrow on shifted samples.
        mean, deviation = left_out(inverse, targets, np.array_split(np.argsort(top1, kind="stable"), _INTERVAL_FOLDS))
        residuals = np.sort(np.abs(targets - mean) / deviation)

        mean, deviation = left_out(inverse, targets, np.array_split(np.arange(len(rows)), _QUALITY_FOLDS))
        reach = _quantile(residuals, 0.9) * deviation
        low, predicted, high = (_accuracy_of(error, scale) for error in (mean + reach, mean, mean - reach))
        report = report_on(predicted, (low, high), top1).to_dict()
        quality = PredictorQuality(n_archs=report.pop("n"), n_images=n_images, **report)
        return cls(inputs, quality, hyper, rows, inverse @ targets, residuals, scale, trend_scale)

    @property
    def space(self) -> SearchSpace:
        """The space it was fitted for."""
        return self.inputs.space

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions it was fitted on, ascending, pixels: the only ones it predicts for."""
        return tuple(int(self.space.slots[0].choices[index]) for index in np.unique(self.rows[:, 0]))

    def predict(self, rows: Rows) -> Values:
        """Predict top-1 accuracies.

        Args:
            rows: `(n_archs, n_slots)` choice indices.

        Returns:
            `(n_archs,)` fractions in [0, 1].

        Raises:
            InvalidArchError: A row lies outside the space or has a resolution the predictor never saw.
        """
        rows = self._checked(rows)
        return np.clip(_accuracy_of(self._process.mean(rows), self.scale), 0, 1)

    def interval(self, rows: Rows, level: float = 0.9, *, extra_images: int | None = None) -> tuple[Values, Values]:
        """Where accuracies lie that are evaluated as those of the fit were, with the given probability.

        The width comes from residuals of archs left out of the fit, in units of the standard deviation the process
        itself predicts. The folds are cut by accuracy, so intervals hold for archs unlike those of the fit too.

        Args:
            rows: `(n_archs, n_slots)` choice indices.
            level: Probability that the accuracy lies inside.
            extra_images: Size of a new set of images to hold for, such as a test set. Adds the sampling error of that
                set and of the images of the fit, as independent binomials.

        Returns:
            Lower and upper bounds, each `(n_archs,)` fractions in [0, 1].

        Raises:
            InvalidArchError: As `predict`.
            InvalidConfigError: The level is not between 0 and 1, or there are no images.
        """
        if not 0 < level < 1:
            raise InvalidConfigError(f"The level of an interval lies between 0 and 1, got {level}.")
        if extra_images is not None and extra_images < 1:
            raise InvalidConfigError(f"A set of images has at least one, got {extra_images}.")
        rows = self._checked(rows)
        mean, deviation = self._process.mean(rows), self._process.deviation(rows)
        reach = _quantile(self.residuals, level) * deviation
        low, centre, high = (_accuracy_of(error, self.scale) for error in (mean + reach, mean, mean - reach))
        if extra_images is not None:
            sampled = np.clip(centre, 0, 1) * np.clip(1 - centre, 0, 1)
            sampled *= 1 / extra_images + (1 / self.quality.n_images if self.quality.n_images else 0)
            sampling = NormalDist().inv_cdf(0.5 + level / 2) * np.sqrt(sampled)
            low, high = centre - np.hypot(centre - low, sampling), centre + np.hypot(high - centre, sampling)
        return np.clip(low, 0, 1), np.clip(high, 0, 1)

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all; an existing one is replaced.

        Raises:
            InvalidConfigError: The path is a folder, or lies in one that does not exist.
        """
        content, arrays = self.parts()
        write_file(path, self.space, file_format=FORMAT, content=content, arrays=arrays)

    def parts(self) -> tuple[dict[str, Any], Arrays]:
        """The JSON object and the arrays of its file."""
        content = {"quality": self.quality.to_dict(), "hyper": asdict(self.hyper)}
        return content, {name: getattr(self, name) for name in _SHAPES} | {"trend_scale": self.trend_scale.ravel()}

    @classmethod
    def from_file(cls, space: SearchSpace, content: dict[str, Any], arrays: Arrays) -> AccuracyPredictor:
        """Put together what `save` wrote for this space; raises `ValueError` and the like where it is damaged."""
        return cls.from_parts(ArchInputs(space), content, arrays)

    @classmethod
    def from_parts(cls, inputs: ArchInputs, content: dict[str, Any], arrays: Arrays) -> AccuracyPredictor:
        """Put together what `parts` gave, seen through the same inputs; raises as `from_file`."""
        quality = PredictorQuality(**content["quality"])
        validate_number("n_archs", quality.n_archs, 1, inf, whole=True)
        if quality.n_images is not None:
            validate_number("n_images", quality.n_images, 1, inf, whole=True)
        for name in ("rmse_pp", "kendall_tau", "bias_pp", "coverage_90", "width_90_pp"):
            validate_number(name, getattr(quality, name), -_LARGEST, _LARGEST)
        hyper = Hyperparameters(**content["hyper"])
        for name, (least, most) in BOUNDS.items():
            # Beyond a fit's own bounds, but not so far that single precision gives way. A missing one has no default.
            validate_number(name, content["hyper"][name], least / _SLACK, most * _SLACK)
        return cls(inputs, quality, hyper, **_validated(arrays, inputs))

    # ------------------------------------------------------------------ private

    @cached_property
    def _process(self) -> ArchProcess:
        return ArchProcess(self.inputs, self.hyper, self.rows, self.weights, self.trend_scale)

    def _checked(self, rows: Rows) -> Rows:
        rows = self.inputs.check(np.asarray(rows))
        validate_resolutions(self.space, rows, self.resolutions)
        return rows


def log_errors(top1: Values) -> Values:
    """`(n,)` logarithms of what is missing to an accuracy of 1; bounded below."""
    return np.log(np.maximum(1 - top1, _LEAST_ERROR))


def _validated(arrays: Arrays, inputs: ArchInputs) -> Arrays:
    """The arrays of a file after a check that they fit each other and the space; raises `ValueError`."""
    if set(arrays) != set(_SHAPES):
        raise ValueError(f"it holds the arrays {sorted(arrays)}, not {sorted(_SHAPES)}")
    n_archs = len(arrays["rows"])
    sizes = {"archs": n_archs, "slots": len(inputs.space.slots), "means and deviations": 2 * inputs.n_trends}
    for name, shape in _SHAPES.items():
        expected = tuple(sizes.get(str(size), size) for size in shape)
        if arrays[name].shape != expected or not n_archs:
            raise ValueError(f"'{name}' has the shape {arrays[name].shape}, not {expected}")
        if name != "rows" and not (arrays[name].dtype == np.float64 and np.isfinite(arrays[name]).all()):
            raise ValueError(f"'{name}' holds numbers that are not finite float64")
        if name != "rows" and np.abs(arrays[name]).max() > _LARGEST:
            raise ValueError(f"'{name}' holds numbers beyond {_LARGEST:g}")
    arrays = arrays | {"trend_scale": arrays["trend_scale"].reshape(2, -1)}
    for name in ("scale", "trend_scale"):
        for deviation in arrays[name][1].ravel().tolist():
            validate_number(f"the deviation of '{name}'", deviation, 1 / _LARGEST, _LARGEST)
    if arrays["residuals"][0] < 0 or (np.diff(arrays["residuals"]) < 0).any():
        raise ValueError("'residuals' are not from 0 and ascending")
    inputs.check(arrays["rows"])
    return arrays


_SHAPES: dict[str, tuple[str | int, ...]] = {
    "rows": ("archs", "slots"),
    "weights": ("archs",),
    "residuals": ("archs",),
    "scale": (2,),
    "trend_scale": ("means and deviations",),
}


def _averaged(rows: Rows, top1: Values) -> tuple[Rows, Values]:
    """Distinct rows, sorted, each with the mean of its accuracies."""
    distinct, which, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return distinct, np.bincount(which.ravel(), weights=top1) / counts


def _accuracy_of(errors: Values, scale: Values) -> Values:
    """Fractions from standardised log errors; below 0 where the error exceeds 1."""
    mean, deviation = scale
    return np.asarray(1 - np.exp(np.minimum(mean + deviation * errors, _MOST_LOG_ERROR)), np.float64)


def _quantile(residuals: Values, level: float) -> float:
    """What a new residual stays below with the given probability; the largest one where there are too few.

    Source: split conformal prediction, the ceil((n + 1) level)-th smallest of n.
    """
    rank = int(np.ceil((len(residuals) + 1) * level))
    return float(residuals[min(rank, len(residuals)) - 1])
