"""A space, a data set and settings that train in a fraction of a second."""

from __future__ import annotations

import numpy as np
import pytest

from supernet.data.images import ImageSet
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.config import TrainConfig


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing would take most of the time of runs as short as these."""
    if request.path.name != "test_log.py":
        monkeypatch.setattr("supernet.training.log.draw_curves", lambda *_: None)


@pytest.fixture
def tiny_space(monkeypatch: pytest.MonkeyPatch) -> SearchSpace:
    """Known to configs and to the loop under the name `tiny`."""
    space = SearchSpace(
        "tiny",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(
                BlockKind.INVERTED,
                widths=(8,),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(2, 3),
                act=Act.RELU,
                se=True,
                shortcut=True,
            ),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(10,), norm=False, bias=True),
        ),
        resolutions=(8, 12),
    )

    def load(name: str) -> SearchSpace:
        assert name == "tiny"
        return space

    monkeypatch.setattr("supernet.training.loop.find_space", load)
    monkeypatch.setattr("supernet.training.config.find_space", load)
    return space


@pytest.fixture
def images() -> ImageSet:
    """Two classes that one look at the colour tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 80, (40, 12, 12, 3)).astype(np.uint8)
    pixels[labels == 1, :, :, 0] += 150
    return ImageSet(pixels, labels.astype(np.int64), ("grey", "red"))


@pytest.fixture
def config(tiny_space: SearchSpace) -> TrainConfig:
    return TrainConfig(tiny_space.name, epochs=3, batch_size=8, learning_rate=0.1, validation_images=1)
