"""Every method with settings that suit tiny images, as plans: what the tests of plans and kernels run through."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mixcollate import methods
from mixcollate.methods.resizemix import Interpolation
from mixcollate.plan import Draw, MixPlan, Pairing, Per, chain, draw_from, numbers, select

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
    "mixup": lambda draw, per: methods.mixup(draw, alpha=1.0, per=per),
    "cutmix": lambda draw, per: methods.cutmix(
        draw, alpha=1.0, per=per, minmax=None, placement="timm", correct_lam=True
    ),
    "cutmix-soft": lambda draw, per: _softened(MIXING["cutmix"](draw, per)),
    "ricap": lambda draw, per: methods.ricap(draw, beta=0.8, per=per),
    "resizemix": lambda draw, per: _resizemix(draw, per, "bilinear", False),
    "resizemix-nearest": lambda draw, per: _resizemix(draw, per, "nearest", False),
    "resizemix-clipped": lambda draw, per: _resizemix(draw, per, "bilinear", True),
    "fmix": lambda draw, per: methods.fmix(draw, alpha=1.0, decay=1.5, per=per),
    "mosaic": lambda draw, per: methods.mosaic(draw, centre=(0.2, 0.8), per=per),
}
ERASING: dict[str, Callable[[Draw, Per], MixPlan]] = {
    "cutout": lambda draw, per: methods.cutout(draw, length=4, holes=2, inside=False, per=per, fill=(7.0,)),
    "cutout-noise": lambda draw, per: methods.cutout(draw, length=3, holes=1, inside=True, per=per, fill="noise"),
    "random_erasing": lambda draw, per: _random_erasing(draw, per),
    "gridmask": lambda draw, per: _gridmask(draw, per, 360, False),
    "gridmask-straight": lambda draw, per: _gridmask(draw, per, 1, True),
    "hide_and_seek": lambda draw, per: methods.hide_and_seek(draw, sizes=(0, 2, 3), hide=0.5, per=per, fill=5.0),
    "hide_and_seek-noise": lambda draw, per: methods.hide_and_seek(draw, sizes=(2, 4), hide=0.5, per=per, fill="noise"),
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


def _softened(drawn: MixPlan) -> MixPlan:
    """Weights strictly between 0 and 1 on both sides of the box."""
    outside = np.full(len(drawn), 0.8125, np.float32)
    return replace(drawn, own_outside=outside, own_inside=outside / 3)


def _resizemix(draw: Draw, per: Per, interpolation: Interpolation, clipped: bool) -> MixPlan:
    return methods.resizemix(draw, scale=(0.3, 0.9), interpolation=interpolation, clipped=clipped, per=per)


def _random_erasing(draw: Draw, per: Per) -> MixPlan:
    fill = tuple(float(9 * k) for k in range(draw.shape[1]))
    return methods.random_erasing(
        draw, scale=(0.1, 0.6), ratio=(0.3, 3.3), log_ratio=True, count=(1, 3), attempts=10, per=per, fill=fill
    )


def _gridmask(draw: Draw, per: Per, rotate: int, invert: bool) -> MixPlan:
    return methods.gridmask(draw, tile=(2, 6), ratio=0.4, rotate=rotate, invert=invert, per=per, fill=3.0)
