"""Every kernel equals the reference, bit for bit; on the CPU under Triton's interpreter."""

import contextlib
import copy
import importlib
import itertools
import math
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import tv_tensors

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MANY = [] if torch.cuda.is_available() else pytest.mark.slow  # more of what the interpreter takes long for
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the kernels are defined
from mixcollate.kernels.support import FUSED_FROM, has_right_triton  # noqa: E402

if not has_right_triton():
    pytest.skip(f"this torch's Triton does not run the kernels: they need torch {FUSED_FROM}", allow_module_level=True)
fused = pytest.importorskip("mixcollate.kernels.fused", reason="Triton is not installed")

from mixcollate import RICAP, Compose, CutMix, Cutout, MixUp, RandomChoice, RandomErasing, losses, targets  # noqa: E402
from mixcollate.draw import draw_from  # noqa: E402
from mixcollate.kernels import fused_targets, reference, tiling  # noqa: E402
from mixcollate.kernels.packed import pack  # noqa: E402
from mixcollate.kernels.pixels import Affine  # noqa: E402
from mixcollate.kernels.prepare import run_passes  # noqa: E402
from mixcollate.losses import soft_cross_entropy  # noqa: E402
from mixcollate.plan import MixPlan, identity, select, two_shares  # noqa: E402
from mixcollate.stream import numbers as numbers_at  # noqa: E402
from mixcollate.targets import SoftTarget, mix_targets  # noqa: E402
from tests import cases  # noqa: E402
from tests.ahead_of_time import arguments_of, compiling  # noqa: E402

INTERPRETED = not isinstance(fused.mix_kernel, fused.triton.JITFunction)
if DEVICE == "cpu" and not INTERPRETED:
    pytest.skip("the kernels were defined without TRITON_INTERPRET=1", allow_module_level=True)

