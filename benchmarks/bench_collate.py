"""What does a loader's worker pay to collate: only stacking, or mixing too, on the CPU?

One thread, uint8 samples as tensors and as NumPy arrays. Stacking goes into shared memory, as in a worker.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils import worker
from torchvision.transforms import v2

from benchmarks.common import CLASSES, Rivals, copy_of, scaled, shape_name, with_numba
from benchmarks.peers import imported, where
from mixcollate import CutMix, MixupCollate

SHAPE = scaled((128, 3, 224, 224), (4, 3, 16, 16))
MODES = ("batch", "pair", "elem")
TIMM = [f"timm FastCollateMixup ({mode})" for mode in MODES]
SAMPLES = ["tensors", "NumPy"]
MOVED = 2 * torch.Size(SHAPE).numel()

pytestmark = pytest.mark.parametrize("samples", SAMPLES)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu")


def make_samples(kind: str) -> list[tuple[Any, int]]:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, SHAPE[1:], np.uint8) for _ in range(SHAPE[0])]
    labels = generator.integers(CLASSES, size=SHAPE[0]).tolist()
    if kind == "tensors":
        images = [torch.from_numpy(image) for image in images]
    return list(zip(images, labels, strict=True))


@contextlib.contextmanager
def in_worker() -> Iterator[None]:
    """As in a worker: collate functions put their batch into shared memory."""
    before = worker._worker_info
    worker._worker_info = worker.WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)
    try:
        yield
    finally:
        worker._worker_info = before


def stack_into_shared(samples: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """``torch.stack`` into shared memory: what a batch costs that any worker sends."""
    images = [torch.as_tensor(image) for image, _ in samples]
    storage = images[0].untyped_storage()._new_shared(sum(image.nbytes for image in images), device="cpu")
    out = torch.empty(0, dtype=images[0].dtype).set_(storage, 0, (len(images), *images[0].shape))
    return torch.stack(images, out=out), torch.tensor([label for _, label in samples])


def shared(run):
    def in_shared_memory():
        with in_worker():
            return run()

    return in_shared_memory


@pytest.mark.parametrize(
    "rival",
    ["copy", "mixcollate", "torch.stack", "torch's default_collate", "timm fast_collate (not into shared memory)"],
)
def test_stack(race, device, samples, rival):
    def rivals() -> Rivals:
        batch, collate = make_samples(samples), MixupCollate(num_classes=CLASSES)
        return {
            "copy": copy_of(MOVED, device),
            "mixcollate": shared(lambda: collate(batch)),
            "torch.stack": lambda: stack_into_shared(batch),
            "torch's default_collate": shared(lambda: default_collate(batch)),
            "timm fast_collate (not into shared memory)": where(
                imported("timm.data.loader"), lambda m: shared(lambda: m.fast_collate(batch))
            ),
        }

    race(
        rivals, rival, case=f"stack into shared memory, mix later; {samples} {shape_name(SHAPE)}", device=device,
        images=SHAPE[0], moved=MOVED, goals={f"C1 {samples}": ("mixcollate", ["torch.stack"])},
    )  # fmt: skip


def timm_modes(batch, **arguments: float) -> Rivals:
    def make(mode):
        def of(module):
            collate = module.FastCollateMixup(mode=mode, label_smoothing=0.0, num_classes=CLASSES, **arguments)
            return lambda: collate(batch)

        return of

    return {f"timm FastCollateMixup ({mode})": where(imported("timm.data.mixup"), make(mode)) for mode in MODES}


@pytest.mark.parametrize(
    "rival", ["copy", "mixcollate", "mixcollate with Numba", *TIMM, "stack + ToDtype + v2.MixUp (float32)"]
)
def test_mixup(race, device, samples, rival):
    def rivals() -> Rivals:
        batch, collate = make_samples(samples), MixupCollate(num_classes=CLASSES, eager=True)
        to_float, mixup = v2.ToDtype(torch.float32, scale=True), v2.MixUp(num_classes=CLASSES)

        def torchvision():
            images, labels = default_collate(batch)
            return mixup(to_float(images), labels)

        return {
            "copy": copy_of(MOVED, device),
            "mixcollate": lambda: collate(batch),
            "mixcollate with Numba": with_numba(lambda: collate(batch), device),
            **timm_modes(batch, mixup_alpha=1.0),
            "stack + ToDtype + v2.MixUp (float32)": torchvision,
        }

    goals = {f"C2 {samples}": ("mixcollate", TIMM), f"C2 {samples}, Numba": ("mixcollate with Numba", TIMM)}
    if samples == "tensors":
        goals["C2 torchvision"] = ("mixcollate", ["stack + ToDtype + v2.MixUp (float32)"])
    race(
        rivals, rival, case=f"collate + MixUp, {samples} {shape_name(SHAPE)}", device=device, images=SHAPE[0],
        moved=MOVED, goals=goals,
    )  # fmt: skip


@pytest.mark.parametrize("rival", ["copy", "mixcollate", *TIMM, "stack + v2.CutMix"])
def test_cutmix(race, device, samples, rival):
    def rivals() -> Rivals:
        batch = make_samples(samples)
        collate, cutmix = MixupCollate(CutMix(), num_classes=CLASSES, eager=True), v2.CutMix(num_classes=CLASSES)
        return {
            "copy": copy_of(MOVED, device),
            "mixcollate": lambda: collate(batch),
            **timm_modes(batch, mixup_alpha=0.0, cutmix_alpha=1.0),
            "stack + v2.CutMix": lambda: cutmix(*default_collate(batch)),
        }

    race(
        rivals, rival, case=f"collate + CutMix, {samples} {shape_name(SHAPE)}", device=device, images=SHAPE[0],
        moved=MOVED, goals={f"C3 {samples}": ("mixcollate", TIMM)},
    )  # fmt: skip
