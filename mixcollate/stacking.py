"""Samples into one batch, in memory that is shared with the main process or that was a batch before."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import collate as torch_collate  # documented: how default_collate is extended
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map

from mixcollate.kernels.host import LARGE
from mixcollate.kernels.prepare import as_batch
from mixcollate.memory import Recycler
from mixcollate.roles import Path, dotted, leaves

_KINDS = (Tensor, np.ndarray, (int, float, np.generic), (str, bytes))
"""What torch makes a batch of, each in a way of its own."""


@dataclass(frozen=True, eq=False)
class Unstacked:
    """Samples of one shape and dtype that are stacked while they are mixed."""

    samples: Sequence[Tensor]

    @property
    def like(self) -> Tensor:
        """The stacked batch but for its pixels."""
        return as_batch(self.samples)


class Stacking:
    """torch's ``default_collate``, into memory of our own.

    Args:
        on_the_way: leave large samples :class:`Unstacked`, because they are mixed in this process.
    """

    def __init__(self, *, on_the_way: bool) -> None:
        self._on_the_way = on_the_way
        self._memory = Recycler()

    def stack(self, samples: list[Any]) -> Any:
        """One batch of samples; raises what torch does, or which part of them has no one shape."""
        if not torch.empty(0).is_cpu:  # where torch's own collation would put numbers
            with torch.device("cpu"):
                return self._stack(samples)
        return self._stack(samples)

    def _stack(self, samples: list[Any]) -> Any:
        try:
            batch = torch_collate(samples, collate_fn_map={**default_collate_fn_map, Tensor: self._stack_tensors})
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            raise _why_not(samples, error) from error
        _refuse_further_keys(samples)
        return batch

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """``torch.stack`` into memory of our own."""
        return torch.stack(list(tensors), out=self.empty((len(tensors), *tensors[0].shape), tensors[0].dtype))

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for a batch: what a worker sends must be shared, so it is from the start."""
        if get_worker_info() is None:
            return self._memory.empty(shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        shared = torch.UntypedStorage._new_shared(size, device="cpu")  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=torch.uint8, device="cpu").set_(shared).view(dtype).view(shape)

    def _stack_tensors(self, tensors: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor | Unstacked:
        first = tensors[0]
        if not all([isinstance(tensor, Tensor) for tensor in tensors]):
            raise TypeError("samples of tensors and of other things make no batch")
        dtypes = {tensor.dtype for tensor in tensors}
        if len({dtype.is_floating_point for dtype in dtypes}) > 1:
            raise TypeError("samples of integers and of floats make no batch")
        if get_worker_info() is not None and not self._on_the_way and len(dtypes) == 1:  # torch would cast to the first
            shared: Tensor = collate_tensor_fn(tensors, collate_fn_map=collate_fn_map)
            return shared
        plain = first.layout == torch.strided and first.device.type == "cpu" and not first.requires_grad
        if not plain or len({(tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in tensors}) > 1:
            return torch.stack(list(tensors))
        if self._on_the_way and first.ndim == 3 and first.numel() >= LARGE:
            return Unstacked(tensors)
        return self.join(tensors)


def _refuse_further_keys(samples: Sequence[Any]) -> None:
    """Refuse what only some of the samples that have been stacked have: torch takes the keys of the first."""
    first = samples[0]
    if isinstance(first, Mapping):
        for sample in samples:
            if len(sample) > len(first):
                more = [key for key in sample if key not in first]
                raise ValueError(f"samples must have the same keys to make a batch, but only some have {more}")
    elif not isinstance(first, (tuple, list)):
        return
    for place in first if isinstance(first, Mapping) else range(len(first)):
        if isinstance(first[place], (Mapping, tuple, list)):
            _refuse_further_keys([sample[place] for sample in samples])


def _why_not(samples: Sequence[Any], error: Exception) -> Exception:
    """A better reason why samples make no batch than torch's, where there is one."""
    if isinstance(error, KeyError):
        return ValueError(f"samples must have the same keys to make a batch, but one lacks {error}")
    shapes: dict[Any, tuple[int, ...]] = {}
    firsts: dict[Any, Any] = {}
    several = len(leaves(samples[0]))
    for sample in samples:
        found = leaves(sample)
        for path, leaf in found:
            if (misfit := _misfit(path, leaf)) is not None:
                return misfit
            first = firsts.setdefault(path, leaf)
            if _kind(first) is not _kind(leaf):
                return TypeError(
                    f"samples must be of one kind to make a batch, got {type(first).__name__} and "
                    f"{type(leaf).__name__} at {dotted(path)}: let the data set make all of them tensors"
                )
            if isinstance(leaf, (Tensor, np.ndarray)) and _is_floating(first) != _is_floating(leaf):
                return TypeError(
                    f"samples must be all integers or all floats to make a batch, got {first.dtype} and {leaf.dtype} "
                    f"at {dotted(path)}: torchvision.transforms.v2.ToDtype(torch.float32, scale=True) makes images "
                    "floats"
                )
            shape = tuple(leaf.shape) if hasattr(leaf, "shape") else (len(leaf),) if isinstance(leaf, list) else ()
            if shapes.setdefault(path, shape) != shape:
                return ValueError(
                    f"images must have one size to make a batch, resize them first: at {dotted(path)} the samples have "
                    f"the shapes {shapes[path]} and {shape}; other things of many sizes need a collate_fn of their own"
                )
        if len(found) != several:
            return ValueError(
                f"samples must have the same parts to make a batch, got {several} in one and {len(found)} in another; "
                "lists of many lengths need a collate_fn of their own"
            )
        if paths := {path for path, _ in found} ^ firsts.keys():
            places = ", ".join(sorted(map(dotted, paths)))
            return ValueError(f"samples must have the same parts to make a batch, but only some have {places}")
    return error


def _kind(leaf: Any) -> Any:
    """To which of these kinds something belongs, or else its type."""
    return next((kind for kind in _KINDS if isinstance(leaf, kind)), type(leaf))


def _is_floating(array: Tensor | np.ndarray[Any, Any]) -> bool:
    return array.dtype.is_floating_point if isinstance(array, Tensor) else array.dtype.kind == "f"


def _misfit(path: Path, leaf: Any) -> Exception | None:
    """Why no batch can be made of what a sample has there, whatever the others have."""
    if isinstance(leaf, PIL.Image.Image):
        return TypeError(
            f"images must be tensors to be stacked, got PIL images at {dotted(path)}: convert them in the data set, as "
            "with torchvision.transforms.v2.PILToTensor()"
        )
    array = leaf if isinstance(leaf, np.ndarray) else None
    if not isinstance(leaf, (*default_collate_fn_map, list)) or (array is not None and array.dtype.kind not in "biufc"):
        kind = type(leaf).__name__ if array is None else f"an array of {array.dtype}"
        return TypeError(
            f"samples must be of tensors, arrays of numbers, numbers and texts to make a batch, got {kind} at "
            f"{dotted(path)}: leave it out, or give a collate_fn that knows what to make of it"
        )
    if array is not None and (min(array.strides, default=0) < 0 or not array.dtype.isnative):
        return TypeError(
            f"arrays must lie in memory as torch's tensors do, got strides {array.strides} of {array.dtype.str} at "
            f"{dotted(path)}: np.ascontiguousarray(array, array.dtype.newbyteorder('=')) does"
        )
    return None
