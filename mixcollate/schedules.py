"""Hyper-parameters that change with the epoch: any function of it will do; these two pickle."""

from collections.abc import Callable
from functools import partial

Scheduled = float | Callable[[int], float]


def at(value: Scheduled, epoch: int) -> float:
    """The value of a number, or of a function of the epoch."""
    return float(value(epoch) if callable(value) else value)


def until(epoch: int, value: float = 1.0) -> Callable[[int], float]:
    """``value`` before ``epoch``, 0 from then on: ``p=until(280)`` trains the last epochs on plain images."""
    return partial(_until, epoch, value)


def ramp(value: float, epochs: int) -> Callable[[int], float]:
    """From 0 in epoch 0 linearly to ``value`` in epoch ``epochs``, then constant: GridMask's ``p=ramp(0.8, 240)``."""
    return partial(_ramp, value, epochs)


def _until(end: int, value: float, epoch: int) -> float:
    return value if epoch < end else 0.0


def _ramp(value: float, epochs: int, epoch: int) -> float:
    return value * min(1.0, epoch / epochs)
