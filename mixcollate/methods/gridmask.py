"""GridMask: erase a rotated grid of squares (https://arxiv.org/abs/2001.04086)."""

import math

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_count, check_counts, check_flag, check_number
from mixcollate.draw import Draw
from mixcollate.methods.boxes import below, shorter_side, signal_axis
from mixcollate.methods.fill import Fill, check_fill, filled
from mixcollate.plan import MixPlan, identity
from mixcollate.schedules import Scheduled
from mixcollate.transforms import DrawOptions, ErasingTransform

MOST = 2**20
"""The longest period of a grid: far more than images have pixels, and far less than an int32 holds."""


class GridMask(ErasingTransform):
    """Erase a regular grid of squares (https://arxiv.org/abs/2001.04086).

    In signals (``layout="BCT"``, or images one pixel high) a share 1 - ratio is erased in intervals; their length
    counts as the shorter side, and nothing is rotated.

    Args:
        tile: range of the grid's period in pixels, upper end excluded. Default: the authors' (96, 224) at 224 pixels,
            scaled to the shorter side.
        ratio: share of the period that is kept on each axis, so that (1 - ratio)² of the pixels are erased, by default
            0.16. What is kept is rounded up to whole pixels, which leaves 0.158 at 224 pixels and 0.146 at 32.
        rotate: the grid is rotated counter-clockwise by a random number of whole degrees below this; 0: not at all.
        invert: whether to erase the bands between the squares instead (the code's ``mode=0``).
        p: probability that an image is changed; a number or a function of the epoch. The authors increase it to 0.8
            gradually: ``p=ramp(0.8, 240)``.
        fill: a number or one per channel, in the units of the result (0 is the mean after normalising); ``"mean"``;
            ``"noise"`` for each pixel, normal (for uint8 results uniform); or ``"channel_noise"``, one normal colour
            for each image.
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        *,
        tile: tuple[int, int] | None = None,
        ratio: float = 0.6,
        rotate: int = 360,
        invert: bool = False,
        p: Scheduled = 0.8,
        fill: Fill = 0.0,
        **options: Unpack[DrawOptions],
    ) -> None:
        super().__init__(p=p, **options)
        self.tile = None if tile is None else check_counts("tile", tile, most=MOST)
        if self.tile and self.tile[0] == self.tile[1]:
            raise ValueError(f"tile must be (low, high) pixels with low < high, as high is never drawn, got {tile}")
        self.ratio = check_number("ratio", ratio, 0, 1, above=True, below=True)
        self.rotate = check_count("rotate", rotate, least=0)
        self.invert = check_flag("invert", invert)
        self.fill = check_fill("fill", fill)

    def plan_batch(self, draw: Draw) -> MixPlan:
        shorter = shorter_side(draw.size)
        low = max(round(shorter * 96 / 224), 1)
        tile = self.tile or (low, max(shorter, low + 1))
        largest = tile[1] - 1  # the upper end is excluded
        if 0 < shorter and not self.invert and math.ceil(largest * self.ratio) == largest:
            raise ValueError(
                f"tile and ratio must leave holes of a pixel or more, got tile={tile}, ratio={self.ratio} for images "
                f"of {draw.size}"
            )
        count, unit = draw.units(self.per)
        side = draw.numbers.integers(*tile, size=count)
        hole = side - np.ceil(side * self.ratio).astype(np.int64)
        reach = math.ceil(math.hypot(*draw.size) / 2) + 1  # how far a pixel can lie before the centre
        rows, cols = below(draw.numbers, side, (2, count)) + reach
        turns = max(self.rotate, 1)
        flat = signal_axis(draw.size)[:, 0]
        if flat.any():  # put the only row of a signal into the holes, so that these become intervals
            first = -(-reach // side) * side
            rows, cols, turns = np.where(flat[0], first, rows), np.where(flat[1], first, cols), 1
        grid = np.stack([side, hole, rows, cols, np.full(count, self.invert)], 1).astype(np.int32)
        # An upright grid is rotated by 0, so that one plan may hold both kinds.
        angle = -np.deg2rad(draw.numbers.integers(turns, size=count))
        turn = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
        fill = filled(draw, 1, self.fill, self.per)
        return identity(draw.shape[0], draw.size, grid=grid[unit], turn=turn[unit], **fill)
