"""Launch a Triton kernel again without finding out again what its arguments are."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime import driver

MOST_KEPT = 256  # kernels: one for each size of images in a run with many; whoever comes again later asks Triton again
SMALL_STORAGE = 2**31 - 1  # bytes: AMD's compiler makes other code for tensors up to there, with offsets of 32 bits

_COMPILED: dict[Any, Any] = {}


def launch(
    kernel: Any,
    grid: tuple[int, int, int],
    tensors: Sequence[Tensor],
    numbers: tuple[float, ...],
    constants: tuple[Any, ...],
    **options: Any,
) -> None:
    """``kernel[grid](*tensors, *numbers, *constants, **options)``, from the second time on at a third of its time.

    What Triton asks of every argument at every launch, and compiles for, is in the key of what was compiled: dtypes,
    which addresses are multiples of 16 bytes, all numbers, and for AMD which storages are small. ``options`` must
    follow from ``constants``, which should be quick to hash and to compare; ``kernel`` must live on: its id is a key.
    """
    addresses, bits = [], 0
    for tensor in tensors:
        address = tensor.data_ptr()
        addresses.append(address)
        bits |= address
    aligned = bits % 16 == 0 or tuple([address % 16 == 0 for address in addresses])
    device = tensors[0].get_device()
    key: Any = (id(kernel), device, numbers, constants, aligned, *[tensor.dtype for tensor in tensors])
    if torch.version.hip is not None:
        key += tuple([tensor.untyped_storage().nbytes() <= SMALL_STORAGE for tensor in tensors])
    compiled = _COMPILED.get(key)
    if compiled is None:
        if len(_COMPILED) >= MOST_KEPT:
            _COMPILED.clear()
        _COMPILED[key] = kernel[grid](*tensors, *numbers, *constants, **options)  # Triton's interpreter returns nothing
    elif _is_watched():
        compiled[grid](*tensors, *numbers, *constants)
    else:  # as there, but that the driver is not asked whose the addresses are
        active: Any = driver.active
        handles = compiled.function, compiled.packed_metadata, None, None, None
        compiled.run(*grid, active.get_current_stream(device), *handles, *addresses, *numbers, *constants)


def _is_watched() -> bool:
    """Whether a profiler wants to be told of launches."""
    hooks = triton.knobs.runtime
    return bool(hooks.launch_enter_hook.calls or hooks.launch_exit_hook.calls)
