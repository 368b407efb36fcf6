"""`net.config` files of specialised nets: the blocks they describe, as an arch of a space or a space of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supernet.errors import InvalidArchError, InvalidCheckpointError
from supernet.ofa.net_config import read_net_config
from supernet.spaces.blocks import BlockKind, BlockSpec
from supernet.spaces.costs import blocks_of
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

Write = Callable[..., Path]


def conv(spec: BlockSpec) -> dict[str, Any]:
    acts = {"none": None, "relu": "relu", "relu6": "relu6", "hswish": "h_swish"}
    return {
        **{"name": "ConvLayer", "kernel_size": spec.kernel_size, "stride": spec.stride, "dilation": 1, "groups": 1},
        **{"bias": spec.bias, "has_shuffle": False, "use_se": False, "in_channels": spec.in_chs},
        **{"out_channels": spec.out_chs, "use_bn": spec.norm, "act_func": acts[spec.act], "dropout_rate": 0},
        "ops_order": "weight_bn_act",
    }


def block(spec: BlockSpec) -> dict[str, Any]:
    plain = {"in_channels": spec.in_chs, "out_channels": spec.out_chs, "kernel_size": spec.kernel_size}
    plain |= {"stride": spec.stride, "act_func": "h_swish" if spec.act == "hswish" else str(spec.act), "groups": None}
    if "bottleneck" in spec.kind:
        plain |= {"name": "ResNetBottleneckBlock", "expand_ratio": 0.25, "mid_channels": spec.mid_chs, "groups": 1}
        return plain | {"downsample_mode": "avgpool_conv"}
    ratio = 1 if spec.kind is BlockKind.SEPARABLE else 6
    path = plain | {"name": "MBConvLayer", "expand_ratio": ratio, "use_se": spec.se_chs > 0}
    return {
        "name": "ResidualBlock",
        "conv": path | {"mid_channels": None if ratio == 1 else spec.mid_chs},
        "shortcut": {"name": "IdentityLayer"} if spec.shortcut else None,
    }


def config_of(space: SearchSpace, **changes: Any) -> dict[str, Any]:
    """The description of a space's largest net, as the reference writes it."""
    blocks = blocks_of(space, space.largest())
    convs = [spec for spec in blocks if spec.kind is BlockKind.CONV]
    config: dict[str, Any] = {"name": "Net", "bn": {"momentum": 0.1, "eps": space.norm_eps}}
    config["blocks"] = [block(spec) for spec in blocks if spec.kind not in ("conv", "pool", "max_pool", "linear")]
    config["classifier"] = {
        **{"name": "LinearLayer", "in_features": blocks[-1].in_chs, "out_features": blocks[-1].out_chs, "bias": True},
        **{"use_bn": False, "act_func": None, "dropout_rate": 0.1, "ops_order": "weight_bn_act"},
    }
    if blocks[3].kind is BlockKind.MAX_POOL:
        config["input_stem"] = [
            {"name": "ResidualBlock", "conv": conv(spec), "shortcut": {"name": "IdentityLayer"}}
            if spec.shortcut
            else conv(spec)
            for spec in convs
        ]
    else:
        names = ["first_conv", "final_expand_layer", "feature_mix_layer"]
        names = names if len(convs) == 3 else [names[0], names[2]]
        config |= dict(zip(names, map(conv, convs), strict=True))
    return config | changes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_config(config: Any, *, image_size: int | None = None) -> Path:
        path = tmp_path / "net.config"
        path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
        if image_size is not None:
            (tmp_path / "run.config").write_text(json.dumps({"image_size": image_size}), encoding="utf-8")
        return path

    return write_config


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50"])
def test_a_description_gives_the_blocks_and_the_arch(name: str, write: Write) -> None:
    space = load_space(name)
    net = read_net_config(write(config_of(space), image_size=224))
    assert net.blocks == blocks_of(space, space.largest())
    assert net.arch(space) == space.largest()
    alone = net.space("alone")
    assert alone.size() == 1
    assert blocks_of(alone, alone.smallest()) == net.blocks
    assert alone.norm_eps == space.norm_eps


