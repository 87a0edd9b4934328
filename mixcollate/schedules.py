"""Hyper-parameters that change with the epoch. Any function of the epoch is a schedule; these two can be pickled."""

from collections.abc import Callable
from functools import partial
from typing import Any

from mixcollate.checks import check_count, check_number, warn

Scheduled = float | Callable[[int], float]


class EpochNotSet(int):
    """Epoch 0, assumed until ``set_epoch`` is called."""


def value_in_epoch(name: str, value: Scheduled, epoch: int, check: Callable[[str, Any], float]) -> float:
    """The value of the argument ``name`` in this epoch, checked: a number, or what a function of the epoch returns."""
    if not callable(value):
        return check(name, value)
    try:
        scheduled = value(epoch)
    except Exception as error:
        raise ValueError(
            f"{name} must be a function of the epoch, but raised {type(error).__name__} in epoch {epoch}: {error}"
        ) from error
    number = check(f"{name} in epoch {epoch}", scheduled)
    if isinstance(epoch, EpochNotSet):
        warn(
            f"{name} is a function of the epoch, but set_epoch was not called, so epoch {epoch} is assumed: call "
            "set_epoch(epoch) before each epoch, on the collate if there is one, else on the transform",
        )
    return number


def until(epoch: int, value: float = 1.0) -> Callable[[int], float]:
    """``value`` before ``epoch``, then 0: ``p=until(280)`` trains the epochs from 280 on with plain images."""
    return partial(_until, check_count("epoch", epoch, least=0), check_number("value", value, 0))


def ramp(value: float, epochs: int) -> Callable[[int], float]:
    """Linear from 0 in epoch 0 to ``value`` in epoch ``epochs``, then constant: GridMask's ``p=ramp(0.8, 240)``."""
    return partial(_ramp, check_number("value", value, 0), check_count("epochs", epochs))


def _until(end: int, value: float, epoch: int) -> float:
    return value if epoch < end else 0.0


def _ramp(value: float, epochs: int, epoch: int) -> float:
    return value * min(1.0, epoch / epochs)
