"""`tailor train`: what it refuses before it trains."""

from __future__ import annotations

import pytest

from service.commands.training import check_same_classes, check_same_split
from supernet.errors import InvalidConfigError
from supernet.training.config import TrainConfig

CONFIG = TrainConfig("cifar_mbv3", seed=1, validation_images=5000)


def test_weights_that_learnt_the_validation_images_are_refused() -> None:
    earlier = {"dataset": "photos", "seed": 0, "validation_images": 5000}
    with pytest.raises(InvalidConfigError, match=r"learnt 'photos' with .* \[0, 5000\], the config has \[1, 5000\]"):
        check_same_split(earlier, CONFIG, dataset="photos")


@pytest.mark.parametrize("earlier", [{"dataset": "photos", "seed": 1, "validation_images": 5000}, {"dataset": "x"}, {}])
def test_the_same_split_or_other_images_are_accepted(earlier: dict[str, object]) -> None:
    check_same_split(earlier, CONFIG, dataset="photos")


def test_a_teacher_of_other_classes_is_refused() -> None:
    check_same_classes(("cat", "dog"), ("cat", "dog"))
    with pytest.raises(InvalidConfigError, match=r"teacher's classes are \['cat', 'dog'\] …, 2 in all, the images'"):
        check_same_classes(("cat", "dog"), ("dog", "cat"))
