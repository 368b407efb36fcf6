"""`tailor train`: a config and images to a bundle."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.output import note, progress_bar, validate_writable

if TYPE_CHECKING:
    from supernet.spaces.costs import AdditiveCost
    from supernet.spaces.space import SearchSpace
    from supernet.training.config import TrainConfig


def train(
    config: Annotated[Path, typer.Argument(help="TOML file of settings; see examples/train/.")],
    data: Annotated[Path, typer.Option(help="Folder of parquet files, or with one folder of images per class.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, population and bundle.")] = Path(
        "runs/train"
    ),
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    initial: Annotated[
        str | None, typer.Option(help="Bundle to start from, a folder or a shipped name; by default random weights.")
    ] = None,
    population: Annotated[int, typer.Option(min=20, help="Subnets to evaluate for the accuracy predictor.")] = 250,
    dataset: Annotated[
        str | None, typer.Option(help="What the manifest calls the data; default the folder's name.")
    ] = None,
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
    validate_writable(out)  # before seconds of imports
    import torch

    from supernet.bundle import open_bundle
    from supernet.bundling import build_bundle, build_target_bundle
    from supernet.data.splits import load_splits
    from supernet.spaces.presets import find_space
    from supernet.training.config import load_config
    from supernet.training.loop import StepReport
    from supernet.training.loop import train as train_supernet
    from supernet.training.ranks import Ranks

    if threads:
        torch.set_num_threads(threads)
    settings = load_config(config)
    dataset_name = dataset or data.resolve().name
    space = find_space(settings.space)
    size = max(space.resolutions)
    note(f"Reading {data} …")
    splits = load_splits(data, size=size, validation_images=settings.validation_images, seed=settings.seed)
    note(
        f"{len(splits.train)} training and {len(splits.validation)} validation images "
        f"of {len(splits.train.classes)} classes."
    )
    start = open_bundle(initial) if initial else None
    origin: dict[str, Any] = {}
    if start is not None:
        check_same_split(start.manifest.training, settings, dataset=dataset_name)
        origin = {"initial_weights": start.manifest.parts["weights"]["sha256"]}
    ranks = Ranks.join()
    with progress_bar("Training") if ranks.is_first else nullcontext(_say_nothing) as update:

        def show(step: StepReport) -> None:
            update(step.step, step.steps, f"epoch {step.epoch}, loss {step.loss:.3f}")

        supernet = train_supernet(
            settings,
            splits.train,
            out,
            resume=resume,
            initial_weights=start.weights_path if start else None,
            resources=_costs_of(table or [], space.with_classes(len(splits.train.classes))),
            device=device or ranks.device(),
            report=show,
        )
    if not ranks.is_first:
        return
    supernet.cpu()
    origin |= {"dataset": dataset_name, "images": len(splits.train), **settings.to_dict(), "space": space.name}
    if settings.method == "netaug":
        bundle = build_target_bundle(
            supernet, splits, out, name=f"{space.name}_netaug", seed=settings.seed, training=origin
        )
        evaluated = bundle.manifest.training["evaluated"]
        note(f"Bundle written to {bundle.path}: top-1 {evaluated['top1']:.2%} on {evaluated['images']} images.")
        return
    with progress_bar("Bundle") as update:
        bundle = build_bundle(
            supernet,
            splits,
            out,
            name=space.name,
            archs=population,
            seed=settings.seed,
            training=origin,
            report=lambda stage, done, total: update(done, total, stage),
        )
    note(f"Bundle written to {bundle.path}. Search it with: tailor search --supernet {bundle.path} --table TABLE …")


def _say_nothing(_done: int, _total: int, _remark: str) -> None:
    """What all processes but the first show."""


def _costs_of(tables: list[Path], space: SearchSpace) -> dict[str, AdditiveCost]:
    """Latency on each table's device, by its name."""
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import load_table

    loaded = map(load_table, tables)
    return {table.device.device_id: LatencyEstimator(table, space).cost for table in loaded}


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
