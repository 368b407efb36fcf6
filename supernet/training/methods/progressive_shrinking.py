"""Progressive shrinking: the largest network first, then kernel sizes, depths, inner widths and widths join in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from supernet.errors import InvalidConfigError
from supernet.spaces.space import Dimension
from supernet.training.channel_sorting import sort_channels
from supernet.training.method import Epoch, Phase, PlainMethod, Teacher
from supernet.training.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from supernet.spaces.space import SearchSpace
    from supernet.training.checkpoint import RunState

# The largest choice alone, per dimension that shrinks, in the order they do. The resolution is elastic throughout.
_ORDER = (Dimension.KERNEL_SIZE, Dimension.DEPTH, Dimension.EXPAND_RATIO, Dimension.WIDTH)
_NAMES = dict(zip(_ORDER, ("kernel", "depth", "expand", "width"), strict=True))
_SUBNETS_PER_STEP = dict(zip(_ORDER, (1, 2, 4, 4), strict=True))
# Epochs of the reference: 180 for the largest network, 125 where a dimension gets its last choice, 25 on the way there.
_FULL, _LAST, _ON_THE_WAY = 180, 125, 25
# Peaks of the reference's learning rates, 2.6 for the largest network.
_RATES = {Dimension.KERNEL_SIZE: 0.96 / 2.6}
_RATE_LAST, _RATE_ON_THE_WAY = 0.24 / 2.6, 0.08 / 2.6


@dataclass(frozen=True)
class ProgressiveShrinkingSettings:
    """Settings of progressive shrinking.

    Attributes:
        kd_ratio: Weight of what the teacher says beside the labels. The teacher is the largest network, as its own
            phase left it.
        sort_channels: Bring the most important inner channels to the front before narrower ones join in.
    """

    kd_ratio: float = 1.0
    sort_channels: bool = True

    def __post_init__(self) -> None:
        """Refuse what no run can use."""
        if not 0 <= self.kd_ratio <= 100:
            raise InvalidConfigError(f"'progressive_shrinking.kd_ratio' must be from 0 to 100, got {self.kd_ratio!r}.")


@dataclass(frozen=True, slots=True)
class _Shrinking:
    """A phase and how many of the largest choices it has on offer per dimension."""

    phase: Phase
    kept: Mapping[Dimension, int]
    dimension: Dimension | None


@dataclass
class ProgressiveShrinking(PlainMethod):
    """From the largest network to the whole space.

    Source: Cai et al. 2020 (arXiv 1908.09791), §3.3; `progressive_shrinking.py`, `train_ofa_net.py`. Differs: phases
    follow from the space, their epochs from the reference's shares of the whole run; each starts from the weights of
    the one before and restarts its schedule, where the reference loads its authors' checkpoints.
    """

    space: SearchSpace
    epochs: int
    settings: ProgressiveShrinkingSettings = field(default_factory=ProgressiveShrinkingSettings)

    def __post_init__(self) -> None:
        """Refuse runs that are shorter than their phases."""
        if self.epochs < len(self._plan):
            raise InvalidConfigError(
                f"Progressive shrinking of '{self.space.name}' has {len(self._plan)} phases, so 'epochs' must be at "
                f"least that, got {self.epochs}."
            )

    def phases(self) -> Sequence[Phase]:
        """The largest network, then one phase per number of choices of each elastic dimension."""
        return [shrinking.phase for shrinking in self._plan]

    def begin_phase(self, phase: Phase, state: RunState) -> None:
        """Sort channels where narrower blocks join in, those that already joined in apart from the rest."""
        number = self._number(phase)
        shrinking = self._plan[number]
        if self.settings.sort_channels and shrinking.dimension is Dimension.EXPAND_RATIO:
            sort_channels(state.supernet, least=self.space.least_choices(self._plan[number - 1].kept))

    def passes(self, epoch: Epoch, step: int, rng: np.random.Generator) -> Sequence[Pass]:
        """Archs among the phase's choices, all at one resolution."""
        del step
        shrinking = self._plan[self._number(epoch.phase)]
        n_archs = 1 if shrinking.dimension is None else _SUBNETS_PER_STEP[shrinking.dimension]
        rows = self.space.sample_rows(rng, n_archs, least=self.space.least_choices(shrinking.kept))
        rows[:, 0] = rows[0, 0]
        distil = self.settings.kd_ratio if epoch.phase.teacher is Teacher.LARGEST else 0.0
        return [Pass(arch, distil=distil) for arch in self.space.from_rows(rows)]

    def _number(self, phase: Phase) -> int:
        return [shrinking.phase.name for shrinking in self._plan].index(phase.name)

    @cached_property
    def _plan(self) -> list[_Shrinking]:
        kept = dict.fromkeys(_ORDER, 1)
        steps: list[tuple[str, float, dict[Dimension, int], Dimension | None, int]] = [
            ("full", 1.0, dict(kept), None, _FULL)
        ]
        for dimension in _ORDER:
            most = max((len(slot.choices) for slot in self.space.slots if slot.dimension is dimension), default=1)
            # All kernel sizes join in at once; the others one by one.
            for number in range(most if dimension is Dimension.KERNEL_SIZE else 2, most + 1):
                kept[dimension] = number
                last = number == most
                rate = _RATES.get(dimension, _RATE_LAST if last else _RATE_ON_THE_WAY)
                share = _LAST if last else _ON_THE_WAY
                if most > 1:
                    steps.append((f"{_NAMES[dimension]} {number}", rate, dict(kept), dimension, share))
        lengths = _split(self.epochs, [share for *_, share in steps])
        return [
            _Shrinking(
                Phase(
                    name, epochs, rate, Teacher.LARGEST if dimension and self.settings.kd_ratio else Teacher.FIRST_PASS
                ),
                kept_then,
                dimension,
            )
            for (name, rate, kept_then, dimension, _), epochs in zip(steps, lengths, strict=True)
        ]


def _split(total: int, shares: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to shares, each at least 1, that add up to `total`; there are no more shares."""
    exact = [total * share / sum(shares) for share in shares]
    lengths = [max(1, int(part)) for part in exact]
    while sum(lengths) > total:
        lengths[lengths.index(max(lengths))] -= 1
    by_rest = sorted(range(len(shares)), key=lambda index: lengths[index] - exact[index])
    for index in by_rest[: total - sum(lengths)]:
        lengths[index] += 1
    return lengths
