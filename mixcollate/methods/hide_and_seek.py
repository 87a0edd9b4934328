"""Hide-and-Seek: erase cells of a grid at random (https://arxiv.org/abs/1811.02545)."""

from collections.abc import Sequence

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_count, check_probability, is_list, shown
from mixcollate.draw import Draw
from mixcollate.methods.boxes import shorter_side
from mixcollate.methods.fill import Fill, check_fill, filled
from mixcollate.plan import FAR, MixPlan, identity
from mixcollate.transforms import ErasingOptions, ErasingTransform


class HideAndSeek(ErasingTransform):
    """Hide random cells of a grid (https://arxiv.org/abs/1704.04232, https://arxiv.org/abs/1811.02545).

    In signals (``layout="BCT"``, or images one pixel high) intervals are hidden; their length counts as the shorter
    side.

    Args:
        sizes: sides of the cells in pixels, one of which is drawn for each image; 0 hides nothing. Default: the
            authors' (0, 16, 32, 44, 56) at 224 pixels, scaled to the shorter side. Sizes over half of that side are
            refused: at 32 pixels the authors' list would hide 31 % of all images entirely.
        hide: probability that a cell is hidden.
        fill: a number or one per channel, in the units of the result (0 is the mean after normalising); ``"mean"``;
            ``"noise"`` for each pixel, normal (for uint8 results uniform); or ``"channel_noise"``, one normal colour
            for each image.
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
        self.sizes = None if sizes is None else _check_sizes(sizes)
        self.hide = check_probability("hide", hide)
        self.fill = check_fill("fill", fill)

    def plan_batch(self, draw: Draw) -> MixPlan:
        shorter = shorter_side(draw.size)
        sizes = self.sizes or [round(size * shorter / 224) for size in (0, 16, 32, 44, 56)]
        if 0 < shorter and max(sizes) == 0:
            raise ValueError(f"sizes must include one of a pixel or more, got {sizes} for images of {draw.size}")
        if self.sizes is not None and max(sizes) > shorter / 2:
            raise ValueError(
                f"sizes must be at most half the shorter side ({shorter} pixels), got {max(sizes)}, which can hide a "
                "whole image; leave sizes out to scale the paper's"
            )
        return self.plan_cells(draw, sizes)

    def plan_cells(self, draw: Draw, sizes: Sequence[int]) -> MixPlan:
        """The plan with cells of these sizes, whatever the size of the images."""
        count, unit = draw.units(self.per)
        finest = min((size for size in sizes if size > 0), default=FAR)
        cell = np.asarray(sizes)[draw.numbers.integers(len(sizes), size=count)]
        cells = [-(-axis // finest) for axis in draw.size]  # coarser grids use the first of them
        hidden = (draw.numbers.random((count, *cells)) < self.hide) & (cell > 0)[:, None, None]
        return identity(
            draw.shape[0],
            draw.size,
            cell=np.where(cell > 0, cell, FAR).astype(np.int32)[unit],
            hidden=np.packbits(hidden, axis=2, bitorder="little")[unit],
            **filled(draw, 1, self.fill, self.per),
        )


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if not is_list(sizes) or not len(sizes):
        raise TypeError(f"sizes must be a list of integers, in pixels, got {shown(sizes)}")
    return tuple(check_count(f"sizes[{k}]", size, least=0) for k, size in enumerate(sizes))
