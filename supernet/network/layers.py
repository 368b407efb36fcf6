"""Elastic layers: each holds the weights of its largest form and runs the slice that a `LayerSpec` names.

They keep no active state, so two threads may run two archs, and a `LayerSpec` is all that `slices` needs to copy
the same weights into a plain layer.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from supernet.network.depthwise import depthwise_conv2d
from supernet.spaces.blocks import Act, LayerKind, LayerSpec

if TYPE_CHECKING:
    from collections.abc import Callable

ACTIVATIONS: dict[Act, Callable[[Tensor], Tensor]] = {
    Act.NONE: lambda x: x,
    Act.RELU: F.relu,
    Act.RELU6: F.relu6,
    Act.HSWISH: F.hardswish,
}


def leading(tensor: Tensor, *sizes: int) -> Tensor:
    """The first `sizes` entries of the first dimensions, as a view.

    A whole dimension is not sliced: the gradient of a slice is a copy into zeros, which would take about 4 % of a step.
    """
    for dim, size in enumerate(sizes):
        if size < tensor.shape[dim]:
            tensor = tensor.narrow(dim, 0, size)
    return tensor


def _convolve_pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve `(batch, in_chs, height, width)` with `(out_chs, in_chs, 1, 1)`.

    As a matrix product: for 64 images of 1×1 pixels, 960 to 1280 channels take 12 ms forward and backward on one core
    instead of 60, and large maps no longer than with `F.conv2d`. In channels-last order nothing is copied for it.
    """
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


