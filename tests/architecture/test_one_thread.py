"""Tests compute on one thread, however pytest is called."""

from __future__ import annotations

import torch


def test_torch_has_one_thread() -> None:
    assert torch.get_num_threads() == 1
