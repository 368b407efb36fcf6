"""The log of a run in its folder: a CSV file, TensorBoard events, and curves to look at.

It knows lines of epochs and nothing of networks. What goes wrong while it writes never ends a run.
"""

from __future__ import annotations

import csv
import time
import warnings
import weakref
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from supernet.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG = "log.csv"
CURVES = "curves.png"
EVENTS = "tensorboard"
# Of Okabe and Ito's palette, told apart by colour-blind readers too.
_BLUE, _VERMILION, _GREY = "#0072B2", "#D55E00", "#666666"


@dataclass(frozen=True)
class EpochReport:
    """One line of the log: means over the epoch's steps, in train mode and on augmented images.

    Loss and accuracy are those of each step's first pass, which is what the method wants most: the largest arch, the
    target, or the only one.
    """

    epoch: int
    phase: str
    learning_rate: float
    loss: float
    top1: float
    seconds: float


class RunLog:
    """Writes `log.csv`, event files in `tensorboard/` and `curves.png`, all three after every epoch.

    Args:
        folder: Of the run; it exists by the time of the first line.
        epochs_done: By the checkpoint the run goes on from. Later lines in `log.csv` are of epochs that will be run
            again, and give way to the new ones.

    Raises:
        InvalidConfigError: There is a `log.csv` that is no log of a run. It is left as it is.
    """

    def __init__(self, folder: Path, epochs_done: int = 0) -> None:
        self._folder = folder
        self._lines = [line for line in _read_lines(folder / LOG) if line.epoch <= epochs_done]
        self._events: EventsWriter | None = None
        self._failed: set[str] = set()

    def add(self, line: EpochReport) -> None:
        """Log an epoch. A file that cannot be written is named in a warning, once, and tried again the next time."""
        self._lines.append(line)
        self._try(LOG, lambda: _write_lines(self._folder / LOG, self._lines))
        self._try(EVENTS, lambda: self._add_event(line))
        self._try(CURVES, lambda: draw_curves(self._lines, self._folder / CURVES))

    def _try(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        # A full disk; no matplotlib; one that is set up to use LaTeX and finds none. Nothing to lose a night's run for.
        except (OSError, ImportError, RuntimeError) as error:
            if name not in self._failed:
                self._failed.add(name)
                warnings.warn(
                    f"'{self._folder / name}' cannot be written: {error}. The run goes on.",
                    RuntimeWarning,
                    stacklevel=3,
                )

    def _add_event(self, line: EpochReport) -> None:
        if self._events is None:
            self._events = self._open_events(line.epoch)
        values = {"loss": line.loss, "top1": line.top1, "learning_rate": line.learning_rate}
        summary = Summary(
            value=[Summary.Value(tag=f"train/{tag}", simple_value=value) for tag, value in values.items()]
        )
        self._events.write_event(Event(wall_time=time.time(), step=line.epoch, summary=summary))
        self._events.flush()

    def _open_events(self, first_epoch: int) -> EventsWriter:
        """An event file of this process; TensorBoard reads those of a folder as one run.

        Differs from `SummaryWriter`, whose thread ends on a full disk, after which the tenth line waits for ever.
        """
        folder = self._folder / EVENTS
        folder.mkdir(exist_ok=True)
        events = EventsWriter(str(folder / "events"), f".{first_epoch}")
        weakref.finalize(self, events.close)
        # Tells TensorBoard to forget what earlier files say of this epoch and later ones.
        events.write_event(
            Event(wall_time=time.time(), step=first_epoch, session_log=SessionLog(status=SessionLog.START))
        )
        return events


def draw_curves(lines: Sequence[EpochReport], path: Path) -> None:
    """Draw loss, top-1 and learning rate over epochs into a PNG, whole or not at all.

    Args:
        lines: At least one, in order of epochs. Where there are several phases, each start is marked.
        path: Overwritten.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = [line.epoch for line in lines]
    figure = Figure(figsize=(8, 7))
    # Half the time of a computed layout.
    figure.subplots_adjust(left=0.13, right=0.96, bottom=0.08, top=0.9, hspace=0.12)
    loss, top1, rate = panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    loss.plot(epochs, [line.loss for line in lines], ".-", color=_VERMILION)
    top1.plot(epochs, [line.top1 for line in lines], ".-", color=_BLUE)
    rate.plot(epochs, [line.learning_rate for line in lines], ".-", color=_GREY)
    for axes, label in zip(panels, ("loss", "top-1", "learning\nrate"), strict=True):
        axes.set_ylabel(label)
        axes.yaxis.set_label_coords(-0.1, 0.5)
        axes.grid(alpha=0.3)
    top1.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    rate.set_ylim(bottom=0)
    rate.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    starts = [line for number, line in enumerate(lines) if number == 0 or line.phase != lines[number - 1].phase]
    if len(starts) > 1:
        _mark_phases(starts, figure, panels)
    last = lines[-1]
    figure.suptitle(
        f"Epoch {last.epoch}: loss {last.loss:.3f}, top-1 {last.top1:.1%}\n"
        "means over an epoch in train mode, on augmented training images",
        fontsize="medium",
    )
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    partial.replace(path)


def _mark_phases(starts: Sequence[EpochReport], figure: Figure, panels: Sequence[Axes]) -> None:
    """Draw a line through all panels before the first epoch of each phase, and its name above."""
    places = [line.epoch - 0.5 for line in starts]
    figure.subplots_adjust(top=0.8)  # room for the names
    names = panels[0].secondary_xaxis("top")
    names.set_xticks(places, [line.phase for line in starts], rotation=60, ha="left", fontsize="small")
    for axes in panels:
        for place in places:
            axes.axvline(place, color=_GREY, linestyle=":", linewidth=1)


def _write_lines(path: Path, lines: Sequence[EpochReport]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(EpochReport)])
        writer.writeheader()
        for line in lines:
            values = asdict(line).items()
            writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values})
    partial.replace(path)


def _read_lines(path: Path) -> list[EpochReport]:
    """The lines of a log; none without a file. Earlier logs name no phases."""
    if not path.exists():
        return []
    columns = {field.name for field in fields(EpochReport)}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        try:
            if {*(reader.fieldnames or ()), "phase"} != columns:
                raise ValueError(f"its columns are {reader.fieldnames}, not {sorted(columns)}")
            return [_line_of(row) for row in reader]
        except (ValueError, csv.Error) as error:
            raise InvalidConfigError(
                f"Line {reader.line_num} of '{path}' is not of a training log: {error}. "
                "Mend it or move it away, or train in another folder."
            ) from error


def _line_of(row: dict[str, Any]) -> EpochReport:
    return EpochReport(
        epoch=int(row["epoch"]),
        phase=row.get("phase", ""),
        learning_rate=float(row["learning_rate"]),
        loss=float(row["loss"]),
        top1=float(row["top1"]),
        seconds=float(row["seconds"]),
    )
