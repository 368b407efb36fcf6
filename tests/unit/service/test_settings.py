"""Settings come from the environment; nonsense is refused with the variable's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import InvalidRequestError
from service.settings import Settings, list_unknown_settings, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for field in Settings.model_fields:
        monkeypatch.delenv(f"TAILOR_{field.upper()}", raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("TAILOR_MAX_BODY_BYTES", "abc", "valid integer"),
        ("TAILOR_MAX_BODY_BYTES", "-1", "greater than 0"),
        ("TAILOR_MAX_ATTEMPTS", "0", "greater than or equal to 1"),
        ("TAILOR_JOB_POLL_S", "nan", "finite number"),
        ("TAILOR_JOB_POLL_S", "1000000", "less than or equal to 60"),
        # The worker gets its settings as JSON, which has no infinity.
        ("TAILOR_JOB_TIMEOUT_S", "inf", "finite number"),
    ],
)
def test_a_value_that_cannot_be_is_named(monkeypatch, variable: str, value: str, reason: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        load_settings()
    assert caught.value.code == "invalid_setting"
    assert f"{variable} is '{value}', but should be" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_wrong_value_is_named_at_once(monkeypatch) -> None:
    monkeypatch.setenv("TAILOR_MAX_ATTEMPTS", "many")
    monkeypatch.setenv("TAILOR_JOB_TIMEOUT_S", "-5")
    with pytest.raises(InvalidRequestError, match="TAILOR_JOB_TIMEOUT_S") as caught:
        load_settings()
    assert "TAILOR_MAX_ATTEMPTS" in str(caught.value)


@pytest.mark.parametrize("field", list(Settings.model_fields))
def test_an_empty_variable_is_one_that_is_not_set(monkeypatch, field: str) -> None:
    monkeypatch.setenv(f"TAILOR_{field.upper()}", "")
    assert load_settings() == Settings()


def test_an_argument_comes_before_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("TAILOR_DATA_DIR", "from the environment")
    assert load_settings().data_dir == Path("from the environment")
    assert load_settings(data_dir=Path("argument")).data_dir == Path("argument")


def test_misspelled_settings_are_noticed() -> None:
    assert list_unknown_settings(["TAILOR_DATA_DIR", "PATH", "TAILOR_JOB_POLLS", "TAILOR_COLOUR"]) == [
        "TAILOR_COLOUR is no setting and is ignored.",
        "TAILOR_JOB_POLLS is no setting and is ignored; is TAILOR_JOB_POLL_S meant?",
    ]
