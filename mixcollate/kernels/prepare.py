"""All that a call of ``mix`` checks and decides before anything is written, and the :class:`Call` that then runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.autograd.graph import increment_version

from mixcollate.checks import check_kind, check_tensor, shown
from mixcollate.kernels import host, reference
from mixcollate.kernels.bounds import check_bounds, mark_as_checked
from mixcollate.kernels.overlap import check_overlap, has_address
from mixcollate.kernels.packed import PackedPlan, is_whole, pack
from mixcollate.kernels.pixels import LEVELS, Affine, Statistic, affine_of, check_output, check_pixels, result_dtype
from mixcollate.kernels.support import Impl, choose
from mixcollate.memory import WORTH_KEEPING, Recycler
from mixcollate.plan import PLACES, MixPlan

if TYPE_CHECKING:
    from mixcollate.kernels.fused_targets import UnwrittenTargets

Axes = Literal["BCHW", "BTCHW", "BCDHW", "BCT"]
AXES = get_args(Axes)

TOO_FEW_AXES = "gray images [B, H, W] need an axis of channels, images[:, None]; signals [B, C, T] take layout='BCT'"
"""The way out for images that have three axes, perhaps."""

_RESULTS = Recycler()


class Call(NamedTuple):
    """A call of ``mix`` that has passed its checks. Nothing is written until :meth:`run`.

    Attributes:
        images: the input, ``[B, ...]``, with channels before height and width.
        plan: one row for each image; packed if ``implementation`` is ``"fused"``.
        out: the output, with the shape of ``images``; ``images`` itself for mixing in place.
        affine: how to scale and normalise mixed values, if at all.
        implementation: the implementation that runs.
        result: the memory of ``out``, with the axes of the caller's images.
        samples: the images, if they are not stacked yet.
        targets: soft targets to write in the same launch.
    """

    images: Tensor
    plan: MixPlan | PackedPlan
    out: Tensor
    affine: Affine | None
    implementation: Impl
    result: Tensor
    samples: Sequence[Tensor] | None = None
    targets: "UnwrittenTargets | None" = None

    def run(self) -> Tensor:
        """Write, and return the result."""
        if self.out.numel() == 0 and self.targets is None:
            return self.result
        if self.samples is not None and isinstance(self.plan, MixPlan):
            host.mix_samples(self.samples, self.plan, self.out, affine=self.affine)
            if self.plan.then is not None:
                run_passes("host", self.out, self.plan.then, self.out, None)
        else:
            run_passes(self.implementation, self.images, self.plan, self.out, self.affine, self.targets)
        increment_version(self.result)  # so that autograd notices what NumPy, Numba and Triton write
        return self.result


@dataclass(frozen=True, eq=False, slots=True)
class Decision:
    """How images of one kind (shape, strides, dtype, device) are mixed by plans of one kind, whatever their numbers.

    Attributes:
        dtype: of the result.
        memory_format: of the result; ``None``: as the images.
        affine: how to scale and normalise mixed values, if at all.
        implementation: the implementation that runs.
        arranged: a function that views images, and the output, with channels before height and width.
        recycled: whether memory for the result is reused from earlier results.
    """

    dtype: torch.dtype
    memory_format: torch.memory_format | None
    affine: Affine | None
    implementation: Impl
    arranged: Callable[[Tensor], Tensor]
    recycled: bool

    def call(
        self,
        images: Tensor,
        plan: MixPlan | PackedPlan,
        out: Tensor | None = None,
        targets: "UnwrittenTargets | None" = None,
    ) -> Call:
        """The call for images and a plan of these kinds. ``targets`` are written in the same launch."""
        if out is None:
            empty_like = _RESULTS.empty_like if self.recycled else torch.empty_like
            out = empty_like(images, dtype=self.dtype, memory_format=self.memory_format or torch.preserve_format)
        if self.implementation == "fused" and isinstance(plan, MixPlan):
            plan = pack(plan, images.device)  # all passes in one copy
        pixels, written = self.arranged(images), self.arranged(out)
        return Call(pixels, plan, written, self.affine, self.implementation, out, None, targets)


def decide(
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
) -> Decision:
    """Check the arguments of :func:`mixcollate.kernels.mix`, and decide what they leave open.

    Raises:
        ValueError, TypeError: whatever ``mix`` refuses. :meth:`Call.run` raises only for images of more than 2**30
            elements, on a GPU.
    """
    check_kind("plan", plan, MixPlan, PackedPlan)
    check_kind("out", out, Tensor, None)
    _check_images(images, plan)
    normalised = mean is not None or std is not None
    if dtype is not None or memory_format is not None:
        check_output(dtype, memory_format)
    dtype = result_dtype(images, dtype, normalised=normalised, out=out)
    arranged = _arrangement(images, plan, layout, normalised=normalised)
    pixels = arranged(images)
    check_plan(pixels, plan, dtype, has_mean=mean is not None)
    if normalised and pixels.ndim not in (4, 5):
        raise ValueError(
            f"images must be [B, C, H, W] or [B, T, C, H, W] to be normalised, got {tuple(images.shape)}; "
            f"{TOO_FEW_AXES}"
        )
    channels = pixels.shape[-3] if pixels.ndim in (4, 5) else 1
    frames = pixels.shape[1] if pixels.ndim == 5 else 1
    affine = affine_of(pixels, mean, std, dtype, channels=channels, repeats=frames)
    implementation = choose(images, impl)
    if out is not None:
        _check_out(images, out, dtype, memory_format)
    elif memory_format is not None:
        check_memory_format(images)
    recycled = False
    # the size of a fake one may be a symbol, which must not be compared with a number
    if out is None and implementation == "host" and not is_fake(images):
        recycled = images.nbytes >= WORTH_KEEPING // 8  # uint8 may become float64; a recycler asks at each call
    return Decision(dtype, memory_format, affine, implementation, arranged, recycled)


def prepare(images: Tensor, plan: MixPlan | PackedPlan, *, out: Tensor | None = None, **options: Any) -> Call:
    """The call of :func:`mixcollate.kernels.mix` with these arguments, checked by :func:`decide`."""
    return decide(images, plan, out=out, **options).call(images, plan, out)


def prepare_samples(
    samples: Sequence[Tensor],
    plan: MixPlan,
    *,
    mean: Statistic | None = None,
    std: Statistic | None = None,
    out: Tensor,
) -> Call:
    """Check the arguments of :func:`mixcollate.kernels.mix_samples`."""
    if not isinstance(samples, Sequence) or not samples:
        raise TypeError(f"samples must be a list of tensors [C, H, W], got {shown(samples)}")
    first = samples[0]
    for sample in samples:
        if not isinstance(sample, Tensor) or sample.shape != first.shape or sample.dtype != first.dtype:
            raise TypeError(f"samples must be tensors of one shape and dtype, got {shown(first)} and {shown(sample)}")
    call = prepare(as_batch(samples), plan, mean=mean, std=std, out=out, impl="host")
    return call._replace(samples=samples)


def as_batch(samples: Sequence[Tensor]) -> Tensor:
    """A tensor with the shape and dtype of the stacked batch; every image has the pixels of the first sample."""
    return samples[0].expand(len(samples), *samples[0].shape)


def prepare_masks(masks: Tensor, plan: MixPlan | PackedPlan, *, inplace: bool = False) -> Call:
    """Check the arguments of :func:`mixcollate.kernels.mix_masks`; ``inplace``: write into the memory of the masks."""
    check_tensor("masks", masks)
    check_kind("plan", plan, MixPlan, PackedPlan)
    if masks.ndim not in (3, 4, 5):
        raise ValueError(
            f"masks must be [B, H, W], [B, C, H, W] or [B, C, D, H, W], got {tuple(masks.shape)}; those of signals "
            "[B, T] need an axis of channels: masks[:, None]"
        )
    if len(masks) != len(plan):
        raise ValueError(f"masks must have one row for each of the plan's {len(plan)}, got {tuple(masks.shape)}")
    plan = plan.unpack() if isinstance(plan, PackedPlan) else plan
    check_bounds(plan)
    plan = plan.for_masks().at_size((masks.shape[-2], masks.shape[-1]))
    mark_as_checked(plan)  # it was made of one that is
    check_masks(masks, blends=plan.blends)
    numbered = not masks.dtype.is_floating_point
    as_pixels = _as_bytes if numbered else _as_planes_of_masks
    kept = torch.preserve_format if masks.ndim < 5 and not numbered else torch.contiguous_format
    empty_like = _RESULTS.empty_like if choose(masks, "auto") == "host" else torch.empty_like
    result = masks if inplace else empty_like(masks, memory_format=kept)  # such that as_pixels returns a view
    call = prepare(as_pixels(masks), plan, out=as_pixels(result))
    return call._replace(result=result)


def check_masks(masks: Tensor, *, blends: bool) -> None:
    """Refuse class indices if the plan blends them."""
    if blends and not masks.dtype.is_floating_point:
        raise ValueError(
            f"masks must be one-hot floats for a plan that blends, got {masks.dtype} class indices; "
            "MixupCollate(mask_classes=...) converts them"
        )


def _as_planes_of_masks(masks: Tensor) -> Tensor:
    """``[B, C, H, W]``."""
    return masks[:, None] if masks.ndim == 3 else masks.flatten(1, -3)


def _as_bytes(masks: Tensor) -> Tensor:
    """``[B, C, bytes, H, W]`` uint8: integers of any dtype are copied exactly, byte by byte."""
    return _as_planes_of_masks(masks)[..., None].view(torch.uint8).movedim(-1, 2)


def check_layout(images: Tensor, layout: Axes | None) -> None:
    """Refuse an unknown layout, or one with another number of axes than the images."""
    if layout is None:
        return
    if layout not in AXES:  # not check_choice, whose message torch 2.6 cannot trace
        raise ValueError(f"layout must be one of {', '.join(AXES)}, got {layout!r}")
    if len(layout) != images.ndim:
        raise ValueError(f"images must have the {len(layout)} axes of layout={layout!r}, got {tuple(images.shape)}")


def _arrangement(
    images: Tensor, plan: MixPlan | PackedPlan, layout: Axes | None, *, normalised: bool
) -> Callable[[Tensor], Tensor]:
    """A function that views images of this layout, and the output, as images or videos.

    Volumes become videos of their slices, but only if channels have numbers of their own (a mean, a fill): with several
    channels that takes a copy, and otherwise all axes before the last two are treated alike.
    """
    check_layout(images, layout)
    if layout == "BCT":
        return lambda signals: signals[:, :, None]
    if layout == "BCDHW":
        if normalised or (_fills(plan) or 1) > 1:
            return lambda volumes: volumes.transpose(1, 2)
    return lambda pixels: pixels


def place(plan: MixPlan | PackedPlan, images: Tensor, impl: Impl = "auto") -> MixPlan | PackedPlan:
    """``plan`` in the form that both pixels and labels of a batch need: packed on the GPU, if the kernels run there."""
    if isinstance(plan, PackedPlan) or choose(images, impl) != "fused":
        return plan
    return pack(plan, images.device)


def run_passes(
    implementation: Impl,
    images: Tensor,
    plan: MixPlan | PackedPlan,
    out: Tensor,
    affine: Affine | None,
    targets: "UnwrittenTargets | None" = None,
) -> None:
    """Run the passes of ``plan``: the first from ``images`` into ``out``, further ones in place."""
    if implementation != "fused" and isinstance(plan, PackedPlan):
        plan = plan.unpack()
    source, target = _as_planes(images), _as_planes(out)
    written = target
    # target is a copy where out has no view as [B, C, H, W]; without addresses, nothing tells whether it is one
    if target is not out and not (has_address(out) and out.data_ptr() == target.data_ptr()):
        written = torch.empty_like(target)
    if isinstance(plan, PackedPlan):
        from mixcollate.kernels import fused  # the only way to Triton, taken on first use

        with torch.cuda.device(written.device):  # Triton launches on the current device
            fused.mix(source, plan, written, affine=affine, targets=targets)
    else:
        if targets is not None:  # on a GPU, but another implementation mixes the images
            with torch.cuda.device(targets.labels.device):
                targets.write()
        (host if implementation == "host" else reference).mix(source, plan, written, affine=affine)
    if written is not target:
        out.copy_(written.view(out.shape))
    if plan.then is not None:
        run_passes(implementation, out, plan.then, out, None)


def _as_planes(images: Tensor) -> Tensor:
    """``[B, C, H, W]``: the frames of a video as channels, anything else as one row of pixels."""
    if images.ndim == 4:
        return images
    if images.ndim == 5:
        return images.flatten(1, 2)
    return images.reshape(len(images), 1, 1, math.prod(images.shape[1:]))  # -1 would be ambiguous without images


def _check_images(images: Tensor, plan: MixPlan | PackedPlan) -> None:
    """Refuse anything but a batch with an image for each row of the plan."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, got {type(images).__name__}; stack the samples first")
    check_tensor("images", images)
    if images.shape[:1] != (len(plan),):
        raise ValueError(f"images must have one row for each of the plan's {len(plan)}, got {tuple(images.shape)}")
    check_pixels(images)


