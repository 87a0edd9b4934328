"""The reference against a loop over pixels that shares nothing with it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from mixcollate import methods
from mixcollate.draw import draw_from
from mixcollate.kernels import mix
from mixcollate.kernels.noise import noise
from mixcollate.plan import MixPlan, identity, select
from mixcollate.stream import numbers
from tests import cases

DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]
MEAN, STD = (0.4, 0.5, 0.25), (0.2, 0.3, 0.4)


def draw_images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return levels if dtype == torch.uint8 else (levels.double() / 255).to(dtype)


# The oracle: Python numbers, one pixel after the other.


def bit(words: np.ndarray, index: int) -> bool:
    return bool(words[index // 8] >> (index % 8) & 1)


def is_in_box(plan: MixPlan, b: int, row: int, col: int) -> bool:
    top, left, bottom, right = plan.box[b].tolist()
    inside = top <= row < bottom and left <= col < right
    return inside and (plan.bitmap is None or bit(plan.bitmap[b, row], col))


def resized_pixel(channel: np.ndarray, box: list[int], row: int, col: int, kind: int) -> float:
    """The pixel of ``channel``, shrunk into ``box``; pixel centres lie at one half."""
    (height, width), (top, left, bottom, right) = channel.shape, box
    y, x = (row - top + 0.5) * height / (bottom - top), (col - left + 0.5) * width / (right - left)
    if kind == 1:
        return float(channel[int(y), int(x)])
    total = 0.0
    for r, c in itertools.product(range(-1, height + 1), range(-1, width + 1)):  # tents, the border repeated
        tent = max(0, 1 - abs(r + 0.5 - y)) * max(0, 1 - abs(c + 0.5 - x))
        total += tent * float(channel[min(max(r, 0), height - 1), min(max(c, 0), width - 1)])
    return total


def mixed_pixel(images: np.ndarray, plan: MixPlan, b: int, c: int, row: int, col: int) -> tuple[float, bool]:
    """The value, and whether it is a copy of one pixel."""
    value, copied = float(images[b, c, row, col]), True
    if plan.corner is not None:
        piece = 2 * int(row >= plan.corner[b, 0]) + int(col >= plan.corner[b, 1])
        source = b if piece == 0 else plan.partners[b, piece - 1]
        down, across = plan.shift[b, piece].tolist()
        assert min(row + down, col + across) >= 0
        value = float(images[source, c, row + down, col + across])
    if plan.own_outside is not None:
        inside = plan.box is not None and is_in_box(plan, b, row, col)
        own = float(plan.own_inside[b] if inside else plan.own_outside[b])
        if own != 1:
            other = float(images[plan.partners[b, 0], c, row, col])
            kind = 0 if plan.resized is None else int(plan.resized[b])
            if kind > 0:
                other = resized_pixel(images[plan.partners[b, 0], c], plan.box[b].tolist(), row, col, kind)
            copied = own == 0 and kind < 2
            value = other if own == 0 else value + (1 - own) * (other - value)
    return value, copied


def is_on_grid(plan: MixPlan, b: int, row: int, col: int) -> bool:
    tile, hole, down, across, inverted = plan.grid[b].tolist()
    if tile == 0:
        return False
    cosine, sine = plan.turn[b]  # float32, as the definition says: many pixels lie on a line of the grid
    y, x = np.float32(row + 0.5 - plan.size[0] / 2), np.float32(col + 0.5 - plan.size[1] / 2)
    row, col = math.floor(cosine * y - sine * x), math.floor(sine * y + cosine * x)
    assert min(row + down, col + across) >= 0
    return ((row + down) % tile < hole and (col + across) % tile < hole) != bool(inverted)


def erased_by(plan: MixPlan, b: int, row: int, col: int) -> int | None:
    """The number of the fill that the pixel takes."""
    if plan.hidden is not None:
        side = int(plan.cell[b])
        if bit(plan.hidden[b, row // side], col // side):
            return 0
    if plan.grid is not None and is_on_grid(plan, b, row, col):
        return 0
    boxes = [] if plan.erase_box is None else plan.erase_box[b].tolist()
    over = [n for n, (top, left, bottom, right) in enumerate(boxes) if top <= row < bottom and left <= col < right]
    return max(over, default=None)


def noise_bits(place: int, key: int) -> int:
    def scramble(x: int) -> int:  # https://nullprogram.com/blog/2018/07/31/
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    return scramble((scramble(place) + key) % 2**32)


BLENDED, COPIED, NOISE = range(3)


def oracle(
    images: Tensor, plan: MixPlan, scale: list[float], bias: list[float], integer: bool
) -> tuple[Tensor, Tensor]:
    """The exact result in float64 (for normal noise: the uniform number behind it), and how each pixel came about."""
    pixels = images.double().numpy()
    exact, origin = np.empty_like(pixels), np.empty(pixels.shape, np.int64)
    height, width = pixels.shape[2:]
    for b, c, row, col in np.ndindex(*pixels.shape):
        value, copied = mixed_pixel(pixels, plan, b, c, row, col)
        value, copied = value * scale[c] + bias[c], copied and (scale[c], bias[c]) == (1, 0)
        how = COPIED if copied else BLENDED
        box = erased_by(plan, b, row, col) if plan.fill is not None else None
        if box is not None:
            value, how = float(plan.fill[b, box, c % plan.fill.shape[2]]), COPIED
            if plan.noise is not None and plan.noise[b]:
                bits = noise_bits((c * height + row) * width + col, int(plan.noise[b]))
                value, how = (bits >> 24, COPIED) if integer else (((bits >> 16) + 0.5) / 2**16, NOISE)
        exact[b, c, row, col], origin[b, c, row, col] = value, how
    return torch.from_numpy(exact), torch.from_numpy(origin)


def check(result: Tensor, images: Tensor, plan: MixPlan, scale: list[float], bias: list[float]) -> None:
    integer = not result.dtype.is_floating_point
    exact, origin = oracle(images, plan, scale, bias, integer)
    assert torch.equal(result[origin == COPIED], exact.to(result.dtype)[origin == COPIED])
    # A blend is float32 arithmetic (a few parts in 10 million), then rounded once.
    ulp = 1.0 if integer else torch.finfo(result.dtype).eps
    slack = 1e-5 * exact.abs().clamp(min=1) + ulp / 2 * (1 if integer else exact.abs())
    assert ((result.double() - exact).abs() <= slack)[origin == BLENDED].all()
    # Single precision has 23 bits or more; rounding x by a share moves its quantile by a quarter of that at most.
    quantile = torch.special.ndtr(result.double())
    assert ((quantile - exact).abs() <= 2**-22 + ulp / 8)[origin == NOISE].all()


@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
@pytest.mark.parametrize("name", [*cases.METHODS, "all"])
def test_every_pixel(name, shape):
    for per, seed in itertools.product(("pair", "sample", "batch"), range(2)):
        plan = cases.plan(name, shape, per=per, seed=seed)
        images = draw_images(shape, torch.float32)
        before = images.clone()
        result = mix(images, plan, impl="reference")
        assert torch.equal(images, before)
        while plan is not None:
            first = replace(plan, then=None)
            check(mix(images, first, impl="reference"), images, first, [1.0] * shape[1], [0.0] * shape[1])
            images, plan = mix(images, first, impl="reference"), plan.then
        assert torch.equal(result, images)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.METHODS)
def test_every_dtype(name, dtype):
    shape = (4, 3, 7, 5)
    plan, images = cases.plan(name, shape), draw_images(shape, dtype)
    result = mix(images, plan, impl="reference")
    assert result.dtype == dtype
    check(result, images, plan, [1.0] * 3, [0.0] * 3)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "ricap", "resizemix", "fmix", "random_erasing", "gridmask"])
@pytest.mark.parametrize("dtypes", [(torch.uint8, torch.float32), (torch.uint8, torch.bfloat16), (torch.float32,) * 2])
def test_normalised(name, dtypes):
    """(mixed / 255 - mean) / std in the result's dtype; the fill is in the units of the result."""
    shape = (3, 3, 5, 4)
    plan, images = cases.plan(name, shape), draw_images(shape, dtypes[0])
    result = mix(images, plan, mean=MEAN, std=STD, dtype=dtypes[1], impl="reference")
    levels = 255 if dtypes[0] == torch.uint8 else 1
    scale = [1 / (levels * s) for s in STD]
    check(result, images, plan, scale, [-m / s for m, s in zip(MEAN, STD, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_uint8_becomes_floats_in_0_to_1(dtype):
    shape = (3, 3, 5, 4)
    plan, images = cases.plan("mixup", shape), draw_images(shape, torch.uint8)
    check(mix(images, plan, dtype=dtype, impl="reference"), images, plan, [1 / 255] * 3, [0.0] * 3)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_resizing_is_torch_s(mode):
    """A second opinion: ``interpolate`` with its centres aligned."""
    images = draw_images((4, 3, 23, 17), torch.float64)
    draw = draw_from(numbers(3, 0, 0), tuple(images.shape), "shuffle")
    plan = cases.drawn(methods.ResizeMix(scale=(0.1, 0.9), interpolation=mode), draw, "sample")
    mixed = mix(images, plan, impl="reference")
    for b, (top, left, bottom, right) in enumerate(plan.box.tolist()):
        theirs = torch.nn.functional.interpolate(
            images[plan.partners[b]],
            (bottom - top, right - left),
            mode="bilinear" if mode == "bilinear" else "nearest-exact",
        )
        torch.testing.assert_close(mixed[b : b + 1, :, top:bottom, left:right], theirs)


def test_a_quarter_turn_turns_the_grid():
    shape = (1, 1, 12, 12)
    images = torch.ones(shape)
    straight = replace(
        identity(1, (12, 12)),
        grid=np.array([[5, 2, 21, 23, 0]], np.int32),
        turn=np.array([[1, 0]], np.float32),
        fill=np.zeros((1, 1, 1), np.float32),
    )
    turned = replace(straight, turn=np.array([[0, -1]], np.float32))
    one, other = mix(images, straight, impl="reference"), mix(images, turned, impl="reference")
    assert 0 < one.mean() < 1
    assert torch.equal(torch.rot90(one, 1, (2, 3)), other)  # counter-clockwise for a negative angle, as PIL turns


def test_straight_and_turned_grids_go_together():
    """A plan that holds both kinds treats each image as its own plan does."""
    shape = (4, 1, 9, 12)
    draw = draw_from(numbers(0, 0, 0), shape, "matching")
    plans = [cases.METHODS[name](draw, "sample") for name in ("gridmask", "gridmask-straight")]
    images, choice = torch.ones(shape), np.array([0, 1, 1, 0])
    both = mix(images, select(choice, plans), impl="reference")
    alone = torch.stack([mix(images, plan, impl="reference") for plan in plans])
    assert torch.equal(both, alone[torch.from_numpy(choice), torch.arange(4)])


def key_of(bits: int) -> int:
    """The key that gives place 0 these bits: ``noise_bits`` run backwards (place 0 scrambles to 0)."""
    bits ^= bits >> 16
    bits = bits * pow(0x846CA68B, -1, 2**32) % 2**32
    bits ^= bits >> 15 ^ bits >> 30
    bits = bits * pow(0x7FEB352D, -1, 2**32) % 2**32
    return bits ^ bits >> 16


@pytest.mark.parametrize("bits", [0, 1, 0x1FF, 0x7FFFFFFF, 0x80000000, 0xFFFFFE00, 0xFFFFFFFF], ids=hex)
def test_noise_is_finite_at_the_ends(bits):
    """The uniform number behind normal noise is never 0 or 1, whatever the hash."""
    key = key_of(bits)
    assert noise_bits(0, key) == bits
    normal = noise(torch.tensor(0), torch.tensor(key), integer=False)
    assert scipy.stats.norm.cdf(normal.item()) == pytest.approx(((bits >> 16) + 0.5) / 2**16, abs=2**-22)
    assert noise(torch.tensor(0), torch.tensor(key), integer=True) == bits >> 24


def test_noise_is_normal_or_uniform():
    place, keys = torch.arange(50_000), torch.tensor([[1], [2], [2**32 - 1]])
    normal = noise(place, keys, integer=False)
    assert scipy.stats.kstest(normal.flatten().double().numpy(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(normal.double().numpy()) - np.eye(3)).max() < 4 / math.sqrt(50_000)  # 4 standard errors
    counts = noise(place, keys, integer=True).flatten().long().bincount(minlength=256)
    assert len(counts) == 256
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_noise_differs_between_images_and_repeats_with_the_plan():
    draw = draw_from(numbers(0, 0, 0), (2, 3, 16, 16), "matching")
    plan = cases.drawn(methods.Cutout(length=16, inside=True, fill="noise"), draw, "sample")
    first = mix(torch.zeros(2, 3, 16, 16), plan, impl="reference")
    assert torch.equal(first, mix(torch.zeros(2, 3, 16, 16), plan, impl="reference"))
    assert not (first[0] == first[1]).any()
