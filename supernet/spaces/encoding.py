"""Encoding: archs as vectors for accuracy predictors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from supernet.spaces.space import Rows, SearchSpace

# Slots with more choices than this are encoded as one number instead of one bit per choice.
MAX_ONE_HOT = 8


def encode(space: SearchSpace, rows: Rows) -> NDArray[np.float32]:
    """Encode archs; slots of skipped blocks encode to zero.

    A slot with up to `MAX_ONE_HOT` choices becomes one bit per choice, a longer one its value over its largest choice.

    Args:
        space: The space the rows belong to.
        rows: `(n_archs, n_slots)` choice indices.

    Returns:
        `(n_archs, n_features)` float32 in [0, 1].
    """
    skipped = space.skipped_slots(rows)
    columns = []
    for index, slot in enumerate(space.slots):
        choices = np.asarray(slot.choices, np.float32)
        if len(choices) <= MAX_ONE_HOT:
            bits = rows[:, index, None] == np.arange(len(choices))
            columns.append((bits & ~skipped[:, index, None]).astype(np.float32))
        else:
            columns.append(np.where(skipped[:, index], 0, choices[rows[:, index]] / choices[-1])[:, None])
    return np.concatenate(columns, axis=1, dtype=np.float32)
