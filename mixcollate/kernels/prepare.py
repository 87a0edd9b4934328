"""What a call of ``mix`` settles before anything is written: every check, once, and one record of the answers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from mixcollate.kernels import host, reference
from mixcollate.kernels.packed import PackedPlan, check_partners, is_whole, pack
from mixcollate.kernels.pixels import Affine, Statistic, affine
from mixcollate.kernels.pixels import check_pixels as check_pixels
from mixcollate.kernels.pixels import result_dtype as result_dtype
from mixcollate.kernels.support import Impl, choose
from mixcollate.memory import Recycler
from mixcollate.plan import PLACES, MixPlan


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One call of ``mix`` that has passed its checks. Nothing is written until :meth:`run`.

    Attributes:
        images: what is read, ``[B, ...]``.
        plan: one row for each image; packed, if ``implementation`` is ``"fused"``.
        out: where to write, of the dtype and the shape of the result; ``images`` themselves for mixing in place.
        affine: how mixed values are scaled and normalised, if they are.
        implementation: the one that runs.
        result: the memory of ``out`` as the caller knows it.
    """

    images: Tensor
    plan: MixPlan | PackedPlan
    out: Tensor
    affine: Affine | None
    implementation: Impl
    result: Tensor

    def run(self) -> Tensor:
        """Write, and return the result."""
        if self.out.numel() > 0:
            run_passes(self.implementation, self.images, self.plan, self.out, self.affine)
        return self.result


def prepare(
    images: Tensor,
    plan: MixPlan | PackedPlan,
    *,
    mean: Statistic | None = None,
    std: Statistic | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    out: Tensor | None = None,
    impl: Impl = "auto",
) -> Call:
    """Check a call of :func:`mixcollate.kernels.mix`, whose arguments these are, and settle what it leaves open.

    Raises:
        ValueError, TypeError: whatever ``mix`` refuses; :meth:`Call.run` refuses nothing.
    """
    _check_images(images, plan)
    normalised = mean is not None or std is not None
    dtype = result_dtype(images, dtype, normalised=normalised, out=out)
    _check_plan(images, plan, dtype, normalised=mean is not None)
    if normalised and images.ndim not in (4, 5):
        raise ValueError(f"images must be [B, C, H, W] or [B, T, C, H, W] to be normalised, got {tuple(images.shape)}")
    channels = images.shape[-3] if images.ndim in (4, 5) else 1
    frames = images.shape[1] if images.ndim == 5 else 1
    scaled = affine(images, mean, std, dtype, channels=channels, repeats=frames)
    implementation = choose(images, impl)
    if out is None:
        out = _empty(images, dtype, memory_format, recycled=implementation == "host")
    else:
        _check_out(images, out, dtype, memory_format)
    if implementation == "fused" and isinstance(plan, MixPlan):
        plan = pack(plan, images.device)  # all passes in one copy
    return Call(images, plan, out, scaled, implementation, out)


def prepare_masks(masks: Tensor, plan: MixPlan | PackedPlan) -> Call:
    """Check a call of :func:`mixcollate.kernels.mix_masks`, whose arguments these are."""
    if masks.ndim not in (3, 4):
        raise ValueError(f"masks must be [B, H, W] or [B, C, H, W], got {tuple(masks.shape)}")
    if isinstance(plan, PackedPlan):
        plan = plan.unpack()
    plan = plan.for_masks().at_size((masks.shape[-2], masks.shape[-1]))
    if masks.dtype.is_floating_point:
        result = torch.empty_like(masks)
        pixels, out = ((one if one.ndim == 4 else one[:, None]) for one in (masks, result))
        call = prepare(pixels, plan, out=out)
        return Call(call.images, call.plan, call.out, None, call.implementation, result)
    if masks.dtype.is_complex:
        raise TypeError(f"masks must be class numbers or floats, got {masks.dtype}")
    if plan.blends:
        raise ValueError(f"masks must be one-hot floats for a plan that blends, got {masks.dtype} class numbers")
    result = torch.empty_like(masks, memory_format=torch.contiguous_format)
    call = prepare(_as_bytes(masks), plan, out=_as_bytes(result))
    return Call(call.images, call.plan, call.out, None, call.implementation, result)


def _as_bytes(masks: Tensor) -> Tensor:
    """``[B, bytes (times C), H, W]`` uint8: integers of any dtype are copied exactly as the bytes that they are."""
    parts = masks[..., None].view(torch.uint8).movedim(-1, 1)  # [B, bytes, (C,) H, W]
    return parts if parts.ndim == 4 else parts.transpose(1, 2)


def place(plan: MixPlan | PackedPlan, images: Tensor, impl: Impl = "auto") -> MixPlan | PackedPlan:
    """``plan`` as the pixels and the labels of one batch can both read it: packed on the GPU, if that mixes it."""
    if isinstance(plan, PackedPlan) or choose(images, impl) != "fused":
        return plan
    return pack(plan, images.device)


