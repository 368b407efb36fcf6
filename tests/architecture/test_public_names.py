"""The names a package lists are there, and nothing else is offered."""

from __future__ import annotations

from importlib import import_module

import pytest

PACKAGES = ["supernet", "latency_tables"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_name_exists_and_says_what_it_is(package: str) -> None:
    module = import_module(package)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value):
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), f"{name} has a generated docstring only"


@pytest.mark.parametrize("package", PACKAGES)
def test_lazy_names_are_listed(package: str) -> None:
    module = import_module(package)
    assert set(module._LAZY) <= set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_names_are_refused_as_python_does(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        import_module(package).nonsense  # noqa: B018


def test_promised_names_of_the_supernet_package_are_public() -> None:
    promised = {"Arch", "SearchSpace", "Supernet", "load_space", "blocks_of", "macs", "params", "extract_subnet"}
    assert promised <= set(import_module("supernet").__all__)
