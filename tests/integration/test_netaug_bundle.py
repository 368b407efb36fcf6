"""A network trained inside wider ones is bundled and deployed without them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from supernet.bundling import build_target_bundle
from supernet.data.batches import Normalisation, evaluation_batches
from supernet.data.images import ImageSet
from supernet.data.splits import Splits
from supernet.deployment import build_deployment
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.network.checkpoint import load_supernet
from supernet.network.extract import extract_subnet
from supernet.predictors.loading import load_predictor
from supernet.search.evolution import evolve
from supernet.search.problem import Constraint, SearchProblem
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.costs import blocks_of, macs, macs_cost, params
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.config import TrainConfig
from supernet.training.loop import train

SPACE = SearchSpace(
    "small",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), act=Act.HSWISH),
        Stage(
            BlockKind.INVERTED, widths=(8, 12), expand_ratios=(2, 3), kernel_sizes=(3,), stride=2, act=Act.RELU, se=True
        ),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(3,), norm=False, bias=True),
    ),
    resolutions=(12,),
)


def draw_images(n: int, seed: int) -> ImageSet:
    """Noise with one of three tints."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    pixels = rng.integers(0, 200, (n, 12, 12, 3)) + 30 * np.eye(3, dtype=np.int64)[labels][:, None, None]
    return ImageSet(pixels.astype(np.uint8), labels, ("red", "green", "blue"))


def test_a_target_trained_inside_wider_networks_is_deployed_without_them(tmp_path: Path) -> None:
    space_file = tmp_path / "space.json"
    space_file.write_text(json.dumps(SPACE.to_dict()), encoding="utf-8")
    splits = Splits(draw_images(600, 1), draw_images(200, 2), draw_images(10, 3))
    config = TrainConfig(str(space_file), "netaug", epochs=3, batch_size=50, learning_rate=0.2)
    supernet = train(config, splits.train, tmp_path)
    assert params(supernet.space, supernet.space.largest()) > 2 * params(SPACE, SPACE.smallest())

    bundle = build_target_bundle(
        supernet, supernet.space.smallest(), splits, tmp_path / "bundle", name="target", training={"seed": 0}
    )
    (target,) = {bundle.space.smallest(), bundle.space.largest()}
    # Nothing of the wider networks is left.
    assert blocks_of(bundle.space, target) == blocks_of(SPACE, SPACE.smallest())
    # Searched like any other, with the accuracy it was evaluated at.
    evaluated = bundle.manifest.training["evaluated"]
    predictor = load_predictor(bundle.predictor_path, bundle.space)
    budget = Constraint("macs", macs_cost(bundle.space), 2 * macs(bundle.space, target))
    found = evolve(SearchProblem(bundle.space, predictor.predict, (budget,)), evaluations=100, seed=0)
    assert (found.arch, predictor.predict(bundle.space.to_rows([target]))) == (target, [evaluated["top1"]])
    assert evaluated["images"] == len(splits.validation)
    assert evaluated["top1"] > 0.6  # three classes

    manifest = build_deployment(bundle.path, target, tmp_path / "model")
    assert manifest["bn_recalibration"] == {"source": "weights", "images": 0}
    subnet = extract_subnet(load_supernet(bundle.path), target)
    normalisation = Normalisation(bundle.manifest.mean, bundle.manifest.std)
    batches = evaluation_batches(splits.validation, normalisation, resolution=target.resolution, batch_size=250)
    assert evaluate_accuracy(subnet, batches).top1 == pytest.approx(evaluated["top1"], abs=2e-3)
