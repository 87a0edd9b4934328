"""Launch a Triton kernel again without finding out again what its arguments are."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MOST_KEPT = 256  # kernels: one for each size of images in a run with many; whoever comes again later asks Triton again
SMALL_STORAGE = 2**31  # bytes: AMD's compiler makes other code for tensors up to there, with offsets of 32 bits

_COMPILED: dict[Any, Any] = {}


def launch(
    kernel: Any,
    grid: tuple[int, int, int],
    tensors: Sequence[Tensor],
    numbers: tuple[float, ...],
    constants: tuple[Any, ...],
    **options: Any,
) -> None:
    """``kernel[grid](*tensors, *numbers, *constants, **options)``, from the second time on at half the host's time.

    What Triton asks of every argument at every launch, and compiles for, is in the key of what was compiled: dtypes,
    which addresses are multiples of 16 bytes, all numbers, and for AMD which storages are small. ``options`` must
    follow from ``constants``.
    """
    key = (kernel, tensors[0].device, numbers, constants, *[(t.dtype, t.data_ptr() % 16 == 0) for t in tensors])
    if torch.version.hip is not None:
        key += tuple([t.untyped_storage().nbytes() <= SMALL_STORAGE for t in tensors])
    compiled = _COMPILED.get(key)
    if compiled is None:
        if len(_COMPILED) >= MOST_KEPT:
            _COMPILED.clear()
        _COMPILED[key] = kernel[grid](*tensors, *numbers, *constants, **options)  # Triton's interpreter returns nothing
    else:
        compiled[grid](*tensors, *numbers, *constants)
