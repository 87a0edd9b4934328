"""Dtypes of pixels, and how their values are scaled: levels, mean and standard deviation."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake, unset_fake_temporarily

from mixcollate.checks import as_number, check_kind, check_tensor, shown

Statistic = float | Sequence[float]

LEVELS = {torch.uint8: 255}
"""The supported integer dtypes, each with its largest value, which counts as 1 for mean and std."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Affine(NamedTuple):
    """Mixed values become ``values * scale + bias``: ``[C]`` float32 each, on the device of the images."""

    scale: Tensor
    bias: Tensor


def check_pixels(images: Tensor) -> None:
    """Refuse images of a dtype that cannot be mixed, quantized ones, and nested tensors, which have no shape.

    Raises:
        TypeError: names a conversion that preserves all values.
    """
    if images.is_nested or images.is_quantized:
        check_tensor("images", images)
    if images.dtype in LEVELS or images.dtype in FLOATS:
        return
    advice = "convert with .to(torch.float32)"
    if images.dtype.is_complex:
        advice = "pass its parts as channels: torch.view_as_real"
    if not (images.dtype.is_floating_point or images.dtype.is_complex or images.dtype == torch.bool):
        largest = torch.iinfo(images.dtype).max
        advice = f"convert with .to(torch.float32) / m, where m is white ({largest} if they use all of this dtype)"
    if images.dtype == torch.int64:
        advice += (
            "; from a Hugging Face dataset take uint8 with "
            '.with_format("torch", columns=["pixel_values"], dtype=torch.uint8, output_all_columns=True), '
            "with the name of your image column (without columns= the labels become uint8, too)"
        )
    raise TypeError(f"images must be uint8 or floating point, got {images.dtype}; {advice}")


def check_output(dtype: Any, memory_format: Any) -> None:
    """Check the dtype and memory format of the result; ``None`` keeps those of the images."""
    check_kind("dtype", dtype, torch.dtype, None)
    if dtype is not None and dtype not in LEVELS and dtype not in FLOATS:
        raise TypeError(f"dtype must be floating point, got {dtype}; leave it out to keep that of integer images")
    if memory_format not in (None, torch.contiguous_format, torch.channels_last):
        raise TypeError(
            f"memory_format must be torch.contiguous_format or torch.channels_last, got {shown(memory_format)}"
        )


def result_dtype(images: Tensor, dtype: torch.dtype | None, *, normalised: bool, out: Tensor | None) -> torch.dtype:
    """The dtype of the result. Integer images keep theirs unless they are normalised."""
    name = "dtype"
    if dtype is None and out is not None:
        name, dtype = "out.dtype", out.dtype
    if dtype is None:
        dtype = images.dtype if images.dtype.is_floating_point or not normalised else torch.float32
    if dtype in FLOATS or (dtype == images.dtype and not normalised):
        return dtype
    raise TypeError(f"{name} must be floating point for {images.dtype} images, normalised: {normalised}; got {dtype}")


def check_affine(
    mean: Statistic | None,
    std: Statistic | None,
    dtype: torch.dtype | None = None,
    *,
    images: torch.dtype | None = None,
) -> None:
    """Refuse a mean and a standard deviation that cannot be right for any batch.

    Args:
        mean, std, dtype: as for :func:`mixcollate.kernels.mix`.
        images: the dtype of the images, if it is known.

    Raises:
        ValueError, TypeError: also for statistics of images in 0 … 255, if these are integers.
    """
    subtracted = (0.0,) if mean is None else _as_floats("mean", mean)
    divided = (1.0,) if std is None else _as_floats("std", std)
    if min(divided) <= 0:
        raise ValueError(f"std must be positive, got {std}")
    if dtype is not None and dtype not in FLOATS and not (mean is None and std is None):
        raise TypeError(f"dtype must be floating point to normalise, got {dtype}; leave out mean= and std=")
    largest = LEVELS.get(images) if images is not None else None
    if largest and (min(subtracted) < 0 or max(*subtracted, *divided) > 1):
        scaled = [tuple(round(x / largest, 4) for x in numbers) for numbers in (subtracted, divided)]
        raise ValueError(
            f"mean and std must be those of images in [0, 1], got mean={mean}, std={std} for {images} images, which "
            f"are divided by {largest} first; if yours are in 0 … {largest}, give mean={scaled[0]}, std={scaled[1]}"
        )


