"""How many images a second reach the device, mixed and normalised, from a DataLoader: ours, theirs, and unmixed?

An epoch each, of uint8 images in memory and of real JPEG files (scikit-image's pictures, cropped and resized on the
way), with workers that stay alive. All end as normalised float32 with dense targets on the device; "unmixed" has the
same without mixing. Bytes are those that cross from the loader to the device.
"""

import io
import os
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from benchmarks.common import CLASSES, MEAN, STD, TINY, Rivals, random_images, scaled
from benchmarks.peers import imported, where
from mixcollate import DeviceLoader, MixupCollate

BATCH, SIDE = scaled((128 if torch.cuda.is_available() else 64, 224), (4, 16))
CORES = os.cpu_count() or 1
WORKERS = scaled([n for n in (16, 8, 4, 2, 1, 0) if n <= CORES and (CORES <= 4 or n in (0, 4, 16))], [1, 0])
RIVALS = [
    "unmixed",
    "mixcollate",
    "mixcollate, plain loop",
    "mixcollate eager (mixed in the worker)",
    "v2.MixUp in collate_fn",
    "naive (sample by sample in the data set)",
    "unmixed, timm PrefetchLoader",
    "timm FastCollateMixup + PrefetchLoader",
]
MIXED_BY_WORKERS = (
    "mixcollate eager (mixed in the worker)",
    "v2.MixUp in collate_fn",
    "naive (sample by sample in the data set)",
)
NOT_OF_FILES = ("mixcollate, plain loop", "v2.MixUp in collate_fn", "unmixed, timm PrefetchLoader")
PINNED = ["pinned", "unpinned"] if torch.cuda.is_available() else ["unpinned"]

pytestmark = [
    # the parent has threads of its own by now; the workers touch nothing of theirs
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.parametrize("workers", WORKERS),
    pytest.mark.parametrize("memory", PINNED),
]


class InMemory(Dataset[tuple[Tensor, int]]):
    """uint8 images that cost a copy each."""

    def __init__(self, count: int) -> None:
        self.images = random_images((count, 3, SIDE, SIDE), torch.uint8, torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], index % CLASSES


class Jpegs(Dataset[tuple[Tensor, int]]):
    """JPEG files of scikit-image's pictures, decoded, cropped at random and resized as for training."""

    def __init__(self, count: int) -> None:
        from skimage import data

        pictures = [Image.fromarray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
        self.files = [_as_jpeg(pictures[i % len(pictures)]) for i in range(count)]
        self.crop = v2.Compose([v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip(), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(io.BytesIO(self.files[index])) as picture:
            return self.crop(picture.convert("RGB")), index % CLASSES


def _as_jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.resize((500, 375)).save(file, "JPEG", quality=90)  # ImageNet's usual size
    return file.getvalue()


class Naive(Dataset[tuple[Tensor, Tensor]]):
    """Mixing as a first attempt does it: each sample loads a second one and mixes it, normalised, with its label."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        own = np.random.beta(1.0, 1.0)
        (image, label), (other, other_label) = self.samples[index], self.samples[random.randrange(len(self))]
        rows = one_hot(torch.tensor([label, other_label]), CLASSES).float()
        mixed = own * self.normalise(image) + (1 - own) * self.normalise(other)
        return mixed.float(), (own * rows[0] + (1 - own) * rows[1]).float()


def loader_rivals(samples: Any, device: torch.device, workers: int, *, pinned: bool) -> Rivals:
    def load(collate_fn: Callable[..., Any], data: Any = samples) -> DataLoader[Any]:
        return DataLoader(
            data, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0,
            pin_memory=pinned, collate_fn=collate_fn,
        )  # fmt: skip

    def collate(**options: Any) -> MixupCollate:
        return MixupCollate(num_classes=CLASSES, mean=MEAN, std=STD, **options)

    unmixed = collate()
    unmixed.enabled = False
    plain, eager = load(collate()), load(collate(eager=True))
    mixup = v2.MixUp(num_classes=CLASSES)
    normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    torchvision = load(_Collate(normalise, mixup))
    naive = load(default_collate, Naive(samples))

    def prefetch(make_collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def make(timm: Any) -> Any:
            return epoch(timm.loader.PrefetchLoader(load(make_collate(timm)), device=device))

        return make

    def epoch(batches: Iterable[Any]) -> Callable[[], None]:
        def run() -> None:
            for images, targets in batches:
                images, targets = images.to(device, non_blocking=pinned), targets.to(device, non_blocking=pinned)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def plain_loop() -> None:
        for batch in plain:
            batch.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize()

    timm = imported("timm.data")
    return {
        "unmixed": epoch(DeviceLoader(load(unmixed), device)),
        "mixcollate": epoch(DeviceLoader(load(collate()), device)),
        "mixcollate, plain loop": plain_loop,
        "mixcollate eager (mixed in the worker)": epoch(eager),
        "v2.MixUp in collate_fn": epoch(torchvision),
        "naive (sample by sample in the data set)": epoch(naive),
        "unmixed, timm PrefetchLoader": where(timm, prefetch(lambda timm: timm.loader.fast_collate)),
        "timm FastCollateMixup + PrefetchLoader": where(
            timm, prefetch(lambda timm: timm.FastCollateMixup(label_smoothing=0.0, num_classes=CLASSES))
        ),
    }


class _Collate:
    """torchvision's documented way: mix in the ``collate_fn``."""

    def __init__(self, normalise: Callable[..., Any], mixup: Callable[..., Any]) -> None:
        self.normalise, self.mixup = normalise, mixup

    def __call__(self, samples: list[Any]) -> Any:
        images, labels = default_collate(samples)
        return self.mixup(self.normalise(images), labels)


def measure(race, device, rival, workers, memory, make_samples, name, count, goal, left_out=()):
    if memory == "pinned" and device.type == "cpu":
        pytest.skip("pinned memory is for GPUs")
    if memory == "unpinned" and device.type == "cuda" and workers != WORKERS[0]:
        pytest.skip("unpinned memory is measured with the most workers only")
    images = count // BATCH * BATCH
    floats = rival in MIXED_BY_WORKERS
    targets = images * CLASSES * 4 if floats or "timm Fast" in rival else images * 8  # dense float32, or indices
    crossing = images * 3 * SIDE * SIDE * (4 if floats else 1) + targets
    goals = {goal: ("mixcollate", ["unmixed"])} if device.type == "cuda" else {}
    race(
        lambda: {
            name: run
            for name, run in loader_rivals(make_samples(count), device, workers, pinned=memory == "pinned").items()
            if name not in left_out
        },
        rival, case=f"{name} {SIDE}×{SIDE}, {workers} workers, {memory}", device=device, images=images, moved=crossing,
        info={"workers": workers}, goals=goals if memory == "pinned" and workers == WORKERS[0] else {},
    )  # fmt: skip


@pytest.mark.parametrize("rival", RIVALS)
def test_in_memory(race, device, workers, memory, rival):
    count = scaled(BATCH * 10 * max(workers // 4, 1), 8)
    measure(race, device, rival, workers, memory, InMemory, "uint8 in memory", count, "G9")


@pytest.mark.parametrize("rival", [name for name in RIVALS if name not in NOT_OF_FILES])
def test_jpeg(race, device, workers, memory, rival):
    if not TINY and (workers != WORKERS[0] or memory != PINNED[0]):
        pytest.skip("decoding takes what it takes: measured with the most workers only")
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    count = scaled(BATCH * max(workers, 4), 8)
    measure(race, device, rival, workers, memory, Jpegs, "JPEG files to", count, "G9 JPEG", NOT_OF_FILES)