U8, F16, BF16, F32, F64 = torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64
SIZES = [(1, 3, 1, 1), (2, 3, 4, 16), (3, 1, 7, 5), (7, 3, 3, 5), (2, 4, 1, 33)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of a few pixels, so that small images need several and the last one is partial."""
    monkeypatch.setattr(tiling, "VECTORS", 8)
    monkeypatch.setattr(fused, "VECTORS_OF_ALL", 8)


LAUNCHED = {}


@pytest.fixture(autouse=True, scope="module")
def recorded():
    """Every kernel that is launched here, for ``test_what_ran_here_compiles``."""
    launch = fused.launch

    def recording(kernel, grid, tensors, numbers, constants, **options):
        launched = (kernel.fn.__name__, arguments_of(tensors, numbers), constants)
        LAUNCHED[repr(launched)] = launched
        launch(kernel, grid, tensors, numbers, constants, **options)

    fused.launch = fused_targets.launch = recording
    yield
    fused.launch = fused_targets.launch = launch


def draw_box(numbers, batch, size):
    rows, cols = (np.sort(numbers.integers(0, length + 1, (batch, 2)), 1) for length in size)
    return np.stack([rows[:, 0], cols[:, 0], rows[:, 1], cols[:, 1]], 1).astype(np.int32)


def paired(array, partner):
    """What both images of a pair share: the row of the first."""
    return array[np.minimum(partner, np.arange(len(partner)))]


def draw_plan(rule, shape, numbers):
    """A plan of one rule; every field differs between images, as far as the rule allows."""
    batch, channels, *size = shape
    size = tuple(size)
    index = np.arange(batch)
    share = numbers.random(batch, np.float32)
    share[: batch // 3] = numbers.integers(0, 2, batch // 3)
    ones, zeros = np.ones(batch, np.float32), np.zeros(batch, np.float32)
    box = draw_box(numbers, batch, size)
    flip, roll = index[::-1].copy(), np.roll(index, 1)
    mixed = {"size": size, "partners": roll[:, None], "shares": two_shares(share)}
    each = {"size": size, "partners": flip[:, None], "shares": two_shares(share)}  # pairs, but not alike
    both = {"size": size, "partners": flip[:, None], "shares": two_shares(paired(share, flip))}
    width = -(-size[1] // 8)
    if rule == "nothing":
        return identity(batch, size)
    if rule == "mixup":
        return MixPlan(**both, own_outside=paired(share, flip))
    if rule == "mixup, roll":
        return MixPlan(**mixed, own_outside=share)
    if rule == "cutmix":
        return MixPlan(**both, own_outside=ones, own_inside=zeros, box=paired(box, flip))
    if rule == "cutmix, roll":
        return MixPlan(**mixed, own_outside=ones, own_inside=zeros, box=box)
    if rule == "both sides of the box":
        return MixPlan(
            **both, own_outside=paired(share, flip), own_inside=paired(share[::-1], flip), box=box[:1] + 0 * box
        )
    if rule == "mixup, each":
        return MixPlan(**each, own_outside=share)
    if rule == "cutmix, each":
        return MixPlan(**each, own_outside=ones, own_inside=zeros, box=box)
    if rule in ("bitmap, roll", "bitmap, each"):
        bitmap = numbers.integers(0, 256, (batch, size[0], width), dtype=np.uint8)
        some = mixed if rule == "bitmap, roll" else each
        return MixPlan(**some, own_outside=share, own_inside=share[::-1].copy(), box=box, bitmap=bitmap)
    if rule == "resized":
        kind = np.arange(batch, dtype=np.int8) % 3
        return MixPlan(**mixed, own_outside=ones, own_inside=np.where(index % 2, zeros, share), box=box, resized=kind)
    if rule == "resized pairs":
        kind = np.full(batch, 2, np.int8)
        return MixPlan(**both, own_outside=ones, own_inside=zeros, box=paired(box, flip), resized=kind)
    if rule == "pieces":
        return draw_pieces(batch, size, numbers)
    if rule == "pieces or mixup":
        plans = [draw_pieces(batch, size, numbers), MixPlan(**mixed, own_outside=share)]
        return select(numbers.integers(0, 2, batch), plans)
    return draw_erasing(rule, draw_plan("nothing", shape, numbers), channels, numbers)


def draw_pieces(batch, size, numbers):
    corner = np.stack([numbers.integers(0, length + 1, batch) for length in size], 1).astype(np.int32)
    shift = np.zeros((batch, 4, 2), np.int32)
    for axis, length in enumerate(size):
        edge = corner[:, axis]
        after = [2, 3] if axis == 0 else [1, 3]
        for piece in range(4):  # a piece may start anywhere that leaves it within its image
            begin, extent = (edge, length - edge) if piece in after else (0 * edge, edge)
            shift[:, piece, axis] = numbers.integers(0, length - extent + 1) - begin
    partners = np.stack([numbers.permutation(batch) for _ in range(3)], 1)
    return MixPlan(
        size=size, partners=partners, shares=np.full((batch, 4), 0.25, np.float32), corner=corner, shift=shift
    )


def draw_erasing(rule, plan, channels, numbers):
    """``plan``, with something erased."""
    batch, (height, width) = len(plan), plan.size
    if rule == "erased boxes":
        boxes = np.stack([draw_box(numbers, batch, plan.size) for _ in range(2)], 1)
        fill = numbers.integers(0, 256, (batch, 2, channels)).astype(np.float32)
        return replace(plan, erase_box=boxes, fill=fill)
    fill = numbers.integers(0, 256, (batch, 1, 1)).astype(np.float32)
    if rule in ("grid", "turned grid"):
        tile = numbers.integers(0, 7, batch)
        fields = [tile, np.minimum(numbers.integers(0, 4, batch), tile), *numbers.integers(0, 6, (2, batch))]
        grid = np.stack([*fields, numbers.integers(0, 2, batch)], 1).astype(np.int32)
        angle = numbers.random(batch) * (7 if rule == "turned grid" else 0)
        turn = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
        return replace(plan, grid=grid, fill=fill, turn=turn)
    if rule == "hidden cells":
        hidden = numbers.integers(0, 256, (batch, height, -(-width // 8)), dtype=np.uint8)
        cell = numbers.integers(1, 5, batch).astype(np.int32)
        cell[:1] = 2**30
        return replace(plan, cell=cell, hidden=hidden * (cell < 2**30)[:, None, None].astype(np.uint8), fill=fill)
    if rule == "noise":
        key = numbers.integers(0, 2**32, batch)
        key[1:2] = 0
        return replace(draw_erasing("erased boxes", plan, channels, numbers), noise=key)
    raise ValueError(rule)


MIXING = ["nothing", "mixup", "mixup, each", "mixup, roll", "cutmix", "cutmix, each", "cutmix, roll",
          "both sides of the box", "bitmap, each", "bitmap, roll", "resized", "resized pairs", "pieces",
          "pieces or mixup"]  # fmt: skip
ERASING = ["erased boxes", "grid", "turned grid", "hidden cells"]


def draw_images(shape, dtype, numbers):
    values = torch.from_numpy(numbers.integers(0, 256, shape, dtype=np.uint8))
    if dtype != U8:
        values = values / 16 - 4 + torch.from_numpy(numbers.random(shape, np.float32))
    return values.to(DEVICE, dtype)


def affine(channels):
    scale = torch.linspace(0.013, 0.021, channels, device=DEVICE)
    return {"affine": Affine(scale, torch.linspace(-2.1, -1.7, channels, device=DEVICE))}


UNCHANGED = {"affine": None}


def mix_fused(images, plan, out, **numbers):
    fused.mix(images, pack(plan, DEVICE), out, **numbers)


def expected(images, plan, dtype, numbers):
    """What the reference makes of it, in the reading of bfloat16 that the interpreter has: it truncates."""
    truncated = dtype == BF16 and INTERPRETED
    out = torch.empty_like(images, dtype=F32 if truncated else dtype)
    reference.mix(images, plan, out, **numbers)
    return (out.contiguous().view(torch.int32) & -65536).view(F32).to(BF16) if truncated else out


def poisoned(images, dtype, memory_format=torch.contiguous_format):
    """An output that no kernel leaves like this, between two images that none may touch."""
    padded = torch.empty((len(images) + 2, *images.shape[1:]), dtype=dtype, device=DEVICE, memory_format=memory_format)
    return padded.fill_(171 if dtype == U8 else float("nan"))


def check(images, plan, dtype, numbers, memory_format=torch.contiguous_format):
    wanted, kept = expected(images, plan, dtype, numbers), images.clone()
    padded = poisoned(images, dtype, memory_format)
    mix_fused(images, plan, padded[1:-1], **numbers)
    assert torch.equal(padded[1:-1], wanted)
    assert torch.equal(images, kept)
    guard = torch.stack([padded[0], padded[-1]])
    assert (guard == 171).all() if dtype == U8 else guard.isnan().all()


@pytest.mark.parametrize("rule", MIXING + ERASING)
@pytest.mark.parametrize(
    "shape, dtypes",
    [*((shape, (U8, F32)) for shape in SIZES), *((shape, (F32, F32)) for shape in SIZES), (SIZES[2], (U8, U8))],
    ids=str,
)
def test_equals_the_reference(rule, shape, dtypes):
    numbers = np.random.default_rng(len(rule))
    images = draw_images(shape, dtypes[0], numbers)
    plan = draw_plan(rule, shape, numbers)
    check(images, plan, dtypes[1], affine(shape[1]) if dtypes[0] != dtypes[1] else UNCHANGED)


@pytest.mark.parametrize("length, shown, dtype", [*[(*tie, U8) for tie in cases.TIES], (*cases.TIES[0], F64)], ids=str)
def test_the_nearest_pixel_is_that_of_the_reference(length, shown, dtype):
    plan = cases.shown_nearest(length, (0, 0, 1, shown))
    check(torch.arange(length, device=DEVICE).expand(2, 1, length, length).to(dtype), plan, dtype, UNCHANGED)


def test_the_nearest_pixel_of_a_long_signal(monkeypatch):
    """Its place is a quotient of numbers that do not fit into 32 bits; a wrong one lies outside the image."""
    monkeypatch.setattr(tiling, "VECTORS", 512)
    plan = replace(cases.shown_nearest(40_000, (0, 0, 1, 30_000)), size=(1, 40_000))
    check(draw_images((2, 1, 1, 40_000), U8, np.random.default_rng(0)), plan, U8, UNCHANGED)


LAST = torch.channels_last
FORMATS = {"nchw": torch.contiguous_format, "nhwc": LAST}


@pytest.mark.parametrize("rule", ["mixup", "cutmix, roll", "resized", "pieces or mixup", "erased boxes"])
@pytest.mark.parametrize("orders", [("nchw", "nchw"), ("nchw", "nhwc"), ("nhwc", "nchw")], ids="->".join)
@pytest.mark.parametrize(
    "dtypes",
    [(U8, U8), (U8, BF16), (U8, F16), (U8, F64), (F16, F16), (BF16, BF16), (BF16, F32), (F32, BF16), (F64, F64),
     (F64, F16)],
    ids=str,
)  # fmt: skip
def test_dtypes(rule, orders, dtypes):
    numbers = np.random.default_rng(1)
    shape = (3, 3, 2, 8)
    images = draw_images(shape, dtypes[0], numbers).contiguous(memory_format=FORMATS[orders[0]])
    plan = draw_plan(rule, shape, numbers)
    check(images, plan, dtypes[1], UNCHANGED if dtypes == (U8, U8) else affine(3), FORMATS[orders[1]])


@pytest.mark.parametrize(
    "rule, channels", [*((rule, 3) for rule in MIXING + ERASING), ("pieces", 4), ("cutmix", 4), ("cutmix, roll", 2)]
)
@pytest.mark.parametrize("orders", [("nhwc", "nhwc"), ("nhwc", "nchw"), ("nchw", "nhwc")], ids="->".join)
@pytest.mark.parametrize("size", [(3, 6), pytest.param((8, 10), marks=MANY)], ids=str)
def test_channels_last(rule, channels, orders, size):
    numbers = np.random.default_rng(2)
    shape = (3, channels, *size)
    images = draw_images(shape, U8, numbers).contiguous(memory_format=FORMATS[orders[0]])
    check(images, draw_plan(rule, shape, numbers), F32, affine(channels), FORMATS[orders[1]])


def test_channels_last_of_aligned_lines():
    """Vectors that never cross a row, and images that fill whole tiles."""
    numbers = np.random.default_rng(3)
    shape = (3, 3, 4, 8)
    images = draw_images(shape, U8, numbers).contiguous(memory_format=LAST)
    for rule in ("cutmix", "cutmix, roll"):
        plan = draw_erasing("erased boxes", draw_plan(rule, shape, numbers), 3, numbers)
        for memory_format in (LAST, torch.contiguous_format):
            check(images, plan, F32, affine(3), memory_format)


@pytest.mark.parametrize("rule", ["bitmap, each", "resized", "pieces or mixup", *ERASING[1:]])
@pytest.mark.parametrize("dtypes", [(U8, F32), (U8, U8), pytest.param((F16, F16), marks=MANY)], ids=str)
@pytest.mark.parametrize("size", [(4, 12), pytest.param((4, 8), marks=MANY)], ids=str)
def test_pixels_that_take_long_are_sorted(rule, dtypes, size, monkeypatch):
    """From lines to lines, too, so that three channels share what is computed for a pixel. Images lie apart and start
    at an odd address.
    """
    tilings, launch = [], fused.launch
    monkeypatch.setattr(
        fused, "launch", lambda *given, **options: tilings.append(given[4][1]) or launch(*given, **options)
    )
    numbers = np.random.default_rng(21)
    shape = (3, 3, *size)
    plan = draw_plan(rule, shape, numbers)
    images, _ = spread(draw_images(shape, dtypes[0], numbers), LAST, 144, 3)
    out, _ = spread(torch.full(shape, 171, dtype=dtypes[1], device=DEVICE), LAST, 144, 3)
    normal = UNCHANGED if dtypes[0] == dtypes[1] else affine(3)
    wanted = expected(images, plan, dtypes[1], normal)
    mix_fused(images, plan, out, **normal)
    assert torch.equal(out, wanted)
    takes_long = rule in ("resized", "grid", "turned grid") or (dtypes == (U8, U8) and not rule.startswith("bitmap"))
    order = "interleaved" if takes_long else "lines"
    if dtypes[0] == dtypes[1]:
        mix_fused(images, plan, images, **UNCHANGED)
        assert torch.equal(images, wanted)
    assert {(one.read, one.write) for one in tilings} == {(order, order)}


@pytest.mark.parametrize("rule", ["cutmix, roll", "bitmap, roll"])
@pytest.mark.parametrize("erasing", ["grid", "hidden cells"])
def test_a_tile_of_all_images_is_not_sorted(rule, erasing):
    """It holds one channel."""
    numbers = np.random.default_rng(22)
    shape = (3, 3, 4, 8)
    plan = draw_erasing(erasing, draw_plan(rule, shape, numbers), 3, numbers)
    images = draw_images(shape, U8, numbers).contiguous(memory_format=LAST)
    wanted = expected(images, plan, U8, UNCHANGED)
    mix_fused(images, plan, images, **UNCHANGED)
    assert torch.equal(images, wanted)


@pytest.mark.parametrize(
    "channels, size, gap, order",
    [
        (3, (4, 12), 0, "interleaved"),
        (3, (4, 12), 144, "interleaved"),  # every other image
        (3, (4, 12), 8, "strided"),
        (3, (4, 10), 0, "strided"),
        (4, (4, 12), 0, "strided"),
        (3, (1, 1), 0, "planes"),
    ],
)
@pytest.mark.parametrize("offset", [pytest.param(0, marks=MANY), 3])
@pytest.mark.parametrize("orders", [("nhwc", "nchw"), ("nchw", "nhwc")], ids="->".join)
@pytest.mark.parametrize("rule", ["cutmix", "cutmix, roll"])
def test_between_planes_and_lines(rule, orders, offset, channels, size, gap, order):
    """Images ``gap`` elements apart, also from an odd address on; what lies between them is left alone."""
    numbers = np.random.default_rng(15)
    shape = (3, channels, *size)
    plan = draw_erasing("erased boxes", draw_plan(rule, shape, numbers), channels, numbers)
    images, _ = spread(draw_images(shape, U8, numbers), FORMATS[orders[0]], gap, offset)
    out, memory = spread(torch.full(shape, float("nan"), device=DEVICE), FORMATS[orders[1]], gap, offset)
    chosen = tiling.tiling_of(images, out, in_place=False, normalise=True, by_pixel=False)
    assert (chosen.read if orders[0] == "nhwc" else chosen.write) == order
    wanted = expected(images, plan, F32, affine(channels))
    mix_fused(images, plan, out, **affine(channels))
    assert torch.equal(out, wanted)
    out.fill_(171)
    assert (memory == 171).all()


def spread(images, memory_format, gap, offset):
    """``images`` and the memory that they lie in, with ``gap`` elements after each, after ``offset``."""
    strides = images.contiguous(memory_format=memory_format).stride()
    step = images[0].numel() + gap
    memory = torch.full((offset + len(images) * step,), 171, dtype=images.dtype, device=DEVICE)
    return memory.as_strided(images.shape, (step, *strides[1:]), offset).copy_(images), memory


@pytest.mark.parametrize("rule", ["cutmix", "cutmix, roll", "resized", "pieces", "turned grid"])
@pytest.mark.parametrize("view", ["every other column", "turned", "one image for all", "odd start"])
def test_any_strides(rule, view):
    numbers = np.random.default_rng(4)
    shape = (2, 3, 5, 8)
    images = {
        "every other column": lambda: draw_images((2, 3, 5, 16), F32, numbers)[..., ::2],
        "turned": lambda: draw_images((2, 3, 8, 5), F32, numbers).mT,
        "one image for all": lambda: draw_images((1, 3, 5, 8), F32, numbers).expand(2, -1, -1, -1),
        "odd start": lambda: draw_images((2, 4, 5, 9), F32, numbers)[:, 1:, :, 1:],
    }[view]()
    plan = draw_plan(rule, shape, numbers)
    check(images, plan, F32, UNCHANGED)
    if view == "one image for all":
        return
    wanted = expected(images, plan, F32, UNCHANGED)
    mix_fused(images, plan, images, **UNCHANGED)
    assert torch.equal(images, wanted)


@pytest.mark.parametrize(
    "rule, erasing, order",
    [
        *itertools.product(MIXING + ERASING, [None], FORMATS),
        *itertools.product(MIXING, ["erased boxes", "turned grid", "hidden cells"], ["nchw"]),
    ],
)
def test_in_place(rule, erasing, order):
    numbers = np.random.default_rng(5)
    shape = (3, 2, 5, 8)
    plan = draw_plan(rule, shape, numbers)
    plan = plan if erasing is None else draw_erasing(erasing, plan, 2, numbers)
    for dtype in (U8, F32) if erasing is None else (F32,):
        images = draw_images(shape, dtype, numbers).contiguous(memory_format=FORMATS[order])
        wanted = expected(images, plan, dtype, UNCHANGED)
        mix_fused(images, plan, images, **UNCHANGED)
        assert torch.equal(images, wanted)


@pytest.mark.parametrize("erasing", [None, *ERASING])
@pytest.mark.parametrize("rule", [rule for rule in MIXING if not rule.startswith(("resized", "pieces"))])
def test_in_place_takes_no_memory(rule, erasing, monkeypatch):
    """Whatever the partners, unless they are read at other places than they are mixed into."""
    numbers = np.random.default_rng(16)
    shape = (3, 2, 5, 8)
    plan, images = draw_plan(rule, shape, numbers), draw_images(shape, F32, numbers)
    plan = pack(plan if erasing is None else draw_erasing(erasing, plan, 2, numbers), DEVICE)
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: pytest.fail("the batch was copied"))
    fused.mix(images, plan, images, **UNCHANGED)


@pytest.mark.parametrize("batch", [1, 5, 8, 9])
@pytest.mark.parametrize("vectors", [4, pytest.param(64, marks=MANY)])
def test_in_place_with_shuffled_partners(batch, vectors, monkeypatch):
    """In tiles of all images, several or one that holds more than there is; from a copy, if there are too many, or if
    images are read at other places than they are mixed into.
    """
    copied, clone = [], torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: copied.append(rule) or clone(tensor))
    monkeypatch.setattr(fused, "MOST_IMAGES", 8)
    monkeypatch.setattr(fused, "VECTORS_OF_ALL", vectors)
    numbers = np.random.default_rng(20)
    shape = (batch, 3, 4, 10)
    rules = ["mixup, roll", "bitmap, roll", "resized", "pieces", "pieces"]
    for rule in rules:
        plan = draw_erasing("erased boxes", draw_plan(rule, shape, numbers), 3, numbers)
        plan = replace(plan, partners=numbers.integers(0, batch, plan.partners.shape))
        images = draw_images(shape, F32, numbers)
        padded = poisoned(images, F32)
        padded[1:-1] = images
        mix_fused(padded[1:-1], plan, padded[1:-1], **UNCHANGED)
        assert torch.equal(padded[1:-1], expected(images, plan, F32, UNCHANGED))
        assert padded[0].isnan().all()
        assert padded[-1].isnan().all()
    assert copied == rules[2 if batch <= 8 else 0 :]


@pytest.mark.parametrize("rule", ["mixup", "mixup, roll", "erased boxes"])
def test_in_place_normalised(rule):
    numbers = np.random.default_rng(6)
    shape = (3, 2, 5, 8)
    plan, images = draw_plan(rule, shape, numbers), draw_images(shape, F32, numbers)
    wanted = expected(images, plan, F32, affine(2))
    mix_fused(images, plan, images, **affine(2))
    assert torch.equal(images, wanted)


@pytest.mark.parametrize("dtype", [U8, F32], ids=str)
@pytest.mark.parametrize("height", [3, pytest.param(6, marks=MANY)])
@pytest.mark.parametrize("orders", [("nchw", "nchw"), ("nhwc", "nhwc"), ("nchw", "nhwc")], ids="->".join)
@pytest.mark.parametrize("rule", ["nothing", "cutmix", "cutmix, roll"])
def test_noise(rule, dtype, orders, height):
    """Equal to rounding (2e-6): the logarithm in it is not the same everywhere; integers are equal."""
    numbers = np.random.default_rng(7)
    shape = (3, 3, height, 8)
    plan = draw_erasing("noise", draw_plan(rule, shape, numbers), 3, numbers)
    images = draw_images(shape, dtype, numbers).contiguous(memory_format=FORMATS[orders[0]])
    wanted = expected(images, plan, dtype, UNCHANGED)
    out = torch.empty_like(images, memory_format=FORMATS[orders[1]])
    mix_fused(images, plan, out, **UNCHANGED)
    torch.testing.assert_close(out, wanted, rtol=0, atol=0 if dtype == U8 else 2e-6)
    mix_fused(images, plan, images, **UNCHANGED)
    assert torch.equal(images, out)


def test_noise_on_grid_and_cells():
    numbers = np.random.default_rng(8)
    shape = (4, 2, 3, 8)
    images = draw_images(shape, U8, numbers)
    for rule in ("turned grid", "hidden cells"):
        plan = draw_erasing(rule, draw_plan("nothing", shape, numbers), 2, numbers)
        plan = replace(plan, noise=np.array([3, 0, 2**32 - 1, 5]))
        check(images, plan, U8, UNCHANGED)


INFINITE = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
"""What the interpreter's NumPy says of numbers that are to be infinite."""


@INFINITE
def test_a_partner_that_is_not_finite_stays_out():
    """Shares of 1 and 0 copy; nothing of the other image gets in, not even as 0 x infinity."""
    images = torch.full((2, 1, 4, 8), 3.0, device=DEVICE)
    images[1] = float("inf")
    plan = MixPlan(
        size=(4, 8),
        partners=np.array([[1], [0]]),
        shares=two_shares(np.ones(2, np.float32)),
        own_outside=np.ones(2, np.float32),
    )
    for partners in (plan.partners, np.array([[1], [1]])):
        out = torch.empty_like(images)
        mix_fused(images, replace(plan, partners=partners), out, **UNCHANGED)
        assert torch.equal(out, images)


def test_in_place_touches_only_the_box():
    """What lies outside the box is neither read nor written: there it may be anything, even not a number."""
    images = torch.full((2, 3, 8, 16), float("nan"), device=DEVICE)
    images[0, :, 2:4, 4:8], images[1, :, 2:4, 4:8] = 1, 2
    before = images.clone()
    box = np.tile(np.array([2, 4, 4, 8], np.int32), (2, 1))
    ones = np.ones(2, np.float32)
    plan = MixPlan(
        size=(8, 16),
        partners=np.array([[1], [0]]),
        shares=two_shares(ones),
        own_outside=ones,
        own_inside=0 * ones,
        box=box,
    )
    packed = pack(plan, DEVICE)
    fused.mix(images, packed, images, **UNCHANGED)
    outside = torch.ones(8, 16, dtype=torch.bool, device=DEVICE)
    outside[2:4, 4:8] = False
    same = images.view(torch.int32) == before.view(torch.int32)
    assert same[..., outside].all()
    assert (images[0, :, 2:4, 4:8] == 2).all()
    assert (images[1, :, 2:4, 4:8] == 1).all()


@pytest.mark.skipif(not INTERPRETED, reason="only the interpreter can choose the order of programs")
@pytest.mark.parametrize("rule", MIXING + ERASING)
def test_order_of_programs(rule, monkeypatch):
    """Last program first: if one read what another writes, in place, the result would change."""
    from triton.runtime import interpreter

    numbers = np.random.default_rng(9)
    shape = (3, 2, 5, 8)
    plan, images = draw_plan(rule, shape, numbers), draw_images(shape, F32, numbers)
    wanted = expected(images, plan, F32, UNCHANGED)
    builder, number = interpreter.interpreter_builder, interpreter.interpreter_builder.set_grid_idx
    last_first = lambda *at: number(*(length - 1 - one for length, one in zip(builder.grid_dim, at, strict=True)))  # noqa: E731
    monkeypatch.setattr(builder, "set_grid_idx", last_first)
    mix_fused(images, plan, images, **UNCHANGED)
    assert torch.equal(images, wanted)


def boxes_of(batch, box):
    """CutMix of neighbours, with the same box everywhere."""
    ones = np.ones(batch, np.float32)
    partners = np.arange(batch)[:, None] ^ 1
    box = np.tile(np.array(box, np.int32), (batch, 1))
    return MixPlan(
        size=(5, 8), partners=partners, shares=two_shares(ones), own_outside=ones, own_inside=0 * ones, box=box
    )


@pytest.mark.parametrize("row", range(5))
def test_in_place_finds_a_box_of_one_row(row):
    """Also in the first and the last row of a tile, which is passed over if nothing changes in it."""
    images = draw_images((2, 1, 5, 8), F32, np.random.default_rng(13))
    wanted = expected(images, boxes_of(2, [row, 2, row + 1, 3]), F32, UNCHANGED)
    mix_fused(images, boxes_of(2, [row, 2, row + 1, 3]), images, **UNCHANGED)
    assert torch.equal(images, wanted)


def test_partners_of_whom_nothing_is_taken():
    """They make no pairs: a pair is read for both of its images."""
    numbers = np.random.default_rng(17)
    plan = draw_plan("erased boxes", (2, 3, 4, 8), numbers)
    shares = two_shares(np.ones(2, np.float32))
    plan = replace(plan, partners=np.array([[1], [0]]), shares=shares)
    check(draw_images((2, 3, 4, 8), U8, numbers), plan, U8, UNCHANGED)


def test_halves_are_rounded_to_even():
    images = torch.arange(256, dtype=U8, device=DEVICE).repeat(2, 1).view(2, 1, 16, 16)
    images[1] = 7
    half = np.full(2, 0.5, np.float32)
    plan = MixPlan(size=(16, 16), partners=np.array([[1], [0]]), shares=two_shares(half), own_outside=half)
    check(images, plan, U8, UNCHANGED)


@pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel keeps the limit that it was compiled with")
def test_more_programs_than_one_axis_holds(monkeypatch):
    monkeypatch.setattr(fused, "GRID_LIMIT", 1)
    monkeypatch.setattr(fused, "_GRID_LIMIT", fused.tl.constexpr(1))
    numbers = np.random.default_rng(14)
    shape = (2, 2, 8, 18)  # 2 tiles of 2 channels
    plan = draw_erasing("noise", draw_plan("cutmix", shape, numbers), 2, numbers)
    plan.erase_box[0] = (0, 0, 8, 18)
    check(draw_images(shape, U8, numbers), plan, U8, UNCHANGED)


def test_launches_happen_on_the_device_of_the_tensors(monkeypatch):
    """Triton launches on the current device, which need not be theirs."""
    entered = []
    images, logits = torch.zeros(2, 3, 4, 4, device=DEVICE), torch.zeros(2, 5, device=DEVICE)
    labels, plan = torch.zeros(2, dtype=torch.int64, device=DEVICE), pack(identity(2, (4, 4)), DEVICE)

    class Recorded(contextlib.nullcontext):
        def __enter__(self):
            entered.append(self.enter_result)

    for module, name in (
        (fused, "mix"),
        (fused_targets.UnwrittenTargets, "write"),
        (fused_targets, "soft_cross_entropy"),
    ):
        monkeypatch.setattr(module, name, lambda *args, name=name, **options: entered.append(name) or logits)
    monkeypatch.setattr(torch.cuda, "device", Recorded)
    for module in (targets, losses):
        monkeypatch.setattr(module, "is_fusible", lambda tensor: True)
    monkeypatch.setattr(targets, "is_readable", lambda tensor: False)
    run_passes("fused", images, plan, images, None)
    mix_targets(labels, plan, num_classes=5)
    for target in (labels, torch.ones_like(logits)):
        soft_cross_entropy(logits, target, reduction="none")
    assert entered == [images.device, "mix", labels.device, "write", *[logits.device, "soft_cross_entropy"] * 2]


@INFINITE
@pytest.mark.parametrize("rule", ["mixup", "mixup, each", "cutmix, each", "mixup, roll", "resized"])
def test_an_image_that_is_its_own_partner_keeps_its_infinite_pixels(rule):
    """Also in place; of two infinite pixels the difference would be no number."""
    numbers = np.random.default_rng(3)
    plan = draw_plan(rule, (3, 2, 6, 8), numbers)
    plan = replace(plan, partners=np.array([[2], [1], [0]]), own_outside=np.full(3, 0.25, np.float32))
    if plan.resized is not None:
        plan = replace(plan, resized=np.zeros(3, np.int8))
    images = draw_images((3, 2, 6, 8), F32, numbers)
    images[1, :, ::2] = float("inf")
    wanted = expected(images, plan, F32, UNCHANGED)
    assert torch.equal(wanted[1], images[1])
    check(images, plan, F32, UNCHANGED)
    mix_fused(images, plan, images, **UNCHANGED)
    assert torch.equal(images, wanted)


@pytest.mark.parametrize("per", ["pair", "sample", "batch"])
@pytest.mark.parametrize("batch", [2, 5])
def test_pairs_that_are_set_rather_than_found(per, batch):
    """Where one image of a pair is left as it is, the numbers of its plan know no pair; the entry does."""
    transform = RandomChoice([MixUp(per=per), CutMix(per=per), Cutout(length=3)], p=[0.3, 0.3, 0.2], per=per)
    for step in range(4):
        plan = transform.draw_plan(draw_from(numbers_at(7, 0, step), (batch, 2, 5, 8), "matching"))
        images = draw_images((batch, 2, 5, 8), F32, np.random.default_rng(step))
        assert pack(plan, DEVICE).layout.paired
        wanted = expected(images, plan, F32, UNCHANGED)
        check(images, plan, F32, UNCHANGED)
        mix_fused(images, plan, images, **UNCHANGED)
        assert torch.equal(images, wanted)


@pytest.mark.parametrize("per", ["pair", "sample"])
def test_a_copy_in_which_partners_were_changed_is_mixed_as_it_says(per):
    """Also if each image is now its own partner, as one is in a pair that stays alone."""
    images = draw_images((4, 1, 2, 8), F32, np.random.default_rng(26))
    plan = pickle.loads(pickle.dumps(MixUp(per=per, seed=1).make_plan(images)))
    plan.partners[:2] = np.arange(2)[:, None]
    wanted = expected(images, plan, F32, UNCHANGED)
    check(images, plan, F32, UNCHANGED)
    mix_fused(images, plan, images, **UNCHANGED)
    assert torch.equal(images, wanted)


def test_no_images(monkeypatch):
    images, labels = torch.empty(0, 3, 4, 4, device=DEVICE), torch.empty(0, dtype=torch.int64, device=DEVICE)
    plan = pack(identity(0, (4, 4)), DEVICE)
    fused.mix(images, plan, images, **UNCHANGED)
    assert images.shape == (0, 3, 4, 4)
    assert soft_targets(labels, plan, num_classes=3).shape == (0, 3)
    features = torch.empty(0, 5, device=DEVICE)  # whose targets are written by the same launch
    targets = fused_targets.prepare_dense(labels, plan, num_classes=3)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    run_passes("fused", features, plan, features, None, targets)
    assert targets.out.shape == (0, 3)


def test_an_image_of_too_many_elements_is_refused():
    images = torch.empty(1, 1, 1, 2**30 + 1, device="meta")
    with pytest.raises(ValueError, match=r"an image must span at most 2\*\*30 elements .* got 1073741825"):
        mix_fused(images, identity(1, images.shape[2:]), images, **UNCHANGED)


def soft_targets(labels, plan, **options):
    """Written by a launch of their own."""
    unwritten = fused_targets.prepare_dense(labels, plan, **options)
    unwritten.write()
    return unwritten.out


KINDS_OF_TARGET = ["sparse", "dense", "dense float16"]


def as_kind(kind, target, classes):
    """The sparse ``target``, or its rows."""
    if kind == "sparse":
        return target
    return target.dense(classes).to(torch.float16 if kind == "dense float16" else torch.float32)


def fused_loss(logits, target, **options):
    labels, shares = target if isinstance(target, SoftTarget) else (None, target)
    return fused_targets.soft_cross_entropy(logits, shares, labels, **options)


def draw_target(batch, classes, sources, numbers):
    labels = torch.from_numpy(numbers.integers(0, classes, (batch, sources)))
    labels[::3, -1] = labels[::3, 0]  # the same class twice
    labels[1::3, 0] = -100  # no class
    shares = torch.from_numpy(numbers.dirichlet(np.ones(sources), batch).astype(np.float32))
    return SoftTarget(labels.to(DEVICE), shares.to(DEVICE))


@pytest.mark.parametrize("rule", ["nothing", "mixup", "mixup, roll", "pieces", "erased boxes"])
@pytest.mark.parametrize(
    "batch, classes, label_smoothing", [(1, 1, 0.0), (5, 7, 0.0), (5, 7, 0.1), (3, 1030, 0.0), (3, 1030, 0.1)]
)
def test_soft_targets(rule, batch, classes, label_smoothing):
    """Equal; with smoothing to 1e-7, because the sum of a row is another order of additions."""
    numbers = np.random.default_rng(10)
    plan = draw_plan(rule, (batch, 3, 4, 4), numbers)
    labels = torch.from_numpy(numbers.integers(0, classes, batch))
    labels[::3] = int(labels[-1])  # the same class twice
    labels[1::3] = -100  # no class
    options = {"num_classes": classes, "label_smoothing": label_smoothing}
    wanted = mix_targets(labels, plan, **options)
    made = soft_targets(labels.to(DEVICE), pack(plan, DEVICE), **options)
    torch.testing.assert_close(made.cpu(), wanted, rtol=0, atol=1e-7 if label_smoothing else 0)


@pytest.mark.parametrize("dtype", [U8, torch.int16, torch.int32], ids=str)
def test_soft_targets_of_narrow_labels(dtype):
    """A type need not hold num_classes or ignore_index."""
    plan = draw_plan("mixup, roll", (4, 3, 4, 4), np.random.default_rng(21))
    labels, options = torch.tensor([156, 0, 255, 7]), {"num_classes": 40_000}
    made = soft_targets(labels.to(DEVICE, dtype), pack(plan, DEVICE), **options)
    assert torch.equal(made.cpu(), mix_targets(labels, plan, **options))


@pytest.fixture
def as_on_a_device(monkeypatch):
    """Labels and images count as on a GPU, wherever they are."""
    monkeypatch.setattr(targets, "is_fusible", lambda tensor: True)
    monkeypatch.setattr(targets, "is_readable", lambda tensor: False)
    monkeypatch.setattr(importlib.import_module("mixcollate.kernels.prepare"), "choose", lambda images, impl: "fused")
    if DEVICE == "cpu":
        monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)


