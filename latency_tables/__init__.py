"""A measuring instrument: latencies of blocks on devices, and what they add up to.

device         where something was measured
probe          which machine this is
table          measured blocks
table_csv      their CSV form
json_values    JSON read strictly
check          what a table lacks and what looks wrong in it
calibration    how sums of rows relate to whole networks
estimator      latencies of archs, without the hardware
agreement      estimates against measurements
graphs         ONNX models of blocks
measure        timing ONNX models in this process, and the plan for it
measure_child  the process that measures
process        the same process from outside
visits         from bursts to latencies
selection      which chains and networks of a space to measure
build          blocks and networks of a space to a table
convert        published tables to ours

Importing this package imports neither onnx nor onnxruntime; names that need them load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latency_tables.agreement import AgreementReport, check_agreement
from latency_tables.calibration import Calibration
from latency_tables.check import TableReport, check_table
from latency_tables.device import DeviceProfile
from latency_tables.estimator import LatencyEstimate, LatencyEstimator, recalibrate_table
from latency_tables.probe import matches, this_device
from latency_tables.table import LatencyStats, LatencyTable, load_table, parse_table, save_table

if TYPE_CHECKING:
    from latency_tables.build import measure_model, measure_networks, measure_table
    from latency_tables.convert import import_ofa_tables
    from latency_tables.measure import FULL_PLAN, QUICK_PLAN, MeasurePlan

__all__ = [
    "FULL_PLAN",
    "QUICK_PLAN",
    "AgreementReport",
    "Calibration",
    "DeviceProfile",
    "LatencyEstimate",
    "LatencyEstimator",
    "LatencyStats",
    "LatencyTable",
    "MeasurePlan",
    "TableReport",
    "check_agreement",
    "check_table",
    "import_ofa_tables",
    "load_table",
    "matches",
    "measure_model",
    "measure_networks",
    "measure_table",
    "parse_table",
    "recalibrate_table",
    "save_table",
    "this_device",
]

# By string, so that import contracts see no onnxruntime below this package.
_LAZY = {
    "FULL_PLAN": "latency_tables.measure",
    "QUICK_PLAN": "latency_tables.measure",
    "MeasurePlan": "latency_tables.measure",
    "import_ofa_tables": "latency_tables.convert",
    "measure_model": "latency_tables.build",
    "measure_networks": "latency_tables.build",
    "measure_table": "latency_tables.build",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'latency_tables' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
