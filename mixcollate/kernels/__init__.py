"""``mix``: the one public door to pixels. Checks the call, then chooses an implementation."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from mixcollate.kernels import host, reference
from mixcollate.kernels.checks import can_fuse, check_images, check_out, check_plan, result_dtype
from mixcollate.kernels.packed import PackedPlan, pack
from mixcollate.plan import MixPlan

Impl = Literal["auto", "reference", "host", "fused"]
IMPLS = get_args(Impl)
Statistic = float | Sequence[float]


def mix(
    images: Tensor,
    plan: MixPlan | PackedPlan,
    *,
    mean: Statistic | None = None,
    std: Statistic | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    out: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Do to ``images`` what ``plan`` says, in one pass: mix, normalise, erase, cast.

    Equivalent, for a plan of MixUp, to ``own * images + (1 - own) * images[plan.partner]``, then
    ``torchvision.transforms.v2.functional.normalize``.

    Args:
        images: ``[B, C, H, W]``, video ``[B, T, C, H, W]``, or anything ``[B, ...]`` for a plan without boxes;
            uint8 or floating point, any strides. Left as it is, unless it is ``out``.
        plan: one row for each image, drawn for this height and width; or, for ``torch.compile`` and CUDA graphs,
            what :func:`pack` made of it on the device of the images.
        mean: subtracted after mixing; a number, or one for each channel, in the units of images in [0, 1].
        std: divided by after that; likewise.
        dtype: of the result. Default: that of ``images``, or float32 when uint8 images are normalised. uint8
            images become floats in [0, 1]; an integer result is rounded half to even.
        memory_format: of the result, ``torch.contiguous_format`` or ``torch.channels_last``. Default: as ``images``.
        out: where to write; ``out=images`` mixes in place.
        impl: ``"fused"`` (Triton, CUDA), ``"host"`` (CPU), ``"reference"`` (anywhere), or ``"auto"``: the first of
            them that suits the device; the reference if a gradient has to flow back into ``images``. A named
            one runs or raises.

    Returns:
        ``out``, or a new tensor of the shape of ``images``.

    Raises:
        ValueError, TypeError: before anything is written.
    """
    if torch.compiler.is_compiling():
        options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "memory_format": memory_format}
        if isinstance(plan, PackedPlan):
            return _mix_by_operator(images, plan, **options, out=out, impl=impl)
        return cast(Tensor, uncompiled(mix, images, plan, **options, out=out, impl=impl))
    check_images(images, plan)
    dtype = result_dtype(images, dtype, normalised=mean is not None or std is not None, out=out)
    check_plan(images, plan, dtype, normalised=mean is not None)
    scale, bias = affine(images, mean, std, dtype)
    chosen = _choose(images, impl)
    if out is None:
        out = empty_like(images, dtype, memory_format)
    else:
        check_out(images, out, dtype, memory_format)
        if out.data_ptr() == images.data_ptr() and out.stride() != images.stride():
            raise ValueError("out must be images itself or share no memory with it")
    if images.numel() > 0:
        _run(chosen, images, plan, out, scale, bias)
    return out


def mix_samples(
    samples: Sequence[Tensor],
    plan: MixPlan,
    *,
    mean: Statistic | None = None,
    std: Statistic | None = None,
    out: Tensor,
) -> Tensor:
    """``mix(torch.stack(samples), plan, mean=mean, std=std, out=out)`` on the CPU, without a stacked batch in between.

    Args:
        samples: ``[C, H, W]`` each, of one shape and dtype; left as they are.
        plan, mean, std: as for :func:`mix`.
        out: where to write, ``[B, C, H, W]``; shares no memory with ``samples``.
    """
    images = as_batch(samples)
    check_images(images, plan)
    check_out(images, out, out.dtype, None)
    dtype = result_dtype(images, None, normalised=mean is not None or std is not None, out=out)
    check_plan(images, plan, dtype, normalised=mean is not None)
    scale, bias = affine(images, mean, std, dtype)
    host.mix_samples(samples, plan, out, scale=scale, bias=bias)
    if plan.then is not None:
        _run("host", out, plan.then, out, None, None)
    return out


def as_batch(samples: Sequence[Tensor]) -> Tensor:
    """All of a stacked batch but its pixels, which are those of the first sample again and again."""
    return samples[0].expand(len(samples), *samples[0].shape)


