"""`tailor profile` and `tailor table`: measure this machine; import, check and judge latency tables."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.output import JsonFlag, note, print_json, print_table, status_line, validate_writable
from service.commands.spaces import OwnSpace, SpaceName

if TYPE_CHECKING:
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import LatencyTable
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

app = typer.Typer(no_args_is_help=True)
TablePath = Annotated[Path, typer.Argument(help="Latency table, JSON or CSV.")]
OutPath = Annotated[Path, typer.Option("--out", "-o", help="File to write; its ending chooses JSON or CSV.")]
DeviceId = Annotated[str | None, typer.Option("--device", help="Name of the device.")]


def profile(
    out: OutPath,
    *,
    supernet: Annotated[str, typer.Option(help="A bundle's folder, or the name of a shipped one.")] = "cifar_mbv3",
    runtime: Annotated[str, typer.Option(help="Only onnxruntime so far.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, help="Threads of one inference.")] = 1,
    device: DeviceId = None,
    quick: Annotated[bool, typer.Option("--quick", help="About a minute; noisier.")] = False,
    server: Annotated[str | None, typer.Option(help="Register the table with this service.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the measured networks.")] = 0,
) -> None:
    """Measure this machine and write its latency table."""
    from latency_tables.build import measure_table
    from latency_tables.errors import InvalidSettingError
    from latency_tables.measure import FULL_PLAN, QUICK_PLAN
    from latency_tables.table import save_table
    from supernet.bundle import open_bundle

    # Before minutes of measuring, not after. What measures runs in a process of its own, and says less.
    for package in ("onnx", "onnxruntime", *(["httpx"] if server else [])):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    if out.suffix not in (".json", ".csv") or not out.parent.is_dir():
        raise InvalidSettingError(f"'--out' must be a .json or .csv file in a folder that exists, got '{out}'.")
    validate_writable(out.parent)
    if runtime != "onnxruntime":
        raise InvalidSettingError(f"'--runtime' must be 'onnxruntime', got '{runtime}'.")
    with status_line("Measuring this machine") as show:
        table = measure_table(
            open_bundle(supernet).space,
            device_id=device,
            threads=threads,
            plan=QUICK_PLAN if quick else FULL_PLAN,
            seed=seed,
            report=show,
        )
    save_table(table, out)
    for warning in table.source["warnings"]:
        note(f"Warning: {warning}.")
    note(f"{table.n_rows} rows for device '{table.device.device_id}' written to {out}.")
    if server:
        _register(out, server.rstrip("/"), device_id=table.device.device_id, space=table.space)


@app.command("import")
def import_table(
    source: Annotated[Path, typer.Argument(help="Folder of `<resolution>_lookup_table.yaml` files.")],
    space: SpaceName,
    device: Annotated[str, typer.Option("--device", help="Name of the device.")],
    out: OutPath,
) -> None:
    """Turn published once-for-all latency tables into one of ours."""
    from latency_tables.convert import import_ofa_tables
    from latency_tables.table import save_table
    from supernet.spaces.presets import find_space

    table = import_ofa_tables(source, find_space(space), device)
    save_table(table, out)
    note(f"{table.n_rows} rows for device '{device}' written to {out}.")


@app.command()
def check(table: TablePath, space: OwnSpace = None, *, as_json: JsonFlag = False) -> None:
    """Report what a table lacks and what looks wrong in it."""
    from latency_tables.check import check_table
    from latency_tables.table import load_table

    loaded = load_table(table)
    report = check_table(loaded, space_of_table(loaded, space)).to_dict()
    if as_json:
        print_json(report)
    else:
        print_table(["figure", "value"], list(report.items()))
    if report["errors"]:
        raise typer.Exit(1)


@app.command()
def estimate(
    table: TablePath,
    archs: Annotated[Path, typer.Option(help="CSV of archs: columns ks,e,d,r and, where elastic, w.")],
    space: OwnSpace = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Estimate the latency of every arch in a CSV file."""
    estimator, read, _ = _read(table, archs, space)
    estimates = [
        {
            "arch_id": arch.arch_id,
            "latency_ms": {"estimated": entry.estimated_ms, "low": entry.low_ms, "high": entry.high_ms},
        }
        for arch, entry in zip(read, estimator.estimate(read), strict=True)
    ]
    if as_json:
        print_json(estimates)
        return
    rows = [(e["arch_id"], *(f"{value:.4f}" for value in e["latency_ms"].values())) for e in estimates]  # type: ignore[attr-defined]
    print_table(["arch_id", "estimated ms", "low", "high"], rows)


