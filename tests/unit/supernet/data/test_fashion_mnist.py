"""benchmarks/fashion_mnist.py: what it writes is a data set to train on."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fashion_mnist import FASHION, main
from supernet.data.splits import load_splits


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_idx_files_become_splits_with_named_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    pixels, labels = rng.integers(0, 256, (30, 28, 28), np.uint8), (np.arange(30) % 10).astype(np.uint8)
    for prefix, part in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", pixels[part])
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels[part])
    out = tmp_path / "out"
    command = ["fashion_mnist.py", "--source", str(tmp_path), "--out", str(out), "--images", "15"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    splits = load_splits(out, size=28, validation_images=5, seed=0)
    assert splits.test is not None
    assert splits.train.classes == FASHION
    assert (len(splits.train), len(splits.validation)) == (10, 5)
    np.testing.assert_array_equal(splits.test.pixels, pixels[20:, :, :, None].repeat(3, axis=3))
    assert splits.test.labels.tolist() == labels[20:].tolist()
