from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from latency_tables.errors import MeasurementError
from latency_tables.graphs import build_graph, empty_graph
from supernet.spaces.blocks import Act, BlockKind, BlockSpec
from supernet.spaces.costs import blocks_of
from supernet.spaces.space import SearchSpace

INVERTED = BlockSpec(BlockKind.INVERTED, 8, 16, 48, 16, kernel_size=5, act=Act.HSWISH, se_chs=16, shortcut=True)


def run(model: bytes) -> tuple[np.ndarray, list[int]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    x = np.random.default_rng(0).standard_normal(source.shape, np.float32)
    (y,) = session.run(None, {source.name: x})
    return y, source.shape


def operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def test_every_block_of_a_space_runs_with_its_shapes(small_space: SearchSpace, rng: np.random.Generator) -> None:
    for spec in small_space.distinct_blocks():
        y, in_shape = run(build_graph([spec], rng=rng))
        assert in_shape == [1, spec.in_chs, spec.in_size, spec.in_size]
        flat = spec.kind is BlockKind.LINEAR
        assert y.shape == ((1, spec.out_chs) if flat else (1, spec.out_chs, spec.out_size, spec.out_size))
        assert np.isfinite(y).all()


def test_a_whole_network_keeps_activations_of_order_one(small_space: SearchSpace, rng: np.random.Generator) -> None:
    y, in_shape = run(build_graph(blocks_of(small_space, small_space.largest()), rng=rng, batch_size=3))
    assert in_shape == [3, 3, 24, 24]
    assert y.shape == (3, 4)
    assert 1e-3 < np.abs(y).mean() < 1e3


def test_an_inverted_block_has_the_operators_of_a_folded_export(rng: np.random.Generator) -> None:
    # What torch's exporter writes for the same block of supernet.network.Subnet.
    expected = {"Conv": 5, "HardSwish": 2, "ReduceMean": 1, "Relu": 1, "HardSigmoid": 1, "Mul": 1, "Add": 1}
    assert operators(build_graph([INVERTED], rng=rng)) == expected


def test_folded_normalisation_leaves_a_bias_and_nothing_else(rng: np.random.Generator) -> None:
    graph = onnx.load_from_string(build_graph([INVERTED], rng=rng)).graph
    elements = sum(int(np.prod(weight.dims)) for weight in graph.initializer if weight.name[-4:] != "axes")
    # Scale and shift of three normalisations become three biases.
    assert elements == INVERTED.params - (48 + 48 + 16)


def test_a_convolution_without_normalisation_has_no_bias(rng: np.random.Generator) -> None:
    spec = BlockSpec(BlockKind.CONV, 1, 8, 8, 16, act=Act.HSWISH, norm=False)
    (conv, _) = onnx.load_from_string(build_graph([spec], rng=rng)).graph.node
    assert len(conv.input) == 2


@pytest.mark.parametrize(
    ("act", "operator"), [(Act.RELU, "Relu"), (Act.RELU6, "Clip"), (Act.HSWISH, "HardSwish"), (Act.NONE, None)]
)
def test_each_activation_is_its_operator(rng: np.random.Generator, act: Act, operator: str | None) -> None:
    model = build_graph([BlockSpec(BlockKind.CONV, 4, 8, 8, 8, kernel_size=3, act=act)], rng=rng)
    assert operators(model) == Counter(["Conv", *([operator] if operator else [])])
    y, _ = run(model)
    assert (y.min() >= 0) == (act in (Act.RELU, Act.RELU6))
    assert act is not Act.RELU6 or y.max() <= 6


def test_the_generator_alone_decides_the_weights() -> None:
    first, again, other = (build_graph([INVERTED], rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_blocks_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(MeasurementError, match="cannot feed"):
        build_graph([INVERTED, BlockSpec(BlockKind.POOL, 4, 16, 16, 16)], rng=rng)


@pytest.mark.parametrize(("blocks", "batch_size"), [([], 1), ([INVERTED], 0)])
def test_graphs_of_nothing_are_refused(rng: np.random.Generator, blocks: list[BlockSpec], batch_size: int) -> None:
    with pytest.raises(MeasurementError, match="at least"):
        build_graph(blocks, rng=rng, batch_size=batch_size)


def test_the_empty_graph_computes_nothing() -> None:
    y, _ = run(empty_graph())
    assert y.shape == (1, 1, 1, 1)
    assert operators(empty_graph()) == {"Identity": 1}