def draw_labels(kind, batch, numbers):
    """Labels, and how they become targets."""
    if kind == "rows":
        rows = numbers.random((batch, 6), np.float32)
        rows[::3, 2] = np.nan
        return torch.from_numpy(rows).half(), {}
    if kind == "multi-hot":
        return torch.from_numpy(numbers.random((batch, 6)) < 0.5), {"num_classes": 6}
    if kind == "values":
        return torch.from_numpy(numbers.random((batch, 2, 3), np.float32)), {"targets": "values"}
    labels = torch.from_numpy(numbers.integers(0, 6, 2 * batch))[::2]  # apart in memory
    labels[1::3] = -100
    return labels, {"num_classes": 6, "targets": kind}


LABELS = ["dense", "sparse", "rows", "multi-hot", "values"]


@pytest.mark.parametrize(
    "rules", [["mixup, roll"], ["pieces"], ["nothing"], ["mixup", "erased boxes"], ["mixup", "cutmix, roll"]], ids=str
)
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("packed", [False, True])
def test_mix_targets_is_fused(rules, kind, packed, as_on_a_device, monkeypatch):
    """Where it can be: a plan that mixes twice is left to torch."""
    numbers = np.random.default_rng(18)
    plan, *later = (draw_plan(rule, (4, 3, 4, 4), numbers) for rule in rules)
    plan = replace(plan, then=later[0]) if later else plan
    labels, options = draw_labels(kind, 4, numbers)
    with monkeypatch.context() as host:
        host.setattr(targets, "is_fusible", lambda tensor: False)
        wanted = mix_targets(labels, plan, **options)
    written, write = [], fused_targets.UnwrittenTargets.write
    monkeypatch.setattr(fused_targets.UnwrittenTargets, "write", lambda self: written.append(write(self)))
    made = mix_targets(labels.to(DEVICE), pack(plan, DEVICE) if packed else plan, **options)
    assert len(written) == (rules[-1] != "cutmix, roll")
    torch.testing.assert_close(to_host(made), wanted, rtol=0, atol=0, equal_nan=True)


