"""A trained supernet to a bundle: weights, anchor statistics, evaluated population, predictor, manifest."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from supernet.bundle import PARTS, Bundle, hash_file, write_manifest
from supernet.data.batches import Normalisation, evaluation_batches, image_batches
from supernet.errors import InvalidConfigError
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.calibration import (
    load_calibration,
    recalibrate_from_anchors,
    record_calibration,
    save_calibration,
)
from supernet.evaluation.population import BATCH_SIZE, evaluate_population
from supernet.evaluation.statistics import measure_statistics, recalibrate_bn
from supernet.evaluation.synthesis import PatchStatistics, SynthesisSettings, synthesise_images
from supernet.network.checkpoint import load_weights, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import embed_subnet, extract_subnet
from supernet.pools.choice import choose_pools
from supernet.pools.storage import save_pools
from supernet.predictors.accuracy import LEAST_ARCHS
from supernet.predictors.evaluated import EvaluatedAccuracies
from supernet.predictors.fitting import fit_predictor
from supernet.spaces.costs import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from supernet.data.images import ImageSet
    from supernet.data.splits import Splits
    from supernet.evaluation.accuracy import AccuracyResult
    from supernet.evaluation.statistics import Statistics
    from supernet.network.subnet import Subnet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace
    from supernet.training.methods.pss_net import Pool

RECALIBRATION_IMAGES = 2000
RANDOM_ANCHORS_PER_RESOLUTION = 2


def build_bundle(
    supernet: Supernet,
    splits: Splits,
    run_dir: Path,
    *,
    name: str,
    archs: int,
    seed: int,
    training: dict[str, Any],
    pools: Sequence[Pool] = (),
    bn_images: int = RECALIBRATION_IMAGES,
    synthesis: SynthesisSettings | None = None,
    report: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> Bundle:
    """Write the bundle of a trained supernet to `run_dir / "bundle"`. A second call resumes the population.

    A few anchor subnets meet real images; from what these leave in them images are synthesised, and from these every
    other subnet is recalibrated, here for the population and later at the user's.

    Args:
        supernet: Trained; from here on its weights are the bundle's, rounded to half precision.
        splits: The validation images judge the population; training images give BN statistics.
        run_dir: Gets the population as CSV and the synthesised images beside the bundle.
        name: Of the supernet.
        archs: How many to evaluate for the predictor, largest and smallest included; all where there are no more.
            In a space of fewer than `LEAST_ARCHS` none is predicted.
        seed: Of the population and the anchors.
        training: What the manifest says of the weights' origin.
        pools: Of prioritized subnet sampling; the best subnet of each goes into the bundle with statistics of its own.
        bn_images: Training images that give BN statistics.
        synthesis: How many images are made and how long, if not as usual.
        report: Called with the stage, and how many of how many steps or archs of it are done.

    Raises:
        InvalidConfigError: Fewer archs than a predictor needs; nothing is written.
    """
    space, out = supernet.space, run_dir / "bundle"
    if archs < LEAST_ARCHS:
        raise InvalidConfigError(f"A predictor needs a population of at least {LEAST_ARCHS} archs, got {archs}.")
    rng = np.random.default_rng(seed)
    recalibration = splits.train.take(rng.permutation(len(splits.train))[:bn_images])
    anchors, chosen = anchor_archs(space, rng), population_archs(space, rng, archs)

    out.mkdir(parents=True, exist_ok=True)
    save_tensors(out / PARTS["weights"], half_weights(supernet), space)
    load_weights(supernet, out / PARTS["weights"])

    normalisation = Normalisation(*splits.train.normalisation())
    weights_hash = hash_file(out / PARTS["weights"])[:12]
    real = [
        (
            arch,
            measure_statistics(
                extract_subnet(supernet, arch),
                image_batches(recalibration, normalisation, resolution=arch.resolution),
            ),
        )
        for arch in anchors
    ]
    images = load_or_synthesise(
        supernet,
        real,
        recalibration,
        run_dir / f"synthetic_{weights_hash}.npy",
        normalisation=normalisation,
        settings=synthesis or SynthesisSettings(),
        seed=seed,
        report=lambda done, total: report("synthesised images", done, total),
    )
    calibration = record_calibration(supernet, real, images, normalisation=normalisation)
    save_calibration(out / PARTS["calibration"], calibration)
    calibration = load_calibration(out / PARTS["calibration"], space)

    choices = choose_pools(
        supernet,
        pools,
        recalibration=recalibration,
        validation=splits.validation,
        normalisation=normalisation,
        report=lambda done, total: report("pools", done, total),
    )
    if choices:
        save_pools(out / PARTS["pools"], choices, space)
    else:
        (out / PARTS["pools"]).unlink(missing_ok=True)  # an earlier run's

    population = evaluate_population(
        supernet,
        chosen,
        # Other weights have other accuracies, so the file carries their hash.
        run_dir / f"population_{weights_hash}.csv",
        # As users get them, so that the predictor's residuals hold what recalibration without real images costs.
        recalibrate=lambda subnet, arch: recalibrate_from_anchors(subnet, arch, calibration),
        images=splits.validation,
        normalisation=normalisation,
        report=lambda done, total: report("population", done, total),
    )
    rows = space.to_rows([entry.arch for entry in population])
    top1 = np.array([entry.result.top1 for entry in population])
    n_images = len(splits.validation)
    fit_predictor(space, rows, top1, n_images=n_images, rng=rng).save(out / PARTS["predictor"])
    return write_manifest(
        out,
        name=name,
        space=space,
        classes=splits.train.classes,
        normalisation=(normalisation.mean, normalisation.std),
        training={**training, "predictor": {"archs": len(population), "images": n_images}},
        versions={"tailor": version("tailor-nas"), "torch": str(torch.__version__).split("+")[0]},
    )


def build_target_bundle(
    supernet: Supernet,
    target: Arch,
    splits: Splits,
    out: Path,
    *,
    name: str,
    training: dict[str, Any],
    bn_images: int = RECALIBRATION_IMAGES,
) -> Bundle:
    """Write the bundle of one network of a supernet.

    Other archs are left out. The network keeps BN statistics of real images with its weights, so it needs no
    calibration, and its accuracy is evaluated instead of predicted.

    Args:
        supernet: Trained.
        target: The network that is wanted.
        splits: The validation images judge the network; training images give BN statistics.
        out: Folder of the bundle.
        name: Of the network and of its search space.
        training: What the manifest says of the weights' origin, with the `seed` of the images for BN statistics.
        bn_images: How many of them.
    """
    normalisation = Normalisation(*splits.train.normalisation())
    # Weights are rounded first: statistics and accuracy are those of what users get.
    subnet = half_subnet(supernet, target)
    result = evaluate_alone(subnet, splits, seed=training["seed"], bn_images=bn_images)
    blocks = blocks_of(supernet.space, target)
    alone = embed_subnet(subnet, blocks, name=name, norm_eps=supernet.space.norm_eps)
    space = alone.space
    out.mkdir(parents=True, exist_ok=True)
    for file in PARTS.values():
        (out / file).unlink(missing_ok=True)  # an earlier run's
    save_tensors(out / PARTS["weights"], half_weights(alone), space)
    accuracies = EvaluatedAccuracies(space, space.to_rows([space.smallest()]), np.array([result.top1]), result.total)
    accuracies.save(out / PARTS["predictor"])
    return write_manifest(
        out,
        name=name,
        space=space,
        classes=splits.train.classes,
        normalisation=(normalisation.mean, normalisation.std),
        training={**training, "evaluated": {"top1": result.top1, "images": result.total}},
        versions={"tailor": version("tailor-nas"), "torch": str(torch.__version__).split("+")[0]},
    )


def half_subnet(supernet: Supernet, arch: Arch) -> Subnet:
    """A subnet whose weights are rounded to half precision, as bundles hold them."""
    subnet = extract_subnet(supernet, arch)
    subnet.load_state_dict({name: _halved(name, tensor).float() for name, tensor in subnet.state_dict().items()})
    return subnet


def evaluate_alone(
    subnet: Subnet, splits: Splits, *, seed: int, bn_images: int = RECALIBRATION_IMAGES
) -> AccuracyResult:
    """Recalibrate a subnet with training images, in place, and evaluate it on the validation images."""
    normalisation = Normalisation(*splits.train.normalisation())
    rng = np.random.default_rng(seed)
    images = splits.train.take(rng.permutation(len(splits.train))[:bn_images])
    resolution = subnet.resolution
    recalibrate_bn(subnet, image_batches(images, normalisation, resolution=resolution))
    batches = evaluation_batches(splits.validation, normalisation, resolution=resolution, batch_size=BATCH_SIZE)
    return evaluate_accuracy(subnet, batches)


def load_or_synthesise(
    supernet: Supernet,
    anchors: Sequence[tuple[Arch, Statistics]],
    real_images: ImageSet,
    path: Path,
    *,
    normalisation: Normalisation,
    settings: SynthesisSettings,
    seed: int,
    report: Callable[[int, int], None],
) -> NDArray[np.uint8]:
    """Images for recalibration without real ones, made once and kept at `path`; see `synthesise_images`."""
    if path.exists():
        images: NDArray[np.uint8] = np.load(path)
        return images
    size = max(supernet.space.resolutions)
    images = synthesise_images(
        supernet,
        anchors,
        PatchStatistics.of(image_batches(real_images, normalisation, resolution=size)),
        normalisation=normalisation,
        settings=settings,
        generator=torch.Generator().manual_seed(seed),
        report=report,
    )
    partial = path.with_suffix(".partial.npy")
    np.save(partial, images)
    partial.replace(path)
    return images


def half_weights(supernet: Supernet) -> dict[str, Tensor]:
    """Weights in half precision, which halves the bundle; statistics of normalisation stay as they are."""
    return {name: _halved(name, tensor) for name, tensor in supernet.state_dict().items()}


def _halved(name: str, tensor: Tensor) -> Tensor:
    return tensor if "running_" in name else tensor.half().contiguous()


def anchor_archs(space: SearchSpace, rng: np.random.Generator) -> list[Arch]:
    """At every resolution the largest, the smallest and a few random archs."""
    ends = space.to_rows([space.largest(), space.smallest()])
    drawn = space.sample_rows(rng, RANDOM_ANCHORS_PER_RESOLUTION * len(space.resolutions))
    anchors = []
    for index, part in enumerate(np.split(drawn, len(space.resolutions))):
        rows = np.vstack([ends, part])
        rows[:, 0] = index
        anchors += space.from_rows(rows)
    return anchors


def population_archs(space: SearchSpace, rng: np.random.Generator, n_archs: int) -> list[Arch]:
    """Distinct archs: largest and smallest, then uniform draws; no more than there are."""
    archs = dict.fromkeys([space.largest(), space.smallest()])
    n_archs = min(n_archs, space.size())
    while len(archs) < n_archs:
        archs.update(dict.fromkeys(space.from_rows(space.sample_rows(rng, n_archs))))
    return list(archs)[:n_archs]
