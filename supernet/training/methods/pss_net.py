"""Prioritized subnet sampling: per amount of resource a pool of good subnets, sampled more and more over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.errors import InvalidBundleError, InvalidConfigError
from supernet.spaces.arch import Arch
from supernet.spaces.costs import macs_cost
from supernet.training.method import Epoch, Phase, PlainMethod
from supernet.training.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from supernet.spaces.costs import AdditiveCost
    from supernet.spaces.space import Rows, SearchSpace

# Candidates drawn at once for a bin, and how often, before an arch that is known to lie there is taken.
_CANDIDATES, _TRIES = 64, 8
_MIDDLE = 1
# Its resource, where it starts, and where it ends.
_Bin = tuple[str, float, float]


@dataclass(frozen=True)
class PssNetSettings:
    """Settings of prioritized subnet sampling.

    Attributes:
        bins: Parts of equal width between the smallest and the largest arch, per resource; all but the outermost two
            have a pool.
        pool_size: Subnets in a pool.
        prior_archs: Archs drawn to learn what subnets of a bin look like.
        memory: Weight of a subnet's earlier score when it is scored again.
        explore: Chance of exploring at the beginning and at the end.
        temperature: Of the choice among a pool's subnets, at the beginning and at the end.
    """

    bins: int = 20
    pool_size: int = 50
    prior_archs: int = 100_000
    memory: float = 0.9
    explore: tuple[float, float] = (1.0, 0.01)
    temperature: tuple[float, float] = (1.0, 0.01)

    def __post_init__(self) -> None:
        """Refuse what no run can use."""
        for name, low, high in (
            ("bins", 3, 1000),
            ("pool_size", 1, 10_000),
            ("prior_archs", 1, 10_000_000),
            ("memory", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidConfigError(f"'pss_net.{name}' must be from {low} to {high}, got {value!r}.")
        for name in ("explore", "temperature"):
            ends = getattr(self, name)
            if len(ends) != 2 or not all(0 < end <= 1 for end in ends):
                raise InvalidConfigError(
                    f"'pss_net.{name}' needs its value at the beginning and at the end, above 0 and up to 1; got "
                    f"{list(ends)}."
                )


@dataclass
class Pool:
    """Subnets of one bin with their scores, higher is better.

    Attributes:
        resource: Name of the cost.
        low: Of the bin, in the unit of the cost.
        high: The bin ends before it.
        known: `(n_archs, n_slots)` archs known to lie in the bin.
        scores: Of the subnets in the pool.
    """

    resource: str
    low: float
    high: float
    known: Rows
    scores: dict[Arch, float] = field(default_factory=dict)

    def is_full(self, size: int) -> bool:
        """Whether it holds `size` subnets, or as many as its bin is known to have where those are fewer."""
        return len(self.scores) >= min(size, self._known_archs)

    @cached_property
    def _known_archs(self) -> int:
        return len(np.unique(self.known, axis=0))

    def record(self, arch: Arch, score: float, *, memory: float, size: int) -> None:
        """Add a subnet's score, or move towards it where the subnet is known; the worst leaves a full pool."""
        before = self.scores.get(arch)
        self.scores[arch] = score if before is None else memory * before + (1 - memory) * score
        if len(self.scores) > size:
            del self.scores[min(self.scores, key=self.scores.__getitem__)]

    def best(self, count: int) -> list[Arch]:
        """The subnets with the highest scores, the best first."""
        return sorted(self.scores, key=self.scores.__getitem__, reverse=True)[:count]


