"""Stack samples into one batch, in memory that is shared with the main process or reused from earlier batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import collate as torch_collate  # documented: how default_collate is extended
from torch.utils.data._utils.collate import default_collate_fn_map
from torchvision import tv_tensors

from mixcollate.kernels.host import LARGE
from mixcollate.kernels.prepare import as_batch
from mixcollate.memory import Recycler
from mixcollate.roles import Path, dotted, leaves

_KINDS = (Tensor, np.ndarray, (int, float, np.generic), (str, bytes))
"""The kinds of leaves that torch collates, each in its own way."""


@dataclass(frozen=True, eq=False)
class Unstacked:
    """Samples of one shape and dtype that will be stacked while they are mixed."""

    samples: Sequence[Tensor]

    @property
    def like(self) -> Tensor:
        """A tensor with the shape and dtype of the stacked batch, but not its pixels."""
        return as_batch(self.samples)


class Stacking:
    """torch's ``default_collate``, into memory that this object provides.

    Args:
        defer_large: leave large samples :class:`Unstacked`: they will be stacked while they are mixed, in this process.
    """

    def __init__(self, *, defer_large: bool) -> None:
        self._defer_large = defer_large
        self._memory = Recycler()

    def stack(self, samples: list[Any]) -> Any:
        """Make one batch of samples; an error says which part of them cannot be stacked, and why."""
        if not _is_default_cpu():  # torch would collate numbers into tensors on its default device
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
        """``torch.stack`` into memory of :meth:`empty`."""
        return torch.stack(list(tensors), out=self.empty((len(tensors), *tensors[0].shape), tensors[0].dtype))

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory for a batch; in a worker it is shared, so that sending it takes no copy."""
        if get_worker_info() is None:
            return self._memory.empty(shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        shared = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=torch.uint8, device="cpu").set_(shared).view(dtype).view(shape)

    def _stack_tensors(self, tensors: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor | Unstacked:
        if not all([isinstance(tensor, Tensor) for tensor in tensors]):
            raise TypeError("cannot stack tensors with other objects")
        if isinstance(tensors[0], tv_tensors.TVTensor):  # they are slow to be asked for anything
            with torch._C.DisableTorchFunctionSubclass():
                tensors = [tensor.as_subclass(Tensor) for tensor in tensors]
        first = tensors[0]
        kinds = {(tensor.dtype, tensor.requires_grad) for tensor in tensors}  # torch.stack compares the shapes
        if len({dtype.is_floating_point for dtype, _ in kinds}) > 1:
            raise TypeError("cannot stack integers with floats")
        is_dense = first.layout == torch.strided and not (first.is_quantized or first.is_nested)
        if not (is_dense and first.is_cpu) or first.requires_grad or len(kinds) > 1:
            return torch.stack(list(tensors))  # in memory of its own
        is_large = first.ndim == 3 and first.numel() >= LARGE
        has_own_type = type(first) is not Tensor  # which stacking keeps
        if self._defer_large and is_large and not has_own_type and len({tensor.shape for tensor in tensors}) == 1:
            return Unstacked(tensors)
        return self.join(tensors)


def _is_default_cpu() -> bool:
    """Whether torch's default device is the CPU."""
    try:
        return torch.empty(0).is_cpu
    except (RuntimeError, AssertionError):  # depends on the kind of device: a forked worker cannot use a GPU
        return False


def _refuse_further_keys(samples: Sequence[Any]) -> None:
    """Refuse keys that only some of the samples have: torch collates the keys of the first and drops the others."""
    first = samples[0]
    if isinstance(first, Mapping):
        for sample in samples:
            if len(sample.keys()) > len(first.keys()):  # a TensorDict is as long as its tensors, and iterates over them
                more = [key for key in sample.keys() if key not in first.keys()]
                raise ValueError(f"samples must have the same keys to be stacked, but only some have {more}")
    elif not isinstance(first, (tuple, list)):
        return
    for place in first.keys() if isinstance(first, Mapping) else range(len(first)):
        if isinstance(first[place], (Mapping, tuple, list)):
            _refuse_further_keys([sample[place] for sample in samples])


def _why_not(samples: Sequence[Any], error: Exception) -> Exception:
    """Why samples cannot be stacked, in clearer words than torch's ``error``, which is returned if none are found."""
    if isinstance(error, KeyError):
        return ValueError(f"samples must have the same keys to be stacked, but one lacks {error}")
    firsts = dict(leaves(samples[0]))
    for sample in samples:
        found = dict(leaves(sample))
        for path, leaf in found.items():
            why = _misfit(path, leaf) or _mismatch(path, firsts.get(path, leaf), leaf)
            if why is not None:
                return why
        if len(found) != len(firsts):
            return ValueError(
                f"samples must have the same structure to be stacked, got {len(firsts)} items in one and {len(found)} "
                "in another; lists of different lengths need a collate_fn that handles them"
            )
        if paths := found.keys() ^ firsts.keys():
            places = ", ".join(sorted(map(dotted, paths)))
            return ValueError(f"samples must have the same structure to be stacked, but only some have {places}")
    return error


def _mismatch(path: Path, first: Any, leaf: Any) -> Exception | None:
    """Why the leaves of two samples cannot be stacked with each other; ``None`` if they can."""
    if _kind(first) is not _kind(leaf):
        return TypeError(
            f"samples must have one type to be stacked, got {type(first).__name__} and {type(leaf).__name__} at "
            f"{dotted(path)}; convert all of them to tensors in the dataset"
        )
    if isinstance(leaf, (Tensor, np.ndarray)) and _is_floating(first) != _is_floating(leaf):
        return TypeError(
            f"samples must be all integers or all floats to be stacked, got {first.dtype} and {leaf.dtype} at "
            f"{dotted(path)}; torchvision.transforms.v2.ToDtype(torch.float32, scale=True) converts images to floats"
        )
    if (one := _shape(first)) != (other := _shape(leaf)):
        what = "images" if len(one) > 2 else "samples"
        return ValueError(
            f"{what} must have one size to make a batch, got the shapes {one} and {other} at {dotted(path)}: resize, "
            "crop or pad them in the dataset, or make the batch with a collate_fn of your own"
        )
    return None


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape) if hasattr(leaf, "shape") else (len(leaf),) if isinstance(leaf, list) else ()


