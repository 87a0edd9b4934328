"""Fills of erased pixels: arguments and parts of a plan that all erasing methods share."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from mixcollate.checks import check_choice, check_number, is_list, shown
from mixcollate.draw import Draw, Per

Kind = Literal["mean", "noise", "channel_noise"]
Fill = float | tuple[float, ...] | Kind
"""A number, one per channel, the dataset's mean, normal noise for each pixel, or one normal colour for each box."""

KINDS: tuple[str, ...] = get_args(Kind)


def check_fill(name: str, fill: Any, kinds: Sequence[str] = KINDS) -> Any:
    """Check a fill: a finite number, one per channel, or one of ``kinds``."""
    if isinstance(fill, str):
        return check_choice(name, fill, kinds)
    if is_list(fill):
        if not len(fill):
            raise ValueError(f"{name} must have a number for each channel, got {shown(fill)}")
        return tuple(check_number(f"{name}[{channel}]", value) for channel, value in enumerate(fill))
    words = ", ".join(map(repr, kinds))
    return check_number(name, fill, advice=f"or give one number per channel, or one of {words}")


def filled(draw: Draw, boxes: int, fill: Fill, per: Per) -> dict[str, Any]:
    """The parts ``fill [B, boxes, F]`` float32 and, if needed, ``noise`` or ``fill_mean`` of a ``MixPlan``.

    A fill that is the same for all channels has ``F`` = 1, so it suits images with any number of channels.
    """
    batch, channels = draw.shape[:2]
    if fill == "channel_noise":
        count, unit = draw.units(per)
        return {"fill": draw.numbers.standard_normal((count, boxes, channels)).astype(np.float32)[unit]}
    constant = fill if isinstance(fill, tuple) else (0.0 if isinstance(fill, str) else fill,)
    if len(constant) not in (1, channels):
        raise ValueError(f"fill must have {_counts(channels)}, got {fill}")
    parts: dict[str, Any] = {"fill": np.full((batch, boxes, len(constant)), constant, np.float32)}
    if fill == "noise":
        count, unit = draw.units(per)
        parts["noise"] = draw.numbers.integers(1, 2**32, size=count)[unit]
    if fill == "mean":
        parts["fill_mean"] = True
    return parts


def _counts(channels: int) -> str:
    return "one value" if channels == 1 else f"1 or {channels} values, one per channel"
