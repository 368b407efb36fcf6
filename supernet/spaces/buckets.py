"""Random archs of a given cost, such as populations by amount of MACs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError

if TYPE_CHECKING:
    from supernet.spaces.costs import AdditiveCost
    from supernet.spaces.space import Rows, SearchSpace

_BATCH = 2000
# How strongly choices lean to the small or the large end, round by round; uniform draws hardly ever reach the ends.
_LEANS = (*[0.0] * 5, *np.linspace(0.25, 4, 45).tolist())


def sample_in_bucket(
    space: SearchSpace, cost: AdditiveCost, *, low: float, high: float, n_archs: int, rng: np.random.Generator
) -> Rows:
    """Draw distinct archs whose cost lies in a bucket: uniformly while that finds enough, else leaning to its side.

    Args:
        space: To draw from.
        cost: Of its archs.
        low: Least cost.
        high: Largest cost.
        n_archs: How many.
        rng: Draws them.

    Returns:
        `(n_archs, n_slots)` canonical rows.

    Raises:
        InvalidConfigError: So many were not found; says how many were, and what the space's archs cost.

    Source: RSS `eval_subnet_population`. Differs: it ends where a bucket is out of reach, and serves any space: there,
    expand ratios are forced in two named buckets.
    """
    counts = np.array([len(slot.choices) for slot in space.slots])
    found: Rows = np.zeros((0, len(counts)), np.int16)
    for lean in _LEANS:
        exponents = np.exp(rng.uniform(-lean, lean, (_BATCH, 1)))
        rows = space.canonicalize_rows((rng.random((_BATCH, len(counts))) ** exponents * counts).astype(np.int16))
        costs = cost(rows)
        drawn = np.concatenate([found, rows[(low <= costs) & (costs <= high)]])
        _, first = np.unique(drawn, axis=0, return_index=True)
        found = drawn[np.sort(first)][:n_archs]
        if len(found) == n_archs:
            return found
    least, most = cost.of([space.smallest(), space.largest()])
    raise InvalidConfigError(
        f"Only {len(found)} of {n_archs} archs of '{space.name}' were found that cost {low:g} to {high:g}; its archs "
        f"cost about {least:g} to {most:g}. Choose a wider bucket between these."
    )
