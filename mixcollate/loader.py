"""``DeviceLoader``: copies the next batch to the device while the current one trains, and mixes it there."""

import dataclasses
import itertools
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from mixcollate.batch import MixBatch
from mixcollate.checks import Settled, check_count, check_device, shown
from mixcollate.collate import MixupCollate
from mixcollate.roles import leaves, map_tensors, replace_at

_PASSED_ON = ("dataset", "sampler", "batch_sampler", "batch_size", "num_workers", "collate_fn")  # of the loader's own
_WRAPPED_AS = ("loader", "root", "source", "base_dataloader")  # where those who wrap a loader, or a node, keep it


class DeviceLoader(Settled):
    """Wrap a loader so that it yields batches on ``device``, mixed, with the copy of the next one under way.

    Copies run on one stream of their own into memory that is kept; mixing runs on the consumer's stream, from there
    into fresh tensors, which are the consumer's for as long as they are wanted. On CPU it only mixes. Use
    ``DataLoader(..., pin_memory=True)``: without it the host waits for every copy.

    Frameworks give each rank its part of a ``DataLoader``, and know no other: let them prepare the loader first, and
    wrap what they return, or give the loader a ``DistributedSampler``.

    Args:
        loader: any iterable of batches: of :class:`~mixcollate.MixBatch`, or of tensors in tuples and mappings. What
            else there is in a batch stays where it is, unless it has a ``to`` of its own.
        device: where to; default: the current CUDA device if there is one, else the CPU.
        prefetch: how many batches are copied ahead, at least 1.
        collate: whose epoch, switch and state belong to this loader's; default: what ``loader``, or the loader or node
            that it wraps, has as ``collate_fn`` or ``map_fn``; else the one that made the first batch.
    """

    _streams: Any = torch.cuda

    def __init__(
        self,
        loader: Iterable[Any],
        device: torch.device | str | int | None = None,
        *,
        prefetch: int = 1,
        collate: MixupCollate | None = None,
    ) -> None:
        if not hasattr(loader, "__iter__"):
            raise TypeError(f"loader must be an iterable of batches, got {type(loader).__name__}")
        if not isinstance(collate, MixupCollate | None):
            raise TypeError(f"collate must be the loader's MixupCollate, got {type(collate).__name__}")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.loader, self.device = loader, check_device(device)
        self.prefetch = check_count("prefetch", prefetch)
        self.collate = _collate_of(loader) if collate is None else collate
        self._copy_stream: Any = None
        self._free_slots: list[Slot] = []
        self._loader_state: Any = None
        self._epoch: int | None = None  # as it was told
        self._settle(DeviceLoader, ("loader", "device", "prefetch", "collate", *_PASSED_ON))

    def __iter__(self) -> Iterator[Any]:
        _check_usable(self.device)  # here, since a loader may be made in one process and used in another
        self._loader_state = None
        _warn_unless_sharded(self.loader)
        if self.device.type == "cuda":
            return self._prefetched()
        return (_delivered(batch, self.device) for batch in self._batches())

    def _batches(self) -> Iterator[Any]:
        """Those of the loader. Where that shows no collate, the first batch tells whose it is, in time to be mixed."""
        for batch in self.loader:
            if self.collate is None and isinstance(batch, MixBatch) and isinstance(batch.owner, MixupCollate):
                vars(self).update(collate=batch.owner)
                if self._epoch is not None:
                    batch.owner.set_epoch(self._epoch)
            yield batch

    def _prefetched(self) -> Iterator[Any]:
        batches = self._batches()
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
            self._loader_state = None  # its own is that of a whole epoch now
        finally:
            self._free_slots += [waiting.slot for waiting in ahead if isinstance(waiting, Ahead)]

    def _start(self, batches: Iterator[Any]) -> "Ahead | End":
        """Queue the copy of the next batch; an exception is kept until those before it are delivered."""
        state = _state_of(self.loader)
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
        if name in _PASSED_ON:
            return getattr(self.loader, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def mixup_enabled(self) -> bool:
        """Whether the collate mixes, by timm's name: its ``train.py`` turns mixing off through its loader."""
        return self._collate().enabled

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self._collate().enabled = value

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to whatever below has a ``set_epoch``: the loader, its samplers, its data, its collate."""
        self._epoch = epoch = check_count("epoch", epoch, least=0)
        below = [getattr(self.loader, name, None) for name in ("sampler", "batch_sampler", "dataset")]
        below += [getattr(part, "sampler", None) for part in below]  # a batch sampler's own
        for part in {id(part): part for part in (self.loader, *below, self.collate)}.values():
            tell = getattr(part, "set_epoch", None)
            if tell is not None:
                tell(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The states of the loader and of its collate, where they have one, after the last batch handed out."""
        states = {"loader": _state_of(self.loader) if self._loader_state is None else self._loader_state}
        if self.collate is not None:
            states["collate"] = self.collate.state_dict()
        return {name: state for name, state in states.items() if state is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        parts: dict[str, Any] = {"collate": self.collate, "loader": self.loader}  # first what checks before it changes
        if not isinstance(state, Mapping) or not state.keys() <= parts.keys():
            raise ValueError(
                f"state must be what state_dict() returned, with 'loader' and 'collate', got {shown(state)}; "
                "a collate's own is for collate.load_state_dict"
            )
        for name, part in parts.items():
            takes = hasattr(part, "load_state_dict") and (name in state or _state_of(part) is not None)
            if takes != (name in state):
                raise ValueError(
                    f"state must be of a DeviceLoader {'with' if takes else 'without'} a {name} that takes a state, as "
                    f"this one is, got {shown(state)}; see collate= and torchdata's StatefulDataLoader"
                )
        for name, part in parts.items():
            if name in state:
                part.load_state_dict(state[name])
        self._loader_state = None

    def _collate(self) -> MixupCollate:
        if self.collate is None:
            raise RuntimeError("this loader does not say who its MixupCollate is: DeviceLoader(loader, collate=...)")
        return self.collate


class Slot:
    """Device memory for one batch in flight, kept from batch to batch and from epoch to epoch."""

    def __init__(self, streams: Any) -> None:
        self.memory: dict[int, Tensor] = {}
        self.copied, self.freed = streams.Event(), streams.Event()

    def receive(self, batch: Any, device: torch.device) -> Any:
        """Queue the copy of a batch into this memory; the same batch, there."""
        stacked = batch.stacked if isinstance(batch, MixBatch) else batch
        places = itertools.count()
        copied = map_tensors(stacked, lambda tensor: self._receive(next(places), tensor, device))
        return batch.with_stacked(copied) if isinstance(batch, MixBatch) else copied

    def _receive(self, place: int, tensor: Tensor, device: torch.device) -> Tensor:
        if not _is_dense(tensor):
            return tensor  # moved when the batch is delivered, into memory of its own
        held = self.memory.get(place)
        if held is None or not _fits(held, tensor):
            with torch.inference_mode(False):  # training may write here after an evaluation
                held = self.memory[place] = torch.empty_like(tensor, device=device)
        target = held.detach()  # so that the gradients of one batch are not kept by the next
        target = target[: len(tensor)] if tensor.ndim > 0 else target
        return target.copy_(tensor, non_blocking=True)

    def leave(self, batch: Any, consumer: Any) -> Any:
        """The batch, which the stream ``consumer`` reads, without this memory: what still lies in it is copied out."""
        for held in self.memory.values():
            if held.is_cuda:  # made on the copies' stream, which must not have it back while the consumer reads it
                held.record_stream(consumer)
        slots = {held.untyped_storage().data_ptr() for held in self.memory.values()}

        def is_here(tensor: Tensor) -> bool:
            return _is_dense(tensor) and tensor.untyped_storage().data_ptr() in slots

        return map_tensors(batch, lambda tensor: tensor.clone() if is_here(tensor) else tensor)


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor is one block of numbers with strides: not sparse, nor nested."""
    return tensor.layout == torch.strided and not tensor.is_nested


def _fits(held: Tensor, tensor: Tensor) -> bool:
    """Whether memory that is held takes a batch as it is: its dtype, its shape, and its order of axes."""
    alike = held.dtype == tensor.dtype and held.shape[1:] == tensor.shape[1:]
    if not alike or tensor.ndim == 0 or len(held) < len(tensor):
        return False
    return held.stride()[1:] == torch.empty_like(tensor, device="meta").stride()[1:]


class Ahead(NamedTuple):
    """A batch on its way to the device, and the loader's state before it was asked for."""

    state: Any
    batch: Any
    slot: Slot


class End(NamedTuple):
    """No further batch: the loader is through, or has raised ``error``."""

    state: Any
    error: Exception | None


def _check_usable(device: torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # as the kind of device has it
        raise ValueError(
            f"device must be one that torch can use here, got {device}; device=None takes a GPU only if there is one: "
            f"{error}"
        ) from error


def _delivered(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, MixBatch):
        return batch.to(device)
    moved = {path: _moved(leaf, device) for path, leaf in leaves(batch)}
    return replace_at(batch, moved)


def _moved(leaf: Any, device: torch.device) -> Any:
    """What a batch holds, on the device: a tensor, or what knows itself how to move; numbers and names stay."""
    if callable(getattr(leaf, "to", None)) and not isinstance(leaf, type):
        return leaf.to(device)
    inside = vars(leaf).values() if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type) else ()
    if any(isinstance(value, Tensor) for value in inside):
        raise TypeError(
            f"a batch must be of tensors in tuples, lists and mappings, got a {type(leaf).__name__} with tensors, "
            "which has no to(device): give it one, or let the collate_fn return vars(batch)"
        )
    return leaf


def _state_of(loader: Any) -> Any:
    """The state of a loader, or ``None`` if it has none."""
    if not hasattr(loader, "state_dict"):
        return None
    try:
        return loader.state_dict()
    except AttributeError:  # a loader that hands on what its own loader lacks, as Accelerate's does
        return None


def _collate_of(loader: Any) -> MixupCollate | None:
    """The collate of a loader, or of what it wraps."""
    while loader is not None:
        for name in ("collate_fn", "map_fn"):
            if isinstance(found := getattr(loader, name, None), MixupCollate):
                return found
        loader = next((below for name in _WRAPPED_AS if (below := getattr(loader, name, None)) is not None), None)
    return None


def _warn_unless_sharded(loader: Any) -> None:
    """Warn if several ranks run and each will get all batches, as one of torch's own samplers gives them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = torch.distributed.get_world_size()
    else:
        ranks = int(os.environ.get("WORLD_SIZE") or 1)
    sampler, batches = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    whole = type(sampler) in (RandomSampler, SequentialSampler) and type(batches) is BatchSampler
    if ranks > 1 and whole and not hasattr(loader, "base_dataloader"):  # as Accelerate's have, which deal batches out
        warnings.warn(
            f"{ranks} ranks run, and each gets all batches of this loader: its sampler is a {type(sampler).__name__}, "
            "and frameworks give no rank its part of a DeviceLoader. Give the DataLoader a DistributedSampler, or "
            "wrap what the framework has prepared: DeviceLoader(accelerator.prepare(loader))",
            stacklevel=3,
        )
