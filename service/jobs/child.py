"""The worker's child process: does the heavy work of one job after the other, so that imports are paid once.

`python -m service.jobs.child PARENT_PID NICENESS MODULE…`; a request is a line of JSON on stdin:
`{job_id, attempt, target, payload, out_dir}`. Answers are lines on stdout: any number of `{share, stage}`, then
`{result}` or `{error: {code, message}}`. It knows neither the database nor the queue.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from service.errors import full_disk_error, status_and_code
from service.jobs.parent_death import die_with_parent
from service.logs import configure_logging, log_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[dict[str, Any]], None]

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve requests until stdin closes."""
    die_with_parent(int(sys.argv[1]))
    os.nice(int(sys.argv[2]))
    answer = _claim_stdout()
    configure_logging()
    requests: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    for module in sys.argv[3:]:
        _preload(module)
    while True:
        request = json.loads(requests.get())
        with log_fields(job_id=request["job_id"], attempt=request["attempt"]):
            answer(run_request(request, answer))


def run_request(request: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Call what the request names, and turn whatever comes of it into the last answer."""

    def report(share: float, stage: str) -> None:
        answer({"share": share, "stage": stage})

    module, _, function = request["target"].partition(":")
    try:
        run = getattr(importlib.import_module(module), function)
        last = {"result": run(request["payload"], Path(request["out_dir"]), report)}
        json.dumps(last)  # a result that is no JSON is the job's fault, not the protocol's
        return last
    except ModuleNotFoundError as error:
        _log.exception("a package is missing")
        message = f"The worker lacks the package '{error.name}'. Install tailor-nas[export,train] where it runs."
        return {"error": {"code": "missing_package", "message": message}}
    except Exception as raised:  # noqa: BLE001 - the boundary of the job: every error becomes its outcome
        known = (full_disk_error(raised) if isinstance(raised, OSError) else None) or raised
        code = status_and_code(known)[1]
        if code != "internal_error":
            return {"error": {"code": code, "message": str(known)}}
        _log.exception("the job failed for an unknown reason")
        message = f"Unexpected {type(raised).__name__}; the worker's log has the details under job {request['job_id']}."
        return {"error": {"code": code, "message": message}}


def _claim_stdout() -> Answer:
    """Keep stdout for answers; what libraries print goes to stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def answer(message: dict[str, Any]) -> None:
        with lock:
            stream.write(json.dumps(message) + "\n")
            stream.flush()

    return answer


def _read_requests(requests: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    # The worker is gone or wants no more, whatever the main thread is doing.
    os._exit(0)


def _preload(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        # A worker without the extra still starts; jobs that need it say so.
        _log.warning("cannot import %s: %s", module, error)


if __name__ == "__main__":
    main()
