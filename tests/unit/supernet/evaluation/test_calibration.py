"""Recalibration without real images: where the right answer is known, and files that must be refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from supernet.data.batches import Normalisation
from supernet.errors import FingerprintMismatchError, InvalidBundleError, InvalidConfigError
from supernet.evaluation.calibration import (
    Anchor,
    Calibration,
    load_calibration,
    pixel_batches,
    recalibrate_from_anchors,
    record_calibration,
    save_calibration,
)
from supernet.evaluation.statistics import Statistics, measure_statistics
from supernet.network.checkpoint import load_tensors, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.spaces.arch import Arch
from supernet.spaces.norms import norm_layers
from supernet.spaces.space import SearchSpace

# Stand in for synthesised images; any will do where the correction is exact.
SYNTHETIC = np.random.default_rng(11).integers(0, 256, (200, 12, 12, 3), dtype=np.uint8)
Record = Callable[..., Calibration]


def real_batches(resolution: int) -> list[Tensor]:
    """Stand in for a data set: brighter and smoother than random pixels."""
    generator = torch.Generator().manual_seed(resolution)
    images = torch.randn(90, 3, resolution, resolution, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    return list((1.5 * smooth + 0.7).split(40))


@pytest.fixture
def record(supernet: Supernet, space: SearchSpace, normalisation: Normalisation) -> Record:
    """Record a calibration of some archs, by default the largest and the smallest."""

    def record(archs: list[Arch] | None = None, real: Any = real_batches) -> Calibration:
        archs = archs or [space.largest(), space.smallest()]
        anchors = [(arch, measure_statistics(extract_subnet(supernet, arch), real(arch.resolution))) for arch in archs]
        return record_calibration(supernet, anchors, SYNTHETIC, normalisation=normalisation)

    return record


@pytest.fixture
def calibration(record: Record) -> Calibration:
    return record()


@pytest.fixture
def path(tmp_path: Path, calibration: Calibration) -> Path:
    path = tmp_path / "calibration.safetensors"
    save_calibration(path, calibration)
    return path


def written_statistics(subnet: Subnet) -> Statistics:
    state = subnet.state_dict()
    return {
        name.removesuffix(".running_mean"): (tensor, state[name.replace("running_mean", "running_var")])
        for name, tensor in state.items()
        if name.endswith("running_mean")
    }


def assert_close(found: Statistics, expected: Statistics, *, rtol: float) -> None:
    assert list(found) == list(expected)
    for name in expected:
        for kind in (0, 1):
            torch.testing.assert_close(found[name][kind], expected[name][kind], rtol=rtol, atol=rtol)


# ---------------------------------------------------------------------------- the correction


def test_correction_is_the_identity_where_the_real_images_are_the_synthetic(
    record: Record, supernet: Supernet, space: SearchSpace, normalisation: Normalisation, rng: np.random.Generator
) -> None:
    calibration = record(real=lambda resolution: pixel_batches(SYNTHETIC, normalisation, resolution))
    for arch in (space.largest(), space.smallest(), space.sample(rng), space.sample(rng)):
        subnet = extract_subnet(supernet, arch)
        expected = measure_statistics(subnet, pixel_batches(SYNTHETIC, normalisation, arch.resolution))
        recalibrate_from_anchors(subnet, arch, calibration)
        # The square of a root is off by one bit.
        assert_close(written_statistics(subnet), expected, rtol=3e-7)


def test_a_subnet_that_is_the_only_anchor_gets_its_real_statistics(
    record: Record, supernet: Supernet, space: SearchSpace
) -> None:
    arch = space.largest()
    subnet = extract_subnet(supernet, arch)
    expected = measure_statistics(subnet, real_batches(arch.resolution))
    recalibrate_from_anchors(subnet, arch, record([arch]))
    assert_close(written_statistics(subnet), expected, rtol=1e-5)


def test_recalibration_comes_nearer_to_real_statistics_than_the_images_alone(
    record: Record, supernet: Supernet, space: SearchSpace, normalisation: Normalisation
) -> None:
    archs = space.from_rows(space.sample_rows(np.random.default_rng(3), 6))
    calibration = record([space.largest(), space.smallest(), *archs[:2]])

    def distance(statistics: Statistics, real: Statistics) -> float:
        return float(sum(((statistics[name][0] - real[name][0]) ** 2 / real[name][1]).mean() for name in real))

    for arch in archs[2:]:
        subnet = extract_subnet(supernet, arch)
        real = measure_statistics(subnet, real_batches(arch.resolution))
        alone = measure_statistics(subnet, pixel_batches(SYNTHETIC, normalisation, arch.resolution))
        recalibrate_from_anchors(subnet, arch, calibration)
        assert distance(written_statistics(subnet), real) < distance(alone, real) / 3


@pytest.mark.parametrize(
    ("kernel_size", "resolution", "weight"), [(5, 12, 1.0), (3, 12, 0.1), (5, 8, 0.1), (3, 8, 0.01)]
)
def test_anchors_weigh_less_where_their_block_has_another_form_or_size(
    supernet: Supernet,
    space: SearchSpace,
    normalisation: Normalisation,
    calibration: Calibration,
    kernel_size: int,
    resolution: int,
    weight: float,
) -> None:
    """One anchor says: move every mean up by a standard deviation; the other says: leave it."""
    target = space.largest()
    anchors = []
    for arch, shift in ((target, 0.0), (replace(target, resolution=resolution, kernel_sizes=(kernel_size,) * 2), 1.0)):
        plain = torch.stack([torch.zeros(channels_of(space, arch)), torch.ones(channels_of(space, arch))])
        anchors.append(Anchor(arch, plain + torch.tensor([[shift], [0.0]]), plain))
    subnet = extract_subnet(supernet, target)
    before = measure_statistics(subnet, pixel_batches(SYNTHETIC, normalisation, target.resolution))
    recalibrate_from_anchors(subnet, target, replace(calibration, anchors=tuple(anchors)))
    name = "blocks.1.layers.depthwise.norm"
    mean, variance = before[name]
    moved = (written_statistics(subnet)[name][0] - mean) / variance.sqrt()
    torch.testing.assert_close(moved, torch.full_like(mean, weight / (1 + weight)), rtol=1e-4, atol=1e-5)


def test_channels_only_wide_anchors_have_follow_these(
    supernet: Supernet, space: SearchSpace, normalisation: Normalisation, calibration: Calibration
) -> None:
    """The smallest anchor has half the inner channels: it speaks for these and for no other."""
    target = space.largest()
    anchors = []
    for arch, shift in ((target, 0.0), (space.smallest(), 1.0)):
        plain = torch.stack([torch.zeros(channels_of(space, arch)), torch.ones(channels_of(space, arch))])
        anchors.append(Anchor(arch, plain + torch.tensor([[shift], [0.0]]), plain))
    subnet = extract_subnet(supernet, target)
    name = "blocks.1.layers.expand.norm"
    mean, _ = measure_statistics(subnet, pixel_batches(SYNTHETIC, normalisation, target.resolution))[name]
    recalibrate_from_anchors(subnet, target, replace(calibration, anchors=tuple(anchors)))
    moved = written_statistics(subnet)[name][0] - mean
    assert len(moved) == 16
    assert (moved[:8] > 0).all()
    assert torch.equal(moved[8:], torch.zeros(8))


def test_recalibration_changes_statistics_alone_and_is_deterministic(
    supernet: Supernet, space: SearchSpace, calibration: Calibration
) -> None:
    first, second = (extract_subnet(supernet, space.largest()) for _ in range(2))
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    for norm in (module for module in second.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.fill_(9)
    for subnet in (first, second):
        recalibrate_from_anchors(subnet, space.largest(), calibration)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
        assert "running_" in name or torch.equal(tensor, before[name])
    assert not first.training


def test_a_dead_channel_does_not_spoil_the_others(
    supernet: Supernet, space: SearchSpace, record: Record, tmp_path: Path
) -> None:
    """A channel whose weights are 0 has no spread in any image; the logits must stay finite, from a file too."""
    with torch.no_grad():
        supernet.blocks[0].layers["conv"].conv.weight[3] = 0
    save_calibration(tmp_path / "c", record())
    subnet = extract_subnet(supernet, space.largest())
    recalibrate_from_anchors(subnet, space.largest(), load_calibration(tmp_path / "c", space))
    assert all(torch.isfinite(tensor).all() for tensor in subnet.state_dict().values())
    with torch.no_grad():
        assert torch.isfinite(subnet(real_batches(12)[0])).all()


def test_a_subnet_of_another_arch_is_refused(supernet: Supernet, space: SearchSpace, calibration: Calibration) -> None:
    with pytest.raises(InvalidBundleError, match="not the one this arch describes"):
        recalibrate_from_anchors(extract_subnet(supernet, space.smallest()), space.largest(), calibration)


def test_anchors_that_do_not_cover_a_channel_are_refused(
    supernet: Supernet, space: SearchSpace, record: Record
) -> None:
    with pytest.raises(InvalidConfigError, match="The largest arch must be among the anchors"):
        record([space.smallest()])
    recorded = record([space.largest(), space.smallest()])
    without_largest = replace(recorded, anchors=recorded.anchors[1:])
    subnet = extract_subnet(supernet, space.largest())
    with pytest.raises(InvalidBundleError, match=r"covers every channel of layer 'blocks\.1\.layers\.expand\.norm'"):
        recalibrate_from_anchors(subnet, space.largest(), without_largest)


# ---------------------------------------------------------------------------- files


def channels_of(space: SearchSpace, arch: Arch) -> int:
    return sum(found.layer.out_chs for found in norm_layers(space, arch))


def test_file_keeps_anchors_within_half_precision(path: Path, calibration: Calibration, space: SearchSpace) -> None:
    loaded = load_calibration(path, space)
    assert loaded.space == space
    assert loaded.normalisation == calibration.normalisation
    assert np.array_equal(loaded.images, SYNTHETIC)
    assert [anchor.arch for anchor in loaded.anchors] == [anchor.arch for anchor in calibration.anchors]
    for found, expected in zip(loaded.anchors, calibration.anchors, strict=True):
        torch.testing.assert_close(found.real, expected.real, rtol=2**-11, atol=1e-7)
        torch.testing.assert_close(found.synthetic, expected.synthetic, rtol=2**-11, atol=1e-7)
        assert found.real.dtype == torch.float32


def test_recalibration_from_a_file_is_that_from_memory_within_half_precision(
    path: Path, calibration: Calibration, supernet: Supernet, space: SearchSpace
) -> None:
    from_memory, from_file = (extract_subnet(supernet, space.largest()) for _ in range(2))
    recalibrate_from_anchors(from_memory, space.largest(), calibration)
    recalibrate_from_anchors(from_file, space.largest(), load_calibration(path, space))
    assert_close(written_statistics(from_file), written_statistics(from_memory), rtol=5e-3)


def test_layers_are_those_of_the_extracted_subnet(supernet: Supernet, space: SearchSpace) -> None:
    for arch in (space.largest(), space.smallest()):
        subnet = extract_subnet(supernet, arch)
        expected = [name for name, module in subnet.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert [found.name for found in norm_layers(space, arch)] == expected


def test_file_takes_eight_bytes_for_each_channel_of_an_anchor_and_the_images(path: Path, space: SearchSpace) -> None:
    numbers = sum(channels_of(space, arch) for arch in (space.largest(), space.smallest()))
    size = 8 * numbers + SYNTHETIC.nbytes
    assert size < path.stat().st_size < size + 2048


def test_a_space_with_another_number_of_classes_is_refused(path: Path, space: SearchSpace) -> None:
    with pytest.raises(FingerprintMismatchError):
        load_calibration(path, space.with_classes(9))


def test_a_truncated_or_absent_file_is_refused(path: Path, space: SearchSpace) -> None:
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(InvalidBundleError, match=r"calibration\.safetensors"):
        load_calibration(path, space)
    with pytest.raises(InvalidBundleError, match="absent"):
        load_calibration(path.with_name("absent"), space)


def test_a_file_of_another_program_is_refused(tmp_path: Path, space: SearchSpace) -> None:
    save_file({"anchor0.real": torch.zeros(2, 3)}, tmp_path / "c", metadata={"format": "pt"})
    with pytest.raises(InvalidBundleError, match="format None"):
        load_calibration(tmp_path / "c", space)


def test_weights_are_no_calibration(tmp_path: Path, supernet: Supernet, space: SearchSpace) -> None:
    save_tensors(tmp_path / "w", supernet.state_dict(), space)
    with pytest.raises(InvalidBundleError, match="no calibration file"):
        load_calibration(tmp_path / "w", space)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("anchors", None, "anchors"),
        ("anchors", 3, "no calibration"),
        ("anchors", [{"resolution": 8}], "needs"),
        ("anchors", [{"resolution": 8, "colour": "red"}], "colour"),
        ("anchors", [7], "JSON object"),
        ("mean", 0.5, "no calibration"),
        ("mean", ["red", "green", "blue"], "red"),
        ("std", None, "std"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    path: Path, space: SearchSpace, key: str, value: object, message: str
) -> None:
    tensors, metadata = load_tensors(path, space)
    metadata[key] = value
    if value is None:
        del metadata[key]
    save_tensors(path, tensors, space, **metadata)
    with pytest.raises(InvalidBundleError, match=message):
        load_calibration(path, space)


@pytest.mark.parametrize("damage", ["absent", "short", "nan"])
def test_statistics_that_do_not_fit_their_anchor_are_refused(path: Path, space: SearchSpace, damage: str) -> None:
    tensors, metadata = load_tensors(path, space)
    name = "anchor1.synthetic"
    if damage == "absent":
        del tensors[name]
    elif damage == "short":
        tensors[name] = tensors[name][:, :-1]
    else:
        tensors[name][0, 0] = float("nan")
    save_tensors(path, tensors, space, **metadata)
    with pytest.raises(InvalidBundleError, match=r"anchor ?1"):
        load_calibration(path, space)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(0, 12, 12, 3, dtype=torch.uint8),
        torch.zeros(4, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(4, 12, 12, 3),
        torch.zeros(12, 12, 3, dtype=torch.uint8),
    ],
)
def test_images_of_another_shape_or_type_are_refused(path: Path, space: SearchSpace, images: Tensor) -> None:
    tensors, metadata = load_tensors(path, space)
    save_tensors(path, tensors | {"images": images}, space, **metadata)
    with pytest.raises(InvalidBundleError, match=r"bytes of shape \(n, 12, 12, 3\)"):
        load_calibration(path, space)


def test_file_says_what_it_was_made_with(path: Path, space: SearchSpace) -> None:
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["tailor"])
    assert header["space_fingerprint"] == space.fingerprint
    metadata = header["metadata"]
    assert [Arch.from_dict(arch) for arch in metadata["anchors"]] == [space.largest(), space.smallest()]
