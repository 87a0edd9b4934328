"""``mix``, ``mix_masks`` and ``mix_samples``: the public functions on pixels, in eager code and ``torch.compile``."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mixcollate.checks import is_compiling
from mixcollate.kernels.packed import PackedPlan
from mixcollate.kernels.pixels import Statistic, as_list, result_dtype
from mixcollate.kernels.prepare import (
    Axes,
    check_layout,
    check_memory_format,
    check_whole_fill,
    prepare,
    prepare_masks,
    prepare_samples,
)
from mixcollate.kernels.support import Impl
from mixcollate.plan import MixPlan


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
    layout: Axes | None = None,
) -> Tensor:
    """Apply ``plan`` to ``images`` in one pass: mix, normalise, erase, cast.

    Equivalent, for a plan of MixUp, to ``own * images + (1 - own) * images[plan.partner]``, then
    ``torchvision.transforms.v2.functional.normalize``.

    Args:
        images: ``[B, C, H, W]``, video ``[B, T, C, H, W]``, or any ``[B, ...]`` for a plan without boxes;
            uint8 or floating point, any strides. Not modified, unless it is ``out``.
        plan: one row per image, drawn for this height and width; for ``torch.compile`` and CUDA graphs, the result
            of :func:`pack` on the device of the images.
        mean: subtracted after mixing: one number, or one per channel, for images scaled to [0, 1].
        std: the divisor after that, likewise.
        dtype: of the result. Default: that of ``images``, or float32 when uint8 images are normalised. uint8
            images become floats in [0, 1]. In an integer result, what blending adds to a pixel is rounded half to
            even, so that two images blended with each other keep their sum.
        memory_format: of the result, ``torch.contiguous_format`` or ``torch.channels_last``, for images
            ``[B, C, H, W]``. Default: as ``images``.
        out: where to write; ``out=images`` mixes in place.
        impl: ``"fused"`` (Triton, CUDA), ``"host"`` (CPU), ``"reference"`` (any device), or ``"auto"``: the first of
            these that supports the device, or the reference if ``images`` need a gradient. An explicit choice never
            falls back to another.
        layout: the order of the axes, if it is not one of the above: ``"BCDHW"`` for volumes (boxes extend through all
            slices; mean, std and fill are per channel), ``"BCT"`` for signals (with a plan of size ``(1, T)``).

    Returns:
        ``out``, or a new tensor of the shape of ``images``.

    Raises:
        ValueError, TypeError: before anything is written.
    """
    options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "memory_format": memory_format}
    if not is_compiling():
        return prepare(images, plan, **options, out=out, impl=impl, layout=layout).run()
    if not isinstance(plan, PackedPlan):
        return cast(Tensor, uncompiled(mix, images, plan, **options, out=out, impl=impl, layout=layout))
    check_layout(images, layout)
    if layout not in ("BCDHW", "BCT"):
        return _mix_by_operator(images, plan, **options, out=out, impl=impl)
    if memory_format is not None:
        check_memory_format(images)
    axes: Callable[[Tensor], Tensor] = (
        (lambda x: x.transpose(1, 2)) if layout == "BCDHW" else (lambda x: x.unsqueeze(2))
    )
    mixed = _mix_by_operator(axes(images), plan, **options, out=None if out is None else axes(out), impl=impl)
    if out is not None:
        return out
    return mixed.transpose(1, 2) if layout == "BCDHW" else mixed.squeeze(2)


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
        samples: ``[C, H, W]`` each, all of the same shape and dtype; not modified.
        plan, mean, std: as for :func:`mix`.
        out: ``[B, C, H, W]``, where the result is written; shares no memory with ``samples``.

    Returns:
        ``out``.

    Raises:
        ValueError, TypeError: before anything is written.
    """
    return prepare_samples(samples, plan, mean=mean, std=std, out=out).run()


def mix_masks(masks: Tensor, plan: MixPlan | PackedPlan) -> Tensor:
    """Mix segmentation masks as ``plan`` mixes their images; what it erases in images is kept in masks.

    Args:
        masks: ``[B, H, W]``, ``[B, C, H, W]``, of volumes also ``[B, C, D, H, W]``, of signals ``[B, C, T]``: class
            indices of any integer dtype or bool, if the plan only copies pixels; or floats (one-hot or soft), which may
            be blended.
        plan: drawn for the images. Where it resizes a partner, masks take the nearest pixel.

    Returns:
        New masks of the same shape and dtype.

    Raises:
        ValueError, TypeError: before anything is written; also for class indices, if the plan blends.
    """
    if is_compiling():
        return cast(Tensor, uncompiled(mix_masks, masks, plan))
    return prepare_masks(masks, plan).run()


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
    """:func:`mix` as ``torch.compile`` sees it: one operator, which calls the real one when the graph runs."""
    if images.requires_grad and torch.is_grad_enabled():
        raise ValueError("mix passes no gradient to images under torch.compile; use images.detach()")
    normalised = mean is not None or std is not None
    check_whole_fill(plan, result_dtype(images, dtype, normalised=normalised, out=out))
    means, stds = as_list("mean", mean), as_list("std", std)
    if out is None:
        made: Tensor = torch.ops.mixcollate.mix(
            images, plan.words, plan.key, means, stds, dtype, memory_format, impl
        )  # fmt: skip
        return made
    source = None if out is images else images
    torch.ops.mixcollate.mix_(out, source, plan.words, plan.key, means, stds, dtype, memory_format, impl)
    return out


_WHY = "mixcollate draws plans on the host: leave transforms out of what you compile, or pack a plan outside"
_HAS_REASON = "reason" in inspect.signature(torch.compiler.disable).parameters  # not in torch 2.6
_REASON: Any = {"reason": _WHY} if _HAS_REASON else {}


@torch.compiler.disable(**_REASON)  # type: ignore[untyped-decorator, no-untyped-call]
def uncompiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function that works with plans from code that is being compiled, with a graph break."""
    if is_compiling():  # torch.export runs this, too, instead of breaking the graph
        owner = getattr(function, "__self__", None)
        raise cannot_be_exported(function.__name__ if owner is None else type(owner).__name__)
    return function(*arguments, **options)


def cannot_be_exported(name: str) -> RuntimeError:
    """The error for what would become part of a program that mixes every batch by the same plan."""
    return RuntimeError(
        f"a module that contains {name} cannot be exported, since plans are drawn on the host: remove it, inference "
        "does not need it"
    )
