"""Host memory that is used again once nobody holds it: on a CPU, fresh pages can cost more than mixing does."""

import math
import weakref

import torch
from torch import Tensor

from mixcollate.plan import Array

KEPT = 3  # buffers kept free: one for the batch in use, one for the next, one more for a second dtype
WORTH_KEEPING = 2**20  # bytes: less than this the allocator keeps itself


class Recycler:
    """Makes tensors whose memory goes to a later one when the last view of them is gone."""

    def __init__(self) -> None:
        self._free: list[Array] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous CPU tensor, not initialised."""
        size = math.prod(shape) * dtype.itemsize
        if size < WORTH_KEEPING:
            return torch.empty(shape, dtype=dtype)
        fitting = [place for place, buffer in enumerate(self._free) if buffer.nbytes == size]
        buffer = self._free.pop(fitting[-1]) if fitting else torch.empty(size, dtype=torch.uint8).numpy()  # aligned
        lent = buffer.view()  # the tensor's storage holds this array, and nothing else does
        weakref.finalize(lent, self._take_back, buffer).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _take_back(self, buffer: Array) -> None:
        self._free = [*self._free[1 - KEPT :], buffer]

    def __getstate__(self) -> dict[str, object]:
        return {"_free": []}
