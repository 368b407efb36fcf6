"""RunLog: three files after every epoch, one line per epoch whatever happened before, and never the end of a run."""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from supernet.errors import InvalidConfigError
from supernet.training.log import CURVES, EVENTS, LOG, EpochReport, RunLog, draw_curves

HEADER = "epoch,phase,learning_rate,loss,top1,seconds"
OLD_LOG = "epoch,learning_rate,loss,top1,seconds\r\n1,0.1,2,0.2,60\r\n2,0.05,1.5,0.4,61\r\n"


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves half a second per epoch."""
    monkeypatch.setattr("supernet.training.log.draw_curves", lambda *_: None)


def line_of(epoch: int, *, phase: str = "train", loss: float = 1.0) -> EpochReport:
    return EpochReport(epoch, phase, learning_rate=0.1 / epoch, loss=loss, top1=0.5, seconds=60.0)


def add_epochs(log: RunLog, *epochs: int, loss: float = 1.0) -> None:
    for epoch in epochs:
        log.add(line_of(epoch, loss=loss))


def logged(folder: Path) -> list[tuple[int, float]]:
    with (folder / LOG).open(newline="") as file:
        return [(int(line["epoch"]), float(line["loss"])) for line in csv.DictReader(file)]


def events_of(folder: Path) -> list[Event]:
    """All events in the order TensorBoard reads them: file after file, each record between checksums."""
    events = []
    for path in sorted((folder / EVENTS).iterdir()):
        content = path.read_bytes()
        while content:
            size, checksum = struct.unpack("<QI", content[:12])
            data = content[12 : 12 + size]
            assert checksum == masked_crc32c(content[:8])
            assert struct.unpack("<I", content[12 + size : 16 + size]) == (masked_crc32c(data),)
            events.append(Event.FromString(data))
            content = content[16 + size :]
    return events


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: a restart hides all that was known of its step and later ones."""
    shown: dict[str, dict[int, float]] = {}
    for event in events_of(folder):
        if event.session_log.status == SessionLog.START:
            shown = {tag: {step: y for step, y in of.items() if step < event.step} for tag, of in shown.items()}
        for value in event.summary.value:
            shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_every_epoch_is_in_all_three_files_at_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.add(EpochReport(1, "full", learning_rate=0.1, loss=2.123456789, top1=0.25, seconds=61.5))
    assert (tmp_path / LOG).read_bytes().decode() == f"{HEADER}\r\n1,full,0.1,2.12346,0.25,61.5\r\n"
    assert scalars(tmp_path) == {
        "train/loss": {1: pytest.approx(2.123456789)},
        "train/top1": {1: 0.25},
        "train/learning_rate": {1: pytest.approx(0.1)},
    }
    first = pixels_of(tmp_path / CURVES)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 10
    add_epochs(log, 2)
    assert [epoch for epoch, _ in logged(tmp_path)] == [1, 2]
    assert list(scalars(tmp_path)["train/loss"]) == [1, 2]
    assert not np.array_equal(first, pixels_of(tmp_path / CURVES))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.usefixtures("no_drawing")
def test_a_resumed_run_replaces_the_epochs_it_runs_again(tmp_path: Path) -> None:
    add_epochs(RunLog(tmp_path), 1, 2, 3, loss=1.0)
    add_epochs(RunLog(tmp_path, epochs_done=1), 2, loss=5.0)
    assert logged(tmp_path) == [(1, 1.0), (2, 5.0)]
    assert scalars(tmp_path)["train/loss"] == {1: 1.0, 2: 5.0}


def test_the_curves_of_a_resumed_run_are_those_of_the_whole_run(tmp_path: Path) -> None:
    for name, parts in (("whole", [(1, 2, 3)]), ("resumed", [(1, 2), (3,)])):
        (tmp_path / name).mkdir()
        for part in parts:
            add_epochs(RunLog(tmp_path / name, epochs_done=part[0] - 1), *part)
    assert np.array_equal(pixels_of(tmp_path / "whole" / CURVES), pixels_of(tmp_path / "resumed" / CURVES))


