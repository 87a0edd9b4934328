"""ResizeMix: paste the whole partner, made smaller, into every image (https://arxiv.org/abs/2012.11101)."""

from dataclasses import replace
from typing import Literal

import numpy as np

from mixcollate.methods.boxes import as_boxes, edges
from mixcollate.methods.cutmix import counted_share, pasted
from mixcollate.plan import Draw, MixPlan, Per

Interpolation = Literal["nearest", "bilinear"]


def resizemix(
    draw: Draw,
    *,
    scale: tuple[float, float],
    interpolation: Interpolation,
    clipped: bool,
    per: Per,
) -> MixPlan:
    """The partner at a uniform scale, fully inside; or squeezed into a box that may be clipped (openmixup)."""
    count, unit = draw.units(per)
    drawn = draw.numbers.uniform(*scale, count)
    smallest = 0 if clipped else 1
    sides = [np.maximum((drawn * axis).astype(np.int64), smallest) for axis in draw.size]
    rows, cols = (
        edges(draw.numbers, axis, side, inside=not clipped) for axis, side in zip(draw.size, sides, strict=True)
    )
    own_share = 1 - counted_share(rows[0], cols[0], rows[1], cols[1], draw.size)
    plan = pasted(draw, as_boxes(rows, cols)[unit], own_share.astype(np.float32)[unit])
    kind = 1 if interpolation == "nearest" else 2
    return replace(plan, resized=np.full(len(plan), kind, np.int8))
