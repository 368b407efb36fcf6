"""The child's side of a `fit_predictor` job: evaluated archs to a bundle with a new predictor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.jobs.handlers.ordered_bundle import open_ordered
from service.jobs.states import PredictorPayload
from supernet.bundle import PARTS, write_manifest
from supernet.evaluation.population import load_population
from supernet.predictors.fitting import fit_predictor

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the folds of cross-validation: the same populations give the same bundle, attempt after attempt.
_SEED = 0


def run(payload: dict[str, Any], out_dir: Path, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Fit a predictor and write the bundle that has it into `out_dir`, its other parts unchanged.

    Returns:
        Nothing: the bundle says it all.

    Raises:
        ConflictError: `bundle_changed`.
        InvalidConfigError: Too few distinct archs.
        SupernetError: Whatever else reading bundle and populations raises.
    """
    order = PredictorPayload.model_validate(payload)
    report(0.0, "load")
    bundle = open_ordered(order)
    space = bundle.space
    # An arch has the same accuracy in all of them: they share weights and images.
    results = {
        entry.arch: entry.result for path in order.populations.values() for entry in load_population(Path(path), space)
    }
    report(0.1, "fit")
    rows, top1 = space.to_rows(list(results)), np.array([result.top1 for result in results.values()])
    n_images = next(iter(results.values())).total
    predictor = fit_predictor(space, rows, top1, n_images=n_images, rng=np.random.default_rng(_SEED))
    report(0.8, "write")
    out_dir.mkdir()
    for part in bundle.manifest.parts:
        if part != "predictor":
            shutil.copyfile(bundle.path / PARTS[part], out_dir / PARTS[part])
    predictor.save(out_dir / PARTS["predictor"])
    manifest = bundle.manifest
    write_manifest(
        out_dir,
        name=manifest.name if order.target_id == order.supernet_id else order.target_id,
        space=space,
        classes=manifest.classes,
        normalisation=(manifest.mean, manifest.std),
        training=manifest.training
        | {"predictor": {"archs": len(results), "images": n_images, "populations": list(order.populations)}},
        versions=manifest.versions,
    )
    return {}
