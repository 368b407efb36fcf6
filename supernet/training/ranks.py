"""The processes of a data-parallel run, as `torchrun` starts them. One process is a run of one rank."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Ranks:
    """This process and how many there are.

    Gradients are summed by one call of `torch.distributed` per step: the wrapper for data parallelism expects the same
    parameters in every pass, and each pass of a step runs another arch.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> Ranks:
        """The process group that `torchrun` describes in the environment; a single rank without one."""
        count = int(os.environ.get("WORLD_SIZE", "1"))  # noqa: TID251  (torchrun speaks through the environment)
        if count == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @staticmethod
    def device() -> str:
        """The device of this process: a GPU of its own where there are any, else the CPU."""
        local = os.environ.get("LOCAL_RANK", "0")  # noqa: TID251
        return f"cuda:{local}" if torch.cuda.is_available() else "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def part_of(self, n_items: int) -> slice:
        """This rank's share of a batch; `n_items` is a multiple of the number of ranks."""
        size = n_items // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all ranks, in place; every rank has run the same archs."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum over ranks of each value."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        if torch.cuda.is_available():
            total = total.cuda()
        dist.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed

    def wait(self) -> None:
        """Until every rank is here."""
        if self.count > 1:
            dist.barrier()
