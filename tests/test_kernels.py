"""``mix`` as a public door: what it refuses before anything is written, and what may come in and go out."""

import sysconfig
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from mixcollate.kernels import mix, mix_samples, pixels, support
from mixcollate.kernels.packed import pack
from tests import cases

SHAPE = (4, 3, 8, 8)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape or SHAPE, generator=generator, dtype=torch.uint8).to(dtype)


REFUSED = {
    r"images must be a tensor, got list": lambda: ([1, 2, 3, 4], {}),
    r"images must have one row for each of the plan's 4, got \(3, 3, 8, 8\)": lambda: (images(3, 3, 8, 8), {}),
    r"images must be uint8 or floating point, got torch.int64": lambda: (images(dtype=torch.int64), {}),
    r"images must be \[B, C, H, W\] or \[B, T, C, H, W\] for boxes, got \(4, 192\)": lambda: (images(4, 192), {}),
    r"\(height, width\) \(8, 8\) that the plan was drawn for, got \(8, 9\)": lambda: (images(4, 3, 8, 9), {}),
    r"mean must be one number or 3, one a channel, got 2": lambda: (images(), {"mean": (0.1, 0.2)}),
    r"std must be positive, got 0": lambda: (images(), {"std": 0}),
    r"dtype must be floating point for torch.uint8 images, normalised: True": lambda: (
        images(),
        {"mean": MEAN, "dtype": torch.uint8},
    ),
    r"dtype must be floating point for torch.uint8 images, normalised: False; got torch.int32": lambda: (
        images(),
        {"dtype": torch.int32},
    ),
    r"out must be \(4, 3, 8, 8\) torch.float32 on cpu, got \(4, 3, 8, 9\)": lambda: (
        images(),
        {"out": torch.zeros(4, 3, 8, 9)},
    ),
    r"out must be \(4, 3, 8, 8\) torch.float16 on cpu, got .* torch.float32": lambda: (
        images(),
        {"out": torch.zeros(SHAPE), "dtype": torch.float16},
    ),
    r"out must be in memory_format torch.channels_last": lambda: (
        images(),
        {"out": torch.zeros(SHAPE), "memory_format": torch.channels_last},
    ),
    r"impl must be one of .*, got 'triton'": lambda: (images(), {"impl": "triton"}),
    r"impl='fused' cannot run on cpu": lambda: (images(), {"impl": "fused"}),
    r"impl='host' passes no gradient to images": lambda: (
        images(dtype=torch.float32).requires_grad_(),
        {"impl": "host"},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_before_anything_is_written(message):
    plan = cases.plan("cutmix", SHAPE)
    given, options = REFUSED[message]()
    with pytest.raises((ValueError, TypeError), match=message):
        mix(given, plan, **options)
    assert "out" not in options or not options["out"].any()


def test_memory_that_is_read_in_another_order_is_refused():
    square = images()
    with pytest.raises(ValueError, match="out must be images itself or share no memory with it"):
        mix(square, cases.plan("mixup", SHAPE), out=square.transpose(2, 3))
    assert torch.equal(square, images())


def test_memory_format_needs_images():
    with pytest.raises(ValueError, match=r"memory_format needs images \[B, C, H, W\], got \(4, 192\)"):
        mix(images(4, 192), cases.plan("mixup", (4, 1, 1, 192)), memory_format=torch.channels_last)
    with pytest.raises(ValueError, match=r"images must be \[B, C, H, W\] or .* to be normalised, got \(4, 192\)"):
        mix(images(4, 192), cases.plan("mixup", (4, 1, 1, 192)), mean=0.5)


@pytest.mark.parametrize("number", [np.float32(0.25), torch.tensor(0.25), np.array([0.25] * 3), torch.tensor([0.25])])
def test_statistics_may_be_numpys_or_torchs(number):
    plan = cases.plan("mixup", SHAPE)
    wanted = mix(images(), plan, mean=0.25, std=0.25)
    assert torch.equal(mix(images(), plan, mean=number, std=number), wanted)


NEEDED = {
    "importlib.util.find_spec": "Triton",
    "mixcollate.kernels.support.c_compiler": "a C compiler for Triton",
    "mixcollate.kernels.support.python_header": "Python's headers (python3-dev) for Triton",
}


@pytest.mark.parametrize("gone", [[], *([name] for name in NEEDED), list(NEEDED)], ids=len)
def test_what_is_missing_for_the_kernels_is_told(gone, monkeypatch):
    for name in NEEDED:
        monkeypatch.setattr(name, lambda *asked, there=name not in gone: there)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert support.can_fuse.__wrapped__() == (not gone)  # the answer is kept
    wanted = ", ".join(NEEDED[name] for name in gone)
    wanted = f"plain torch mixes on the GPU, several times as slowly, for want of {wanted}"
    assert [str(warning.message) for warning in told] == ([wanted] if gone else [])


def test_what_the_kernels_need_is_found(monkeypatch, tmp_path):
    for name in ("clang", "gcc", "mine"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert support.c_compiler() == str(tmp_path / "gcc")
    (tmp_path / "gcc").unlink()
    assert support.c_compiler() == str(tmp_path / "clang")
    monkeypatch.setenv("CC", "mine")
    assert support.c_compiler() == str(tmp_path / "mine")
    monkeypatch.setenv("CC", "another")
    assert support.c_compiler() is None
    monkeypatch.setattr(sysconfig, "get_path", lambda *which: str(tmp_path))
    assert support.python_header() is None
    (tmp_path / "Python.h").touch()
    assert support.python_header() == tmp_path / "Python.h"


@pytest.mark.parametrize("impl", ["reference", "host"])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_videos_of_any_strides(name, impl):
    """Frames are normalised by their channels' numbers, and need not lie in memory so that a view can join them."""
    video = images(4, 5, 3, 8, 8)
    plan = cases.plan(name, SHAPE)
    wanted = mix(video.flatten(1, 2), plan, mean=MEAN * 5, std=STD * 5, impl=impl).view(video.shape)
    out = torch.full((4, 3, 5, 8, 8), float("nan")).transpose(1, 2)
    assert mix(video, plan, mean=MEAN, std=STD, out=out, impl=impl) is out
    assert torch.equal(out, wanted)
    apart = video.transpose(1, 2).clone().transpose(1, 2)
    assert torch.equal(mix(apart, plan, mean=MEAN, std=STD, impl=impl), wanted)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "ricap", "cutout", "all"])
@pytest.mark.parametrize("options", [{}, {"mean": MEAN, "std": STD}])
def test_samples_are_mixed_like_their_batch(name, options):
    plan, batch = cases.plan(name, SHAPE), images()
    wanted = mix(batch, plan, **options)
    out = torch.empty_like(wanted)
    assert mix_samples(list(batch.clone()), plan, **options, out=out) is out
    assert torch.equal(out, wanted)


def test_samples_are_checked_like_their_batch():
    plan, samples = cases.plan("cutmix", SHAPE), list(images())
    out = torch.zeros(SHAPE, dtype=torch.uint8)
    for wrong, message in (
        (samples[:3], "one row for each of the plan's 4"),
        ([sample[:, :4] for sample in samples], r"\(height, width\) \(8, 8\) .*, got \(4, 8\)"),
        ([sample[:2] for sample in samples], r"out must be \(4, 2, 8, 8\)"),
        ([sample.long() for sample in samples], "images must be uint8 or floating point, got torch.int64"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            mix_samples(wrong, plan, out=out)
    with pytest.raises(TypeError, match="dtype must be floating point for torch.uint8 images, normalised: True"):
        mix_samples(samples, plan, mean=MEAN, out=out)
    assert not out.any()


@pytest.mark.parametrize("shape, message", [((4, 3, 8, 9), r"\(height, width\)"), ((3, 3, 8, 8), "one row for each")])
def test_what_is_refused_is_refused_while_tracing(shape, message):
    """The operator's fake kernels know shapes and dtypes alone, which is enough."""
    packed = pack(cases.plan("cutmix", SHAPE), "cpu")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, pytest.raises(Exception, match=message):
        torch.ops.mixcollate.mix(mode.from_tensor(images(*shape)), packed.words, packed.key, *[None] * 4, "auto")


def test_fakes_are_what_the_operator_makes():
    packed = pack(cases.plan("cutmix", SHAPE), "cpu")
    names = {"mean": [0.5], "std": [0.5], "memory_format": torch.channels_last}
    for dtype in (None, torch.float16):
        options = packed.words, packed.key, names["mean"], names["std"], dtype, names["memory_format"], "auto"
        made = torch.ops.mixcollate.mix(images(), *options)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = torch.ops.mixcollate.mix(mode.from_tensor(images()), *options)
        assert (fake.shape, fake.dtype, fake.stride()) == (made.shape, made.dtype, made.stride())


@pytest.mark.parametrize("in_place", [False, True])
def test_statistics_are_on_the_device_when_a_graph_is_traced(in_place):
    """While a CUDA graph is recorded it would be too late to bring them there, and they outlive inference mode."""
    pixels._on_device.cache_clear()
    packed = pack(cases.plan("mixup", SHAPE), "cpu")
    floats = images().float()
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(floats)
        options = packed.words, packed.key, [0.25], [0.5], None, None, "auto"
        torch.ops.mixcollate.mix_(fake, None, *options) if in_place else torch.ops.mixcollate.mix(fake, *options)
    assert pixels._on_device.cache_info().currsize == 1
    plan = cases.plan("mixup", SHAPE)
    leaf = floats.clone().requires_grad_()
    mix(leaf, plan, mean=0.25, std=0.5, impl="reference").sum().backward()
    assert pixels._on_device.cache_info().currsize == 1
    torch.testing.assert_close(mix(floats, plan, mean=0.25, std=0.5), mix(floats, plan) / 0.5 - 0.5)


def test_operators_check_what_they_write_into():
    packed = pack(cases.plan("cutmix", SHAPE), "cpu")
    tail = packed.words, packed.key, None, None
    out = torch.zeros(SHAPE)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        given, written = mode.from_tensor(images()), mode.from_tensor(out)
    for refused, options, message in (
        (images(4, 3, 8, 9), (None, None, "auto"), r"\(height, width\)"),
        (images(3, 3, 8, 8), (None, None, "auto"), "one row for each"),
        (images(), (torch.float16, None, "auto"), "out must be .* torch.float16"),
        (images(), (None, torch.channels_last, "auto"), "out must be in memory_format"),
    ):
        with pytest.raises(Exception, match=message):
            torch.ops.mixcollate.mix_(out, refused, *tail, *options)
        with mode, pytest.raises(Exception, match=message):
            torch.ops.mixcollate.mix_(written, mode.from_tensor(refused), *tail, *options)
    with mode:
        torch.ops.mixcollate.mix_(written, given, *tail, None, None, "auto")
    assert not out.any()
