"""A trained supernet to a bundle: weights, anchor statistics, evaluated population, predictor, manifest."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from supernet.bundle import PARTS, Bundle, hash_file, write_manifest
from supernet.data.batches import Normalisation, image_batches
from supernet.errors import InvalidConfigError
from supernet.evaluation.calibration import (
    load_calibration,
    recalibrate_from_anchors,
    record_calibration,
    save_calibration,
)
from supernet.evaluation.population import evaluate_population
from supernet.network.checkpoint import load_weights, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.predictors.accuracy import LEAST_ARCHS, AccuracyPredictor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from supernet.data.splits import Splits
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

RECALIBRATION_IMAGES = 2000
RANDOM_ANCHORS_PER_RESOLUTION = 2


def build_bundle(
    supernet: Supernet,
    splits: Splits,
    run_dir: Path,
    *,
    name: str,
    archs: int,
    seed: int,
    training: dict[str, Any],
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Bundle:
    """Write the bundle of a trained supernet to `run_dir / "bundle"`. A second call resumes the population.

    Args:
        supernet: Trained; from here on its weights are the bundle's, rounded to half precision.
        splits: The validation images judge the population; training images give BN statistics.
        run_dir: Gets the population as CSV beside the bundle.
        name: Of the supernet.
        archs: How many to evaluate for the predictor, largest and smallest included.
        seed: Of the population and the anchors.
        training: What the manifest says of the weights' origin.
        report: Called with how many of how many archs are evaluated.

    Raises:
        InvalidConfigError: Fewer archs than a predictor needs or more than the space has; nothing is written.
    """
    space, out = supernet.space, run_dir / "bundle"
    if archs < LEAST_ARCHS:
        raise InvalidConfigError(f"A predictor needs a population of at least {LEAST_ARCHS} archs, got {archs}.")
    rng = np.random.default_rng(seed)
    recalibration = splits.train.take(rng.permutation(len(splits.train))[:RECALIBRATION_IMAGES])
    anchors, chosen = anchor_archs(space, rng), population_archs(space, rng, archs)

    out.mkdir(parents=True, exist_ok=True)
    save_tensors(out / PARTS["weights"], half_weights(supernet), space)
    load_weights(supernet, out / PARTS["weights"])

    normalisation = Normalisation(*splits.train.normalisation())
    calibration = record_calibration(
        supernet,
        anchors,
        lambda resolution: image_batches(recalibration, normalisation, resolution=resolution),
        normalisation=normalisation,
        noise_seed=seed,
    )
    save_calibration(out / PARTS["calibration"], calibration)
    calibration = load_calibration(out / PARTS["calibration"], space)

    population = evaluate_population(
        supernet,
        chosen,
        # Other weights have other accuracies, so the file carries their hash.
        run_dir / f"population_{hash_file(out / PARTS['weights'])[:12]}.csv",
        # As users get them, so that the predictor's residuals hold what recalibration without real images costs.
        recalibrate=lambda subnet, arch: recalibrate_from_anchors(subnet, arch, calibration),
        images=splits.validation,
        normalisation=normalisation,
        report=report,
    )
    predictor = AccuracyPredictor.fit(
        space,
        space.to_rows([entry.arch for entry in population]),
        np.array([entry.result.top1 for entry in population]),
        n_images=len(splits.validation),
        rng=rng,
    )
    predictor.save(out / PARTS["predictor"])
    return write_manifest(
        out,
        name=name,
        space=space,
        classes=splits.train.classes,
        normalisation=(normalisation.mean, normalisation.std),
        training={**training, "population": archs, "validation_images": len(splits.validation)},
        versions={"tailor": version("tailor-nas"), "torch": str(torch.__version__).split("+")[0]},
    )


def half_weights(supernet: Supernet) -> dict[str, Tensor]:
    """Weights in half precision, which halves the bundle; statistics of normalisation stay as they are."""
    return {
        name: tensor if "running_" in name else tensor.half().contiguous()
        for name, tensor in supernet.state_dict().items()
    }


def anchor_archs(space: SearchSpace, rng: np.random.Generator) -> list[Arch]:
    """At every resolution the largest, the smallest and a few random archs."""
    ends = space.to_rows([space.largest(), space.smallest()])
    drawn = space.sample_rows(rng, RANDOM_ANCHORS_PER_RESOLUTION * len(space.resolutions))
    anchors = []
    for index, part in enumerate(np.split(drawn, len(space.resolutions))):
        rows = np.vstack([ends, part])
        rows[:, 0] = index
        anchors += space.from_rows(rows)
    return anchors


def population_archs(space: SearchSpace, rng: np.random.Generator, n_archs: int) -> list[Arch]:
    """Distinct archs: largest and smallest, then uniform draws."""
    archs = dict.fromkeys([space.largest(), space.smallest()])
    if space.size() < n_archs:
        raise InvalidConfigError(f"Space '{space.name}' has only {space.size()} archs, {n_archs} were asked for.")
    while len(archs) < n_archs:
        archs.update(dict.fromkeys(space.from_rows(space.sample_rows(rng, n_archs))))
    return list(archs)[:n_archs]
