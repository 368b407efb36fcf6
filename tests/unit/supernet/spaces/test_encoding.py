"""Encodings: what a predictor sees."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.spaces.encoding import MAX_ONE_HOT, encode
from supernet.spaces.space import Dimension, Rows, SearchSpace

few_examples = settings(max_examples=25, deadline=None)


def decode(space: SearchSpace, features: np.ndarray) -> Rows:
    """The rows that `encode` wrote, read column by column; skipped slots come back as 0."""
    columns, start = [], 0
    for slot in space.slots:
        width = len(slot.choices) if len(slot.choices) <= MAX_ONE_HOT else 1
        part = features[:, start : start + width]
        if width == 1 and len(slot.choices) > 1:
            distance = np.abs(np.asarray(slot.choices) / slot.choices[-1] - part)
            columns.append(np.where(part[:, 0] == 0, 0, distance.argmin(1)))
        else:
            columns.append(part.argmax(1))
        start += width
    assert start == features.shape[1]
    return np.stack(columns, axis=1).astype(np.int16)


@few_examples
@given(seed=st.integers(0, 2**32 - 1))
def test_encodings_can_be_read_back(space: SearchSpace, seed: int) -> None:
    rows = space.sample_rows(np.random.default_rng(seed), 5)
    features = encode(space, rows)
    assert features.dtype == np.float32
    assert features.min() >= 0
    assert features.max() <= 1
    np.testing.assert_array_equal(decode(space, features), rows)


def test_skipped_blocks_encode_to_zero_even_in_rows_that_are_not_canonical(cifar: SearchSpace) -> None:
    rows = np.full((1, len(cifar.slots)), 2, np.int16)
    rows[:, [slot.dimension is Dimension.DEPTH for slot in cifar.slots]] = 0
    features = encode(cifar, rows)[0]
    # One bit for the resolution and one for each of 5 depths; one kernel and one ratio for each of 5 blocks that run.
    assert features.sum() == 1 + 5 + 2 * 5
    np.testing.assert_array_equal(features, encode(cifar, cifar.canonicalize_rows(rows))[0])


def test_long_lists_of_choices_become_one_number(ofa: SearchSpace) -> None:
    features = encode(ofa, ofa.to_rows([ofa.smallest(), ofa.largest()]))
    assert features.shape == (2, 1 + 5 * 3 + 20 * 3 + 20 * 3)
    np.testing.assert_allclose(features[:, 0], [128 / 224, 1])
    # Full depth: one bit for each of 5 depths, 20 kernel sizes and 20 ratios.
    assert features[1, 1:].sum() == 45