def mix_masks(masks: Tensor, plan: MixPlan) -> Tensor:
    """Do to segmentation masks what ``plan`` does to their images; what it erases there stays here.

    Args:
        masks: ``[B, H, W]`` or ``[B, C, H, W]``: class numbers of any integer dtype, if the plan only copies pixels;
            or floats (one-hot, soft), of which a blend makes soft masks.
        plan: drawn for the images. Where it resizes a partner, masks take the nearest pixel.

    Raises:
        ValueError: class numbers under a plan that blends them.
    """
    if masks.ndim not in (3, 4):
        raise ValueError(f"masks must be [B, H, W] or [B, C, H, W], got {tuple(masks.shape)}")
    numbered = not masks.dtype.is_floating_point
    if numbered and plan.blends:
        raise ValueError(f"masks must be one-hot floats for a plan that blends, got {masks.dtype} class numbers")
    pixels = masks if masks.ndim == 4 else masks[:, None]
    exact = pixels.to(torch.float64) if numbered else pixels
    return mix(exact, plan.for_masks()).to(masks.dtype).view(masks.shape)


@dataclass(frozen=True)
class Call:
    """A call that has passed its checks; it has written nothing yet."""

    run: Callable[[], Tensor]


def prepare(images: Tensor, plan: MixPlan | PackedPlan, *, out: Tensor | None = None, **options: Any) -> Call:
    """Check a call of :func:`mix`, which ``run`` then makes."""
    check_images(images, plan)
    normalised = options.get("mean") is not None or options.get("std") is not None
    dtype = result_dtype(images, options.get("dtype"), normalised=normalised, out=out)
    check_plan(images, plan, dtype, normalised=options.get("mean") is not None)
    if out is not None:
        check_out(images, out, dtype, options.get("memory_format"))
        if out.requires_grad and torch.is_grad_enabled():
            raise ValueError("out must not require a gradient; mix under torch.no_grad() or out of place")
    return Call(functools.partial(mix, images, plan, out=out, **options))


def prepare_masks(masks: Tensor, plan: MixPlan) -> Call:
    """Check a call of :func:`mix_masks`; its result is new memory."""
    mixed = mix_masks(masks, plan)
    return Call(lambda: mixed)


def place(plan: MixPlan | PackedPlan, images: Tensor, impl: Impl = "auto") -> MixPlan | PackedPlan:
    """``plan`` as the pixels and the labels of one batch can both read it: packed on the GPU, if that mixes it."""
    return beside(images, plan, impl) if isinstance(plan, MixPlan) else plan


def _run(
    impl: str, images: Tensor, plan: MixPlan | PackedPlan, out: Tensor, scale: Tensor | None, bias: Tensor | None
) -> None:
    """Run the passes of ``plan``: the first from ``images`` into ``out``, further ones in place."""
    if impl == "fused" and isinstance(plan, MixPlan):
        plan = pack(plan, images.device)  # all passes in one copy
    elif impl != "fused" and isinstance(plan, PackedPlan):
        plan = plan.unpack()
    source, target = _as_images(images), _as_images(out)
    written = target
    if out.data_ptr() != target.data_ptr():  # strides that no view can fold into [B, C, H, W]
        written = torch.empty_like(target)
    if isinstance(plan, PackedPlan):
        from mixcollate.kernels import fused  # the only way to Triton, taken on first use

        with torch.cuda.device(written.device):  # Triton launches on the current device
            fused.mix_packed(source, plan, written, scale=scale, bias=bias)
    else:
        (host if impl == "host" else reference).mix(source, plan, written, scale=scale, bias=bias)
    if written is not target:
        out.copy_(written.view(out.shape))
    if plan.then is not None:
        _run(impl, out, plan.then, out, None, None)


def _as_images(images: Tensor) -> Tensor:
    """``[B, C, H, W]``: frames of a video side by side with channels, anything else as one row of pixels."""
    if images.ndim == 4:
        return images
    if images.ndim == 5:
        return images.flatten(1, 2)
    return images.reshape(len(images), 1, 1, -1)


