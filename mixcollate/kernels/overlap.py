"""Which tensors share memory, on any device: a result must not be written over what is still to be read."""

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from mixcollate.checks import is_transformed


def check_overlap(name: str, images: Tensor, out: Tensor) -> None:
    """Refuse an ``out`` (called ``name``) that overlaps itself, or the images, unless it is the images themselves.

    Anything else would be read after it is written.
    """
    reach = 1  # number of elements spanned by the axes so far, innermost first
    for step, length in sorted(zip(out.stride(), out.shape, strict=True)):
        if length > 1 and step < reach:
            raise ValueError(
                f"{name} must hold every element in memory of its own, got strides {out.stride()}; pass a clone()"
            )
        reach += (length - 1) * step
    if images.data_ptr() == out.data_ptr() and images.stride() == out.stride() and images.dtype == out.dtype:
        return
    if reach_into_each_other([images, out]) and _share_memory(images, out):
        raise ValueError("out must be images itself or share no memory with it, got a view of part of it; clone() it")


def has_address(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory: not a fake one, nor the wrappers of ``torch.func``."""
    return not (is_fake(tensor) or is_transformed())


def reach_into_each_other(tensors: Sequence[Tensor]) -> bool:
    """Whether the address ranges of any two of these tensors, none of which is empty, overlap."""
    spans = sorted([_span(tensor) for tensor in tensors])
    return any(begin < end for (_, end), (begin, _) in itertools.pairwise(spans))


def _span(tensor: Tensor) -> tuple[int, int]:
    """The addresses of the first element and past the last one."""
    last = sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have any byte in common, on any device; true if that is too hard to tell."""
    most: Any = 100_000  # steps of the search
    try:
        return np.shares_memory(_addresses_of(one), _addresses_of(other), max_work=most)
    except np.exceptions.TooHardError:
        return True


def _addresses_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """An array at the same addresses, which must not be read: they may be those of a GPU."""
    size = tensor.element_size()
    steps = (*(step * size for step in tensor.stride()), 1)
    interface = {"shape": (*tensor.shape, size), "strides": steps, "typestr": "|u1", "version": 3}
    return np.asarray(SimpleNamespace(__array_interface__={**interface, "data": (tensor.data_ptr(), False)}))
