"""``DeviceLoader``: copies the next batch to the device while the current one trains, and mixes it there."""

import copy
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, default_collate

from mixcollate.batch import MixBatch, moved
from mixcollate.checks import Settled, check_count, check_device, count_in_environment, shown, warn
from mixcollate.collate import MixupCollate
from mixcollate.roles import leaves, map_tensors

# attributes of the loader, from which loops count batches and samples, among other things
_PASSED_ON = ("dataset", "sampler", "batch_sampler", "batch_size", "drop_last", "num_workers", "collate_fn")
# attributes in which wrappers keep a loader or a node: timm's, torchdata's, Accelerate's, tqdm
_WRAPPED_AS = ("loader", "root", "source", "base_dataloader", "iterable")
MOST_WRAPPED = 100  # wrappers around a loader; one that keeps itself, or makes up attributes like a mock, has no end


class DeviceLoader(Settled):
    """Wrap a loader so that it yields mixed batches on ``device``, copying the next one in the meantime.

    Copies run on a separate stream, into memory that is reused. Mixing runs on the consumer's stream and writes fresh
    tensors, which may be kept for as long as needed. On the CPU it only mixes. Use
    ``DataLoader(..., pin_memory=True)``: without it the host waits for every copy.

    Frameworks shard only a plain ``DataLoader`` across ranks: let them prepare it first and wrap what they return, or
    give the loader a ``DistributedSampler``.

    Args:
        loader: any iterable of batches: of :class:`~mixcollate.MixBatch`, or of tensors in tuples and mappings. Other
            objects in a batch stay where they are, unless they have a ``to``; dataclasses of tensors need one. Tensors
            that are on ``device`` already are not copied, and those in pinned memory in the background: a loader must
            not write to them again.
        device: the target; default: the current CUDA device if there is one, else the CPU.
        prefetch: how many batches to copy ahead, at least 1. Accelerate's loaders are not read ahead: they tell it when
            they return the last batch.
        collate: the collate that this loader's ``set_epoch``, ``mixup_enabled`` and ``state_dict`` act on; default: the
            ``collate_fn`` or ``map_fn`` of ``loader``, or of the loader or node that it wraps; else the one that made
            the first batch, or all batches in it, as of loaders that are zipped.
    """

    _streams: Any = torch.cuda  # whose streams and events tests replace by simulated ones

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
        if collate is not None and getattr(loader, "collate_fn", None) is default_collate:
            raise ValueError(
                "collate must be what makes the loader's batches, got one beside torch's default_collate, which makes "
                "them: write DataLoader(..., collate_fn=collate)"
            )
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.loader, self.device = loader, check_device(device)
        self.prefetch = check_count("prefetch", prefetch)
        self.collate = collate_of(loader) if collate is None else collate
        if self.collate is not None:
            _refuse_normalising_twice(loader, self.collate)
        self._copy_stream: Any = None
        self._free_slots: list[Slot] = []
        self._loader_state: Any = None
        self._epoch: int | None = None  # the last one given to set_epoch
        self._settle(DeviceLoader, ("loader", "device", "prefetch", "collate", *_PASSED_ON))

    def __iter__(self) -> Iterator[Any]:
        _check_usable(self.device)  # not before: a loader may be made in one process and used in another
        self._loader_state = None
        _warn_unless_sharded(self.loader)
        if self.device.type == "cuda":
            return self._prefetched()
        return (_delivered(batch, self.device) for batch in self._batches())

    def _batches(self) -> Iterator[Any]:
        """The loader's batches. If no collate was found, it is taken from the first batch, before that is mixed."""
        for batch in self.loader:
            if self.collate is None and (collate := _collate_in(batch)) is not None:
                vars(self).update(collate=collate)  # past __setattr__, which refuses it
                if self._epoch is not None:
                    collate.set_epoch(self._epoch)
            yield batch

    def _prefetched(self) -> Iterator[Any]:
        batches = self._batches()
        most = 0 if _announces_the_last_batch(self.loader) else self.prefetch
        ahead: deque[Ahead | End] = deque()
        try:
            while True:
                # the next batches are requested before this one is handed out, so that their copies overlap the
                # training step even if that makes the host wait
                while len(ahead) <= most and not (ahead and isinstance(ahead[-1], End)):
                    ahead.append(self._start(batches))
                current = ahead.popleft()
                if isinstance(current, End):
                    break
                self._loader_state = ahead[0].state if ahead else None
                yield self._finish(current)
            if current.error is not None:
                raise current.error
            self._loader_state = None  # the loader has finished its epoch
        finally:
            self._free_slots += [waiting.slot for waiting in ahead if isinstance(waiting, Ahead)]

    def _start(self, batches: Iterator[Any]) -> "Ahead | End":
        """Queue the copy of the next batch; an exception is held back until the batches before it are delivered."""
        state = copy.deepcopy(_state_of(self.loader))  # the loader may go on to change what it returned
        try:
            return Ahead(state, *self._copied(next(batches)))
        except StopIteration:
            return End(state, None)
        except Exception as error:
            return End(state, error)

    def _copied(self, batch: Any) -> "tuple[Any, Slot]":
        """Queue the copy of a batch on the copy stream; the copy, and the slot that it lies in."""
        if self._copy_stream is None:
            self._copy_stream = self._streams.Stream(device=self.device)
        slot = self._free_slots.pop() if self._free_slots else Slot(self._streams)
        self._copy_stream.wait_event(slot.freed)
        with self._streams.stream(self._copy_stream):
            batch = slot.receive(batch, self.device)
        slot.copied.record(self._copy_stream)
        return batch, slot

    def _finish(self, ahead: "Ahead") -> Any:
        """Queue the mixing on the consumer's stream, after which the slot is free for another copy."""
        slot = ahead.slot
        consumer = self._streams.current_stream(self.device)
        consumer.wait_event(slot.copied)
        delivered = slot.leave(_delivered(ahead.batch, self.device), consumer)
        slot.freed.record(consumer)
        self._free_slots.append(slot)
        return delivered

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]  # raises TypeError if the loader has no length

    def __getattr__(self, name: str) -> Any:
        if name in _PASSED_ON:
            return getattr(self.loader, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def mixup_enabled(self) -> bool:
        """Whether the collate mixes; timm's ``train.py`` turns mixing off by this attribute of its loader."""
        return self._collate().enabled

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self._collate().enabled = value

    enabled = mixup_enabled  # the collate's own name for it

    def set_epoch(self, epoch: int) -> None:
        """Call ``set_epoch`` of the loader, its samplers, its dataset and its collate, where they have one.

        If the loader is a wrapper without one, such as a progress bar, the same goes for what it wraps.
        """
        self._epoch = epoch = check_count("epoch", epoch, least=0)
        parts: list[Any] = []
        for layer in _layers(self.loader):
            below = [getattr(layer, name, None) for name in ("sampler", "batch_sampler", "dataset")]
            below += [getattr(part, "sampler", None) for part in below]  # that of a batch sampler
            parts += [layer, *below]
            if hasattr(layer, "set_epoch"):  # and so passes the epoch on as it sees fit
                break
        for part in {id(part): part for part in (*parts, self.collate)}.values():
            tell = getattr(part, "set_epoch", None)
            if tell is not None:
                tell(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The states of the loader and of its collate, where they have one, as of the last batch handed out."""
        states = {"loader": _state_of(self.loader) if self._loader_state is None else self._loader_state}
        if self.collate is not None:
            states["collate"] = self.collate.state_dict()
        return {name: state for name, state in states.items() if state is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what ``state_dict`` returned."""
        # the collate first: it refuses a wrong state before it changes
        parts: dict[str, Any] = {"collate": self.collate, "loader": self.loader}
        if not isinstance(state, Mapping) or not state.keys() <= parts.keys():
            raise ValueError(
                f"state must be what state_dict() returned, with 'loader' and 'collate', got {shown(state)}; "
                "load the state of a collate with collate.load_state_dict"
            )
        for name, part in parts.items():
            takes = hasattr(part, "load_state_dict") and (name in state or _state_of(part) is not None)
            if takes != (name in state):
                raise ValueError(
                    f"state must be of a DeviceLoader {'with' if takes else 'without'} a {name} that takes a state, "
                    f"like this one, got {shown(state)}; see collate= and torchdata's StatefulDataLoader"
                )
        for name, part in parts.items():
            if name in state:
                part.load_state_dict(state[name])
        self._loader_state = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_copy_stream": None, "_free_slots": []}  # a stream and its memory are of one process

    def _collate(self) -> MixupCollate:
        if self.collate is None:
            raise RuntimeError("cannot find the MixupCollate of this loader; use DeviceLoader(loader, collate=...)")
        return self.collate


class Slot:
    """Device memory for one batch in flight, reused from batch to batch and from epoch to epoch."""

    def __init__(self, streams: Any) -> None:
        self.memory: dict[int, Tensor] = {}
        self.copied, self.freed = streams.Event(), streams.Event()

    def receive(self, batch: Any, device: torch.device) -> Any:
        """Queue the copy of a batch into this memory, and return the copy."""
        stacked = batch.stacked if isinstance(batch, MixBatch) else batch
        places = itertools.count()
        copied = map_tensors(stacked, lambda tensor: self._receive(next(places), tensor, device))
        return batch.with_stacked(copied) if isinstance(batch, MixBatch) else copied

    def _receive(self, place: int, tensor: Tensor, device: torch.device) -> Tensor:
        # what is on a GPU already may still be written by kernels on the consumer's stream: no other may read it yet
        if tensor.is_cuda or not _is_dense(tensor):
            return tensor  # moved when the batch is delivered, into memory of its own
        held = self.memory.get(place)
        if held is None or not _fits(held, tensor):
            with torch.inference_mode(False):  # training may write here after an evaluation
                held = self.memory[place] = torch.empty_like(tensor, device=device)
        target = held.detach()  # so that the gradients of one batch are not kept by the next
        target = target[: len(tensor)] if tensor.ndim > 0 else target
        return target.copy_(tensor, non_blocking=True)

    def leave(self, batch: Any, consumer: Any) -> Any:
        """The batch for the stream ``consumer``, with tensors that still lie in this memory copied out of it."""
        for held in self.memory.values():
            if held.is_cuda:  # allocated on the copy stream, which must not reuse it while the consumer reads it
                held.record_stream(consumer)
        slots = {held.untyped_storage().data_ptr() for held in self.memory.values()}

        def is_here(tensor: Tensor) -> bool:
            return _is_dense(tensor) and tensor.untyped_storage().data_ptr() in slots

        return map_tensors(batch, lambda tensor: tensor.clone() if is_here(tensor) else tensor)


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor is one block of numbers with strides: not sparse, nor nested."""
    return tensor.layout == torch.strided and not tensor.is_nested


def _fits(held: Tensor, tensor: Tensor) -> bool:
    """Whether memory can hold a tensor as it is: its dtype, its shape, and its order of axes."""
    if held.dtype != tensor.dtype or not held.ndim == tensor.ndim > 0:
        return False
    if held.shape[1:] != tensor.shape[1:] or len(held) < len(tensor):
        return False
    return held.stride()[1:] == torch.empty_like(tensor, device="meta").stride()[1:]


class Ahead(NamedTuple):
    """A batch on its way to the device, and the loader's state before it was requested."""

    state: Any
    batch: Any
    slot: Slot


class End(NamedTuple):
    """No further batch: the loader is exhausted, or has raised ``error``."""

    state: Any
    error: Exception | None


def _check_usable(device: torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # depends on the kind of device
        raise ValueError(
            f"device must be one that torch can use here, got {device}; device=None uses a GPU only if there is one: "
            f"{error}"
        ) from error


def _delivered(batch: Any, device: torch.device) -> Any:
    return batch.to(device) if isinstance(batch, MixBatch) else moved(batch, device)


def _state_of(loader: Any) -> Any:
    """The state of a loader, or ``None`` if it has none."""
    if not hasattr(loader, "state_dict"):
        return None
    try:
        return loader.state_dict()
    except AttributeError:  # a wrapper whose inner loader has no state, as Accelerate's may be
        return None


def collate_of(loader: Any) -> MixupCollate | None:
    """The collate of a loader, or of what it wraps."""
    for layer in _layers(loader):
        for name in ("collate_fn", "map_fn"):
            if isinstance(found := getattr(layer, name, None), MixupCollate):
                return found
    return None


def _collate_in(batch: Any) -> MixupCollate | None:
    """The collate that made a batch, or all those in it, as of zipped loaders; ``None`` if several collates did."""
    owners = {id(leaf.owner): leaf.owner for _, leaf in leaves(batch) if isinstance(leaf, MixBatch)}
    only = next(iter(owners.values())) if len(owners) == 1 else None
    return only if isinstance(only, MixupCollate) else None


def _announces_the_last_batch(loader: Any) -> bool:
    """Whether a loader says, while its last batch is in use, that it is the last, as Accelerate's do: on this depend
    gradient accumulation and ``gather_for_metrics``, so that it must not be asked for that batch, or for more, ahead.
    """
    return any(hasattr(layer, "gradient_state") for layer in _layers(loader))


def _layers(loader: Any) -> Iterator[Any]:
    """A loader, what it wraps, what that wraps, and so on."""
    for _ in range(MOST_WRAPPED):
        yield loader
        loader = next((below for name in _WRAPPED_AS if (below := getattr(loader, name, None)) is not None), None)
        if loader is None:
            return


def _refuse_normalising_twice(loader: Any, collate: MixupCollate) -> None:
    """Refuse timm's ``PrefetchLoader`` around a collate that normalises or casts: it would divide by 255 again."""
    given = {name: value for name in ("mean", "std", "dtype") if (value := collate.output[name]) is not None}
    for layer in _layers(loader) if given else ():
        normalises = all([isinstance(getattr(layer, name, None), Tensor) for name in ("mean", "std")])
        if normalises and not isinstance(layer, DataLoader):  # where a subclass may only hold them
            raise ValueError(
                "loader must not normalise what the collate has normalised or cast already, got a "
                f"{type(layer).__name__} with a mean and std of its own around a collate with {', '.join(given)}: "
                "write DeviceLoader(loader.loader), which takes its place"
            )


def _warn_unless_sharded(loader: Any) -> None:
    """Warn if there are several ranks and each would get every batch, because the sampler is torch's default."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = torch.distributed.get_world_size()
    else:
        ranks = count_in_environment("WORLD_SIZE", 1, least=1)
    sampler, batches = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    whole = type(sampler) in (RandomSampler, SequentialSampler) and type(batches) is BatchSampler
    if ranks > 1 and whole and not hasattr(loader, "base_dataloader"):  # Accelerate's have it, and shard by themselves
        warn(
            f"each of {ranks} ranks gets every batch of this loader: its sampler is a {type(sampler).__name__}, and "
            "frameworks do not shard a DeviceLoader. Give the DataLoader a DistributedSampler, or wrap what the "
            "framework has prepared: DeviceLoader(accelerator.prepare(loader))",
        )