def test_older_descriptions_name_the_path_of_a_block_otherwise_and_keep_skipped_blocks(write: Write) -> None:
    space = load_space("ofa_mbv3_w1.0")
    config = config_of(space)
    config["blocks"] = [{"mobile_inverted_conv": one["conv"], "shortcut": one["shortcut"]} for one in config["blocks"]]
    zero = {"mobile_inverted_conv": {"name": "ZeroLayer"}, "shortcut": {"name": "IdentityLayer"}}
    config["blocks"].insert(4, zero)
    assert read_net_config(write(config), resolution=224).arch(space) == space.largest()


def test_inner_widths_may_be_left_to_the_ratio(write: Write) -> None:
    space = load_space("ofa_mbv3_w1.0")
    config = config_of(space)
    for one in config["blocks"]:
        one["conv"]["mid_channels"] = None
    assert read_net_config(write(config), resolution=224).arch(space) == space.largest()


def test_another_number_of_classes_is_still_an_arch_of_the_space(write: Write) -> None:
    space = load_space("ofa_mbv3_w1.0")
    config = config_of(space.with_classes(10))
    assert read_net_config(write(config), resolution=224).arch(space) == space.largest()


def test_nets_outside_the_space_are_refused(write: Write) -> None:
    config = write(config_of(load_space("ofa_mbv3_w1.2")))
    net = read_net_config(config, resolution=224)
    with pytest.raises(InvalidArchError, match=r"No arch of 'ofa_mbv3_w1.0' has these blocks; the first"):
        net.arch(load_space("ofa_mbv3_w1.0"))
    with pytest.raises(InvalidArchError, match=r"epsilon of 1e-05, 'ofa_proxyless_w1.3' with 0.001"):
        net.arch(load_space("ofa_proxyless_w1.3"))
    with pytest.raises(InvalidArchError, match=r"has the resolutions .* got 100"):
        read_net_config(config, resolution=100).arch(load_space("ofa_mbv3_w1.2"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no object but list"),
        ("{}", "KeyError"),
        ('{"blocks": 3, "first_conv": {}}', "KeyError"),
    ],
)
def test_what_is_no_description_is_refused(write: Write, content: str, message: str) -> None:
    with pytest.raises(InvalidCheckpointError, match=message):
        read_net_config(write(content), resolution=224)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("groups", 2, "'groups' of a layer must be 1, got 2"),
        ("dilation", 2, "'dilation' of a layer must be 1, got 2"),
        ("act_func", "swish", "KeyError"),
        ("use_se", True, "'use_se' of a layer must be False"),
        ("ops_order", "bn_act_weight", "'ops_order'"),
        ("out_channels", 17, "does not fit the ones before it"),
    ],
)
def test_layers_we_do_not_have_are_refused(write: Write, key: str, value: Any, message: str) -> None:
    config = config_of(load_space("ofa_mbv3_w1.0"))
    config["first_conv"][key] = value
    with pytest.raises(InvalidCheckpointError, match=message):
        read_net_config(write(config), resolution=224)


def test_shortcuts_that_do_not_pool_first_are_refused(write: Write) -> None:
    config = config_of(load_space("ofa_resnet50"))
    config["blocks"][0]["downsample_mode"] = "conv"
    with pytest.raises(InvalidCheckpointError, match="'downsample_mode' of a layer must be 'avgpool_conv'"):
        read_net_config(write(config), resolution=224)


def test_the_resolution_is_told_or_asked_for(write: Write, tmp_path: Path) -> None:
    path = write(config_of(load_space("ofa_mbv3_w1.0")))
    with pytest.raises(InvalidCheckpointError, match="name one with --resolution"):
        read_net_config(path)
    (tmp_path / "run.config").write_text('{"image_size": 160}', encoding="utf-8")
    assert read_net_config(path).blocks[0].in_size == 160
    assert read_net_config(path, resolution=192).blocks[0].in_size == 192
    with pytest.raises(InvalidCheckpointError, match="cannot be read"):
        read_net_config(tmp_path / "absent.config", resolution=160)
