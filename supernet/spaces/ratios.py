"""Width ratios, as slimmable networks are described elsewhere, to archs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import make_divisible
from supernet.spaces.space import Dimension
from supernet.spaces.stage import is_finite_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.spaces.space import SearchSpace


def arch_at_ratios(
    space: SearchSpace,
    ratios: float | Sequence[float],
    *,
    resolution: int | None = None,
    divisor: int | None = None,
) -> Arch:
    """The arch whose widths are given as shares of the largest ones; everything else is at its largest.

    Args:
        space: With elastic widths.
        ratios: One for the whole network, or one for each elastic width in network order.
        resolution: By default the space's largest.
        divisor: Widths are rounded to multiples of it; by default the space's.

    Returns:
        The canonical arch. Ratios that round to the same channels give the same arch.

    Raises:
        InvalidArchError: The wrong number of ratios, one that rounds to a width not on offer, or no such resolution.

    Source: US-Nets, `make_divisible(width * ratio)` per layer; inner widths follow the rounded ones.
    """
    largest = space.largest()
    widths = [slot for slot in space.slots if slot.dimension is Dimension.WIDTH]
    if not widths:
        raise InvalidArchError(f"'{space.name}' has no elastic widths, so no width ratios.")
    listed = [ratios] * len(widths) if isinstance(ratios, int | float) else list(ratios)
    if len(listed) != len(widths) or not all(map(is_finite_number, listed)):
        raise InvalidArchError(
            f"'{space.name}' takes one width ratio for all or {len(widths)}, one per elastic width; got {ratios!r}."
        )
    chosen = tuple(
        make_divisible(slot.choices[-1] * ratio, divisor or space.divisor)
        for slot, ratio in zip(widths, listed, strict=True)
    )
    for slot, ratio, width in zip(widths, listed, chosen, strict=True):
        if width not in slot.choices:
            least = slot.choices[0] / slot.choices[-1]
            raise InvalidArchError(
                f"A ratio of {ratio} gives {width} channels in stage {slot.stage} of '{space.name}', which offers "
                f"{slot.choices[0]} to {slot.choices[-1]}: ratios from {least:g} to 1."
            )
    return space.canonicalize(
        Arch(
            largest.resolution if resolution is None else resolution,
            largest.depths,
            largest.kernel_sizes,
            largest.expand_ratios,
            chosen,
        )
    )


def arch_near_ratios(
    space: SearchSpace, base: Arch, ratios: float | Sequence[float], *, divisor: int | None = None
) -> Arch:
    """An arch with other widths: of those on offer the nearest to shares of the largest ones.

    Args:
        space: With elastic widths, listed as sparsely as it likes.
        base: Gives all but the widths.
        ratios: One for the whole network, or one for each elastic width in network order.
        divisor: Shares are rounded to multiples of it before; by default the space's.

    Returns:
        The canonical arch. Of two widths equally near it has the smaller one.
    """
    offered = [slot.choices for slot in space.slots if slot.dimension is Dimension.WIDTH]
    listed = [ratios] * len(offered) if isinstance(ratios, int | float) else list(ratios)
    wanted = [
        make_divisible(choices[-1] * ratio, divisor or space.divisor)
        for choices, ratio in zip(offered, listed, strict=True)
    ]
    widths = [
        int(min(choices, key=lambda width: abs(width - near))) for choices, near in zip(offered, wanted, strict=True)
    ]
    return space.canonicalize(replace(base, widths=tuple(widths)))


def least_ratios(space: SearchSpace) -> list[float]:
    """The smallest share of the largest width that each elastic width may have, in network order."""
    return [slot.choices[0] / slot.choices[-1] for slot in space.slots if slot.dimension is Dimension.WIDTH]
