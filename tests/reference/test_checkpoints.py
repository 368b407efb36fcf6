"""Every generation of the reference's checkpoints, against what its own `load_state_dict` makes of it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.reference_differences import FAMILIES, Comparison, Pair, build_supernet
from supernet.errors import InvalidCheckpointError
from supernet.ofa.weights import import_weights

Reference = Callable[[str], ModuleType]
PairOf = Callable[[str], Pair]
State = dict[str, Tensor]

MOBILE = ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3"]
# As in `test_networks`.
TOLERANCE = 1e-4
# Two per elastic block with kernels of 3, 5 and 7 pixels; ResNet50 has none.
N_MATRICES = {"ofa_mbv3_w1.0": 40, "ofa_proxyless_w1.3": 42}
STATIC = ("first_conv.", "blocks.0.", "final_expand_layer.", "feature_mix_layer.", "classifier.")


def assert_imported_as_loaded(state: State, pair: Pair, reference: Reference) -> None:
    """Our weights are those of a reference network into which the reference's code has loaded the same state."""
    network = pair.family.build(reference)
    network.load_state_dict(state)
    ours, theirs = import_weights(state, pair.space), import_weights(network.state_dict(), pair.space)
    assert ours.keys == len(state)
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert [name for name, tensor in ours.tensors.items() if not torch.equal(tensor, theirs.tensors[name])] == []


@pytest.mark.parametrize(("name", "keys"), [*zip(FAMILIES, (475, 475, 446, 368), strict=True)])
def test_every_key_is_consumed(name: str, keys: int, pair_of: PairOf) -> None:
    pair = pair_of(name)
    assert pair.imported.keys == len(pair.network.state_dict()) == keys
    assert pair.imported.kernel_matrices == (name != "ofa_resnet50")


@pytest.mark.parametrize("name", MOBILE)
def test_names_of_the_older_generation_are_read(name: str, pair_of: PairOf, reference: Reference) -> None:
    pair = pair_of(name)
    older = {
        ".".join([*words[:2], "mobile_inverted_conv", *words[3:]]) if words[0] == "blocks" else key: tensor
        for key, tensor in pair.network.state_dict().items()
        if (words := key.split("."))
    }
    assert not older.keys() >= pair.network.state_dict().keys()
    assert_imported_as_loaded(older, pair, reference)


@pytest.mark.parametrize("name", MOBILE)
def test_layers_that_were_elastic_once_are_read(name: str, pair_of: PairOf, reference: Reference) -> None:
    pair = pair_of(name)
    elastic = dict(pair.network.state_dict())
    for key in [key for key in elastic if key.startswith(STATIC)]:
        longer = key.replace(".bn.", ".bn.bn.").replace(".linear.", ".linear.linear.")
        longer = longer.replace(".conv.weight", ".conv.conv.weight")
        assert longer != key
        elastic[longer] = elastic.pop(key)
    assert_imported_as_loaded(elastic, pair, reference)


@pytest.mark.parametrize("name", [*MOBILE, "ofa_resnet50"])
def test_the_largest_static_network_is_read(name: str, pair_of: PairOf, reference: Reference) -> None:
    pair = pair_of(name)
    pair.network.set_max_net()
    static = pair.network.get_active_subnet().state_dict()
    assert len(static) == pair.imported.keys - N_MATRICES.get(name, 0)
    assert not import_weights(static, pair.space).kernel_matrices
    assert_imported_as_loaded(static, pair, reference)


@pytest.mark.parametrize("name", MOBILE)
@torch.no_grad()
def test_without_kernel_matrices_small_kernels_are_centres_of_large_ones(
    name: str,
    pair_of: PairOf,
    comparison_of: Callable[[str], Comparison],
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair, compared = pair_of(name), comparison_of(name)
    state = {key: tensor for key, tensor in pair.network.state_dict().items() if not key.endswith("_matrix")}
    assert len(state) == pair.imported.keys - N_MATRICES[name]
    # The mode is a flag of the class, for all networks of the process.
    operators: Any = reference("imagenet_classification.elastic_nn.modules.dynamic_op")
    monkeypatch.setattr(operators.DynamicSeparableConv2d, "KERNEL_TRANSFORM_MODE", None)
    network = pair.family.build(reference)
    network.load_state_dict(state)
    network.eval()
    supernet = build_supernet(import_weights(state, pair.space).tensors, pair.space)
    for index in (0, 1, -2):
        network.set_active_subnet(**compared.choices[index])
        theirs = network(compared.images)
        ours = supernet(compared.images, compared.archs[index])
        assert (ours - theirs).abs().max() < TOLERANCE * compared.spread
        assert compared.distance(index, theirs) > 0.01


def test_a_missing_key_is_an_error_here_only(pair_of: PairOf, reference: Reference) -> None:
    """The reference keeps its own random weights then, without a word."""
    pair = pair_of("ofa_mbv3_w1.0")
    state = pair.network.state_dict()
    del state["final_expand_layer.conv.weight"]
    pair.family.build(reference).load_state_dict(state)
    with pytest.raises(InvalidCheckpointError, match=r"missing \['final_expand_layer\.conv\.weight'\]"):
        import_weights(state, pair.space)
