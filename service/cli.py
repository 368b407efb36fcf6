"""The `tailor` command: parses, calls one stage, prints. Answers go to stdout, progress and logs to stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import errno
import os
import sys

# Before numpy is imported: the many small products of a search run ten times slower on two BLAS threads of a busy
# machine than on one. Torch and ONNX Runtime have threads of their own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251

import typer

from latency_tables.errors import LatencyError
from service.commands import (
    deploying,
    fleets,
    importing,
    predictors,
    refining,
    searching,
    server,
    spaces,
    supernets,
    tables,
    training,
)
from service.errors import ServiceError
from supernet.errors import SupernetError

# Command modules import what they run inside their functions, so that `tailor --help` loads nothing heavy.
app = typer.Typer(
    name="tailor",
    help="One supernet, cut to fit every device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("spaces")(spaces.list_all)
app.command("describe")(spaces.describe)
app.command("train")(training.train)
app.command("import-ofa")(importing.import_ofa)
app.add_typer(predictors.app, name="predictor", help="Accuracy predictors.")
app.command("profile")(tables.profile)
app.add_typer(tables.app, name="table", help="Latency tables.")
app.command("search")(searching.search)
app.command("front")(searching.front)
app.command("fleet")(fleets.fleet)
app.command("refine")(refining.refine)
app.command("export")(deploying.export)
app.command("verify")(deploying.verify)
app.add_typer(supernets.app, name="supernet", help="Supernets.")
app.command("serve")(server.serve)
app.command("worker")(server.worker)
app.add_typer(server.database, name="db", help="The service's database.")


# By command: the extra with everything it needs.
_EXTRAS = {
    "train": "train",
    "import-ofa": "train",
    "predictor": "train",
    "profile": "agent",
    "table": "agent",
    "search": "export",
    "export": "export",
    "front": "train",
    "fleet": "export",
    "refine": "agent",
    "verify": "runtimes",
    "supernet": "serve",
    "serve": "serve",
    "worker": "serve",
    "db": "serve",
}
_OURS = {"service", "supernet", "latency_tables"}


def main() -> None:
    """Run the command; errors with a known cause end in one line, not in a traceback."""
    try:
        app()
    except (SupernetError, LatencyError, ServiceError) as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        extra = "agent" if missing == "httpx" else _EXTRAS.get(command)
        if extra is None or missing in _OURS:
            raise
        typer.echo(
            f"Error: This command needs the package '{missing}', which is not installed. "
            f"Install it with: pip install 'tailor-nas[{extra}]'",
            err=True,
        )
        sys.exit(1)
    except OSError as error:
        # str() of an error without a file is already a sentence.
        reason = f"'{error.filename}': {error.strerror}" if error.filename else error.strerror or error
        hint = " Free some space, then run the command again." if error.errno == errno.ENOSPC else ""
        typer.echo(f"Error: {reason}.{hint}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
