"""How fast is a call at equal work: ours, a copy of the same bytes, and every peer's?

A call takes images and labels and returns mixed images and dense targets, the draw included. ``bytes`` are the fewest
that the operation must move: each input read once, each output written once. On a GPU each case is timed twice: as
the host sees a call (``call``), and as the GPU does, with the host far ahead (``device``).
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import baselines, peers
from benchmarks.common import (
    CLASSES,
    CLOCKS,
    MEAN,
    STD,
    Rivals,
    copy_of,
    dtype_name,
    random_images,
    rotating,
    scaled,
    shape_name,
    standard_shape,
    with_numba,
)
from benchmarks.goals import GOALS
from mixcollate import (
    RICAP,
    Compose,
    CutMix,
    Cutout,
    FMix,
    GridMask,
    HideAndSeek,
    MixUp,
    MixupCollate,
    Mosaic,
    RandomChoice,
    RandomErasing,
    ResizeMix,
)

OURS = ["mixcollate in place", "mixcollate in place, Numba", "mixcollate in place, shuffled partners"]
OURS += ["mixcollate", "mixcollate per image"]
MIXUP = ["copy", *OURS, "torchvision", "timm batch (in place)", "timm pair (in place)", "timm elem (in place)"]
MIXUP += ["kornia (labels stay indices)", "mixup (PyPI)", "plain torch", "torch.compile of it"]
CUTMIX = [name for name in MIXUP[:-2] if "Numba" not in name]
TORCHVISION_PIPELINE = "torchvision ToDtype + Normalize + MixUp"
TIMM_PIPELINES = ["timm normalise + RandomErasing + Mixup (batch)", "timm normalise + RandomErasing + Mixup (pair)"]
PIPELINE = [
    "copy",
    "mixcollate",
    TORCHVISION_PIPELINE,
    "torchvision the same or CutMix, RandomErasing (one box a batch)",
    *TIMM_PIPELINES,
]
ERASING = [
    "copy",
    "mixcollate in place",
    "mixcollate",
    "torchvision (one box a batch, in place)",
    "torchvision (image by image, in place)",
    "timm (in place)",
    "kornia",
]

clocks = pytest.mark.parametrize("clock", CLOCKS)


def labels_for(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.randint(CLASSES, (shape[0],), device=device)


def our_rivals(method: Callable[..., Any], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Rivals:
    """Ours in place, in pairs or not, into a new tensor, and with a draw for each image; and a copy."""
    images, labels = rotating(lambda: random_images(shape, dtype, device)), labels_for(shape, device)
    inplace, fresh = method(num_classes=CLASSES, inplace=True), method(num_classes=CLASSES)
    each = method(num_classes=CLASSES, per="sample")
    shuffled = method(num_classes=CLASSES, per="sample", pairing="shuffle", inplace=True)
    return {
        "copy": copy_of(bytes_of(shape, dtype, dtype), device),
        "mixcollate in place": lambda: inplace(next(images), labels),
        "mixcollate in place, Numba": with_numba(lambda: inplace(next(images), labels), device),
        "mixcollate in place, shuffled partners": lambda: shuffled(next(images), labels),
        "mixcollate": lambda: fresh(next(images), labels),
        "mixcollate per image": lambda: each(next(images), labels),
    }


def bytes_of(shape: tuple[int, ...], read: torch.dtype, written: torch.dtype) -> int:
    return torch.Size(shape).numel() * (read.itemsize + written.itemsize)


@clocks
@pytest.mark.parametrize("rival", PIPELINE)
@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_pipeline(race, device, layout, rival, clock):
    shape = standard_shape(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.uint8, device, memory_format))
        labels = labels_for(shape, device)
        transform = Compose([RandomChoice([MixUp(), CutMix()]), RandomErasing(p=0.25)])
        collate = MixupCollate(
            transform, num_classes=CLASSES, mean=MEAN, std=STD, dtype=dtype, memory_format=memory_format
        )
        return {
            "copy": copy_of(bytes_of(shape, torch.uint8, dtype), device),
            "mixcollate": lambda: collate.mix((next(images), labels)),
            **peers.pipeline(images, labels, CLASSES, dtype, device),
        }

    goals = {
        f"G2 {layout}": ("mixcollate", ["copy"]),
        f"G2 {layout} torchvision": ("mixcollate", [TORCHVISION_PIPELINE]),
        f"G2 {layout} timm": ("mixcollate", TIMM_PIPELINES),
    }
    race(
        rivals, rival, case=f"uint8 to normalised {dtype_name(dtype)}, MixUp or CutMix, erasing, {layout} "
        f"{shape_name(shape)}", device=device, clock=clock, images=shape[0], moved=bytes_of(shape, torch.uint8, dtype),
        goals=goals if clock == "device" else {},
    )  # fmt: skip


@pytest.mark.parametrize("rival", MIXUP)
def test_small_images(race, device, rival):
    shape = scaled((512, 3, 32, 32), (4, 3, 8, 8))

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.float32, device))
        return our_rivals(MixUp, shape, torch.float32, device) | peers.mixup(images, labels_for(shape, device), CLASSES)

    race(
        rivals, rival, case=f"MixUp of small images, float32 {shape_name(shape)}", device=device, images=shape[0],
        moved=bytes_of(shape, torch.float32, torch.float32),
        goals={"G7": ("mixcollate in place", ["torchvision"])} if device.type == "cuda" else {},
    )  # fmt: skip


@clocks
@pytest.mark.parametrize("rival", MIXUP)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
def test_mixup(race, device, dtype, rival, clock):
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("bfloat16 is for GPUs")
    shape, name = standard_shape(device), dtype_name(dtype)

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, dtype, device))
        return our_rivals(MixUp, shape, dtype, device) | peers.mixup(images, labels_for(shape, device), CLASSES)

    goals = {}
    if device.type == "cpu":
        goals["C5 MixUp"] = ("mixcollate in place", ["torchvision"])
    elif clock == "device":
        goals[f"G1 {name}"] = ("mixcollate in place", ["copy"])
        goals[f"G1 {name} peers"] = ("mixcollate in place", ["torchvision", "timm batch (in place)"])
    elif dtype == torch.float32:
        goals["G5 pair"] = ("mixcollate", ["timm pair (in place)"])
        goals["G5 elem"] = ("mixcollate per image", ["timm elem (in place)"])
    race(
        rivals, rival, case=f"MixUp, {name} {shape_name(shape)}", device=device, clock=clock, images=shape[0],
        moved=bytes_of(shape, dtype, dtype), goals=goals,
    )  # fmt: skip


@clocks
@pytest.mark.parametrize("rival", CUTMIX)
def test_cutmix(race, device, rival, clock):
    shape = standard_shape(device)

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.float32, device))
        return our_rivals(CutMix, shape, torch.float32, device) | peers.cutmix(
            images, labels_for(shape, device), CLASSES
        )

    goals = {}
    if device.type == "cpu":
        goals["C5 CutMix"] = ("mixcollate in place", ["torchvision"])
    elif clock == "device":
        others = [name for name in CUTMIX if not name.startswith(("copy", "mixcollate"))]
        goals = {
            "G3 torchvision": ("mixcollate in place", ["torchvision"]),
            "G3 peers": ("mixcollate in place", others),
        }
    race(
        rivals, rival, case=f"CutMix, float32 {shape_name(shape)}", device=device, clock=clock, images=shape[0],
        moved=bytes_of(shape, torch.float32, torch.float32), goals=goals,
    )  # fmt: skip


@clocks
@pytest.mark.parametrize("rival", ERASING)
@pytest.mark.parametrize("fill", [0.0, "noise"], ids=["constant", "noise"])
def test_random_erasing(race, device, fill, rival, clock):
    shape = standard_shape(device)

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.float32, device))
        inplace, fresh = RandomErasing(p=0.5, fill=fill, inplace=True), RandomErasing(p=0.5, fill=fill)
        return {
            "copy": copy_of(bytes_of(shape, torch.float32, torch.float32), device),
            "mixcollate in place": lambda: inplace(next(images)),
            "mixcollate": lambda: fresh(next(images)),
            **peers.random_erasing(images, device, p=0.5, noise=fill == "noise"),
        }

    name = "RandomErasing p=0.5, noise" if fill == "noise" else "RandomErasing p=0.5"
    race(
        rivals, rival, case=f"{name}, float32 {shape_name(shape)}", device=device, clock=clock,
        images=shape[0], moved=bytes_of(shape, torch.float32, torch.float32),
    )  # fmt: skip


@clocks
@pytest.mark.parametrize("rival", ["copy", "mixcollate"])
def test_any_partner_map(race, device, rival, clock):
    shape = standard_shape(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.uint8, device))
        labels = labels_for(shape, device)
        transform = MixUp(num_classes=CLASSES, pairing="shuffle", per="sample")
        collate = MixupCollate(transform, mean=MEAN, std=STD, dtype=dtype)
        return {
            "copy": copy_of(bytes_of(shape, torch.uint8, dtype), device),
            "mixcollate": lambda: collate.mix((next(images), labels)),
        }

    race(
        rivals, rival, case=f"uint8 to normalised {dtype_name(dtype)}, MixUp with shuffled partners "
        f"{shape_name(shape)}", device=device, clock=clock, images=shape[0], moved=bytes_of(shape, torch.uint8, dtype),
        goals={"G4": ("mixcollate", ["copy"])} if clock == "device" else {},
    )  # fmt: skip


OFFICIAL = {
    "RICAP": (RICAP, lambda images, labels: baselines.ricap(images, labels, CLASSES)),
    "Mosaic": (Mosaic, lambda images, labels: baselines.mosaic(images, labels, CLASSES)),
    "Cutout": (Cutout, lambda images, labels: baselines.cutout(images, images.shape[2] // 2)),
    "GridMask": (GridMask, lambda images, labels: baselines.gridmask(images)),
    "HideAndSeek": (HideAndSeek, lambda images, labels: baselines.hide_and_seek(images)),
    "ResizeMix": (ResizeMix, lambda images, labels: baselines.resizemix(images, labels, CLASSES)),
    "FMix": (FMix, lambda images, labels: baselines.fmix(images, labels, CLASSES)),
}


@pytest.mark.parametrize(
    "rival", ["copy", "mixcollate in place", "mixcollate", "mixcollate, one draw a batch", "official algorithm"]
)
@pytest.mark.parametrize("method", list(OFFICIAL))
def test_official(race, device, method, rival):
    shape = standard_shape(device)
    transform_class, official = OFFICIAL[method]

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.float32, device))
        labels = labels_for(shape, device)
        mixes = transform_class.mixes
        options = {"num_classes": CLASSES} if mixes else {}
        transform, alike = transform_class(**options), transform_class(**options, per="batch")
        inplace = "takes pixels from images that must still be there" if mixes else transform_class(inplace=True)
        return {
            "copy": copy_of(bytes_of(shape, torch.float32, torch.float32), device),
            "mixcollate in place": inplace if isinstance(inplace, str) else lambda: inplace(next(images)),
            "mixcollate": lambda: transform(next(images), labels) if mixes else transform(next(images)),
            "mixcollate, one draw a batch": lambda: alike(next(images), labels) if mixes else alike(next(images)),
            "official algorithm": lambda: official(next(images), labels),
        }

    goal = f"G6 {method}"
    race(
        rivals, rival, case=f"{method}, float32 {shape_name(shape)}", device=device, images=shape[0],
        moved=bytes_of(shape, torch.float32, torch.float32),
        goals={goal: ("mixcollate", ["official algorithm"])} if device.type == "cuda" and goal in GOALS else {},
    )  # fmt: skip
