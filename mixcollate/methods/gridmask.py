"""GridMask: erase a turned grid of squares (https://arxiv.org/abs/2001.04086)."""

import math
from dataclasses import replace

import numpy as np
from typing_extensions import Unpack

from mixcollate.methods.fill import Fill, check_fill, filled
from mixcollate.plan import Draw, MixPlan, Per, identity
from mixcollate.schedules import Scheduled
from mixcollate.transforms import DrawOptions, ErasingTransform


def gridmask(
    draw: Draw, *, tile: tuple[int, int], ratio: float, rotate: int, invert: bool, per: Per, fill: Fill
) -> MixPlan:
    """Erase a square in each tile, with sides drawn from ``tile[0]`` to ``tile[1] - 1``; or all but, to ``invert``.

    ``ratio`` of a tile's side is kept. The grid is turned by whole degrees less than ``rotate``, counter-clockwise.
    """
    count, unit = draw.units(per)
    side = draw.numbers.integers(*tile, size=count)
    hole = side - np.ceil(side * ratio).astype(np.int64)
    reach = math.ceil(math.hypot(*draw.size) / 2) + 1  # how far a pixel can lie before the centre
    rows, cols = draw.numbers.integers(side) + reach, draw.numbers.integers(side) + reach
    grid = np.stack([side, hole, rows, cols, np.full(count, invert)], 1).astype(np.int32)
    # Not turned is turned by 0, so that a plan may hold both kinds.
    angle = -np.deg2rad(draw.numbers.integers(max(rotate, 1), size=count))
    turn = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    plan = identity(draw.shape[0], draw.size)
    return replace(plan, grid=grid[unit], turn=turn[unit], **filled(draw, 1, fill, per))


class GridMask(ErasingTransform):
    """Erase a regular grid of squares (https://arxiv.org/abs/2001.04086).

    Args:
        tile: range of the grid's period in pixels, the upper end excluded. Default: the authors' (96, 224) at 224
            pixels, scaled to the shorter side.
        ratio: share of the period that is kept on each axis, so that (1 - ratio)² of the pixels go.
        rotate: the grid is turned by a whole number of degrees below this.
        invert: erase the bands between the squares instead (the code's ``mode=0``).
        p: the authors' 0.8; they reach it slowly: ``p=ramp(0.8, 240)``.
        fill: see :class:`Cutout`.
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
        if tile is not None and not 1 <= tile[0] < tile[1]:
            raise ValueError(f"tile must be (low, high) pixels with 1 <= low < high, got {tile}")
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must be in (0, 1), got {ratio}")
        self.tile, self.ratio, self.rotate, self.invert = tile, ratio, rotate, invert
        self.fill = check_fill(fill)

    def plan_batch(self, draw: Draw) -> MixPlan:
        shorter = min(draw.size)
        low = max(round(shorter * 96 / 224), 1)
        tile = self.tile or (low, max(shorter, low + 1))
        return gridmask(
            draw, tile=tile, ratio=self.ratio, rotate=self.rotate, invert=self.invert, per=self.per, fill=self.fill
        )
