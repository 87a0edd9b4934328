"""Checks at the public door: each names the argument, the rule and the value that came."""

import math
from collections.abc import Sequence

from mixcollate.schedules import Scheduled


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_probability(name: str, value: float) -> float:
    """A number in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a probability in [0, 1], got {value}")
    return value


def check_positive(name: str, value: float) -> float:
    """A finite number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(
            f"{name} must be positive and finite, got {value}; drop the transform or use p=0 to turn mixing off"
        )
    return value


def check_scheduled(name: str, value: float) -> float:
    """What a schedule comes to: a finite number, or 0, which mixes nothing."""
    return check_positive(name, value) if value else 0.0


def check_alpha(alpha: Scheduled) -> Scheduled:
    """A positive number, or a function of the epoch, whose values are checked when they are used."""
    return alpha if callable(alpha) else check_positive("alpha", alpha)


def check_range(name: str, value: Sequence[float], low: float, high: float) -> None:
    """``(low, high)``, in order and within bounds."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be (low, high) with {low} <= low <= high <= {high}, got {tuple(value)}")
