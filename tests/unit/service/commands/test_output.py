"""Progress on stderr: a bar on a terminal; in a file, lines at intervals with the time left."""

from __future__ import annotations

import pytest

from service.commands.output import progress_bar


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_a_log_file_gets_a_line_a_minute_with_the_time_left(
    clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("Training", clock=clock) as update:
        for step in range(1, 301):
            clock.now += 0.5
            update(step, 300, f"epoch {1 + step // 200}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "Training 120/300, 0:01:00, 0:01:30 left: epoch 1",
        "Training 240/300, 0:02:00, 0:00:30 left: epoch 2",
        "Training 300/300, 0:02:30, 0:00:00 left: epoch 2",
    ]


def test_steps_of_minutes_have_a_time_left(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Training", clock=clock) as update:
        for step in (1, 2):
            clock.now += 120
            update(step, 10, "")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "Training 1/10, 0:02:00, -:--:-- left: "
    assert second == "Training 2/10, 0:04:00, 0:16:00 left: "


def test_a_resumed_run_does_not_count_earlier_steps_as_fast_ones(
    clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("Training", clock=clock) as update:
        for step in range(901, 907):
            clock.now += 10
            update(step, 1000, "")
    assert capsys.readouterr().err == "Training 906/1000, 0:01:00, 0:15:40 left: \n"


def test_each_part_of_the_work_has_a_time_left_of_its_own(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Bundle", clock=clock) as update:
        update(1, 1, "images")
        for number in (1, 2, 3):
            clock.now += 30
            update(number, 10, "population")
    assert capsys.readouterr().err.splitlines() == [
        "Bundle 1/1, 0:00:00, 0:00:00 left: images",
        "Bundle 2/10, 0:00:30, 0:04:00 left: population",
    ]


def test_a_terminal_gets_one_bar_and_no_lines(
    clock: FakeClock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bar("Training", clock=clock) as update:
        for step in (1, 2, 3):
            clock.now += 90
            update(step, 4, "epoch 1")
    bar = capsys.readouterr().err
    assert "━" in bar
    assert "0:01:30" in bar  # left
    assert "3/4," not in bar
