"""Universally slimmable networks: the sandwich rule with in-place distillation, on any space."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.network.elastic_net import Supernet
from supernet.network.switchable import SwitchableSupernet
from supernet.spaces.ratios import arch_near_ratios, least_ratios
from supernet.training.initial_weights import take_over_supernet
from supernet.training.method import Epoch, Phase, PlainMethod
from supernet.training.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

LEAST_SUBNETS = 2


@dataclass(frozen=True)
class UsNetsSettings:
    """Settings of the sandwich rule.

    Attributes:
        subnets_per_step: Archs in each step, the largest and the smallest among them.
        width_min: Smallest ratio of the widths; 0 for the space's own.
        width_divisor: Widths are rounded to multiples of it; 0 for the space's own.
        nonuniform: Whether every layer draws a width of its own, instead of one ratio for the network.
        distil: Whether all but the largest learn from the largest alone, and not from the labels.
        widths: Train these ratios in every step, from wide to narrow, instead of random ones: slimmable networks with
            switches.
        bn: Whether all archs have `shared` batch normalisations, or each of `widths` its own, `switchable` ones. Such a
            network is bundled once per width.
        bn_images: Training images that give an arch its BN statistics after training.
    """

    subnets_per_step: int = 4
    width_min: float = 0.0
    width_divisor: int = 0
    nonuniform: bool = False
    distil: bool = True
    widths: tuple[float, ...] = ()
    bn: str = "shared"
    bn_images: int = 2000

    def __post_init__(self) -> None:
        """Refuse what no run can use."""
        if self.subnets_per_step < LEAST_SUBNETS:
            raise InvalidConfigError(
                "'us_nets.subnets_per_step' counts the largest and the smallest, so it is at least "
                f"{LEAST_SUBNETS}, got {self.subnets_per_step}."
            )
        if not 0 <= self.width_min < 1 or self.width_divisor < 0:
            raise InvalidConfigError(
                f"'us_nets.width_min' must be from 0 to below 1 and 'us_nets.width_divisor' at least 0, got "
                f"{self.width_min} and {self.width_divisor}."
            )
        if self.bn not in ("shared", "switchable") or self.bn_images < 2:
            raise InvalidConfigError(
                "'us_nets.bn' must be 'shared' or 'switchable' and 'us_nets.bn_images' at least 2, got "
                f"{self.bn!r} and {self.bn_images}."
            )
        if self.bn == "switchable" and not self.widths:
            raise InvalidConfigError("Switchable normalisation is per width: list the ratios in 'us_nets.widths'.")
        if self.widths and (self.width_min or self.nonuniform):
            raise InvalidConfigError(
                "'us_nets.widths' are all that is trained: leave out 'width_min' and 'nonuniform'."
            )
        if list(self.widths) != sorted(set(self.widths)) or (self.widths and self.widths[-1] != 1):
            raise InvalidConfigError(f"'us_nets.widths' must ascend to 1 without repeats, got {list(self.widths)}.")


@dataclass
class UsNets(PlainMethod):
    """Each step runs the largest arch, the smallest and random ones between them.

    On spaces with elastic widths one ratio for the whole network is drawn, and the widths on offer nearest to it run;
    all other slots draw on their own.

    Source: Yu & Huang 2019 (arXiv 1903.05134), `train.py` of slimmable_networks. Differs: where images may have several
    resolutions one is drawn per step.
    """

    space: SearchSpace
    epochs: int
    settings: UsNetsSettings = field(default_factory=UsNetsSettings)

    def __post_init__(self) -> None:
        """Refuse settings that the space cannot follow."""
        settings = self.settings
        if not self._least:
            if settings.width_min or settings.width_divisor or settings.widths or settings.nonuniform:
                raise InvalidConfigError(
                    f"'{self.space.name}' has no elastic widths: leave out 'us_nets.width_min', "
                    "'us_nets.width_divisor', 'us_nets.nonuniform' and 'us_nets.widths'."
                )
            return
        least = min(self._least)
        if settings.width_min and settings.width_min < least:
            raise InvalidConfigError(
                f"'us_nets.width_min' is a ratio of {settings.width_min}, '{self.space.name}' offers {least:g} to 1."
            )
        if settings.widths and (settings.widths[0] < least or len(set(self.switches)) < len(settings.widths)):
            raise InvalidConfigError(
                f"'us_nets.widths' must be ratios from {least:g} to 1 that '{self.space.name}' tells apart, got "
                f"{list(settings.widths)}: they give the widths {[arch.widths for arch in self.switches]}."
            )

    def build_supernet(self, generator: torch.Generator) -> Supernet:
        """With normalisations per width where they are switchable."""
        if self.settings.bn == "switchable":
            return SwitchableSupernet(self.space, generator, self.switches)
        return Supernet(self.space, generator)

    def take_over(self, supernet: Supernet, initial: Supernet) -> None:
        """All weights; each width starts with the normalisations that they shared."""
        take_over_supernet(supernet, initial)
        if isinstance(supernet, SwitchableSupernet):
            supernet.share_norms()

    def phases(self) -> Sequence[Phase]:
        """One."""
        return [Phase("train", self.epochs)]

    def passes(self, epoch: Epoch, step: int, rng: np.random.Generator) -> Sequence[Pass]:
        """The largest first, since the others learn from it."""
        del epoch, step
        resolution = int(rng.choice(self.space.resolutions))
        if self.settings.widths:
            archs = list(reversed(self.switches))
        else:
            archs = [*self._ends, *(self._draw(rng) for _ in range(self.settings.subnets_per_step - LEAST_SUBNETS))]
        largest, *others = (replace(arch, resolution=resolution) for arch in archs)
        labels, distil = (0.0, 1.0) if self.settings.distil else (1.0, 0.0)
        return [Pass(largest), *(Pass(arch, labels=labels, distil=distil) for arch in others)]

    @cached_property
    def switches(self) -> list[Arch]:
        """The archs of `widths`, from narrow to wide."""
        return [self._at(self.space.largest(), ratio) for ratio in self.settings.widths]

    @cached_property
    def _least(self) -> list[float]:
        """The smallest ratio of each elastic width."""
        return least_ratios(self.space)

    @cached_property
    def _ends(self) -> tuple[Arch, Arch]:
        """The largest and the smallest arch."""
        smallest = self.space.smallest()
        if self.settings.width_min or self.settings.width_divisor:
            smallest = self._at(smallest, self.settings.width_min or self._least)
        return self.space.largest(), smallest

    def _draw(self, rng: np.random.Generator) -> Arch:
        arch = self.space.sample(rng)
        if not self._least:
            return arch
        lowest = self.settings.width_min or min(self._least)
        n_ratios = len(self._least) if self.settings.nonuniform else 1
        ratios = rng.uniform(lowest, 1, n_ratios).tolist()
        return self._at(arch, ratios if self.settings.nonuniform else ratios[0])

    def _at(self, arch: Arch, ratios: float | list[float]) -> Arch:
        return arch_near_ratios(self.space, arch, ratios, divisor=self.settings.width_divisor or None)
