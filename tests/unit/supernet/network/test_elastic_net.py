"""Supernet: its parameters, its first weights, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from supernet.errors import InvalidArchError
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.spaces.arch import Arch
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace


def test_parameters_of_the_reference_space_are_the_largest_arch_and_the_kernel_matrices() -> None:
    supernet = Supernet(load_space("ofa_mbv3_w1.0"), torch.Generator().manual_seed(0))
    sizes = {name: parameter.numel() for name, parameter in supernet.named_parameters()}
    matrices = {name: size for name, size in sizes.items() if "kernel_matrices" in name}
    assert sum(sizes.values()) == 7_664_760 + 14_120
    assert len(matrices) == 40
    assert sum(matrices.values()) == 14_120
    # The reference has 475 keys; 20 + 20 + 9 of them are counters of its batch normalisations.
    counters = sum(name.endswith("running_mean") for name in supernet.state_dict())
    assert len(supernet.state_dict()) == 475 - counters


def test_first_weights_follow_from_the_generator(tiny_space: SearchSpace, tiny_supernet: Supernet) -> None:
    same = Supernet(tiny_space, torch.Generator().manual_seed(0)).state_dict()
    other = Supernet(tiny_space, torch.Generator().manual_seed(1)).state_dict()
    for name, tensor in tiny_supernet.state_dict().items():
        assert torch.equal(tensor, same[name])
        if name.endswith("conv.weight"):
            assert not torch.equal(tensor, other[name])


def test_drawing_weights_leaves_the_global_generator_alone(tiny_space: SearchSpace) -> None:
    before = torch.get_rng_state()
    Supernet(tiny_space, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(1, 3, 9, 9), (1, 3, 8, 9), (1, 1, 8, 8), (3, 8, 8), (1, 3, 12, 12)])
def test_images_of_another_shape_are_refused(
    tiny_space: SearchSpace, tiny_supernet: Supernet, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidArchError, match=r"takes images of shape \(batch, \(3, 8, 8\)\)"):
        tiny_supernet(torch.zeros(shape), tiny_space.smallest())


def test_archs_of_another_space_are_refused(tiny_space: SearchSpace, tiny_supernet: Supernet) -> None:
    arch = replace(tiny_space.smallest(), resolution=10)
    with pytest.raises(InvalidArchError, match="'resolution' of space 'tiny'"):
        tiny_supernet(torch.zeros(1, 3, 10, 10), arch)
    with pytest.raises(InvalidArchError):
        extract_subnet(tiny_supernet, Arch(8))


def test_an_arch_with_choices_for_skipped_blocks_runs_as_its_canonical_form(
    tiny_space: SearchSpace, tiny_supernet: Supernet
) -> None:
    canonical = Arch(8, (1,), (5, 0), (2, 0))
    full = Arch(8, (1,), (5, 7), (2, 1))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(tiny_supernet(x, full), tiny_supernet(x, canonical))
    assert torch.equal(extract_subnet(tiny_supernet, full)(x), extract_subnet(tiny_supernet, canonical)(x))
