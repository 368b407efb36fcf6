"""BlockSpec: one concrete block with its shapes, and what it costs in MACs, parameters and memory.

It is the key of latency tables and the recipe for every plain module and ONNX graph of a block.
It knows nothing of search spaces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from math import floor


class BlockKind(StrEnum):
    """What a block computes; `norm`, activations and squeeze-excite are fields of the spec."""

    CONV = "conv"  # k×k convolution
    SEPARABLE = "separable"  # depthwise k×k, then a 1×1 projection
    INVERTED = "inverted"  # 1×1 expansion, depthwise k×k, squeeze-excite, 1×1 projection
    BOTTLENECK = "bottleneck"  # 1×1 reduction, k×k convolution, 1×1 expansion
    BOTTLENECK_DOWN = "bottleneck_down"  # the same beside a shortcut that pools by the stride and projects
    MAX_POOL = "max_pool"  # largest value of k×k pixels
    POOL = "pool"  # global mean over height and width
    LINEAR = "linear"  # fully connected, on a pooled map


class Act(StrEnum):
    """Activation functions of the field's search spaces."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    HSWISH = "hswish"


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of `divisor`, never more than 10 % below `value`.

    Source: OFA's helper of the same name; the smallest result is `divisor`.
    """
    rounded = max(divisor, floor((value + divisor / 2) / divisor) * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def out_size_of(kind: BlockKind, in_size: int, stride: int) -> int:
    """Height and width of a block's output map; zero padding is half the kernel, so only the stride counts."""
    return 1 if kind in (BlockKind.POOL, BlockKind.LINEAR) else (in_size - 1) // stride + 1


@dataclass(frozen=True, slots=True, order=True)
class BlockSpec:
    """One block with every shape fixed. Maps are square; sizes in pixels, widths in channels.

    Attributes:
        mid_chs: Channels of the k×k convolution; equals `in_chs` for kinds with no 1×1 convolution before it.
        act: Activation inside the block (after all convolutions but the last, or after a plain one).
        out_act: Activation after the last convolution of a separable block, or after the sum of a bottleneck.
        se_chs: Hidden width of squeeze-excite; 0 for none.
        shortcut: Whether the input is added to the output.
        norm: Whether convolutions are followed by batch normalisation.
        bias: Whether convolutions and linear layers have a bias of their own.
    """

    kind: BlockKind
    in_size: int
    in_chs: int
    mid_chs: int
    out_chs: int
    kernel_size: int = 1
    stride: int = 1
    act: Act = Act.NONE
    out_act: Act = Act.NONE
    se_chs: int = 0
    shortcut: bool = False
    norm: bool = True
    bias: bool = False

    @property
    def out_size(self) -> int:
        """Height and width of the output map, pixels."""
        return out_size_of(self.kind, self.in_size, self.stride)

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """What runs inside, in order, those on the shortcut last.

        Networks and ONNX graphs of blocks are built from this list, `adds_shortcut` and `sum_act` alone.
        """
        return _layers_of(self)

    @property
    def adds_shortcut(self) -> bool:
        """Whether the shortcut, the input or what its layers make of it, is added to the output of the last layer."""
        return self.shortcut or self.kind is BlockKind.BOTTLENECK_DOWN

    @property
    def sum_act(self) -> Act:
        """Activation after that sum."""
        return self.out_act if self.kind in _BOTTLENECKS else Act.NONE

    @property
    def macs(self) -> int:
        """Multiply-adds at batch size 1; see `LayerSpec.macs`."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Trainable numbers of the plain block; see `LayerSpec.params`."""
        return sum(layer.params for layer in self.layers)

    @property
    def peak_memory_elements(self) -> int:
        """Most elements of activations that are alive during any operation, at batch size 1.

        Operations are those of `LayerSpec.peak_memory_elements`, in the order of `layers`, and the sum with the
        shortcut. Each holds its inputs, its output, and what a later one still needs: the block's input where there is
        a shortcut, then the output of the block's own path while layers on the shortcut run. The sum holds both its
        inputs and its output. A tensor that is both an input and held counts once; weights do not count. Blocks run one
        after another, so that the peak of a network is the largest of its blocks.
        """
        path = [layer for layer in self.layers if not layer.on_shortcut]
        first, out = path[0], path[-1].out_elements
        held = first.in_elements if self.adds_shortcut else 0
        peaks = [first.peak_memory_elements, *(layer.peak_memory_elements + held for layer in path[1:])]
        if self.adds_shortcut:
            peaks += [layer.peak_memory_elements + out for layer in self.layers if layer.on_shortcut]
            peaks.append(3 * out)
        return max(peaks)


