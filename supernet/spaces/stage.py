"""Stage: a run of blocks at one scale with its elastic choices, and the only arithmetic that turns them into shapes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from supernet.errors import InvalidSpaceError
from supernet.spaces.blocks import Act, BlockKind, BlockSpec, make_divisible

# Hidden width of squeeze-excite over the inner width, in MobileNetV3 and all that follow it.
SE_RATIO = 0.25
# Spaces come in files of strangers too: without limits one number could fill the memory.
LARGEST = {"widths": 131_072, "depths": 64, "kernel_sizes": 63, "expand_ratios": 64}
MAX_CHOICES = 4096


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one kind at one scale; each tuple lists the choices of an elastic dimension in ascending order.

    The first block carries the stride and the change of width, so running only the first blocks is shape-safe.

    Attributes:
        widths: Output channels; empty keeps the input's.
        depths: How many of the first blocks run. 0 is allowed where the stage keeps size and width.
        expand_ratios: Inner width over input width of inverted blocks, over output width of bottlenecks.
        stride: Of the first block; the others have 1.
        act: See `BlockSpec`.
        out_act: See `BlockSpec`.
        se: Whether inverted blocks have squeeze-excite.
        se_ratio: Its hidden width over the inner width, before rounding to the space's divisor.
        shortcut: Add the input where size and width stay the same. The first bottleneck of a stage that names widths or
            has a stride projects its shortcut instead.
        norm: See `BlockSpec`.
        bias: See `BlockSpec`.
    """

    kind: BlockKind
    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = (1,)
    kernel_sizes: tuple[int, ...] = (1,)
    expand_ratios: tuple[float, ...] = (1,)
    stride: int = 1
    act: Act = Act.NONE
    out_act: Act = Act.NONE
    se: bool = False
    se_ratio: float = SE_RATIO
    shortcut: bool = False
    norm: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        """Refuse stages that no network can be built from."""
        for name, largest in LARGEST.items():
            choices = getattr(self, name)
            if not isinstance(choices, tuple):
                raise InvalidSpaceError(f"'{name}' of a stage must be a list, got {choices!r}.")
            if len(choices) > MAX_CHOICES:
                raise InvalidSpaceError(f"'{name}' of a stage may list {MAX_CHOICES} choices, got {len(choices)}.")
            if name != "expand_ratios" and any(type(value) is not int for value in choices):
                raise InvalidSpaceError(f"'{name}' of a stage must be whole numbers, got {list(choices)}.")
            if any(not is_finite_number(value) for value in choices) or list(choices) != sorted(set(choices)):
                raise InvalidSpaceError(f"'{name}' of a stage must ascend without repeats, got {list(choices)}.")
            if choices and choices[-1] > largest:
                raise InvalidSpaceError(f"'{name}' of a stage may be at most {largest}, got {choices[-1]}.")
        if type(self.stride) is not int:
            raise InvalidSpaceError(f"'stride' of a stage must be a whole number, got {self.stride!r}.")
        for name in ("se", "shortcut", "norm", "bias"):
            if type(getattr(self, name)) is not bool:
                raise InvalidSpaceError(f"'{name}' of a stage must be true or false, got {getattr(self, name)!r}.")
        if not self.depths or not self.kernel_sizes or not self.expand_ratios:
            raise InvalidSpaceError("A stage needs at least one depth, kernel size and expand ratio.")
        if self.stride < 1 or self.depths[0] < 0 or self.depths[-1] < 1:
            raise InvalidSpaceError(
                f"A stage needs a stride and a depth of at least 1, got {self.stride}, {self.depths}."
            )
        if any(width < 1 for width in self.widths) or self.expand_ratios[0] <= 0:
            raise InvalidSpaceError("Widths and expand ratios of a stage must be positive.")
        if any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernel_sizes):
            raise InvalidSpaceError(f"Kernel sizes must be odd, got {list(self.kernel_sizes)}.")
        if self.depths[0] == 0 and (self.stride > 1 or self.widths):
            raise InvalidSpaceError("Only a stage that keeps size and width can be skipped (depth 0).")
        if not is_finite_number(self.se_ratio) or not 0 < self.se_ratio <= 1:
            raise InvalidSpaceError(f"'se_ratio' of a stage must be above 0 and at most 1, got {self.se_ratio!r}.")
        if self.kind is BlockKind.BOTTLENECK_DOWN:
            raise InvalidSpaceError(
                f"A stage of kind '{BlockKind.BOTTLENECK}' begins with a '{self.kind}' block by itself where it names "
                "widths or has a stride; give it that kind."
            )
        inverted, pool = self.kind is BlockKind.INVERTED, self.kind in (BlockKind.POOL, BlockKind.MAX_POOL)
        depthwise = inverted or self.kind is BlockKind.SEPARABLE
        for name, refused in (
            ("kernel_sizes", len(self.kernel_sizes) > 1 and not depthwise),
            ("expand_ratios", self.expand_ratios != (1,) and not inverted and self.kind is not BlockKind.BOTTLENECK),
            ("se", self.se and not inverted),
            ("shortcut", self.shortcut and pool),
            ("widths", pool and bool(self.widths)),
            ("depths", pool and self.depths[0] == 0),
        ):
            if refused:
                raise InvalidSpaceError(f"A stage of kind '{self.kind}' cannot have {name} {getattr(self, name)!r}.")

    def block(
        self,
        index: int,
        *,
        in_size: int,
        in_chs: int,
        out_chs: int,
        kernel_size: int,
        expand_ratio: float,
        divisor: int,
    ) -> BlockSpec:
        """Shape one block: the `index`-th of this stage, fed a map of `in_size` pixels and `in_chs` channels.

        `out_chs` is the stage's width. As in OFA the inner width is `make_divisible(round(in_chs * expand_ratio))`, of
        a bottleneck that of `out_chs`, and the hidden width of squeeze-excite `make_divisible(round(mid_chs / 4))`: its
        `mid_chs // 4` is the same number, since its inner widths are multiples of 8.
        """
        stride = self.stride if index == 0 else 1
        kind, mid_chs, shortcut = self.kind, in_chs, self.shortcut and stride == 1 and in_chs == out_chs
        if kind is BlockKind.INVERTED:
            mid_chs = make_divisible(round(in_chs * expand_ratio), divisor)
        elif kind is BlockKind.BOTTLENECK:
            mid_chs = make_divisible(round(out_chs * expand_ratio), divisor)
            # By the stage and not by the block's widths, so that all blocks of one position have the same layers.
            if self.shortcut and index == 0 and (stride > 1 or self.widths):
                kind, shortcut = BlockKind.BOTTLENECK_DOWN, False
        return BlockSpec(
            kind=kind,
            in_size=in_size,
            in_chs=in_chs,
            mid_chs=mid_chs,
            out_chs=out_chs,
            kernel_size=kernel_size,
            stride=stride,
            act=self.act,
            out_act=self.out_act,
            se_chs=make_divisible(round(mid_chs * self.se_ratio), divisor) if self.se else 0,
            shortcut=shortcut,
            norm=self.norm,
            bias=self.bias,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON values."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        default = {name: list(value) if isinstance(value, tuple) else value for name, value in _DEFAULTS.items()}
        return {name: value for name, value in plain.items() if name == "kind" or value != default[name]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Stage:
        """Read what `to_dict` wrote; raises `InvalidSpaceError` for unknown keys or values of the wrong type."""
        unknown = sorted(set(data) - set(_DEFAULTS))
        if unknown:
            raise InvalidSpaceError(f"Unknown stage keys {unknown}; allowed are {sorted(_DEFAULTS)}.")
        try:
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
            }
            values["kind"] = BlockKind(values.get("kind", ""))
            for name in ("act", "out_act"):
                if name in values:
                    values[name] = Act(values[name])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InvalidSpaceError(f"This stage cannot be read: {error}") from error


def is_finite_number(value: object) -> bool:
    """Whether a value is a number other than NaN and the infinities; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -inf < value < inf


_DEFAULTS: dict[str, Any] = asdict(Stage(kind=BlockKind.CONV))
