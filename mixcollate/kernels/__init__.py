"""What a plan does to pixels: :func:`mix` and its kin, and the implementations behind them."""

from mixcollate.kernels.api import as_batch, mix, mix_masks, mix_samples, uncompiled
from mixcollate.kernels.packed import PackedPlan, pack
from mixcollate.kernels.pixels import Statistic
from mixcollate.kernels.prepare import Call, place, prepare, prepare_masks
from mixcollate.kernels.support import IMPLS, Impl

__all__ = [
    "IMPLS",
    "Call",
    "Impl",
    "PackedPlan",
    "Statistic",
    "as_batch",
    "mix",
    "mix_masks",
    "mix_samples",
    "pack",
    "place",
    "prepare",
    "prepare_masks",
    "uncompiled",
]
