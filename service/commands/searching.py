"""`tailor search`: one search, no server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands.output import JsonFlag, print_json, print_table


def search(
    table: Annotated[Path, typer.Option(help="Latency table of the device.")],
    latency_ms: Annotated[float, typer.Option("--latency-ms", help="Budget, ms.")],
    *,
    supernet: Annotated[str | None, typer.Option(help="A bundle's folder, or the name of a shipped one.")] = None,
    space: Annotated[str | None, typer.Option(help="Name of a search space, with --predictor.")] = None,
    predictor: Annotated[Path | None, typer.Option(help="Accuracy predictor, with --space.")] = None,
    evaluations: Annotated[int, typer.Option(min=100, help="Most archs to look at.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answer.")] = 0,
    confidence: Annotated[
        float | None, typer.Option(help="Hold this quantile of the latency to the budget, e.g. 0.95.")
    ] = None,
    resolutions: Annotated[str | None, typer.Option(help="Input sizes to search among, e.g. 24,32.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the most accurate subnet within a latency budget."""
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import load_table
    from service.answers import find_best
    from supernet.bundle import open_bundle
    from supernet.predictors.loading import load_predictor
    from supernet.spaces.presets import find_space

    if (supernet is None) == (space is None) or (space is None) != (predictor is None):
        raise typer.BadParameter("Give either --supernet, or --space with --predictor.")
    if supernet is not None:
        bundle = open_bundle(supernet)
        name, chosen, predictor_path = bundle.manifest.name, bundle.space, bundle.predictor_path
    else:
        name, chosen, predictor_path = "", find_space(str(space)), Path(str(predictor))
    loaded = load_table(table, space=chosen.name)
    constraints = {"latency_ms": latency_ms}
    _, found = find_best(
        load_predictor(predictor_path, chosen),
        LatencyEstimator(loaded, chosen),
        constraints=constraints,
        confidence=confidence,
        precision="fp32",
        evaluations=evaluations,
        seed=seed,
        resolutions=parse_resolutions(resolutions),
    )
    answer = {
        "id": None,
        "supernet": name or None,
        "device": loaded.device.device_id,
        "constraints": constraints,
        **found,
        "versions": {"table_sha256": loaded.fingerprint},
        "deployment": None,
    }
    if as_json:
        print_json(answer)
        return
    accuracy, latency = found["accuracy"], found["latency_ms"]
    rows = [
        ("arch_id", found["arch_id"]),
        ("resolution", found["arch"]["resolution"]),
        ("latency", f"{latency['estimated']:.3f} ms ({latency['low']:.3f} to {latency['high']:.3f})"),
        ("accuracy", f"{accuracy['predicted']:.1%} ({_interval(accuracy)})"),
        ("MACs", f"{found['macs'] / 1e6:.2f} M"),
        ("parameters", f"{found['params'] / 1e6:.3f} M"),
        ("evaluations", f"{found['evaluations']} in {found['seconds']:.2f} s"),
    ]
    print_table([f"device {loaded.device.device_id}", f"budget {latency_ms} ms"], rows)


def parse_resolutions(text: str | None) -> list[int] | None:
    """Input sizes of an option `--resolutions`; None where it is not given."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--resolutions takes whole numbers joined by commas, got '{text}'.") from error


def _interval(accuracy: dict[str, float | None]) -> str:
    low, high = accuracy["low"], accuracy["high"]
    return "no interval: this predictor may be points off" if low is None else f"{low:.1%} to {high:.1%}"
