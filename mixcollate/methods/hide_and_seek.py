"""Hide-and-Seek: erase cells of a grid at random (https://arxiv.org/abs/1811.02545)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_probability
from mixcollate.methods.fill import Fill, check_fill, filled
from mixcollate.plan import Draw, MixPlan, Per, identity
from mixcollate.transforms import ErasingOptions, ErasingTransform


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


class HideAndSeek(ErasingTransform):
    """Hide random cells of a grid (https://arxiv.org/abs/1704.04232, https://arxiv.org/abs/1811.02545).

    Args:
        sizes: the cells' sides in pixels, one of which is drawn for each image; 0 leaves it whole. Default: the
            authors' (0, 16, 32, 44, 56) at 224 pixels, scaled to the shorter side. A size over half of that is
            refused: at 32 pixels the authors' list would hide 31.5 % of all images entirely.
        hide: probability that a cell is hidden.
        fill: see :class:`Cutout`.
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int] | None = None,
        hide: float = 0.5,
        fill: Fill = 0.0,
        **options: Unpack[ErasingOptions],
    ) -> None:
        super().__init__(**options)
        if sizes is not None and (len(sizes) == 0 or min(sizes) < 0):
            raise ValueError(f"sizes must be whole numbers of pixels, 0 or more, got {sizes}")
        self.sizes, self.hide = sizes, check_probability("hide", hide)
        self.fill = check_fill(fill)

    def plan_batch(self, draw: Draw) -> MixPlan:
        shorter = min(draw.size)
        sizes = self.sizes
        if sizes is None:
            sizes = [round(size * shorter / 224) for size in (0, 16, 32, 44, 56)]
        elif max(sizes) > shorter / 2:
            raise ValueError(
                f"sizes must be at most half the shorter side ({shorter} pixels), got {max(sizes)}, which can hide a "
                "whole image; leave sizes out to scale the paper's"
            )
        return hide_and_seek(draw, sizes=tuple(sizes), hide=self.hide, per=self.per, fill=self.fill)
