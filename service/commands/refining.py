"""`tailor refine`: a service's best candidates, timed on the device itself, reported, and one of them chosen."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any

import typer

from service.commands.output import JsonFlag, print_json, print_table, status_line
from service.commands.spaces import OwnSpace


def refine(
    server: Annotated[str, typer.Option(help="Address of a running service.")],
    device: Annotated[str, typer.Option(help="Id that this machine's latency table is registered under.")],
    latency_ms: Annotated[float, typer.Option("--latency-ms", help="Budget, ms; what is measured has to keep it.")],
    *,
    supernet: Annotated[str | None, typer.Option(help="Id of a supernet; the service's default one if absent.")] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Have this quantile of each candidate's latency keep the budget.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=2, max=50, help="How many to time.")] = 8,
    space: OwnSpace = None,
    deploy: Annotated[bool, typer.Option("--deploy", help="Have the service deploy the chosen subnet.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Time a service's best candidates on this machine, report them, and choose the most accurate within the budget."""
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import LatencyTable
    from service.commands.remote import call
    from service.commands.tables import space_of_table
    from service.refinement import choose, describe_choice, measure_candidates
    from supernet.spaces.arch import Arch

    if not (isfinite(latency_ms) and latency_ms > 0):
        raise typer.BadParameter(f"--latency-ms is a positive number, got {latency_ms}.")
    if confidence is not None and not 0 < confidence < 1:
        raise typer.BadParameter(f"--confidence lies between 0 and 1, got {confidence}.")
    asked: dict[str, Any] = {"device": device, "constraints": {"latency_ms": latency_ms}, "candidates": candidates}
    asked |= {} if supernet is None else {"supernet": supernet}
    asked |= {} if confidence is None else {"confidence": confidence}
    found = call(server, "POST", "/v1/searches", body=asked)
    described = call(server, "GET", f"/v1/supernets/{found['supernet']}")
    tables = f"/v1/devices/{device}/tables/{described['space']}"
    table = LatencyTable.from_dict(call(server, "GET", tables, query={"version": str(found["versions"]["table"])}))
    estimator = LatencyEstimator(table, space_of_table(table, space).with_classes(len(described["classes"])))
    archs = [Arch.from_dict(one["arch"]) for one in found["candidates"]]
    predicted = [one["accuracy"]["predicted"] for one in found["candidates"]]
    with status_line("Timing candidates") as show:
        measured = measure_candidates(archs, predicted, estimator, report=show)
    networks = [{"arch": one.arch.to_dict(), "latency_ms": one.measured_ms} for one in measured]
    reported = call(server, "POST", f"{tables}/measurements", body={"networks": networks})
    chosen = choose(measured, latency_ms)
    deployment = None
    if deploy:
        order = {"supernet": found["supernet"], "arch": chosen.arch.to_dict(), "device": device}
        deployment = call(server, "POST", "/v1/deployments", body=order)
    answer = {
        "supernet": found["supernet"],
        "device": device,
        "constraints": found["constraints"],
        "arch": chosen.arch.to_dict(),
        "arch_id": chosen.arch.arch_id,
        "predicted": chosen.predicted,
        "estimated_ms": chosen.estimated_ms,
        "measured": describe_choice(chosen, measured),
        "table_version": reported["version"],
        "deployment": deployment,
    }
    if as_json:
        print_json(answer)
        return
    rows = [
        ("arch_id", chosen.arch.arch_id),
        ("measured", f"{chosen.measured_ms:.3f} ms, best of {len(measured)}"),
        ("estimated", f"{chosen.estimated_ms:.3f} ms"),
        ("accuracy", f"{chosen.predicted:.1%} predicted"),
        ("table", f"version {reported['version']} knows {reported['networks']} reported networks"),
    ]
    if deployment is not None:
        rows.append(("deployment", deployment["id"]))
    print_table([device, f"latency_ms {latency_ms:g}"], rows)
