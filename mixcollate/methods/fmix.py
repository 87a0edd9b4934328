"""FMix: paste blobs of the partner, cut out of low-frequency noise (https://arxiv.org/abs/2002.12047)."""

from dataclasses import replace

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_alpha, check_positive
from mixcollate.methods.cutmix import pasted
from mixcollate.plan import Array, Draw, MixPlan, Per, beta
from mixcollate.schedules import Scheduled, at
from mixcollate.transforms import MixOptions, MixTransform


def fmix(draw: Draw, *, alpha: float, decay: float, per: Per) -> MixPlan:
    """The image keeps a share Beta(alpha, alpha) of its pixels: those where the noise is greatest."""
    count, unit = draw.units(per)
    height, width = draw.size
    own_share = beta(draw.numbers, alpha, count)
    exact, up = own_share * (height * width), draw.numbers.random(count) < 0.5
    own_pixels = np.where(up, np.ceil(exact), np.floor(exact)).astype(np.int64)
    shown = ~greatest(grey_noise(draw.numbers, count, draw.size, decay), own_pixels)  # [count, H, W]
    counted = 1 - shown.sum((1, 2)) / max(height * width, 1)
    box = np.tile(np.array([0, 0, height, width], np.int32), (draw.shape[0], 1))
    plan = pasted(draw, box, counted.astype(np.float32)[unit])
    return replace(plan, bitmap=np.packbits(shown, axis=2, bitorder="little")[unit])


def grey_noise(numbers: np.random.Generator, count: int, size: tuple[int, int], decay: float) -> Array:
    """``[count, H, W]``: noise whose amplitude falls with the power ``decay`` of the frequency.

    Real and imaginary parts are separate draws; the official code mixes up their axis with the rows', which leaves
    two frequencies along the width.
    """
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.maximum(frequency, 1 / max(size)) ** -decay
    amplitude[:, 2 * np.arange(width // 2 + 1) % width == 0] *= 2**0.5  # the others come twice, mirrored
    spectrum = numbers.standard_normal((count, *frequency.shape, 2)).view(np.complex128)[..., 0]
    return np.fft.irfft2(spectrum * amplitude, size)


def greatest(values: Array, count: Array) -> Array:
    """``[n, H, W]`` bool: the ``count [n]`` greatest of each ``values [n, H, W]``."""
    flat = values.reshape(len(values), values.shape[1] * values.shape[2])
    ascending = np.pad(np.sort(flat, 1), ((0, 0), (0, 1)), constant_values=np.inf)
    least = np.take_along_axis(ascending, flat.shape[1] - count[:, None], 1)
    return (flat >= least).reshape(values.shape)


class FMix(MixTransform):
    """Mix along the contours of low-frequency noise (https://arxiv.org/abs/2002.12047).

    Drawing the masks takes a Fourier transform each, on the host; ``per="batch"`` draws one.

    Args:
        alpha: own shares come from Beta(alpha, alpha); a number or a function of the epoch.
        decay: how fast the noise's spectrum falls with frequency.
        options: see :class:`MixTransform`.
    """

    def __init__(self, *, alpha: Scheduled = 1.0, decay: float = 3.0, **options: Unpack[MixOptions]) -> None:
        super().__init__(**options)
        self.alpha, self.decay = check_alpha(alpha), decay

    def draw(self, draw: Draw) -> MixPlan:
        alpha = check_positive("alpha", at(self.alpha, self.epoch))
        return fmix(draw, alpha=alpha, decay=self.decay, per=self.per)