def check_plan(images: Tensor, plan: MixPlan | PackedPlan, dtype: torch.dtype, *, has_mean: bool) -> None:
    """Refuse a plan that is not for these images. Numbers on a GPU are not read."""
    if isinstance(plan, MixPlan):
        check_bounds(plan)
    if not PLACES.isdisjoint(plan.layout.shapes if isinstance(plan, PackedPlan) else plan.parts):
        if images.ndim not in (4, 5):
            raise ValueError(
                f"images must be [B, C, H, W] or [B, T, C, H, W] for boxes, got {tuple(images.shape)}; {TOO_FEW_AXES}"
            )
        if tuple(images.shape[-2:]) != plan.size:
            raise ValueError(
                f"images must have the (height, width) {plan.size} that the plan was drawn for, "
                f"got {tuple(images.shape[-2:])}; draw one with make_plan(images)"
            )
    fills = _fills(plan)
    if fills is not None:
        if fills not in (1, images.shape[-3]):
            raise ValueError(
                f"fill must have one value for all channels, or one for each of those of images {tuple(images.shape)}, "
                f"got {fills}"
            )
        if plan.fill_mean and not has_mean:
            raise ValueError("fill='mean' needs mean= and std=; without them pass the mean itself, fill=(r, g, b)")
    if isinstance(plan, MixPlan):
        if not (dtype.is_floating_point or is_whole(plan.fill)):
            raise ValueError(
                f"fill must be whole numbers in 0 … {LEVELS[dtype]} for {dtype} images, got "
                f"{_first_not_whole(plan.fill):.3g}; with mean= and std= images become floats, which take any fill"
            )
    else:
        check_whole_fill(plan, dtype)
        if plan.words.device != images.device:
            raise ValueError(f"plan must be on {images.device} like the images, got {plan.words.device}")
    if plan.then is not None:
        check_plan(images, plan.then, dtype, has_mean=has_mean)


