"""Switchable normalisation: a few archs share all weights but those of their batch normalisations."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from supernet.errors import InvalidArchError
from supernet.network.elastic_net import Supernet
from supernet.network.layers import ElasticBatchNorm2d

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace


class SwitchableSupernet(Supernet):
    """A supernet that runs the archs it is given, the switches, each with normalisations of its own.

    Args:
        space: That the switches belong to.
        generator: Source of the initial weights.
        switches: Archs; their resolution does not matter.

    Source: slimmable networks, Yu et al. 2019 (arXiv 1812.08928), "switchable batch normalization".
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator, switches: Sequence[Arch]) -> None:
        super().__init__(space, generator)
        self.switches = tuple(replace(space.canonicalize(arch), resolution=0) for arch in switches)
        shared = {name: module for name, module in self.named_modules() if isinstance(module, ElasticBatchNorm2d)}
        self._names = tuple(shared)
        self.norms = nn.ModuleList(nn.ModuleList(map(deepcopy, shared.values())) for _ in self.switches)

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """As `Supernet.forward`, for one of the switches.

        Raises:
            InvalidArchError: The arch is no switch, or the images have another shape.
        """
        logits: Tensor = functional_call(_Plain(self), self._norms_of(arch, "supernet."), (x, arch))
        return logits

    @torch.no_grad()
    def at(self, arch: Arch) -> Supernet:
        """A plain supernet with the weights, and with one switch's normalisations: to extract and bundle that arch.

        Raises:
            InvalidArchError: The arch is no switch.
        """
        plain = Supernet(self.space, torch.Generator())  # every weight is overwritten
        own = self.state_dict()
        norms = {name: tensor.detach() for name, tensor in self._norms_of(arch).items()}
        plain.load_state_dict({name: norms.get(name, own[name]) for name in plain.state_dict()})
        return plain.train(self.training)

    def share_norms(self) -> None:
        """Start every switch with the normalisations of the plain supernet, in place."""
        for switch in self.norms:
            for name, norm in zip(self._names, switch, strict=True):  # type: ignore[call-overload]
                norm.load_state_dict(self.get_submodule(name).state_dict())

    def _norms_of(self, arch: Arch, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and statistics of a switch, by the names of those that the archs would share."""
        alike = replace(arch, resolution=0)
        if alike not in self.switches:
            raise InvalidArchError(
                f"This supernet has normalisations for {len(self.switches)} archs only; {arch} is none of them."
            )
        norms: nn.ModuleList = self.norms[self.switches.index(alike)]  # type: ignore[assignment]
        return {
            f"{prefix}{name}.{part}": tensor
            for name, norm in zip(self._names, norms, strict=True)
            for part, tensor in (*norm.named_parameters(), *norm.named_buffers())
        }


class _Plain(nn.Module):
    """Runs a supernet as one whose normalisations are shared."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        return Supernet.forward(self.supernet, x, arch)
