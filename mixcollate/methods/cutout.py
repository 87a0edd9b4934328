"""Cutout: erase squares at random places (https://arxiv.org/abs/1708.04552)."""

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_count, check_flag, check_number
from mixcollate.draw import Draw
from mixcollate.methods.boxes import as_boxes, edges, shorter_side, signal_axis
from mixcollate.methods.fill import Fill, check_fill, filled
from mixcollate.plan import MixPlan, identity
from mixcollate.transforms import ErasingOptions, ErasingTransform


class Cutout(ErasingTransform):
    """Erase a square of every image (https://arxiv.org/abs/1708.04552).

    In signals (``layout="BCT"``, or images one pixel high) an interval is erased; their length counts as the shorter
    side.

    Args:
        length: the square's side in pixels (an ``int``), or as a share of the image's shorter side (a ``float``). The
            default of one half is the paper's 16 on CIFAR-10; on CIFAR-100 it uses 8. As in the authors' code, an odd
            side loses a pixel, unless ``inside``.
        holes: number of squares.
        inside: whether squares lie fully inside the image, instead of being clipped at its border.
        fill: a number or one per channel, in the units of the result (0 is the mean after normalising); ``"mean"``;
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
        self.length = check_number("length", length, 0, above=True, advice="drop the transform or use p=0")
        self.holes = check_count("holes", holes)
        self.inside = check_flag("inside", inside)
        self.fill = check_fill("fill", fill)

    def plan_batch(self, draw: Draw) -> MixPlan:
        shorter = shorter_side(draw.size)
        length = self.length if isinstance(self.length, int) else round(self.length * shorter)
        if length > 2 * shorter:
            raise ValueError(
                f"length must be at most twice the shorter side ({shorter} pixels), got {self.length!r}; an int is "
                "pixels, a float a share of that side"
            )
        least = 1 if self.inside or shorter == 1 else 2  # unless it is inside, an odd side loses a pixel
        if 0 < shorter and length < least:
            raise ValueError(
                f"length must be at least {least} pixels of {draw.size}, or nothing is erased, got {self.length}"
            )
        count, unit = draw.units(self.per)
        side = np.full((2, count * self.holes), length)  # both axes at once, height first
        side = np.where(signal_axis(draw.size), 1, side)
        start, end = edges(draw.numbers, draw.size, side, inside=self.inside)
        box = as_boxes(start, end).reshape(count, self.holes, 4).take(unit, 0)
        return identity(draw.shape[0], draw.size, erase_box=box, **filled(draw, self.holes, self.fill, self.per))
