"""Noise as a function of a key and a position: the same pixels on replay, and on any device up to rounding."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixcollate.plan import Array


def noise(place: Tensor, key: Tensor, *, integer: bool) -> Tensor:
    """Normal float32 noise, or uniform in 0 … 255, for positions and keys in [0, 2**32), broadcast together."""
    bits = _scramble(_scramble(place.to(torch.int32)) + key.to(torch.int32))
    return _shifted(bits, 24).float() if integer else _normal(_shifted(bits, 16))


def noise_in_boxes(size: tuple[int, ...], boxes: Array, keys: Array, *, integer: bool) -> Array:
    """What :func:`noise` gives, bit for bit, on the CPU in a fraction of the time: for each of ``boxes [N, 4]`` of an
    image of ``size`` ``(C, H, W)`` its pixels, ``[elements]``, one box after another.
    """
    places, parts = _scrambled_places(size), []
    for (top, left, bottom, right), key in zip(boxes.tolist(), keys.astype(np.uint32), strict=True):
        parts.append((places[:, top:bottom, left:right] + key).ravel())
    bits = parts[0] if len(parts) == 1 else np.concatenate(parts)  # a large box comes alone, and is not copied
    _scramble_upper_half(bits)
    bits >>= 24 if integer else 16
    return bits if integer else _normal_numbers().take(bits)


@functools.lru_cache(maxsize=2)
def _scrambled_places(size: tuple[int, ...]) -> Array:
    """What all boxes in images of this size have in common, ``size`` uint32."""
    bits = np.arange(math.prod(size), dtype=np.uint32)
    _scramble_upper_half(bits)
    bits ^= bits >> 16
    return bits.reshape(size)


def _scramble_upper_half(x: Array) -> None:
    """Two of the three steps of :func:`_scramble`, in place, in uint32: the last one leaves the upper half as it is."""
    x ^= x >> 16
    x *= np.uint32(_FACTORS[0])
    x ^= x >> 15
    x *= np.uint32(_FACTORS[1])


@functools.cache
def _normal_numbers() -> Array:
    """``[2**16]`` float32: all numbers that normal noise consists of."""
    return _normal(torch.arange(2**16, device="cpu")).numpy()


_FACTORS = 0x7FEB352D, 0x846CA68B


def _scramble(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers that mixes all bits (Wellons' lowbias32), in int32, which wraps around."""
    x = (x ^ _shifted(x, 16)) * _FACTORS[0]
    x = (x ^ _shifted(x, 15)) * (_FACTORS[1] - 2**32)
    return x ^ _shifted(x, 16)


def _shifted(x: Tensor, places: int) -> Tensor:
    """The bits of an int32 moved to the right, with zeros from the left, as of an unsigned number."""
    return (x >> places) & (0xFFFFFFFF >> places)


def _normal(step: Tensor) -> Tensor:
    """The normal number below which ``step + 1 / 2`` of 2**16 lie, as float32.

    So many steps are enough: bfloat16 has fewer. With them a CPU can look up all numbers in its cache.
    """
    uniform = (step.float() + 0.5) * 2.0**-16  # exact, and never 0 or 1
    return math.sqrt(2) * _erfinv(2 * uniform - 1)


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
        result = result * x + coefficient
    return result
