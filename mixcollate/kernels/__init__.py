"""What a plan does to pixels: :func:`mix` and its kin, and the implementations behind them."""

from mixcollate.kernels.api import mix, mix_masks, mix_samples
from mixcollate.kernels.packed import PackedPlan, pack
from mixcollate.kernels.pixels import Statistic
from mixcollate.kernels.prepare import Axes
from mixcollate.kernels.support import Impl

__all__ = ["Axes", "Impl", "PackedPlan", "Statistic", "mix", "mix_masks", "mix_samples", "pack"]
