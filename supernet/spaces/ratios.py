"""Width ratios, as slimmable networks are described elsewhere, to archs."""

from __future__ import annotations

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


def least_ratio(space: SearchSpace) -> float:
    """The smallest width ratio for the whole network, in steps of a thousandth, that gives widths on offer.

    Raises:
        InvalidArchError: The space has no elastic widths.
    """
    least = 1.0
    arch_at_ratios(space, least)
    for thousandth in range(999, 0, -1):
        try:
            arch_at_ratios(space, thousandth / 1000)
        except InvalidArchError:
            break
        least = thousandth / 1000
    return least
