"""One set of weights that serves every pool: switching writes BN statistics and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from supernet.bundle import open_bundle
from supernet.errors import InvalidConfigError
from supernet.network.checkpoint import load_supernet
from supernet.pools.storage import load_pools
from supernet.spaces.norms import norm_layers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from supernet.network.elastic_net import Supernet
    from supernet.pools.storage import PoolChoice
    from supernet.spaces.arch import Arch


class PoolRuntime:
    """Runs one pool's subnet at a time and changes to another one's in place, without building a network.

    Not safe between threads: a switch changes what every caller gets, and one that comes in the middle of a call mixes
    two subnets. Give each thread a runtime of its own, or hold one lock around `switch` and the call.

    Args:
        supernet: Taken over: put in eval mode, its BN statistics overwritten. It has to stay on its device.
        pools: Of its space; the first one is active.

    Raises:
        InvalidConfigError: There is no pool.
        InvalidArchError: A pool's arch lies outside the space.
    """

    def __init__(self, supernet: Supernet, pools: Sequence[PoolChoice]) -> None:
        if not pools:
            raise InvalidConfigError(
                "A pool runtime needs at least one pool, got none. Train with PSS-Net to get some."
            )
        self.pools = tuple(pools)
        self._supernet = supernet.eval()
        self._active = _join_statistics(supernet)
        self._by_pool = []
        for pool in self.pools:
            _write_statistics(supernet, pool)
            self._by_pool.append(self._active.clone())
        self.switch(0)

    @classmethod
    def load(cls, path: Path | str) -> PoolRuntime:
        """The runtime of a bundle's pools.

        Args:
            path: A bundle's folder, or the name of a shipped one.

        Raises:
            InvalidBundleError: The bundle is broken.
            MissingPartError: It has no weights or no pools.
        """
        bundle = open_bundle(path)
        pools = load_pools(bundle.pools_path, bundle.space)
        return cls(load_supernet(bundle.path), pools)

    @property
    def index(self) -> int:
        """Of the active pool."""
        return self._index

    @property
    def arch(self) -> Arch:
        """That the active pool runs."""
        return self.pools[self._index].arch

    @torch.no_grad()
    def switch(self, index: int) -> None:
        """Make a pool the active one; from then on the same images give the same logits, bit for bit, as ever before.

        Raises:
            InvalidConfigError: There is no such pool; the active one stays.
        """
        if not 0 <= index < len(self.pools):
            raise InvalidConfigError(f"No pool {index}: there are 0 to {len(self.pools) - 1}.")
        self._active.copy_(self._by_pool[index])
        self._index = index

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Images `(batch, in_chs, resolution, resolution)`, normalised, at `arch.resolution`, to `(batch, classes)`.

        Raises:
            InvalidArchError: The images have another shape.
        """
        logits: Tensor = self._supernet(images, self.arch)
        return logits


def _join_statistics(supernet: Supernet) -> Tensor:
    """Move all BN statistics into one tensor, of which the supernet keeps views: one copy writes them all."""
    buffers = dict(supernet.named_buffers())
    joined = torch.cat(list(buffers.values()))
    views = torch.split(joined, [len(buffer) for buffer in buffers.values()])
    for name, view in zip(buffers, views, strict=True):
        module, _, buffer = name.rpartition(".")
        setattr(supernet.get_submodule(module), buffer, view)
    return joined


def _write_statistics(supernet: Supernet, pool: PoolChoice) -> None:
    """Write into the leading channels of every BN buffer the pool's arch reads; nobody reads the others."""
    layers = norm_layers(supernet.space, pool.arch)
    for kind, flat in zip(("running_mean", "running_var"), torch.from_numpy(pool.statistics), strict=True):
        parts = flat.split([found.layer.out_chs for found in layers])
        for found, part in zip(layers, parts, strict=True):
            buffer = supernet.get_buffer(f"blocks.{found.position}.layers.{found.layer.name}.norm.{kind}")
            buffer[: found.layer.out_chs].copy_(part)
