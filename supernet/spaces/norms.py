"""The normalisation layers an arch runs: what BN statistics are of, in the order they are stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supernet.spaces.arch import Arch
    from supernet.spaces.blocks import BlockSpec, LayerSpec
    from supernet.spaces.space import SearchSpace


@dataclass(frozen=True, slots=True)
class NormLayer:
    """A layer with a normalisation.

    Attributes:
        name: Of the normalisation in the extracted subnet.
        position: Of the block in the supernet.
        block: That the layer belongs to.
        layer: Its shapes; `out_chs` channels are normalised.
    """

    name: str
    position: int
    block: BlockSpec
    layer: LayerSpec


def norm_layers(space: SearchSpace, arch: Arch) -> list[NormLayer]:
    """In network order."""
    return [
        NormLayer(f"blocks.{place}.layers.{layer.name}.norm", position, spec, layer)
        for place, (position, spec) in enumerate(space.walk(arch))
        for layer in spec.layers
        if layer.norm
    ]
