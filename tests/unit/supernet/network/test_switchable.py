"""SwitchableSupernet: weights are shared, normalisations are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from supernet.errors import InvalidArchError
from supernet.network.extract import extract_subnet
from supernet.network.switchable import SwitchableSupernet
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.ratios import arch_at_ratios
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

SPACE = SearchSpace(
    "slim",
    stages=(
        Stage(BlockKind.CONV, widths=(8, 16), kernel_sizes=(3,), stride=2),
        Stage(BlockKind.SEPARABLE, widths=(16, 32), kernel_sizes=(3,)),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(3,), norm=False, bias=True),
    ),
    resolutions=(8, 12),
)
NARROW, WIDE = (arch_at_ratios(SPACE, ratio, resolution=12) for ratio in (0.5, 1.0))


@pytest.fixture
def supernet() -> SwitchableSupernet:
    return SwitchableSupernet(SPACE, torch.Generator().manual_seed(0), [NARROW, WIDE])


def images(resolution: int = 12) -> torch.Tensor:
    return torch.randn(4, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


def statistics_of(supernet: SwitchableSupernet, arch: Arch) -> list[torch.Tensor]:
    return [tensor.clone() for name, tensor in supernet.at(arch).state_dict().items() if "running_mean" in name]


def test_a_pass_moves_the_statistics_and_gradients_of_its_own_switch_alone(supernet: SwitchableSupernet) -> None:
    before = statistics_of(supernet, WIDE)
    supernet(images(), NARROW).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, statistics_of(supernet, WIDE), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, statistics_of(supernet, NARROW), strict=True))
    narrow, wide = supernet.norms
    assert all(parameter.grad is not None for parameter in narrow.parameters())
    assert all(parameter.grad is None for parameter in wide.parameters())
    assert all(
        (parameter.grad is None) == ("norm" in name)
        for name, parameter in supernet.named_parameters()
        if name.startswith("blocks.")
    )


def test_what_is_extracted_computes_what_the_switch_computes(supernet: SwitchableSupernet) -> None:
    with torch.no_grad():
        for scale, switch in enumerate(supernet.norms, start=2):
            for name, parameter in switch.named_parameters():
                if name.endswith("weight"):
                    parameter.fill_(scale)
        for arch in (NARROW, WIDE, replace(WIDE, resolution=8)):
            for _ in range(3):
                supernet(images(arch.resolution), arch)
    supernet.eval()
    for arch in (NARROW, WIDE):
        subnet = extract_subnet(supernet.at(arch), arch)
        torch.testing.assert_close(subnet(images()), supernet(images(), arch))
    assert not torch.allclose(supernet.at(NARROW)(images(), WIDE), supernet(images(), WIDE))


def test_archs_without_normalisations_are_refused(supernet: SwitchableSupernet) -> None:
    other = arch_at_ratios(SPACE, [0.5, 1.0], resolution=12)
    for use in (lambda: supernet(images(), other), lambda: supernet.at(other)):
        with pytest.raises(InvalidArchError, match="normalisations for 2 archs only"):
            use()


def test_switches_can_start_from_shared_normalisations(supernet: SwitchableSupernet) -> None:
    with torch.no_grad():
        supernet.get_submodule("blocks.0.layers.conv.norm").weight.fill_(3)  # type: ignore[operator, union-attr]
    supernet.share_norms()
    for arch in (NARROW, WIDE):
        assert (supernet.at(arch).state_dict()["blocks.0.layers.conv.norm.weight"] == 3).all()


def test_weights_and_normalisations_survive_a_file(supernet: SwitchableSupernet) -> None:
    supernet(images(), NARROW)
    again = SwitchableSupernet(SPACE, torch.Generator().manual_seed(5), [NARROW, WIDE])
    again.load_state_dict(supernet.state_dict())
    for arch in (NARROW, WIDE):
        assert torch.equal(again.eval()(images(), arch), supernet.eval()(images(), arch))
