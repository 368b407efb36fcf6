"""Depthwise convolution: what torch computes, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from supernet.network import depthwise
from supernet.network.depthwise import depthwise_conv2d

CHS = 3
# Map, kernel, stride: maps larger than the kernel, as large and smaller; strides that leave pixels over.
SHAPES = [
    (8, 3, 1),
    (2, 3, 1),
    (2, 3, 2),
    (7, 5, 1),
    (5, 5, 2),
    (4, 5, 1),
    (9, 7, 1),
    (8, 7, 2),
    (4, 7, 2),
    (10, 9, 3),
    (1, 7, 1),
    (2, 7, 2),
    (5, 9, 7),
]


def plain(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))


def inputs(size: int, kernel_size: int) -> tuple[Tensor, Tensor]:
    """In double precision, so that a small error is no rounding."""
    generator = torch.Generator().manual_seed(size + kernel_size)
    x = torch.randn(2, CHS, size, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(CHS, 1, kernel_size, kernel_size, generator=generator, dtype=torch.float64)
    return x, weight


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("size", "kernel_size", "stride"), SHAPES)
def test_outputs_and_gradients_are_those_of_torch(
    size: int, kernel_size: int, stride: int, memory_format: torch.memory_format
) -> None:
    x, weight = inputs(size, kernel_size)
    x = x.to(memory_format=memory_format).requires_grad_()
    weight.requires_grad_()
    ours, theirs = depthwise_conv2d(x, weight, stride), plain(x, weight, stride)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for own, expected in zip(
        torch.autograd.grad(ours, (x, weight), upstream),
        torch.autograd.grad(theirs, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


def test_a_gradient_that_is_not_needed_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = inputs(6, 5)
    monkeypatch.setattr(depthwise, "_weight_gradient", lambda *_: pytest.fail("computed"))
    depthwise_conv2d(x.requires_grad_(), weight, 1).sum().backward()
    assert x.grad is not None


def test_kernels_that_torch_is_fast_at_are_left_to_it() -> None:
    for size, kernel_size, own in [(1, 1, False), (8, 3, False), (2, 3, True), (8, 5, True)]:
        x, weight = inputs(size, kernel_size)
        name = depthwise_conv2d(x, weight.requires_grad_(), 1).grad_fn.name()
        assert ("Depthwise" in name) is own


def test_gradients_have_the_precision_of_the_weights_under_autocast() -> None:
    x, weight = (tensor.float().requires_grad_() for tensor in inputs(8, 7))
    plain(x, weight, 1).square().mean().backward()
    expected = weight.grad
    weight.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv2d(x, weight, 1)
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert weight.grad.dtype == torch.float32
    # 8 bits of mantissa, in inputs and outputs.
    assert (weight.grad - expected).abs().max() <= 0.02 * expected.abs().max()