@pytest.mark.usefixtures("no_drawing")
def test_a_run_that_starts_anew_in_its_folder_starts_a_new_log(tmp_path: Path) -> None:
    add_epochs(RunLog(tmp_path), 1, 2)
    add_epochs(RunLog(tmp_path), 1, loss=3.0)
    assert logged(tmp_path) == [(1, 3.0)]


@pytest.mark.usefixtures("no_drawing")
def test_a_log_without_phases_is_continued(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text(OLD_LOG, newline="")
    add_epochs(RunLog(tmp_path, epochs_done=2), 3)
    lines = (tmp_path / LOG).read_text().splitlines()
    assert lines == [HEADER, "1,,0.1,2,0.2,60", "2,,0.05,1.5,0.4,61", "3,train,0.0333333,1,0.5,60"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b\n1,2\n", r"Line 1 .*columns are \['a', 'b'\]"),
        (b"", "columns are None"),
        (OLD_LOG.encode() + b"3,0.0", "Line 4 .*could not convert"),
        (OLD_LOG.encode() + b"3;0,05;1;0,5;60", "Line 4 .*invalid literal"),
        (b"\xff\xfe", "utf-8"),
    ],
    ids=["foreign", "empty", "torn", "other_separator", "other_encoding"],
)
def test_a_file_that_is_no_log_is_refused_and_left_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / LOG).write_bytes(content)
    with pytest.raises(InvalidConfigError, match=reason + r"(.|\n)*train in another folder"):
        RunLog(tmp_path, epochs_done=2)
    assert (tmp_path / LOG).read_bytes() == content


def test_files_that_cannot_be_written_are_named_once_and_cost_no_other(tmp_path: Path) -> None:
    (tmp_path / CURVES).mkdir()
    (tmp_path / EVENTS).touch()
    log = RunLog(tmp_path)
    with pytest.warns(RuntimeWarning) as warned:
        add_epochs(log, 1)
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == 2
    assert f"'{tmp_path / EVENTS}' cannot be written: " in texts[0]
    assert f"'{tmp_path / CURVES}' cannot be written: " in texts[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_epochs(log, 2)
    assert [epoch for epoch, _ in logged(tmp_path)] == [1, 2]


def test_a_log_that_could_not_be_written_is_complete_once_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "not yet"
    log = RunLog(folder)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        add_epochs(log, 1)
    folder.mkdir()
    add_epochs(log, 2)
    assert [epoch for epoch, _ in logged(folder)] == [1, 2]
    assert (folder / CURVES).exists()


def test_a_missing_drawing_library_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(RuntimeWarning, match=r"curves\.png' cannot be written: .*matplotlib"):
        add_epochs(RunLog(tmp_path), 1)
    assert logged(tmp_path) == [(1, 1.0)]


def test_phases_are_marked_where_they_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (drawn.append(figure), path.touch()))
    names = ["full"] * 4 + ["depth 2"] * 2 + ["depth 3"] * 2
    draw_curves([line_of(epoch, phase=name) for epoch, name in enumerate(names, 1)], tmp_path / CURVES)
    draw_curves([line_of(epoch) for epoch in range(1, 9)], tmp_path / CURVES)
    phases, single = drawn
    for axes in phases.axes:
        curve, *marks = axes.get_lines()
        assert list(curve.get_xdata()) == list(range(1, 9))
        assert [mark.get_xdata()[0] for mark in marks] == [0.5, 4.5, 6.5]
    (names_above,) = phases.axes[0].child_axes
    assert [label.get_text() for label in names_above.get_xticklabels()] == ["full", "depth 2", "depth 3"]
    assert [len(axes.get_lines()) for axes in single.axes] == [1, 1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_leave_a_gap(tmp_path: Path, value: float) -> None:
    add_epochs(RunLog(tmp_path), 1, loss=value)
    add_epochs(RunLog(tmp_path, epochs_done=1), 2)
    assert [epoch for epoch, _ in logged(tmp_path)] == [1, 2]
    assert (tmp_path / CURVES).exists()


def test_nothing_but_drawing_imports_matplotlib() -> None:
    code = "import sys, supernet.training.log; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
