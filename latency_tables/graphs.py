"""ONNX graphs of chains of blocks, with random weights, made from `BlockSpec.layers` alone.

They hold the operators that torch's exporter writes for the same subnet after batch normalisation is folded, so that
a machine can be measured with neither torch nor a trained supernet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from latency_tables.errors import MeasurementError
from supernet.spaces.blocks import Act, BlockKind, BlockSpec, LayerKind, LayerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

# Oldest opset with HardSwish and with ReduceMean axes as an input, as exports have them.
OPSET = 18
IR_VERSION = 10

INPUT_NAME = "input"
OUTPUT_NAME = "output"


def build_graph(blocks: Sequence[BlockSpec], *, rng: np.random.Generator, batch_size: int = 1) -> bytes:
    """Build the ONNX model of blocks that run one after another.

    Args:
        blocks: At least one; each must take what the one before it gives.
        rng: Source of the weights, scaled so that activations stay of order one (subnormal numbers would slow the
            kernels down).
        batch_size: Images per call; fixed in the graph.

    Returns:
        The serialised model: input `input` of `(batch_size, in_chs, in_size, in_size)`, output `output`.

    Raises:
        MeasurementError: There is no block, or two neighbours do not fit.
    """
    if not blocks:
        raise MeasurementError("A graph needs at least one block, got none.")
    if batch_size < 1:
        raise MeasurementError(f"A graph needs a batch size of at least 1, got {batch_size}.")
    for before, after in pairwise(blocks):
        if (before.out_chs, before.out_size) != (after.in_chs, after.in_size):
            raise MeasurementError(
                f"A block that gives {before.out_chs} channels of {before.out_size} pixels cannot feed one that takes "
                f"{after.in_chs} of {after.in_size}. Pass the blocks of one arch in the order they run."
            )
    draft = _Draft(rng)
    current = INPUT_NAME
    for index, spec in enumerate(blocks):
        current = draft.add_block(f"blocks.{index}", spec, current)
    draft.rename_output(current)
    first, last = blocks[0], blocks[-1]
    shape = [batch_size, last.out_chs]
    if last.kind is not BlockKind.LINEAR:
        shape += [last.out_size, last.out_size]
    return draft.serialise([batch_size, first.in_chs, first.in_size, first.in_size], shape)


def empty_graph() -> bytes:
    """Build the model that does nothing: what a call of the runtime costs by itself."""
    draft = _Draft(np.random.default_rng(0))
    draft.add_node("Identity", "nothing", [INPUT_NAME])
    draft.rename_output("nothing")
    return draft.serialise([1, 1, 1, 1], [1, 1, 1, 1])


@dataclass
class _Draft:
    """Nodes and weights of a graph under construction; every node is named after its one output."""

    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def add_block(self, name: str, spec: BlockSpec, source: str) -> str:
        current, shortcut = source, source
        for layer in spec.layers:
            if layer.on_shortcut:
                shortcut = self.add_layer(f"{name}.{layer.name}", layer, shortcut)
            else:
                current = self.add_layer(f"{name}.{layer.name}", layer, current)
        if spec.adds_shortcut:
            current = self.add_node("Add", f"{name}.sum", [shortcut, current])
            current = self.add_act(current, spec.sum_act, current)
        return current

    def add_layer(self, name: str, layer: LayerSpec, source: str) -> str:
        match layer.kind:
            case LayerKind.CONV:
                return self.add_act(name, layer.act, self.add_conv(name, layer, source))
            case LayerKind.SQUEEZE_EXCITE:
                return self.add_squeeze_excite(name, layer, source)
            case LayerKind.MAX_POOL:
                return self.add_pool("MaxPool", name, layer, source, pads=(layer.kernel_size // 2,) * 4)
            case LayerKind.AVG_POOL:
                return self.add_pool("AveragePool", name, layer, source, ceil_mode=1)
            case LayerKind.POOL:
                return self.add_mean(name, source)
            case LayerKind.LINEAR:
                flat = self.add_node("Flatten", f"{name}.flat", [source], axis=1)
                inputs = [flat, self.add_weight(f"{name}.weight", (layer.out_chs, layer.in_chs), layer.in_chs)]
                if layer.bias:
                    inputs.append(self.add_weight(f"{name}.bias", (layer.out_chs,), layer.in_chs))
                return self.add_node("Gemm", name, inputs, transB=1)

    def add_conv(self, name: str, layer: LayerSpec, source: str) -> str:
        inputs = 1 if layer.depthwise else layer.in_chs
        kernel = (layer.kernel_size, layer.kernel_size)
        fan_in = inputs * layer.kernel_size**2
        gain = 1 if layer.act is Act.NONE else 2  # an activation halves the second moment
        operands = [source, self.add_weight(f"{name}.weight", (layer.out_chs, inputs, *kernel), fan_in / gain)]
        if layer.norm or layer.bias:  # folding batch normalisation leaves a bias behind
            operands.append(self.add_weight(f"{name}.bias", (layer.out_chs,), fan_in))
        return self.add_node(
            "Conv",
            f"{name}.conv",
            operands,
            kernel_shape=kernel,
            strides=(layer.stride, layer.stride),
            pads=(layer.kernel_size // 2,) * 4,
            group=layer.out_chs if layer.depthwise else 1,
        )

    def add_act(self, name: str, act: Act, source: str) -> str:
        match act:
            case Act.NONE:
                return source
            case Act.RELU:
                return self.add_node("Relu", f"{name}.act", [source])
            case Act.RELU6:
                low, high = (
                    self.add_constant(f"{name}.{limit}", np.float32(value))
                    for limit, value in (("low", 0), ("high", 6))
                )
                return self.add_node("Clip", f"{name}.act", [source, low, high])
            case Act.HSWISH:
                return self.add_node("HardSwish", f"{name}.act", [source])

    def add_squeeze_excite(self, name: str, layer: LayerSpec, source: str) -> str:
        pooled = self.add_mean(f"{name}.pool", source)
        reduce = LayerSpec("reduce", LayerKind.CONV, 1, layer.in_chs, layer.hidden_chs, act=Act.RELU, bias=True)
        expand = LayerSpec("expand", LayerKind.CONV, 1, layer.hidden_chs, layer.in_chs, bias=True)
        hidden = self.add_layer(f"{name}.reduce", reduce, pooled)
        gate = self.add_layer(f"{name}.expand", expand, hidden)
        gate = self.add_node("HardSigmoid", f"{name}.gate", [gate], alpha=1 / 6, beta=0.5)
        return self.add_node("Mul", name, [source, gate])

    def add_pool(self, operator: str, name: str, layer: LayerSpec, source: str, **attributes: Any) -> str:
        kernel, strides = ((size, size) for size in (layer.kernel_size, layer.stride))
        return self.add_node(operator, name, [source], kernel_shape=kernel, strides=strides, **attributes)

    def add_mean(self, name: str, source: str) -> str:
        axes = self.add_constant(f"{name}.axes", np.array([2, 3], np.int64))
        return self.add_node("ReduceMean", name, [source, axes], keepdims=1)

    def add_weight(self, name: str, shape: tuple[int, ...], fan_in: float) -> str:
        values = self.rng.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)
        return self.add_constant(name, values)

    def add_constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add_node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def rename_output(self, name: str) -> None:
        for node in self.nodes:
            node.output[:] = [OUTPUT_NAME if output == name else output for output in node.output]

    def serialise(self, in_shape: list[int], out_shape: list[int]) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "blocks",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, in_shape)],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, out_shape)],
            initializer=self.weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tailor")
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data
