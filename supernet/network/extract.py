"""Supernet and arch to a subnet of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernet.network.subnet import Subnet

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.arch import Arch


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
