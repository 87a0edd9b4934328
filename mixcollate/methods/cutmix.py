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
    if minmax is None:
        own_share = beta(draw.numbers, alpha, count)
        edges = [_edges(draw.numbers, length, np.sqrt(1 - own_share), placement) for length in draw.size]
    else:
        edges = [_edges_minmax(draw.numbers, length, minmax, count) for length in draw.size]
    (top, bottom), (left, right) = edges
    if minmax is not None or correct_lam:
        own_share = 1 - counted_share(top, left, bottom, right, draw.size)
    box = np.array([top, left, bottom, right], np.int32).T[unit]
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


def _edges(numbers: np.random.Generator, length: int, ratio: Array, placement: Placement) -> tuple[Array, Array]:
    """Where boxes of side ``ratio * length`` begin and end on one axis."""
    side = (ratio * length).astype(np.int64)
    if placement == "inside":
        start = numbers.integers(length - side + 1)
        return start, start + side
    centre = numbers.integers(max(length, 1), size=len(ratio))
    before = side // 2
    after = (side + 1) // 2 if placement == "timm" else before  # the paper's code: an even side, 2 * (side // 2)
    return np.maximum(centre - before, 0), np.minimum(centre + after, length)


def _edges_minmax(
    numbers: np.random.Generator, length: int, minmax: tuple[float, float], count: int
) -> tuple[Array, Array]:
    """Where boxes with a side between ``minmax`` of ``length``, fully inside, begin and end on one axis."""
    low, high = int(length * minmax[0]), int(length * minmax[1])
    side = numbers.integers(low, max(high, low + 1), size=count)
    start = numbers.integers(length - side + 1)
    return start, start + side
