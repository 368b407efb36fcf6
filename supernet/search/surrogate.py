"""A sum over blocks that follows an accuracy: what dynamic programming can optimise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

# Of the squared weights, beside a variance of 1.
_RIDGE = 1e-3


def fit_surrogate(space: SearchSpace, rows: Rows, accuracies: Values) -> list[Values]:
    """Ridge regression on the choices of every block that runs.

    Args:
        space: The search space.
        rows: `(n_archs, n_slots)` canonical, all at one resolution.
        accuracies: `(n_archs,)`.

    Returns:
        Tables as `AdditiveCost.tables`, equal at all resolutions. Their sums are accuracies but for a constant.
    """
    active = space.active_blocks(rows)
    columns: list[Values] = []
    parts: list[list[tuple[int, int]]] = []
    for index, position in enumerate(space.positions):
        runs = active[:, index].astype(np.float64)
        columns.append(runs)
        own: list[tuple[int, int]] = []
        for slot in (position.kernel_slot, position.expand_slot, position.out_width_slot):
            if slot < 0:
                continue
            for choice in range(1, len(space.slots[slot].choices)):
                columns.append(runs * (rows[:, slot] >= choice))
                own.append((slot, choice))
        parts.append(own)
    inputs = np.stack(columns, axis=1)
    centred = inputs - inputs.mean(axis=0)
    product = centred.T @ centred + _RIDGE * len(rows) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(product, centred.T @ (accuracies - accuracies.mean()))
    tables = []
    at = 0
    for position, own in zip(space.positions, parts, strict=True):
        slots = space.slots_of(position)
        table = np.full([len(space.slots[slot].choices) for slot in slots], weights[at])
        for number, (slot, choice) in enumerate(own, start=at + 1):
            shape = np.ones(len(slots), int)
            shape[slots.index(slot)] = -1
            table = table + (weights[number] * (np.arange(len(space.slots[slot].choices)) >= choice)).reshape(shape)
        tables.append(table)
        at += 1 + len(own)
    return tables
