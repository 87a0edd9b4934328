"""How does the cost of mixing grow with the batch, the pixels and the classes: linearly, and from which constant?"""

import pytest
import torch

from benchmarks import peers
from benchmarks.common import CLASSES, Rivals, copy_of, random_images, rotating, scaled
from mixcollate import MixUp

BATCHES = scaled([64, 128, 256, 512, 1024, 2048, 4096], [2, 4])  # of 32×32 pixels
SIZES = scaled([32, 64, 128, 224, 320, 512], [8, 16])  # of 64 images
CLASS_COUNTS = scaled([10, 100, 1000, 10_000, 21_843], [10, 100])  # of 256 small images
RIVALS = ["copy", "mixcollate", "mixcollate in place", "torchvision"]


def measure(race, device, rival, *, shape, classes, case, size):
    moved = torch.Size(shape).numel() * 8

    def rivals() -> Rivals:
        images = rotating(lambda: random_images(shape, torch.float32, device))
        labels = torch.randint(classes, (shape[0],), device=device)
        fresh, inplace = MixUp(num_classes=classes), MixUp(num_classes=classes, inplace=True)
        return {
            "copy": copy_of(moved, device),
            "mixcollate": lambda: fresh(next(images), labels),
            "mixcollate in place": lambda: inplace(next(images), labels),
            "torchvision": peers.mixup(images, labels, classes)["torchvision"],
        }

    race(rivals, rival, case=case, device=device, images=shape[0], moved=moved, info={"size": size})


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
