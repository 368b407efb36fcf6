"""Population: many archs evaluated one by one, each result appended to a CSV so that a run can be resumed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from supernet.data.batches import Normalisation, evaluation_batches, image_batches
from supernet.errors import InvalidConfigError
from supernet.evaluation.accuracy import AccuracyResult, evaluate_accuracy
from supernet.evaluation.statistics import recalibrate_bn
from supernet.network.extract import extract_subnet
from supernet.spaces.arch import Arch
from supernet.spaces.arch_csv import arch_columns, read_archs, write_arch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from supernet.data.images import ImageSet
    from supernet.network.elastic_net import Supernet
    from supernet.spaces.space import SearchSpace

# Small enough for the caches: a fifth faster than 250.
BATCH_SIZE = 50


# Gives an extracted subnet BN statistics of its own, in place.
Recalibrate = Callable[[nn.Module, Arch], None]


@dataclass(frozen=True)
class EvaluatedArch:
    """An arch with its accuracy as a fraction."""

    arch: Arch
    result: AccuracyResult


def evaluate_arch(
    supernet: Supernet, arch: Arch, *, recalibrate: Recalibrate, images: ImageSet, normalisation: Normalisation
) -> AccuracyResult:
    """Extract a subnet, recalibrate and evaluate it.

    Args:
        supernet: Trained.
        arch: Any arch of its space.
        recalibrate: Gives the subnet BN statistics of its own, in place.
        images: To classify; must not be training images.
        normalisation: Of the images.
    """
    subnet = extract_subnet(supernet, arch)
    recalibrate(subnet, arch)
    batches = evaluation_batches(images, normalisation, resolution=arch.resolution, batch_size=BATCH_SIZE)
    return evaluate_accuracy(subnet, batches)


def recalibrate_with(images: ImageSet, normalisation: Normalisation) -> Recalibrate:
    """Recalibration with real images, in random order of classes."""
    return lambda subnet, arch: recalibrate_bn(subnet, image_batches(images, normalisation, resolution=arch.resolution))


def evaluate_population(
    supernet: Supernet,
    archs: Sequence[Arch],
    out: Path,
    *,
    recalibrate: Recalibrate,
    images: ImageSet,
    normalisation: Normalisation,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[EvaluatedArch]:
    """Evaluate archs that the file does not hold yet; each result is on disk before the next arch starts.

    Args:
        supernet: Trained.
        archs: What to evaluate, without repeats.
        out: CSV of archs with `correct`, `images` and `top1_percent`; created or continued.
        recalibrate: See `evaluate_arch`.
        images: See `evaluate_arch`.
        normalisation: See `evaluate_arch`.
        report: Called with how many of how many archs are done.

    Returns:
        The results of `archs`, in order.

    Raises:
        InvalidArchError: As `load_population`, or an arch lies outside the space.
        InvalidConfigError: As `load_population`, or the file comes from another number of images.
    """
    space = supernet.space
    _drop_cut_line(out)
    known = {entry.arch: entry for entry in load_population(out, space)} if out.exists() else {}
    if strangers := {entry.result.total for entry in known.values()} - {len(images)}:
        raise InvalidConfigError(
            f"'{out}' was evaluated on {strangers.pop()} images, now there are {len(images)}. Choose another file."
        )
    columns = [*arch_columns(space), "correct", "images", "top1_percent"]
    if not known:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns, lineterminator="\n").writeheader()
    results = []
    for index, arch in enumerate(map(space.canonicalize, archs)):
        if arch not in known:
            result = evaluate_arch(supernet, arch, recalibrate=recalibrate, images=images, normalisation=normalisation)
            counts = {"correct": result.correct, "images": result.total, "top1_percent": f"{100 * result.top1:.3f}"}
            with out.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerow(write_arch(space, arch) | counts)
            known[arch] = EvaluatedArch(arch, result)
        results.append(known[arch])
        report(index + 1, len(archs))
    return results


def load_population(path: Path, space: SearchSpace) -> list[EvaluatedArch]:
    """Read the file of `evaluate_population`.

    Raises:
        InvalidArchError: A row lies outside the space.
        InvalidConfigError: A row has no counts, or such as no evaluation gives.
    """
    entries = []
    for arch, row in read_archs(path, space):
        try:
            entries.append(EvaluatedArch(arch, AccuracyResult(int(row["correct"]), int(row["images"]))))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError(
                f"'{path}' needs whole numbers in the columns 'correct' and 'images': {error!r}."
            ) from error
    return entries


def _drop_cut_line(path: Path) -> None:
    """Remove a last line that a crash cut short: cut in a number, it would still parse."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
