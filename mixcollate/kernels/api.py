"""``mix``, ``mix_masks`` and ``mix_samples``: the public doors to pixels, in eager code and under ``torch.compile``."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mixcollate.kernels import host
from mixcollate.kernels.packed import PackedPlan
from mixcollate.kernels.pixels import Statistic, as_list
from mixcollate.kernels.prepare import prepare, prepare_masks, run_passes
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
    options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "memory_format": memory_format}
    if not torch.compiler.is_compiling():
        return prepare(images, plan, **options, out=out, impl=impl).run()
    if isinstance(plan, PackedPlan):
        return _mix_by_operator(images, plan, **options, out=out, impl=impl)
    return cast(Tensor, uncompiled(mix, images, plan, **options, out=out, impl=impl))


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
    call = prepare(as_batch(samples), plan, mean=mean, std=std, out=out, impl="host")
    host.mix_samples(samples, plan, out, affine=call.affine)
    if plan.then is not None:
        run_passes("host", out, plan.then, out, None)
    return out


def as_batch(samples: Sequence[Tensor]) -> Tensor:
    """All of a stacked batch but its pixels, which are those of the first sample again and again."""
    return samples[0].expand(len(samples), *samples[0].shape)


def mix_masks(masks: Tensor, plan: MixPlan | PackedPlan) -> Tensor:
    """Do to segmentation masks what ``plan`` does to their images; what it erases there stays here.

    Args:
        masks: ``[B, H, W]`` or ``[B, C, H, W]``: class numbers of any integer dtype, if the plan only copies pixels;
            or floats (one-hot, soft), of which a blend makes soft masks.
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
    means, stds = as_list("mean", mean), as_list("std", std)
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
