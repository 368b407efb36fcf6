"""The reference project's encodings: bits by hand, round trips, and what is no encoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.errors import InvalidArchError, InvalidSpaceError
from supernet.predictors.ofa_encodings import OfaEncoding, resolution_first_encoding, tutorial_encoding
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

MBV3, PROXYLESS, RESNET = "ofa_mbv3_w1.2", "ofa_proxyless_w1.3", "ofa_resnet50"
SIZES = (128, 144, 160, 176, 192, 224, 240, 256)


def resolution_first(name: str) -> OfaEncoding:
    """With the sizes above; the space is cut down to them."""
    space = load_space(name)
    return resolution_first_encoding(
        replace(space, resolutions=tuple(size for size in SIZES if size in space.resolutions)), SIZES
    )


ENCODINGS: dict[str, Callable[[], OfaEncoding]] = {
    "tutorial, w1.0": lambda: tutorial_encoding(load_space("ofa_mbv3_w1.0")),
    "tutorial, w1.2": lambda: tutorial_encoding(load_space(MBV3)),
    "resolution first, own space": lambda: resolution_first_encoding(
        load_space("cifar_mbv3"), load_space("cifar_mbv3").resolutions
    ),
    **{f"resolution first, {name}": lambda name=name: resolution_first(name) for name in (MBV3, PROXYLESS, RESNET)},
}
each_encoding = pytest.mark.parametrize("make", ENCODINGS.values(), ids=ENCODINGS.keys())


def ones(encoding: OfaEncoding, arch: Arch) -> list[int]:
    """Where the bits of one arch are set."""
    return np.flatnonzero(encoding.encode(encoding.space.to_rows([arch]))[0]).tolist()


def mbv3_arch(resolution: int) -> Arch:
    """Stages of 2, 3, 4, 2, 2 blocks; all of 3×3 and ratio 3, but the first two blocks and the last."""
    depths = (2, 3, 4, 2, 2)
    runs = [block < depth for depth in depths for block in range(4)]
    kernels, ratios = ([3 if active else 0 for active in runs] for _ in "ke")
    kernels[0], ratios[0] = 7, 4
    kernels[1], ratios[1] = 5, 6
    kernels[17], ratios[17] = 7, 6
    return Arch(resolution, depths, tuple(kernels), tuple(ratios))


RUNS = (0, 1, 4, 5, 6, 8, 9, 10, 11, 12, 13, 16, 17)


def test_the_tutorials_bits_stand_where_its_predictor_expects_them() -> None:
    encoding = tutorial_encoding(load_space(MBV3))
    kernels = [2, 4, *(3 * block for block in RUNS[2:-1]), 53]
    ratios = [61, 65, *(60 + 3 * block for block in RUNS[2:-1]), 113]
    assert encoding.n_bits == 128
    assert ones(encoding, mbv3_arch(160)) == [*kernels, *ratios, 123]
    assert ones(encoding, mbv3_arch(224)) == [*kernels, *ratios, 127]


def test_the_newer_bits_begin_with_the_resolutions_in_their_order() -> None:
    encoding = resolution_first_encoding(load_space(MBV3), (224, 160, 192, 128))
    kernels = [6, 8, *(4 + 3 * block for block in RUNS[2:-1]), 57]
    ratios = [65, 69, *(64 + 3 * block for block in RUNS[2:-1]), 117]
    assert ones(encoding, mbv3_arch(160)) == [1, *kernels, *ratios]
    assert (encoding.n_bits, encoding.resolutions) == (124, (160, 192, 224))


def test_resnets_bits_tell_stem_widths_and_ratios() -> None:
    encoding = resolution_first_encoding(load_space(RESNET), SIZES)
    depths = (1, 2, 3, 5, 4)
    stages = zip((4, 4, 6, 4), depths[1:], strict=True)
    ratios = [0.2 if block < depth else 0 for most, depth in stages for block in range(most)]
    ratios[4] = 0.35
    arch = Arch(144, depths, (), tuple(ratios), (32, 48, 168, 512, 816, 1328))
    widths = [10 + 2, 13 + 1, 16 + 0, 19 + 2, 22 + 1, 25 + 0]
    first_bits = [28 + 3 * block for block in (0, 1, 4, 5, 6, 8, 9, 10, 11, 12, 14, 15, 16, 17)]
    first_bits[2] += 2
    assert encoding.n_bits == 82
    assert ones(encoding, arch) == [1, 9, *widths, *first_bits]


@pytest.mark.parametrize(
    ("name", "n_bits"),
    [(MBV3, 8 + 120), (PROXYLESS, 8 + 126), (RESNET, 8 + 2 + 3 * 6 + 3 * 18), ("cifar_mbv3", 8 + 90)],
)
def test_the_space_decides_how_many_bits_there_are(name: str, n_bits: int) -> None:
    space = load_space(name)
    sizes = (*space.resolutions[:1], *range(1000, 1007))
    assert resolution_first_encoding(space, sizes).n_bits == n_bits


@each_encoding
def test_every_arch_is_read_as_it_was_written(make: Callable[[], OfaEncoding]) -> None:
    encoding = make()
    space = encoding.space

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**63 - 1), n_archs=st.integers(0, 40))
    def holds(seed: int, n_archs: int) -> None:
        rows = space.sample_rows(np.random.default_rng(seed), n_archs)
        bits = encoding.encode(rows)
        read = encoding.decode(bits)
        assert bits.shape == (n_archs, encoding.n_bits)
        assert read[:, 1:].tolist() == rows[:, 1:].tolist()
        # Where several resolutions share a bit, the first of them is meant.
        assert (encoding.encode(read) == bits).all()
        assert (np.asarray(space.resolutions)[rows[:, 0]] - np.asarray(space.resolutions)[read[:, 0]] < 16).all()

    holds()


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", MBV3])
def test_a_tutorial_encoding_has_two_ones_per_block_and_one_more(name: str, rng: np.random.Generator) -> None:
    space = load_space(name)
    rows = space.sample_rows(rng, 200)
    bits = tutorial_encoding(space).encode(rows)
    assert set(np.unique(bits)) == {0, 1}
    assert bits.sum(axis=1).tolist() == [2 * sum(arch.depths) + 1 for arch in space.from_rows(rows)]


def test_the_tutorial_floors_resolutions() -> None:
    encoding = tutorial_encoding(load_space("ofa_mbv3_w1.0"))
    assert ones(encoding, mbv3_arch(140)) == ones(encoding, mbv3_arch(128)) != ones(encoding, mbv3_arch(144))
    (arch,) = encoding.space.from_rows(encoding.decode(encoding.encode(encoding.space.to_rows([mbv3_arch(140)]))))
    assert arch == mbv3_arch(128)


def test_choices_of_skipped_blocks_leave_no_bits(rng: np.random.Generator) -> None:
    encoding = tutorial_encoding(load_space(MBV3))
    rows = np.repeat(encoding.space.to_rows([encoding.space.smallest()]), 2, axis=0)
    rows[1][encoding.space.skipped_slots(rows)[1]] = 2
    first, second = encoding.encode(rows)
    assert (first == second).all()


def test_two_multipliers_of_one_width_are_both_read() -> None:
    encoding = resolution_first(RESNET)
    bits = encoding.encode(encoding.space.to_rows([encoding.space.smallest()]))
    assert bits[0, 10:13].tolist() == [0, 1, 0]
    bits[0, 10:13] = [1, 0, 0]
    assert encoding.space.from_rows(encoding.decode(bits)) == [encoding.space.smallest()]
    bits[0, 10:13] = [1, 1, 0]
    with pytest.raises(InvalidArchError, match=r"bits 10 to 12, 'widths' of stage 0, one is 1"):
        encoding.decode(bits)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["tutorial, w1.2", f"resolution first, {MBV3}", f"resolution first, {PROXYLESS}"])
def test_one_wrong_bit_is_refused(name: str, rng: np.random.Generator) -> None:
    encoding = ENCODINGS[name]()
    bits = encoding.encode(np.repeat(encoding.space.sample_rows(rng, 1), encoding.n_bits, axis=0))
    for row in range(encoding.n_bits):
        bits[row, row] = 1 - bits[row, row]
        with pytest.raises(InvalidArchError, match="Row 0 is no encoding of an arch of 'ofa_"):
            encoding.decode(bits[[row]])


@pytest.mark.parametrize(
    ("bits", "rule"),
    [
        ({0: 0.5}, "bits 0 to 2, 'kernel_sizes' of stage 2, block 0, one is 1"),
        ({0: 2}, "bits 0 to 2,"),
        ({0: np.nan}, "bits 0 to 2,"),
        ({0: 1, 1: 1}, "bits 0 to 2,"),
        ({3: 0, 63: 0}, "bits 3 to 5, 'kernel_sizes' of stage 2, block 1, .*as many as the space offers"),
        ({9: 1, 69: 1}, "bits 6 to 8, .*the first blocks of a stage run"),
        ({9: 1}, "bits 9 to 11,"),
        ({123: 0}, "bits 120 to 127, 'resolution', one is 1, a choice of the space"),
        ({123: 0, 120: 1}, "bits 120 to 127, 'resolution'"),
    ],
)
def test_what_is_no_encoding_is_refused_by_name(bits: dict[int, float], rule: str) -> None:
    encoding = tutorial_encoding(load_space(MBV3))
    vectors = encoding.encode(np.repeat(encoding.space.to_rows([encoding.space.smallest()]), 3, axis=0))
    for bit, value in bits.items():
        vectors[2, bit] = value
    with pytest.raises(InvalidArchError, match=f"Row 2 .*{rule}"):
        encoding.decode(vectors)


@pytest.mark.parametrize("shape", [(128,), (1, 127), (2, 2, 64), (0,)])
def test_vectors_of_another_length_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArchError, match=r"shape \(n_archs, 128\), got"):
        tutorial_encoding(load_space(MBV3)).decode(np.zeros(shape, np.float32))


def test_a_resolution_without_a_bit_is_refused() -> None:
    encoding = resolution_first_encoding(load_space(MBV3), (256, 192))
    with pytest.raises(InvalidArchError, match=r"no bit for resolution 160; it knows \[192\]"):
        encoding.encode(encoding.space.to_rows([encoding.space.smallest()]))
    bits = encoding.encode(encoding.space.to_rows([replace(encoding.space.smallest(), resolution=192)]))
    bits[0, :2] = [1, 0]
    with pytest.raises(InvalidArchError, match="bits 0 to 1, 'resolution', one is 1, a choice of the space"):
        encoding.decode(bits)


@pytest.mark.parametrize("sizes", [(), (160, 160), (28, 30)])
def test_resolutions_that_are_no_list_of_the_space_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArchError, match="resolutions without repeats"):
        resolution_first_encoding(load_space(MBV3), sizes)


@pytest.mark.parametrize("name", ["cifar_mbv3", PROXYLESS, RESNET])
def test_the_tutorials_encoding_is_of_mobilenet_v3_alone(name: str) -> None:
    with pytest.raises(InvalidSpaceError, match="one of 20 blocks with 'kernel_sizes'"):
        tutorial_encoding(load_space(name))


def test_resolutions_the_tutorial_has_no_bit_for_are_refused() -> None:
    for sizes in ((96, 224), (224, 240)):
        with pytest.raises(InvalidSpaceError, match="bits for resolutions from 112 to 239"):
            tutorial_encoding(replace(load_space(MBV3), resolutions=sizes))


def plain_space(**changes: tuple[int, ...]) -> SearchSpace:
    stages = (Stage(BlockKind.CONV, **{"widths": (8,), **changes}), Stage(BlockKind.LINEAR, widths=(4,)))
    return SearchSpace("plain", stages, resolutions=(16,))


def test_spaces_with_choices_nothing_tells_are_refused() -> None:
    with pytest.raises(InvalidSpaceError, match="'depths' of stage 0 of space 'plain' has no bits"):
        resolution_first_encoding(plain_space(depths=(1, 2)), (16,))
    with pytest.raises(InvalidSpaceError, match=r"widths of stage 0 of space 'plain' must be .*so \[40, 48, 64\]"):
        resolution_first_encoding(plain_space(widths=(8, 64)), (16,))
