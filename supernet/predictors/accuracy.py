"""AccuracyPredictor: top-1 accuracy of archs nobody evaluated, with an interval.

A Gaussian process on the logarithm of the error with a trend in log MACs: of the models compared (a process on one-hot
bits, with and without a trend, ridge regression on single choices and on pairs of choices) the most accurate on
held-out subnets, above all where these are smaller than the ones it was fitted on.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from supernet.errors import FingerprintMismatchError, InvalidArchError, InvalidBundleError, InvalidConfigError
from supernet.predictors.arch_process import ArchProcess, distances_within, mean_and_deviation, standardise
from supernet.predictors.evaluate import report_on, validate_top1
from supernet.predictors.gaussian_process import BOUNDS, Hyperparameters, choose_hyperparameters, inverse_of, left_out
from supernet.predictors.inputs import ArchInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supernet.spaces.arch import Arch
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

FORMAT = "tailor-predictor/1"
_KEY = "tailor"

INTERVAL_LEVEL = 0.9
# Intervals given to users hold for a test set of this size, that of CIFAR-10.
TEST_IMAGES = 10_000
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


@dataclass(frozen=True, slots=True)
class PredictorQuality:
    """How well a predictor did on archs left out of the fit, in ten random folds; see `PredictorReport`.

    Attributes:
        n_archs: Distinct archs it was fitted on.
        n_images: Images each accuracy was evaluated on; None where nobody knows.
    """

    n_archs: int
    rmse_pp: float
    kendall_tau: float
    bias_pp: float
    coverage_90: float
    width_90_pp: float
    n_images: int | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class AccuracyPredictor:
    """Predicts top-1 accuracies of one search space; made by `fit` or `load_predictor`.

    Attributes:
        space: The space it was fitted for.
        quality: From cross-validation.
        hyper: Of the Gaussian process.
        rows: `(n_archs, n_slots)` distinct archs it was fitted on.
        weights: `(n_archs,)`, of the covariances with these archs.
        residuals: `(n_archs,)` absolute errors in predicted standard deviations, ascending; see `interval`.
        scale: Mean and standard deviation of the log errors.
        trend_scale: `(2,)` mean and standard deviation of the trend.
    """

    space: SearchSpace
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
        """Fit on evaluated archs.

        Args:
            space: The search space.
            rows: `(n_archs, n_slots)` choice indices, at least `LEAST_ARCHS` distinct ones. Accuracies of the same
                arch are averaged; of more than `MOST_ARCHS` archs a random part is used.
            top1: `(n_archs,)` fractions.
            n_images: Images behind each accuracy, the same for all archs; None where unknown.
            rng: Draws the folds of the cross-validation.

        Raises:
            InvalidArchError: A row lies outside the space.
            InvalidConfigError: Too few archs, an accuracy that is no fraction, or no images.
        """
        inputs = ArchInputs(space)
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

        log_errors = np.log(np.maximum(1 - top1, _LEAST_ERROR))
        scale = mean_and_deviation(log_errors)
        targets = standardise(log_errors, scale)
        trend_scale = mean_and_deviation(inputs.trend(rows))
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
        report = report_on(predicted, (low, high), top1)
        quality = PredictorQuality(
            n_archs=report.n,
            rmse_pp=report.rmse_pp,
            kendall_tau=report.kendall_tau,
            bias_pp=report.bias_pp,
            coverage_90=report.coverage_90,
            width_90_pp=report.width_90_pp,
            n_images=n_images,
        )
        return cls(space, quality, hyper, rows, inverse @ targets, residuals, scale, trend_scale)

    @property
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
        if path.is_dir() or not path.parent.is_dir():
            raise InvalidConfigError(f"'{path}' cannot be written: name a file in a folder that exists.")
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _SHAPES}
        content = {
            "format": FORMAT,
            "space": self.space.name,
            "space_fingerprint": self.space.fingerprint,
            "quality": self.quality.to_dict(),
            "hyper": asdict(self.hyper),
        }
        partial = path.with_name(path.name + ".partial")
        # NOTE: safetensors writes several keys in random order; one key keeps equal predictors equal files.
        save_file(arrays, partial, metadata={_KEY: json.dumps(content, sort_keys=True)})
        partial.replace(path)

    # ------------------------------------------------------------------ private

    @cached_property
    def _process(self) -> ArchProcess:
        return ArchProcess(ArchInputs(self.space), self.hyper, self.rows, self.weights, self.trend_scale)

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        known = np.zeros(len(self.space.slots[0].choices), bool)
        known[self.rows[:, 0]] = True
        return known

    def _checked(self, rows: Rows) -> Rows:
        rows = self._process.inputs.check(np.asarray(rows))
        known = self._known[rows[:, 0]]
        if not known.all():
            resolution = int(self.space.slots[0].choices[rows[~known][0, 0]])
            raise InvalidArchError(
                f"This predictor never saw resolution {resolution}; it knows {list(self.resolutions)}. "
                "Search among these, or fit it on archs of the others too."
            )
        return rows


def describe_accuracy(predictor: AccuracyPredictor, arch: Arch) -> dict[str, float] | None:
    """`{predicted, low, high, level}` of one arch as answers and manifests give it, fractions.

    The interval holds for the accuracy seen on a test set of `TEST_IMAGES` images: the predictor's own, widened by the
    sampling error of such a set. None where the predictor does not know the resolution.
    """
    if arch.resolution not in predictor.resolutions:
        return None
    rows = predictor.space.to_rows([arch])
    low, high = predictor.interval(rows, INTERVAL_LEVEL, extra_images=TEST_IMAGES)
    return {
        "predicted": float(predictor.predict(rows)[0]),
        "low": float(low[0]),
        "high": float(high[0]),
        "level": INTERVAL_LEVEL,
    }


def space_name_of(path: Path) -> str:
    """Name of the search space a predictor file was fitted for; `load_predictor` checks the rest.

    Raises:
        InvalidBundleError: As `load_predictor`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            name = header["space"]
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InvalidBundleError(f"'{path}' is no Tailor predictor: {error}. Fit one first.") from error
    if not isinstance(name, str):
        raise InvalidBundleError(f"'{path}' is damaged: 'space' is a name, got {reprlib.repr(name)}. Fit one first.")
    return name