def _fills(plan: MixPlan | PackedPlan) -> int | None:
    """How many numbers a fill consists of: one, or one for each channel; ``None`` if there is no fill."""
    if isinstance(plan, PackedPlan):
        return plan.layout.shapes.get("fill", (0, None))[1]
    return None if plan.fill is None else plan.fill.shape[2]


def check_whole_fill(plan: PackedPlan, dtype: torch.dtype) -> None:
    """Refuse a packed plan whose fill this dtype cannot hold; an operator, given only its words, cannot check that."""
    if not (dtype.is_floating_point or plan.whole_fill):
        raise ValueError(
            f"fill must be whole numbers in 0 … {LEVELS[dtype]} for {dtype} images; normalise them, or pass a colour"
        )


def _first_not_whole(fill: Any) -> float:
    """The first number of a fill that integer images cannot hold."""
    return next(float(number) for number in fill.ravel() if not is_whole(number))


def check_memory_format(images: Tensor) -> None:
    """Refuse a memory format for anything but images: signals have four axes only once they are arranged."""
    if images.ndim != 4:
        raise ValueError(f"memory_format needs images [B, C, H, W], got {tuple(images.shape)}")


def _check_out(images: Tensor, out: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None) -> None:
    """Refuse an ``out`` unlike the result, or one that overlaps the images without being the same."""
    if out.shape != images.shape or out.dtype != dtype or out.device != images.device:
        raise ValueError(
            f"out must be {tuple(images.shape)} {dtype} on {images.device}, "
            f"got {tuple(out.shape)} {out.dtype} on {out.device}"
        )
    name = "images mixed in place" if out is images else "out"
    if out.requires_grad and torch.is_grad_enabled():
        way_out = "inplace=True or out=images" if out is images else "out="
        raise ValueError(f"{name} must not require a gradient; mix under torch.no_grad(), or without {way_out}")
    if memory_format is not None and not out.is_contiguous(memory_format=memory_format):
        raise ValueError(f"out must be in memory_format {memory_format}, or leave memory_format out")
    if has_address(out) and out.numel() > 0:
        check_overlap(name, images, out)
