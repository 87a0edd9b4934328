"""Mosaic for classification: join the quadrants of four images (https://arxiv.org/abs/2004.10934)."""

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_range
from mixcollate.methods.ricap import joined
from mixcollate.plan import Array, Draw, MixPlan, Per
from mixcollate.transforms import MixOptions, MixTransform


def mosaic(draw: Draw, *, centre: tuple[float, float], per: Per) -> MixPlan:
    """Four quadrants, each at its own place in its image, meet at a point between ``centre`` of each axis."""
    count, unit = draw.units(per)
    corner = np.stack([_cut(draw, axis, centre, count) for axis in draw.size], 1)[unit]
    return joined(draw, corner, np.zeros((len(corner), 4, 2), np.int64))


def _cut(draw: Draw, length: int, centre: tuple[float, float], count: int) -> Array:
    low, high = int(centre[0] * length), int(centre[1] * length)
    return draw.numbers.integers(low, max(high, low + 1), size=count)


class Mosaic(MixTransform):
    """Show a quadrant of each of four images, in place (YOLOv4, https://arxiv.org/abs/2004.10934; darknet).

    Args:
        centre: where the quadrants meet, drawn uniformly from this share of each side.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, centre: tuple[float, float] = (0.2, 0.8), **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        check_range("centre", centre, 0, 1)
        self.centre = centre

    def plan_batch(self, draw: Draw) -> MixPlan:
        return mosaic(draw, centre=self.centre, per=self.per)
