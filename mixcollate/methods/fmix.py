"""FMix: paste blobs of the partner, cut out of low-frequency noise (https://arxiv.org/abs/2002.12047)."""

from functools import lru_cache

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_not_negative, check_number, check_positive, check_scheduled
from mixcollate.draw import Draw, own_shares
from mixcollate.methods.boxes import pasted
from mixcollate.plan import Array, MixPlan
from mixcollate.schedules import Scheduled, value_in_epoch
from mixcollate.transforms import MixOptions, MixTransform

BLOCK = 2**17
"""How many pixels of masks are drawn at a time, so that they fit into a core's cache."""

FAINT = 2**-18
"""The part of the noise's power that is left out, in its faintest frequencies: they move one pixel in a thousand."""

STEEPEST = 50
"""The greatest decay at which float64 can hold the amplitudes of any image's frequencies."""


class FMix(MixTransform):
    """Mix along the contours of low-frequency noise (https://arxiv.org/abs/2002.12047).

    An image keeps a share Beta(alpha, alpha) of its pixels, those where the noise is greatest. Every mask takes a
    Fourier transform on the host; ``per="batch"`` draws only one.

    Args:
        alpha: own shares come from Beta(alpha, alpha); a number or a function of the epoch.
        decay: how fast the noise's spectrum falls with frequency, in [-50, 50]; larger values give larger blobs.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, alpha: Scheduled = 1.0, decay: float = 3.0, **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_scheduled("alpha", alpha, check_positive)
        self.decay = check_number("decay", decay, -STEEPEST, STEEPEST)

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        height, width = draw.size
        pixels = max(height * width, 1)
        own_share = own_shares(draw.numbers, value_in_epoch("alpha", self.alpha, draw.epoch, check_not_negative), count)
        exact, up = own_share * (height * width), draw.numbers.random(count) < 0.5
        own_pixels = np.where(up, np.ceil(exact), np.floor(exact)).astype(np.int64)
        bitmap = np.empty((count, height, -(-width // 8)), np.uint8)
        several = max(BLOCK // pixels, 1)
        for masks in (slice(first, first + several) for first in range(0, count if bitmap.size else 0, several)):
            own = own_pixels[masks]
            shown = ~greatest(grey_noise(draw.numbers, len(own), draw.size, self.decay), own)  # [several, H, W]
            bitmap[masks] = np.packbits(shown, axis=2, bitorder="little")
        counted = 1 - np.bitwise_count(bitmap).sum((1, 2)) / pixels
        box = np.tile(np.array([0, 0, height, width], np.int32), (draw.shape[0], 1))
        return pasted(draw, box, counted.astype(np.float32)[unit], bitmap=bitmap[unit])


def grey_noise(numbers: np.random.Generator, count: int, size: tuple[int, int], decay: float) -> Array:
    """``[count, H, W]`` float32: noise whose amplitude falls with the power ``decay`` of the frequency.

    The spectrum is complex normal, with radius and angle from 32 random bits each (Box-Muller), which is several times
    faster than ``standard_normal``. The official code confuses the axis of real and imaginary parts with that of the
    rows, which leaves only two frequencies along the width; here they are separate draws.
    """
    rows, amplitude = amplitudes(size, decay)
    bits = numbers.integers(2**64, size=(count, *amplitude.shape, 1), dtype=np.uint64).view(np.uint32)
    chance, turn = (bits[..., part].astype(np.float32) * np.float32(2**-32) for part in (0, 1))  # in [0, 1]
    radius = np.sqrt(-2 * np.log(np.maximum(chance, np.float32(2**-33)))) * amplitude
    angle = np.float32(2 * np.pi) * turn
    spectrum = np.zeros((count, size[0], amplitude.shape[1]), np.complex64)
    spectrum.real[:, rows] = radius * np.cos(angle)
    spectrum.imag[:, rows] = radius * np.sin(angle)
    return np.fft.irfft2(spectrum, size)  # columns that are missing are zero


@lru_cache(maxsize=16)
def amplitudes(size: tuple[int, int], decay: float) -> tuple[Array, Array]:
    """Which rows ``[R]`` of a spectrum are not left out, and ``[R, columns]`` float32, the amplitudes in its first
    columns, up to the last that is not; at most 1, since steep spectra would overflow.
    """
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.maximum(frequency, 1 / max(size)) ** -decay
    amplitude[:, 2 * np.arange(width // 2 + 1) % width == 0] *= 2**0.5  # all others count twice, mirrored
    amplitude /= amplitude.max()
    power = amplitude**2
    ascending = np.sort(power, axis=None)
    least = ascending[np.searchsorted(ascending.cumsum(), FAINT * ascending.sum())]
    rows, columns = (power >= least).nonzero()
    rows = np.unique(rows)
    return rows, amplitude[rows, : columns.max() + 1].astype(np.float32)


def greatest(values: Array, count: Array) -> Array:
    """``[n, H, W]`` bool: the ``count [n]`` greatest of each ``values [n, H, W]``, including ties with the last."""
    flat = values.reshape(len(values), values.shape[1] * values.shape[2])
    least = np.full((len(flat), 1), np.inf, values.dtype)
    for row in np.flatnonzero(count):  # partition takes the same place for all rows
        place = flat.shape[1] - count[row]
        least[row] = np.partition(flat[row], place)[place]
    return (flat >= least).reshape(values.shape)
