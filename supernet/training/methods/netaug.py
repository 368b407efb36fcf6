"""Network augmentation: a tiny network learns inside wider ones, which are thrown away afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.network.extract import extract_subnet
from supernet.spaces.fixed import augment
from supernet.spaces.space import Dimension
from supernet.training.channel_sorting import sort_channels
from supernet.training.initial_weights import take_over_subnet, validate_same_space
from supernet.training.method import Epoch, Phase, PlainMethod, Teacher
from supernet.training.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace
    from supernet.training.checkpoint import RunState


@dataclass(frozen=True)
class NetAugSettings:
    """Settings of network augmentation.

    Attributes:
        target: The wanted network: `smallest` or `largest` of the space, or the JSON file of an arch or of a search's
            answer.
        r: Largest width and expand ratio over the target's.
        s: How many of either above the target's.
        alpha: Weight of the augmented networks' losses.
        augmented_per_step: Augmented networks beside the target in each step.
        width_epochs: Share of the run, from its beginning, in which widths are augmented; expand ratios are throughout.
        distil: Weight of the teacher's soft labels beside the labels; 0 needs no teacher.
    """

    target: str = "smallest"
    r: float = 3.0
    s: int = 3
    alpha: float = 1.0
    augmented_per_step: int = 1
    width_epochs: float = 80 / 155
    distil: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no run can use."""
        for name, low, high in (
            ("alpha", 0, 100),
            ("augmented_per_step", 0, 64),
            ("width_epochs", 0, 1),
            ("distil", 0, 100),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidConfigError(f"'netaug.{name}' must be from {low} to {high}, got {value!r}.")


@dataclass
class NetAug(PlainMethod):
    """The target and a random wider network learn from the same batch; only the target's weights are in both.

    Attributes:
        target_space: That the target belongs to.
        target: The network that is wanted.

    Source: Cai et al. 2022 (arXiv 2110.08890), `netaug/train.py`. Differs: momentum moves along when channels are
    sorted; the first epoch begins without sorting, as do all where no augmented network is trained; every rank draws
    the same networks by the step's own generator.
    """

    target_space: SearchSpace
    target: Arch
    epochs: int
    settings: NetAugSettings = field(default_factory=NetAugSettings)

    @cached_property
    def space(self) -> SearchSpace:
        """The space around the target; its smallest arch is the target."""
        return augment(self.target_space, self.target, self.settings.r, self.settings.s)

    def take_over(self, supernet: Supernet, initial: Supernet) -> None:
        """The target's weights; what is around it starts at random."""
        validate_same_space(initial.space, self.target_space)
        take_over_subnet(supernet, self.space.smallest(), extract_subnet(initial, self.target))

    def phases(self) -> Sequence[Phase]:
        """One."""
        return [Phase("train", self.epochs, teacher=Teacher.GIVEN if self.settings.distil else Teacher.FIRST_PASS)]

    def begin_epoch(self, epoch: Epoch, state: RunState) -> None:
        """While widths are augmented, let the target own the strongest inner channels."""
        # What nobody has trained yet may be strong by chance and would push out the weights that were taken over.
        if epoch.number > 0 and self._augments and self._augments_widths(epoch):
            sort_channels(state.supernet, optimizer=state.optimizer, average=state.average)

    def passes(self, epoch: Epoch, step: int, rng: np.random.Generator) -> Sequence[Pass]:
        """The target, then augmented networks."""
        del step
        alpha, distil = self.settings.alpha, self.settings.distil
        target = Pass(self.space.smallest(), distil=distil)
        if not self._augments:
            return [target]  # nor a draw: the batches are those of training the target alone
        rows = self.space.sample_rows(rng, self.settings.augmented_per_step)
        if not self._augments_widths(epoch):
            rows[:, [slot.dimension is Dimension.WIDTH for slot in self.space.slots]] = 0
        wider = [Pass(arch, labels=alpha, distil=alpha * distil) for arch in self.space.from_rows(rows)]
        return [target, *wider]

    @property
    def _augments(self) -> bool:
        return self.settings.alpha > 0 and self.settings.augmented_per_step > 0

    def _augments_widths(self, epoch: Epoch) -> bool:
        return epoch.number < round(self.settings.width_epochs * epoch.epochs)