@dataclass
class PssNet(PlainMethod):
    """Each step runs the largest arch, one subnet of a random pool, and the smallest arch.

    Source: Chen et al. 2021 (arXiv 2109.05432); `train.py`, `subnet_sampler.py` of PSS-Net. Differs: scores come from
    the training pass itself instead of one more forward pass; exploring a bin ends after a number of tries with an
    arch known to lie there; a pool that its bin cannot fill is exploited all the same; keys are archs and not their
    texts.
    """

    space: SearchSpace
    epochs: int
    settings: PssNetSettings = field(default_factory=PssNetSettings)
    resources: Mapping[str, AdditiveCost] = field(default_factory=dict)
    seed: int = 0
    _pool: Pool | None = field(default=None, init=False)

    def phases(self) -> Sequence[Phase]:
        """One."""
        return [Phase("train", self.epochs)]

    def passes(self, epoch: Epoch, step: int, rng: np.random.Generator) -> Sequence[Pass]:
        """The largest arch teaches a prioritized one and the smallest."""
        del step
        pools = self.pools
        # A resource is as likely as it has pools, and a pool as likely as its neighbours: one draw over all.
        self._pool = pools[int(rng.integers(len(pools)))]
        explores = rng.random() < self.chance_to_explore(epoch) or not self._pool.is_full(self.settings.pool_size)
        middle = self._explore(self._pool, rng) if explores else self._exploit(self._pool, epoch, rng)
        return [
            Pass(self.space.largest()),
            Pass(middle, labels=0.0, distil=1.0),
            Pass(self.space.smallest(), labels=0.0, distil=1.0),
        ]

    def observe(self, passes: Sequence[Pass], label_losses: Sequence[float]) -> None:
        """Score the prioritized arch by its cross-entropy with the labels."""
        if self._pool is not None:
            self._pool.record(
                passes[_MIDDLE].arch,
                -label_losses[_MIDDLE],
                memory=self.settings.memory,
                size=self.settings.pool_size,
            )

    def state(self) -> dict[str, Any]:
        """The pools' bins, subnets and scores."""
        return {
            "pools": [
                {
                    "resource": pool.resource,
                    "low": pool.low,
                    "high": pool.high,
                    "subnets": [{"arch": arch.to_dict(), "score": score} for arch, score in pool.scores.items()],
                }
                for pool in self.pools
            ]
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Fill the pools; raises `InvalidBundleError` where their bins are not those of this run."""
        stored = state.get("pools")
        if not isinstance(stored, list) or not all(isinstance(entry, dict) for entry in stored):
            raise InvalidBundleError(
                "The checkpoint does not say what its pools are measured by: an earlier version wrote it. Start anew "
                "in another folder."
            )
        bins = [(entry["resource"], entry["low"], entry["high"]) for entry in stored]
        ours = [(pool.resource, pool.low, pool.high) for pool in self.pools]
        for number, (theirs, wanted) in enumerate(zip_longest(bins, ours), start=1):
            if not _is_same_bin(theirs, wanted):
                raise InvalidBundleError(
                    f"Pool {number} of the checkpoint is {_describe(theirs)}, that of this run {_describe(wanted)}. "
                    "Resume with the latency tables the run began with, in their order, or start anew in another "
                    "folder."
                )
        for pool, entry in zip(self.pools, stored, strict=True):
            pool.scores = {
                self.space.canonicalize(Arch.from_dict(subnet["arch"])): float(subnet["score"])
                for subnet in entry["subnets"]
            }

    def chance_to_explore(self, epoch: Epoch) -> float:
        """Falls exponentially over the run, constant inside an epoch."""
        return _between(self.settings.explore, epoch)

    def temperature(self, epoch: Epoch) -> float:
        """Falls likewise: pools are sampled more and more from their best."""
        return _between(self.settings.temperature, epoch)

    @cached_property
    def pools(self) -> list[Pool]:
        """One per bin that archs fall into, by resource and from the smallest."""
        rng = np.random.default_rng((self.seed, self.settings.prior_archs))
        rows = self.space.sample_rows(rng, self.settings.prior_archs)
        ends = self.space.to_rows([self.space.smallest(), self.space.largest()])
        pools = []
        for name, cost in (self.resources or {"macs": macs_cost(self.space)}).items():
            least, most = cost(ends)
            edges = np.linspace(least, most, self.settings.bins + 1)
            place = np.searchsorted(edges, cost(rows), side="right") - 1
            # What lies beside the ends is trained in every step anyway.
            for number in range(1, self.settings.bins - 1):
                if (place == number).any():
                    pools.append(
                        Pool(name, float(edges[number]), float(edges[number + 1]), known=rows[place == number])
                    )
        if not pools:
            raise InvalidConfigError(
                f"'{self.space.name}' has too few archs for pools, {self.space.size()}: none was found between the "
                f"lowest and the highest of {self.settings.bins} bins. Choose another method, or raise "
                f"'pss_net.bins' if some archs cost more than the smallest and less than the largest."
            )
        return pools

    def cost_of(self, pool: Pool) -> AdditiveCost:
        """What a pool's bin is measured by."""
        return self.resources[pool.resource] if self.resources else macs_cost(self.space)

    def _explore(self, pool: Pool, rng: np.random.Generator) -> Arch:
        """An arch of the bin whose slots are drawn, each on its own, as often as archs of the bin choose them."""
        cost = self.cost_of(pool)
        for _ in range(_TRIES):
            picks = rng.integers(len(pool.known), size=(_CANDIDATES, pool.known.shape[1]))
            rows = self.space.canonicalize_rows(np.take_along_axis(pool.known, picks, axis=0))
            costs = cost(rows)
            inside = rows[(pool.low <= costs) & (costs < pool.high)]
            if len(inside):
                return self.space.from_rows(inside[:1])[0]
        return self.space.from_rows(pool.known[rng.integers(len(pool.known))][None])[0]

    def _exploit(self, pool: Pool, epoch: Epoch, rng: np.random.Generator) -> Arch:
        """A subnet of the pool, the better the likelier."""
        archs = list(pool.scores)
        values: NDArray[np.float64] = np.array([pool.scores[arch] for arch in archs]) / self.temperature(epoch)
        weights = np.exp(values - values.max())
        return archs[int(rng.choice(len(archs), p=weights / weights.sum()))]


def _between(ends: tuple[float, float], epoch: Epoch) -> float:
    start, stop = ends
    return float(start * (stop / start) ** (epoch.number / epoch.epochs))


def _is_same_bin(first: _Bin | None, second: _Bin | None) -> bool:
    """Bounds are sums, so machines may differ in their last digits."""
    if first is None or second is None:
        return False
    return first[0] == second[0] and all(map(math.isclose, first[1:], second[1:]))


def _describe(found: _Bin | None) -> str:
    return "missing" if found is None else f"of '{found[0]}' from {found[1]:.6g} to {found[2]:.6g}"
