"""Random Erasing: erase rectangles of random area and aspect (https://arxiv.org/abs/1708.04896)."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_range
from mixcollate.methods.boxes import as_boxes, edges
from mixcollate.methods.fill import Fill, check_fill, filled
from mixcollate.plan import Array, Draw, MixPlan, Per, identity
from mixcollate.schedules import Scheduled
from mixcollate.transforms import DrawOptions, ErasingTransform


def random_erasing(
    draw: Draw,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    log_ratio: bool,
    count: tuple[int, int],
    attempts: int,
    per: Per,
    fill: Fill,
) -> MixPlan:
    """Between ``count[0]`` and ``count[1]`` boxes an image, which share an area drawn from ``scale``.

    The height over the width is drawn from ``ratio``, on a logarithmic scale (torchvision, timm) or not (the paper's
    code). A box as high or as wide as the image is drawn again; after ``attempts`` it is left out.
    """
    units, unit = draw.units(per)
    boxes = draw.numbers.integers(count[0], count[1] + 1, size=(units, 1))
    pixels = np.repeat(draw.size[0] * draw.size[1] / boxes, count[1])  # [units * N] that a box has a share of
    lengths = np.array(draw.size)[:, None]  # [2, 1]: both axes at once, height first
    side = _sides(draw.numbers, lengths, pixels, attempts, scale, ratio, log_ratio)  # [2, units * N]
    side *= (np.arange(count[1]) < boxes).ravel()
    start, end = edges(draw.numbers, lengths, side, inside=True)
    box = as_boxes(start, end).reshape(units, count[1], 4)[unit]
    return replace(identity(draw.shape[0], draw.size), erase_box=box, **filled(draw, count[1], fill, per))


def _sides(
    numbers: np.random.Generator,
    lengths: Array,
    pixels: Array,
    attempts: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    log_ratio: bool,
) -> Array:
    """Heights and widths of the first boxes that fit; 0 where none of ``attempts`` does."""

    def drawn(pixels: Array) -> Array:
        area, aspect = numbers.random((2, pixels.size))
        area = (scale[0] + (scale[1] - scale[0]) * area) * pixels
        low, high = map(math.log, ratio) if log_ratio else ratio
        aspect = low + (high - low) * aspect
        aspect = np.exp(aspect) if log_ratio else aspect
        return np.rint(np.sqrt([area * aspect, area / aspect])).astype(np.int64)

    side = drawn(pixels)
    for _ in range(attempts - 1):  # nearly all fit at once, so a round draws again only for the few that do not
        again = np.flatnonzero((side >= lengths).any(0))
        if again.size == 0:
            return side
        side[:, again] = drawn(pixels[again])
    return side * (side < lengths).all(0)


class RandomErasing(ErasingTransform):
    """Erase a random rectangle of some images (https://arxiv.org/abs/1708.04896).

    ``p``, ``scale``, ``ratio``, ``value`` and ``inplace`` are torchvision's, but every image has a draw of its own
    (``per="batch"``: torchvision's one). The authors' code is ``scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3),
    log_ratio=False, attempts=100``; the paper's Algorithm 1 draws smaller boxes.

    Args:
        p: probability that an image is changed; a number or a function of the epoch.
        scale: range of the erased share of the area.
        ratio: range of the aspect ratio, height over width.
        value: a number, one a channel, or ``"random"``: noise for each pixel.
        fill: the same as ``value`` in this library's words; see :class:`Cutout`. Give one of them.
        log_ratio: draw the ratio's logarithm uniformly (torchvision, timm), instead of the ratio (the paper).
        count: least and most boxes an image, which share its area.
        attempts: how many boxes are drawn before one that does not fit is given up.
        options: see :class:`ErasingTransform`.
    """

    def __init__(
        self,
        p: Scheduled = 0.5,
        *,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: Fill | Literal["random"] = 0.0,
        fill: Fill | None = None,
        log_ratio: bool = True,
        count: tuple[int, int] = (1, 1),
        attempts: int = 10,
        **options: Unpack[DrawOptions],
    ) -> None:
        super().__init__(p=p, **options)
        check_range("scale", scale, 0, 1)
        check_range("ratio", ratio, 0, above=True)
        check_range("count", count, 1, whole=True)
        if fill is not None and value != 0.0:
            raise ValueError(f"give value or fill, not both; got value={value!r}, fill={fill!r}")
        if attempts < 1:
            raise ValueError(f"attempts must be positive, got {attempts}")
        self.scale, self.ratio, self.log_ratio, self.count, self.attempts = scale, ratio, log_ratio, count, attempts
        self.fill = check_fill("noise" if value == "random" else value if fill is None else fill)

    def plan_batch(self, draw: Draw) -> MixPlan:
        return random_erasing(
            draw,
            scale=self.scale,
            ratio=self.ratio,
            log_ratio=self.log_ratio,
            count=self.count,
            attempts=self.attempts,
            per=self.per,
            fill=self.fill,
        )
