"""What the benchmarks share: sizes, devices, data, and the timing of rivals in turns.

Environment variables: ``BENCH_SCALE=tiny`` runs everything once on tiny batches; ``BENCH_SECONDS`` is the time for each
group of rivals; ``BENCH_DEVICE`` is ``cpu`` or ``cuda`` (default: both, if there is a GPU); ``BENCH_DEADLINE`` is when
to stop measuring, in seconds since the epoch; ``BENCH_JSON`` is a file for the results so far.
"""

import itertools
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mixcollate.kernels import host

TINY = os.environ.get("BENCH_SCALE") == "tiny"
SECONDS = float(os.environ.get("BENCH_SECONDS", "0.001" if TINY else "1.5"))
ROUNDS = (1, 1) if TINY else (7, 60)  # minimum and maximum
SLOW = 5.0  # seconds: if a round of all rivals takes longer, 3 rounds are enough
AHEAD = 4.0  # how many times as long as the host needs on average the GPU waits for it: some rounds take much longer
LEAST = 1e-6 if TINY else 5e-3  # minimum seconds of a round: shorter calls are timed several at a time
DEADLINE = float(os.environ.get("BENCH_DEADLINE", "inf"))
CLOCKS = ["call", "device"] if torch.cuda.is_available() else ["call"]
CACHE = 256 * 2**20  # bytes, more than the cache of any GPU
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 10 if TINY else 1000

Run = Callable[[], Any]
Rivals = dict[str, Run | str]
"""The call of each rival, or why it cannot run."""


def devices() -> list[str]:
    """The devices to measure on."""
    there = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [name for name in there if name == os.environ.get("BENCH_DEVICE", name)] or ["cpu"]


def scaled(full: Any, tiny: Any) -> Any:
    """``tiny`` if ``BENCH_SCALE=tiny``, else ``full``."""
    return tiny if TINY else full


def standard_shape(device: torch.device) -> tuple[int, int, int, int]:
    """The shape of the batch in most benchmarks."""
    return scaled((256 if device.type == "cuda" else 128, 3, 224, 224), (4, 3, 16, 16))


def shape_name(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def random_images(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Random images: uint8, or floats as they are after normalising; not all zeros."""
    if dtype == torch.uint8:
        images = torch.randint(0, 256, shape, dtype=dtype, device=device)
    else:
        images = torch.randn(shape, dtype=dtype, device=device)
    return images.to(memory_format=memory_format) if len(shape) == 4 else images


def rotating(make: Callable[[], Tensor]) -> Iterator[Tensor]:
    """An endless iterator of batches of one shape; on a GPU of so many that its cache holds none of them."""
    first = make()
    size = first.numel() * first.element_size()
    count = min(math.ceil(CACHE / max(size, 1)), 16) if first.is_cuda else 1
    return itertools.cycle([first, *(make() for _ in range(count - 1))])


def copy_of(moved: int, device: torch.device) -> Run:
    """A plain copy that moves ``moved`` bytes: half of them are read, half written."""
    sources = rotating(lambda: random_images((max(moved // 2, 1),), torch.uint8, device))
    targets = rotating(lambda: torch.ones(max(moved // 2, 1), dtype=torch.uint8, device=device))
    return lambda: next(targets).copy_(next(sources))


LOOPS = host.loops


def with_numba(run: Run, device: torch.device) -> Run | str:
    """``run`` with Numba's compiled loops, which other rows do not use, or why that is not possible."""
    if device.type != "cpu":
        return "compiled loops are for the CPU"
    if LOOPS() is None:
        return "Numba is not installed"

    def compiled() -> Any:
        before, host.loops = host.loops, LOOPS
        try:
            return run()
        finally:
            host.loops = before

    return compiled


class Clock:
    """The timer of pytest-benchmark, which replays the rounds that were measured in a race."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rounds: Iterator[float] = iter(())

    def __call__(self) -> float:
        return self.now

    def advance(self) -> None:
        self.now += next(self.rounds, 0.0)


def interleaved(
    rivals: dict[str, Run], device: torch.device, *, ahead: bool = False
) -> dict[str, list[float] | Exception]:
    """Time the rivals in turns, in a new order every round: seconds of each call, or the exception that it raised.

    Args:
        rivals: the calls to time.
        device: synchronised at the end of each round.
        ahead: let the host queue a whole round before the GPU starts, so that only the GPU's time counts.
    """
    result: dict[str, list[float] | Exception] = {}
    plans: dict[str, tuple[int, float, float]] = {}
    for name, run in rivals.items():
        try:
            plans[name] = _warm_up(run, device, ahead=ahead)
            result[name] = []
        except Exception as error:
            result[name] = error
    round_of_all = max(sum(seconds for _, _, seconds in plans.values()), 1e-9)
    fewest, most = ROUNDS if round_of_all < SLOW else (min(ROUNDS[0], 3), ROUNDS[1])
    rounds = SECONDS / round_of_all
    order = list(plans)
    shuffled = random.Random(0)
    for number in range(int(min(max(rounds, fewest), most))):
        if number > 0 and time.time() > DEADLINE:
            break
        shuffled.shuffle(order)
        for name in order:
            durations = result[name]
            if isinstance(durations, list):
                loops, sleep, _ = plans[name]
                durations.append(_timed(rivals[name], device, loops, sleep))
    return result


def _warm_up(run: Run, device: torch.device, *, ahead: bool) -> tuple[int, float, float]:
    """The number of calls in a round, how long the GPU must wait for the host, and the seconds of a round."""
    run()
    once = _timed(run, device, 1, 0.0)
    if once < 0.1:  # clocks, caches and allocators need some calls to settle
        run()
        once = min(once, _timed(run, device, 1, 0.0))
    loops = max(1, math.ceil(LEAST / max(once, 1e-9)))
    if TINY or not ahead:
        return (1 if TINY else loops), 0.0, once * loops
    start = time.perf_counter()
    for _ in range(loops):
        run()
    sleep = min(AHEAD * (time.perf_counter() - start), 0.1)
    return loops, sleep, once * loops + sleep


def _timed(run: Run, device: torch.device, loops: int, sleep: float) -> float:
    """The seconds of one call, averaged over ``loops`` calls."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(loops):
            run()
        return (time.perf_counter() - start) / loops
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    if sleep:
        torch.cuda._sleep(int(sleep * 2e9))  # cycles, of which a second has about 2e9
    first.record()
    for _ in range(loops):
        run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / loops
