"""CutMix: paste a box of the partner into every image (https://arxiv.org/abs/1905.04899)."""

from typing import Literal, get_args

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_choice, check_flag, check_not_negative, check_positive, check_range, check_scheduled
from mixcollate.draw import Draw, own_shares
from mixcollate.methods.boxes import as_boxes, below, counted_share, edges, is_signal, pasted, shorter_side, signal_axis
from mixcollate.plan import MixPlan
from mixcollate.schedules import Scheduled, value_in_epoch
from mixcollate.transforms import MixOptions, MixTransform

Placement = Literal["clipped", "inside", "timm"]


class CutMix(MixTransform):
    """Paste a box of the partner into every image (https://arxiv.org/abs/1905.04899).

    With ``alpha=1`` the clipped boxes cover on average 0.32 of a 224-pixel image, not one half. As in the paper's code,
    a few boxes are empty (0.4 % at 32×32 pixels), which leaves image and label unchanged; ``nonempty=True`` prevents
    this. In signals (``layout="BCT"``, or images one pixel high) a box is an interval, whose length is the share before
    clipping.

    Args:
        alpha: before clipping, the box covers a share 1 - Beta(alpha, alpha) of the image; a number or a function of
            the epoch.
        minmax: instead, draw the box's sides uniformly between these shares of the image's sides, fully inside.
        placement: ``"clipped"``: centre anywhere, even sides, clipped (the paper's code, torchvision);
            ``"timm"``: the same, but sides may be odd; ``"inside"``: the whole box inside the image.
        correct_lam: whether label shares are counted from the pixels, rather than as drawn.
        nonempty: whether a box always shows at least one pixel of the partner.
        options: see :class:`MixTransform`.
    """

    def __init__(
        self,
        *,
        alpha: Scheduled = 1.0,
        minmax: tuple[float, float] | None = None,
        placement: Placement = "clipped",
        correct_lam: bool = True,
        nonempty: bool = False,
        **options: Unpack[MixOptions],
    ) -> None:
        super().__init__(**options)
        self.alpha = check_scheduled("alpha", alpha, check_positive)
        self.minmax = None if minmax is None else check_range("minmax", minmax, 0, 1)
        self.placement = check_choice("placement", placement, get_args(Placement))
        self.correct_lam = check_flag("correct_lam", correct_lam)
        self.nonempty = check_flag("nonempty", nonempty)

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        lengths = np.array(draw.size)[:, None]  # [2, 1]: both axes at once, height first
        if self.placement == "clipped" and self.minmax is None and not self.nonempty and shorter_side(draw.size) == 2:
            raise ValueError(
                f"images must have sides of more than 2 pixels for CutMix's clipped boxes, got {draw.size}; use "
                "placement='inside' or nonempty=True"
            )
        alpha = value_in_epoch("alpha", self.alpha, draw.epoch, check_not_negative)
        inside, odd = self.placement == "inside", self.placement == "timm"
        if self.minmax is None:
            own_share = own_shares(draw.numbers, alpha, count)
            # A signal has only one axis, so the share is not split over two.
            share = 1 - own_share if is_signal(draw.size) else np.sqrt(1 - own_share)
            side = (share * lengths).astype(np.int64)  # [2, count]
        else:
            low, high = ((lengths * bound).astype(np.int64) for bound in self.minmax)
            side = low + below(draw.numbers, high - low, (2, count))
            inside = True
        if is_signal(draw.size):
            side = np.where(signal_axis(draw.size), 1, side)
        nonempty = self.nonempty and (alpha > 0 or self.minmax is not None)  # alpha = 0 mixes nothing
        if nonempty:
            side = np.maximum(side, 1)  # before it is placed, so that a box inside is as likely in every place
        start, end = edges(draw.numbers, draw.size, side, inside=inside, odd=odd)
        if nonempty:
            end = np.maximum(end, np.minimum(start + 1, lengths))  # a clipped side of 1 has lost its pixel
        if self.minmax is not None or self.correct_lam:
            own_share = 1 - counted_share(start, end, draw.size)
        return pasted(draw, as_boxes(start, end).take(unit, 0), own_share.astype(np.float32)[unit])