@app.command()
def evaluate(
    table: TablePath,
    measured: Annotated[Path, typer.Option(help="CSV of archs with the column latency_ms.")],
    space: OwnSpace = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Compare a table's estimates with measured networks."""
    from latency_tables.agreement import check_agreement

    estimator, read, columns = _read(table, measured, space)
    report = check_agreement(estimator, read, _latencies_in(columns, measured)).to_dict()
    if as_json:
        print_json(report)
    else:
        print_table(["figure", "value"], list(report.items()))


@app.command()
def fit(
    base: Annotated[Path, typer.Option(help="Latency table, JSON or CSV; its rows stay.")],
    measured: Annotated[Path, typer.Option(help="CSV of archs with the column latency_ms.")],
    out: OutPath,
    space: OwnSpace = None,
) -> None:
    """Recalibrate a table by whole networks that were measured on its device."""
    from latency_tables.reports import report_networks
    from latency_tables.table import save_table

    estimator, archs, columns = _read(base, measured, space)
    latencies = _latencies_in(columns, measured)
    outcome = report_networks(estimator.table, estimator.space, archs, measured_ms=latencies)
    save_table(outcome.table, out)
    how = "fitted to all of them" if outcome.refitted else "scaled"
    note(
        f"{outcome.agreement.n} networks were off by {outcome.agreement.mape:.1%} on average; {outcome.networks} are "
        f"known now, the calibration was {how}. Written to {out}."
    )


def space_of_table(table: LatencyTable, own: str | None) -> SearchSpace:
    """The space of a table, by its name or, where it is a user's own, from the file of it.

    Raises:
        InvalidSettingError: The file describes another space.
    """
    from latency_tables.check import space_of
    from latency_tables.errors import InvalidSettingError
    from supernet.spaces.presets import find_space, load_space

    space = find_space(own) if own else load_space(table.space)
    if space.name != table.space:
        raise InvalidSettingError(f"The table is for the space '{table.space}', '{own}' describes '{space.name}'.")
    return space_of(table, space)


def _read(table: Path, archs: Path, own_space: str | None) -> tuple[LatencyEstimator, list[Arch], list[dict[str, str]]]:
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import load_table
    from supernet.spaces.arch_csv import read_archs

    loaded = load_table(table)
    space = space_of_table(loaded, own_space)
    read = read_archs(archs, space)
    return LatencyEstimator(loaded, space), [arch for arch, _ in read], [row for _, row in read]


def _latencies_in(rows: list[dict[str, str]], file: Path) -> list[float]:
    from latency_tables.errors import InvalidSettingError

    try:
        return [float(row["latency_ms"]) for row in rows]
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidSettingError(f"'{file}' needs a number in the column 'latency_ms': {error!r}.") from error


def _register(table: Path, server: str, *, device_id: str, space: str) -> None:
    import httpx

    from latency_tables.errors import MeasurementError

    url = f"{server}/v1/devices/{device_id}/tables/{space}"
    kind = "text/csv" if table.suffix == ".csv" else "application/json"
    try:
        response = httpx.put(url, content=table.read_bytes(), headers={"content-type": kind}, timeout=60)
    except httpx.HTTPError as error:
        raise MeasurementError(f"The table is in '{table}', but {url} cannot be reached: {error}.") from error
    if response.is_error:
        raise MeasurementError(f"The table is in '{table}', but {url} refused it: {response.text}")
    note(f"Registered as version {response.json()['version']} of {url}.")
