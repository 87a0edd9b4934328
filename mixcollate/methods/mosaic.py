"""Mosaic for classification: join the quadrants of four images (https://arxiv.org/abs/2004.10934)."""

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_range
from mixcollate.draw import Draw
from mixcollate.methods.boxes import signal_axis
from mixcollate.methods.ricap import joined
from mixcollate.plan import MixPlan
from mixcollate.transforms import MixOptions, MixTransform


class Mosaic(MixTransform):
    """Join a quadrant of each of four images, each in its place (YOLOv4, https://arxiv.org/abs/2004.10934; darknet).

    In signals (``layout="BCT"``, or images one pixel high) two parts meet.

    Args:
        centre: where the quadrants meet, drawn uniformly between these shares of each side.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, centre: tuple[float, float] = (0.2, 0.8), **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.centre = check_range("centre", centre, 0, 1)

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        corner = []
        for length in draw.size:
            low, high = (int(share * length) for share in self.centre)
            corner.append(draw.numbers.integers(low, high, size=count, endpoint=True))
        corners = np.where(signal_axis(draw.size)[:, 0], 1, np.stack(corner, 1))[unit]  # [B, 2]
        return joined(draw, corners, np.zeros((len(corners), 4, 2), np.int64))
