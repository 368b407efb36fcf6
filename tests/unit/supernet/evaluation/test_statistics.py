"""BN recalibration against statistics computed another way, and what it must leave alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from supernet.errors import InvalidConfigError
from supernet.evaluation.statistics import apply_statistics, measure_statistics, recalibrate_bn
from supernet.network.subnet import Subnet


def norms_of(subnet: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in subnet.named_modules() if isinstance(module, nn.BatchNorm2d)}


def state_of(subnet: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in subnet.state_dict().items()}


def surroundings_of(subnet: nn.Module) -> list[object]:
    """Everything of a subnet but its tensors that a recalibration could leave changed."""
    return [
        (name, module.training, getattr(module, "momentum", None), len(module._forward_hooks))
        for name, module in subnet.named_modules()
    ]


def independent_statistics(subnet: nn.Module, batches: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and biased variance of what enters each norm in train mode, batch by batch in double precision."""
    copied = copy.deepcopy(subnet).double().train()
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, norm in norms_of(copied).items():
        norm.register_forward_pre_hook(
            lambda _module, inputs, name=name: seen.setdefault(name, []).append(
                (inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False))
            )
        )
    with torch.no_grad():
        for batch in batches:
            copied(batch.double())
    sizes = [len(batch) for batch in batches]
    return {
        name: tuple(
            sum(size * entry[part] for size, entry in zip(sizes, entries, strict=True)) / sum(sizes) for part in (0, 1)
        )
        for name, entries in seen.items()
    }


def test_statistics_are_weighted_means_of_batch_means_and_biased_variances(
    subnet: Subnet, batches: list[Tensor]
) -> None:
    measured, expected = measure_statistics(subnet, batches), independent_statistics(subnet, batches)
    assert list(measured) == list(expected) == list(norms_of(subnet))
    for name, (mean, variance) in measured.items():
        # Single against double precision through nine layers.
        torch.testing.assert_close(mean, expected[name][0].float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(variance, expected[name][1].float(), rtol=1e-4, atol=1e-5)


def test_means_of_equal_batches_are_those_of_torch(subnet: Subnet, batches: list[Tensor]) -> None:
    equal = [batch[:2] for batch in batches]
    oracle = copy.deepcopy(subnet)
    update_bn(equal, oracle)
    measured = measure_statistics(subnet, equal)
    for name, norm in norms_of(oracle).items():
        torch.testing.assert_close(measured[name][0], norm.running_mean, rtol=1e-4, atol=1e-5)


def test_measuring_leaves_the_subnet_as_it_was(subnet: Subnet, batches: list[Tensor]) -> None:
    for norm in norms_of(subnet).values():
        norm.momentum = 0.03
        norm.num_batches_tracked.fill_(41)
    before, surroundings = state_of(subnet), surroundings_of(subnet)
    measure_statistics(subnet, batches)
    assert all(torch.equal(before[name], tensor) for name, tensor in subnet.state_dict().items())
    assert surroundings_of(subnet) == surroundings


def test_measuring_keeps_the_mode_of_every_module(subnet: Subnet, batches: list[Tensor]) -> None:
    subnet.train()
    next(iter(norms_of(subnet).values())).eval()
    surroundings = surroundings_of(subnet)
    measure_statistics(subnet, batches)
    assert surroundings_of(subnet) == surroundings


def test_recalibration_writes_running_statistics_and_nothing_else(subnet: Subnet, batches: list[Tensor]) -> None:
    before, measured = state_of(subnet), measure_statistics(subnet, batches)
    recalibrate_bn(subnet, batches)
    assert not subnet.training
    for name, tensor in subnet.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if kind == "running_mean":
            assert torch.equal(tensor, measured[layer][0])
        elif kind == "running_var":
            assert torch.equal(tensor, measured[layer][1])
        else:
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("previous", [0.0, 1e30, float("inf"), float("nan")])
def test_statistics_do_not_depend_on_previous_ones(subnet: Subnet, batches: list[Tensor], previous: float) -> None:
    expected = measure_statistics(subnet, batches)
    for norm in norms_of(subnet).values():
        norm.running_mean.fill_(previous)
        norm.running_var.fill_(previous)
    measured = measure_statistics(subnet, batches)
    for name in expected:
        assert all(torch.equal(a, b) for a, b in zip(measured[name], expected[name], strict=True)), name


def test_recalibrating_twice_changes_nothing(subnet: Subnet, batches: list[Tensor]) -> None:
    recalibrate_bn(subnet, batches)
    once = state_of(subnet)
    recalibrate_bn(subnet, batches)
    assert all(torch.equal(once[name], tensor) for name, tensor in subnet.state_dict().items())


def test_an_error_in_the_middle_leaves_the_subnet_as_it_was(subnet: Subnet, batches: list[Tensor]) -> None:
    def broken() -> Iterator[Tensor]:
        yield batches[0]
        raise OSError("the disk is gone")

    before, surroundings = state_of(subnet), surroundings_of(subnet)
    with pytest.raises(OSError, match="the disk is gone"):
        recalibrate_bn(subnet, broken())
    assert all(torch.equal(before[name], tensor) for name, tensor in subnet.state_dict().items())
    assert surroundings_of(subnet) == surroundings


def test_no_batch_is_refused_and_changes_nothing(subnet: Subnet) -> None:
    before, surroundings = state_of(subnet), surroundings_of(subnet)
    with pytest.raises(InvalidConfigError, match="at least one batch"):
        recalibrate_bn(subnet, [])
    assert all(torch.equal(before[name], tensor) for name, tensor in subnet.state_dict().items())
    assert surroundings_of(subnet) == surroundings


def test_a_recalibrated_subnet_classifies_as_it_did_in_train_mode(subnet: Subnet, batches: list[Tensor]) -> None:
    """On one batch alone, running and batch statistics are the same numbers."""
    recalibrate_bn(subnet, batches[:1])
    with torch.no_grad():
        evaluated, trained = subnet(batches[0]), copy.deepcopy(subnet).train()(batches[0])
    torch.testing.assert_close(evaluated, trained, rtol=1e-4, atol=1e-5)


def test_statistics_of_an_unknown_layer_are_refused(subnet: Subnet) -> None:
    with pytest.raises(AttributeError):
        apply_statistics(subnet, {"blocks.99.norm": (torch.zeros(1), torch.ones(1))})
