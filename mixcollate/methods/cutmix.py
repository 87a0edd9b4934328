"""CutMix: paste a box of the partner into every image (https://arxiv.org/abs/1905.04899)."""

from typing import Literal

import numpy as np

from mixcollate.plan import Array, Draw, MixPlan, Per, beta, two_shares

Placement = Literal["clipped", "inside", "timm"]


def cutmix(
    draw: Draw,
    *,
    alpha: float,
    per: Per,
    minmax: tuple[float, float] | None,
    placement: Placement,
    correct_lam: bool,
) -> MixPlan:
    """Boxes with a share 1 - Beta(alpha, alpha) of the area, or with sides drawn between ``minmax``."""
    count, unit = draw.units(per)
    lengths = np.array(draw.size)[:, None]  # [2, 1]: both axes at once, height first
    if minmax is None:
        own_share = beta(draw.numbers, alpha, count)
        side = (np.sqrt(1 - own_share) * lengths).astype(np.int64)  # [2, count]
        start, end = _place(draw.numbers, side, lengths, placement)
    else:
        low, high = (lengths * minmax[0]).astype(np.int64), (lengths * minmax[1]).astype(np.int64)
        side = low + _below(draw.numbers, np.maximum(high - low, 1), count)
        start, end = _place(draw.numbers, side, lengths, "inside")
    if minmax is not None or correct_lam:
        own_share = 1 - counted_share(start[0], start[1], end[0], end[1], draw.size)
    box = np.concatenate([start, end]).T.astype(np.int32)[unit]
    return pasted(draw, box, own_share.astype(np.float32)[unit])


def pasted(draw: Draw, box: Array, own_share: Array) -> MixPlan:
    """The plan that shows the partner inside ``box`` and the image outside."""
    ones = np.ones(len(box), np.float32)
    return MixPlan(
        size=draw.size,
        partners=draw.partner,
        shares=two_shares(own_share),
        own_outside=ones,
        own_inside=np.zeros_like(ones),
        box=box,
    )


def counted_share(top: Array, left: Array, bottom: Array, right: Array, size: tuple[int, int]) -> Array:
    """The share of the image's pixels that a box covers, float64."""
    return np.asarray((bottom - top) * (right - left) / max(size[0] * size[1], 1))


def _place(numbers: np.random.Generator, side: Array, lengths: Array, placement: Placement) -> tuple[Array, Array]:
    """Where boxes of these sides ``[2, count]`` begin and end on both axes."""
    count = side.shape[1]
    if placement == "inside":
        start = _below(numbers, lengths - side + 1, count)
        return start, start + side
    centre = _below(numbers, lengths, count)
    before = side // 2
    after = (side + 1) // 2 if placement == "timm" else before  # the paper's code: an even side, 2 * (side // 2)
    return np.maximum(centre - before, 0), np.minimum(centre + after, lengths)


def _below(numbers: np.random.Generator, bound: Array, count: int) -> Array:
    """Whole numbers ``[2, count]``, uniform below ``bound``."""
    return (numbers.random((2, count)) * bound).astype(np.int64)
