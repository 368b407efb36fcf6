"""Stage: what it refuses, and its JSON form."""

from __future__ import annotations

from typing import Any

import pytest

from supernet.errors import InvalidSpaceError
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.stage import Stage


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel_sizes": (5, 3)}, "'kernel_sizes' of a stage must ascend"),
        ({"expand_ratios": (3, 3)}, "'expand_ratios' of a stage must ascend"),
        ({"expand_ratios": (float("nan"),)}, "'expand_ratios'"),
        ({"expand_ratios": (2, float("inf"))}, "'expand_ratios'"),
        ({"depths": ()}, "at least one depth"),
        ({"kernel_sizes": ()}, "at least one depth, kernel size"),
        ({"stride": 0}, "stride"),
        ({"depths": (0,)}, "depth of at least 1"),
        ({"depths": (-1, 1)}, "depth of at least 1"),
        ({"widths": (0, 8)}, "must be positive"),
        ({"expand_ratios": (0, 1)}, "must be positive"),
        ({"kernel_sizes": (2, 3)}, "must be odd"),
        ({"kernel_sizes": (-1,)}, "must be odd"),
        ({"depths": (0, 1), "stride": 2}, "can be skipped"),
        ({"depths": (0, 1), "widths": (8,)}, "can be skipped"),
        ({"widths": (16.5,)}, "whole numbers"),
        ({"stride": 1.5}, "whole number"),
        ({"depths": (True, 2)}, "whole numbers"),
        ({"kernel_sizes": (3.0,)}, "whole numbers"),
        ({"expand_ratios": (True,)}, "'expand_ratios'"),
        ({"se": "no"}, "'se'"),
        ({"depths": (1, 10**9)}, "'depths' of a stage may be at most 64"),
        ({"widths": (10**9,)}, "'widths' of a stage may be at most 131072"),
        ({"kernel_sizes": (65,)}, "'kernel_sizes' of a stage may be at most 63"),
        ({"expand_ratios": (10**400,)}, "'expand_ratios' of a stage may be at most 64"),
        ({"bias": 1}, "'bias'"),
        ({"depths": 5}, "'depths' of a stage must be a list, got 5"),
        ({"widths": None}, "'widths' of a stage must be a list, got None"),
        ({"widths": tuple(range(1, 5000))}, "'widths' of a stage may list 4096 choices, got 4999"),
    ],
)
def test_stages_that_no_network_can_be_built_from_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        Stage(BlockKind.INVERTED, **values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (BlockKind.CONV, {"widths": (8,), "kernel_sizes": (3, 5)}),  # no kernel matrices for full convolutions
        (BlockKind.LINEAR, {"widths": (8,), "kernel_sizes": (1, 3)}),
        (BlockKind.CONV, {"widths": (8,), "expand_ratios": (2, 3)}),  # two archs would be one network
        (BlockKind.SEPARABLE, {"widths": (8,), "expand_ratios": (2, 3)}),
        (BlockKind.POOL, {"depths": (0, 1)}),  # the map would keep its size where it is skipped
        (BlockKind.POOL, {"widths": (8,)}),
        (BlockKind.SEPARABLE, {"widths": (8,), "se": True}),
    ],
)
def test_choices_that_a_kind_of_block_does_not_have_are_refused(kind: BlockKind, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpaceError, match=kind):
        Stage(kind, **values)


def test_stage_survives_its_json_form() -> None:
    stage = Stage(
        BlockKind.INVERTED,
        widths=(16, 24),
        depths=(1, 2),
        kernel_sizes=(3, 5),
        expand_ratios=(1.5, 3),
        act=Act.HSWISH,
        se=True,
        norm=False,
        bias=True,
    )
    assert Stage.from_dict(stage.to_dict()) == stage
    assert Stage(BlockKind.POOL).to_dict() == {"kind": "pool"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "conv", "width": [8]}, r"Unknown stage keys \['width'\]"),
        ({"kind": "convolution"}, "cannot be read"),
        ({}, "cannot be read"),
        ({"kind": "conv", "act": "gelu"}, "cannot be read"),
        ({"kind": "conv", "depths": 1}, "'depths'|cannot be read"),
        ({"kind": "conv", "widths": ["8"]}, "whole numbers|cannot be read"),
        ({"kind": "conv", "widths": [None]}, "whole numbers|cannot be read"),
        ({"kind": "conv", "stride": None}, "whole number|cannot be read"),
        ({"kind": ["conv"]}, "cannot be read"),
    ],
)
def test_malformed_stages_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        Stage.from_dict(data)
