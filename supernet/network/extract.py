"""Supernet and arch to a subnet of its own, and back: a subnet as the supernet of one arch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from supernet.network.elastic_net import Supernet
from supernet.network.subnet import Subnet
from supernet.spaces.fixed import space_of_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from supernet.spaces.arch import Arch
    from supernet.spaces.blocks import BlockSpec


def extract_subnet(supernet: Supernet, arch: Arch) -> Subnet:
    """Copy the weights of one arch into plain modules.

    Args:
        supernet: Stays as it is.
        arch: Any arch of its space.

    Returns:
        A subnet in eval mode, on the supernet's device, that computes what `supernet(x, arch)` computes. Its BN
        statistics are the supernet's mixed ones: recalibrate before use.

    Raises:
        InvalidArchError: The arch lies outside the space.
    """
    walked = list(supernet.space.walk(arch))
    subnet = Subnet([spec for _, spec in walked], norm_eps=supernet.space.norm_eps)
    state: dict[str, Tensor] = {}
    for place, (index, spec) in enumerate(walked):
        block = supernet.blocks[index]
        state |= {f"blocks.{place}.{name}": tensor for name, tensor in block.slices(spec).items()}  # type: ignore[operator]
    # num_batches_tracked is the one plain buffer that has no elastic twin.
    absent = {name: tensor for name, tensor in subnet.state_dict().items() if name.endswith("num_batches_tracked")}
    subnet.load_state_dict(state | absent, strict=True)
    return subnet.to(next(supernet.parameters()).device).eval()


@torch.no_grad()
def embed_subnet(subnet: Subnet, blocks: Sequence[BlockSpec], *, name: str, norm_eps: float) -> Supernet:
    """Make a subnet the only one of a supernet, to be bundled, trained on or searched like any other.

    Args:
        subnet: Its weights and statistics are copied.
        blocks: That it runs, in order.
        name: Of the search space.
        norm_eps: Epsilon of its batch normalisation.

    Returns:
        A supernet in eval mode whose space has one arch.
    """
    space = space_of_blocks(name, blocks, norm_eps=norm_eps)
    supernet = Supernet(space, torch.Generator())  # every weight is overwritten
    state = subnet.state_dict()
    for index, spec in space.walk(space.smallest()):
        # Nothing is computed for a single kernel size, so the slices are views of the supernet's own tensors.
        for tensor, view in supernet.blocks[index].slices(spec).items():  # type: ignore[operator]
            view.copy_(state[f"blocks.{index}.{tensor}"])
    return supernet.eval()
