"""`docs/spaces.md`: its table holds for the code, and its example is a space."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.costs import macs, params
from supernet.spaces.presets import find_space, list_spaces, load_space

PAGE = (Path(__file__).parents[4] / "docs" / "spaces.md").read_text(encoding="utf-8")


def test_the_table_lists_every_space_with_its_size() -> None:
    rows = re.findall(r"^\| `(\S+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == list_spaces()
    for name, archs, resolutions, millions_macs, millions_params in rows:
        space = load_space(name)
        ends = (space.smallest(), space.largest())
        assert millions_macs == " – ".join(f"{macs(space, arch) / 1e6:.2f}" for arch in ends)
        assert millions_params == " – ".join(f"{params(space, arch) / 1e6:.3f}" for arch in ends)
        assert resolutions == "–".join(dict.fromkeys((str(space.resolutions[0]), str(space.resolutions[-1]))))
        number = float(archs.replace(",", "").replace("·10^", "e"))
        assert abs(number / space.size() - 1) < 0.01


def test_the_example_is_a_space(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "my_space.toml"
    path.write_text(example, encoding="utf-8")
    space = find_space(str(path))
    assert space.size() == 2 * 2 * (4**2 + 4**3)
    assert space.contains(space.sample(np.random.default_rng(0)))


def test_every_kind_and_activation_is_explained() -> None:
    for word in (*BlockKind, *Act):
        assert f"`{word}`" in PAGE or word is BlockKind.BOTTLENECK_DOWN
