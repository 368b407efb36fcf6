"""`tailor search` and `tailor front`: the best subnet within budgets, and for every budget; no server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.output import JsonFlag, note, print_json, print_table, status_line, validate_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.questions import Target
    from supernet.predictors.predictor import Predictor
    from supernet.search.front import Front
    from supernet.spaces.arch import Arch

SupernetOption = Annotated[str | None, typer.Option(help="A bundle's folder, or the name of a shipped one.")]
SpaceOption = Annotated[str | None, typer.Option(help="Name of a search space, with --predictor.")]
PredictorOption = Annotated[Path | None, typer.Option(help="Accuracy predictor, with --space.")]
ResolutionsOption = Annotated[str | None, typer.Option(help="Input sizes to search among, e.g. 24,32.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Same seed, same answer.")]


def search(
    table: Annotated[list[Path], typer.Option(help="Latency table; several for one subnet that suits all devices.")],
    latency_ms: Annotated[
        list[float] | None, typer.Option("--latency-ms", help="Budget, ms; one per table, in their order.")
    ] = None,
    *,
    supernet: SupernetOption = None,
    space: SpaceOption = None,
    predictor: PredictorOption = None,
    latency_percent: Annotated[
        list[float] | None,
        typer.Option("--latency-percent", help="Budget as a share of the device's range, 0 to 100; one per table."),
    ] = None,
    energy_mj: Annotated[float | None, typer.Option("--energy-mj", help="Budget, millijoules.")] = None,
    macs: Annotated[float | None, typer.Option(help="Most multiply-adds.")] = None,
    params: Annotated[float | None, typer.Option(help="Most parameters.")] = None,
    size_bytes: Annotated[float | None, typer.Option("--size-bytes", help="Most bytes of parameters.")] = None,
    peak_memory_bytes: Annotated[
        float | None, typer.Option("--peak-memory-bytes", help="Most bytes of activations alive at once.")
    ] = None,
    accuracy_min: Annotated[
        float | None, typer.Option("--accuracy-min", help="Least accuracy, a fraction; then the fastest subnet wins.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="accuracy, latency_ms, energy_mj, macs, params or size_bytes.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32 or int8: of sizes and memory.")] = "fp32",
    evaluations: Annotated[int, typer.Option(min=100, help="Most archs to look at.")] = 10_000,
    seed: SeedOption = 0,
    confidence: Annotated[
        float | None, typer.Option(help="Hold this quantile of the latency to the budget, e.g. 0.95.")
    ] = None,
    resolutions: ResolutionsOption = None,
    start: Annotated[Path | None, typer.Option(help="CSV of archs to start from, such as earlier answers.")] = None,
    refine: Annotated[
        int | None,
        typer.Option(min=2, max=50, help="Time so many of the best candidates on this machine, and choose by that."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Labelled held-out images to evaluate the candidates on, with --refine.")
    ] = None,
    measured_out: Annotated[
        Path | None, typer.Option("--measured-out", help="CSV of what was measured and evaluated, with --refine.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the most accurate subnet within budgets, or the fastest one that is accurate enough."""
    from service.answers import find_best
    from service.questions import BYTES_PER_NUMBER, OBJECTIVES, Question, Target
    from supernet.spaces.arch_csv import read_archs

    if precision not in BYTES_PER_NUMBER:
        raise typer.BadParameter(f"--precision is one of {', '.join(BYTES_PER_NUMBER)}, got '{precision}'.")
    if objective is not None and objective not in OBJECTIVES:
        raise typer.BadParameter(f"--objective is one of {', '.join(OBJECTIVES)}, got '{objective}'.")
    name, chosen = open_predictor(supernet, space, predictor)
    budgets = _budgets(len(table), latency_ms, latency_percent)
    targets = [
        Target(loaded.table.device.device_id, loaded, budget)
        for loaded, budget in zip((_open_table(path, chosen) for path in table), budgets, strict=True)
    ]
    if len({target.device_id for target in targets}) < len(targets):
        raise typer.BadParameter(f"Each --table is of another device, got {[target.device_id for target in targets]}.")
    given = {
        "energy_mj": energy_mj,
        "macs": macs,
        "params": params,
        "size_bytes": size_bytes,
        "peak_memory_bytes": peak_memory_bytes,
        "accuracy_min": accuracy_min,
    }
    question = Question(
        constraints={name: value for name, value in given.items() if value is not None},
        objective=objective,
        confidence=confidence,
        precision=precision,
        evaluations=evaluations,
        seed=seed,
        resolutions=parse_resolutions(resolutions),
    )
    if not any(budgets) and not question.constraints and objective is None:
        raise typer.BadParameter("Give a budget: --latency-ms, another one, or --accuracy-min.")
    first = None if start is None else chosen.space.to_rows([arch for arch, _ in read_archs(start, chosen.space)])
    choice = None
    if refine is not None:
        choice = _refinement(refine, chosen, targets, supernet=supernet, images=images, measured_out=measured_out)
    elif images is not None or measured_out is not None:
        raise typer.BadParameter("--images and --measured-out belong to --refine.")
    _, found = find_best(chosen, targets, question, start=first, refine=choice)
    answer = describe_answer(name, targets, found)
    if as_json:
        print_json(answer)
    else:
        _print_answer(targets, answer)


