"""Plans of every method, with settings that suit tiny images; for the tests of plans and kernels."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mixcollate import methods
from mixcollate.draw import Draw, Pairing, Per, draw_from
from mixcollate.methods.fill import Fill
from mixcollate.plan import MixPlan, chain, select, two_shares
from mixcollate.stream import numbers
from mixcollate.transforms import MixTransform

Shape = tuple[int, int, int, int]
SHAPES: list[Shape] = [
    (3, 2, 5, 7),
    (2, 3, 11, 4),
    (4, 1, 13, 13),
    (2, 3, 1, 1),
    (3, 1, 1, 9),
    (1, 2, 6, 3),
    (0, 3, 4, 4),
]

MIXING: dict[str, Callable[[Draw, Per], MixPlan]] = {
    "mixup": lambda draw, per: drawn(methods.MixUp(), draw, per),
    "cutmix": lambda draw, per: drawn(methods.CutMix(placement="timm"), draw, per),
    "cutmix-soft": lambda draw, per: _softened(MIXING["cutmix"](draw, per)),
    "ricap": lambda draw, per: drawn(methods.RICAP(beta=0.8), draw, per),
    "resizemix": lambda draw, per: drawn(methods.ResizeMix(scale=(0.3, 0.9)), draw, per),
    "resizemix-nearest": lambda draw, per: drawn(
        methods.ResizeMix(scale=(0.3, 0.9), interpolation="nearest"), draw, per
    ),
    "resizemix-clipped": lambda draw, per: drawn(methods.ResizeMix(scale=(0.3, 0.9), clipped=True), draw, per),
    "fmix": lambda draw, per: drawn(methods.FMix(decay=1.5), draw, per),
    "mosaic": lambda draw, per: drawn(methods.Mosaic(), draw, per),
}
ERASING: dict[str, Callable[[Draw, Per], MixPlan]] = {
    "cutout": lambda draw, per: drawn(methods.Cutout(length=_side(draw, 4), holes=2, fill=(7.0,)), draw, per),
    "cutout-noise": lambda draw, per: drawn(
        methods.Cutout(length=_side(draw, 3), inside=True, fill="noise"), draw, per
    ),
    "random_erasing": lambda draw, per: drawn(
        methods.RandomErasing(
            scale=(0.1, 0.6), ratio=(0.3, 3.3), count=(1, 3), fill=tuple(9.0 * k for k in range(draw.shape[1]))
        ),
        draw,
        per,
    ),
    "gridmask": lambda draw, per: drawn(methods.GridMask(tile=(2, 6), ratio=0.4, fill=3.0), draw, per),
    "gridmask-straight": lambda draw, per: drawn(
        methods.GridMask(tile=(2, 6), ratio=0.4, rotate=1, invert=True, fill=3.0), draw, per
    ),
    "hide_and_seek": lambda draw, per: _hidden(draw, per, (0, 2, 3), 5.0),
    "hide_and_seek-noise": lambda draw, per: _hidden(draw, per, (2, 4), "noise"),
}
METHODS = MIXING | ERASING


def plan(name: str, shape: Shape, *, per: Per = "pair", pairing: Pairing = "matching", seed: int = 0) -> MixPlan:
    """A plan of the method ``name``; ``"all"`` chooses one for each image, then erases."""
    generator = numbers(seed, 0, 0)
    if name != "all":
        return METHODS[name](draw_from(generator, shape, pairing), per)
    draw = draw_from(generator, shape, pairing)
    mixing = select(
        generator.integers(len(METHODS), size=shape[0]), [draw_plan(draw, per) for draw_plan in METHODS.values()]
    )
    return chain(mixing, ERASING["cutout"](draw, per))


TIES = [(10, 7), (26, 23), (30, 25), (34, 31)]
"""Lengths before and after resizing for which some centre falls between two pixels, so that rounding decides."""


def shown_nearest(length: int, box: tuple[int, int, int, int]) -> MixPlan:
    """A plan for two square images, each of which is resized into a box of the other by nearest pixels."""
    return MixPlan(
        size=(length, length),
        partners=np.array([[1], [0]]),
        shares=two_shares(np.ones(2)),
        own_outside=np.ones(2, np.float32),
        own_inside=np.zeros(2, np.float32),
        box=np.array([box] * 2, np.int32),
        resized=np.ones(2, np.int8),
    )


def drawn(transform: MixTransform, draw: Draw, per: Per) -> MixPlan:
    """A plan of a method that changes every image; also for pairs of an erasing method, as containers draw it."""
    vars(transform).update(per=per)  # the constructor of erasing methods refuses "pair"
    return transform.plan_batch(draw)


def _side(draw: Draw, length: int) -> int:
    """The side of a square that fits these images, at most ``length``."""
    return max(min(length, 2 * min(draw.size)), 1)


def _hidden(draw: Draw, per: Per, sizes: tuple[int, ...], fill: Fill) -> MixPlan:
    transform = methods.HideAndSeek(fill=fill)
    vars(transform).update(per=per)  # the constructor refuses "pair"
    return transform.plan_cells(draw, sizes)


def _softened(drawn: MixPlan) -> MixPlan:
    """Weights strictly between 0 and 1 on both sides of the box."""
    outside = np.full(len(drawn), 0.8125, np.float32)
    return replace(drawn, own_outside=outside, own_inside=outside / 3)
