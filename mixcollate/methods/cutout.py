"""Cutout: erase squares at random places (https://arxiv.org/abs/1708.04552)."""

from dataclasses import replace

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_positive
from mixcollate.methods.boxes import as_boxes, edges
from mixcollate.methods.fill import Fill, check_fill, filled
from mixcollate.plan import Draw, MixPlan, Per, identity
from mixcollate.transforms import ErasingOptions, ErasingTransform


def cutout(draw: Draw, *, length: int, holes: int, inside: bool, per: Per, fill: Fill) -> MixPlan:
    """``holes`` squares of side ``length``: centred anywhere and clipped (the paper's code), or fully inside."""
    count, unit = draw.units(per)
    side = np.full((2, count * holes), length)  # both axes at once, height first
    start, end = edges(draw.numbers, np.array(draw.size)[:, None], side, inside=inside)
    box = as_boxes(start, end).reshape(count, holes, 4)[unit]
    return replace(identity(draw.shape[0], draw.size), erase_box=box, **filled(draw, holes, fill, per))


class Cutout(ErasingTransform):
    """Erase a square of every image (https://arxiv.org/abs/1708.04552).

    Args:
        length: the square's side in pixels, or as a share of the shorter side of the image. The paper's 16 on
            CIFAR-10 is the default of one half; it takes 8 on CIFAR-100.
        holes: how many squares.
        inside: keep squares fully inside the image, instead of clipping those whose centre is near the border.
        fill: a number or one a channel, in the units of the result (0 is the mean after normalising); ``"mean"``;
            ``"noise"`` for each pixel, normal (for uint8 results uniform); or ``"channel_noise"``, one normal colour
            for each box.
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        *,
        length: float = 0.5,
        holes: int = 1,
        inside: bool = False,
        fill: Fill = 0.0,
        **options: Unpack[ErasingOptions],
    ) -> None:
        super().__init__(**options)
        self.length, self.holes, self.inside = check_positive("length", length), holes, inside
        self.fill = check_fill(fill)

    def plan_batch(self, draw: Draw) -> MixPlan:
        shorter = min(draw.size)
        length = self.length if isinstance(self.length, int) else round(self.length * shorter)
        if length > 2 * shorter:
            raise ValueError(f"length must be at most twice the shorter side ({shorter} pixels), got {length}")
        return cutout(draw, length=length, holes=self.holes, inside=self.inside, per=self.per, fill=self.fill)
