"""Supernets and extracted subnets with the reference's weights compute what its own networks compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.reference_differences import FAMILIES, Comparison, Pair, move_means, swap_epsilon
from supernet.spaces.arch import Arch
from supernet.spaces.ofa_dicts import ofa_from_arch

# Relative to the logits' spread. Float32 in another order of sums, and another form of hard swish, come to 1e-6, and
# to 1e-5 in the largest MobileNetV3; the smallest fault below, one wrong mean, comes to 4e-4.
TOLERANCE = 1e-4

PairOf = Callable[[str], Pair]
ComparisonOf = Callable[[str], Comparison]
every_family = pytest.mark.parametrize("name", FAMILIES)


@every_family
def test_the_supernet_computes_what_the_references_does(name: str, comparison_of: ComparisonOf) -> None:
    assert comparison_of(name).difference("reference", "supernet") < TOLERANCE


@every_family
def test_the_extracted_subnet_computes_what_the_references_does(name: str, comparison_of: ComparisonOf) -> None:
    assert comparison_of(name).difference("reference_static", "extracted") < TOLERANCE


@every_family
def test_extracting_changes_nothing_on_either_side(name: str, comparison_of: ComparisonOf) -> None:
    compared = comparison_of(name)
    assert compared.difference("reference", "reference_static") < TOLERANCE
    assert compared.difference("supernet", "extracted") < TOLERANCE


@every_family
def test_logits_depend_on_arch_and_image(name: str, comparison_of: ComparisonOf) -> None:
    """Else the comparisons above would compare little."""
    compared = comparison_of(name)
    logits = compared.logits["reference"]
    assert len(set(compared.archs)) == len(logits) >= 22
    for of_one in (logits - logits.mean(0), logits - logits.mean(1, keepdim=True)):
        assert of_one.std() > 0.1 * compared.spread
    assert compared.spread > 0.1 * logits.std()


@every_family
def test_a_swapped_epsilon_would_be_seen(name: str, pair_of: PairOf, comparison_of: ComparisonOf) -> None:
    assert swap_epsilon(pair_of(name), comparison_of(name)) > 10 * TOLERANCE


@every_family
def test_one_wrong_mean_would_be_seen_in_any_layer(name: str, pair_of: PairOf, comparison_of: ComparisonOf) -> None:
    distances = move_means(pair_of(name), comparison_of(name))
    assert len(distances) > 30
    assert {layer: distance for layer, distance in distances.items() if distance < 2 * TOLERANCE} == {}


@every_family
@torch.no_grad()
def test_dictionaries_survive_the_way_to_our_archs_and_back(
    name: str, pair_of: PairOf, comparison_of: ComparisonOf
) -> None:
    """Skipped blocks come back with other values, and widths of ResNet50 that round alike with another index."""
    pair, compared = pair_of(name), comparison_of(name)
    for index, (choice, arch) in enumerate(zip(compared.choices, compared.archs, strict=True)):
        pair.network.set_active_subnet(**choice)
        active = pair.network.module_str
        # The reference keeps what a list is too short for from the arch before; ours are complete.
        pair.network.set_active_subnet(**ofa_from_arch(arch, pair.space))
        assert pair.network.module_str == active
        if index % 5 == 0:
            assert torch.equal(pair.network(compared.images), compared.logits["reference"][index])


@every_family
def test_the_largest_arch_is_the_references(name: str, pair_of: PairOf, comparison_of: ComparisonOf) -> None:
    network = pair_of(name).network
    network.set_max_net()
    largest = network.module_str
    network.set_active_subnet(**comparison_of(name).choices[-1])
    assert network.module_str == largest


@torch.no_grad()
def test_a_stem_of_depth_1_runs_as_in_the_references_network(pair_of: PairOf, comparison_of: ComparisonOf) -> None:
    """Its network skips the residual convolution at any depth but the largest; its encoder takes 1 for present."""
    pair, compared = pair_of("ofa_resnet50"), comparison_of("ofa_resnet50")
    distances = []
    for depth in (0, 1, 2):
        choice = {**compared.choices[-2], "d": [depth, 0, 0, 0, 0]}
        pair.network.set_active_subnet(**choice)
        theirs = pair.network(compared.images)
        ours = pair.supernet(compared.images, Arch.from_ofa(choice, pair.space))
        assert (ours - theirs).abs().max() < TOLERANCE * compared.spread
        distances.append(compared.distance(-2, theirs))
    assert distances[0] == distances[1] == 0 < TOLERANCE < distances[2]
