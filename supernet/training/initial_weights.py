"""Weights to start from: of a whole supernet, or of one subnet where it fits into a larger network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from supernet.errors import FingerprintMismatchError

if TYPE_CHECKING:
    from supernet.network.elastic_net import Supernet
    from supernet.network.subnet import Subnet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace


def take_over_supernet(supernet: Supernet, initial: Supernet) -> None:
    """Copy all weights of a supernet of the same space; with other classes, all but those of the classifier.

    Raises:
        FingerprintMismatchError: As `validate_same_space`.
    """
    validate_same_space(initial.space, supernet.space)
    classifier = f"blocks.{len(supernet.blocks) - 1}."
    same_classes = initial.space.classes == supernet.space.classes
    taken = {
        name: tensor for name, tensor in initial.state_dict().items() if same_classes or not name.startswith(classifier)
    }
    supernet.load_state_dict(supernet.state_dict() | taken)


@torch.no_grad()
def take_over_subnet(supernet: Supernet, arch: Arch, subnet: Subnet) -> None:
    """Copy a subnet's weights to where the supernet keeps those of an arch with the same blocks.

    Args:
        supernet: Of a space whose blocks have one kernel size each, so that nothing is computed from its weights.
        arch: Of its space.
        subnet: Runs the arch's blocks. With other classes, all but the weights of the classifier are copied.
    """
    state = subnet.state_dict()
    for place, (index, spec) in enumerate(supernet.space.walk(arch)):
        for name, view in supernet.blocks[index].slices(spec).items():  # type: ignore[operator]
            tensor = state[f"blocks.{place}.{name}"]
            if tensor.shape == view.shape:  # else of the classifier
                view.copy_(tensor)


def validate_same_space(found: SearchSpace, wanted: SearchSpace) -> None:
    """Refuse weights of another space; the classes may differ.

    Raises:
        FingerprintMismatchError: The spaces differ in more than their classes.
    """
    if found.with_classes(wanted.classes).fingerprint != wanted.fingerprint:
        raise FingerprintMismatchError(
            f"The initial weights are of the space '{found.name}' ({found.fingerprint[:12]}), the config's is "
            f"'{wanted.name}' ({wanted.fingerprint[:12]}). Start from a bundle of the same space.",
            expected=wanted.fingerprint,
            found=found.fingerprint,
        )
