"""GridMask: erase a turned grid of squares (https://arxiv.org/abs/2001.04086)."""

import math
from dataclasses import replace

import numpy as np

from mixcollate.methods.fill import Fill, filled
from mixcollate.plan import Draw, MixPlan, Per, identity


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
