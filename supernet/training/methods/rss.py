"""Random subnet sampling: no teacher, no phases, the whole space from the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.training.method import Epoch, Phase, PlainMethod
from supernet.training.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.spaces.arch import Arch
    from supernet.spaces.space import Rows, SearchSpace

LEVELS = ("block", "stage", "network")


@dataclass(frozen=True)
class RssSettings:
    """Settings of random subnet sampling.

    Attributes:
        steps_per_subnet: Steps an arch stays; 0 for a whole epoch, as the released code does.
        subnets_per_step: Archs in each step, their gradients summed.
        level: What draws on its own: every `block`, every `stage`, or the `network` as a whole (one kernel size, one
            expand ratio and one depth for all).
    """

    steps_per_subnet: int = 1
    subnets_per_step: int = 1
    level: str = "block"

    def __post_init__(self) -> None:
        """Refuse what no run can use."""
        if self.level not in LEVELS:
            raise InvalidConfigError(f"'rss.level' must be one of {list(LEVELS)}, got {self.level!r}.")
        if self.steps_per_subnet < 0 or self.subnets_per_step < 1:
            raise InvalidConfigError(
                f"'rss.steps_per_subnet' must be at least 0 and 'rss.subnets_per_step' at least 1, got "
                f"{self.steps_per_subnet} and {self.subnets_per_step}."
            )


@dataclass
class RandomSubnetSampling(PlainMethod):
    """Plain cross-entropy on randomly drawn archs.

    Source: the RSS-Interference code (CVPR workshops 2022), "RSS", "RSS Block", "RSS Network" and their
    per-batch forms; `block` with a whole epoch per arch is its default. Differs: resolutions are drawn as well.
    """

    space: SearchSpace
    epochs: int
    settings: RssSettings = field(default_factory=RssSettings)
    _current: list[Arch] = field(default_factory=list, init=False)

    def phases(self) -> Sequence[Phase]:
        """One."""
        return [Phase("train", self.epochs)]

    def passes(self, epoch: Epoch, step: int, rng: np.random.Generator) -> Sequence[Pass]:
        """The archs of the step, new ones where the last have stayed long enough."""
        del epoch
        stay = self.settings.steps_per_subnet
        if step == 0 or (stay and step % stay == 0):
            rows = sample_at_level(self.space, rng, self.settings.subnets_per_step, level=self.settings.level)
            self._current = self.space.from_rows(rows)
        return [Pass(arch) for arch in self._current]


def sample_at_level(space: SearchSpace, rng: np.random.Generator, n_archs: int, *, level: str) -> Rows:
    """Draw archs whose blocks, stages or all parts choose on their own; the resolution always does.

    Slots that choose together take the same place in their lists of choices, in proportion where their lengths differ.

    Returns:
        `(n_archs, n_slots)` canonical rows.
    """
    if level == "block":
        return space.sample_rows(rng, n_archs)
    groups: dict[tuple[str, int], int] = {}
    group_of = [
        groups.setdefault((slot.dimension, slot.stage if level == "stage" else min(slot.stage, 0)), len(groups))
        for slot in space.slots
    ]
    places = rng.random((n_archs, len(groups)))[:, group_of]
    counts = np.array([len(slot.choices) for slot in space.slots])
    return space.canonicalize_rows((places * counts).astype(np.int16))
