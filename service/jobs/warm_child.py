"""The worker's handle on its child process: starts it, talks to it, and kills it when it must stop.

A child is kept for many jobs (importing torch takes 1.6 s, the first export 3 s more than the next) and replaced after
a crash, a stop or a time-out, and by age, since long-lived numerical processes grow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_JOBS = 100
"""Jobs after which a child is replaced."""


class OutcomeKind(StrEnum):
    """How a request to the child ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # it answered with an error
    CRASHED = "crashed"  # it ended without an answer
    STOPPED = "stopped"  # `should_stop` said so
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class ChildOutcome:
    """What came of a request.

    Attributes:
        result: Of a success.
        error: `{code, message}` of a failure.
        detail: Of a crash, as a sentence.
    """

    kind: OutcomeKind
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    detail: str = ""


class WarmChild:
    """One child process at a time. Not for several threads at once.

    Args:
        preload: Modules the child imports before its first request.
        niceness: How far it stands back behind other processes, 0 to 19.
        max_jobs: Requests after which it is replaced.
    """

    def __init__(self, preload: Sequence[str], *, niceness: int = 0, max_jobs: int = MAX_JOBS) -> None:
        self._preload = list(preload)
        self._niceness = niceness
        self._max_jobs = max_jobs
        self._process: subprocess.Popen[str] | None = None
        self._answers: SimpleQueue[str | None] = SimpleQueue()
        self._jobs = 0
        # The kernel ties the child to the thread that forked it, so that thread has to stay.
        self._forker = ThreadPoolExecutor(1, thread_name_prefix="forker")

    def prepare(self) -> None:
        """Start a child if none is there, so that the next request finds it warm."""
        if self._process is not None and (self._process.poll() is not None or self._jobs >= self._max_jobs):
            self._discard()
        if self._process is None:
            self._process = self._forker.submit(self._spawn).result()

    def run(
        self,
        request: dict[str, Any],
        *,
        on_progress: Callable[[float, str], None],
        should_stop: Callable[[], bool],
        poll_s: float,
        timeout_s: float,
    ) -> ChildOutcome:
        """Have the child do one thing and wait for it.

        Args:
            request: As in `service.jobs.child`.
            on_progress: Called with the share done and the stage.
            should_stop: Asked every `poll_s` seconds; True kills the child.
            poll_s: Seconds between two looks.
            timeout_s: Seconds after which the child is killed.

        Returns:
            What came of it. After everything but an answer the child and whatever it started are dead.
        """
        self.prepare()
        self._jobs += 1
        try:
            outcome = self._converse(request, on_progress, should_stop, poll_s=poll_s, timeout_s=timeout_s)
        except BaseException:
            self._discard()  # it may still be working on this request
            raise
        if outcome.kind not in (OutcomeKind.SUCCEEDED, OutcomeKind.FAILED):
            self._discard()
        return outcome

    def end(self) -> None:
        """Kill the child, if any; the next request starts another."""
        self._discard()

    def close(self) -> None:
        """Kill the child, if any, for good."""
        self._discard()
        self._forker.shutdown()

    def _converse(
        self,
        request: dict[str, Any],
        on_progress: Callable[[float, str], None],
        should_stop: Callable[[], bool],
        *,
        poll_s: float,
        timeout_s: float,
    ) -> ChildOutcome:
        now = time.monotonic()
        deadline, next_look = now + timeout_s, now
        if not self._send(request):
            return self._crash()
        while True:
            now = time.monotonic()
            if now >= deadline:
                return ChildOutcome(OutcomeKind.TIMED_OUT)
            if now >= next_look:
                if should_stop():
                    return ChildOutcome(OutcomeKind.STOPPED)
                next_look = now + poll_s
            try:
                line = self._answers.get(timeout=max(0.0, min(next_look, deadline) - now))
            except Empty:
                continue
            if line is None:
                return self._crash()
            answer = json.loads(line)
            if "result" in answer:
                return ChildOutcome(OutcomeKind.SUCCEEDED, result=answer["result"])
            if "error" in answer:
                return ChildOutcome(OutcomeKind.FAILED, error=answer["error"])
            on_progress(float(answer["share"]), str(answer["stage"]))

    def _send(self, request: dict[str, Any]) -> bool:
        process = self._process
        if process is None or process.stdin is None:
            return False
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def _crash(self) -> ChildOutcome:
        code = self._discard()
        if code < 0:
            detail = f"its process was ended by {signal.Signals(-code).name}."
        else:
            detail = f"its process ended with exit code {code}."
        return ChildOutcome(OutcomeKind.CRASHED, detail=detail)

    def _spawn(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.jobs.child", str(os.getpid()), str(self._niceness), *self._preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,  # one group to kill, and no Ctrl-C from the terminal
        )
        self._jobs = 0
        self._answers = SimpleQueue()
        threading.Thread(target=_read_answers, args=(process, self._answers), daemon=True).start()
        return process

    def _discard(self) -> int:
        """Kill the child with everything it started, and return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        # Not waited for until now, so the id is still the child's even if it has ended.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        return process.wait()


def _read_answers(process: subprocess.Popen[str], answers: SimpleQueue[str | None]) -> None:
    if process.stdout is not None:
        with process.stdout:
            for line in process.stdout:
                answers.put(line)
    answers.put(None)
