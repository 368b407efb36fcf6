"""The once-for-all reference code as an oracle, where it is installed."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What its modules import for images, downloads and progress bars, which no test here needs.
ABSENT = (
    "gdown",
    "tqdm",
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class StandIn(ModuleType):
    """A module in which every name is an empty class."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


@pytest.fixture(scope="session")
def reference() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the reference code by its name below `ofa`; skips where that is not installed."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in [name for name in ABSENT if find_spec(name.partition(".")[0]) is None]:
            patch.setitem(sys.modules, name, StandIn(name))
        pytest.importorskip("ofa", reason="the once-for-all reference code is not installed")

        def load(name: str) -> ModuleType:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return import_module(f"ofa.{name}")

        yield load