class ElasticConv2d(nn.Module):
    """Convolution with elastic input and output channels and, where depthwise, an elastic kernel size.

    A smaller kernel is the centre of the next larger one, multiplied by a learnt square matrix shared by all channels.
    Source: OFA `DynamicSeparableConv2d` (arXiv 1908.09791, §3.3); matrices start as the identity.

    Args:
        largest: Shapes of the largest form.
        kernel_sizes: Kernel sizes on offer, ascending; more than one only where depthwise.
        generator: Source of the initial weights.
    """

    def __init__(self, largest: LayerSpec, kernel_sizes: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        inputs = 1 if largest.depthwise else largest.in_chs
        weight = torch.empty(largest.out_chs, inputs, kernel_sizes[-1], kernel_sizes[-1])
        # He et al. over outputs, groups ignored, as the OFA reference initialises.
        nn.init.normal_(weight, std=math.sqrt(2 / (kernel_sizes[-1] ** 2 * largest.out_chs)), generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(largest.out_chs)) if largest.bias else None
        self.kernel_matrices = nn.ParameterDict(
            {f"{large}to{small}": nn.Parameter(torch.eye(small**2)) for small, large in pairwise(kernel_sizes)}
        )
        self.kernel_sizes = kernel_sizes

    def forward(self, x: Tensor, spec: LayerSpec) -> Tensor:
        """Convolve `(batch, in_chs, height, width)` with the slice of `spec`; zero padding is half the kernel."""
        weight, bias = self._slices(spec)
        if spec.depthwise:
            y = depthwise_conv2d(x, weight, spec.stride)
            return y if bias is None else y + bias[:, None, None]
        if spec.kernel_size == spec.stride == 1:
            return _convolve_pointwise(x, weight, bias)
        return F.conv2d(x, weight, bias, spec.stride, spec.kernel_size // 2)

    def slices(self, spec: LayerSpec) -> dict[str, Tensor]:
        """Weights of the plain convolution, as views where nothing is computed."""
        weight, bias = self._slices(spec)
        return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}

    def _slices(self, spec: LayerSpec) -> tuple[Tensor, Tensor | None]:
        weight = leading(self.weight, spec.out_chs, 1 if spec.depthwise else spec.in_chs)
        for small, large in reversed(list(pairwise(self.kernel_sizes))):
            if large <= spec.kernel_size:
                break
            weight = self._shrink_kernel(weight, large, small)
        return weight, None if self.bias is None else leading(self.bias, spec.out_chs)

    def _shrink_kernel(self, weight: Tensor, large: int, small: int) -> Tensor:
        start = (large - small) // 2
        centre = weight[:, :, start : start + small, start : start + small]
        matrix = self.kernel_matrices[f"{large}to{small}"]
        return F.linear(centre.reshape(len(weight), -1), matrix).view(len(weight), 1, small, small)


class ElasticBatchNorm2d(nn.Module):
    """Batch normalisation over the leading channels; running statistics mix all archs, so subnets are recalibrated."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = eps
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(batch, channels, height, width)`; in train mode by the batch, updating the leading statistics."""
        chs = x.shape[1]
        return F.batch_norm(
            x,
            leading(self.running_mean, chs),
            leading(self.running_var, chs),
            leading(self.weight, chs),
            leading(self.bias, chs),
            self.training,
            self.momentum,
            self.eps,
        )

    def slices(self, channels: int) -> dict[str, Tensor]:
        """State of the plain normalisation over the leading channels."""
        return {name: tensor[:channels] for name, tensor in self.state_dict().items()}


class ElasticConvLayer(nn.Module):
    """Elastic convolution, normalisation and activation."""

    def __init__(
        self, largest: LayerSpec, kernel_sizes: tuple[int, ...], *, norm_eps: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.conv = ElasticConv2d(largest, kernel_sizes, generator)
        self.norm = ElasticBatchNorm2d(largest.out_chs, eps=norm_eps) if largest.norm else None

    def forward(self, x: Tensor, spec: LayerSpec) -> Tensor:
        """Run the slice of `spec` on `(batch, in_chs, height, width)`."""
        x = self.conv(x, spec)
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[spec.act](x)

    def slices(self, spec: LayerSpec) -> dict[str, Tensor]:
        """State of the plain layer."""
        state = {f"conv.{name}": tensor for name, tensor in self.conv.slices(spec).items()}
        if self.norm is not None:
            state |= {f"norm.{name}": tensor for name, tensor in self.norm.slices(spec.out_chs).items()}
        return state


class ElasticSqueezeExcite(nn.Module):
    """Channel attention whose hidden width follows the active inner width.

    Source: OFA `DynamicSE`: reduce, ReLU, expand, hard sigmoid `relu6(x + 3) / 6`, scale.
    """

    def __init__(self, largest: LayerSpec, generator: torch.Generator) -> None:
        super().__init__()
        chs, hidden = largest.in_chs, largest.hidden_chs
        reduce, expand = torch.empty(hidden, chs, 1, 1), torch.empty(chs, hidden, 1, 1)
        nn.init.normal_(reduce, std=math.sqrt(2 / hidden), generator=generator)
        nn.init.normal_(expand, std=math.sqrt(2 / chs), generator=generator)
        self.reduce_weight = nn.Parameter(reduce)
        self.reduce_bias = nn.Parameter(torch.zeros(hidden))
        self.expand_weight = nn.Parameter(expand)
        self.expand_bias = nn.Parameter(torch.zeros(chs))

    def forward(self, x: Tensor, spec: LayerSpec) -> Tensor:
        """Scale the channels of `(batch, in_chs, height, width)`."""
        state = self.slices(spec)
        scale = x.mean((2, 3), keepdim=True)
        scale = F.relu(_convolve_pointwise(scale, state["reduce.weight"], state["reduce.bias"]))
        return x * F.hardsigmoid(_convolve_pointwise(scale, state["expand.weight"], state["expand.bias"]))

    def slices(self, spec: LayerSpec) -> dict[str, Tensor]:
        """State of the plain layer."""
        chs, hidden = spec.in_chs, spec.hidden_chs
        return {
            "reduce.weight": leading(self.reduce_weight, hidden, chs),
            "reduce.bias": leading(self.reduce_bias, hidden),
            "expand.weight": leading(self.expand_weight, chs, hidden),
            "expand.bias": leading(self.expand_bias, chs),
        }


class ElasticLinear(nn.Module):
    """Classifier on a pooled map, elastic in its input features."""

    def __init__(self, largest: LayerSpec, generator: torch.Generator) -> None:
        super().__init__()
        weight, bound = torch.empty(largest.out_chs, largest.in_chs), 1 / math.sqrt(largest.in_chs)
        self.weight = nn.Parameter(nn.init.uniform_(weight, -bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.zeros(largest.out_chs)) if largest.bias else None

    def forward(self, x: Tensor, spec: LayerSpec) -> Tensor:
        """Turn `(batch, in_chs, 1, 1)` into logits `(batch, out_chs)`."""
        return F.linear(x.flatten(1), leading(self.weight, spec.out_chs, spec.in_chs), self.bias)

    def slices(self, spec: LayerSpec) -> dict[str, Tensor]:
        """State of the plain layer."""
        state = {"linear.weight": self.weight[: spec.out_chs, : spec.in_chs]}
        return state if self.bias is None else state | {"linear.bias": self.bias[: spec.out_chs]}


class ElasticPool(nn.Module):
    """Any pooling; it has nothing to slice."""

    def forward(self, x: Tensor, spec: LayerSpec) -> Tensor:
        """Pool `(batch, chs, height, width)` to `(batch, chs, height / stride, width / stride)`, or globally to 1×1."""
        match spec.kind:
            case LayerKind.MAX_POOL:
                return F.max_pool2d(x, spec.kernel_size, spec.stride, spec.kernel_size // 2)
            case LayerKind.AVG_POOL:
                return F.avg_pool2d(x, spec.kernel_size, spec.stride, ceil_mode=True)
            case _:
                return x.mean((2, 3), keepdim=True)

    def slices(self, spec: LayerSpec) -> dict[str, Tensor]:  # noqa: ARG002
        """Nothing."""
        return {}


ElasticLayer = ElasticConvLayer | ElasticSqueezeExcite | ElasticLinear | ElasticPool


def build_elastic_layer(
    largest: LayerSpec, kernel_sizes: tuple[int, ...], *, norm_eps: float, generator: torch.Generator
) -> ElasticLayer:
    """The elastic layer whose largest form is `largest`; `kernel_sizes` are the stage's choices."""
    match largest.kind:
        case LayerKind.CONV:
            kernels = kernel_sizes if largest.kernel_size > 1 else (1,)
            return ElasticConvLayer(largest, kernels, norm_eps=norm_eps, generator=generator)
        case LayerKind.SQUEEZE_EXCITE:
            return ElasticSqueezeExcite(largest, generator)
        case LayerKind.LINEAR:
            return ElasticLinear(largest, generator)
        case LayerKind.POOL | LayerKind.MAX_POOL | LayerKind.AVG_POOL:
            return ElasticPool()
