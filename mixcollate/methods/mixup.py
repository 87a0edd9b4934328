"""mixup: blend every image with a partner (https://arxiv.org/abs/1710.09412)."""

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_not_negative, check_positive, check_scheduled
from mixcollate.draw import Draw, own_shares
from mixcollate.plan import MixPlan, two_shares
from mixcollate.schedules import Scheduled, value_in_epoch
from mixcollate.transforms import MixOptions, MixTransform


class MixUp(MixTransform):
    """Blend every image with a partner (https://arxiv.org/abs/1710.09412).

    Args:
        alpha: own shares come from Beta(alpha, alpha); a number or a function of the epoch.
        options: see :class:`MixTransform`.
    """

    blends = True

    def __init__(self, *, alpha: Scheduled = 1.0, **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_scheduled("alpha", alpha, check_positive)

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        alpha = value_in_epoch("alpha", self.alpha, draw.epoch, check_not_negative)
        own_share = own_shares(draw.numbers, alpha, count).astype(np.float32)[unit]
        return MixPlan(size=draw.size, partners=draw.partner, shares=two_shares(own_share), own_outside=own_share)