def test_targets_are_launched_on_the_device_of_their_labels(monkeypatch):
    """Beside images that another implementation mixes, too."""
    entered = []
    images, plan = torch.zeros(4, 3, 4, 4), draw_plan("mixup", (4, 3, 4, 4), np.random.default_rng(24))
    labels = torch.arange(4, device=DEVICE)
    unwritten = fused_targets.prepare_dense(labels, pack(plan, DEVICE), num_classes=4)
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or contextlib.nullcontext())
    run_passes("reference", images, plan, images, None, unwritten)
    assert entered == [labels.device]
    torch.testing.assert_close(unwritten.out.sum(1).cpu(), torch.ones(4))


@pytest.mark.parametrize("kind", ["rows", "values"])
def test_a_gradient_flows_to_labels(kind, as_on_a_device):
    """Torch mixes those that want one; under ``no_grad`` they are numbers like any others."""
    labels, options = draw_labels(kind, 4, np.random.default_rng(23))
    labels = labels.nan_to_num().to(DEVICE).requires_grad_()
    plan = draw_plan("mixup", (4, 3, 4, 4), np.random.default_rng(23))
    mixed = mix_targets(labels, plan, **options)
    mixed.sum().backward()
    torch.testing.assert_close(labels.grad, torch.ones_like(labels))  # a pair's shares add up to 1
    with torch.no_grad():
        assert torch.equal(mix_targets(labels, plan, **options), mixed)