def run_passes(
    implementation: Impl, images: Tensor, plan: MixPlan | PackedPlan, out: Tensor, scaled: Affine | None
) -> None:
    """Run the passes of ``plan``: the first from ``images`` into ``out``, further ones in place."""
    if implementation != "fused" and isinstance(plan, PackedPlan):
        plan = plan.unpack()
    source, target = _as_planes(images), _as_planes(out)
    written = target
    if out.data_ptr() != target.data_ptr():  # strides that no view can fold into [B, C, H, W]
        written = torch.empty_like(target)
    if isinstance(plan, PackedPlan):
        from mixcollate.kernels import fused  # the only way to Triton, taken on first use

        with torch.cuda.device(written.device):  # Triton launches on the current device
            fused.mix(source, plan, written, affine=scaled)
    else:
        (host if implementation == "host" else reference).mix(source, plan, written, affine=scaled)
    if written is not target:
        out.copy_(written.view(out.shape))
    if plan.then is not None:
        run_passes(implementation, out, plan.then, out, None)


def _as_planes(images: Tensor) -> Tensor:
    """``[B, C, H, W]``: frames of a video side by side with channels, anything else as one row of pixels."""
    if images.ndim == 4:
        return images
    if images.ndim == 5:
        return images.flatten(1, 2)
    return images.reshape(len(images), 1, 1, -1)


def _check_images(images: Tensor, plan: MixPlan | PackedPlan) -> None:
    """A batch, with a row for each of the plan's."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, got {type(images).__name__}; stack the samples first")
    if images.ndim < 1 or len(images) != len(plan):
        raise ValueError(f"images must have one row for each of the plan's {len(plan)}, got {tuple(images.shape)}")
    check_pixels(images)


def _check_plan(images: Tensor, plan: MixPlan | PackedPlan, dtype: torch.dtype, *, normalised: bool) -> None:
    """A plan for these images, whose numbers stay within the batch; those on a GPU are not looked at."""
    shapes = plan.layout.shapes if isinstance(plan, PackedPlan) else plan.shapes
    if not PLACES.isdisjoint(shapes):
        if images.ndim not in (4, 5):
            raise ValueError(f"images must be [B, C, H, W] or [B, T, C, H, W] for boxes, got {tuple(images.shape)}")
        if tuple(images.shape[-2:]) != plan.size:
            raise ValueError(
                f"images must have the (height, width) {plan.size} that the plan was drawn for, "
                f"got {tuple(images.shape[-2:])}; draw one with make_plan(images)"
            )
    fill = shapes.get("fill")
    if fill is not None:
        if fill[1] not in (1, images.shape[-3]):
            raise ValueError(f"fill must have 1 or {images.shape[-3]} channels, got {fill[1]}")
        if plan.fill_mean and not normalised:
            raise ValueError("fill='mean' needs mean= and std=; without them give the mean itself, fill=(r, g, b)")
    if isinstance(plan, MixPlan):
        check_partners(plan)
        if not (dtype.is_floating_point or is_whole(plan.fill)):
            raise ValueError(f"fill must be whole numbers in 0 … 255 for {dtype} images, got {_some(plan.fill)} …")
    elif not (dtype.is_floating_point or plan.whole_fill):
        raise ValueError(f"fill must be whole numbers in 0 … 255 for {dtype} images; normalise them, or give a colour")
    elif plan.words.device != images.device:
        raise ValueError(f"plan must be on {images.device} as the images are, got {plan.words.device}")
    if plan.then is not None:
        _check_plan(images, plan.then, dtype, normalised=normalised)


def _some(array: Any) -> Any:
    return array.ravel()[:3]


_RESULTS = Recycler()


def _empty(images: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None, *, recycled: bool) -> Tensor:
    """Memory for the result, laid out as the images are or as told; of results that nobody holds any more."""
    if memory_format is None:
        memory_format = torch.preserve_format
    elif images.ndim != 4:
        raise ValueError(f"memory_format needs images [B, C, H, W], got {tuple(images.shape)}")
    if recycled and not is_fake(images):
        return _RESULTS.empty_like(images, dtype=dtype, memory_format=memory_format)
    return torch.empty_like(images, dtype=dtype, memory_format=memory_format)


def _check_out(images: Tensor, out: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None) -> None:
    """Memory like that of the result, which is that of the images or shares nothing with it."""
    if out.shape != images.shape or out.dtype != dtype or out.device != images.device:
        raise ValueError(
            f"out must be {tuple(images.shape)} {dtype} on {images.device}, "
            f"got {tuple(out.shape)} {out.dtype} on {out.device}"
        )
    if 0 in out.stride() and any(
        step == 0 and length > 1 for step, length in zip(out.stride(), out.shape, strict=True)
    ):
        raise ValueError("out must have memory of its own for every element, got an expanded tensor; clone() it first")
    if out.requires_grad and torch.is_grad_enabled():
        raise ValueError("out must not require a gradient; mix under torch.no_grad(), or without out=")
    if memory_format is not None and not out.is_contiguous(memory_format=memory_format):
        raise ValueError(f"out must be in memory_format {memory_format}, or leave memory_format out")
    if is_fake(out) or out.numel() == 0:
        return
    if out.data_ptr() == images.data_ptr() and out.stride() != images.stride():
        raise ValueError("out must be images itself or share no memory with it")
