"""Peak memory equals an instrumented run of the extracted subnet, and a walk over the graph it is exported as.

Nothing here reads a block spec: operations, sizes and last uses come from the tensors of the run or the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from supernet.export.onnx import export_onnx
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind, BlockSpec
from supernet.spaces.costs import blocks_of, peak_memory, peak_memory_cost
from supernet.spaces.presets import list_spaces, load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

# What becomes part of the operation before it, or is a view.
FOLDED_IN_TORCH = {"native_batch_norm", "_native_batch_norm_legit_no_training", "relu", "hardtanh", "hardswish"}
FOLDED_IN_TORCH |= {"hardsigmoid", "view", "_unsafe_view"}
# The map is scaled in place by the gate.
SCALED_IN_TORCH, SCALED_IN_ONNX = "mul", "Mul"
COUNTED_IN_TORCH = {"convolution", "addmm", "mm", "mean", "max_pool2d_with_indices", "avg_pool2d", "add"}
FOLDED_IN_ONNX = {"Relu", "Clip", "HardSwish", "HardSigmoid", "Flatten", "Reshape"}
COUNTED_IN_ONNX = {"Conv", "Gemm", "MatMul", "ReduceMean", "MaxPool", "AveragePool", "Add"}


@dataclass
class Activations:
    """Which activations every operation reads and makes, told one operation at a time.

    Attributes:
        elements: Per activation.
        aliases: The activation that a tensor of the run is.
        operations: Activations read, and the one made.
    """

    elements: list[int] = field(default_factory=list)
    aliases: dict[Any, int] = field(default_factory=dict)
    operations: list[tuple[list[int], int]] = field(default_factory=list)

    def add(self, name: Any, elements: int) -> int:
        self.aliases[name] = len(self.elements)
        self.elements.append(elements)
        return self.aliases[name]

    def fold(self, source: Any, made: Any) -> None:
        """One activation goes on under another name; whoever asks for the old one finds nothing."""
        self.aliases[made] = self.aliases.pop(source)

    def scale(self, sources: list[Any], made: Any) -> None:
        """The largest one goes on, scaled in place by the other."""
        largest = max(sources, key=lambda source: self.elements[self.aliases[source]])
        self.fold(largest, made)

    def operate(self, sources: list[Any], made: Any, elements: int) -> None:
        read = [self.aliases[source] for source in sources]
        self.operations.append((read, self.add(made, elements)))

    def peak(self) -> int:
        """Most elements alive during an operation: made by then, and not read for the last time before."""
        made = {activation: time for time, (_, activation) in enumerate(self.operations)}
        last_read = {activation: time for time, (read, _) in enumerate(self.operations) for activation in read}
        return max(
            sum(
                elements
                for activation, elements in enumerate(self.elements)
                if made.get(activation, -1) <= time <= last_read.get(activation, made.get(activation, -1))
            )
            for time in range(len(self.operations))
        )


class Recorder(TorchDispatchMode):
    """Follows every tensor that comes from the image through the operators that torch really runs."""

    def __init__(self, subnet: Subnet, image: Tensor) -> None:
        super().__init__()
        self.weights = {self.storage(tensor) for tensor in (*subnet.parameters(), *subnet.buffers())}
        self.kept = [image]  # so that no storage is used twice
        self.activations = Activations()
        self.activations.add(self.storage(image), image.numel())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result[0] if isinstance(result, tuple | list) else result
        self.kept.append(made)
        operator = func.overloadpacket.__name__
        read = [self.storage(value) for value in args if isinstance(value, Tensor)]
        sources = [storage for storage in read if storage not in self.weights]
        if not sources:
            return result  # of weights alone; or new, and nothing may read it
        if operator == SCALED_IN_TORCH:
            self.activations.scale(sources, self.storage(made))
        elif operator in FOLDED_IN_TORCH:
            self.activations.fold(*sources, self.storage(made))
        else:
            assert operator in COUNTED_IN_TORCH, f"{operator} is neither counted nor folded"
            self.activations.operate(sources, self.storage(made), made.numel())
        return result

    @staticmethod
    def storage(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata


def peak_of_run(subnet: Subnet, image: Tensor) -> int:
    with torch.no_grad(), Recorder(subnet, image) as recorder:
        subnet.eval()(image)
    return recorder.activations.peak()


def peak_of_graph(path: Path) -> int:
    """Of an exported file, its nodes run in the order they are listed."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    constants = {tensor.name for tensor in graph.initializer}
    elements = {
        value.name: math.prod(size.dim_value or 1 for size in value.type.tensor_type.shape.dim)  # the batch has a name
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    activations = Activations()
    activations.add(graph.input[0].name, elements[graph.input[0].name])
    for node in graph.node:
        sources, (made,) = [name for name in node.input if name not in constants], node.output
        if node.op_type == SCALED_IN_ONNX:
            activations.scale(sources, made)
        elif node.op_type in FOLDED_IN_ONNX:
            activations.fold(*sources, made)
        else:
            assert node.op_type in COUNTED_IN_ONNX, f"{node.op_type} is neither counted nor folded"
            activations.operate(sources, made, elements[made])
    return activations.peak()


def every_kind() -> SearchSpace:
    """Bottlenecks whose shortcut pools and projects or projects alone, squeeze-excite, plain shortcuts."""
    return SearchSpace(
        "every_kind",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 24), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(BlockKind.CONV, depths=(0, 1), kernel_sizes=(3,), act=Act.RELU, shortcut=True),
            Stage(BlockKind.MAX_POOL, kernel_sizes=(3,), stride=2),
            Stage(BlockKind.SEPARABLE, depths=(0, 2), kernel_sizes=(3, 5), act=Act.RELU6, shortcut=True),
            Stage(
                BlockKind.INVERTED,
                widths=(8, 16),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(0.5, 3),
                act=Act.HSWISH,
                se=True,
                se_ratio=0.75,
                shortcut=True,
            ),
            *(
                Stage(
                    BlockKind.BOTTLENECK,
                    widths=widths,
                    depths=(1, 2),
                    kernel_sizes=(3,),
                    expand_ratios=(0.25, 4),
                    stride=stride,
                    act=Act.RELU,
                    out_act=Act.RELU,
                    shortcut=True,
                )
                for widths, stride in (((8, 40), 1), ((16, 64), 2))
            ),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(5,), norm=False, bias=True),
        ),
        resolutions=(17, 44),
        divisor=4,
    )


