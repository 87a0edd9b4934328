"""Checks of what only a GPU can show, which also run on the CPU: ``python -m benchmarks.checks graph --device cuda``.

Each runs in a separate process, so that one that breaks the device does not affect the others. On the CPU the host's
implementation replaces the kernels, and what only CUDA has (streams, memory statistics) is not checked.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.common import MEAN, STD
from mixcollate import (
    RICAP,
    Compose,
    CutMix,
    Cutout,
    DeviceLoader,
    FMix,
    GridMask,
    HideAndSeek,
    MixUp,
    MixupCollate,
    Mosaic,
    RandomChoice,
    RandomErasing,
    ResizeMix,
    soft_cross_entropy,
)
from mixcollate.kernels import mix
from mixcollate.kernels.packed import copy_stream, pack

CLASSES = 10
NORMALISED = {"mean": MEAN, "std": STD}
METHODS = {
    "MixUp": lambda **options: MixUp(num_classes=CLASSES, **options),
    "MixUp, each": lambda **options: MixUp(num_classes=CLASSES, per="sample", **options),
    "MixUp, shuffled": lambda **options: MixUp(num_classes=CLASSES, pairing="shuffle", per="sample", **options),
    "CutMix": lambda **options: CutMix(num_classes=CLASSES, **options),
    "CutMix, each": lambda **options: CutMix(num_classes=CLASSES, per="sample", **options),
    "RICAP": lambda **options: RICAP(num_classes=CLASSES, **options),
    "ResizeMix": lambda **options: ResizeMix(num_classes=CLASSES, **options),
    "FMix": lambda **options: FMix(num_classes=CLASSES, **options),
    "Mosaic": lambda **options: Mosaic(num_classes=CLASSES, **options),
    "Cutout": lambda **options: Cutout(**options),
    "RandomErasing": lambda **options: RandomErasing(p=0.5, **options),
    "RandomErasing, noise": lambda **options: RandomErasing(p=0.5, value="random", **options),
    "GridMask": lambda **options: GridMask(**options),
    "HideAndSeek": lambda **options: HideAndSeek(**options),
    "choice, erased": lambda **options: Compose(
        [RandomChoice([MixUp(), CutMix()], num_classes=CLASSES), RandomErasing(p=0.25)], **options
    ),
}


def shape_on(device: torch.device) -> tuple[int, int, int, int]:
    return (64, 3, 96, 112) if device.type == "cuda" else (6, 3, 10, 12)


def make_images(device: torch.device, dtype: torch.dtype = torch.uint8) -> Tensor:
    images = torch.randint(0, 256, shape_on(device), dtype=torch.uint8)
    return (images if dtype == torch.uint8 else images.to(dtype) / 255).to(device)


def labels_for(images: Tensor) -> Tensor:
    return torch.randint(CLASSES, (len(images),)).to(images.device)


def same(result: Tensor, expected: Tensor, what: str) -> None:
    """Assert that results are equal up to rounding: noise and resizing are computed, everything else is exact."""
    assert bool(torch.isfinite(result).all()), f"{what}: an element was not written"
    wanted = expected.double()
    error = float((result.cpu().double() - wanted).norm() / wanted.norm())
    limit = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}.get(result.dtype, 1e-3)
    assert error < limit, f"{what}: relative error {error:.2g}"


def small(device: torch.device) -> None:
    """Every method against the reference on the CPU, into poisoned memory and in place."""
    for dtype in (torch.float32, torch.bfloat16):
        images = make_images(device)[:6, :, :16, :24].contiguous()
        for name, make in METHODS.items():
            plan = make(seed=1).make_plan(images)
            out = torch.full(images.shape, float("nan"), dtype=dtype, device=device)
            mix(images, plan, **NORMALISED, out=out)
            same(out, mix(images.cpu(), plan, **NORMALISED, dtype=dtype, impl="reference"), f"{name}, {dtype}")
            wanted = mix(out.cpu(), plan, impl="reference")
            same(mix(out, plan, out=out), wanted, f"{name}, {dtype}, in place")


def graph(device: torch.device) -> None:
    """A captured call that is replayed with new plans gives the same as a direct call."""
    for name in ("MixUp", "CutMix", "choice, erased"):
        images, transform = make_images(device), METHODS[name](seed=2)
        plans = [transform.make_plan(images) for _ in range(6)]
        packed = pack(plans[0], device)
        out = torch.empty(images.shape, device=device)
        replay = captured(
            lambda images=images, packed=packed, out=out: mix(images, packed, **NORMALISED, out=out), device
        )
        for plan in plans:
            packed.copy_(plan)
            out.fill_(float("nan"))
            replay()
            same(out, mix(images.cpu(), plan, **NORMALISED, impl="reference"), name)


def overtaking(device: torch.device) -> None:
    """The copy of a plan does not wait for work that was queued before, but mixing waits for the copy."""
    images, transform = make_images(device), METHODS["MixUp"](seed=8)
    for compiled in (False, *[True] * 10):
        plan = transform.make_plan(images)
        wanted = mix(images.cpu(), plan, impl="reference")
        wait(device)
        slept = None
        if device.type == "cuda":
            torch.cuda._sleep(int(2e8))  # cycles, about a tenth of a second
            slept = torch.cuda.current_stream().record_event()
        mixed = mix(images, pack(plan, device))
        if compiled and slept is not None:
            copy_stream(images.device, torch.cuda).synchronize()
            assert not slept.query(), "the plan's copy has waited for what was queued"
        same(mixed, wanted, "overtaking")


def captured(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """``run`` as a CUDA graph; on the CPU, itself."""
    if device.type != "cuda":
        return run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        run()
    return recorded.replay


def compiled(device: torch.device) -> None:
    """One graph, no break, and no other one for another plan, in a CUDA graph, too."""
    images, transform = make_images(device), MixUp(seed=3)
    plans = [transform.make_plan(images) for _ in range(4)]  # a CUDA graph is recorded by the second call
    for options in ({}, {"mode": "reduce-overhead"}) if device.type == "cuda" else ({"backend": "aot_eager"},):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        packed = pack(plans[0], device)
        step = torch.compile(lambda images, packed: mix(images, packed, **NORMALISED) * 2, fullgraph=True, **options)
        step(images, packed)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for plan in plans:
                packed.copy_(plan)
                wanted = mix(images.cpu(), plan, **NORMALISED, impl="reference")
                same(step(images, packed) / 2, wanted, f"compiled, {options}")
        skipped = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
        assert not skipped, f"compiled, {options}: no CUDA graph was recorded"


def sync(device: torch.device) -> None:
    """The host never waits on the way from a pinned batch to the gradient of the loss."""
    images = make_images(torch.device("cpu"))
    samples = list(zip(images, labels_for(images).tolist(), strict=True))
    head = torch.nn.Linear(3, CLASSES, device=device)
    kinds = {"targets": "dense"}, {"targets": "sparse"}, {"label_mode": "union"}
    for make in METHODS.values():
        for options in kinds if make().mixes else ({},):
            collate = MixupCollate(make(seed=4, **options), num_classes=CLASSES, **NORMALISED)
            for allowed in (True, False):  # the first call compiles, and caches what never changes
                batch = collate(samples)
                batch = batch.pin_memory() if device.type == "cuda" else batch
                with contextlib.nullcontext() if allowed else no_waiting(device):
                    mixed, target = batch.to(device)
                    soft_cross_entropy(head(mixed.mean((2, 3))), target).backward()
    segmented = [{"image": image, "mask": image[0] % 3, "teacher": torch.rand(4)} for image in images]
    collate = MixupCollate(CutMix(seed=4), mask_keys="mask", blend_keys="teacher", mask_classes=3, **NORMALISED)
    for allowed in (True, False):
        batch = collate(segmented)
        batch = batch.pin_memory() if device.type == "cuda" else batch
        with contextlib.nullcontext() if allowed else no_waiting(device):
            batch.to(device)


@contextlib.contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Raise an error if the host waits for the device."""
    wait(device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def race(device: torch.device) -> None:
    """The same plan gives the same bits every time, beside other work and in place."""
    images = make_images(device, torch.float32)
    elsewhere = torch.cuda.Stream() if device.type == "cuda" else None
    for number, (name, make) in enumerate(METHODS.items()):
        transform = make(seed=5 + number)
        for _ in range(3):
            plan = transform.make_plan(images)
            first = mix(images, plan)
            same(first, mix(images.cpu(), plan, impl="reference"), name)
            for _ in range(10):
                with torch.cuda.stream(elsewhere) if elsewhere is not None else contextlib.nullcontext():
                    images.clone().mul_(2)
                again, in_place = mix(images, plan), images.clone()
                mix(in_place, plan, out=in_place)
                assert torch.equal(again, first), f"{name}: another result of the same plan"
                assert torch.equal(in_place, first), f"{name}: another result in place"


def memory(device: torch.device) -> None:
    """Mixing in place allocates no memory except for the plan."""
    images = make_images(device, torch.float32)
    elsewhere = ("RICAP", "ResizeMix", "Mosaic")  # not in place: they read pixels that other programs write
    for name in (name for name in METHODS if name not in elsewhere):
        transform = METHODS[name](seed=6)
        for counted in (False, True):  # the first call compiles, and caches what never changes
            plan = transform.make_plan(images)
            words = pack(plan, "cpu").words.nbytes
            wait(device)
            before = statistic("allocated", device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            mix(images, plan, out=images)
            wait(device)
            grown = statistic("max_allocated", device) - before
            blocks = words + 512 * 8  # memory is handed out in blocks of 512 bytes
            assert not counted or grown <= blocks, f"{name}: {grown} bytes for a plan of {words}"


def statistic(name: str, device: torch.device) -> int:
    """``allocated``, ``max_allocated`` or ``reserved`` bytes of device memory; 0 on the CPU."""
    functions = {
        "allocated": torch.cuda.memory_allocated,
        "max_allocated": torch.cuda.max_memory_allocated,
        "reserved": torch.cuda.memory_reserved,
    }
    return functions[name]() if device.type == "cuda" else 0


def loader(device: torch.device) -> None:
    """DeviceLoader delivers the same as mixing on the CPU, at any speed, on any stream; its memory stays flat."""
    elsewhere = torch.cuda.Stream() if device.type == "cuda" else None
    images = make_images(torch.device("cpu")).repeat(4, 1, 1, 1)
    samples = list(zip(images, labels_for(images).tolist(), strict=True))
    batch = len(images) // 6
    samples = samples[: 6 * batch - 1]  # so that the last batch is smaller
    collate, twin = (MixupCollate(num_classes=CLASSES, seed=7, **NORMALISED) for _ in range(2))
    batches = DataLoader(samples, batch, num_workers=2, collate_fn=collate, pin_memory=device.type == "cuda")
    loaded = DeviceLoader(batches, device)
    held = []
    for epoch in range(5):
        with torch.cuda.stream(elsewhere) if elsewhere and epoch == 4 else contextlib.nullcontext():
            for number, (mixed, targets) in enumerate(loaded):
                if device.type == "cuda":
                    torch.cuda._sleep(int(1e6) * (number % 3))
                wanted, wanted_targets = twin(samples[number * batch : (number + 1) * batch]).to("cpu")
                same(mixed, wanted, f"batch {number}")
                same(targets, wanted_targets, f"targets {number}")
                if epoch == 4 and number == 2:
                    break  # leaving the loop early must do no harm
        del mixed, targets
        held.append((statistic("allocated", device), statistic("reserved", device)))
    assert held[1] == held[2] == held[3], f"device memory after each epoch: {held}"


CHECKS = {check.__name__: check for check in (small, graph, overtaking, compiled, sync, race, memory, loader)}


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.checks", description=__doc__)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.manual_seed(0)
    CHECKS[options.check](torch.device(options.device))
    print(f"{options.check}: {CHECKS[options.check].__doc__}")


if __name__ == "__main__":
    main()
