"""Launch Triton kernels repeatedly without inspecting their arguments again."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime import driver

MOST_KEPT = 256  # kernels; a run with many image sizes has one for each. When the cache is full, Triton is asked again
SMALL_STORAGE = 2**31 - 1  # bytes: for tensors up to this size, AMD's compiler uses 32-bit offsets

_COMPILED: dict[Any, Any] = {}


def launch(
    kernel: Any,
    grid: tuple[int, int, int],
    tensors: Sequence[Tensor],
    numbers: tuple[float, ...],
    constants: tuple[Any, ...],
    **options: Any,
) -> None:
    """``kernel[grid](*tensors, *numbers, *constants, **options)``, in a third of the time from the second launch on.

    Everything that Triton specialises a kernel on is part of the key under which the compiled kernel is kept: dtypes,
    which addresses are multiples of 16 bytes, all numbers, and for AMD which storages are small. ``options`` must
    depend on ``constants`` alone, which should be quick to hash and to compare. ``kernel`` must never be freed, since
    its id is part of the key.
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
    else:  # the same, without asking the driver about each address
        active: Any = driver.active
        handles = compiled.function, compiled.packed_metadata, None, None, None
        compiled.run(*grid, active.get_current_stream(device), *handles, *addresses, *numbers, *constants)


def _is_watched() -> bool:
    """Whether a profiler has registered launch hooks."""
    hooks = triton.knobs.runtime
    return bool(hooks.launch_enter_hook.calls or hooks.launch_exit_hook.calls)
