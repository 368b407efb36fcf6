from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from supernet.predictors.gaussian_process import (
    Distances,
    Hyperparameters,
    choose_hyperparameters,
    inverse_of,
    left_out,
    squared_distances,
)
from supernet.spaces.costs import Values


def distances_of(points: Values, trend: Values) -> Distances:
    return Distances(squared_distances(points), squared_distances(points[:, :1]), np.outer(trend, trend))


@pytest.fixture
def distances(rng: np.random.Generator) -> Distances:
    return distances_of(rng.random((40, 3)), rng.normal(size=40))


def log_likelihood(distances: Distances, hyper: Hyperparameters, targets: Values) -> float:
    covariance = distances.covariance(hyper) + hyper.noise * np.eye(len(targets))
    fit = targets @ np.linalg.solve(covariance, targets) + np.linalg.slogdet(covariance)[1]
    return float(-0.5 * (fit + len(targets) * np.log(2 * np.pi)))


def test_the_likelihood_and_its_gradient_are_right(distances: Distances, rng: np.random.Generator) -> None:
    hyper, targets = Hyperparameters(0.8, 1.1, 0.7, 0.3, 0.2), rng.normal(size=40)
    step = 1e-5
    expected = [
        (
            log_likelihood(distances, replace(hyper, **{name: value * np.exp(step)}), targets)
            - log_likelihood(distances, replace(hyper, **{name: value * np.exp(-step)}), targets)
        )
        / (2 * step)
        for name, value in asdict(hyper).items()
    ]
    value, gradient = distances.log_likelihood(hyper, targets)
    assert value == pytest.approx(log_likelihood(distances, hyper, targets))
    assert gradient == pytest.approx(expected, rel=1e-5)


def test_the_chosen_hyperparameters_are_as_likely_as_the_true_ones(rng: np.random.Generator) -> None:
    distances = distances_of(rng.random((150, 3)) * 4, rng.normal(size=150))
    true = Hyperparameters(1.0, 1.5, 400.0, 0.3, 0.05)
    covariance = distances.covariance(true) + true.noise * np.eye(150)
    targets = np.linalg.cholesky(covariance) @ rng.normal(size=150)
    chosen = choose_hyperparameters(distances, targets)
    assert log_likelihood(distances, chosen, targets) >= log_likelihood(distances, true, targets)


def test_left_out_says_what_a_fit_without_the_fold_says(distances: Distances, rng: np.random.Generator) -> None:
    hyper, targets = Hyperparameters(0.8, 1.1, 0.7, 0.3, 0.2), rng.normal(size=40)
    covariance = distances.covariance(hyper)
    folds = np.array_split(rng.permutation(40), 4)
    mean, deviation = left_out(inverse_of(covariance, hyper.noise), targets, folds)
    for fold in folds:
        rest = np.setdiff1d(np.arange(40), fold)
        inverse = inverse_of(covariance[np.ix_(rest, rest)], hyper.noise)
        across = covariance[np.ix_(fold, rest)]
        assert mean[fold] == pytest.approx(across @ inverse @ targets[rest])
        variance = np.diag(covariance)[fold] + hyper.noise - np.diag(across @ inverse @ across.T)
        assert deviation[fold] ** 2 == pytest.approx(variance)
