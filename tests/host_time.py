"""How much host time does a call take, up to its last launch, without a GPU? ``python -m tests.host_time``

Prints microseconds of CPU time, medians of many rounds in which all rows take turns. Plans, checks, memory and launches
are real; but tensors are on the host, and a fake driver takes the launches, so the cost of torch's CUDA calls (a pinned
buffer, the plan's copy, the device guard) is not included. ``v2.MixUp`` on images of one pixel on the CPU is the unit.
"""

import contextlib
import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torchvision.transforms import v2

from mixcollate import Compose, CutMix, MixUp, RandomChoice, RandomErasing, targets
from mixcollate.kernels import fused
from mixcollate.kernels.packed import pack
from mixcollate.kernels.support import c_compiler
from tests.test_launch import absent_gpu, launching

BATCH, CLASSES, ROUNDS, CALLS = 256, 1000, 41, 20
TRANSFORMS = {
    "MixUp": MixUp(num_classes=CLASSES, seed=1),
    "choice": RandomChoice([MixUp(), CutMix()], num_classes=CLASSES, seed=1),
    "DeiT recipe": Compose(
        [RandomChoice([MixUp(alpha=0.8), CutMix()], num_classes=CLASSES, label_smoothing=0.1), RandomErasing(p=0.25)],
        seed=1,
    ),
}


def as_on_a_device():
    """Treat tensors on the host as if they were on a GPU."""
    importlib.import_module("mixcollate.kernels.prepare").choose = lambda images, impl: "fused"
    targets.is_fusible, targets.is_readable = lambda tensor: True, lambda tensor: False
    torch.cuda.device = contextlib.nullcontext


def steps_of(transform):
    """The whole call, and its parts one by one."""
    images, labels = torch.zeros(BATCH, 3, 8, 8), torch.randint(CLASSES, (BATCH,))
    plan = transform.make_plan(images)
    packed = pack(plan, "cpu")
    out = torch.empty_like(images)
    (rule,) = transform.rules
    _, unwritten = rule.prepare(labels, packed)
    return {
        "a call": lambda: transform(images, labels),
        "  its plan": lambda: transform.make_plan(images),
        "  pack": lambda: pack(plan, "cpu"),
        "  replay, packed": lambda: transform.replay(images, labels, packed),
        "    targets, unwritten": lambda: rule.prepare(labels, packed),
        "    fused.mix": lambda: fused.mix(images, packed, out, affine=None, targets=unwritten),
        "      launch": launch_of(lambda: fused.mix(images, packed, out, affine=None, targets=unwritten)),
    }


def launch_of(run):
    """The last launch of a call, by itself."""
    launched, launch = [], fused.launch
    fused.launch = lambda *arguments, **options: launched.append((arguments, options)) or launch(*arguments, **options)
    run()
    fused.launch = launch
    arguments, options = launched[-1]
    return lambda: launch(*arguments, **options)


def interleaved(runs):
    """CPU seconds per call of each."""
    taken = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.thread_time()
            for _ in range(CALLS):
                run()
            taken[name].append((time.thread_time() - start) / CALLS)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main():
    torch.set_num_threads(1)
    as_on_a_device()
    tiny, labels = torch.zeros(BATCH, 3, 1, 1), torch.randint(CLASSES, (BATCH,))
    yardstick = v2.MixUp(num_classes=CLASSES)
    runs = {("v2.MixUp", "its Python and dispatch"): lambda: yardstick(tiny, labels)}
    for name, transform in TRANSFORMS.items():
        runs |= {(name, step): run for step, run in steps_of(transform).items()}
    measured = interleaved(runs)
    (unit, *_) = measured.values()
    print(f"torch {torch.__version__}, triton {fused.triton.__version__}, B = {BATCH}")
    for (name, step), seconds in measured.items():
        print(f"{name:14}{step:26}{seconds * 1e6:8.1f} µs{seconds / unit:8.2f}×")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        absent_gpu(sys.argv[1])
        main()
    else:
        with tempfile.TemporaryDirectory() as folder:
            print(launching("tests.host_time", Path(folder), c_compiler() or "cc"), end="")
