"""Subnet: the network of one arch as plain torch modules, ready for recalibration, fine-tuning and export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from supernet.spaces.blocks import Act, BlockSpec, LayerKind, LayerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIVATION_MODULES: dict[Act, type[nn.Module]] = {
    Act.NONE: nn.Identity,
    Act.RELU: nn.ReLU,
    Act.RELU6: nn.ReLU6,
    Act.HSWISH: nn.Hardswish,
}


class ConvLayer(nn.Module):
    """Convolution, normalisation and activation."""

    def __init__(self, spec: LayerSpec, *, norm_eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            spec.in_chs,
            spec.out_chs,
            spec.kernel_size,
            stride=spec.stride,
            padding=spec.kernel_size // 2,
            groups=spec.out_chs if spec.depthwise else 1,
            bias=spec.bias,
        )
        self.norm = nn.BatchNorm2d(spec.out_chs, eps=norm_eps) if spec.norm else nn.Identity()
        self.act = ACTIVATION_MODULES[spec.act]()

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chs, height, width)` to `(batch, out_chs, height / stride, width / stride)`, rounded up."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class SqueezeExcite(nn.Module):
    """Channel attention: reduce, ReLU, expand, hard sigmoid, scale."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(spec.in_chs, spec.hidden_chs, 1)
        self.expand = nn.Conv2d(spec.hidden_chs, spec.in_chs, 1)
        self.relu = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of `(batch, chs, height, width)`."""
        scale: Tensor = self.gate(self.expand(self.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * scale


class AvgPool(nn.AvgPool2d):
    """Mean over windows of the stride; a window at the edge averages the pixels it has."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec.kernel_size, spec.stride, ceil_mode=True)


class Pool(nn.Module):
    """Global mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, chs, height, width)` to `(batch, chs, 1, 1)`."""
        return x.mean((2, 3), keepdim=True)


class LinearLayer(nn.Module):
    """Classifier on a pooled map."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.in_chs, spec.out_chs, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chs, 1, 1)` to logits `(batch, out_chs)`."""
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class Block(nn.Module):
    """One block; its layers have the names of the elastic block's."""

    def __init__(self, spec: BlockSpec, *, norm_eps: float) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({layer.name: build_layer(layer, norm_eps=norm_eps) for layer in spec.layers})
        self.on_shortcut = {layer.name for layer in spec.layers if layer.on_shortcut}
        self.adds_shortcut = spec.adds_shortcut
        self.sum_act = ACTIVATION_MODULES[spec.sum_act]()

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers in order and add the shortcut where the block has one."""
        y, shortcut = x, x
        for name, layer in self.layers.items():
            if name in self.on_shortcut:
                shortcut = layer(shortcut)
            else:
                y = layer(y)
        if self.adds_shortcut:
            y = self.sum_act(shortcut + y)
        return y


class Subnet(nn.Module):
    """Plain network of the given blocks.

    Args:
        blocks: From `blocks_of`, in order.
        norm_eps: Epsilon of batch normalisation, the space's.
    """

    def __init__(self, blocks: Sequence[BlockSpec], *, norm_eps: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(spec, norm_eps=norm_eps) for spec in blocks)
        self.in_chs = blocks[0].in_chs
        self.resolution = blocks[0].in_size

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images `(batch, in_chs, resolution, resolution)` to logits `(batch, classes)`."""
        for block in self.blocks:
            x = block(x)
        return x


def build_layer(spec: LayerSpec, *, norm_eps: float) -> nn.Module:
    """The plain layer of a spec."""
    match spec.kind:
        case LayerKind.CONV:
            return ConvLayer(spec, norm_eps=norm_eps)
        case LayerKind.SQUEEZE_EXCITE:
            return SqueezeExcite(spec)
        case LayerKind.MAX_POOL:
            return nn.MaxPool2d(spec.kernel_size, spec.stride, spec.kernel_size // 2)
        case LayerKind.AVG_POOL:
            return AvgPool(spec)
        case LayerKind.POOL:
            return Pool()
        case LayerKind.LINEAR:
            return LinearLayer(spec)
