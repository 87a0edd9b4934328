"""What ``mix`` refuses, before anything is written; no check reads a value on the GPU."""

import functools
import importlib.util
import os
import shutil
import sysconfig
import warnings
from pathlib import Path

import torch
from torch import Tensor

from mixcollate.kernels.packed import PackedPlan, check_partners, is_whole
from mixcollate.plan import MixPlan

_PLACES = frozenset({"box", "corner", "erase_box", "grid", "hidden"})  # parts that speak of rows and columns


@functools.cache
def can_fuse() -> bool:
    """Whether Triton is there, and what it builds its launchers with. Asked about tensors on a GPU; a no is told."""
    needed = {
        "Triton": importlib.util.find_spec("triton"),
        "a C compiler for Triton": c_compiler(),
        "Python's headers (python3-dev) for Triton": python_header(),
    }
    missing = ", ".join(name for name, found in needed.items() if not found)
    if missing:
        warnings.warn(f"plain torch mixes on the GPU, several times as slowly, for want of {missing}", stacklevel=2)
    return not missing


def c_compiler() -> str | None:
    """The one that Triton takes."""
    names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return next(filter(None, map(shutil.which, names)), None)


def python_header() -> Path | None:
    """Where Triton looks for it, which is not Debian's own scheme."""
    path = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    return path if path.exists() else None


def check_images(images: Tensor, plan: MixPlan | PackedPlan) -> None:
    """A batch, with a row for each of the plan's."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, got {type(images).__name__}; stack the samples first")
    if images.ndim < 1 or len(images) != len(plan):
        raise ValueError(f"images must have one row for each of the plan's {len(plan)}, got {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
        raise TypeError(f"images must be uint8 or floating point, got {images.dtype}; convert with .to(torch.uint8)")


def check_plan(images: Tensor, plan: MixPlan | PackedPlan, dtype: torch.dtype, *, normalised: bool) -> None:
    """A plan for these images, whose numbers stay within the batch; those on a GPU are not looked at."""
    shapes = plan.layout.shapes if isinstance(plan, PackedPlan) else plan.shapes
    if not _PLACES.isdisjoint(shapes):
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
        _check_numbers(plan, dtype)
    elif not (dtype.is_floating_point or plan.whole_fill):
        raise ValueError(f"fill must be whole numbers in 0 … 255 for {dtype} images; normalise them, or give a colour")
    elif plan.words.device != images.device:
        raise ValueError(f"plan must be on {images.device} as the images are, got {plan.words.device}")
    if plan.then is not None:
        check_plan(images, plan.then, dtype, normalised=normalised)


def _check_numbers(plan: MixPlan, dtype: torch.dtype) -> None:
    check_partners(plan)
    if plan.fill is not None and not (dtype.is_floating_point or is_whole(plan.fill)):
        raise ValueError(f"fill must be whole numbers in 0 … 255 for {dtype} images, got {plan.fill.ravel()[:3]} …")


def result_dtype(images: Tensor, dtype: torch.dtype | None, *, normalised: bool, out: Tensor | None) -> torch.dtype:
    """The dtype that comes out; integers stay what they are and are not normalised."""
    if dtype is None and out is not None:
        dtype = out.dtype
    if dtype is None:
        dtype = torch.float32 if normalised and not images.dtype.is_floating_point else images.dtype
    if not dtype.is_floating_point and (normalised or dtype != images.dtype):
        raise TypeError(
            f"dtype must be floating point for {images.dtype} images, normalised: {normalised}; got {dtype}"
        )
    return dtype


def check_out(images: Tensor, out: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None) -> None:
    """Memory like that of the result."""
    if out.shape != images.shape or out.dtype != dtype or out.device != images.device:
        raise ValueError(
            f"out must be {tuple(images.shape)} {dtype} on {images.device}, "
            f"got {tuple(out.shape)} {out.dtype} on {out.device}"
        )
    if 0 in out.stride() and any(
        step == 0 and length > 1 for step, length in zip(out.stride(), out.shape, strict=True)
    ):
        raise ValueError("out must have memory of its own for every element, got an expanded tensor; clone() it first")
    if memory_format is not None and not out.is_contiguous(memory_format=memory_format):
        raise ValueError(f"out must be in memory_format {memory_format}, or leave memory_format out")
