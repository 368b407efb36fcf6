"""Our encodings against the reference project's own encoders, both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from supernet.predictors.ofa_encodings import OfaEncoding, resolution_first_encoding, tutorial_encoding
from supernet.spaces.arch import Arch
from supernet.spaces.ofa_dicts import ofa_from_arch
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

Reference = Callable[[str], ModuleType]
SIZES = (192, 128, 144, 160, 224, 240)
N_ARCHS = 60


def sampled(space: SearchSpace, sizes: tuple[int, ...]) -> list[Arch]:
    rows = space.sample_rows(np.random.default_rng(4), N_ARCHS)
    rows[:, 0] = np.resize([space.resolutions.index(size) for size in sizes if size in space.resolutions], N_ARCHS)
    return [*space.from_rows(rows), *(replace(end, resolution=192) for end in (space.smallest(), space.largest()))]


def choice_of(arch: Arch, space: SearchSpace) -> dict[str, Any]:
    """As the newer encoders take archs."""
    choice = ofa_from_arch(arch, space)
    return {**choice, "image_size": choice.pop("r")}


def ours(encoding: OfaEncoding, archs: list[Arch]) -> np.ndarray:
    return encoding.encode(encoding.space.to_rows(archs))


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_mbv3_w1.2"])
def test_the_tutorials_features_are_ours(name: str, reference: Reference) -> None:
    predictor = reference("tutorial.accuracy_predictor").AccuracyPredictor
    space = load_space(name)
    archs = sampled(space, space.resolutions)
    theirs = []
    for arch in archs:
        choice = ofa_from_arch(arch, space)
        theirs.append(predictor.spec2feats(choice["ks"], choice["e"], choice["d"], choice["r"]).numpy())
    assert (ours(tutorial_encoding(space), archs) == np.array(theirs)).all()


@pytest.fixture(params=["ofa_mbv3_w1.2", "ofa_proxyless_w1.3", "ofa_resnet50"])
def family(request: pytest.FixtureRequest, reference: Reference) -> tuple[OfaEncoding, Any]:
    """Our encoding and the reference's encoder."""
    encoders = reference("nas.accuracy_predictor.arch_encoder")
    mobile = encoders.MobileNetArchEncoder
    encoder = {
        "ofa_mbv3_w1.2": mobile,
        "ofa_proxyless_w1.3": type("Proxyless", (mobile,), {"SPACE_TYPE": "mbv2"}),
        "ofa_resnet50": encoders.ResNetArchEncoder,
    }[request.param]
    return resolution_first_encoding(load_space(request.param), SIZES), encoder(image_size_list=list(SIZES))


def test_the_newer_features_are_ours(family: tuple[OfaEncoding, Any]) -> None:
    encoding, encoder = family
    archs = sampled(encoding.space, SIZES)
    theirs = np.array([encoder.arch2feature(choice_of(arch, encoding.space)) for arch in archs])
    assert encoding.n_bits == encoder.n_dim
    assert (ours(encoding, archs) == theirs).all()


def test_both_read_the_same_archs(family: tuple[OfaEncoding, Any]) -> None:
    encoding, encoder = family
    archs = sampled(encoding.space, SIZES)
    bits = ours(encoding, archs)
    assert encoding.space.from_rows(encoding.decode(bits)) == archs
    for vector, arch in zip(bits, archs, strict=True):
        read, wanted = encoder.feature2arch(vector), choice_of(arch, encoding.space)
        assert (read["d"], read["image_size"], read.get("w")) == (wanted["d"], wanted["image_size"], wanted.get("w"))
        assert (read["e"], read.get("ks", [])) == (list(arch.expand_ratios), list(arch.kernel_sizes))


def test_every_index_of_the_stems_width_is_read(reference: Reference) -> None:
    """Its multipliers 0.65 and 0.8 give the same 24 channels, so two of its vectors are one arch."""
    encoder = reference("nas.accuracy_predictor.arch_encoder").ResNetArchEncoder(image_size_list=list(SIZES))
    encoding = resolution_first_encoding(load_space("ofa_resnet50"), SIZES)
    arch = replace(encoding.space.smallest(), resolution=192)
    for index, width in enumerate((24, 24, 32)):
        vector = encoder.arch2feature({**choice_of(arch, encoding.space), "w": [index, 0, 0, 0, 0, 0]})
        (read,) = encoding.space.from_rows(encoding.decode(vector[None]))
        assert read == replace(arch, widths=(width, *arch.widths[1:]))
