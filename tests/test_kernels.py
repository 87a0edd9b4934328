"""``mix`` as a public door: what it refuses before anything is written, and what may come in and go out."""

import itertools
import sysconfig
import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from mixcollate import RICAP, CutMix, Cutout, FMix, MixUp
from mixcollate.kernels import mix, mix_masks, mix_samples, pixels, support
from mixcollate.kernels.packed import pack
from mixcollate.kernels.pixels import check_affine
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
    r"mean must be one number or 3, one per channel of images \(4, 3, 8, 8\), got 2$": lambda: (
        images(),
        {"mean": (0.1, 0.2)},
    ),
    r"mean must be one number or 5, .*, got 3; video \[B, C, T, H, W\] takes layout='BCDHW'$": lambda: (
        images(4, 3, 5, 8, 8),
        {"mean": MEAN},
    ),
    r"std must be positive, got 0": lambda: (images(), {"std": 0}),
    r"dtype must be floating point for torch.uint8 images, normalised: True": lambda: (
        images(),
        {"mean": MEAN, "dtype": torch.uint8},
    ),
    r"dtype must be floating point, got torch.int32; leave it out": lambda: (
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
    "mixcollate.kernels.support.has_right_triton": "torch 2.9, whose Triton compiles the kernels",
    "importlib.util.find_spec": "Triton",
    "mixcollate.kernels.support.c_compiler": "a C compiler for Triton",
    "mixcollate.kernels.support.python_header": "Python's headers (python3-dev) for Triton",
    "mixcollate.kernels.support.has_triton_cache": "a folder that Triton can write to (TRITON_CACHE_DIR)",
}


@pytest.mark.parametrize("gone", [[], *([name] for name in NEEDED), list(NEEDED)], ids=len)
def test_what_the_kernels_lack_is_reported(gone, monkeypatch):
    for name in NEEDED:
        monkeypatch.setattr(name, lambda *asked, there=name not in gone: there)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert support.can_fuse.__wrapped__() == (not gone)  # the answer is kept
    wanted = ", ".join(NEEDED[name] for name in gone)
    wanted = f"plain torch mixes on the GPU, several times slower than Triton would; missing: {wanted}"
    assert [str(warning.message) for warning in caught] == ([wanted] if gone else [])


@pytest.mark.parametrize("name", ["TRITON_CACHE_DIR", "TRITON_HOME", "HOME"])
def test_triton_needs_a_folder_that_it_can_write_to(name, tmp_path, monkeypatch):
    cache = pytest.importorskip("triton.runtime.cache")
    for other in ("TRITON_CACHE_DIR", "TRITON_HOME"):
        monkeypatch.delenv(other, raising=False)
    for place in (tmp_path, tmp_path / "new" / "folder"):
        monkeypatch.setenv(name, str(place))
        assert support.has_triton_cache()
    place = tmp_path / "file"
    place.touch()
    monkeypatch.setenv(name, str(place))
    assert not support.has_triton_cache()
    if name != "HOME":  # which Triton has read when it was imported
        with pytest.raises(OSError, match=f"{place}"):
            cache.get_cache_manager("0123")


def test_fused_is_refused_where_triton_cannot_compile_it(monkeypatch):
    """By name; ``"auto"`` takes plain torch there, and says so."""
    on_a_gpu = types.SimpleNamespace(is_cuda=True, requires_grad=False, device=torch.device("cuda"))
    for version, right in (("2.6.0+cu124", False), ("2.8.0", False), ("2.9.0", True), ("2.14.1", True)):
        monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
        assert support.has_right_triton() == right
        if right:
            assert support.choose(on_a_gpu, "fused") == "fused"
        else:
            with pytest.raises(ValueError, match=f"impl='fused' needs torch 2.9, .* got {version[:5]}"):
                support.choose(on_a_gpu, "fused")


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


def test_memory_that_is_shared_in_part_is_refused():
    """Whatever is written before it is read; what only lies beside it in the same storage is not."""
    plan, store = cases.plan("mixup", SHAPE), images(8, 3, 8, 8)
    inputs = store[:4]
    wrong = {
        "images itself or share no memory": [store[1:5], store[:4].transpose(2, 3), store[2:6]],
        "out must hold every element in memory of its own": [
            store[:1].expand(SHAPE),
            store.as_strided(SHAPE, (96, 32, 8, 1)),
        ],
    }
    before = store.clone()
    for message, outs in wrong.items():
        for out in outs:
            for impl in ("host", "reference"):
                with pytest.raises(ValueError, match=message):
                    mix(inputs, plan, out=out, impl=impl)
    floats = torch.zeros(4 * 192 + 192, dtype=torch.float32)
    overlaid = floats[:192].view(torch.uint8).view(SHAPE)  # of another dtype
    with pytest.raises(ValueError, match="images itself or share no memory"):
        mix(overlaid, plan, dtype=torch.float32, out=floats[: 4 * 192].view(SHAPE))
    assert torch.equal(store, before) and not floats.any()
    wanted, beside = mix(inputs.clone(), plan), images(4, 6, 8, 8)
    beside[:, ::2] = inputs
    for source, out in ((store[:4], store[4:]), (beside[:, ::2], beside[:, 1::2])):
        assert torch.equal(mix(source, plan, out=out), wanted)