class LayerKind(StrEnum):
    """What a layer computes."""

    CONV = "conv"  # convolution, normalisation, activation
    SQUEEZE_EXCITE = "squeeze_excite"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"  # by a stride; windows at the edge hold fewer pixels
    POOL = "pool"  # global mean
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer inside a block.

    Attributes:
        hidden_chs: Inner width of squeeze-excite.
        on_shortcut: Whether it runs on the shortcut instead of the block's own path.
    """

    name: str
    kind: LayerKind
    in_size: int
    in_chs: int
    out_chs: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    act: Act = Act.NONE
    norm: bool = False
    bias: bool = False
    hidden_chs: int = 0
    on_shortcut: bool = False

    @property
    def in_elements(self) -> int:
        """Elements of the input map."""
        return self.in_chs * self.in_size**2

    @property
    def out_elements(self) -> int:
        """Elements of the output map."""
        size = 1 if self.kind in (LayerKind.POOL, LayerKind.LINEAR) else (self.in_size - 1) // self.stride + 1
        return self.out_chs * size**2

    @property
    def macs(self) -> int:
        """Multiply-adds at batch size 1. Normalisation, activations, pooling and biases are free.

        Source: OFA `count_flops_given_config`, whose "FLOPs" are MACs.
        """
        match self.kind:
            case LayerKind.CONV:
                inputs = 1 if self.depthwise else self.in_chs
                area = ((self.in_size - 1) // self.stride + 1) ** 2
                return inputs * self.out_chs * self.kernel_size**2 * area
            case LayerKind.SQUEEZE_EXCITE:
                return 2 * self.in_chs * self.hidden_chs
            case LayerKind.POOL | LayerKind.MAX_POOL | LayerKind.AVG_POOL:
                return 0
            case LayerKind.LINEAR:
                return self.in_chs * self.out_chs

    @property
    def params(self) -> int:
        """Trainable numbers, affine terms of batch normalisation included, kernel matrices not."""
        extra = (2 * int(self.norm) + int(self.bias)) * self.out_chs
        match self.kind:
            case LayerKind.CONV:
                inputs = 1 if self.depthwise else self.in_chs
                return inputs * self.out_chs * self.kernel_size**2 + extra
            case LayerKind.SQUEEZE_EXCITE:
                return (2 * self.in_chs + 1) * self.hidden_chs + self.in_chs
            case LayerKind.POOL | LayerKind.MAX_POOL | LayerKind.AVG_POOL:
                return 0
            case LayerKind.LINEAR:
                return self.in_chs * self.out_chs + extra

    @property
    def peak_memory_elements(self) -> int:
        """Most elements of inputs and outputs that are alive during any operation, at batch size 1.

        Operations are convolutions, pools and linears; normalisation and activations are part of the one before them.
        Squeeze-excite holds its input map during its pool and its two 1×1 convolutions, and scales it in place.
        """
        if self.kind is LayerKind.SQUEEZE_EXCITE:
            return self.in_elements + self.in_chs + self.hidden_chs
        return self.in_elements + self.out_elements


_BOTTLENECKS = (BlockKind.BOTTLENECK, BlockKind.BOTTLENECK_DOWN)


@lru_cache(maxsize=65536)
def _layers_of(spec: BlockSpec) -> tuple[LayerSpec, ...]:
    def conv(name: str, in_chs: int, out_chs: int, act: Act, *, in_size: int) -> LayerSpec:
        return LayerSpec(name, LayerKind.CONV, in_size, in_chs, out_chs, act=act, norm=spec.norm, bias=spec.bias)

    def spatial(name: str, out_chs: int, *, depthwise: bool) -> LayerSpec:
        return LayerSpec(
            name,
            LayerKind.CONV,
            spec.in_size,
            spec.mid_chs,
            out_chs,
            kernel_size=spec.kernel_size,
            stride=spec.stride,
            depthwise=depthwise,
            act=spec.act,
            norm=spec.norm,
            bias=spec.bias,
        )

    project = conv("project", spec.mid_chs, spec.out_chs, spec.out_act, in_size=spec.out_size)
    match spec.kind:
        case BlockKind.CONV:
            return (spatial("conv", spec.out_chs, depthwise=False),)
        case BlockKind.SEPARABLE:
            return (spatial("depthwise", spec.mid_chs, depthwise=True), project)
        case BlockKind.INVERTED:
            expand = conv("expand", spec.in_chs, spec.mid_chs, spec.act, in_size=spec.in_size)
            depthwise = spatial("depthwise", spec.mid_chs, depthwise=True)
            if not spec.se_chs:
                return (expand, depthwise, project)
            squeeze_excite = LayerSpec(
                "squeeze_excite",
                LayerKind.SQUEEZE_EXCITE,
                spec.out_size,
                spec.mid_chs,
                spec.mid_chs,
                hidden_chs=spec.se_chs,
            )
            return (expand, depthwise, squeeze_excite, project)
        case BlockKind.BOTTLENECK | BlockKind.BOTTLENECK_DOWN:
            reduce = conv("reduce", spec.in_chs, spec.mid_chs, spec.act, in_size=spec.in_size)
            # Differs from the kinds above: `out_act` follows the sum.
            path = (
                reduce,
                spatial("conv", spec.mid_chs, depthwise=False),
                replace(project, name="expand", act=Act.NONE),
            )
            return path + _downsample_of(spec) if spec.kind is BlockKind.BOTTLENECK_DOWN else path
        case BlockKind.MAX_POOL:
            return (replace(spatial("pool", spec.out_chs, depthwise=True), kind=LayerKind.MAX_POOL, norm=False),)
        case BlockKind.POOL:
            return (LayerSpec("pool", LayerKind.POOL, spec.in_size, spec.in_chs, spec.out_chs),)
        case BlockKind.LINEAR:
            return (LayerSpec("linear", LayerKind.LINEAR, 1, spec.in_chs, spec.out_chs, bias=spec.bias),)


def _downsample_of(spec: BlockSpec) -> tuple[LayerSpec, ...]:
    """The shortcut of ResNet-D: average pooling by the stride, then a 1×1 convolution.

    Source: He et al. 2018 (arXiv 1812.01187), figure 2c; OFA `DynamicResNetBottleneckBlock`.
    """
    pool = LayerSpec(
        "shortcut_pool",
        LayerKind.AVG_POOL,
        spec.in_size,
        spec.in_chs,
        spec.in_chs,
        kernel_size=spec.stride,
        stride=spec.stride,
        on_shortcut=True,
    )
    conv = LayerSpec(
        "shortcut",
        LayerKind.CONV,
        spec.out_size,
        spec.in_chs,
        spec.out_chs,
        norm=spec.norm,
        bias=spec.bias,
        on_shortcut=True,
    )
    return (pool, conv) if spec.stride > 1 else (conv,)
