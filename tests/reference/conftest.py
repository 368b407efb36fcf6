"""The once-for-all reference code as an oracle, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType

import pytest

from benchmarks.reference_differences import Comparison, Pair, build_pair, compare, load_reference

N_ARCHS = 20  # drawn per family; the smallest and the largest come on top


@pytest.fixture(scope="session")
def reference() -> Callable[[str], ModuleType]:
    """Imports a module of the reference code by its name below `ofa`; skips where that is not installed."""
    pytest.importorskip("ofa", reason="the once-for-all reference code is not installed")
    return load_reference


@pytest.fixture(scope="session")
def pair_of(reference: Callable[[str], ModuleType]) -> Callable[[str], Pair]:
    """By the name of a space: a network of the reference and our supernet with its weights, built once."""
    return cache(lambda name: build_pair(reference, name))


@pytest.fixture(scope="session")
def comparison_of(
    reference: Callable[[str], ModuleType], pair_of: Callable[[str], Pair]
) -> Callable[[str], Comparison]:
    """By the name of a space: archs as both sides see them, run once."""
    return cache(lambda name: compare(pair_of(name), reference, N_ARCHS))
