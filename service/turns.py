"""Turns: one search computes at a time, so that many callers do not make each other's answers slow."""

from __future__ import annotations

from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING

from service.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 2.0
# Waiting takes one of the threads that answer requests, of which there are 40.
MOST_WAITING = 16


class Turns:
    """Who computes, in one process.

    Args:
        wait_s: Longest wait for a turn, seconds.
        most_waiting: How many wait at once.
    """

    def __init__(self, wait_s: float = WAIT_S, *, most_waiting: int = MOST_WAITING) -> None:
        self._lock = Lock()
        self._wait_s = wait_s
        self._places = BoundedSemaphore(most_waiting)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold the turn; wait for it first.

        Raises:
            BusyError: Others held it for too long, or as many as may are waiting already.
        """
        if not self._lock.acquire(blocking=False) and not self._wait():
            raise BusyError(
                f"Other searches are under way and take more than {self._wait_s:g} s. Ask again in a moment; a search "
                "whose front is known (GET /v1/devices/{id}/front) does not wait for them."
            )
        try:
            yield
        finally:
            self._lock.release()

    def _wait(self) -> bool:
        """Whether the turn came; not waited for where there is no place to."""
        if not self._places.acquire(blocking=False):
            return False
        try:
            return self._lock.acquire(timeout=self._wait_s)
        finally:
            self._places.release()
