"""CutMix: paste a box of the partner into every image (https://arxiv.org/abs/1905.04899)."""

from typing import Literal, get_args

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_choice, check_not_negative, check_positive, check_range, check_scheduled
from mixcollate.methods.boxes import as_boxes, below, edges
from mixcollate.plan import Array, Draw, MixPlan, Per, beta, two_shares
from mixcollate.schedules import Scheduled, at
from mixcollate.transforms import MixOptions, MixTransform

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
    else:
        low, high = (lengths * minmax[0]).astype(np.int64), (lengths * minmax[1]).astype(np.int64)
        side = low + below(draw.numbers, np.maximum(high - low, 1), (2, count))
        placement = "inside"
    start, end = edges(draw.numbers, lengths, side, inside=placement == "inside", odd=placement == "timm")
    if minmax is not None or correct_lam:
        own_share = 1 - counted_share(start, end, draw.size)
    return pasted(draw, as_boxes(start, end)[unit], own_share.astype(np.float32)[unit])


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


def counted_share(start: Array, end: Array, size: tuple[int, int]) -> Array:
    """The share of the image's pixels that boxes cover, float64, from their edges ``[2, N]`` on both axes."""
    height, width = end - start
    return np.asarray(height * width / max(size[0] * size[1], 1))


class CutMix(MixTransform):
    """Paste a box of the partner into every image (https://arxiv.org/abs/1905.04899).

    At ``alpha=1`` the clipped boxes cover on average 0.32 of a 224-pixel image, not one half.

    Args:
        alpha: the box has a share 1 - Beta(alpha, alpha) of the area before clipping; a number or a function of the
            epoch.
        minmax: draw the box's sides uniformly between these shares of the image's instead, fully inside.
        placement: ``"clipped"``: centre anywhere, even sides, clipped (the paper's code, torchvision);
            ``"timm"``: the same with odd sides, too; ``"inside"``: the whole box inside the image.
        correct_lam: count the label's share from the pixels; ``False``: use the drawn one.
        options: see :class:`MixTransform`.
    """

    def __init__(
        self,
        *,
        alpha: Scheduled = 1.0,
        minmax: tuple[float, float] | None = None,
        placement: Placement = "clipped",
        correct_lam: bool = True,
        **options: Unpack[MixOptions],
    ) -> None:
        super().__init__(**options)
        check_choice("placement", placement, get_args(Placement))
        if minmax is not None:
            check_range("minmax", minmax, 0, 1)
        self.alpha = check_scheduled("alpha", alpha, check_positive)
        self.minmax, self.placement, self.correct_lam = minmax, placement, correct_lam

    def plan_batch(self, draw: Draw) -> MixPlan:
        return cutmix(
            draw,
            alpha=at("alpha", self.alpha, draw.epoch, check_not_negative),
            per=self.per,
            minmax=self.minmax,
            placement=self.placement,
            correct_lam=self.correct_lam,
        )