def affine_of(
    images: Tensor, mean: Statistic | None, std: Statistic | None, dtype: torch.dtype, *, channels: int, repeats: int
) -> Affine | None:
    """What scales mixed values to [0, 1] and normalises them; ``None`` if they stay unchanged.

    Args:
        images: only the dtype and device matter (and the shape, in error messages).
        mean, std: one number, or one for each of ``channels``.
        dtype: of the result.
        channels: the number of channels.
        repeats: how often these channels are repeated (once per frame of a video).
    """
    levels = float(LEVELS.get(images.dtype, 1)) if dtype.is_floating_point else 1.0
    if mean is None and std is None and levels == 1.0:
        return None
    check_affine(mean, std, dtype, images=images.dtype)
    subtracted = _per_channel("mean", 0.0 if mean is None else mean, channels, images)
    divided = _per_channel("std", 1.0 if std is None else std, channels, images)
    numbers = _on_device(subtracted * repeats, divided * repeats, levels, images.device)
    if is_fake(images):  # fake tensors work only with fake ones
        return Affine(*images.new_empty((2, channels * repeats), dtype=torch.float32))
    return numbers


def _per_channel(name: str, value: Statistic, channels: int, images: Tensor) -> tuple[float, ...]:
    values = _as_floats(name, value)
    if len(values) not in (1, channels):
        frames_last = images.ndim == 5 and images.shape[1] == len(values)
        way_out = "; video [B, C, T, H, W] takes layout='BCDHW'" if frames_last else ""
        raise ValueError(
            f"{name} must be one number or {channels}, one per channel of images {tuple(images.shape)}, got "
            f"{len(values)}{way_out}"
        )
    return values * channels if len(values) == 1 else values


@functools.lru_cache(maxsize=64)
def _on_device(mean: tuple[float, ...], std: tuple[float, ...], levels: float, device: torch.device) -> Affine:
    """Cached, so that the numbers are copied once; they have arrived when this returns, for streams of any kind.

    Computed even while a call is being traced, since tensors created during CUDA graph capture belong to the graph.
    """
    scale = [1 / (levels * s) for s in std]
    bias = [-m / s for m, s in zip(mean, std, strict=True)]
    with torch.inference_mode(False), unset_fake_temporarily():  # later callers may need gradients, or real tensors
        numbers = torch.tensor([scale, bias], dtype=torch.float32, device="cpu")
        if device.type == "cuda" and not torch.cuda.is_available():  # traced here to run elsewhere
            return Affine(*numbers)
        if device.type == "cuda":
            numbers = numbers.pin_memory().to(device, non_blocking=True)
            torch.cuda.current_stream(device).record_event().synchronize()
        return Affine(*numbers.to(device))


def as_list(name: str, value: Statistic | None) -> list[float] | None:
    """One number or several, as a list of floats."""
    return None if value is None else list(_as_floats(name, value))


def _as_floats(name: str, value: Any) -> tuple[float, ...]:
    """One number or several, of Python, NumPy or torch."""
    try:
        items: Any = [value] if isinstance(value, (int, float)) else value
        if not isinstance(items, (tuple, list)):
            items = torch.as_tensor(items, device="cpu").reshape(-1).tolist()
        values = tuple([float(as_number(one)) for one in items])  # type: ignore[arg-type]  # None raises TypeError
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a number, or a sequence with one per channel, got {value!r}") from error
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"{name} must be finite numbers, one or one per channel, got {value!r}")
    return values
