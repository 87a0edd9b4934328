"""RICAP: join random crops of four images (https://arxiv.org/abs/1811.09030)."""

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_not_negative, check_positive, check_scheduled
from mixcollate.draw import Draw, own_shares
from mixcollate.methods.boxes import below, signal_axis
from mixcollate.plan import Array, MixPlan
from mixcollate.schedules import Scheduled, value_in_epoch
from mixcollate.transforms import MixOptions, MixTransform


class RICAP(MixTransform):
    """Join crops of four images around a random point (https://arxiv.org/abs/1811.09030).

    The image's own crop is at the top left. The paper's code draws four permutations and one point per batch, which in
    a shuffled batch equals ``per="batch", pairing="shuffle"``. In signals (``layout="BCT"``, or images one pixel high)
    two crops meet.

    Args:
        beta: the point's coordinates come from Beta(beta, beta); a number or a function of the epoch.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, beta: Scheduled = 0.3, **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.beta = check_scheduled("beta", beta, check_positive)

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        beta = value_in_epoch("beta", self.beta, draw.epoch, check_not_negative)
        # Whole pixels, rounded half to even as in the official code.
        corner = [np.rint(length * own_shares(draw.numbers, beta, count)) for length in draw.size]
        corners = np.where(signal_axis(draw.size)[:, 0], 1, np.stack(corner, 1).astype(np.int64))  # [count, 2]
        start, side = pieces(corners, draw.size)
        offset = below(draw.numbers, np.array(draw.size) - side + 1, side.shape)  # [count, 4, 2]
        return joined(draw, corners[unit], (offset - start)[unit])


def pieces(corner: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """``[n, 4, 2]`` each: where the pieces at ``corner`` start, and their (height, width)."""
    after = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # whether a piece lies after the corner, on each axis
    corner = corner[:, None]
    return after * corner, np.where(after, np.array(size) - corner, corner)


def joined(draw: Draw, corner: Array, shift: Array) -> MixPlan:
    """The plan that joins each image and three partners at ``corner [B, 2]``, with shares by area."""
    above, before = corner.T
    under, after = draw.size[0] - above, draw.size[1] - before
    area = np.stack([above * before, above * after, under * before, under * after], 1)  # [B, 4]
    shares = area / max(draw.size[0] * draw.size[1], 1)
    shares[:, 0] = 1 - shares[:, 1:].sum(1)
    return MixPlan(
        size=draw.size,
        partners=draw.several_partners(3),
        shares=shares.astype(np.float32),
        corner=corner.astype(np.int32),
        shift=shift.astype(np.int32),
    )
