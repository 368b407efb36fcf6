"""Supernet: all subnets of a search space in one set of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from supernet.errors import InvalidArchError
from supernet.network.layers import ACTIVATIONS, build_elastic_layer

if TYPE_CHECKING:
    from supernet.spaces.arch import Arch
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace


class ElasticBlock(nn.Module):
    """The weights of every block that can stand at one position."""

    def __init__(
        self, largest: BlockSpec, kernel_sizes: tuple[int, ...], *, norm_eps: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                layer.name: build_elastic_layer(layer, kernel_sizes, norm_eps=norm_eps, generator=generator)
                for layer in largest.layers
            }
        )

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """Run the block `spec` with the leading slices of the weights."""
        y, shortcut = x, x
        for layer in spec.layers:
            if layer.on_shortcut:
                shortcut = self.layers[layer.name](shortcut, layer)
            else:
                y = self.layers[layer.name](y, layer)
        return ACTIVATIONS[spec.sum_act](shortcut + y) if spec.adds_shortcut else y

    def slices(self, spec: BlockSpec) -> dict[str, Tensor]:
        """State of the plain block, keyed as `Block.state_dict`."""
        return {
            f"layers.{layer.name}.{name}": tensor
            for layer in spec.layers
            for name, tensor in self.layers[layer.name].slices(layer).items()  # type: ignore[operator]
        }


class Supernet(nn.Module):
    """All subnets of a search space. It holds no active arch: each call says which one runs.

    Args:
        space: What can be chosen.
        generator: Source of the initial weights.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        self.blocks = nn.ModuleList()
        for index, position in enumerate(space.positions):
            largest = space.block_at(
                index, tuple(len(space.slots[slot].choices) - 1 for slot in space.slots_of(position))
            )
            kernel_sizes = space.stages[position.stage].kernel_sizes
            self.blocks.append(ElasticBlock(largest, kernel_sizes, norm_eps=space.norm_eps, generator=generator))

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """Run one arch.

        Args:
            x: Normalised images `(batch, in_chs, resolution, resolution)` at the arch's resolution.
            arch: Any arch of the space.

        Returns:
            Logits `(batch, classes)`. In eval mode they use running statistics that mix all archs: recalibrate the
            extracted subnet for meaningful ones.

        Raises:
            InvalidArchError: The arch lies outside the space, or the images have another shape.
        """
        expected = (self.space.in_chs, arch.resolution, arch.resolution)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise InvalidArchError(f"This arch takes images of shape (batch, {expected}), got {tuple(x.shape)}.")
        for index, spec in self.space.walk(arch):
            x = self.blocks[index](x, spec)
        return x