def to_host(target):
    return target.cpu() if isinstance(target, torch.Tensor) else SoftTarget(*(part.cpu() for part in target))


@pytest.mark.parametrize("classes, label_smoothing", [(1, 0.0), (7, 0.0), (7, 0.1), (1030, 0.0), (1030, 0.1)])
def test_rows_are_mixed_and_smoothed(classes, label_smoothing):
    """Rows with NaN, too; with smoothing to 1e-6, because the sum of a row is another order of additions."""
    numbers = np.random.default_rng(22)
    plan = draw_plan("pieces", (5, 3, 4, 4), numbers)
    rows = torch.from_numpy(numbers.random((5, classes), np.float32))
    rows[::2, ::3] = float("nan")
    wanted = mix_targets(rows, plan, label_smoothing=label_smoothing)
    unwritten = fused_targets.prepare_mixed(rows.to(DEVICE), pack(plan, DEVICE), label_smoothing=label_smoothing)
    unwritten.write()
    tolerance = 1e-6 if label_smoothing else 0
    torch.testing.assert_close(unwritten.out.cpu(), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("rule", ["nothing", "mixup", "mixup, roll", "cutmix, each", "pieces", "erased boxes"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "rows"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch", [1, 5])
def test_targets_in_the_launch_of_the_images(rule, kind, in_place, batch, as_on_a_device):
    """By programs of their own: pixels and targets are what either is alone."""
    numbers = np.random.default_rng(23)
    shape = (batch, 3, 5, 8)
    plan, images = draw_plan(rule, shape, numbers), draw_images(shape, F32, numbers)
    (labels, options), packed = draw_labels(kind, batch, numbers), pack(plan, DEVICE)
    rule_of_targets = targets.TargetRule(**options)
    wanted = rule_of_targets.mix(labels.to(DEVICE), packed), expected(images, plan, F32, UNCHANGED)
    made, unwritten = rule_of_targets.prepare(labels.to(DEVICE), packed)
    for tensor in (unwritten.out, unwritten.shares):
        tensor.fill_(-7)
    out = images if in_place else poisoned(images, F32)[1:-1]
    fused.mix(images, packed, out, targets=unwritten, **UNCHANGED)
    assert torch.equal(out, wanted[1])
    torch.testing.assert_close(made, wanted[0], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("rule", ["mixup", "mixup, roll", "pieces"])
def test_targets_of_the_images_themselves(rule):
    """Mixed in place, they still give the targets of what they were."""
    numbers = np.random.default_rng(27)
    plan, images = draw_plan(rule, (5, 3, 5, 8), numbers), draw_images((5, 3, 5, 8), F32, numbers)
    packed, wanted = pack(plan, DEVICE), mix_targets(images.cpu(), plan, targets="values")
    unwritten = fused_targets.prepare_mixed(images, packed)
    fused.mix(images, packed, images, targets=unwritten, **UNCHANGED)
    assert torch.equal(unwritten.out.cpu(), wanted)


class Counting(TorchDispatchMode):
    """What a device would be asked to do: launches, and torch's operators but for those that only make a tensor."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        if not name.startswith(FREE):
            self.asked.append(name)
        return function(*args, **(kwargs or {}))

    def launch(self, kernel, *arguments, **options):
        self.asked.append(kernel.fn.__name__)


FREE = ("empty", "view", "as_strided", "slice", "select", "detach", "alias", "unsqueeze", "squeeze", "permute")
FREE += ("record_stream",)  # a word to the allocator
CALLS = {
    "MixUp": lambda **options: MixUp(seed=1, **options),
    "MixUp, shuffled": lambda **options: MixUp(seed=1, per="sample", pairing="shuffle", **options),
    "CutMix, each": lambda **options: CutMix(seed=1, per="sample", **options),
    "RICAP": lambda **options: RICAP(seed=1, **options),
    "choice, erased": lambda **options: Compose(
        [RandomChoice([MixUp(), CutMix()], **options), RandomErasing(p=0.5)], seed=1
    ),
    "choice, noise": lambda **options: Compose(
        [RandomChoice([MixUp(), CutMix()], **options), RandomErasing(p=0.5, value="random")], seed=1
    ),
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_one_launch(name, kind, label_smoothing, in_place, as_on_a_device, monkeypatch):
    """Images and soft targets together, whatever the labels are; noise is a second. Nothing else is asked of the device
    but to copy the plan.
    """
    numbers = np.random.default_rng(24)
    labels, options = draw_labels(kind, 5, numbers)
    if kind not in ("sparse", "values"):
        options["label_smoothing"] = label_smoothing
    transform = CALLS[name](**options)
    vars(transform).update(inplace=in_place)  # of the containers alone
    images, counting = draw_images((5, 3, 6, 8), F32, numbers), Counting()
    for module in (fused, fused_targets):
        monkeypatch.setattr(module, "launch", counting.launch)
    plan, labels = transform.make_plan(images), labels.contiguous().to(DEVICE)
    with counting:
        transform.replay(images, labels, plan)
    if DEVICE == "cuda":  # the plan, beside what is queued or not
        assert counting.asked.pop(0) in ("copy_", "_to_copy")
    copied = ["clone"] if name == "RICAP" and in_place else []  # pieces are read where others are written
    assert counting.asked == [*copied, "mix_kernel", *(["noise_kernel"] if name == "choice, noise" else [])]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", CALLS)
def test_further_calls_do_as_the_first(name, kind, as_on_a_device):
    """They are not decided again; a copy of the transform decides for itself."""
    numbers = np.random.default_rng(26)
    labels, options = draw_labels(kind, 5, numbers)
    labels = labels if labels.ndim == 1 else labels.flatten(1)
    labels, transform = labels.contiguous().to(DEVICE), CALLS[name](**options)
    for _ in range(2):
        images, afresh = draw_images((5, 3, 6, 8), F32, numbers), copy.deepcopy(transform)
        (mixed, target), (wanted, wanted_target) = transform(images, labels), afresh(images, labels)
        assert torch.equal(mixed, wanted)
        torch.testing.assert_close(target, wanted_target, rtol=0, atol=0, equal_nan=True)


def test_several_images_and_labels(as_on_a_device, monkeypatch):
    """The launch for the first images writes the targets of the first labels; those of others have launches of their
    own.
    """
    numbers = np.random.default_rng(25)
    batch = {name: tv_tensors.Image(draw_images((5, 3, 6, 8), F32, numbers)) for name in ("left", "right")}
    batch |= {name: torch.from_numpy(numbers.integers(0, 6, 5)).to(DEVICE) for name in ("digit", "colour", "place")}
    options = {
        "num_classes": (6, 9, 7),
        "labels_getter": lambda batch: [batch[name] for name in ("digit", "colour", "place")],
    }
    mixed = CutMix(seed=1, **options)(batch)
    with monkeypatch.context() as torch_alone:
        torch_alone.setattr(targets, "is_fusible", lambda tensor: False)
        torch_alone.setattr(
            importlib.import_module("mixcollate.kernels.prepare"), "choose", lambda images, impl: "reference"
        )
        wanted = CutMix(seed=1, **options)(batch)
    for name in batch:
        assert torch.equal(mixed[name], wanted[name])


def test_labels_on_another_device_have_a_launch_of_their_own(as_on_a_device, monkeypatch):
    """Also if the plan was packed on the device of the images."""
    launched = []
    for module in (fused, fused_targets):
        monkeypatch.setattr(module, "launch", lambda _, __, tensors, *___, **____: launched.append(devices_of(tensors)))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    images, transform = draw_images((4, 3, 4, 8), F32, np.random.default_rng(28)), MixUp(num_classes=6, seed=1)
    packed = pack(transform.make_plan(images), DEVICE)
    transform.replay(images, torch.zeros(4, dtype=torch.int64, device="meta"), packed)
    assert launched == [{"meta"}, {DEVICE}]


def devices_of(tensors):
    return {tensor.device.type for tensor in tensors}


@INFINITE
def test_a_class_that_is_not_there_shows():
    """On a GPU nobody looks at labels before. Here a row is infinite: NaN would be what is not annotated."""
    plan = draw_plan("nothing", (3, 1, 4, 4), np.random.default_rng(19))
    labels, ones = torch.tensor([0, 3, -1], device=DEVICE), torch.ones(3, 1, device=DEVICE)
    for options in ({}, {"label_smoothing": 0.1}):
        rows = soft_targets(labels, pack(plan, DEVICE), num_classes=3, **options)
        assert rows.isposinf().all(1).tolist() == [False, True, True]
        assert rows[0].isfinite().all()
        for target in (rows, SoftTarget(labels[:, None], ones)):
            losses = fused_loss(torch.zeros(3, 3, device=DEVICE), target, **options)
            assert losses.isposinf().tolist() == [False, True, True]


@INFINITE
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_a_row_without_a_label_costs_nothing_whatever_its_logits(kind, bad, label_smoothing):
    logits = torch.tensor([[bad, 1.0, 2.0], [1.0, 2.0, 3.0]], device=DEVICE, requires_grad=True)
    target = SoftTarget(torch.tensor([[-100], [2]], device=DEVICE), torch.ones(2, 1, device=DEVICE))
    losses = fused_loss(logits, as_kind(kind, target, 3), label_smoothing=label_smoothing)
    losses.sum().backward()
    assert losses[0] == 0 and losses[1] > 0
    assert (logits.grad[0] == 0).all() and logits.grad.isfinite().all()
    assert fused_loss(logits, target, label_smoothing=label_smoothing, reduction="mean") == losses[1]


@pytest.mark.parametrize("batch, classes, sources", [(0, 3, 2), (1, 2, 1), (5, 7, 2), (2, 8195, 4)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_soft_cross_entropy(kind, batch, classes, sources, label_smoothing, dtype):
    """Against plain torch in float64, on the same rounded logits; the gradient is rounded to their dtype."""
    numbers = np.random.default_rng(12)
    target = as_kind(kind, draw_target(batch, classes, sources, numbers), classes)
    logits = torch.from_numpy(4 * numbers.standard_normal((batch, classes + 3)).astype(np.float32)).to(DEVICE, dtype)
    exact = logits[:, :classes].double().requires_grad_()
    wide = logits[:, :classes].requires_grad_()  # rows that do not follow each other in memory
    options = {"label_smoothing": label_smoothing}
    wanted = soft_cross_entropy(exact, target, reduction="none", **options)
    loss = fused_loss(wide, target, **options)
    loss = loss.mul_(1)  # each sample may be weighed in place
    torch.testing.assert_close(loss.double(), wanted, rtol=2e-6, atol=2e-6)
    for weigh in (torch.sum, lambda rows: (rows * torch.linspace(-1, 2, batch, device=DEVICE)).sum()):
        (grad,) = torch.autograd.grad(weigh(loss), wide, retain_graph=True)
        (wanted_grad,) = torch.autograd.grad(weigh(wanted), exact, retain_graph=True)
        assert grad.dtype == dtype
        tolerance = {F32: 1e-6, F16: 1e-3, BF16: 2**-7}[dtype]
        torch.testing.assert_close(grad.double(), wanted_grad, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize(
    "pack_as", [torch.Tensor.clone, lambda rows: rows.mT.contiguous().mT if rows.ndim == 2 else rows]
)
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_saved_tensors_may_come_back_in_another_order(kind, pack_as):
    """As from ``torch.autograd.graph.save_on_cpu``, which keeps no gaps between rows."""
    numbers = np.random.default_rng(27)
    target = as_kind(kind, draw_target(4, 7, 2, numbers), 10)
    logits = torch.from_numpy(numbers.standard_normal((4, 10)).astype(np.float32)).to(DEVICE).requires_grad_()
    if kind == "sparse":
        target = SoftTarget(target.labels, torch.cat([target.shares, target.shares], 1)[:, :2])
    else:
        target = target[:, :7]  # like the logits, rows that do not follow each other in memory
    (wanted,) = torch.autograd.grad(fused_loss(logits[:, :7], target).sum(), logits)
    with torch.autograd.graph.saved_tensors_hooks(pack_as, lambda packed: packed):
        loss = fused_loss(logits[:, :7], target).sum()
    assert torch.equal(torch.autograd.grad(loss, logits)[0], wanted)


@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_soft_cross_entropy_is_stable(kind):
    """Large logits neither overflow nor lose the small ones, and a row without a label costs nothing."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [3.0, 2.0, 1.0]], device=DEVICE, requires_grad=True)
    labels = torch.tensor([[0, 1], [2, 2], [-100, -100]], device=DEVICE)
    shares = torch.tensor([[0.5, 0.5]] * 3, device=DEVICE)
    loss = fused_loss(logits, as_kind(kind, SoftTarget(labels, shares), 3))
    torch.testing.assert_close(loss, torch.tensor([1e4, 1.098612, 0], device=DEVICE), rtol=1e-5, atol=1e-3)
    loss.sum().backward()
    assert (logits.grad[2] == 0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("level", [1e4, 1e6, -1e6])
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_the_gradient_of_large_logits_loses_nothing(kind, level):
    """That of a float32 row is as exact wherever its logits lie: what they differ by is the same."""
    steps = torch.tensor([[0.0, 0.5, 1.0, -2.0, 0.25]], device=DEVICE)  # which float32 can add to any level
    target = SoftTarget(torch.tensor([[0, 3]], device=DEVICE), torch.tensor([[0.25, 0.75]], device=DEVICE))
    logits = (steps + level).requires_grad_()
    fused_loss(logits, as_kind(kind, target, 5)).sum().backward()
    torch.testing.assert_close(logits.grad, steps.softmax(1) - target.dense(5), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # by the interpreter's NumPy
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_smoothing_of_the_largest_logits(kind):
    """Finite, if their differences are."""
    logits = torch.tensor([[1e32, 0.0, 1.0, -1e32, 0.0]], device=DEVICE)
    target = SoftTarget(torch.tensor([[0, 3]], device=DEVICE), torch.tensor([[0.25, 0.75]], device=DEVICE))
    wanted = soft_cross_entropy(logits.double(), target, label_smoothing=0.1)
    loss = fused_loss(logits, as_kind(kind, target, 5), label_smoothing=0.1)
    torch.testing.assert_close(loss.double(), wanted[None])


@pytest.mark.parametrize("classes", [5, 8200])
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_soft_cross_entropy_of_a_row_that_is_masked_throughout(kind, classes):
    """As some do it, with the lowest finite number: every class is as likely as any other, as in torch."""
    target = SoftTarget(torch.tensor([[0, 3]], device=DEVICE), torch.tensor([[0.25, 0.75]], device=DEVICE))
    for dtype in (F32, BF16):
        logits = torch.full((1, classes), torch.finfo(dtype).min, dtype=dtype, device=DEVICE, requires_grad=True)
        loss = fused_loss(logits, as_kind(kind, target, classes))
        torch.testing.assert_close(loss, torch.tensor([math.log(classes)], device=DEVICE))
        loss.sum().backward()
        wanted = (1 / classes - target.dense(classes)).to(dtype)
        torch.testing.assert_close(logits.grad, wanted, rtol=2**-7 if dtype == BF16 else 1e-6, atol=1e-6)


@INFINITE
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_soft_cross_entropy_of_classes_ruled_out(kind, first):
    """Logits of minus infinity, even a whole block of them, the first or the last."""
    logits = torch.full((1, 8200), -float("inf"), device=DEVICE)
    start = 0 if first else 8198
    logits[0, start : start + 2] = torch.tensor([1.0, 2.0])
    labels, shares = torch.tensor([[0, 1]], device=DEVICE), torch.tensor([[0.25, 0.75]], device=DEVICE)
    wanted = soft_cross_entropy(logits[:, start : start + 2], SoftTarget(labels, shares), reduction="none")
    logits.requires_grad_()
    losses = fused_loss(logits, as_kind(kind, SoftTarget(labels + start, shares), 8200))
    torch.testing.assert_close(losses, wanted)
    losses.sum().backward()
    chances = torch.tensor([1.0, 2.0], device=DEVICE).softmax(0)
    torch.testing.assert_close(logits.grad[0, start : start + 2], chances - shares[0])
    assert logits.grad.count_nonzero() == 2
    wrong = SoftTarget(labels + 1, shares) if first else SoftTarget(labels + start - 1, shares)
    assert fused_loss(logits, as_kind(kind, wrong, 8200)).isposinf().all()


@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_soft_cross_entropy_of_rows(ignore_index, label_smoothing, dtype):
    """Of several blocks, of any sums, also negative; entries that are NaN, or of the ignored class, are left out."""
    numbers = np.random.default_rng(13)
    values = np.where(numbers.random((4, 9001)) < 0.5, 0, numbers.standard_normal((4, 9001)))
    rows = torch.from_numpy(values.astype(np.float32)).to(DEVICE, dtype)
    rows[1, 7], rows[2], rows[3, 3] = float("nan"), 0, float("nan")
    rows = rows[:, :9000]  # which do not follow each other in memory
    logits = torch.from_numpy(30 * numbers.standard_normal((4, 9000)).astype(np.float32)).to(DEVICE)
    logits[0] += 1000
    logits[[0, 3], 8500] += 150  # in the last block the top rises
    exact = logits.double().requires_grad_()
    logits.requires_grad_()
    options = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
    wanted = soft_cross_entropy(exact, rows, reduction="none", **options)
    losses = fused_loss(logits, rows, **options)
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=2e-3)  # sums of thousands that cancel out
    known = rows.float().nan_to_num(0.0)
    if ignore_index >= 0:
        known[:, ignore_index] = 0
    mean = fused_loss(logits, rows, reduction="mean", **options)
    torch.testing.assert_close(mean, losses.sum() / known.sum(), rtol=1e-5, atol=1e-4)
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), exact)
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-4, atol=1e-4)
    seen = fused_loss(logits, rows, ignore_nan=False, **options)
    assert seen.isnan().tolist() == [False, True, False, ignore_index != 3]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", ["indices", "sparse", "dense", "float64", "bool", "nothing", "nothing in rows"])
def test_the_loss_of_a_gpu_is_that_of_the_host(target, reduction, monkeypatch):
    """Whatever the target is made of; a mean over nothing is NaN, and its gradient 0."""
    numbers = np.random.default_rng(14)
    logits = torch.from_numpy(numbers.standard_normal((6, 5)).astype(np.float32)).requires_grad_()
    sparse = SoftTarget(*(part.cpu() for part in draw_target(6, 5, 2, numbers)))
    given = {
        "indices": sparse.labels[:, 0],
        "sparse": sparse,
        "dense": sparse.dense(5),
        "float64": sparse.dense(5).double(),
        "bool": sparse.dense(5) > 0,
        "nothing": torch.full((6,), -100),
        "nothing in rows": torch.full((6, 5), float("nan")),
    }[target]
    options = {"label_smoothing": 0.1, "ignore_index": -100, "reduction": reduction}
    wanted = soft_cross_entropy(logits, given, **options)
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), logits)
    monkeypatch.setattr(losses, "is_fusible", lambda tensor: True)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    there = logits.detach().to(DEVICE).requires_grad_()
    moved = SoftTarget(*(part.to(DEVICE) for part in given)) if target == "sparse" else given.to(DEVICE)
    launch, launched = fused_targets.launch, []

    def counted(kernel, *arguments, **constants):
        launched.append(kernel.fn.__name__)
        launch(kernel, *arguments, **constants)

    monkeypatch.setattr(fused_targets, "launch", counted)
    loss = soft_cross_entropy(there, moved, **options)
    (grad,) = torch.autograd.grad(loss.sum(), there)
    assert launched == ["cross_entropy_kernel", "cross_entropy_gradient_kernel"]
    torch.testing.assert_close(loss.cpu(), wanted, equal_nan=True)
    torch.testing.assert_close(grad.cpu(), wanted_grad)
    if target == "float64":  # a target that is learned, too, has a gradient
        soft_cross_entropy(there, moved.requires_grad_(), **options).sum().backward()
        assert moved.grad.isfinite().all()


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_a_gradient_that_is_differentiated_again(kind, reduction, monkeypatch):
    """As in a gradient penalty, it is no constant, wherever the logits lie in memory."""
    numbers = np.random.default_rng(29)
    target = as_kind(kind, SoftTarget(*(part.cpu() for part in draw_target(6, 5, 2, numbers))), 5)
    weights = torch.from_numpy(numbers.standard_normal((5, 6)).astype(np.float32)).requires_grad_()

    def penalty(device):
        here = SoftTarget(*(part.to(device) for part in target)) if kind == "sparse" else target.to(device)
        logits = weights.to(device).T
        loss = soft_cross_entropy(logits, here, reduction=reduction, label_smoothing=0.1).sum()
        (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
        return torch.autograd.grad(loss + grad.square().sum(), weights)[0]

    wanted = penalty("cpu")
    monkeypatch.setattr(losses, "is_fusible", lambda logits: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    torch.testing.assert_close(penalty(DEVICE), wanted)


@pytest.mark.parametrize("kind", KINDS_OF_TARGET)
def test_gradients_of_all_samples_at_once(kind, monkeypatch):
    """By ``is_grads_batched``, which vectorises the backward pass over wrappers without memory."""
    numbers = np.random.default_rng(30)
    target = as_kind(kind, draw_target(4, 5, 2, numbers), 5)
    logits = torch.from_numpy(numbers.standard_normal((4, 5)).astype(np.float32)).to(DEVICE).requires_grad_()
    monkeypatch.setattr(losses, "is_fusible", lambda logits: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    loss, each = soft_cross_entropy(logits, target, reduction="none"), torch.eye(4, device=DEVICE)
    (batched,) = torch.autograd.grad(loss, logits, each, is_grads_batched=True, retain_graph=True)
    wanted = [torch.autograd.grad(loss, logits, one, retain_graph=True)[0] for one in each]
    torch.testing.assert_close(batched, torch.stack(wanted))


def test_numbers_of_numpy_and_torch_reach_kernels_as_pythons(as_on_a_device, monkeypatch):
    """The interpreter runs with any; the compiler knows no others."""
    given = []
    for module in (fused, fused_targets):
        monkeypatch.setattr(module, "launch", lambda *arguments, **options: given.extend(arguments[3:]))
    monkeypatch.setattr(losses, "is_fusible", lambda tensor: True)
    plan, labels = draw_plan("mixup", (4, 3, 4, 4), np.random.default_rng(25)), torch.zeros(4, dtype=torch.int64)
    for smoothing, index, classes in (
        (np.float32(0.25), np.int64(3), np.int64(5)),
        (torch.tensor(0.25), torch.tensor(3), torch.tensor(5)),
    ):
        options = {"label_smoothing": smoothing, "ignore_index": index}
        rows = mix_targets(labels.to(DEVICE), plan, num_classes=classes, **options)
        soft_cross_entropy(torch.zeros(4, 5, device=DEVICE), rows, **options)
    numbers = [number for part in given for one in part for number in (one if isinstance(one, tuple) else [one])]
    assert len(given) == 8 and {type(number) for number in numbers} == {int, float, bool, str}


def few_that_cover(launched):
    """Few launches, in which any two types and constants occur together that do so in one of all ``launched``.

    Of a number that is neither type nor tile, such as a stride or a place in a row, it matters only whether it is 0,
    1 or more: the code asks for nothing else.
    """
    parts = []
    for name, arguments, constants in launched:
        tile = {"vec", "group", "batch", "images"}
        numbers = {
            f"argument {k}": min(value, 2) if isinstance(value, int) else value for k, value in enumerate(arguments)
        }
        for place, constant in enumerate(constants):
            fields = constant._asdict() if isinstance(constant, tuple) else {f"constant {place}": constant}
            numbers |= {k: v if k in tile or type(v) is not int else min(v, 2) for k, v in fields.items()}
        parts.append([(name, key, str(value)) for key, value in numbers.items()])
    pairs = {pair: k for k, pair in enumerate({pair for each in parts for pair in itertools.combinations(each, 2)})}
    holds = np.zeros((len(launched), len(pairs)), bool)
    for row, each in zip(holds, parts, strict=True):
        row[[pairs[pair] for pair in itertools.combinations(each, 2)]] = True
    few, missing = [], holds.any(0)
    while missing.any():
        best = (holds & missing).sum(1).argmax()
        few.append(launched[best])
        missing &= ~holds[best]
    return few


@pytest.mark.skipif(not INTERPRETED, reason="the tests above have compiled them already")
def test_what_ran_here_compiles(tmp_path):
    """The interpreter runs what the compiler refuses: a return in the middle, or branches of several shapes. All of
    it takes a minute, for which ``make test-deep`` has the time.
    """
    launched = list(LAUNCHED.values())
    launched = launched if os.environ.get("COMPILE") == "all" else few_that_cover(launched)
    (tmp_path / "launched").write_bytes(pickle.dumps(launched))
    compiling("tests.ahead_of_time", tmp_path / "launched")
