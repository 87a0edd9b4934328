"""The peers' calls at equal work: images and labels in, mixed images and dense targets out, unless the name says so.

Each function returns the rivals of a race: their names, with the call or the reason why it is not possible.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from benchmarks.common import MEAN, STD, TINY, Rivals, Run

Images = Iterator[Tensor]


def imported(name: str) -> Any:
    """A peer's module, or why it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the peer's import
            return importlib.import_module(name)
    except ImportError as error:
        return f"{name.partition('.')[0]} is not installed ({type(error).__name__})"


def where(module: Any, make: Callable[[Any], Run]) -> Run | str:
    """``make(module)``, or the reason why it is not possible."""
    if isinstance(module, str):
        return module
    try:
        return make(module)
    except (AttributeError, TypeError) as error:  # another version of the peer
        return f"{module.__name__}: {error}"


def mixup(images: Images, labels: Tensor, classes: int) -> Rivals:
    """MixUp of float images."""
    theirs = v2.MixUp(num_classes=classes)
    return {
        "torchvision": lambda: theirs(next(images), labels),
        **_timm_modes(images, labels, classes, mixup_alpha=1.0),
        "kornia (labels stay indices)": _kornia("RandomMixUpV2", images, labels),
        "mixup (PyPI)": _pypi("VanillaMixUp", images, labels, classes),
        "plain torch": lambda: plain_mixup(next(images), labels, classes),
        "torch.compile of it": _compiled(images, labels, classes),
    }


def cutmix(images: Images, labels: Tensor, classes: int) -> Rivals:
    """CutMix of float images."""
    theirs = v2.CutMix(num_classes=classes)
    return {
        "torchvision": lambda: theirs(next(images), labels),
        **_timm_modes(images, labels, classes, mixup_alpha=0.0, cutmix_alpha=1.0),
        "kornia (labels stay indices)": _kornia("RandomCutMixV2", images, labels, use_correct_lambda=True),
        "mixup (PyPI)": _pypi("CutMix", images, labels, classes),
    }


def random_erasing(images: Images, device: torch.device, p: float, *, noise: bool) -> Rivals:
    """Random Erasing of float images with 0 or with noise; the name says if it is not one box for each image."""
    theirs = v2.RandomErasing(p=p, value="random" if noise else 0.0, inplace=True)

    def one_by_one() -> None:
        for image in next(images):
            theirs(image)

    def timm(module: Any) -> Run:
        erase = module.RandomErasing(probability=p, mode="pixel" if noise else "const", device=device)
        return lambda: erase(next(images))

    def kornia(module: Any) -> Run:
        erase = module.RandomErasing(p=p)
        return lambda: erase(next(images))

    return {
        "torchvision (one box a batch, in place)": lambda: theirs(next(images)),
        "torchvision (image by image, in place)": one_by_one,
        "timm (in place)": where(imported("timm.data.random_erasing"), timm),
        "kornia": "erases with no noise" if noise else where(imported("kornia.augmentation"), kornia),
    }


def pipeline(images: Images, labels: Tensor, classes: int, dtype: torch.dtype, device: torch.device) -> Rivals:
    """uint8 images to normalised floats, mixed and erased, as in the peers' training scripts."""
    v2_mixup = v2.Compose([v2.ToDtype(dtype, scale=True), v2.Normalize(MEAN, STD)])
    v2_choice = v2.RandomChoice([v2.MixUp(num_classes=classes), v2.CutMix(num_classes=classes)])
    only_mixup, erase = v2.MixUp(num_classes=classes), v2.RandomErasing(p=0.25, inplace=True)

    def timm(mode: str) -> Callable[[Any], Run]:
        def make(module: Any) -> Run:
            mean, std = (
                torch.tensor([255 * x for x in value], device=device, dtype=dtype).view(1, 3, 1, 1)
                for value in (MEAN, STD)
            )
            erasing = module.random_erasing.RandomErasing(probability=0.25, mode="const", device=device)
            mixing = module.Mixup(
                mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode, label_smoothing=0.0, num_classes=classes
            )
            return lambda: mixing(erasing(next(images).to(dtype).sub_(mean).div_(std)), labels)

        return make

    timm_data = imported("timm.data")
    return {
        "torchvision ToDtype + Normalize + MixUp": lambda: only_mixup(v2_mixup(next(images)), labels),
        "torchvision the same or CutMix, RandomErasing (one box a batch)": lambda: v2_choice(
            erase(v2_mixup(next(images))), labels
        ),
        "timm normalise + RandomErasing + Mixup (batch)": where(timm_data, timm("batch")),
        "timm normalise + RandomErasing + Mixup (pair)": where(timm_data, timm("pair")),
    }


def plain_mixup(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """MixUp as in the paper's code, with dense targets."""
    own = float(np.random.beta(1.0, 1.0))
    index = torch.randperm(len(images), device=images.device)
    return _blend(images, functional.one_hot(labels, classes).float(), index, torch.tensor(own).to(images.device))


def _blend(images: Tensor, rows: Tensor, index: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    mixed = own * images + (1 - own) * images[index]
    return mixed.to(images.dtype), own * rows + (1 - own) * rows[index]


def _compiled(images: Images, labels: Tensor, classes: int) -> Run | str:
    if TINY:
        return "torch.compile takes seconds, which tiny batches are not worth"
    blend = torch.compile(_blend, fullgraph=True)

    def run() -> Any:
        batch = next(images)
        own = torch.tensor(float(np.random.beta(1.0, 1.0)), device=batch.device)
        index = torch.randperm(len(batch), device=batch.device)
        return blend(batch, functional.one_hot(labels, classes).float(), index, own)

    return run


def _timm_modes(images: Images, labels: Tensor, classes: int, **arguments: float) -> Rivals:
    def make(mode: str) -> Callable[[Any], Run]:
        def of(module: Any) -> Run:
            mixing = module.Mixup(mode=mode, label_smoothing=0.0, num_classes=classes, **arguments)
            return lambda: mixing(next(images), labels)

        return of

    timm = imported("timm.data.mixup")
    return {f"timm {mode} (in place)": where(timm, make(mode)) for mode in ("batch", "pair", "elem")}


def _kornia(name: str, images: Images, labels: Tensor, **arguments: bool) -> Run | str:
    def make(module: Any) -> Run:
        mixing = getattr(module, name)(data_keys=["input", "class"], p=1.0, **arguments)
        return lambda: mixing(next(images), labels)

    return where(imported("kornia.augmentation"), make)


def _pypi(name: str, images: Images, labels: Tensor, classes: int) -> Run | str:
    def make(module: Any) -> Run:
        mixing = getattr(module, name)(alpha=1.0)
        return lambda: mixing(next(images), functional.one_hot(labels, classes).float())

    return where(imported("mixup"), make)
