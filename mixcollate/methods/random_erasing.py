"""Random Erasing: erase rectangles of random area and aspect (https://arxiv.org/abs/1708.04896)."""

import math
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from mixcollate.checks import check_count, check_counts, check_flag, check_range
from mixcollate.draw import Draw
from mixcollate.methods.boxes import as_boxes, edges, is_signal, signal_axis
from mixcollate.methods.fill import KINDS, Fill, check_fill, filled
from mixcollate.plan import Array, MixPlan, identity
from mixcollate.schedules import Scheduled
from mixcollate.transforms import DrawOptions, ErasingTransform


class RandomErasing(ErasingTransform):
    """Erase a random rectangle of some images (https://arxiv.org/abs/1708.04896).

    ``p``, ``scale``, ``ratio``, ``value`` and ``inplace`` are torchvision's, but every image has its own draw
    (``per="batch"`` shares one, as torchvision does). The authors' code is ``scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3),
    log_ratio=False, attempts=100``; the paper's Algorithm 1 draws smaller boxes. In signals (``layout="BCT"``, or
    images one pixel high) an interval of that share is erased.

    Args:
        p: probability that an image is changed; a number or a function of the epoch.
        scale: range of the erased share of the area.
        ratio: range of the aspect ratio, height over width.
        value: a number, one per channel, or ``"random"``: noise for each pixel. In the units of the result, so 0 is
            the mean after normalising.
        fill: the same as ``value``, with the options of the other methods: also ``"mean"``, ``"noise"`` (as
            ``"random"``) and ``"channel_noise"``, one normal colour for each box. Give one of the two.
        log_ratio: whether the ratio's logarithm is drawn uniformly (torchvision, timm), or the ratio itself (paper).
        count: fewest and most boxes per image; they share the area that ``scale`` says.
        attempts: how many boxes are drawn, until one is lower and narrower than the image; if none is, none is erased.
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
        self.scale = check_range("scale", scale, 0, 1)
        self.ratio = check_range("ratio", ratio, 0, above=True)
        self.log_ratio = check_flag("log_ratio", log_ratio)
        self.count, self.attempts = check_counts("count", count), check_count("attempts", attempts)
        value = check_fill("value", value, ("random", *KINDS))
        if fill is not None and value != 0.0:
            raise ValueError(f"give value or fill, not both; got value={value!r}, fill={fill!r}")
        self.fill: Fill = check_fill("fill", fill) if fill is not None else "noise" if value == "random" else value

    def plan_batch(self, draw: Draw) -> MixPlan:
        units, unit = draw.units(self.per)
        least, most = self.count
        boxes = most if least == most else draw.numbers.integers(least, most + 1, size=(units, 1))
        pixels = np.full((units, most), draw.size[0] * draw.size[1] / boxes).ravel()  # of which a box has a share
        side = self._fitting_sides(draw.numbers, draw.size, pixels)  # [2, units * N]: both axes at once, height first
        if least < most:
            side *= (np.arange(most) < boxes).ravel()
        start, end = edges(draw.numbers, draw.size, side, inside=True)
        box = as_boxes(start, end).reshape(units, most, 4).take(unit, 0)
        return identity(draw.shape[0], draw.size, erase_box=box, **filled(draw, most, self.fill, self.per))

    def _fitting_sides(self, numbers: np.random.Generator, size: tuple[int, int], pixels: Array) -> Array:
        """``[2, N]``: heights and widths of the first boxes that fit; 0 where none of ``attempts`` does."""
        too_long = np.array(size)[:, None] + signal_axis(size)  # on the missing axis of a signal, 1 is not too long
        side = self._drawn_sides(numbers, size, pixels)
        for attempt in range(1, self.attempts + 1):
            # Nearly all fit at once, so only the few that do not are drawn again.
            too_high, too_wide = side >= too_long
            (again,) = (too_high | too_wide).nonzero()
            if again.size == 0:
                break
            side[:, again] = self._drawn_sides(numbers, size, pixels[again]) if attempt < self.attempts else 0
        return side

    def _drawn_sides(self, numbers: np.random.Generator, size: tuple[int, int], pixels: Array) -> Array:
        """``[2, N]``: heights and widths of boxes with a share of ``pixels [N]``, whether they fit or not."""
        area, aspect = numbers.random((2, pixels.size))
        area = (self.scale[0] + (self.scale[1] - self.scale[0]) * area) * pixels
        if is_signal(size):
            return np.rint(np.where(signal_axis(size), 1, area)).astype(np.int64)
        low, high = map(math.log, self.ratio) if self.log_ratio else self.ratio
        aspect = low + (high - low) * aspect
        aspect = np.exp(aspect) if self.log_ratio else aspect
        return np.rint(np.sqrt([area * aspect, area / aspect])).astype(np.int64)