def _kind(leaf: Any) -> Any:
    """The entry of ``_KINDS`` that a leaf is an instance of, or else its type."""
    return next((kind for kind in _KINDS if isinstance(leaf, kind)), type(leaf))


def _is_floating(array: Tensor | np.ndarray[Any, Any]) -> bool:
    return array.dtype.is_floating_point if isinstance(array, Tensor) else array.dtype.kind == "f"


def _misfit(path: Path, leaf: Any) -> Exception | None:
    """Why this leaf cannot be stacked, whatever the other samples have there; ``None`` if it can."""
    if isinstance(leaf, PIL.Image.Image):
        return TypeError(
            f"images must be tensors to be stacked, got PIL images at {dotted(path)}; convert them in the dataset, "
            "with torchvision.transforms.v2.PILToTensor() for example"
        )
    if isinstance(leaf, Tensor) and leaf.is_nested:
        return TypeError(
            f"samples must have a shape to be stacked, got a nested tensor at {dotted(path)}; pad it with "
            "torch.nested.to_padded_tensor, or pass a collate_fn that handles it"
        )
    array = leaf if isinstance(leaf, np.ndarray) else None
    if not isinstance(leaf, (*default_collate_fn_map, list)) or (array is not None and array.dtype.kind not in "biufc"):
        kind = type(leaf).__name__ if array is None else f"an array of {array.dtype}"
        way_out = "make a mapping of it: vars(...)" if is_dataclass(leaf) else "leave it out"
        return TypeError(
            f"samples must consist of tensors, numeric arrays, numbers and strings to be stacked, got {kind} at "
            f"{dotted(path)}; {way_out}, or pass a collate_fn that handles it"
        )
    if array is not None and (min(array.strides, default=0) < 0 or not array.dtype.isnative):
        return TypeError(
            f"arrays must have positive strides and native byte order, as tensors do, got strides {array.strides} of "
            f"{array.dtype.str} at {dotted(path)}; use np.ascontiguousarray(array, array.dtype.newbyteorder('='))"
        )
    return None
