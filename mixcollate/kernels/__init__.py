"""What a plan does to pixels: :func:`mix` and its kin, and the implementations behind them."""

from mixcollate.kernels.api import mix, mix_masks, mix_samples, uncompiled
from mixcollate.kernels.packed import PackedPlan, pack
from mixcollate.kernels.pixels import Statistic, check_affine, check_pixels
from mixcollate.kernels.prepare import (
    AXES,
    Axes,
    Call,
    as_batch,
    check_layout,
    check_masks,
    place,
    prepare,
    prepare_masks,
    prepare_samples,
)
from mixcollate.kernels.support import IMPLS, Impl

__all__ = [
    "AXES",
    "IMPLS",
    "Axes",
    "Call",
    "Impl",
    "PackedPlan",
    "Statistic",
    "as_batch",
    "check_affine",
    "check_layout",
    "check_masks",
    "check_pixels",
    "mix",
    "mix_masks",
    "mix_samples",
    "pack",
    "place",
    "prepare",
    "prepare_masks",
    "prepare_samples",
    "uncompiled",
]
