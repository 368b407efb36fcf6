"""`docs/training.md` names every method and every setting of one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from supernet.training.methods.registry import SETTINGS

PAGE = (Path(__file__).parents[4] / "docs" / "training.md").read_text(encoding="utf-8")


def test_every_method_and_setting_is_explained() -> None:
    for method, settings in SETTINGS.items():
        assert f"`{method}`" in PAGE
        assert f"`[{method}]`" in PAGE
        for field in fields(settings):
            assert f"`{field.name}`" in PAGE, f"{method}.{field.name}"
