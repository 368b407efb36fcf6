"""What commands print: one JSON document, or a table; progress on stderr."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else there.")]


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
    Console(soft_wrap=True).print(table)


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
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr with the time left; call it with done, total and a remark."""
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, remark="")

        def update(done: int, total: int, remark: str = "") -> None:
            progress.update(task, completed=done, total=total, remark=remark)

        yield update


@contextmanager
def status_line(title: str) -> Iterator[Callable[[str], None]]:
    """One line on stderr that is written over; silent where stderr is no terminal."""
    from rich.console import Console

    with Console(stderr=True).status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")
