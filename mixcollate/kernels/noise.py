"""Noise as a function of a key and a position: the same pixels on replay, and on any device up to rounding."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def noise(place: Tensor, key: Tensor, *, integer: bool) -> Tensor:
    """Normal float32 noise, or uniform in 0 … 255, for positions and keys in [0, 2**32), broadcast together."""
    bits = _scramble(_scramble(place.to(torch.int32)) + key.to(torch.int32))
    if integer:
        return _shifted(bits, 24).float()
    uniform = (_shifted(bits, 9).float() + 0.5) * 2.0**-23  # exact: 24 bits, so never 0 or 1
    return math.sqrt(2) * _erfinv(2 * uniform - 1)


def _scramble(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers that mixes all bits (Wellons' lowbias32), in int32, which wraps around."""
    x = (x ^ _shifted(x, 16)) * 0x7FEB352D
    x = (x ^ _shifted(x, 15)) * (0x846CA68B - 2**32)
    return x ^ _shifted(x, 16)


def _shifted(x: Tensor, places: int) -> Tensor:
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


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """By Horner's scheme, the coefficient of the highest power first."""
    first, *others = coefficients
    result = torch.full_like(x, first)
    for coefficient in others:
        result.mul_(x).add_(coefficient)
    return result
