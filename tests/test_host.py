"""The fast CPU path against the reference: every bit the same, whatever comes in."""

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mixcollate import methods
from mixcollate.draw import draw_from
from mixcollate.kernels import host, mix
from mixcollate.plan import MixPlan, chain, restrict, select, two_shares
from mixcollate.stream import numbers
from tests import cases

DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]
STATISTICS = {"mean": (0.4, 0.5, 0.25), "std": (0.2, 0.3, 0.4)}


def draw_images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    levels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return levels if dtype == torch.uint8 else (levels.double() / 255).to(dtype)


def contiguous(images: Tensor) -> Tensor:
    return images.clone()


def channels_last(images: Tensor) -> Tensor:
    return images.clone(memory_format=torch.channels_last)


def sliced(images: Tensor) -> Tensor:
    """Every other row of something bigger, transposed: no stride is what it usually is."""
    batch, channels, height, width = images.shape
    bigger = images.new_zeros(batch + 1, channels, width + 2, 2 * height)
    view = bigger[1:, :, 1:-1, ::2].transpose(2, 3)
    return view.copy_(images)


@pytest.fixture(params=["torch", "Numba"], autouse=True)
def loops(request, monkeypatch):
    """Blends in plain torch, and as compiled loops; or neither, where nothing asks for them."""
    if request.param == "torch":
        monkeypatch.setattr(host, "loops", lambda: None)
    elif request.param == "neither":
        monkeypatch.setattr(host, "loops", lambda: pytest.fail("there are loops for this: name it in LOOPED"))
    elif host.loops() is None:
        pytest.skip("Numba is not installed, or cannot work here")


LOOPED = ["mixup", "cutmix", "cutmix-soft", "all"]
each_method = pytest.mark.parametrize(
    "name, loops",
    [(name, loops) for name in LOOPED for loops in ("torch", "Numba")]
    + [(name, "neither") for name in cases.METHODS if name not in LOOPED],
    indirect=["loops"],
)


LAYOUTS = [contiguous, channels_last, sliced]


