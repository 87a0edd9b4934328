"""Boxes, and the plan that shows the partner inside them: shared by several methods."""

import functools
from typing import Any

import numpy as np

from mixcollate.draw import Draw
from mixcollate.plan import Array, MixPlan, two_shares


def edges(
    numbers: np.random.Generator, size: tuple[int, int], side: Array, *, inside: bool = False, odd: bool = False
) -> tuple[Array, Array]:
    """``[2, N]`` each: where boxes with these sides ``[2, N]`` start and end on both axes, height first.

    With ``inside`` they lie fully inside. Otherwise the centre may be any pixel, and the box is clipped; as in the
    papers' code an odd side loses a pixel, unless ``odd`` keeps it (timm) or the image has only one pixel there.
    """
    length = np.array(size)[:, None]
    if inside:
        side = np.minimum(side, length)
        start = below(numbers, length - side + 1, side.shape)
        return start, start + side
    centre = below(numbers, length, side.shape)
    before = side // 2
    after = side - before if odd else before
    if min(size) == 1:
        after = np.where(length == 1, side, after)
    return np.maximum(centre - before, 0), np.minimum(centre + after, length)


def is_signal(size: tuple[int, int]) -> bool:
    """Whether an image is one pixel high or wide, and not both."""
    return min(size) == 1 < max(size)


@functools.lru_cache(maxsize=64)
def signal_axis(size: tuple[int, int]) -> Array:
    """``[2, 1]`` bool: the axis along which a signal has only one pixel; all false for images.

    A box fills that axis, so its whole share lies along the other one.
    """
    flat: Array = (np.array(size)[:, None] == 1) & is_signal(size)
    return flat


def shorter_side(size: tuple[int, int]) -> int:
    """The shorter side of an image, or the length of a signal, which is one pixel high or wide."""
    return max(size) if min(size) == 1 else min(size)


def below(numbers: np.random.Generator, bound: int | Array, shape: tuple[int, ...]) -> Array:
    """Whole numbers, uniform from 0 to below ``bound``; 0 where that is 0."""
    # A product, since Generator.integers is slow on arrays of bounds: it may draw repeatedly for each.
    return (numbers.random(shape) * bound).astype(np.int64)


def as_boxes(start: Array, end: Array) -> Array:
    """``[N, 4]`` int32 ``(top, left, bottom, right)`` from the edges ``[2, N]`` on both axes, height first."""
    return np.concatenate([start, end]).T.astype(np.int32, order="C")  # rows in one piece are faster to take


def counted_share(start: Array, end: Array, size: tuple[int, int]) -> Array:
    """The share of the image that boxes with these edges ``[2, N]`` cover, float64."""
    height, width = end - start
    share: Array = height * width / max(size[0] * size[1], 1)
    return share


def pasted(draw: Draw, box: Array, own_share: Array, **parts: Any) -> MixPlan:
    """The plan that shows the partner inside ``box [B, 4]`` and the image itself outside.

    Args:
        draw: whose partners it has.
        box: ``[B, 4]`` int32.
        own_share: ``[B]`` float32, for the labels.
        parts: further parts of the plan.
    """
    ones = np.ones(len(box), np.float32)
    return MixPlan(
        size=draw.size,
        partners=draw.partner,
        shares=two_shares(own_share),
        own_outside=ones,
        own_inside=np.zeros(len(box), np.float32),
        box=box,
        **parts,
    )
