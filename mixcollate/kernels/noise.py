"""Noise as a function of a key and a position: the same pixels on replay, and on any device up to rounding."""

import functools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mixcollate.plan import Array

Numbers = TypeVar("Numbers", Tensor, Array)


def noise(place: Tensor, key: Tensor, *, integer: bool) -> Tensor:
    """Normal float32 noise, or uniform in 0 … 255, for positions and keys in [0, 2**32), broadcast together."""
    bits = _scramble(_scramble(place.to(torch.int32)) + key.to(torch.int32))
    if integer:
        return _shifted(bits, 24).float()
    uniform = (_shifted(bits, 9).float() + 0.5) * 2.0**-23  # exact: 24 bits, so never 0 or 1
    return math.sqrt(2) * _erfinv(2 * uniform - 1)


def noise_in_boxes(size: tuple[int, ...], boxes: Array, keys: Array, *, integer: bool) -> Array:
    """The same, bit by bit, on the CPU, in a third of the time: for each of ``boxes [N, 4]`` of an image of ``size``
    ``(C, H, W)`` its pixels, ``[elements]``, one box after another.
    """
    places, parts = _scrambled_places(size), []
    for (top, left, bottom, right), key in zip(boxes.tolist(), keys.astype(np.int32), strict=True):
        parts.append((places[:, top:bottom, left:right] + key).ravel())
    bits = _scramble(np.concatenate(parts))
    if integer:
        return _shifted(bits, 24)
    x = (_shifted(bits, 9).astype(np.float32) + 0.5) * 2.0**-22 - 1
    # logarithms and roots are torch's, since NumPy rounds them otherwise
    w = torch.from_numpy((1 - x) * (1 + x)).log_().neg_().numpy()
    result = _polynomial(ERFINV_CENTRE, w - 2.5)
    (tail,) = (w >= 5).nonzero()  # one in 150
    result[tail] = _polynomial(ERFINV_TAIL, torch.from_numpy(w[tail]).sqrt_().numpy() - 3)
    normal: Array = math.sqrt(2) * (result * x)
    return normal


@functools.lru_cache(maxsize=2)
def _scrambled_places(size: tuple[int, ...]) -> Array:
    """What all boxes in images of this size have in common."""
    return _scramble(np.arange(math.prod(size), dtype=np.int32)).reshape(size)


def _scramble(x: Numbers) -> Numbers:
    """A bijection of 32-bit integers that mixes all bits (Wellons' lowbias32), in int32, which wraps around."""
    x = (x ^ _shifted(x, 16)) * 0x7FEB352D
    x = (x ^ _shifted(x, 15)) * (0x846CA68B - 2**32)
    return x ^ _shifted(x, 16)


def _shifted(x: Numbers, places: int) -> Numbers:
    """The bits of an int32 moved to the right, with zeros from the left, as of an unsigned number."""
    return (x >> places) & (0xFFFFFFFF >> places)


ERFINV_CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
                 -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
ERFINV_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
               0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


def _erfinv(x: Tensor) -> Tensor:
    """Giles' single-precision inverse error function, with the same few operations on every device."""
    w = -torch.log((1 - x) * (1 + x))
    return torch.where(w < 5, _polynomial(ERFINV_CENTRE, w - 2.5), _polynomial(ERFINV_TAIL, w.sqrt() - 3)) * x


def _polynomial(coefficients: Sequence[float], x: Numbers) -> Numbers:
    """By Horner's scheme, the coefficient of the highest power first."""
    first, *others, last = coefficients
    result = first * x
    for coefficient in others:
        result += coefficient
        result *= x
    result += last
    return result
