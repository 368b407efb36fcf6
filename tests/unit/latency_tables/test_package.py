from __future__ import annotations

import subprocess
import sys

import latency_tables
from latency_tables import errors
from latency_tables.errors import LatencyError


def test_every_public_name_can_be_had() -> None:
    assert [name for name in latency_tables.__all__ if not hasattr(latency_tables, name)] == []
    assert not hasattr(latency_tables, "absent")


def test_reading_and_estimating_load_no_runtime() -> None:
    code = (
        "import sys, latency_tables, latency_tables.check, latency_tables.estimator, latency_tables.measure\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LatencyError)]
    assert len(classes) == 7
    assert all(value.__name__ in (errors.__doc__ or "") for value in classes)
