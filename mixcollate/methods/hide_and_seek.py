"""Hide-and-Seek: erase cells of a grid at random (https://arxiv.org/abs/1811.02545)."""

from dataclasses import replace

import numpy as np

from mixcollate.methods.fill import Fill, filled
from mixcollate.plan import Draw, MixPlan, Per, identity


def hide_and_seek(draw: Draw, *, sizes: tuple[int, ...], hide: float, per: Per, fill: Fill) -> MixPlan:
    """Hide each square cell with probability ``hide``; its side is one of ``sizes``, 0 for an untouched image."""
    count, unit = draw.units(per)
    whole = max(*draw.size, 1)
    finest = min((size for size in sizes if size > 0), default=whole)
    cell = np.asarray(sizes)[draw.numbers.integers(len(sizes), size=count)]
    cells = [-(-axis // finest) for axis in draw.size]  # coarser grids use the first of them
    hidden = (draw.numbers.random((count, *cells)) < hide) & (cell > 0)[:, None, None]
    return replace(
        identity(draw.shape[0], draw.size),
        cell=np.where(cell > 0, cell, whole).astype(np.int32)[unit],
        hidden=np.packbits(hidden, axis=2, bitorder="little")[unit],
        **filled(draw, 1, fill, per),
    )
