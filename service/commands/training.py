"""`tailor train`: a config and images to a bundle."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.output import note, progress_bar, validate_writable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.data.splits import Splits
    from supernet.network.elastic_net import Supernet
    from supernet.network.switchable import SwitchableSupernet
    from supernet.spaces.costs import AdditiveCost
    from supernet.spaces.space import SearchSpace
    from supernet.training.config import TrainConfig
    from supernet.training.method import Method
    from supernet.training.methods.fine_tuning import FineTuning
    from supernet.training.methods.netaug import NetAug
    from supernet.training.methods.us_nets import UsNets

MOST_NAMED = 5


def train(
    config: Annotated[Path, typer.Argument(help="TOML file of settings; see examples/train/.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of parquet files, or with one folder of images per class.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, population and bundle.")] = Path(
        "runs/train"
    ),
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Two steps of every phase on a few images, painted ones without --data.")
    ] = False,
    initial: Annotated[
        str | None, typer.Option(help="Bundle to start from, a folder or a shipped name; by default random weights.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Bundle whose largest network teaches a netaug or fine_tuning run, by 'distil'.")
    ] = None,
    population: Annotated[int, typer.Option(help="Subnets to evaluate for the accuracy predictor.")] = 250,
    dataset: Annotated[
        str | None, typer.Option(help="What the manifest calls the data; default the folder's name.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be decoded, and name them.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves the choice to torch.")] = 0,
    device: Annotated[str | None, typer.Option(help="Of torch; default a GPU where there is one.")] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(help="Latency table to measure PSS-Net's pools by, once per device; default MACs."),
    ] = None,
) -> None:
    """Train a supernet, evaluate a population, fit the predictor and write the bundle to OUT/bundle.

    `torchrun -m service.cli train …` trains in several processes.
    """
    if data is None and not smoke:
        raise typer.BadParameter("Name the folder of images with --data; only --smoke can do without.")
    validate_writable(out)  # before seconds of imports
    import torch

    from supernet.bundle import open_bundle
    from supernet.network.checkpoint import load_supernet
    from supernet.network.switchable import SwitchableSupernet
    from supernet.predictors.accuracy import LEAST_ARCHS
    from supernet.spaces.presets import find_space
    from supernet.training.config import load_config
    from supernet.training.loop import StepReport
    from supernet.training.loop import train as train_supernet
    from supernet.training.methods.fine_tuning import FineTuning
    from supernet.training.methods.netaug import NetAug
    from supernet.training.methods.registry import build_method
    from supernet.training.methods.us_nets import UsNets
    from supernet.training.ranks import Ranks
    from supernet.training.smoke import shrink_config
    from supernet.training.teacher import teacher_of

    if threads:
        torch.set_num_threads(threads)
    if population < LEAST_ARCHS:
        raise typer.BadParameter(f"A predictor needs a --population of at least {LEAST_ARCHS}, got {population}.")
    settings = load_config(config)
    if settings.method == "fine_tuning" and initial is None:
        raise typer.BadParameter("Fine-tuning goes on from the weights of a bundle: name it with --initial.")
    if table and settings.method != "pss_net":
        raise typer.BadParameter(f"--table is for the pools of pss_net, the config's method is {settings.method}.")
    space = find_space(settings.space)
    ranks = Ranks.join(device)
    dataset_name = dataset or (data.resolve().name if data else "painted")
    origin: dict[str, Any] = {"dataset": dataset_name}
    known_classes = None
    if initial:
        manifest = open_bundle(initial).manifest
        known_classes = manifest.classes
        if not smoke:  # nobody goes by its accuracies
            check_same_split(manifest.training, settings, dataset=dataset_name)
        origin["initial_weights"] = manifest.parts["weights"]["sha256"]
    if smoke:
        settings, population = shrink_config(settings, space, ranks=ranks.count), LEAST_ARCHS
    splits = _read_images(data, settings, space, smoke=smoke, skip_broken=skip_broken, quiet=not ranks.is_first)
    classes = splits.train.classes
    space = space.with_classes(len(classes))
    if teacher:
        manifest = open_bundle(teacher).manifest
        check_same_classes(manifest.classes, classes)
        origin["teacher"] = manifest.parts["weights"]["sha256"]
    costs = _costs_of(table or [], space)
    origin |= {"images": len(splits.train), **({"tables": sorted(costs)} if costs else {})}
    method = build_method(settings, space, resources=costs)
    start = load_supernet(initial) if initial else None
    with progress_bar("Training") if ranks.is_first else nullcontext(_say_nothing) as update:

        def show(step: StepReport) -> None:
            update(step.step, step.steps, f"epoch {step.epoch}, loss {step.loss:.3f}")

        supernet = train_supernet(
            settings,
            splits.train,
            out,
            method=method,
            resume=resume,
            initial=start,
            teacher=teacher_of(load_supernet(teacher)) if teacher else None,
            origin=origin,
            device=device or ranks.device(),
            report=show,
        )
    ranks.leave()  # all at once: the first one bundles alone
    if not ranks.is_first:
        return
    supernet.cpu()
    origin |= {**settings.to_dict(), "space": space.name}
    if isinstance(method, NetAug | FineTuning):
        before = start if known_classes == classes else None
        _bundle_one(method, supernet, splits, out, start=before, training=origin)
    elif isinstance(method, UsNets) and isinstance(supernet, SwitchableSupernet):
        _bundle_switches(method, supernet, splits, out, training=origin)
    else:
        _bundle_all(method, supernet, splits, out, archs=population, training=origin, smoke=smoke)


def _read_images(
    data: Path | None, settings: TrainConfig, space: SearchSpace, *, smoke: bool, skip_broken: bool, quiet: bool
) -> Splits:
    """What `--data` names, cut down for a smoke run; painted images without it."""
    from supernet.data.splits import load_splits
    from supernet.training.smoke import paint_splits, shrink_splits

    if data is None:
        return paint_splits(settings, space)
    tell = _say_nothing if quiet else note
    tell(f"Reading {data} …")
    splits = load_splits(
        data,
        size=max(space.resolutions),
        validation_images=settings.validation_images,
        seed=settings.seed,
        skip_broken=skip_broken,
    )
    if splits.skipped:
        shown = "; ".join(splits.skipped[:MOST_NAMED])
        tell(f"{len(splits.skipped)} broken images skipped: {shown}{' …' * (len(splits.skipped) > MOST_NAMED)}")
    if smoke:
        splits = shrink_splits(splits, settings)
    tell(
        f"{len(splits.train)} training and {len(splits.validation)} validation images "
        f"of {len(splits.train.classes)} classes."
    )
    return splits


def _bundle_all(
    method: Method,
    supernet: Supernet,
    splits: Splits,
    out: Path,
    *,
    archs: int,
    training: dict[str, Any],
    smoke: bool,
) -> None:
    """A bundle of every subnet."""
    from supernet.bundling import RECALIBRATION_IMAGES, build_bundle
    from supernet.evaluation.synthesis import SynthesisSettings
    from supernet.training.methods.pss_net import PssNet
    from supernet.training.methods.us_nets import UsNets

    with progress_bar("Bundle") as update:
        bundle = build_bundle(
            supernet,
            splits,
            out,
            name=training["space"],
            archs=archs,
            seed=training["seed"],
            training=training,
            pools=method.pools if isinstance(method, PssNet) else (),
            bn_images=method.settings.bn_images if isinstance(method, UsNets) else RECALIBRATION_IMAGES,
            synthesis=SynthesisSettings(images=8, steps=2) if smoke else None,
            report=lambda stage, done, total: update(done, total, stage),
        )
    note(f"Bundle written to {bundle.path}. Search it with: tailor search --supernet {bundle.path} --table TABLE …")


def _bundle_one(
    method: NetAug | FineTuning,
    supernet: Supernet,
    splits: Splits,
    out: Path,
    *,
    start: Supernet | None,
    training: dict[str, Any],
) -> None:
    """A bundle of the target of a method that trains one network."""
    from supernet.bundling import build_target_bundle, evaluate_alone, half_subnet

    if start is not None:
        before = evaluate_alone(half_subnet(start, method.target), splits, seed=training["seed"])
        training = training | {"evaluated_before": {"top1": before.top1, "images": before.total}}
    bundle = build_target_bundle(
        supernet,
        supernet.space.smallest(),
        splits,
        out / "bundle",
        name=f"{training['space']}_{method.target.arch_id}",
        training=training,
    )
    after = bundle.manifest.training["evaluated"]
    gain = f", {training['evaluated_before']['top1']:.2%} before" if "evaluated_before" in training else ""
    note(f"Bundle written to {bundle.path}: top-1 {after['top1']:.2%} on {after['images']} images{gain}.")


def _bundle_switches(
    method: UsNets, supernet: SwitchableSupernet, splits: Splits, out: Path, *, training: dict[str, Any]
) -> None:
    """A bundle per width of a network with normalisations per width: it has no others."""
    from supernet.bundling import build_target_bundle

    for ratio, arch in zip(method.settings.widths, method.switches, strict=True):
        bundle = build_target_bundle(
            supernet.at(arch),
            arch,
            splits,
            out / f"bundle_{ratio:g}",
            name=f"{training['space']}_{arch.arch_id}",
            training=training,
            bn_images=method.settings.bn_images,
        )
        evaluated = bundle.manifest.training["evaluated"]
        note(f"Bundle written to {bundle.path}: top-1 {evaluated['top1']:.2%} on {evaluated['images']} images.")


def _say_nothing(*_words: object) -> None:
    """What all processes but the first show."""


def _costs_of(tables: list[Path], space: SearchSpace) -> dict[str, AdditiveCost]:
    """Latency on each table's device, by its name."""
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import load_table

    loaded = list(map(load_table, tables))
    costs = {table.device.device_id: LatencyEstimator(table, space).cost for table in loaded}
    if len(costs) < len(loaded):
        raise typer.BadParameter(f"Give one --table per device, got several of {sorted(costs)}.")
    return costs


def check_same_classes(found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a teacher that tells other classes apart; raises `InvalidConfigError`."""
    from supernet.errors import InvalidConfigError

    if tuple(found) != tuple(wanted):
        raise InvalidConfigError(
            f"The teacher's classes are {list(found[:3])} …, {len(found)} in all, the images' {list(wanted[:3])} …, "
            f"{len(wanted)}: choose a bundle that was trained on these."
        )


def check_same_split(earlier: dict[str, Any], settings: TrainConfig, *, dataset: str) -> None:
    """Refuse to start from weights that may have learnt the images which are to judge this run.

    Args:
        earlier: What the manifest of the initial bundle says of its training.
        settings: Of this run.
        dataset: Name of this run's data.

    Raises:
        InvalidConfigError: The same data, held out in another way.
    """
    from supernet.errors import InvalidConfigError

    names = ("seed", "validation_images")
    before, now = ([values.get(name) for name in names] for values in (earlier, settings.to_dict()))
    if earlier.get("dataset") == dataset and before != now:
        raise InvalidConfigError(
            f"The initial bundle learnt '{dataset}' with {list(names)} {before}, the config has {now}: images held out "
            f"here were training images there. Set {list(names)} to {before}."
        )
