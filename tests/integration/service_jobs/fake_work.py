"""What the child does in these tests. Run as a program it is a worker.

The script is `arch` in the payload of an export; of a population it is the name of the images, steps joined by dots.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

CHILD_PIDS = "child_pids"
STARTS = "starts"


def run(payload, out_dir, report):
    folder = out_dir.parents[3]
    job = payload.get("deployment_id") or Path(payload["images"]).name
    steps = payload["arch"]["steps"] if "arch" in payload else job.split(".")
    for name, line in ((STARTS, job), (CHILD_PIDS, str(os.getpid()))):
        with (folder / name).open("a") as file:
            file.write(f"{line}\n")
    starts = (folder / STARTS).read_text().split().count(job)
    if "images" in payload:  # on disk before the attempt ends, as every evaluated arch is
        with Path(payload["file"]).open("a") as file:
            file.write(f"{starts};")
    print("libraries print to stdout")
    report(0.25, "started")
    step = steps[min(starts, len(steps)) - 1]
    out_dir.mkdir()
    (out_dir / "model.onnx").write_bytes(b"half")
    if step == "hang_with_helper":
        with (folder / CHILD_PIDS).open("a") as file:
            file.write(f"{subprocess.Popen(['sleep', '60']).pid}\n")
    if step.startswith("hang"):
        report(0.5, "hanging")
        time.sleep(60)
    if step == "exit":
        os._exit(7)
    if step == "disk_full":
        Path("/dev/full").write_bytes(b"model")
    if step == "wait":
        report(0.5, "waiting")
        while not (folder / "go").exists():
            time.sleep(0.02)
        report(0.75, "going")
    if step == "infeasible":
        from supernet.errors import InvalidArchError

        raise InvalidArchError("Depth 9 is not on offer.")
    if step == "read_bundle":
        from supernet.bundle import open_bundle

        place, _, bundle = payload["bundle_uri"].partition(":")
        return {"place": place, "weights": open_bundle(bundle).weights_path.read_text()}
    if step == "unknown":
        raise ZeroDivisionError("secret detail")
    if step == "flood":
        for n in range(2000):
            report(n / 2000, "flood")
    if "images" in payload:
        (out_dir / "model.onnx").rename(out_dir / "population.csv")
        (out_dir / "population.csv").write_text(f"niceness {os.nice(0)}, starts {Path(payload['file']).read_text()}")
        return {"archs": 20, "images": 10, "mean_top1": 0.5, "best_top1": 0.75, "sha256": "0" * 64}
    (out_dir / "model.onnx").write_bytes(f"model of start {starts}".encode())
    (out_dir / "manifest.json").write_text("{}")
    return {"start": starts}


def main() -> None:
    from service.jobs.handlers.registry import HANDLERS
    from service.jobs.states import JobKind
    from service.jobs.worker import run_worker
    from service.logs import configure_logging
    from service.settings import Settings

    configure_logging()
    settings = Settings.model_validate_json(sys.argv[1])
    run_worker(settings, handlers={kind: replace(HANDLERS[kind], target="fake_work:run") for kind in JobKind})


if __name__ == "__main__":
    main()
