"""What erased pixels become: the parts of a plan that every erasing method shares."""

from typing import Any, Literal, get_args

import numpy as np

from mixcollate.checks import check_choice
from mixcollate.plan import Array, Draw, Per

Fill = float | tuple[float, ...] | Literal["mean", "noise", "channel_noise"]
"""A number, one a channel, the data set's mean, normal noise for each pixel, or one for each channel of a box."""


def check_fill(fill: Fill) -> Fill:
    """The fill, if it is a number, numbers or one of the names."""
    if isinstance(fill, str):
        check_choice("fill", fill, get_args(get_args(Fill)[2]))
    return fill


def filled(draw: Draw, boxes: int, fill: Fill, per: Per) -> dict[str, Any]:
    """``fill [B, boxes, C]`` float32 with ``noise`` or ``fill_mean`` where they are needed: parts of a ``MixPlan``."""
    batch, channels = draw.shape[:2]
    count, unit = draw.units(per)
    if fill == "channel_noise":
        return {"fill": draw.numbers.standard_normal((count, boxes, channels)).astype(np.float32)[unit]}
    values = np.zeros((batch, boxes, channels), np.float32)
    if fill == "noise":
        return {"fill": values, "noise": draw.numbers.integers(1, 2**32, size=count)[unit]}
    if fill == "mean":
        return {"fill": values, "fill_mean": True}
    values[:] = _constant(fill, channels)
    return {"fill": values}


def _constant(fill: Any, channels: int) -> Array:
    """One value, or one for each channel."""
    constant = np.atleast_1d(np.asarray(fill, np.float32))
    if constant.shape not in ((1,), (channels,)):
        raise ValueError(f"fill must have 1 or {channels} values, one a channel, got {fill}")
    return constant
