"""How does the cost of mixing grow with the batch, the pixels and the classes: linearly, and from which constant?"""

import pytest
import torch

from benchmarks import peers
from benchmarks.common import CLASSES, Rivals, copy_of, random_images, rotating, scaled, shape_name, with_numba
from mixcollate import CutMix, MixUp

BATCHES = scaled([8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096], [2, 4])  # of 32×32 pixels
SIZES = scaled([32, 64, 128, 224, 320, 512], [8, 16])  # of 64 images
CLASS_COUNTS = scaled([10, 100, 1000, 10_000, 21_843], [10, 100])  # of 256 small images
SMALL = scaled(
    [(8, 3, 8, 8), (64, 3, 8, 8), (64, 3, 32, 32), (256, 3, 32, 32), (512, 3, 32, 32)], [(2, 3, 8, 8), (4, 3, 8, 8)]
)  # whole batches, of 10 classes
METHODS = {"MixUp": (MixUp, peers.mixup), "CutMix": (CutMix, peers.cutmix)}
THEIRS = ["torchvision", "timm batch (in place)"]
RIVALS = [
    "copy", "mixcollate", "mixcollate in place", "mixcollate, Numba", "mixcollate in place, Numba", *THEIRS
]  # fmt: skip


def measure(race, device, rival, *, shape, classes, case, size, method="MixUp", goals=None):
    moved = torch.Size(shape).numel() * 8
    transform, of_peers = METHODS[method]

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.float32, device))
        labels = torch.randint(classes, (shape[0],), device=device)
        fresh, inplace = transform(num_classes=classes), transform(num_classes=classes, inplace=True)
        theirs = of_peers(images, labels, classes)
        return {
            "copy": copy_of(moved, device),
            "mixcollate": lambda: fresh(next(images), labels),
            "mixcollate in place": lambda: inplace(next(images), labels),
            "mixcollate, Numba": with_numba(lambda: fresh(next(images), labels), device),
            "mixcollate in place, Numba": with_numba(lambda: inplace(next(images), labels), device),
            **{name: theirs[name] for name in THEIRS},
        }

    race(
        rivals, rival, case=case, device=device, images=shape[0], moved=moved, info={"size": size}, goals=goals
    )  # fmt: skip


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("shape", SMALL, ids=shape_name)
@pytest.mark.parametrize("method", METHODS)
def test_small(race, device, method, shape, rival):
    """Where a call costs more than its pixels."""
    goals = {}
    if shape == SMALL[1] and device.type == "cpu":
        goals[f"C6 {method}"] = ("mixcollate", ["torchvision"])
    measure(
        race, device, rival, shape=shape, classes=10, case=f"{method} {shape_name(shape)}",
        size=torch.Size(shape).numel(), method=method, goals=goals,
    )  # fmt: skip


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("batch", BATCHES)
def test_batch(race, device, batch, rival):
    side = scaled(32, 8)
    measure(
        race, device, rival, shape=(batch, 3, side, side), classes=CLASSES, case=f"batch {batch} of {side}×{side}",
        size=batch,
    )  # fmt: skip


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("side", SIZES)
def test_pixels(race, device, side, rival):
    batch = scaled(64, 4)
    measure(
        race, device, rival, shape=(batch, 3, side, side), classes=CLASSES, case=f"pixels {side}×{side}, batch {batch}",
        size=side * side,
    )  # fmt: skip


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_classes(race, device, classes, rival):
    batch = scaled(256, 4)
    measure(
        race, device, rival, shape=(batch, 3, 8, 8), classes=classes, case=f"classes {classes}, batch {batch} of 8×8",
        size=classes,
    )  # fmt: skip