def poisoned(images: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.full_like(images, float("nan") if dtype.is_floating_point else 77, dtype=dtype)


BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Unlike ``torch.equal``, this tells 0 from -0, and takes a NaN for itself."""
    bits = BITS[one.element_size()]
    return one.dtype == other.dtype and torch.equal(one.view(bits), other.view(bits))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each_method
def test_host_is_reference(name, dtype):
    """Out of place and in place, in every layout, mutual pairs or not."""
    for shape in cases.SHAPES:
        for per, pairing in (("pair", "matching"), ("sample", "shuffle"), ("batch", "flip")):
            plan = cases.plan(name, shape, per=per, pairing=pairing)
            images = draw_images(shape, dtype)
            expected = mix(images, plan, impl="reference")
            for layout in LAYOUTS:
                source = layout(images)
                out = poisoned(source, dtype)
                assert mix(source, plan, out=out, impl="host") is out
                assert same_bits(out, expected), (shape, per, layout)
                assert same_bits(source, images)
                assert mix(source, plan, out=source, impl="host") is source
                assert same_bits(source, expected), (shape, per, layout)


@each_method
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_converting_and_normalising(name, source):
    shape = (5, 3, 7, 6)
    plan, images = cases.plan(name, shape), draw_images(shape, source)
    for dtype in DTYPES[1:]:
        for statistics in ({}, STATISTICS):
            expected = mix(images, plan, dtype=dtype, impl="reference", **statistics)
            for memory_format in (torch.contiguous_format, torch.channels_last):
                result = mix(images, plan, dtype=dtype, memory_format=memory_format, impl="host", **statistics)
                assert result.is_contiguous(memory_format=memory_format)
                assert same_bits(result, expected), (dtype, statistics, memory_format)


@pytest.mark.parametrize("dtypes", [(torch.uint8,) * 2, (torch.uint8, torch.float32), (torch.float32,) * 2], ids=str)
@each_method
def test_more_than_one_chunk(name, dtypes):
    """Images that are large, and several chunks of several small images."""
    for shape in ((5, 3, 61, 67), (50, 3, 51, 52)):
        for per, pairing in (("pair", "matching"), ("sample", "shuffle")):
            plan, images = cases.plan(name, shape, per=per, pairing=pairing), draw_images(shape, dtypes[0])
            expected = mix(images, plan, dtype=dtypes[1], impl="reference")
            for memory_format in (None, torch.channels_last):
                result = mix(images, plan, dtype=dtypes[1], memory_format=memory_format, impl="host")
                assert same_bits(result, expected)
            if dtypes[0] == dtypes[1]:
                assert same_bits(mix(images, plan, out=images, impl="host"), expected)


@pytest.mark.parametrize("loops", ["torch"], indirect=True)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "dtypes",
    [(torch.uint8, torch.float32), *[(dtype, dtype) for dtype in (torch.uint8, torch.float32, torch.float64)]],
    ids=str,
)
def test_blends_by_one_thread_or_several(dtypes, threads, monkeypatch):
    """NumPy blends large images if torch would not use more than one thread for each; small ones go in chunks."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(host, "CHUNK", 5_000)
    monkeypatch.setattr(host, "SHARED", 0)
    unused = "blend_in_numpy" if threads > 1 else "blend_large"
    monkeypatch.setattr(host, unused, lambda *_, **__: pytest.fail("this is for another number of threads"))
    statistics = STATISTICS if dtypes[1] == torch.float32 else {}
    for shape, pairing in itertools.product([(5, 3, 61, 67), (45, 3, 19, 20)], ("matching", "shuffle")):
        plan, images = cases.plan("mixup", shape, pairing=pairing), draw_images(shape, dtypes[0])
        expected = mix(images, plan, dtype=dtypes[1], impl="reference", **statistics)
        for arrange in LAYOUTS:
            source = arrange(images)
            assert same_bits(mix(source, plan, dtype=dtypes[1], impl="host", **statistics), expected)
            assert same_bits(source, images)
            if dtypes[0] == dtypes[1]:
                assert same_bits(mix(source, plan, out=source, impl="host", **statistics), expected)


@pytest.mark.parametrize("loops", ["torch"], indirect=True)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("arrange", [contiguous, channels_last])
def test_each_chunk_copies_no_more_than_itself(arrange, in_place):
    """NumPy's ``take`` copies all of an array that is not contiguous before it takes a few rows."""
    images = arrange(draw_images((256, 3, 32, 32), torch.float32 if in_place else torch.uint8))  # twelve chunks
    plan = methods.MixUp(seed=1).make_plan(images)
    out = images if in_place else torch.empty_like(images, dtype=torch.float32)  # NumPy converts, torch would not
    tracemalloc.start()
    mix(images, plan, out=out, impl="host")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 4 * host.CHUNK < out.nbytes


@pytest.mark.parametrize("source", [torch.uint8, torch.float32], ids=str)
@each_method
def test_large_images_are_normalised_once(name, source):
    """Some right after they are mixed, some with the rest, some in the pass that mixes them."""
    shape = (7, 3, 53, 59)
    for per, pairing in (("pair", "matching"), ("sample", "shuffle")):
        plan, images = cases.plan(name, shape, per=per, pairing=pairing), draw_images(shape, source)
        for one in (plan, restrict(plan, np.arange(7) % 3 > 0)):
            expected = mix(images, one, impl="reference", **STATISTICS)
            for memory_format in (torch.contiguous_format, torch.channels_last):
                result = mix(images, one, memory_format=memory_format, impl="host", **STATISTICS)
                assert same_bits(result, expected), (per, memory_format)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "resizemix", "gridmask", "cutout-noise"])
def test_video(name):
    """Every frame is treated alike: frames lie beside the channels."""
    video = draw_images((4, 2, 3, 7, 6), torch.uint8)
    plan = cases.plan(name, (4, 3, 7, 6))
    result = mix(video, plan, impl="host")
    assert same_bits(result, mix(video, plan, impl="reference"))
    if not name.endswith("noise"):
        assert same_bits(result[:, 1], mix(video[:, 1], plan, impl="host"))


def test_every_kind_of_weight():
    """Shares of 0, 1 and between, inside and outside boxes that are empty, whole or neither."""
    shares, boxes = (0, 0.3, 1), ([0, 0, 0, 0], [3, 2, 3, 5], [0, 0, 6, 5], [1, 2, 4, 4])
    grid = [(outside, inside, box) for outside in shares for inside in shares for box in boxes]
    outside, inside, box = (np.array(part) for part in zip(*grid, strict=True))
    batch = len(grid)
    plan = MixPlan(
        size=(6, 5),
        partners=np.arange(batch)[::-1, None].copy(),
        shares=two_shares(np.ones(batch)),
        own_outside=outside.astype(np.float32),
        own_inside=inside.astype(np.float32),
        box=box.astype(np.int32),
    )
    bitmap = np.random.default_rng(0).integers(256, size=(batch, 6, 1)).astype(np.uint8)
    resized = (np.arange(batch) % 3).astype(np.int8)
    for each in (plan, replace(plan, bitmap=bitmap), replace(plan, resized=resized)):
        for dtype in (torch.uint8, torch.float32):
            images = draw_images((batch, 3, 6, 5), dtype)
            assert same_bits(mix(images, each, impl="host"), mix(images, each, impl="reference"))


