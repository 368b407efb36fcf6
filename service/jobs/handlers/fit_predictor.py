"""The child's side of a `fit_predictor` job: evaluated archs to a bundle with a new predictor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.jobs.states import PredictorPayload
from supernet.bundle import PARTS, open_bundle, write_manifest
from supernet.evaluation.population import load_population
from supernet.predictors.accuracy import AccuracyPredictor

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the folds of cross-validation: the same populations give the same bundle, attempt after attempt.
_SEED = 0


def run(payload: dict[str, Any], out_dir: Path, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Fit a predictor and write the bundle that has it into `out_dir`, its other parts unchanged.

    Returns:
        The predictor's quality.

    Raises:
        InvalidConfigError: Too few distinct archs.
        SupernetError: Whatever else reading bundle and populations raises.
    """
    order = PredictorPayload.model_validate(payload)
    report(0.0, "load")
    bundle = open_bundle(order.bundle_uri.partition(":")[2])
    population = [entry for path in order.populations for entry in load_population(Path(path), bundle.space)]
    report(0.1, "fit")
    predictor = AccuracyPredictor.fit(
        bundle.space,
        bundle.space.to_rows([entry.arch for entry in population]),
        np.array([entry.result.top1 for entry in population]),
        n_images=population[0].result.total,
        rng=np.random.default_rng(_SEED),
    )
    report(0.8, "write")
    out_dir.mkdir()
    for part in bundle.manifest.parts:
        if part != "predictor":
            shutil.copyfile(bundle.path / PARTS[part], out_dir / PARTS[part])
    predictor.save(out_dir / PARTS["predictor"])
    manifest = bundle.manifest
    write_manifest(
        out_dir,
        name=manifest.name,
        space=manifest.space,
        classes=manifest.classes,
        normalisation=(manifest.mean, manifest.std),
        training=manifest.training,
        versions=manifest.versions,
    )
    return predictor.quality.to_dict()
