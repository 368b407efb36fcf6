"""Channels sorted by importance, against the reference's `re_organize_middle_weights`."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.reference_differences import Pair, build_supernet
from supernet.ofa.weights import import_weights
from supernet.spaces.space import Dimension
from supernet.training.channel_sorting import sort_channels

PairOf = Callable[[str], Pair]


def sorted_by_both(pair: Pair, stage: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our tensors and the reference's, where `stage` narrower expand ratios have joined in before.

    Importances are float64 on both sides: among thousands of channels, float32 makes some equal, whose order is free.
    """
    network = copy.deepcopy(pair.network).double()
    network.re_organize_middle_weights(expand_ratio_stage=stage)
    supernet = build_supernet(pair.imported.tensors, pair.space).double()
    sort_channels(supernet, least=pair.space.least_choices({Dimension.EXPAND_RATIO: stage + 1}) if stage else None)
    return supernet.float().state_dict(), import_weights(network.state_dict(), pair.space).tensors


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50"])
def test_a_full_sort_is_the_references(name: str, pair_of: PairOf) -> None:
    pair = pair_of(name)
    ours, theirs = sorted_by_both(pair, 0)
    assert [tensor for tensor in ours if not torch.equal(ours[tensor], theirs[tensor])] == []
    moved = [tensor for tensor in ours if not torch.equal(ours[tensor], pair.imported.tensors[tensor])]
    assert len(moved) > len(ours) / 2


def test_a_sort_by_groups_is_the_references_in_the_first_group(pair_of: PairOf) -> None:
    """Behind it the reference's order is approximate: importances are offset by more than float32 can tell apart."""
    pair = pair_of("ofa_proxyless_w1.3")
    ours, theirs = sorted_by_both(pair, 1)
    n_compared = 0
    for position, spec in pair.space.walk(pair.space.largest()):
        name = f"blocks.{position}.layers.depthwise.conv.weight"
        if "expand" not in (layer.name for layer in spec.layers):
            continue
        first = spec.mid_chs * 4 // 6
        assert torch.equal(ours[name][:first], theirs[name][:first])
        assert not torch.equal(ours[name][:first], pair.imported.tensors[name][:first])
        assert ours[name].sum() == pytest.approx(float(pair.imported.tensors[name].sum()), abs=1e-3)
        n_compared += 1
    assert n_compared == 21
