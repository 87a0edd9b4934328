"""Random Erasing: erase rectangles of random area and aspect (https://arxiv.org/abs/1708.04896)."""

from dataclasses import replace

import numpy as np

from mixcollate.methods.boxes import as_boxes, edges
from mixcollate.methods.fill import Fill, filled
from mixcollate.plan import Array, Draw, MixPlan, Per, identity


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
    height, width = _sides(draw, (units, count[1], attempts), scale, ratio, log_ratio, boxes)
    used = np.arange(count[1]) < boxes  # [units, N]
    rows, cols = (
        edges(draw.numbers, axis, side * used, inside=True)
        for axis, side in zip(draw.size, (height, width), strict=True)
    )
    box = as_boxes(rows, cols)[unit]
    return replace(identity(draw.shape[0], draw.size), erase_box=box, **filled(draw, count[1], fill, per))


def _sides(
    draw: Draw,
    shape: tuple[int, int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    log_ratio: bool,
    boxes: Array,
) -> tuple[Array, Array]:
    """``[units, N]`` heights and widths of the first candidates that fit; 0 if none does."""
    area = draw.numbers.uniform(*scale, shape) * (draw.size[0] * draw.size[1]) / boxes[..., None]
    low, high = np.log(ratio) if log_ratio else ratio
    aspect = draw.numbers.uniform(low, high, shape)
    aspect = np.exp(aspect) if log_ratio else aspect
    height, width = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (height < draw.size[0]) & (width < draw.size[1])  # [units, N, attempts]
    first = fits.argmax(-1)[..., None]
    chosen = [np.take_along_axis(side * fits, first, -1)[..., 0].astype(np.int64) for side in (height, width)]
    return chosen[0], chosen[1]
