"""The child's side of a `trace_front` job: a supernet's predictor and a device's table to the front of both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency_tables.estimator import LatencyEstimator
from latency_tables.table import load_table
from service.jobs.handlers.ordered_bundle import open_ordered
from service.jobs.states import FrontOrder
from service.questions import Question, Target, build_problem
from supernet.predictors.loading import load_predictor
from supernet.search.front import trace_front
from supernet.search.problem import Objective

if TYPE_CHECKING:
    from collections.abc import Callable


def run(payload: dict[str, Any], out_dir: Path, report: Callable[[float, str], None]) -> dict[str, Any]:  # noqa: ARG001
    """Trace the front of predicted accuracy over estimated latency, at all resolutions that are known.

    Returns:
        `{rows, accuracies}`: choice indices of every arch and how accurate it is. What it takes is the table's to say.

    Raises:
        ConflictError: `bundle_changed` or `no_common_resolution`.
        SupernetError: Whatever else reading the bundle raises.
    """
    order = FrontOrder.model_validate(payload)
    report(0.0, "load")
    bundle = open_ordered(order)
    predictor = load_predictor(bundle.predictor_path, bundle.space)
    target = Target(order.device_id, LatencyEstimator(load_table(order.table_file), bundle.space))
    problem = build_problem(predictor, [target], Question())
    front = trace_front(
        problem,
        Objective("latency_ms", target.estimator.cost),
        evaluations=order.evaluations,
        on_progress=lambda share: report(share, "trace"),
    )
    return {
        "rows": front.rows.tolist(),
        "accuracies": front.accuracies.tolist(),
    }
