"""MACs, parameters and table latencies of archs against the reference's own counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from benchmarks.reference_differences import FAMILIES, Comparison, Pair
from latency_tables.convert import import_ofa_tables
from latency_tables.estimator import LatencyEstimator
from supernet.spaces.arch import Arch
from supernet.spaces.costs import macs, macs_cost, params, params_cost

Reference = Callable[[str], ModuleType]
PairOf = Callable[[str], Pair]
ComparisonOf = Callable[[str], Comparison]
every_family = pytest.mark.parametrize("name", FAMILIES)


@every_family
def test_macs_are_the_references(name: str, pair_of: PairOf, comparison_of: ComparisonOf) -> None:
    """By `ofa.nas.efficiency_predictor`: the tutorial's table counts a stem of 4 channels and 1,200 classes."""
    space, compared = pair_of(name).space, comparison_of(name)
    assert [macs(space, arch) for arch in compared.archs] == compared.macs
    assert list(macs_cost(space).of(compared.archs)) == compared.macs


@every_family
def test_params_are_those_of_the_references_subnet(name: str, pair_of: PairOf, comparison_of: ComparisonOf) -> None:
    space, compared = pair_of(name).space, comparison_of(name)
    assert [params(space, arch) for arch in compared.archs] == compared.params
    assert list(params_cost(space).of(compared.archs)) == compared.params


@every_family
def test_macs_are_those_of_the_layers_that_run(
    name: str, pair_of: PairOf, comparison_of: ComparisonOf, reference: Reference
) -> None:
    pair, compared = pair_of(name), comparison_of(name)
    count = reference("utils").count_net_flops
    for index in (0, -2):
        pair.network.set_active_subnet(**compared.choices[index])
        found = count(pair.network.get_active_subnet(), compared.images[:1].shape)
        # It adds up in float32.
        assert macs(pair.space, compared.archs[index]) == pytest.approx(found, rel=1e-6)


@pytest.mark.shared_data
def test_latencies_of_the_note10_are_the_references(
    pair_of: PairOf, reference: Reference, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, folder = pair_of("ofa_mbv3_w1.2"), shared_data / "ofa_note10"
    efficiency = reference("nas.efficiency_predictor.latency_lookup_table")
    # It calls `yaml.load` without a loader, which PyYAML has refused since version 6.
    monkeypatch.setattr(efficiency, "yaml", SimpleNamespace(load=yaml.safe_load))
    model = reference("nas.efficiency_predictor").Mbv3LatencyModel(
        pair.network, dict.fromkeys(pair.space.resolutions, str(folder))
    )
    choices = [
        {**pair.network.sample_active_subnet(), "r": resolution} for resolution in pair.space.resolutions for _ in "ab"
    ]
    theirs = [model.get_efficiency({**choice, "image_size": choice["r"]}) for choice in choices]
    estimator = LatencyEstimator(import_ofa_tables(folder, pair.space, "note10"), pair.space)
    ours = estimator.estimate([Arch.from_ofa(choice, pair.space) for choice in choices])
    # The order of sums only.
    assert [estimate.estimated_ms for estimate in ours] == pytest.approx(theirs, rel=1e-12)
    assert len(set(theirs)) == len(choices) == 34