def load_predictor(path: Path, space: SearchSpace) -> AccuracyPredictor:
    """Read what `AccuracyPredictor.save` wrote.

    Raises:
        InvalidBundleError: The file is absent, truncated, inconsistent or of another format.
        FingerprintMismatchError: It was fitted for another search space, or the same one with other classes.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY, "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError, TypeError) as error:
        raise InvalidBundleError(f"'{path}' cannot be read as safetensors: {error}. Is the file complete?") from error
    try:
        content = json.loads(text)
        found_format, found = content.get("format"), str(content.get("space_fingerprint"))
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidBundleError(f"'{path}' is damaged: {error}. Fit the predictor again.") from error
    if found_format != FORMAT:
        raise InvalidBundleError(
            f"'{path}' is no Tailor predictor: format {reprlib.repr(found_format)}, not '{FORMAT}'. "
            "Fit one with `tailor predictor fit`."
        )
    if found != space.fingerprint:
        raise FingerprintMismatchError(
            f"'{path}' was fitted for the space {reprlib.repr(content.get('space'))} ({found[:12]}), not for "
            f"'{space.name}' "
            f"({space.fingerprint[:12]}). Load it with the space of its own bundle.",
            expected=space.fingerprint,
            found=found,
        )
    try:
        quality = PredictorQuality(**content["quality"])
        _check_range("n_archs", quality.n_archs, 1, inf, whole=True)
        if quality.n_images is not None:
            _check_range("n_images", quality.n_images, 1, inf, whole=True)
        for name in ("rmse_pp", "kendall_tau", "bias_pp", "coverage_90", "width_90_pp"):
            _check_range(name, getattr(quality, name), -_LARGEST, _LARGEST)
        hyper = Hyperparameters(**content["hyper"])
        for name, (least, most) in BOUNDS.items():
            # Beyond a fit's own bounds, but not so far that single precision gives way. A missing one has no default.
            _check_range(name, content["hyper"][name], least / _SLACK, most * _SLACK)
        return AccuracyPredictor(space, quality, hyper, **_validated(arrays, space))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidBundleError(f"'{path}' is damaged: {error}. Fit the predictor again.") from error


def _validated(arrays: dict[str, NDArray[Any]], space: SearchSpace) -> dict[str, NDArray[Any]]:
    """The arrays of a file after a check that they fit each other and the space; raises `ValueError`."""
    if set(arrays) != set(_SHAPES):
        raise ValueError(f"it holds the arrays {sorted(arrays)}, not {sorted(_SHAPES)}")
    n_archs = len(arrays["rows"])
    for name, shape in _SHAPES.items():
        expected = tuple({"archs": n_archs, "slots": len(space.slots)}.get(str(size), size) for size in shape)
        if arrays[name].shape != expected or not n_archs:
            raise ValueError(f"'{name}' has the shape {arrays[name].shape}, not {expected}")
        if name != "rows" and not (arrays[name].dtype == np.float64 and np.isfinite(arrays[name]).all()):
            raise ValueError(f"'{name}' holds numbers that are not finite float64")
        if name != "rows" and np.abs(arrays[name]).max() > _LARGEST:
            raise ValueError(f"'{name}' holds numbers beyond {_LARGEST:g}")
    for name in ("scale", "trend_scale"):
        _check_range(f"the deviation of '{name}'", float(arrays[name][1]), 1 / _LARGEST, _LARGEST)
    if arrays["residuals"][0] < 0 or (np.diff(arrays["residuals"]) < 0).any():
        raise ValueError("'residuals' are not from 0 and ascending")
    ArchInputs(space).check(arrays["rows"])
    return arrays


def _check_range(name: str, value: Any, least: float, most: float, *, whole: bool = False) -> None:
    """Raise `ValueError` for what is no number in the range."""
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        wanted = f"a {'whole ' if whole else ''}number from {least:g}" + (f" to {most:g}" if most < inf else "")
        raise ValueError(f"'{name}' must be {wanted}, got {reprlib.repr(value)}")


_SHAPES: dict[str, tuple[str | int, ...]] = {
    "rows": ("archs", "slots"),
    "weights": ("archs",),
    "residuals": ("archs",),
    "scale": (2,),
    "trend_scale": (2,),
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
