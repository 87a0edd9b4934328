"""Where boxes lie: the placements that several methods share."""

import numpy as np

from mixcollate.plan import Array


def edges(
    numbers: np.random.Generator, length: Array, side: Array, *, inside: bool = False, odd: bool = False
) -> tuple[Array, Array]:
    """Where boxes with these sides begin and end on axes of this length, in the shape of ``side``.

    ``inside`` places them fully inside. Else the centre may be any pixel and what lies outside is cut off; as in
    the papers' code an odd side loses a pixel, unless ``odd`` keeps it (timm).
    """
    if inside:
        side = np.minimum(side, length)
        start = below(numbers, length - side + 1, side.shape)
        return start, start + side
    centre = below(numbers, length, side.shape)
    before = side // 2
    return np.maximum(centre - before, 0), np.minimum(centre + (side - before if odd else before), length)


def below(numbers: np.random.Generator, bound: int | Array, shape: tuple[int, ...]) -> Array:
    """Whole numbers, uniform from 0 to below ``bound``; 0 where that is 0."""
    return (numbers.random(shape) * bound).astype(np.int64)


def as_boxes(start: Array, end: Array) -> Array:
    """``[N, 4]`` int32 ``(top, left, bottom, right)`` from the edges ``[2, N]`` on both axes, height first."""
    return np.concatenate([start, end]).T.astype(np.int32)
