"""Where boxes lie: the placements that several methods share."""

import numpy as np

from mixcollate.plan import Array


def edges(numbers: np.random.Generator, length: int, side: Array, *, inside: bool) -> tuple[Array, Array]:
    """Where boxes with these sides begin and end on an axis of this length, in the shape of ``side``.

    ``inside`` places them fully inside. Else the centre may be any pixel and what lies outside is cut off; as in
    the papers' code an odd side then loses a pixel.
    """
    if inside:
        side = np.minimum(side, length)
        start = numbers.integers(length - side + 1)
        return start, start + side
    centre = numbers.integers(max(length, 1), size=side.shape)
    return np.maximum(centre - side // 2, 0), np.minimum(centre + side // 2, length)


def as_boxes(rows: tuple[Array, Array], cols: tuple[Array, Array]) -> Array:
    """``[..., 4]`` int32 ``(top, left, bottom, right)`` from the edges on both axes."""
    return np.stack([rows[0], cols[0], rows[1], cols[1]], -1).astype(np.int32)
