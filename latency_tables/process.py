"""MeasureProcess: a fresh, pinned process that times models, seen from the process that wants the numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from latency_tables.errors import MeasurementError

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_S = 600.0


class MeasureProcess:
    """Context manager around `latency_tables.measure_child`; leaving it ends the process.

    Args:
        setup: See `measure_child.Bench`.
        timeout_s: Longest time one answer may take.

    Attributes:
        cpus: CPUs the process is bound to.

    Raises:
        MeasurementError: On entering or asking: the process refuses, dies or takes too long; with its last words.
    """

    def __init__(self, setup: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> None:
        self.setup = setup
        self.timeout_s = timeout_s
        self.cpus: list[int] = []

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # a pipe nobody reads would block the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "latency_tables.measure_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            cwd=Path(__file__).parents[1],  # importable wherever the caller stands
        )
        try:
            self.cpus = self.ask(self.setup)["cpus"]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise MeasurementError("The measuring process has no pipes.")
        watchdog = threading.Timer(self.timeout_s, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            raise MeasurementError(f"The measuring process ended (code {process.wait()}): {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasurementError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self._process.wait()
        self._stderr.close()

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return lines[-1] if lines else f"no message; an answer may take {self.timeout_s:g} s"