def shrunk(name: str, resolution: int) -> SearchSpace:
    return replace(load_space(name), resolutions=(resolution,))


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "every_kind": every_kind,
    **{name: partial(load_space, name) for name in list_spaces()},
}
TRAINABLE: dict[str, Callable[[], SearchSpace]] = {
    "every_kind": every_kind,
    "cifar_mbv3": partial(load_space, "cifar_mbv3"),
    "ofa_resnet50": partial(shrunk, "ofa_resnet50", 45),
    "us_mobilenet_v1": partial(shrunk, "us_mobilenet_v1", 65),
    "us_mobilenet_v2": partial(shrunk, "us_mobilenet_v2", 64),
}


def archs_of(space: SearchSpace, n_sampled: int) -> list[Arch]:
    """The ends of the space and a sample."""
    sampled = space.from_rows(space.sample_rows(np.random.default_rng(0), n_sampled))
    return [space.smallest(), *sampled, space.largest()]


@pytest.mark.parametrize("name", TRAINABLE)
def test_peak_memory_is_that_of_a_run_of_the_extracted_subnet(name: str) -> None:
    space = TRAINABLE[name]()
    supernet = Supernet(space, torch.Generator().manual_seed(0))
    archs = archs_of(space, 2)
    seen = [
        peak_of_run(extract_subnet(supernet, arch), torch.zeros(1, space.in_chs, arch.resolution, arch.resolution))
        for arch in archs
    ]
    assert [peak_memory(space, arch) for arch in archs] == seen
    assert peak_memory_cost(space).of(archs).tolist() == seen


@pytest.mark.parametrize("name", SPACES)
def test_peak_memory_is_that_of_a_run_at_full_resolution(name: str) -> None:
    space = SPACES[name]()
    for arch in archs_of(space, 0):
        with torch.device("meta"):  # shapes without values: nothing is computed
            subnet = Subnet(blocks_of(space, arch), norm_eps=space.norm_eps)
            image = torch.zeros(1, space.in_chs, arch.resolution, arch.resolution)
        assert peak_memory(space, arch) == peak_of_run(subnet, image)


@pytest.mark.parametrize("name", SPACES)
def test_peak_memory_of_every_block_is_that_of_its_own_run(name: str) -> None:
    space = SPACES[name]()
    for spec in {spec for arch in archs_of(space, 1) for spec in blocks_of(space, arch)}:
        with torch.device("meta"):
            block, image = Subnet([spec], norm_eps=1e-5), torch.zeros(1, spec.in_chs, spec.in_size, spec.in_size)
        assert spec.peak_memory_elements == peak_of_run(block, image), spec


def test_peak_memory_is_that_of_the_exported_graph(tmp_path: Path) -> None:
    # Its peak is the pool of the shortcut, which runs last and holds the output of the block's own path.
    spec = BlockSpec(BlockKind.BOTTLENECK_DOWN, in_size=9, in_chs=64, mid_chs=4, out_chs=16, kernel_size=3, stride=2)
    assert spec.peak_memory_elements == 64 * 81 + 64 * 25 + 16 * 25
    path = tmp_path / "model.onnx"
    export_onnx(Subnet([spec], norm_eps=1e-5), path)
    assert peak_of_graph(path) == spec.peak_memory_elements
