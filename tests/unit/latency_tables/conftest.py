"""A small space and a table that covers it."""

from __future__ import annotations

import pytest

from latency_tables.device import DeviceProfile
from latency_tables.table import LatencyStats, LatencyTable
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


@pytest.fixture
def small_space() -> SearchSpace:
    """Two resolutions, one elastic stage with squeeze-excite: 27 distinct blocks, built in milliseconds."""
    return SearchSpace(
        "small",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(BlockKind.SEPARABLE, widths=(8,), kernel_sizes=(3,), act=Act.RELU6, shortcut=True),
            Stage(
                BlockKind.INVERTED,
                widths=(16,),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(2, 3),
                stride=2,
                act=Act.RELU,
                se=True,
                shortcut=True,
            ),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(4,), norm=False, bias=True),
        ),
        resolutions=(16, 24),
    )


@pytest.fixture
def device() -> DeviceProfile:
    return DeviceProfile(device_id="board-1t", chip="Board", runtime="onnxruntime", runtime_version="1.31.1")


@pytest.fixture
def table(small_space: SearchSpace, device: DeviceProfile) -> LatencyTable:
    """Latency of a block: a microsecond and its MACs at one per nanosecond."""
    rows = {spec: LatencyStats(1e-3 + spec.macs * 1e-6, 1e-6, 100) for spec in small_space.distinct_blocks()}
    return LatencyTable(device=device, space="small", source={"method": "made up"}, rows=rows)
