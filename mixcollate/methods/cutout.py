"""Cutout: erase squares at random places (https://arxiv.org/abs/1708.04552)."""

from dataclasses import replace

import numpy as np

from mixcollate.methods.boxes import as_boxes, edges
from mixcollate.methods.fill import Fill, filled
from mixcollate.plan import Draw, MixPlan, Per, identity


def cutout(draw: Draw, *, length: int, holes: int, inside: bool, per: Per, fill: Fill) -> MixPlan:
    """``holes`` squares of side ``length``: centred anywhere and clipped (the paper's code), or fully inside."""
    count, unit = draw.units(per)
    side = np.full((count, holes), length)
    rows, cols = (edges(draw.numbers, axis, side, inside=inside) for axis in draw.size)
    box = as_boxes(rows, cols)[unit]
    return replace(identity(draw.shape[0], draw.size), erase_box=box, **filled(draw, holes, fill, per))