def test_more_fills_than_boxes_are_no_harm():
    plan = cases.plan("cutout", SHAPE)
    more = replace(plan, fill=np.pad(plan.fill, ((0, 0), (0, 1), (0, 0)), constant_values=9))
    for impl in ("host", "reference"):
        assert torch.equal(mix(images(), more, impl=impl), mix(images(), plan, impl=impl))


def test_an_output_that_requires_a_gradient_is_refused():
    out = torch.zeros(SHAPE, requires_grad=True)
    with pytest.raises(ValueError, match="out must not require a gradient"):
        mix(images().float(), cases.plan("mixup", SHAPE), out=out)


@pytest.mark.parametrize("impl", ["host", "reference"])
@pytest.mark.parametrize("name", ["mixup", "cutmix", "cutmix-soft", "fmix"])
@pytest.mark.parametrize("size", [8, 96])
def test_an_image_that_is_its_own_partner_keeps_its_infinite_pixels(name, size, impl):
    """Also where it would be mixed with itself by halves."""
    shape = (3, 3, size, size)
    plan = cases.plan(name, shape)  # an odd batch leaves one image to itself
    (alone,) = (plan.partners[:, 0] == np.arange(3)).nonzero()[0]
    given = images(*shape).float()
    given[alone, :, ::2, 1::3] = float("inf")
    given[alone, :, 1::2, ::3] = float("-inf")
    inplace = given.clone()
    for mixed in (mix(given, plan, impl=impl), mix(inplace, plan, out=inplace, impl=impl)):
        assert torch.equal(mixed[alone], given[alone])


@pytest.mark.parametrize("impl", ["auto", "host", "reference"])
def test_empty_batches_are_mixed_into_what_is_given(impl):
    plan, empty = cases.plan("cutmix", (0, 3, 8, 8)), torch.empty(0, 3, 8, 8)
    out = torch.empty(0, 8, 3, 8).transpose(1, 2)
    assert mix(empty, plan, out=out, impl=impl) is out
    assert mix(empty, plan, out=empty, impl=impl) is empty
    assert mix(empty, pack(plan, "cpu"), impl=impl).shape == empty.shape


@pytest.mark.parametrize("impl", ["reference", "host"])
@pytest.mark.parametrize("length, shown", cases.TIES)
def test_the_nearest_pixel_is_the_same_for_every_dtype(length, shown, impl):
    numbers = torch.arange(length).expand(2, 1, length, length)
    wanted = (2 * torch.arange(shown) + 1) * length // (2 * shown)
    across, down = (cases.shown_nearest(length, box) for box in ((0, 0, 1, shown), (0, 0, shown, 1)))
    for dtype in (torch.uint8, torch.float16, torch.float32, torch.float64):
        assert torch.equal(mix(numbers.to(dtype), across, impl=impl)[0, 0, 0, :shown], wanted.to(dtype))
        assert torch.equal(mix(numbers.mT.to(dtype), down, impl=impl)[0, 0, :shown, 0], wanted.to(dtype))
    assert torch.equal(mix_masks(numbers, across)[0, 0, 0, :shown], wanted)


BIG = 2**53 + 1


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.uint8, torch.int32, torch.int64, torch.uint16])
@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 2, 8, 8), (4, 2, 3, 8, 8)], ids=len)
def test_class_numbers_of_any_integer_dtype_are_copied_exactly(dtype, shape):
    plan = cases.plan("resizemix-nearest", SHAPE)
    numbers = torch.arange(int(np.prod(shape))).view(shape)
    masks = (numbers % 2 if dtype is torch.bool else numbers % 120).to(dtype)
    if dtype is torch.int64:
        masks = masks + BIG
    small = (numbers % (2 if dtype is torch.bool else 120)).reshape(4, -1, 8, 8)
    wanted = mix(small.double(), plan.for_masks(), impl="reference")
    mixed = mix_masks(masks, plan)
    assert mixed.dtype is dtype and mixed.shape == masks.shape and mixed is not masks
    exact = mixed - BIG if dtype is torch.int64 else mixed
    assert torch.equal(exact.reshape(wanted.shape).double(), wanted)
    strided = masks.transpose(-1, -2).clone().transpose(-1, -2)
    assert torch.equal(mix_masks(strided, plan), mixed)


