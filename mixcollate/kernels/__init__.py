"""``mix``: the one public door to pixels. Checks the call, then chooses an implementation."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mixcollate.kernels import host, reference
from mixcollate.kernels.packed import PackedPlan, layout_from_key, pack
from mixcollate.plan import MixPlan

Impl = Literal["auto", "reference", "host", "fused"]
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
    if isinstance(plan, PackedPlan) and torch.compiler.is_compiling():
        return _mix_by_operator(images, plan, mean, std, dtype, memory_format, out, impl)
    _check_images(images, plan)
    dtype = _result_dtype(images, dtype, normalised=mean is not None or std is not None, out=out)
    _check_plan(images, plan, dtype, normalised=mean is not None)
    scale, bias = _affine(images, mean, std, dtype)
    chosen = _choose(images, impl)
    if out is None:
        out = _empty(images, dtype, memory_format)
    else:
        _check_out(images, out, dtype, memory_format)
        if out.data_ptr() == images.data_ptr() and out.stride() != images.stride():
            raise ValueError("out must be images itself or share no memory with it")
    if images.numel() > 0:
        _run(chosen, images, plan, out, scale, bias)
    return out


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


def _check_images(images: Tensor, plan: MixPlan | PackedPlan) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, got {type(images).__name__}; stack the samples first")
    if images.ndim < 1 or len(images) != len(plan):
        raise ValueError(f"images must have one row for each of the plan's {len(plan)}, got {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
        raise TypeError(f"images must be uint8 or floating point, got {images.dtype}; convert with .to(torch.uint8)")


def _check_plan(images: Tensor, plan: MixPlan | PackedPlan, dtype: torch.dtype, *, normalised: bool) -> None:
    places = ("box", "corner", "erase_box", "grid", "hidden")
    if any(_shape(plan, name) is not None for name in places):
        if images.ndim not in (4, 5):
            raise ValueError(f"images must be [B, C, H, W] or [B, T, C, H, W] for boxes, got {tuple(images.shape)}")
        if tuple(images.shape[-2:]) != plan.size:
            raise ValueError(
                f"images must have the (height, width) {plan.size} that the plan was drawn for, "
                f"got {tuple(images.shape[-2:])}; draw one with make_plan(images)"
            )
    fill = _shape(plan, "fill")
    if fill is not None:
        if fill[1] not in (1, images.shape[-3]):
            raise ValueError(f"fill must have 1 or {images.shape[-3]} channels, got {fill[1]}")
        if plan.fill_mean and not normalised:
            raise ValueError("fill='mean' needs mean= and std=; without them give the mean itself, fill=(r, g, b)")
    if isinstance(plan, MixPlan):
        _check_numbers(plan, dtype)
    elif plan.words.device != images.device:
        raise ValueError(f"plan must be on {images.device} as the images are, got {plan.words.device}")
    if plan.then is not None:
        _check_plan(images, plan.then, dtype, normalised=normalised)


def _shape(plan: MixPlan | PackedPlan, name: str) -> tuple[int, ...] | None:
    """The shape of one image's part of a plan, if it is there."""
    if isinstance(plan, PackedPlan):
        return plan.layout.shapes.get(name)
    part = getattr(plan, name)
    return None if part is None else tuple(part.shape[1:])


def _check_numbers(plan: MixPlan, dtype: torch.dtype) -> None:
    if plan.mixes and plan.partners.size and not 0 <= plan.partners.min() <= plan.partners.max() < len(plan):
        raise ValueError(
            f"plan.partners must be in 0 … {len(plan) - 1}, got {plan.partners.min()} … {plan.partners.max()}"
        )
    if plan.fill is not None and not dtype.is_floating_point:
        if ((plan.fill < 0) | (plan.fill > 255) | (plan.fill % 1 != 0)).any():
            raise ValueError(f"fill must be whole numbers in 0 … 255 for {dtype} images, got {plan.fill.ravel()[:3]} …")


def _result_dtype(images: Tensor, dtype: torch.dtype | None, *, normalised: bool, out: Tensor | None) -> torch.dtype:
    if dtype is None and out is not None:
        dtype = out.dtype
    if dtype is None:
        dtype = torch.float32 if normalised and not images.dtype.is_floating_point else images.dtype
    if not dtype.is_floating_point and (normalised or dtype != images.dtype):
        raise TypeError(
            f"dtype must be floating point for {images.dtype} images, normalised: {normalised}; got {dtype}"
        )
    return dtype


