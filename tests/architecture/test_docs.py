"""What users can set or meet is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.errors import HTTP_TABLE
from service.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_setting_is_documented(name: str) -> None:
    assert f"`TAILOR_{name.upper()}`" in (ROOT / "docs/settings.md").read_text()


def error_codes() -> list[str]:
    sources = [path.read_text() for path in (ROOT / "service").rglob("*.py")]
    literals = {code for text in sources for code in re.findall(r'code(?:="|": "| = ")([a-z_]+)"', text)}
    parts = {"no_weights", "no_predictor", "no_calibration"}
    return sorted(literals | parts | {code for _, code in HTTP_TABLE.values()} - {"missing_part", "service_error"})


@pytest.mark.parametrize("code", [code for code in error_codes() if code != "service_error"])
def test_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs/errors.md").read_text()


def test_every_relative_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
