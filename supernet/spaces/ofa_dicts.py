"""Architecture dictionaries of the once-for-all reference code, both ways.

`{ks, e, d, r}` of MobileNetV3 and ProxylessNAS list every block and stage of the deepest network; `{d, e, w, r}` of
ResNet50 counts depth from the fewest blocks, gives widths as indices of multipliers and has the stem's residual
convolution as the first depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind, make_divisible
from supernet.spaces.families.ofa import RESNET_WIDTH_MULTIPLIERS
from supernet.spaces.space import Dimension

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.spaces.space import SearchSpace, Slot
    from supernet.spaces.stage import Stage

_KEYS = {"ks": Dimension.KERNEL_SIZE, "e": Dimension.EXPAND_RATIO, "d": Dimension.DEPTH, "w": Dimension.WIDTH}
_ELASTIC = (BlockKind.INVERTED, BlockKind.BOTTLENECK)


def arch_from_ofa(choice: Mapping[str, Any], space: SearchSpace) -> Arch:
    """Read an architecture dictionary of the reference.

    Args:
        choice: `ks`, `e`, `d` and `w` as the space's family has them, each a list over blocks or stages (skipped blocks
            included) or one value for all; `r` is a number or a list of one and may be missing where the space has one
            resolution only. Other keys that are None are ignored, as the reference writes them.
        space: The search space it belongs to.

    Returns:
        The canonical arch.

    Raises:
        InvalidArchError: A key is unknown or missing, a list has the wrong length, or a value is not offered.
    """
    if not isinstance(choice, Mapping):
        raise InvalidArchError(
            f"An OFA dictionary has keys such as 'ks', 'e', 'd' and 'r', got {type(choice).__name__}."
        )
    given = {key: value for key, value in choice.items() if value is not None}
    wanted = ofa_keys(space)
    unknown, missing = sorted(map(str, set(given) - {*wanted, "r"})), sorted(set(wanted) - set(given))
    if unknown or missing:
        raise InvalidArchError(
            f"OFA dictionaries of '{space.name}' have the keys {[*wanted, 'r']}; unknown {unknown}, missing {missing}."
        )
    values: dict[str, Any] = {"resolution": _resolution(given.get("r"), space)}
    for key in wanted:
        slots = [slot for slot in space.slots if slot.dimension is _KEYS[key]]
        listed = _by_place(key, given[key], space)
        values[_KEYS[key]] = tuple(_read(key, space, slot, listed[slot.stage, max(slot.block, 0)]) for slot in slots)
    return space.canonicalize(Arch(**values))


def ofa_from_arch(arch: Arch, space: SearchSpace) -> dict[str, Any]:
    """Write an architecture dictionary of the reference; skipped blocks get the first choice.

    Raises:
        InvalidArchError: The arch lies outside the space.
    """
    (row,) = space.to_rows([arch])
    chosen = {
        (slot.dimension, slot.stage, max(slot.block, 0)): slot.choices[index]
        for slot, index in zip(space.slots, row, strict=True)
    }
    written: dict[str, Any] = {}
    for key in ofa_keys(space):
        values = [
            chosen.get((_KEYS[key], *place), _fixed(key, space.stages[place[0]])) for place in _places(key, space)
        ]
        written[key] = [
            _written(key, space, space.stages[stage], value)
            for (stage, _), value in zip(_places(key, space), values, strict=True)
        ]
    return written | {"r": arch.resolution}


def ofa_keys(space: SearchSpace) -> list[str]:
    """The keys that dictionaries of a space have besides `r`, in the reference's order.

    Raises:
        InvalidArchError: The space is none of the reference's kind.
    """
    kinds = {stage.kind for stage in space.stages} & set(_ELASTIC)
    if len(kinds) != 1:
        raise InvalidArchError(
            f"'{space.name}' is no space of the reference's kind, so it has no OFA dictionaries. Use JSON or CSV."
        )
    return ["ks", "e", "d"] if kinds == {BlockKind.INVERTED} else ["d", "e", "w"]


def _places(key: str, space: SearchSpace) -> list[tuple[int, int]]:
    """Stage and block (0 where it governs the whole stage) of each entry of a list."""
    elastic = [index for index, stage in enumerate(space.stages) if stage.kind in _ELASTIC]
    if key in ("ks", "e"):
        return [(index, block) for index in elastic for block in range(space.stages[index].depths[-1])]
    stem = []
    if space.stages[elastic[0]].kind is BlockKind.BOTTLENECK:
        skippable = [index for index in range(elastic[0]) if space.stages[index].depths[0] == 0]
        widths = [index for index in range(elastic[0]) if len(space.stages[index].widths) > 1]
        stem = skippable if key == "d" else widths
    return [(index, 0) for index in (*stem, *elastic)]


def _fixed(key: str, stage: Stage) -> float:
    """The one choice of a stage without a slot."""
    choices: Sequence[float] = getattr(stage, _KEYS[key])
    return choices[-1]


def _read(key: str, space: SearchSpace, slot: Slot, value: Any) -> Any:
    """Our value of one entry; what is none of the reference's is left for the space to refuse."""
    stage = space.stages[slot.stage]
    if type(value) is not int or stage.kind is BlockKind.INVERTED or key not in ("d", "w"):
        return value
    if key == "w":
        if not 0 <= value < len(RESNET_WIDTH_MULTIPLIERS):
            raise InvalidArchError(
                f"'w' holds indices of the width multipliers {list(RESNET_WIDTH_MULTIPLIERS)}, got {value}."
            )
        return make_divisible(stage.widths[-1] * RESNET_WIDTH_MULTIPLIERS[value], space.divisor)
    if stage.depths[0] == 0:
        # NOTE: The reference's network runs the stem's residual convolution at the largest depth only, though its
        # encoder counts 1 as present (once-for-all issue 74); the network decides what the weights were trained for.
        return int(value == _most_added(space)) if 0 <= value <= _most_added(space) else value
    return stage.depths[0] + value


