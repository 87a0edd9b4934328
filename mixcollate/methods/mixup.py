"""mixup: blend every image with a partner (https://arxiv.org/abs/1710.09412)."""

import numpy as np

from mixcollate.plan import Draw, MixPlan, Per, beta, two_shares


def mixup(draw: Draw, *, alpha: float, per: Per) -> MixPlan:
    """Own shares from Beta(alpha, alpha), one a pair, a sample or a batch."""
    count, unit = draw.units(per)
    own_share = beta(draw.numbers, alpha, count).astype(np.float32)[unit]
    return MixPlan(size=draw.size, partners=draw.partner, shares=two_shares(own_share), own_outside=own_share)
