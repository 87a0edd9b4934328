"""Noise as a function of a key and a position: the same pixels on replay, and on any device up to rounding."""

import math

import torch
from torch import Tensor


def noise(place: Tensor, key: Tensor, *, integer: bool) -> Tensor:
    """Normal float32 noise, or uniform in 0 … 255, for positions and keys in [0, 2**32), broadcast together."""
    bits = _scramble((_scramble(place) + key) & 0xFFFFFFFF)
    if integer:
        return (bits >> 24).float()
    uniform = ((bits >> 9).float() + 0.5) * 2.0**-23  # exact: 24 bits, so never 0 or 1
    return math.sqrt(2) * _erfinv(2 * uniform - 1)


def _scramble(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers that mixes all bits (Wellons' lowbias32), in int64."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


ERFINV_CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
                 -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
ERFINV_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
               0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


def _erfinv(x: Tensor) -> Tensor:
    """Giles' single-precision inverse error function, with the same few operations on every device."""
    w = -torch.log((1 - x) * (1 + x))
    central = w < 5
    t = torch.where(central, w - 2.5, w.sqrt() - 3)
    result = torch.zeros_like(x)
    for centre, tail in zip(ERFINV_CENTRE, ERFINV_TAIL, strict=True):
        result = result * t + torch.where(central, x.new_tensor(centre), x.new_tensor(tail))
    return result * x
