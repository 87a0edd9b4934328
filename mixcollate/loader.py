"""``DeviceLoader``: copies the next batch to the device while the current one trains, and mixes it there."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from mixcollate.batch import MixBatch

_BELOW = ("sampler", "batch_sampler", "collate_fn")  # who else may want to know the epoch


class DeviceLoader:
    """Wrap a loader so that it yields batches on ``device``, mixed, with the copy of the next one under way.

    Copies run on one stream of their own into memory that is kept; mixing runs on the consumer's stream, from there
    into fresh tensors, which are the consumer's for as long as they are wanted. On CPU it only mixes. Use
    ``DataLoader(..., pin_memory=True)``: without it the host waits for every copy.

    Args:
        loader: any iterable of batches: of :class:`~mixcollate.MixBatch`, or of tensors in tuples and dicts.
        device: where to; default: the current CUDA device if there is one, else the CPU.
        prefetch: how many batches are copied ahead, at least 1.
    """

    _streams: Any = torch.cuda

    def __init__(
        self, loader: Iterable[Any], device: torch.device | str | int | None = None, *, prefetch: int = 1
    ) -> None:
        if prefetch < 1:
            raise ValueError(
                f"prefetch must be at least 1, got {prefetch}; iterate the loader itself to copy none ahead"
            )
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.loader, self.device, self.prefetch = loader, torch.device(device), prefetch
        self._copy_stream: Any = None
        self._free_slots: list[Slot] = []
        self._loader_state: Any = None

    def __iter__(self) -> Iterator[Any]:
        self._loader_state = None
        if self.device.type == "cuda":
            return self._prefetched()
        return (_delivered(batch, self.device) for batch in self.loader)

    def _prefetched(self) -> Iterator[Any]:
        batches = iter(self.loader)
        ahead = deque([self._start(batches)])
        try:
            while isinstance(current := ahead[0], Ahead):
                # the next batches are asked for before this one is handed out, so that their copies overlap the
                # step even where the step makes the host wait
                while len(ahead) <= self.prefetch and not isinstance(ahead[-1], End):
                    ahead.append(self._start(batches))
                ahead.popleft()
                self._loader_state = ahead[0].state
                yield self._finish(current)
            if current.error is not None:
                raise current.error
        finally:
            self._free_slots += [waiting.slot for waiting in ahead if isinstance(waiting, Ahead)]

    def _start(self, batches: Iterator[Any]) -> "Ahead | End":
        """Queue the copy of the next batch; an exception is kept until those before it are delivered."""
        state = self.loader.state_dict() if hasattr(self.loader, "state_dict") else None
        try:
            batch = next(batches)
        except StopIteration:
            return End(state, None)
        except Exception as error:
            return End(state, error)
        if self._copy_stream is None:
            self._copy_stream = self._streams.Stream(device=self.device)
        slot = self._free_slots.pop() if self._free_slots else Slot(self._streams)
        self._copy_stream.wait_event(slot.freed)
        with self._streams.stream(self._copy_stream):
            batch = slot.receive(batch, self.device)
        slot.copied.record(self._copy_stream)
        return Ahead(state, batch, slot)

    def _finish(self, ahead: "Ahead") -> Any:
        """Queue the mixing on the consumer's stream; after it the slot is free for another copy."""
        slot = ahead.slot
        consumer = self._streams.current_stream(self.device)
        consumer.wait_event(slot.copied)
        delivered = slot.leave(_delivered(ahead.batch, self.device), consumer)
        slot.freed.record(consumer)
        self._free_slots.append(slot)
        return delivered

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]  # an iterable without a length says so itself

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "sampler", "batch_sampler", "batch_size", "num_workers", "collate_fn"):
            return getattr(self.loader, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to whatever below has a ``set_epoch``: the loader, its samplers, its collate."""
        below = [getattr(self.loader, name, None) for name in _BELOW]
        below += [getattr(part, "sampler", None) for part in below]  # a batch sampler's own
        for part in {id(part): part for part in (self.loader, *below)}.values():
            tell = getattr(part, "set_epoch", None)
            if tell is not None:
                tell(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The states of the loader and of its collate, where they have one, after the last batch handed out."""
        states = {name: part.state_dict() for name, part in self._stateful().items()}
        if self._loader_state is not None:
            states["loader"] = self._loader_state
        return states

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        parts = {"loader": self.loader, "collate": getattr(self.loader, "collate_fn", None)}
        return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}


class Slot:
    """Device memory for one batch in flight, kept from batch to batch and from epoch to epoch."""

    def __init__(self, streams: Any) -> None:
        self.memory: dict[int, Tensor] = {}
        self.copied, self.freed = streams.Event(), streams.Event()

    def receive(self, batch: Any, device: torch.device) -> Any:
        """Queue the copy of a batch into this memory; the same batch, there."""
        mixed = isinstance(batch, MixBatch)
        tensors, structure = tree_flatten(batch.stacked if mixed else batch)
        moved = tree_unflatten(
            [self._receive(place, t, device) if isinstance(t, Tensor) else t for place, t in enumerate(tensors)],
            structure,
        )
        return batch.with_stacked(moved) if mixed else moved

    def _receive(self, place: int, tensor: Tensor, device: torch.device) -> Tensor:
        held = self.memory.get(place)
        fits = (
            held is not None and held.dtype == tensor.dtype and held.shape[1:] == tensor.shape[1:] and tensor.ndim > 0
        )
        if held is None or not fits or len(held) < len(tensor):
            held = self.memory[place] = torch.empty_like(tensor, device=device)
        target = held[: len(tensor)] if tensor.ndim > 0 else held
        return target.copy_(tensor, non_blocking=True)

    def leave(self, batch: Any, consumer: Any) -> Any:
        """The batch, which the stream ``consumer`` reads, without this memory: what still lies in it is copied out."""
        for held in self.memory.values():
            if held.is_cuda:  # made on the copies' stream: at its end, what the consumer still reads must be waited for
                held.record_stream(consumer)
        ours = {tensor.untyped_storage().data_ptr() for tensor in self.memory.values()}
        return tree_map_only(Tensor, lambda t: t.clone() if t.untyped_storage().data_ptr() in ours else t, batch)


class Ahead(NamedTuple):
    """A batch on its way to the device, and the loader's state before it was asked for."""

    state: Any
    batch: Any
    slot: Slot


class End(NamedTuple):
    """No further batch: the loader is through, or has raised ``error``."""

    state: Any
    error: Exception | None


def _delivered(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, MixBatch):
        return batch.to(device)
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)
