"""Ranks: each process gets a device of its own, and the backend that can reach it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from supernet.training.ranks import Ranks

Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the second of two processes asks of torch, on a machine with GPUs."""
    made: Calls = []

    def record(name: str, answer: object = None) -> Callable[..., object]:
        def call(*args: object) -> object:
            made.append((name, *args))
            return answer

        return call

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", record("set_device"))
    monkeypatch.setattr(dist, "is_initialized", lambda: bool(made))
    monkeypatch.setattr(dist, "init_process_group", record("init"))
    monkeypatch.setattr(dist, "destroy_process_group", record("destroy"))
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda total: total.mul_(2))
    return made


@pytest.mark.parametrize("device", [None, "cuda", "cuda:1"])
def test_every_process_sums_on_a_gpu_of_its_own(calls: Calls, device: str | None) -> None:
    assert Ranks.join(device) == Ranks(1, 2)
    assert calls == [("set_device", 1), ("init", "nccl")]


def test_a_gpu_nobody_trains_on_is_left_alone(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks.join("cpu")
    assert calls == [("init", "gloo")]
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    assert ranks.sums([1.0, 2.5]) == [2.0, 5.0]


def test_sums_are_taken_where_nccl_can_reach_them(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, devices = torch.tensor, []

    def tensor(values: list[float], *, dtype: torch.dtype, device: str) -> torch.Tensor:
        devices.append(device)
        return plain(values, dtype=dtype)

    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    monkeypatch.setattr(torch, "tensor", tensor)
    assert Ranks.join().sums([0.5]) == [1.0]
    assert devices == ["cuda"]  # the current one, set above


def test_a_group_that_is_there_is_joined_as_it_is_and_left_once(calls: Calls) -> None:
    Ranks.join("cpu")
    ranks = Ranks.join()
    ranks.leave()
    assert calls == [("init", "gloo"), ("destroy",)]


def test_a_process_alone_needs_no_group(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    ranks = Ranks.join("cuda")
    assert ranks.sums([1.5]) == [1.5]
    ranks.wait()
    ranks.leave()
    assert ranks == Ranks()
    assert calls == []


@pytest.mark.parametrize(("has_gpus", "device"), [(True, "cuda:1"), (False, "cpu")])
def test_the_default_device_is_a_gpu_where_there_is_one(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, has_gpus: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpus)
    assert Ranks.device() == device
    assert Ranks.join() == Ranks(1, 2)
    assert calls[-1] == ("init", "nccl" if has_gpus else "gloo")
