"""What commands print: one JSON document, or a table; progress on stderr."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else there.")]
# Columns of a table where it is not shown but read: no line is broken.
_WIDE = 1000
# What the time left is estimated from: long enough for steps of minutes, short enough to follow a new phase.
SPEED_PERIOD_S = 600.0
# Between lines of progress where stderr is no terminal.
LINE_PERIOD_S = 60.0


def print_json(document: Any) -> None:
    """Write one JSON document to stdout; NaN is refused, since it is no JSON."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a plain table to stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)


def validate_writable(folder: Path) -> None:
    """Refuse a folder nothing can be written into, before the work and not after; leaves no trace.

    Raises:
        InvalidRequestError: It, or the nearest folder above it that exists, cannot be written.
    """
    from service.errors import InvalidRequestError

    existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InvalidRequestError(
            f"'{folder}' cannot be written: {error.strerror or error}. Choose another place with --out."
        ) from error


def note(text: str) -> None:
    """One line for the user, on stderr."""
    typer.echo(text, err=True)


@contextmanager
def progress_bar(
    title: str, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr with the time left; call it with done, total and a remark.

    Where stderr is no terminal, a line a minute and one at the end. When `done` falls or `total` changes, another part
    of the work has begun, and the clock starts anew.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[remark]}"),
    )
    console = Console(stderr=True)
    progress = Progress(
        *columns,
        console=console,
        get_time=clock,
        speed_estimate_period=SPEED_PERIOD_S,
        disable=not console.is_interactive,
    )
    next_line = clock() + LINE_PERIOD_S
    with progress:
        task_id = progress.add_task(title, total=None, remark="")
        task = progress.tasks[0]

        def update(done: int, total: int, remark: str = "") -> None:
            nonlocal next_line
            if done < task.completed or task.total not in (None, total):
                progress.reset(task_id)
            progress.update(task_id, completed=done, total=total, remark=remark)
            if progress.disable and (clock() >= next_line or done == total):
                next_line = clock() + LINE_PERIOD_S
                note(f"{title} {done}/{total}, {_span(task.elapsed)}, {_span(task.time_remaining)} left: {remark}")

        yield update


def _span(seconds: float | None) -> str:
    """A time as rich's columns show it."""
    return "-:--:--" if seconds is None else str(timedelta(seconds=int(seconds)))


@contextmanager
def status_line(title: str) -> Iterator[Callable[[str], None]]:
    """One line on stderr that is written over; silent where stderr is no terminal."""
    from rich.console import Console

    with Console(stderr=True).status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")
