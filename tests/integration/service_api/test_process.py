"""The API process is light: no torch, a quick start, little memory."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys, time
started = time.perf_counter()
from pathlib import Path
from service.app import create_app
from service.settings import Settings
app = create_app(Settings(data_dir=Path(sys.argv[1])))
ready = time.perf_counter() - started
from fastapi.testclient import TestClient
with TestClient(app) as client:
    asked = time.perf_counter()
    status = client.get("/healthz").status_code
    answered = time.perf_counter() - asked
heavy = [name for name in ("torch", "onnx", "onnxruntime", "sklearn", "pyarrow", "PIL") if name in sys.modules]
# Not getrusage: its peak counts the process that forked this one.
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print(json.dumps({"status": status, "seconds": ready + answered, "heavy": heavy, "rss_mb": peak / 1024}))
"""


def start(data_dir) -> dict:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(data_dir)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_api_process_starts_quickly_and_stays_small(settings):
    runs = [start(settings.data_dir)]
    while runs[-1]["seconds"] > 2 and len(runs) < 3:
        runs.append(start(settings.data_dir))
    assert runs[0]["status"] == 200
    assert runs[0]["heavy"] == []
    assert runs[0]["rss_mb"] <= 200
    # The machine is shared: the best of three counts.
    assert min(run["seconds"] for run in runs) <= 2, runs