def affine(
    images: Tensor, mean: Statistic | None, std: Statistic | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """``(scale, bias)``, each ``[C]`` float32, that bring mixed values to [0, 1] and normalise them; or nothing."""
    levels = 255.0 if images.dtype == torch.uint8 and dtype.is_floating_point else 1.0
    if mean is None and std is None and levels == 1.0:
        return None, None
    if images.ndim not in (4, 5) and not (mean is None and std is None):
        raise ValueError(f"images must be [B, C, H, W] or [B, T, C, H, W] to be normalised, got {tuple(images.shape)}")
    channels = images.shape[-3] if images.ndim in (4, 5) else 1
    frames = images.shape[1] if images.ndim == 5 else 1
    subtracted = _per_channel("mean", 0.0 if mean is None else mean, channels)
    divided = _per_channel("std", 1.0 if std is None else std, channels)
    if min(divided) <= 0:
        raise ValueError(f"std must be positive, got {std}")
    return _on_device(subtracted * frames, divided * frames, levels, images.device)


def _per_channel(name: str, value: Statistic, channels: int) -> tuple[float, ...]:
    values = _as_floats(value)
    if len(values) not in (1, channels):
        raise ValueError(f"{name} must be one number or {channels}, one a channel, got {len(values)}")
    return values * channels if len(values) == 1 else values


@functools.lru_cache(maxsize=64)
def _on_device(
    mean: tuple[float, ...], std: tuple[float, ...], levels: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cached, so that the numbers cross once; then they are there, whichever stream reads them."""
    scale = [1 / (levels * s) for s in std]
    bias = [-m / s for m, s in zip(mean, std, strict=True)]
    with torch.inference_mode(False):  # others may want gradients
        numbers = torch.tensor([scale, bias])
        if device.type == "cuda":
            numbers = numbers.pin_memory().to(device, non_blocking=True)
            torch.cuda.current_stream(device).record_event().synchronize()
        scales, biases = numbers.to(device)
    return scales, biases


def _choose(images: Tensor, impl: Impl) -> str:
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {IMPLS}, got {impl!r}")
    differentiable = images.requires_grad and torch.is_grad_enabled()
    if impl == "auto":
        if images.is_cuda and can_fuse() and not differentiable:
            return "fused"
        return "host" if images.device.type == "cpu" and not differentiable else "reference"
    if impl != "reference" and differentiable:
        raise ValueError(f"impl={impl!r} passes no gradient to images; use impl='reference', or images.detach()")
    if (impl == "fused" and not images.is_cuda) or (impl == "host" and images.device.type != "cpu"):
        raise ValueError(f"impl={impl!r} cannot run on {images.device}; use impl='auto' or 'reference'")
    return impl


def beside(images: Tensor, plan: MixPlan, impl: Impl = "auto") -> MixPlan | PackedPlan:
    """``plan`` as the pixels and the labels of one batch can both read it: packed on the GPU, if that mixes it."""
    return pack(plan, images.device) if _choose(images, impl) == "fused" else plan


def empty_like(images: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None) -> Tensor:
    """Memory for the result, laid out as the images are or as told."""
    if memory_format is None:
        memory_format = torch.preserve_format
    elif images.ndim != 4:
        raise ValueError(f"memory_format needs images [B, C, H, W], got {tuple(images.shape)}")
    return torch.empty_like(images, dtype=dtype, memory_format=memory_format)


def _mix_by_operator(
    images: Tensor,
    plan: PackedPlan,
    *,
    mean: Statistic | None,
    std: Statistic | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    out: Tensor | None,
    impl: Impl,
) -> Tensor:
    """What ``torch.compile`` sees of :func:`mix`: one operator, which calls it when the graph runs."""
    if images.requires_grad and torch.is_grad_enabled():
        raise ValueError("mix passes no gradient to images under torch.compile; use images.detach()")
    means, stds = _numbers(mean), _numbers(std)
    if out is None:
        made: Tensor = torch.ops.mixcollate.mix(
            images, plan.words, plan.key, means, stds, dtype, memory_format, impl
        )  # fmt: skip
        return made
    source = None if out is images else images
    torch.ops.mixcollate.mix_(out, source, plan.words, plan.key, means, stds, dtype, memory_format, impl)
    return out


@torch.compiler.disable(reason="plans are on the host; for one graph pack the plan outside")  # type: ignore
def uncompiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function that works on plans from code that is being compiled."""
    return function(*arguments, **options)


def _numbers(value: Statistic | None) -> list[float] | None:
    return None if value is None else list(_as_floats(value))


def _as_floats(value: Statistic) -> tuple[float, ...]:
    """A number or several, Python's, NumPy's or torch's."""
    if isinstance(value, (int, float)):
        return (float(value),)
    if isinstance(value, (tuple, list)):
        return tuple(map(float, value))
    return tuple(torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist())