def front(
    table: Annotated[Path, typer.Option(help="Latency table of the device.")],
    *,
    supernet: SupernetOption = None,
    space: SpaceOption = None,
    predictor: PredictorOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .csv, or a picture: .png, .svg or .pdf. CSV to stdout if absent."),
    ] = None,
    evaluations: Annotated[int, typer.Option(min=100, help="Most archs to look at.")] = 500_000,
    seed: SeedOption = 0,
    resolutions: ResolutionsOption = None,
) -> None:
    """Trace the most accurate subnet for every latency of a device."""
    import csv
    import io

    from service.questions import Question, Target, build_problem
    from supernet.predictors.predictor import describe_accuracies
    from supernet.search.front import trace_front
    from supernet.search.problem import Objective
    from supernet.spaces.arch_csv import arch_columns, write_arch

    if out is not None:
        validate_writable(out.parent)
    if out is not None and out.suffix not in (".csv", *_PICTURES):
        raise typer.BadParameter(f"--out ends in .csv, {', '.join(_PICTURES)}, got '{out.name}'.")
    _, chosen = open_predictor(supernet, space, predictor)
    estimator = _open_table(table, chosen)
    target = Target(estimator.table.device.device_id, estimator)
    problem = build_problem(chosen, [target], Question(resolutions=parse_resolutions(resolutions)))
    traced = trace_front(problem, Objective("latency_ms", estimator.cost), evaluations=evaluations, seed=seed)
    note(f"{len(traced.rows)} subnets from {traced.costs[0]:.3f} to {traced.costs[-1]:.3f} ms.")
    if out is not None and out.suffix in _PICTURES:
        _draw(traced, target.device_id, out)
        return
    text = io.StringIO()
    columns = ("latency_ms", "latency_ms_low", "latency_ms_high", "predicted", "predicted_low", "predicted_high")
    archs = chosen.space.from_rows(traced.rows)
    writer = csv.DictWriter(text, [*arch_columns(chosen.space), *columns], lineterminator="\n")
    writer.writeheader()
    described = zip(archs, estimator.estimate(archs), describe_accuracies(chosen, traced.rows), strict=True)
    for arch, latency, accuracy in described:
        values = [latency.estimated_ms, latency.low_ms, latency.high_ms]
        values += [accuracy["predicted"], accuracy["low"], accuracy["high"]]
        writer.writerow(write_arch(chosen.space, arch) | dict(zip(columns, values, strict=True)))
    if out is None:
        typer.echo(text.getvalue(), nl=False)
    else:
        out.write_text(text.getvalue())


def open_predictor(supernet: str | None, space: str | None, predictor: Path | None) -> tuple[str, Predictor]:
    """The predictor of a bundle, or of a file for a space; and the bundle's name, empty without one.

    Raises:
        typer.BadParameter: Neither or both are named.
    """
    from supernet.bundle import open_bundle
    from supernet.predictors.loading import load_predictor
    from supernet.spaces.presets import find_space

    if (supernet is None) == (space is None) or (space is None) != (predictor is None):
        raise typer.BadParameter("Give either --supernet, or --space with --predictor.")
    if supernet is None:
        return "", load_predictor(Path(str(predictor)), find_space(str(space)))
    bundle = open_bundle(supernet)
    return bundle.manifest.name, load_predictor(bundle.predictor_path, bundle.space)


def describe_answer(supernet: str, targets: Sequence[Target], found: dict[str, Any]) -> dict[str, Any]:
    """The search object of an answer that no service stored."""
    hashes = {target.device_id: target.estimator.table.fingerprint for target in targets}
    is_one = len(targets) == 1
    return {
        "id": None,
        "supernet": supernet or None,
        "device": targets[0].device_id if is_one else None,
        **found,
        "versions": {"table_sha256": hashes[targets[0].device_id] if is_one else hashes},
        "deployment": None,
    }


