"""Turns: one at a time, others wait a little, and not all of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import BusyError
from service.turns import Turns


def try_once(turns: Turns) -> float | None:
    """Seconds until it was refused; None where the turn came."""
    started = time.perf_counter()
    try:
        with turns.take():
            return None
    except BusyError:
        return time.perf_counter() - started


def test_who_waits_gets_the_turn_when_it_is_free() -> None:
    turns = Turns(wait_s=10)
    with ThreadPoolExecutor(1) as pool:
        with turns.take():
            waiting = pool.submit(try_once, turns)
            time.sleep(0.05)
            assert not waiting.done()
        assert waiting.result() is None
    with turns.take():
        pass


def test_who_waits_too_long_is_refused() -> None:
    turns = Turns(wait_s=0.1)
    with turns.take():
        refused = try_once(turns)
    assert refused is not None
    assert refused >= 0.1
    assert try_once(turns) is None, "the turn is free again"


def test_those_for_whom_there_is_no_place_to_wait_are_refused_at_once() -> None:
    turns = Turns(wait_s=1.0, most_waiting=2)
    with ThreadPoolExecutor(8) as pool, turns.take():
        seconds = list(pool.map(try_once, [turns] * 8))
    assert None not in seconds
    assert sorted(second >= 1 for second in seconds if second is not None) == [False] * 6 + [True] * 2


def test_an_error_gives_the_turn_back() -> None:
    turns = Turns(wait_s=0.1)
    with pytest.raises(ZeroDivisionError), turns.take():
        _ = 1 / 0
    assert try_once(turns) is None
