"""Turns: one search computes at a time, so that many callers do not make each other's answers slow."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from service.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 2.0


class Turns:
    """Who computes, in one process.

    Args:
        wait_s: Longest wait for a turn, seconds.
    """

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._lock = Lock()
        self._wait_s = wait_s

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold the turn; wait for it first.

        Raises:
            BusyError: Others held it for too long.
        """
        if not self._lock.acquire(timeout=self._wait_s):
            raise BusyError(
                f"Other searches are under way and took more than {self._wait_s:g} s. Ask again in a moment; a search "
                "whose front is known (GET /v1/devices/{id}/front) never waits."
            )
        try:
            yield
        finally:
            self._lock.release()