def _most_added(space: SearchSpace) -> int:
    """The largest depth the reference's ResNet50 adds to a stage."""
    return max(len(stage.depths) for stage in space.stages) - 1


def _written(key: str, space: SearchSpace, stage: Stage, value: float) -> float:
    if stage.kind is BlockKind.INVERTED or key == "e":
        return value
    if key == "w":
        return max(
            index
            for index, multiplier in enumerate(RESNET_WIDTH_MULTIPLIERS)
            if make_divisible(stage.widths[-1] * multiplier) == value
        )
    return _most_added(space) * value if stage.depths[0] == 0 else value - stage.depths[0]


def _by_place(key: str, value: Any, space: SearchSpace) -> dict[tuple[int, int], Any]:
    """The value of each place: from a list of all, or one that holds wherever there is a choice."""
    places = _places(key, space)
    if not isinstance(value, list | tuple):
        return dict.fromkeys(places, value)
    if len(value) != len(places):
        raise InvalidArchError(f"'{key}' needs {len(places)} values or one for all, got {len(value)}.")
    by_place = dict(zip(places, value, strict=True))
    for (stage, _), given in by_place.items():
        choices = getattr(space.stages[stage], _KEYS[key])
        if len(choices) == 1 and given not in choices:
            raise InvalidArchError(f"'{key}' of stage {stage} of space '{space.name}' is {choices[0]}, got {given!r}.")
    return by_place


def _resolution(value: Any, space: SearchSpace) -> Any:
    if value is None and len(space.resolutions) == 1:
        return space.resolutions[0]
    if value is None:
        raise InvalidArchError(f"An OFA dictionary needs 'r', the resolution: one of {list(space.resolutions)}.")
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise InvalidArchError(f"'r' must be a number or a list of one, got {value!r}.")
        return value[0]
    return value
