"""Elastic layers, one by one: kernels, normalisation, squeeze-excite."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from supernet.network.layers import (
    ACTIVATIONS,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticSqueezeExcite,
    build_elastic_layer,
    leading,
)
from supernet.network.subnet import ACTIVATION_MODULES, SqueezeExcite
from supernet.spaces.blocks import Act, LayerKind, LayerSpec

DEPTHWISE = LayerSpec("depthwise", LayerKind.CONV, 9, 6, 6, kernel_size=7, depthwise=True)
KERNELS = (3, 5, 7)


def at_kernel(kernel_size: int, chs: int = 6) -> LayerSpec:
    return replace(DEPTHWISE, kernel_size=kernel_size, in_chs=chs, out_chs=chs)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def conv(generator: torch.Generator) -> ElasticConv2d:
    return ElasticConv2d(DEPTHWISE, KERNELS, generator)


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 6, 9, 9, generator=generator)


def randomise_matrices(conv: ElasticConv2d, generator: torch.Generator) -> None:
    with torch.no_grad():
        for matrix in conv.kernel_matrices.values():
            matrix.copy_(torch.randn(matrix.shape, generator=generator))


# ---------------------------------------------------------------------- elastic kernels


def test_identity_matrices_leave_plain_centres(conv: ElasticConv2d) -> None:
    assert torch.equal(conv.slices(at_kernel(7))["weight"], conv.weight)
    assert torch.equal(conv.slices(at_kernel(5))["weight"], conv.weight[:, :, 1:6, 1:6])
    assert torch.equal(conv.slices(at_kernel(3, chs=4))["weight"], conv.weight[:4, :, 2:5, 2:5])


def test_small_kernels_are_cut_out_of_transformed_larger_ones(conv: ElasticConv2d, generator: torch.Generator) -> None:
    randomise_matrices(conv, generator)
    to5, to3 = conv.kernel_matrices["7to5"], conv.kernel_matrices["5to3"]
    assert (to5.shape, to3.shape) == ((25, 25), (9, 9))
    for channel in range(6):
        kernel5 = (to5 @ conv.weight[channel, 0, 1:6, 1:6].flatten()).view(5, 5)
        kernel3 = (to3 @ kernel5[1:4, 1:4].flatten()).view(3, 3)
        torch.testing.assert_close(conv.slices(at_kernel(5))["weight"][channel, 0], kernel5)
        torch.testing.assert_close(conv.slices(at_kernel(3))["weight"][channel, 0], kernel3)


def test_the_largest_kernel_ignores_the_matrices_and_the_smallest_feels_both(
    conv: ElasticConv2d, generator: torch.Generator, x: Tensor
) -> None:
    before = [conv(x, at_kernel(size)) for size in KERNELS]
    with torch.no_grad():
        conv.kernel_matrices["7to5"].mul_(2)
    after = [conv(x, at_kernel(size)) for size in KERNELS]
    torch.testing.assert_close(after[0], 2 * before[0])
    torch.testing.assert_close(after[1], 2 * before[1])
    assert torch.equal(after[2], before[2])
    with torch.no_grad():
        conv.kernel_matrices["5to3"].mul_(3)
    torch.testing.assert_close(conv(x, at_kernel(3)), 6 * before[0])
    torch.testing.assert_close(conv(x, at_kernel(5)), 2 * before[1])


def test_the_outer_ring_matters_to_the_largest_kernel_only(conv: ElasticConv2d, x: Tensor) -> None:
    before = [conv(x, at_kernel(size)) for size in KERNELS]
    with torch.no_grad():
        ring = torch.ones(7, 7, dtype=torch.bool)
        ring[1:6, 1:6] = False
        conv.weight[:, 0, ring] += 1
    after = [conv(x, at_kernel(size)) for size in KERNELS]
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert not torch.allclose(after[2], before[2])


def test_kernel_sizes_that_are_no_neighbours_share_a_matrix(generator: torch.Generator, x: Tensor) -> None:
    conv = ElasticConv2d(DEPTHWISE, (3, 7), generator)
    assert {name: tuple(matrix.shape) for name, matrix in conv.kernel_matrices.items()} == {"7to3": (9, 9)}
    torch.testing.assert_close(conv(x, at_kernel(3)), F.conv2d(x, conv.weight[:, :, 2:5, 2:5], padding=1, groups=6))


def test_convolutions_slice_inputs_outputs_and_bias(generator: torch.Generator, x: Tensor) -> None:
    largest = LayerSpec("conv", LayerKind.CONV, 9, 6, 10, kernel_size=3, stride=2, bias=True)
    conv = ElasticConv2d(largest, (3,), generator)
    with torch.no_grad():
        assert conv.bias is not None
        conv.bias.copy_(torch.arange(10.0))
    spec = replace(largest, in_chs=4, out_chs=7)
    expected = F.conv2d(x[:, :4], conv.weight[:7, :4], conv.bias[:7], stride=2, padding=1)
    assert torch.equal(conv(x[:, :4], spec), expected)
    assert len(conv.kernel_matrices) == 0


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_larger_than_the_map_computes_and_learns_as_the_plain_one(
    conv: ElasticConv2d, generator: torch.Generator, size: int, stride: int
) -> None:
    x = torch.randn(4, 6, size, size, generator=generator, requires_grad=True)
    spec = replace(at_kernel(7), in_size=size, stride=stride)
    elastic, plain = conv(x, spec), F.conv2d(x, conv.weight, stride=stride, padding=3, groups=6)
    torch.testing.assert_close(elastic, plain)
    upstream = torch.randn(plain.shape, generator=generator)
    for own, expected in zip(
        torch.autograd.grad(elastic, (x, conv.weight), upstream),
        torch.autograd.grad(plain, (x, conv.weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(own, expected)


def test_pointwise_convolutions_compute_and_learn_as_the_plain_ones(generator: torch.Generator, x: Tensor) -> None:
    largest = LayerSpec("conv", LayerKind.CONV, 9, 6, 10, bias=True)
    for stride in (1, 2):
        conv = ElasticConv2d(largest, (1,), generator)
        assert conv.bias is not None
        weights = (conv.weight, conv.bias)
        elastic = conv(x[:, :4], replace(largest, in_chs=4, out_chs=7, stride=stride))
        plain = F.conv2d(x[:, :4], conv.weight[:7, :4], conv.bias[:7], stride=stride)
        torch.testing.assert_close(elastic, plain)
        upstream = torch.randn(plain.shape, generator=generator)
        for own, expected in zip(
            torch.autograd.grad(elastic, weights, upstream), torch.autograd.grad(plain, weights, upstream), strict=True
        ):
            torch.testing.assert_close(own, expected)


def test_whole_dimensions_are_not_sliced() -> None:
    weight = torch.zeros(4, 3, requires_grad=True)
    assert leading(weight, 4, 3) is weight
    assert torch.equal(leading(weight, 2, 3), weight[:2])
    assert leading(weight, 2, 1).shape == (2, 1)


# ---------------------------------------------------------------------- normalisation


def test_normalisation_trains_as_the_plain_one_on_the_leading_channels(x: Tensor) -> None:
    elastic, plain = ElasticBatchNorm2d(6, eps=1e-3).train(), nn.BatchNorm2d(4, eps=1e-3).train()
    for _ in range(3):
        torch.testing.assert_close(elastic(x[:, :4]), plain(x[:, :4]))
    torch.testing.assert_close(elastic.running_mean[:4], plain.running_mean)
    torch.testing.assert_close(elastic.running_var[:4], plain.running_var)
    assert (elastic.running_mean[4:] == 0).all()
    assert (elastic.running_var[4:] == 1).all()
    torch.testing.assert_close(elastic.eval()(x[:, :4]), plain.eval()(x[:, :4]))


def test_normalisation_in_eval_mode_changes_nothing(x: Tensor) -> None:
    norm = ElasticBatchNorm2d(6, eps=1e-5).eval()
    norm(x)
    assert (norm.running_mean == 0).all()


# ---------------------------------------------------------------------- other layers


def test_squeeze_excite_slices_inner_and_hidden_widths(generator: torch.Generator, x: Tensor) -> None:
    largest = LayerSpec("squeeze_excite", LayerKind.SQUEEZE_EXCITE, 9, 6, 6, hidden_chs=4)
    elastic = ElasticSqueezeExcite(largest, generator)
    with torch.no_grad():
        elastic.reduce_bias.uniform_(generator=generator)
        elastic.expand_bias.uniform_(generator=generator)
    spec = replace(largest, in_chs=5, out_chs=5, hidden_chs=2)
    plain = SqueezeExcite(spec)
    plain.load_state_dict(elastic.slices(spec))
    torch.testing.assert_close(elastic(x[:, :5], spec), plain(x[:, :5]))
    pooled = x[:, :5].mean((2, 3))
    hidden = (pooled @ elastic.reduce_weight[:2, :5, 0, 0].T + elastic.reduce_bias[:2]).relu()
    gate = F.relu6(hidden @ elastic.expand_weight[:5, :2, 0, 0].T + elastic.expand_bias[:5] + 3) / 6
    torch.testing.assert_close(elastic(x[:, :5], spec), x[:, :5] * gate[:, :, None, None])


@pytest.mark.parametrize("act", list(Act))
def test_activations_are_the_same_in_both_networks(act: Act) -> None:
    x = torch.linspace(-8, 8, 101)
    torch.testing.assert_close(ACTIVATIONS[act](x), ACTIVATION_MODULES[act]()(x))
    by_hand = {
        Act.NONE: x,
        Act.RELU: x.clamp(min=0),
        Act.RELU6: x.clamp(0, 6),
        Act.HSWISH: x * (x + 3).clamp(0, 6) / 6,
    }
    torch.testing.assert_close(ACTIVATIONS[act](x), by_hand[act])


def test_pointwise_layers_of_an_elastic_stage_have_no_kernel_matrices(generator: torch.Generator) -> None:
    expand = LayerSpec("expand", LayerKind.CONV, 9, 4, 6, norm=True)
    layer = build_elastic_layer(expand, KERNELS, norm_eps=1e-5, generator=generator)
    assert {name for name, _ in layer.named_parameters()} == {"conv.weight", "norm.weight", "norm.bias"}
