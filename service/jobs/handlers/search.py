"""The child's side of a `search` job: one that looks at too many archs to be answered at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_tables.estimator import LatencyEstimator
from latency_tables.table import load_table
from service.answers import find_best
from service.jobs.handlers.ordered_bundle import open_ordered
from service.jobs.states import SearchOrder
from service.questions import Question, Target
from supernet.predictors.loading import load_predictor

if TYPE_CHECKING:
    from collections.abc import Callable


def run(payload: dict[str, Any], out_dir: Path, report: Callable[[float, str], None]) -> dict[str, Any]:  # noqa: ARG001
    """Search.

    Returns:
        What `find_best` says of the arch it found.

    Raises:
        ConflictError: `bundle_changed`, or as `find_best`.
        InfeasibleBudgetError: Nothing meets the constraints.
        SupernetError: Whatever else reading the bundle raises.
    """
    order = SearchOrder.model_validate(payload)
    report(0.0, "load")
    bundle = open_ordered(order)
    predictor = load_predictor(bundle.predictor_path, bundle.space)
    targets = [
        Target(target.device_id, LatencyEstimator(load_table(file), bundle.space), target.budget)
        for target, file in zip(order.targets, order.table_files, strict=True)
    ]
    report(0.1, "search")
    start = None if order.start is None else np.array(order.start, np.int16)
    return find_best(predictor, targets, Question(**order.question), start=start)[1]
