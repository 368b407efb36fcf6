"""What searches, predicts and serves must not load torch or onnx, directly or not: seconds and hundreds of MB."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

# Packages are tested with every module inside them; names that do not exist are an error of this list.
LIGHT = [
    "supernet",
    "supernet.errors",
    "supernet.bundle",
    "supernet.spaces.*",
    "supernet.predictors.*",
    "supernet.search.*",
    "supernet.pools.storage",
    "latency_tables",
    "latency_tables.table",
    "latency_tables.estimator",
    "latency_tables.device",
    "service.jobs.queue",
    "service.jobs.states",
    "service.app",
]

PROBE = """
import json, sys
from importlib import import_module
found = {}
for name in json.loads(sys.argv[1]):
    import_module(name)
    found[name] = [heavy for heavy in ("torch", "onnx", "onnxruntime") if heavy in sys.modules]
print(json.dumps(found))
"""


def modules_of(name: str) -> list[str]:
    package = name.removesuffix(".*")
    spec = find_spec(package)
    assert spec is not None, f"'{package}' does not exist"
    if package == name:
        return [name]
    return [package, *(module.name for module in pkgutil.walk_packages(spec.submodule_search_locations, f"{package}."))]


@pytest.mark.parametrize("name", LIGHT)
def test_light_packages_load_no_heavy_library(name: str) -> None:
    command = [sys.executable, "-c", PROBE, json.dumps(modules_of(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    loaded = {module: heavy for module, heavy in json.loads(done.stdout).items() if heavy}
    assert not loaded
