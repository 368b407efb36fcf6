"""A finished run on textures, with real parts throughout and a space small enough for seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from supernet.bundle import Bundle, open_bundle
from supernet.bundling import build_bundle
from supernet.data.batches import Normalisation
from supernet.data.images import ImageSet
from supernet.data.splits import Splits
from supernet.network.elastic_net import Supernet
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.config import TrainConfig
from supernet.training.loop import train
from supernet.training.methods.pss_net import Pool

CLASSES = ("ant", "bee", "cat", "dog")
SPACE = SearchSpace(
    "tiny_integration",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), act=Act.HSWISH),
        Stage(
            BlockKind.INVERTED,
            widths=(8,),
            depths=(1, 2),
            kernel_sizes=(3, 5),
            expand_ratios=(1, 2),
            stride=2,
            act=Act.RELU,
            se=True,
            shortcut=True,
        ),
        Stage(BlockKind.CONV, widths=(16,), act=Act.HSWISH),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(len(CLASSES),), norm=False, bias=True),
    ),
    resolutions=(12, 16),
)
SEED = 3
POOLED = SPACE.from_rows(SPACE.sample_rows(np.random.default_rng(8), 2))


def draw_images(n: int, seed: int) -> ImageSet:
    """Four textures under strong noise: stripes along, stripes across, checks and a plain tint."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    rows, columns = np.indices((16, 16)) // 2 % 2
    patterns = np.stack([rows, columns, rows ^ columns, np.full((16, 16), 0.5)]) - 0.5
    contrast = rng.uniform(10, 90, (n, 1, 1, 1))
    values = 120 + contrast * patterns[labels][..., None] + rng.normal(0, 40, (n, 16, 16, 3))
    values += rng.normal(0, 20, (n, 1, 1, 3))
    return ImageSet(np.clip(values, 0, 255).astype(np.uint8), labels, CLASSES)


@pytest.fixture(scope="session")
def splits() -> Splits:
    return Splits(draw_images(1500, 1), draw_images(500, 2), draw_images(1000, 3))


@pytest.fixture(scope="session")
def run_dir(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: trained for three epochs, bundled with a population of 24 and two pools."""
    run_dir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("config", "loop"):
            patch.setattr(f"supernet.training.{module}.find_space", lambda _name: SPACE)
        config = TrainConfig(SPACE.name, epochs=3, batch_size=50, learning_rate=0.2, seed=SEED)
        supernet = train(config, splits.train, run_dir)
    small, large = POOLED
    build_bundle(
        supernet,
        splits,
        run_dir,
        name="tiny",
        archs=24,
        seed=SEED,
        training={"dataset": "textures", "epochs": 3},
        pools=[
            Pool("macs", 0.0, 1e5, SPACE.to_rows([small]), {small: -1.0}),
            Pool("macs", 1e5, 1e6, SPACE.to_rows([large]), {large: -0.5}),
        ],
    )
    return run_dir


@pytest.fixture(scope="session")
def bundle(run_dir: Path) -> Bundle:
    return open_bundle(run_dir / "bundle")


@pytest.fixture(scope="session")
def normalisation(bundle: Bundle) -> Normalisation:
    return Normalisation(bundle.manifest.mean, bundle.manifest.std)


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return SPACE


@pytest.fixture(scope="session")
def pooled() -> list[Arch]:
    """The subnets of the run's two pools."""
    return POOLED


@pytest.fixture(scope="session")
def seed() -> int:
    """Of the run and its bundle."""
    return SEED


@pytest.fixture
def untrained() -> Supernet:
    return Supernet(SPACE, torch.Generator().manual_seed(0))