def parse_resolutions(text: str | None) -> tuple[int, ...] | None:
    """Input sizes of an option `--resolutions`; None where it is not given."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--resolutions takes whole numbers joined by commas, got '{text}'.") from error


_PICTURES = (".png", ".svg", ".pdf")


def _open_table(path: Path, predictor: Predictor) -> Any:
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import load_table

    return LatencyEstimator(load_table(path, space=predictor.space.name), predictor.space)


def _budgets(
    n_tables: int, latency_ms: list[float] | None, latency_percent: list[float] | None
) -> list[dict[str, float]]:
    """The latency budget of each table; none where none is given."""
    if latency_ms and latency_percent:
        raise typer.BadParameter("Give --latency-ms or --latency-percent, not both.")
    name, values = ("latency_percent", latency_percent) if latency_percent else ("latency_ms", latency_ms)
    if not values:
        return [{}] * n_tables
    if len(values) != n_tables:
        raise typer.BadParameter(f"Give one latency budget per --table: {n_tables} tables, {len(values)} budgets.")
    if latency_percent and not all(0 <= value <= 100 for value in values):
        raise typer.BadParameter(f"--latency-percent lies between 0 and 100, got {values}.")
    return [{name: value} for value in values]


def _refinement(
    count: int,
    predictor: Predictor,
    targets: Sequence[Target],
    *,
    supernet: str | None,
    images: Path | None,
    measured_out: Path | None,
) -> Callable[[list[Arch]], tuple[Arch, dict[str, Any]]]:
    """What times, and with images evaluates, the best candidates and chooses one."""
    import csv

    from service.refinement import choose, csv_columns, describe_choice, evaluate_candidates, measure_candidates

    (target, *others) = targets
    if others or "latency_ms" not in target.budget:
        raise typer.BadParameter("--refine needs one --table, of this machine, and --latency-ms.")
    if images is not None and supernet is None:
        raise typer.BadParameter("--images needs --supernet: a predictor alone has no weights.")
    if measured_out is not None:
        validate_writable(measured_out.parent)

    def refine(archs: list[Arch]) -> tuple[Arch, dict[str, Any]]:
        with status_line("Timing candidates") as show:
            best = archs[:count]
            predicted = predictor.predict(predictor.space.to_rows(best)).tolist()
            candidates = measure_candidates(best, predicted, target.estimator, report=show)
        if images is not None:
            from service.labelled_images import build_evaluator

            candidates = evaluate_candidates(candidates, build_evaluator(str(supernet), images))
        if measured_out is not None:
            with measured_out.open("w", newline="") as file:
                writer = csv.DictWriter(file, csv_columns(predictor.space), lineterminator="\n")
                writer.writeheader()
                writer.writerows(candidate.to_row(predictor.space) for candidate in candidates)
        chosen = choose(candidates, float(target.budget["latency_ms"]))
        return chosen.arch, describe_choice(chosen, candidates)

    return refine


def _print_answer(targets: Sequence[Target], answer: dict[str, Any]) -> None:
    accuracy = answer["accuracy"]
    latencies = answer["latencies"] or {targets[0].device_id: answer["latency_ms"]}
    rows = [("arch_id", answer["arch_id"]), ("resolution", answer["arch"]["resolution"])]
    for device_id, latency in latencies.items():
        name = "latency" if len(latencies) == 1 else f"latency on {device_id}"
        rows.append((name, f"{latency['estimated']:.3f} ms ({latency['low']:.3f} to {latency['high']:.3f})"))
    rows.append(("accuracy", f"{accuracy['predicted']:.1%} ({_interval(accuracy)})"))
    if "measured" in answer:
        measured = answer["measured"]
        evaluated = "" if measured["accuracy"] is None else f", {measured['accuracy']:.1%} on the images"
        rows.append(("measured", f"{measured['latency_ms']:.3f} ms{evaluated}, best of {measured['candidates']}"))
    if answer["energy_mj"] is not None:
        rows.append(("energy", f"{answer['energy_mj']:.3f} mJ"))
    rows += [
        ("MACs", f"{answer['macs'] / 1e6:.2f} M"),
        ("parameters", f"{answer['params'] / 1e6:.3f} M, {answer['size_bytes']:,} bytes"),
        ("peak memory", f"{answer['peak_memory_bytes']:,} bytes of activations"),
        ("evaluations", f"{answer['evaluations']} in {answer['seconds']:.2f} s"),
    ]
    asked = ", ".join(f"{name} {value:g}" for name, value in answer["constraints"].items())
    print_table([" and ".join(target.device_id for target in targets), asked], rows)


def _interval(accuracy: dict[str, float | None]) -> str:
    low, high = accuracy["low"], accuracy["high"]
    return "no interval: this predictor may be points off" if low is None else f"{low:.1%} to {high:.1%}"


def _draw(traced: Front, device_id: str, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(traced.costs, 100 * traced.accuracies, marker=".", linewidth=1)
    axes.set(xlabel=f"estimated latency on {device_id}, ms", ylabel="predicted top-1, %")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)
