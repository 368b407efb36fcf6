"""Fine-tuning: one subnet of a trained supernet goes on learning by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from supernet.errors import InvalidConfigError
from supernet.network.extract import extract_subnet
from supernet.spaces.costs import blocks_of
from supernet.spaces.fixed import space_of_blocks
from supernet.training.initial_weights import take_over_subnet, validate_same_space
from supernet.training.method import Epoch, Phase, PlainMethod, Teacher
from supernet.training.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace


@dataclass(frozen=True)
class FineTuningSettings:
    """Settings of fine-tuning.

    Attributes:
        target: The subnet: `smallest` or `largest` of the space, or the JSON file of an arch or of a search's answer.
        distil: Weight of the teacher's soft labels beside the labels; 0 needs no teacher.
    """

    target: str = "smallest"
    distil: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no run can use."""
        if not 0 <= self.distil <= 100:
            raise InvalidConfigError(f"'fine_tuning.distil' must be from 0 to 100, got {self.distil!r}.")


@dataclass
class FineTuning(PlainMethod):
    """The target alone, from its weights in the initial supernet.

    Attributes:
        target_space: That the target belongs to.
        target: The subnet that is wanted.

    Source: Cai et al. 2020 (arXiv 1908.09791), §3.4: a searched subnet is fine-tuned for 25 or 75 epochs.
    """

    target_space: SearchSpace
    target: Arch
    epochs: int
    settings: FineTuningSettings = field(default_factory=FineTuningSettings)

    @cached_property
    def space(self) -> SearchSpace:
        """The space of the target alone."""
        blocks = blocks_of(self.target_space, self.target)
        name = f"{self.target_space.name}_{self.target.arch_id}"
        return space_of_blocks(name, blocks, norm_eps=self.target_space.norm_eps)

    def take_over(self, supernet: Supernet, initial: Supernet) -> None:
        """The target's weights."""
        validate_same_space(initial.space, self.target_space)
        take_over_subnet(supernet, self.space.smallest(), extract_subnet(initial, self.target))

    def phases(self) -> Sequence[Phase]:
        """One."""
        return [Phase("train", self.epochs, teacher=Teacher.GIVEN if self.settings.distil else Teacher.FIRST_PASS)]

    def passes(self, epoch: Epoch, step: int, rng: np.random.Generator) -> Sequence[Pass]:
        """The target."""
        del epoch, step, rng
        return [Pass(self.space.smallest(), distil=self.settings.distil)]