def test_an_image_can_be_its_own_partner():
    """An odd batch leaves one over: what is pasted into it is itself, resized."""
    draw = draw_from(numbers(0, 0, 0), (1, 1, 9, 9), "matching")
    plan = cases.drawn(methods.ResizeMix(scale=(0.5, 0.5), interpolation="nearest"), draw, "pair")
    images = torch.arange(81, dtype=torch.uint8).view(1, 1, 9, 9)
    result = mix(images, plan, impl="host")
    assert (result != images).any()
    assert same_bits(result, mix(images, plan, impl="reference"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [name for name in cases.METHODS if name not in ("mixup", "cutmix-soft", "ricap")])
def test_pixels_outside_keep_their_bits(name, dtype):
    """What is not mixed is copied: NaNs, infinities and negative zeros come through as they are."""
    shape = (4, 2, 9, 8)
    plan = cases.plan(name, shape)
    place = 100 + torch.arange(4 * 2 * 9 * 8).view(shape)  # no fill is among these
    untouched = mix(place.double(), plan, impl="reference") == place
    images = draw_images(shape, dtype)
    if dtype.is_floating_point:
        odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0], dtype=dtype)
        images = odd[place % 4]
    bits = BITS[images.element_size()]
    assert 0 < untouched.double().mean() < 1
    result = mix(images, plan, impl="host")
    assert torch.equal(result.view(bits)[untouched], images.view(bits)[untouched])
    expected = mix(images, plan, impl="reference")  # it may write another NaN for a NaN
    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("side", [8, 64], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["mixup", "cutmix", "cutmix-soft", "resizemix"])
def test_pixels_that_are_no_finite_numbers_are_blended_in_silence(name, dtype, side):
    """NumPy would warn of what they make of each other, each time anew."""
    shape = (6, 3, side, side)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), torch.finfo(dtype).max, 0.5], dtype=dtype)
    images = odd[torch.arange(torch.Size(shape).numel()).view(shape) % 5]
    images[3] = -images[2]
    plan = cases.plan(name, shape)
    made, wanted = mix(images, plan, impl="host"), mix(images, plan, impl="reference")
    torch.testing.assert_close(made, wanted, rtol=0, atol=0, equal_nan=True)
    in_place = images.clone()
    torch.testing.assert_close(mix(in_place, plan, out=in_place), wanted, rtol=0, atol=0, equal_nan=True)


def test_images_that_require_a_gradient():
    """Without a graph (``torch.no_grad``) they are ordinary images."""
    for name in ("mixup", "cutmix", "ricap", "fmix", "resizemix", "gridmask"):
        plan, images = (
            cases.plan(name, (4, 3, 6, 5), per="sample", pairing="shuffle"),
            draw_images((4, 3, 6, 5), torch.float32),
        )
        expected = mix(images, plan, impl="reference")
        with torch.no_grad():
            assert same_bits(mix(images.requires_grad_(), plan, impl="host"), expected)


def test_a_chain_of_everything():
    """Mix, mix again, erase: passes run one after the other, the later ones in place."""
    shape = (6, 3, 8, 7)
    draw = draw_from(numbers(0, 0, 0), shape, "matching")
    drawn = {name: method(draw, "pair") for name, method in cases.METHODS.items()}
    either = select(np.arange(6) % 2, [drawn["ricap"], drawn["mixup"]])
    plan = chain(chain(either, drawn["resizemix"]), select(np.arange(6) % 2, [drawn["gridmask"], drawn["cutout"]]))
    for dtype in DTYPES:
        images = draw_images(shape, dtype)
        expected = mix(images, plan, impl="reference")
        assert same_bits(mix(images, plan, impl="host"), expected)
        assert same_bits(mix(images, plan, out=images, impl="host"), expected)


@pytest.mark.parametrize("loops", ["neither"], indirect=True)
@pytest.mark.parametrize("rotate", [1, 360])
@pytest.mark.parametrize(("size", "far"), [((1, 2**21), 0), ((9, 40), 2**25 + 1), ((9, 40), -(2**25) - 1)])
def test_grids_far_from_their_start(size, far, rotate):
    """Positions that single precision does not hold as whole numbers."""
    images = draw_images((3, 1, *size), torch.uint8) | 1  # so that none looks erased
    plan = methods.GridMask(tile=(7, 9), ratio=0.3, rotate=rotate, p=1.0, seed=1).make_plan(images)
    plan = replace(plan, grid=plan.grid + np.array([0, 0, far, far, 0], np.int32))
    expected = mix(images, plan, impl="reference")
    assert 0.2 < (expected == 0).double().mean() < 0.8
    assert same_bits(mix(images, plan, impl="host"), expected)
