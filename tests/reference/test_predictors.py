"""Imported predictors against the reference project's own, from the same files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from supernet.ofa.predictors import import_predictor
from supernet.predictors.ofa_network import TUTORIAL_RESOLUTIONS
from supernet.spaces.arch import Arch
from supernet.spaces.ofa_dicts import ofa_from_arch
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

Reference = Callable[[str], ModuleType]
SIZES = (128, 160, 192, 224)
TOLERANCE = 1e-6  # float32 in another order of sums; accuracies differ by far more


def sampled(space: SearchSpace, sizes: tuple[int, ...]) -> list[Arch]:
    archs = space.from_rows(space.sample_rows(np.random.default_rng(6), 40))
    known = [size for size in sizes if size in space.resolutions]
    return [replace(arch, resolution=known[index % len(known)]) for index, arch in enumerate(archs)]


def choice_of(arch: Arch, **resolution: Any) -> dict[str, Any]:
    return {"ks": list(arch.kernel_sizes), "e": list(arch.expand_ratios), "d": list(arch.depths), **resolution}


def perturb(module: torch.nn.Module) -> None:
    """Weights a fit could have given: predictions that differ from arch to arch."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            scale = 0.3 / tensor.shape[-1] ** 0.5 if tensor.dim() > 1 else 0.05
            tensor.add_(scale * torch.randn(tensor.shape, generator=generator))
            if name in ("base_acc", "6.bias"):
                tensor.fill_(0.77)


def compare(predictor: Any, archs: list[Arch], theirs: torch.Tensor) -> None:
    expected = theirs.detach().numpy().ravel().astype(np.float64)
    assert expected.std() > 100 * TOLERANCE
    assert predictor.predict(predictor.space.to_rows(archs)) == pytest.approx(expected, abs=TOLERANCE)


def tutorial_predictor(reference: Reference) -> Any:
    return reference("tutorial.accuracy_predictor").AccuracyPredictor(pretrained=False, device="cpu")


def test_the_tutorials_predictor_says_the_same(reference: Reference, tmp_path: Path) -> None:
    theirs, space = tutorial_predictor(reference), load_space("ofa_mbv3_w1.2")
    perturb(theirs.model)
    torch.save(theirs.model.state_dict(), tmp_path / "p.pth")
    archs = sampled(space, TUTORIAL_RESOLUTIONS)
    expected = theirs.predict_accuracy([choice_of(arch, r=[arch.resolution]) for arch in archs])
    compare(import_predictor(tmp_path / "p.pth", space), archs, expected)


@pytest.mark.shared_data
def test_the_published_predictor_says_the_same(reference: Reference, shared_data: Path) -> None:
    theirs, space = tutorial_predictor(reference), load_space("ofa_mbv3_w1.2")
    file = shared_data / "ofa_acc_predictor.pth"
    theirs.model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    archs = sampled(space, TUTORIAL_RESOLUTIONS)
    expected = theirs.predict_accuracy([choice_of(arch, r=[arch.resolution]) for arch in archs])
    compare(import_predictor(file, space), archs, expected)


@pytest.mark.parametrize(
    ("name", "nested"),
    [("ofa_mbv3_w1.0", False), ("ofa_mbv3_w1.0", True), ("ofa_proxyless_w1.3", True), ("ofa_resnet50", False)],
)
def test_the_newer_predictor_says_the_same(name: str, nested: bool, reference: Reference, tmp_path: Path) -> None:
    encoders = reference("nas.accuracy_predictor.arch_encoder")
    encoder = {
        "ofa_mbv3_w1.0": encoders.MobileNetArchEncoder,
        "ofa_proxyless_w1.3": type("Proxyless", (encoders.MobileNetArchEncoder,), {"SPACE_TYPE": "mbv2"}),
        "ofa_resnet50": encoders.ResNetArchEncoder,
    }[name](image_size_list=list(SIZES))
    theirs = reference("nas.accuracy_predictor.acc_predictor").AccuracyPredictor(encoder, device="cpu")
    perturb(theirs)
    state = theirs.state_dict()
    torch.save({"state_dict": state} if nested else state, tmp_path / "p.pth")
    space = load_space(name)
    archs = sampled(space, SIZES)
    expected = theirs.predict_acc([ofa_from_arch(arch, space) | {"image_size": arch.resolution} for arch in archs])
    compare(import_predictor(tmp_path / "p.pth", space, resolutions=SIZES), archs, expected)
