"""What does a call cost the host, where pixels cost nothing; and what does it ask of the GPU?

Images of 8×8, so that only drawing, checking and launching are left. On a GPU each row also has the kernels, copies
and waits of one call, counted by torch's profiler, and the memory that it takes beyond its input.
"""

import time
import warnings
from typing import Any

import pytest
import torch

from benchmarks import peers
from benchmarks.common import CLASSES, DEADLINE, MEAN, STD, Rivals, Run, rotating, scaled
from mixcollate import Compose, CutMix, MixUp, MixupCollate, RandomChoice, RandomErasing

BATCHES = scaled([256, 32, 1024], [4])  # most wanted first
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def choice(**options: Any) -> RandomChoice:
    return RandomChoice([MixUp(), CutMix()], num_classes=CLASSES, **options)


CALLS = ["mixcollate", "mixcollate choice", "mixcollate pipeline", "torchvision", "timm batch (in place)"]
CALLS += ["timm pair (in place)", "timm elem (in place)", "kornia (labels stay indices)", "mixup (PyPI)"]


def call_rivals(shape: tuple[int, ...], device: torch.device) -> Rivals:
    images = rotating(lambda: torch.rand(shape, device=device))
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(CLASSES, shape[:1], device=device)
    mixup, chosen = MixUp(num_classes=CLASSES, inplace=True), choice(inplace=True)
    erasing = Compose([choice(), RandomErasing(p=0.25)])
    collate = MixupCollate(erasing, mean=MEAN, std=STD)
    others = peers.mixup(images, labels, CLASSES)
    return {
        "mixcollate": lambda: mixup(next(images), labels),
        "mixcollate choice": lambda: chosen(next(images), labels),
        "mixcollate pipeline": lambda: collate.mix((pixels, labels)),
        **{name: others[name] for name in CALLS if name in others},
    }


@pytest.mark.parametrize("rival", CALLS)
@pytest.mark.parametrize("batch", BATCHES)
def test_call(race, device, batch, rival):
    shape = (batch, 3, 8, 8)
    rivals = call_rivals(shape, device)
    asked = device.type == "cuda" and not isinstance(rivals[rival], str) and time.time() < DEADLINE
    info = asked_of_gpu(rivals[rival]) if asked else {}
    goals = {}
    if device.type == "cuda" and batch == BATCHES[0]:
        goals = {code: ("mixcollate", []) for code in ("G8 time", "G8 kernels", "G8 synchronisations")}
    race(
        lambda: rivals, rival, case=f"a call for {batch} images of 8×8", device=device, images=batch, goals=goals,
        info=info,
    )  # fmt: skip


@pytest.mark.parametrize("rival", ["MixUp", "CutMix", "mixcollate", "choice + RandomErasing"])
@pytest.mark.parametrize("batch", BATCHES)
def test_plan(race, batch, rival):
    def rivals() -> Rivals:
        images = torch.empty((batch, 3, 224, 224), device="meta")
        transforms = {
            "MixUp": MixUp(),
            "CutMix": CutMix(),
            "mixcollate": choice(),
            "choice + RandomErasing": Compose([choice(), RandomErasing(p=0.25)]),
        }
        return {name: lambda t=transform: t.make_plan(images) for name, transform in transforms.items()}

    goals = {"C4": ("mixcollate", [])} if batch == BATCHES[0] else {}
    race(
        rivals, rival, case=f"a plan for {batch} images of 224×224 (mixcollate: MixUp or CutMix for each pair)",
        device=torch.device("cpu"), images=batch, goals=goals,
    )  # fmt: skip


def asked_of_gpu(run: Run) -> dict[str, int]:
    """Kernels, copies and waits of one call, and the bytes of device memory it takes at its peak."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the profiler says about itself
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            run()
            torch.cuda.synchronize()
    names = [event.name for event in profiler.events() if event.device_type == DeviceType.CUDA]
    copies = sum(name.startswith(("Memcpy", "Memset")) for name in names)
    waits = sum(event.name in WAITS for event in profiler.events() if event.device_type == DeviceType.CPU)
    return {
        "kernels": len(names) - copies,
        "copies": copies,
        "synchronisations": waits,
        "peak_bytes": torch.cuda.max_memory_allocated() - before,
    }
