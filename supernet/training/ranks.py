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
    def join(cls, device: str | None = None) -> Ranks:
        """The process group that `torchrun` describes in the environment; a single rank without one.

        Args:
            device: Of torch, that gradients lie on; `cuda` is the GPU of this process. By default `Ranks.device()`. It
                decides on the backend, so a group that is there already stays as it is.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))  # noqa: TID251  (torchrun speaks through the environment)
        if count == 1:
            return cls()
        if not dist.is_initialized():
            used = torch.device(device or cls.device())
            if used.type == "cuda":
                # NCCL works on the current device, which is the first GPU in every process until it is set.
                torch.cuda.set_device(_local_rank() if used.index is None else used.index)
            dist.init_process_group("nccl" if used.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @staticmethod
    def device() -> str:
        """The device of this process: a GPU of its own where there are any, else the CPU."""
        return f"cuda:{_local_rank()}" if torch.cuda.is_available() else "cpu"

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
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed

    def wait(self) -> None:
        """Until every rank is here."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Take the process group down; all ranks call it, after the last of their work together."""
        if self.count > 1:
            dist.destroy_process_group()


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))  # noqa: TID251  (torchrun speaks through the environment)
