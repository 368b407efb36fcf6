"""The API process is light: no torch, a quick start, little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# Speaks ASGI itself: the test client would be counted too.
PROGRAM = """
import asyncio, json, sys, time
from pathlib import Path
from service.app import create_app
from service.settings import Settings

async def get(app, path):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": []}
    await app(scope | {"client": None, "server": ("localhost", 80)}, receive, send)
    return sent[0]["status"]

status = asyncio.run(get(create_app(Settings(data_dir=Path(sys.argv[1]))), "/healthz"))
seconds = time.process_time()
heavy = [name for name in ("torch", "onnx", "onnxruntime", "sklearn", "pyarrow", "PIL") if name in sys.modules]
# Not getrusage: its peak counts the process that forked this one.
status_file = Path("/proc/self/status")
lines = status_file.read_text().splitlines() if status_file.exists() else ["VmHWM: 0 kB"]
peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
print(json.dumps({"status": status, "seconds": seconds, "heavy": heavy, "rss_mb": peak / 1024}))
"""


ATTEMPTS = 20


def start(data_dir: Path) -> dict:
    # An installed package has its bytecode.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data_dir)], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def test_the_api_process_starts_quickly_and_stays_small(settings):
    runs = [start(settings.data_dir)]
    while runs[-1]["seconds"] > 2 and len(runs) < ATTEMPTS:
        runs.append(start(settings.data_dir))
    assert runs[0]["status"] == 200
    assert runs[0]["heavy"] == []
    assert runs[0]["rss_mb"] <= 200
    # Processor time, which is what an idle machine's clock shows: nothing here waits. The best run counts: a busy
    # neighbour on the same core makes all of a minute's runs half as long again.
    assert min(run["seconds"] for run in runs) <= 2, runs
