from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from supernet.errors import ExportParityError, InvalidConfigError
from supernet.export.parity import allowed_difference, check_parity, reference_logits
from supernet.network.subnet import Subnet


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((10, 3, 16, 16)).astype(np.float32)


def test_export_agrees_with_torch(exported: Path, trained_subnet: Subnet, images: np.ndarray) -> None:
    report = check_parity(trained_subnet, exported / "model.onnx", images, batch_size=4)
    assert report.images == 10
    assert report.max_abs_diff < 1e-5
    assert report.top1_agreement == 1
    of_tensor = check_parity(trained_subnet, exported / "model.onnx", torch.from_numpy(images), batch_size=4)
    assert of_tensor == report


def test_changed_subnet_is_noticed(exported: Path, trained_subnet: Subnet, images: np.ndarray) -> None:
    changed = copy.deepcopy(trained_subnet)
    changed.state_dict()["blocks.0.layers.conv.norm.running_mean"][0] += 0.1
    with pytest.raises(ExportParityError, match="differs from torch") as caught:
        check_parity(changed, exported / "model.onnx", images)
    assert caught.value.max_abs_diff > caught.value.tolerance == 1e-4


def test_subnet_in_train_mode_computes_as_in_eval_mode(
    exported: Path, trained_subnet: Subnet, images: np.ndarray
) -> None:
    training = copy.deepcopy(trained_subnet).train()
    assert check_parity(training, exported / "model.onnx", images).max_abs_diff < 1e-5
    assert training.training


def test_nan_is_no_agreement(exported: Path, trained_subnet: Subnet, images: np.ndarray) -> None:
    images[3] = np.nan
    with pytest.raises(ExportParityError, match="nan"):
        check_parity(trained_subnet, exported / "model.onnx", images)


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (2, 3, 8, 8), (3, 16, 16)])
def test_images_of_another_shape_are_refused(exported: Path, trained_subnet: Subnet, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidConfigError, match="got"):
        check_parity(trained_subnet, exported / "model.onnx", np.zeros(shape, np.float32))


def test_reference_logits_are_the_subnets_in_double_precision(trained_subnet: Subnet, images: np.ndarray) -> None:
    logits = reference_logits(trained_subnet, images)
    with torch.inference_mode():
        np.testing.assert_allclose(logits, trained_subnet(torch.from_numpy(images)), atol=1e-5)
    assert logits.dtype == np.float32
    assert next(trained_subnet.parameters()).dtype == torch.float32


def test_the_tolerance_grows_with_logits_beyond_16() -> None:
    assert allowed_difference(1e-4, np.array([-3.0, 16.0], np.float32)) == 1e-4
    assert allowed_difference(1e-4, np.array([-48.0, 1.0], np.float32)) == pytest.approx(3e-4)
    assert allowed_difference(1e-4, np.array([np.nan], np.float32)) == 1e-4
