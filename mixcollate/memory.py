"""Host memory that is reused once nobody holds it: on a CPU, fresh pages can cost more than mixing."""

import math
import weakref
from collections import deque

import torch
from torch import Tensor

from mixcollate.plan import Array

KEPT = 3  # buffers kept free: one for the batch in use, one for the next, one more for a second dtype
WORTH_KEEPING = 2**20  # bytes: the allocator itself keeps anything smaller


class Recycler:
    """Allocate tensors whose memory is given to a later one when their last view is gone.

    Threads may share it. It has no lock: a finalizer may run at any moment, even while its own thread is in a method
    of this object, and would deadlock.
    """

    def __init__(self) -> None:
        self._free: deque[Array] = deque(maxlen=KEPT)  # its methods are atomic

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised, contiguous CPU tensor."""
        if math.prod(shape) * dtype.itemsize < WORTH_KEEPING:
            return torch.empty(shape, dtype=dtype, device="cpu")
        return self._lend(torch.empty(shape, dtype=dtype, device="meta"))

    def empty_like(
        self,
        tensor: Tensor,
        *,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> Tensor:
        """``torch.empty_like`` on the CPU, wherever ``tensor`` is."""
        if tensor.numel() * (dtype or tensor.dtype).itemsize < WORTH_KEEPING:
            return torch.empty_like(tensor, dtype=dtype, memory_format=memory_format, device="cpu")
        return self._lend(torch.empty_like(tensor, dtype=dtype, memory_format=memory_format, device="meta"))

    def _lend(self, like: Tensor) -> Tensor:
        """Memory with the shape, the strides and the dtype of a tensor on the meta device."""
        buffer = self._take(like.nbytes)
        if buffer is None:
            buffer = torch.empty(like.nbytes, dtype=torch.uint8, device="cpu").numpy()  # torch aligns it
        lent = buffer.view()  # the tensor's storage holds this array, and nothing else does
        weakref.finalize(lent, self._free.append, buffer).atexit = False
        storage = torch.from_numpy(lent).untyped_storage()
        return torch.empty(0, dtype=like.dtype, device="cpu").set_(storage, 0, like.shape, like.stride())

    def _take(self, size: int) -> Array | None:
        """The most recently freed buffer of exactly ``size`` bytes, if there is one."""
        for _ in range(KEPT):
            try:
                buffer = self._free.pop()
            except IndexError:
                return None
            if buffer.nbytes == size:
                return buffer
            self._free.appendleft(buffer)
        return None

    def __reduce__(self) -> tuple[type["Recycler"], tuple[()]]:
        return Recycler, ()  # the memory stays in its process
