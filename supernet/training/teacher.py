"""Teachers: plain networks whose soft labels others learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.spaces.costs import blocks_of

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.space import SearchSpace


def teacher_of(supernet: Supernet) -> Subnet:
    """A copy of the largest network, ready to teach: in train mode, so that its normalisation follows the images."""
    largest = extract_subnet(supernet, supernet.space.largest())
    return largest.requires_grad_(requires_grad=False).train()


def teacher_from(space: SearchSpace, weights: dict[str, Tensor]) -> Subnet:
    """The same, from the `state_dict` of another one of the space."""
    largest = Subnet(blocks_of(space, space.largest()), norm_eps=space.norm_eps)
    largest.load_state_dict(weights)
    return largest.requires_grad_(requires_grad=False).train()
