"""``mix``, ``mix_masks`` and ``mix_samples``: the public doors to pixels, in eager code and under ``torch.compile``."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mixcollate.kernels.packed import PackedPlan
from mixcollate.kernels.pixels import Statistic, as_list, result_dtype
from mixcollate.kernels.prepare import Axes, check_layout, check_whole_fill, prepare, prepare_masks, prepare_samples
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
        layout: which axis is which, if it is not as above: ``"BCDHW"`` for volumes (boxes reach through all slices,
            mean, std and fill belong to channels), ``"BCT"`` for signals (a plan of size ``(1, T)``).

    Returns:
        ``out``, or a new tensor of the shape of ``images``.

    Raises:
        ValueError, TypeError: before anything is written.
    """
    options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "memory_format": memory_format}
    if not torch.compiler.is_compiling():
        return prepare(images, plan, **options, out=out, impl=impl, layout=layout).run()
    if not isinstance(plan, PackedPlan):
        return cast(Tensor, uncompiled(mix, images, plan, **options, out=out, impl=impl, layout=layout))
    check_layout(images, layout)
    if layout not in ("BCDHW", "BCT"):
        return _mix_by_operator(images, plan, **options, out=out, impl=impl)
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
        samples: ``[C, H, W]`` each, of one shape and dtype; left as they are.
        plan, mean, std: as for :func:`mix`.
        out: where to write, ``[B, C, H, W]``; shares no memory with ``samples``.
    """
    return prepare_samples(samples, plan, mean=mean, std=std, out=out).run()


def mix_masks(masks: Tensor, plan: MixPlan | PackedPlan) -> Tensor:
    """Do to segmentation masks what ``plan`` does to their images; what it erases there stays here.

    Args:
        masks: ``[B, H, W]``, ``[B, C, H, W]`` or of volumes ``[B, C, D, H, W]``: class numbers of any integer dtype (or
            bool), if the plan only copies pixels; or floats (one-hot, soft), of which a blend makes soft masks.
        plan: drawn for the images. Where it resizes a partner, masks take the nearest pixel.

    Raises:
        ValueError: class numbers under a plan that blends them.
    """
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
    """What ``torch.compile`` sees of :func:`mix`: one operator, which calls it when the graph runs."""
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


@torch.compiler.disable  # type: ignore[untyped-decorator]  # plans are on the host; for one graph pack the plan outside
def uncompiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function that works on plans from code that is being compiled."""
    return function(*arguments, **options)