def _affine(
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
    values = (float(value),) if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    if len(values) not in (1, channels):
        raise ValueError(f"{name} must be one number or {channels}, one a channel, got {len(values)}")
    return values * channels if len(values) == 1 else values


@functools.lru_cache(maxsize=64)
def _on_device(
    mean: tuple[float, ...], std: tuple[float, ...], levels: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cached, because copying Python numbers to a GPU makes the host wait for it."""
    scale = [1 / (levels * s) for s in std]
    bias = [-m / s for m, s in zip(mean, std, strict=True)]
    return torch.tensor(scale, device=device), torch.tensor(bias, device=device)


def _choose(images: Tensor, impl: Impl) -> str:
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be one of {get_args(Impl)}, got {impl!r}")
    differentiable = images.requires_grad and torch.is_grad_enabled()
    if impl == "auto":
        if differentiable:
            return "reference"
        return {"cuda": "fused", "cpu": "host"}.get(images.device.type, "reference")
    if impl != "reference" and differentiable:
        raise ValueError(f"impl={impl!r} passes no gradient to images; use impl='reference', or images.detach()")
    if (impl, images.device.type) in (("fused", "cpu"), ("host", "cuda")):
        raise ValueError(f"impl={impl!r} cannot run on {images.device}; use impl='auto' or 'reference'")
    return impl


def _empty(images: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None) -> Tensor:
    if memory_format is None:
        memory_format = torch.preserve_format
    elif images.ndim != 4:
        raise ValueError(f"memory_format needs images [B, C, H, W], got {tuple(images.shape)}")
    return torch.empty_like(images, dtype=dtype, memory_format=memory_format)


def _check_out(images: Tensor, out: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None) -> None:
    if out.shape != images.shape or out.dtype != dtype or out.device != images.device:
        raise ValueError(
            f"out must be {tuple(images.shape)} {dtype} on {images.device}, "
            f"got {tuple(out.shape)} {out.dtype} on {out.device}"
        )
    if memory_format is not None and not out.is_contiguous(memory_format=memory_format):
        raise ValueError(f"out must be in memory_format {memory_format}, or leave memory_format out")


def _mix_by_operator(
    images: Tensor,
    plan: PackedPlan,
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


def _numbers(value: Statistic | None) -> list[float] | None:
    if value is None:
        return None
    return [float(value)] if isinstance(value, (int, float)) else [float(number) for number in value]


def _operator(
    images: Tensor,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> Tensor:
    plan = PackedPlan(words, layout_from_key(layout))
    return mix(images, plan, mean=mean, std=std, dtype=dtype, memory_format=memory_format, impl=impl)


def _operator_(
    out: Tensor,
    images: Tensor | None,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> None:
    plan, source = PackedPlan(words, layout_from_key(layout)), out if images is None else images
    mix(source, plan, mean=mean, std=std, dtype=dtype, memory_format=memory_format, out=out, impl=impl)


def _fake_operator(
    images: Tensor,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> Tensor:
    plan, normalised = PackedPlan(words, layout_from_key(layout)), mean is not None or std is not None
    _check_images(images, plan)
    dtype = _result_dtype(images, dtype, normalised=normalised, out=None)
    _check_plan(images, plan, dtype, normalised=mean is not None)
    return _empty(images, dtype, memory_format)


def _fake_operator_(
    out: Tensor,
    images: Tensor | None,
    words: Tensor,
    layout: str,
    mean: list[float] | None,
    std: list[float] | None,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    impl: Impl,
) -> None:
    plan, source = PackedPlan(words, layout_from_key(layout)), out if images is None else images
    _check_images(source, plan)
    _check_plan(source, plan, out.dtype, normalised=mean is not None)
    if images is not None:
        _check_out(source, out, out.dtype if dtype is None else dtype, memory_format)


_ARGUMENTS = (
    "Tensor words, str layout, float[]? mean, float[]? std, ScalarType? dtype, MemoryFormat? memory_format, str impl"
)


def _register() -> Any:
    """Define the operators, once a process, even if this module is loaded again."""
    if hasattr(torch.ops.mixcollate, "mix"):
        return None
    # torch.library.custom_op would cost several times as much a call; neither has types.
    library: Any = torch.library.Library("mixcollate", "DEF")  # type: ignore[no-untyped-call]
    library.define(f"mix(Tensor images, {_ARGUMENTS}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
    library.define(f"mix_(Tensor(a!) out, Tensor? images, {_ARGUMENTS}) -> ()", tags=torch.Tag.pt2_compliant_tag)
    for device in ("CPU", "CUDA"):
        library.impl("mix", _operator, device)
        library.impl("mix_", _operator_, device)
    torch.library.register_fake("mixcollate::mix", _fake_operator, lib=library)
    torch.library.register_fake("mixcollate::mix_", _fake_operator_, lib=library)
    return library


_LIBRARY = globals().get("_LIBRARY") or _register()  # the definitions live as long as this object