def test_masks_that_are_no_masks_are_refused():
    plan = cases.plan("cutmix", SHAPE)
    for wrong, message in (
        (
            torch.zeros(4, 8, 8, dtype=torch.complex64),
            "masks must be a dense tensor of real numbers, got torch.complex64",
        ),
        (np.zeros((4, 8, 8)), "masks must be a tensor, got ndarray"),
        (torch.zeros(4, 8), r"masks must be \[B, H, W\], .* got \(4, 8\)"),
        (torch.zeros(4, 8, 9), r"masks must have the \(height, width\) \(8, 8\) of their images"),
        (torch.zeros(4, 8, 9, dtype=torch.int64), r"masks must have the \(height, width\) \(8, 8\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            mix_masks(wrong, plan)
    with pytest.raises(ValueError, match="masks must be one-hot floats for a plan that blends, got torch.int64"):
        mix_masks(torch.zeros(4, 8, 8, dtype=torch.int64), cases.plan("mixup", SHAPE))


@pytest.mark.parametrize("impl", ["host", "reference"])
@pytest.mark.parametrize("name", ["mixup", "cutmix", "random_erasing", "all"])
@pytest.mark.parametrize("channels, depth", [(3, 3), (1, 5), (2, 1)])
def test_volumes_have_channels_before_slices(name, channels, depth, impl):
    """Mean, deviation and fill belong to channels, also where there are as many slices; boxes reach through all."""
    plan = cases.plan(name, (4, channels, 8, 8))
    volumes = images(4, channels, depth, 8, 8)
    statistics = {"mean": [0.1, 0.3, 0.5][:channels], "std": [0.2, 0.4, 0.6][:channels]}
    slices = [mix(volumes[:, :, k], plan, **statistics, impl=impl) for k in range(depth)]
    mixed = mix(volumes, plan, **statistics, layout="BCDHW", impl=impl)
    assert mixed.shape == volumes.shape and mixed.is_contiguous()
    assert torch.equal(mixed, torch.stack(slices, 2))
    out = torch.empty_like(mixed)
    assert mix(volumes, plan, **statistics, layout="BCDHW", impl=impl, out=out) is out
    assert torch.equal(out, mixed)
    plain = mix(volumes.float(), plan, layout="BCDHW", impl=impl)
    assert torch.equal(plain, torch.stack([mix(volumes[:, :, k].float(), plan, impl=impl) for k in range(depth)], 2))


@pytest.mark.parametrize("impl", ["host", "reference"])
@pytest.mark.parametrize("name", ["mixup", "cutmix", "all"])
def test_signals_are_images_one_pixel_high(name, impl):
    plan = cases.plan(name, (4, 3, 1, 16))
    signals = images(4, 3, 16)
    wanted = mix(signals[:, :, None], plan, mean=MEAN, std=STD, impl=impl)[:, :, 0]
    mixed = mix(signals, plan, mean=MEAN, std=STD, layout="BCT", impl=impl)
    assert mixed.shape == signals.shape and torch.equal(mixed, wanted)


def test_layouts_are_refused_for_other_batches():
    plan = cases.plan("cutmix", SHAPE)
    for layout, message in (
        ("BCDHW", r"images must have the 5 axes of layout='BCDHW', got \(4, 3, 8, 8\)"),
        ("BCT", r"images must have the 3 axes of layout='BCT', got \(4, 3, 8, 8\)"),
        ("NHWC", r"layout must be one of BCHW, BTCHW, BCDHW, BCT, got 'NHWC'"),
    ):
        with pytest.raises(ValueError, match=message):
            mix(images(), plan, layout=layout)
    with pytest.raises(ValueError, match=r"images must have the \(height, width\) \(8, 8\) .* got \(1, 8\)"):
        mix(images(4, 3, 8), plan, layout="BCT")
    assert torch.equal(mix(images(), plan, layout="BCHW"), mix(images(), plan))


@pytest.mark.parametrize("layout, shape, height", [("BCDHW", (4, 3, 2, 8, 8), 8), ("BCT", (4, 3, 16), 1)])
def test_layouts_compile_in_one_graph(layout, shape, height):
    packed = pack(cases.plan("cutmix", (4, 3, height, shape[-1])), "cpu")

    def step(given):
        return mix(given, packed, mean=MEAN, std=STD, layout=layout)

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    assert torch.equal(compiled(images(*shape)), step(images(*shape)))


UNITS = {
    r"mean and std must be those of images in \[0, 1\], got mean=\(123.7, 116.3, 103.5\).* give mean=\(0.4851, 0.4561, "
    r"0.4059\)": {"mean": (123.7, 116.3, 103.5)},
    r"got mean=None, std=58.0 .* give mean=\(0.0,\), std=\(0.2275,\)": {"std": 58.0},
    "mean must be finite numbers, one or one per channel, got nan": {"mean": float("nan")},
    "std must be finite numbers": {"std": [0.5, float("inf"), 0.5]},
    "mean must be a number, or a sequence with one per channel, got 'red'": {"mean": "red"},
    "mean must be a number, or a sequence with one per channel, got True": {"mean": True},
    r"mean must be .*, got array\(\[ True\]\)": {"mean": np.array([True])},
    r"std must be .*, got \['0.5'\]": {"std": ["0.5"]},
    "std must be a number, or a sequence": {"std": [0.5, None, 0.5]},
    "std must be positive, got 0": {"std": 0},
}


@pytest.mark.parametrize("message", UNITS)
def test_statistics_that_can_be_right_for_no_bytes_are_refused(message):
    with pytest.raises((ValueError, TypeError), match=message):
        mix(images(), cases.plan("mixup", SHAPE), **UNITS[message])
    with pytest.raises((ValueError, TypeError), match=message):
        check_affine(UNITS[message].get("mean"), UNITS[message].get("std"), images=torch.uint8)


def test_statistics_of_other_units_are_those_of_floats():
    mixed = mix(images().float(), cases.plan("mixup", SHAPE), mean=123.7, std=58.0)
    torch.testing.assert_close(mixed, (mix(images().float(), cases.plan("mixup", SHAPE)) - 123.7) / 58)
    with pytest.raises(TypeError, match="dtype must be floating point to normalise, got torch.int32"):
        check_affine(0.5, None, torch.int32)
    check_affine(123.7, 58.0, torch.float16)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16, torch.int32, torch.int64, torch.bool, torch.complex64])
