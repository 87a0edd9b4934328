"""ResizeMix: paste the whole partner, shrunk, into every image (https://arxiv.org/abs/2012.11101)."""

from typing import Literal, get_args

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_choice, check_flag, check_range
from mixcollate.draw import Draw
from mixcollate.methods.boxes import as_boxes, counted_share, edges, pasted, signal_axis
from mixcollate.plan import MixPlan
from mixcollate.transforms import MixOptions, MixTransform

Interpolation = Literal["bilinear", "nearest"]


class ResizeMix(MixTransform):
    """Paste the whole partner, shrunk, into every image (https://arxiv.org/abs/2012.11101).

    Args:
        scale: the partner's sides are scaled by a factor drawn uniformly from this range.
        interpolation: ``"bilinear"`` (pixel centres aligned, no antialiasing) or ``"nearest"``.
        clipped: whether the centre may be anywhere, and the partner is squeezed into the clipped box (openmixup).
        options: see :class:`MixTransform`.
    """

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.1, 0.8),
        interpolation: Interpolation = "bilinear",
        clipped: bool = False,
        **options: Unpack[MixOptions],
    ) -> None:
        super().__init__(**options)
        self.scale = check_range("scale", scale, 0, 1)
        self.interpolation = check_choice("interpolation", interpolation, get_args(Interpolation))
        self.clipped = check_flag("clipped", clipped)

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        drawn = draw.numbers.uniform(*self.scale, count)
        side = (drawn * np.array(draw.size)[:, None]).astype(np.int64)  # [2, count]: both axes at once, height first
        side = np.maximum(side, 0 if self.clipped else 1)
        side = np.where(signal_axis(draw.size), 1, side)
        start, end = edges(draw.numbers, draw.size, side, inside=not self.clipped)
        own_share = 1 - counted_share(start, end, draw.size)
        kind = 1 if self.interpolation == "nearest" else 2
        resized = np.full(draw.shape[0], kind, np.int8)
        return pasted(draw, as_boxes(start, end).take(unit, 0), own_share.astype(np.float32)[unit], resized=resized)
