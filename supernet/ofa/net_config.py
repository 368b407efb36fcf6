"""`net.config`: how the reference describes a specialised net, to the blocks it runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supernet.errors import InvalidArchError, InvalidCheckpointError, SupernetError
from supernet.spaces.blocks import Act, BlockKind, BlockSpec, make_divisible, out_size_of
from supernet.spaces.fixed import arch_of_blocks, space_of_blocks
from supernet.strict_json import unique_keys

if TYPE_CHECKING:
    from pathlib import Path

    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

_ACTS = {None: Act.NONE, "relu": Act.RELU, "relu6": Act.RELU6, "h_swish": Act.HSWISH}


@dataclass(frozen=True)
class NetConfig:
    """A specialised net.

    Attributes:
        name: The reference's name of its class.
        blocks: From the stem to the classifier, at the resolution asked for.
        norm_eps: Epsilon of batch normalisation.
    """

    name: str
    blocks: tuple[BlockSpec, ...]
    norm_eps: float

    def arch(self, space: SearchSpace) -> Arch:
        """The net as an arch of a space; its number of classes does not matter.

        Raises:
            InvalidArchError: No arch of the space has these blocks.
        """
        space = space.with_classes(self.blocks[-1].out_chs)
        if self.norm_eps != space.norm_eps:
            raise InvalidArchError(
                f"The net normalises with an epsilon of {self.norm_eps}, '{space.name}' with {space.norm_eps}."
            )
        return arch_of_blocks(space, self.blocks)

    def space(self, name: str) -> SearchSpace:
        """The net alone, as a space of one arch."""
        return space_of_blocks(name, self.blocks, norm_eps=self.norm_eps)


def read_net_config(path: Path, *, resolution: int | None = None) -> NetConfig:
    """Read a `net.config` of the reference: MobileNetV3, ProxylessNAS or ResNet, of either naming generation.

    Args:
        path: The file.
        resolution: Of the images, pixels; by default what `run.config` beside it says.

    Raises:
        InvalidCheckpointError: The file cannot be read, lacks something, or has layers we do not have.
    """
    config = _read_json(path)
    if resolution is None:
        beside = path.with_name("run.config")
        resolution = _read_json(beside).get("image_size") if beside.is_file() else None
    if type(resolution) is not int or resolution < 1:
        raise InvalidCheckpointError(
            f"'{path}' does not tell the image size, and there is no 'run.config' with 'image_size' beside it: name "
            "one with --resolution."
        )
    try:
        blocks = _Walk(resolution).blocks(config)
        norm_eps = float(config.get("bn", {}).get("eps", 1e-5))
        net = NetConfig(str(config.get("name", "net")), blocks, norm_eps)
        net.space("net")  # the blocks fit one another
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = error if isinstance(error, SupernetError) else f"{error!r} is missing or malformed"
        raise InvalidCheckpointError(f"'{path}' describes no network we can build: {reason}.") from error
    return net


class _Walk:
    """Blocks of a description, each at the size the one before leaves."""

    def __init__(self, resolution: int) -> None:
        self.size = resolution
        self.specs: list[BlockSpec] = []

    def blocks(self, config: dict[str, Any]) -> tuple[BlockSpec, ...]:
        if "input_stem" in config:
            for layer in config["input_stem"]:
                self.conv(layer.get("conv", layer), shortcut=layer["name"] == "ResidualBlock")
            chs = self.specs[-1].out_chs
            self.add(BlockSpec(BlockKind.MAX_POOL, self.size, chs, chs, chs, kernel_size=3, stride=2))
            for block in config["blocks"]:
                self.bottleneck(block)
        else:
            self.conv(config["first_conv"])
            for block in config["blocks"]:
                path = block["conv"] if "conv" in block else block["mobile_inverted_conv"]
                if path is not None and path["name"] != "ZeroLayer":  # skipped, its shortcut alone changes nothing
                    self.inverted(path, shortcut=block["shortcut"] is not None)
        # MobileNetV3 mixes features behind the pooling, ProxylessNAS before it.
        if (last := config.get("final_expand_layer")) is not None:
            self.conv(last)
            self.pool()
            self.conv(config["feature_mix_layer"])
        else:
            if (last := config.get("feature_mix_layer")) is not None:
                self.conv(last)
            self.pool()
        linear = config["classifier"]
        self.plain(linear, ("use_bn", False), ("act_func", None))
        in_chs = int(linear["in_features"])
        self.add(
            BlockSpec(
                BlockKind.LINEAR, 1, in_chs, in_chs, int(linear["out_features"]), norm=False, bias=bool(linear["bias"])
            )
        )
        return tuple(self.specs)

    def conv(self, layer: dict[str, Any], *, shortcut: bool = False) -> None:
        self.plain(layer, ("dilation", 1), ("groups", 1), ("has_shuffle", False), ("use_se", False))
        self.plain(layer, ("ops_order", "weight_bn_act"))
        in_chs, out_chs = int(layer["in_channels"]), int(layer["out_channels"])
        self.add(
            BlockSpec(
                BlockKind.CONV,
                self.size,
                in_chs,
                in_chs,
                out_chs,
                kernel_size=int(layer["kernel_size"]),
                stride=int(layer["stride"]),
                act=_ACTS[layer["act_func"]],
                shortcut=shortcut,
                norm=bool(layer["use_bn"]),
                bias=bool(layer["bias"]),
            )
        )

    def inverted(self, layer: dict[str, Any], *, shortcut: bool) -> None:
        self.plain(layer, ("groups", None))
        in_chs, ratio, mid_chs = int(layer["in_channels"]), layer["expand_ratio"], layer["mid_channels"]
        if mid_chs is None:
            mid_chs = round(in_chs * ratio)
        self.add(
            BlockSpec(
                BlockKind.SEPARABLE if ratio == 1 else BlockKind.INVERTED,
                self.size,
                in_chs,
                int(mid_chs),
                int(layer["out_channels"]),
                kernel_size=int(layer["kernel_size"]),
                stride=int(layer["stride"]),
                act=_ACTS[layer["act_func"]],
                se_chs=make_divisible(mid_chs // 4) if layer.get("use_se") else 0,
                shortcut=shortcut,
            )
        )

    def bottleneck(self, layer: dict[str, Any]) -> None:
        in_chs, out_chs = int(layer["in_channels"]), int(layer["out_channels"])
        stride, act = int(layer["stride"]), _ACTS[layer["act_func"]]
        keeps_shape = stride == 1 and in_chs == out_chs
        self.plain(layer, ("groups", 1))
        if not keeps_shape:
            self.plain(layer, ("downsample_mode", "avgpool_conv"))
        mid_chs = layer["mid_channels"]
        if mid_chs is None:
            mid_chs = round(out_chs * layer["expand_ratio"])
        self.add(
            BlockSpec(
                BlockKind.BOTTLENECK if keeps_shape else BlockKind.BOTTLENECK_DOWN,
                self.size,
                in_chs,
                make_divisible(mid_chs),
                out_chs,
                kernel_size=int(layer["kernel_size"]),
                stride=stride,
                act=act,
                out_act=act,
                shortcut=keeps_shape,
            )
        )

    def pool(self) -> None:
        chs = self.specs[-1].out_chs
        self.add(BlockSpec(BlockKind.POOL, self.size, chs, chs, chs))

    def add(self, spec: BlockSpec) -> None:
        self.specs.append(spec)
        self.size = out_size_of(spec.kind, spec.in_size, spec.stride)

    def plain(self, layer: dict[str, Any], *defaults: tuple[str, Any]) -> None:
        """Refuse what our layers cannot do."""
        for key, value in defaults:
            if layer.get(key, value) != value:
                raise ValueError(f"'{key}' of a layer must be {value!r}, got {layer[key]!r}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique_keys)
    except OSError as error:
        raise InvalidCheckpointError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpointError(f"'{path}' is no JSON: {error}.") from error
    if not isinstance(data, dict):
        raise InvalidCheckpointError(f"'{path}' holds no object but {type(data).__name__}.")
    return data