def test_no_dtype_is_advised_that_wraps(dtype):
    """300 would become 44."""
    with pytest.raises(TypeError, match=r"convert with .to\(torch.float32\)|torch.view_as_real") as refused:
        mix(torch.zeros(SHAPE, dtype=dtype), cases.plan("mixup", SHAPE))
    assert ".to(torch.uint8)" not in str(refused.value)
    if dtype is torch.uint16:
        assert "m is white (65535 if they use all of this dtype)" in str(refused.value)


@pytest.mark.parametrize("setting", ["float64", "bfloat16", "meta"])
def test_process_wide_defaults_change_nothing(setting):
    """Neither the dtype nor the device that torch makes tensors with by default."""
    names = ["mixup", "cutmix", "fmix", "resizemix", "ricap", "all", "gridmask", "cutout-noise", "hide_and_seek"]
    runs = [*itertools.product(names, (torch.uint8, torch.float32), ("reference", "host"))]
    wanted = [mixed_by(*run) for run in runs]
    before = torch.get_default_dtype()
    try:
        if setting == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, setting))
        pixels._on_device.cache_clear()
        made = [mixed_by(*run) for run in runs]
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)
    for run, one, other in zip(runs, made, wanted, strict=True):
        assert all(map(torch.equal, one, other)), run


def mixed_by(name, dtype, impl):
    plan = cases.plan(name, SHAPE)
    given = torch.from_numpy(np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)).to(dtype)
    words = pack(plan, "cpu").unpack()
    masks = mix_masks(torch.from_numpy(np.arange(256).reshape(4, 8, 8)), plan) if not plan.blends else given
    return mix(given, words, mean=MEAN, std=STD, impl=impl), mix(given, plan, dtype=dtype, impl=impl), masks


@pytest.mark.parametrize("method", [MixUp(), CutMix(), RICAP(), FMix(), Cutout()], ids=repr)
@pytest.mark.parametrize("packed", [False, True])
def test_autograd_sees_that_images_were_written(method, packed):
    images, weight = torch.rand(4, 3, 32, 32), torch.ones(4, 3, 32, 32, requires_grad=True)
    plan = method.make_plan(images)
    loss = (weight * images).sum()
    mix(images, pack(plan, "cpu") if packed else plan, out=images)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():  # whose tensors have no versions
        images = torch.rand(4, 3, 32, 32)
        mix(images, plan, out=images)
