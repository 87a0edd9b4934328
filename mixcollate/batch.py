"""``MixBatch``: a stacked batch that is mixed once, on the device of its consumer."""

import copy
import dataclasses
import threading
import weakref
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Protocol

import torch
from torch import Tensor

from mixcollate.execution import cast_images
from mixcollate.roles import Key, Path, Roles, first_labels, leaf_at, leaves, map_tensors, replace_at


class Owner(Protocol):
    """What this module needs of a ``MixupCollate``, which it must not import."""

    name: str

    def mix_stacked(
        self,
        batch: Any,
        roles: Roles,
        *,
        labels: Tensor | None,
        may_overwrite: bool,
        dtype: torch.dtype | None,
        doubt: str | None,
    ) -> Any:
        """Draw the next plan and run it on a batch; ``labels`` are its first labels, on the host."""


_INSTEAD = (
    "unpack it, or use batch.mix(), which returns a tuple or a mapping, or batch.to(device), which returns it there; "
    "where the code is not yours, use MixupCollate(eager=True), which makes batches of tensors"
)

_OWNERS: "weakref.WeakValueDictionary[str, Owner]" = weakref.WeakValueDictionary()
"""This process's collates by name: a batch from a worker finds the one that counts the plans here."""


def register(owner: Owner) -> bool:
    """Let batches find ``owner`` by its name; ``False`` if another one has that name."""
    return _OWNERS.setdefault(owner.name, owner) is owner


class MixBatch:
    """A stacked batch that is mixed once, where it is needed.

    ``images, targets = batch`` mixes it on its current device, ``batch.to("cuda")`` on the GPU. It is neither a tuple
    nor a dict, because data loaders and frameworks rebuild those. Threads that unpack it at once get the same tensors.
    """

    def __init__(
        self, batch: Any, roles: Roles, owner: Owner, *, may_overwrite: bool, doubt: str | None = None
    ) -> None:
        self._batch, self._roles = batch, roles
        self._owner: Owner | None = owner
        self._name = owner.name
        self._labels = first_labels(batch, roles)  # on the host, where plans are drawn
        self._may_overwrite = may_overwrite  # whether the images may be mixed in their own memory
        self._doubt = doubt  # what its owner is to warn of
        self._mixed: Any = None
        self._once = threading.RLock()

    @property
    def owner(self) -> Owner:
        """The collate that made this batch and mixes it."""
        if self._owner is None:
            raise RuntimeError(
                "the MixupCollate that made this batch is gone from this process; keep a reference to it"
            )
        return self._owner

    @property
    def images(self) -> Tensor:
        """The stacked images, not mixed; of several, the first.

        For a named tuple with a field ``images``, which one would expect to be mixed, this raises ``AttributeError``.
        The same holds for ``labels``.
        """
        self._refuse_field("images")
        images: Tensor = leaf_at(self._raw(), self._roles.images[0])
        return images

    @property
    def labels(self) -> Any:
        """The original labels, or ``None``; of several, the first."""
        self._refuse_field("labels")
        raw = self._raw()
        return leaf_at(raw, self._roles.labels[0]) if self._roles.labels else None

    def mix(self, *, dtype: torch.dtype | None = None) -> Any:
        """Mix the batch on its current device: ``(images, targets)``, or a dict for dict samples.

        Args:
            dtype: of the images; default: the collate's. Once the batch is mixed, its images are cast.
        """
        with self._once:
            if self._mixed is None:
                batch, self._batch = self._waiting(), None  # stays None if this is interrupted, perhaps half-way
                try:
                    self._mixed = self.owner.mix_stacked(
                        batch,
                        self._roles,
                        labels=self._labels,
                        may_overwrite=self._may_overwrite,
                        dtype=dtype,
                        doubt=self._doubt,
                    )
                except Exception as error:
                    if isinstance(error, (ValueError, TypeError)) or not self._may_overwrite:
                        self._batch = batch  # unharmed: checks come before anything is written
                    raise
                self._labels = None
            elif dtype is not None:
                changed = {path: cast_images(leaf_at(self._mixed, path), dtype) for path in self._roles.images}
                self._mixed = replace_at(self._mixed, changed)
            return self._mixed

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Copy to a device and mix there: ``(images, targets)``, or a dict for dict samples.

        Takes the arguments of ``Tensor.to``: ``to(device, dtype, non_blocking)``. The dtype applies to the images,
        which are mixed in float32 and then cast. Copies to CUDA do not block the host unless ``non_blocking=False``.
        Objects other than tensors stay where they are, unless they have a ``to``; dataclasses of tensors need one.
        """
        device, dtype, non_blocking = _parse_to(*args, **kwargs)
        with self._once:
            if self._mixed is None and device is not None:
                self._batch = self._copied(moved(self._waiting(), device, non_blocking=non_blocking))
            mixed = self.mix(dtype=dtype)
            return mixed if device is None else moved(mixed, device, non_blocking=non_blocking)

    @property
    def stacked(self) -> Any:
        """The whole stacked batch, or the mixed one if it is mixed already; for a loader that copies it itself."""
        with self._once:
            return self._raw() if self._mixed is None else self._mixed

    def with_stacked(self, stacked: Any) -> "MixBatch":
        """This batch with ``stacked``, a copy of its tensors, whose memory mixing leaves as it is."""
        other = copy.copy(self)
        if self._mixed is None:
            other._batch = stacked
        else:
            other._mixed = stacked
        return other

    def pin_memory(self, device: Any = None) -> "MixBatch":
        """Copy the tensors to pinned memory; called by the loader."""
        with self._once:
            if self._mixed is None:
                self._batch = self._copied(map_tensors(self._waiting(), lambda tensor: tensor.pin_memory()))
        return self

    def _copied(self, batch: Any) -> Any:
        """``batch``, made from this one's tensors; if all its images are copies, they may be mixed in place."""
        places = self._roles.images
        self._may_overwrite |= all(leaf_at(batch, path) is not leaf_at(self._batch, path) for path in places)
        return batch

    def __iter__(self) -> Iterator[Any]:
        return iter(self.mix())

    def __getitem__(self, key: Key) -> Any:
        return self.mix()[key]

    def __setitem__(self, key: Key, value: Any) -> None:
        """Refuse the loop that moves a batch item by item, and so would mix it on the host."""
        raise TypeError(f"MixBatch takes no items, got one at {key!r}; {_INSTEAD}")

    def __len__(self) -> int:
        with self._once:  # while another thread mixes it, it is neither waiting nor mixed
            return len(self._waiting() if self._mixed is None else self._mixed)  # a length does not expose the memory

    def keys(self) -> KeysView[Any]:
        """The keys of a batch of dict samples."""
        return self._as_mapping("keys").keys()

    def values(self) -> ValuesView[Any]:
        """The values of a batch of dict samples, mixed."""
        return self._as_mapping("values").values()

    def items(self) -> ItemsView[Any, Any]:
        """The items of a batch of dict samples, mixed."""
        return self._as_mapping("items").items()

    def get(self, key: Any, default: Any = None) -> Any:
        """A value of a batch of dict samples, mixed; ``default`` if it has no such key."""
        return self._as_mapping("get").get(key, default)

    def _as_mapping(self, method: str) -> Mapping[Any, Any]:
        mixed = self.mix()
        if not isinstance(mixed, Mapping):
            raise TypeError(
                f"{method}() needs a batch of dict samples, got a {type(mixed).__name__}; unpack it, as in "
                "images, targets = batch, or use batch.mix()"
            )
        return mixed

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"MixBatch has no attribute {name!r}; {_INSTEAD}")

    def _refuse_field(self, name: str) -> None:
        """Refuse an attribute that the batch has as a field of its own: the caller may expect that, mixed."""
        with self._once:
            held = self._batch if self._mixed is None else self._mixed
        fields = held if isinstance(held, Mapping) else getattr(held, "_fields", ())
        if name in fields and hasattr(held, name):
            raise AttributeError(name)  # then __getattr__ says what to do

    def _raw(self) -> Any:
        """The stacked batch, not mixed."""
        with self._once:
            if self._mixed is not None:
                raise RuntimeError("this batch is mixed already; read batch.images and batch.labels before mixing")
            batch = self._waiting()
            self._may_overwrite = False  # the caller can see this memory now, so mixing must leave it as it is
            return batch

    def _waiting(self) -> Any:
        """The stacked batch, which is not mixed yet."""
        if self._batch is None:
            raise RuntimeError("mixing this batch was interrupted and may have left it half mixed; use the next batch")
        return self._batch

    def __repr__(self) -> str:
        state = "not mixed yet" if self._mixed is None else "mixed"
        return f"MixBatch({state}; unpack it, or call .mix() or .to(device))"

    def __getstate__(self) -> dict[str, Any]:
        with self._once:
            self._may_overwrite = False  # the copies made from this state may share its memory
            return {**vars(self), "_owner": None, "_once": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._once = threading.RLock()
        self._owner = _OWNERS.get(self._name)  # in this process


def _parse_to(*args: Any, **kwargs: Any) -> tuple[torch.device | None, torch.dtype | None, bool]:
    """Device, dtype and ``non_blocking``, parsed as by ``Tensor.to``, except that copies do not block by default."""
    given = "non_blocking" in kwargs or any(isinstance(value, bool) for value in args)
    try:
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"to() takes a device, a dtype for the images and non_blocking, as Tensor.to does, got {args} {kwargs}: "
            f"{error}"
        ) from error
    if memory_format is not None:
        raise TypeError(f"memory_format must be given to MixupCollate, got to(memory_format={memory_format})")
    return device, dtype, bool(non_blocking) if given else True


def moved(batch: Any, device: torch.device, *, non_blocking: bool = False) -> Any:
    """The batch with its tensors, and whatever else has a ``to``, on the device; anything else stays as it is."""
    # only copies to CUDA are ordered by a stream: on the host a non-blocking one could be read before it has arrived
    non_blocking = non_blocking and device.type == "cuda"
    there: dict[Path, Any] = {}
    for path, leaf in leaves(batch):
        if isinstance(leaf, Tensor):
            there[path] = leaf.to(device, non_blocking=non_blocking)
        elif callable(getattr(leaf, "to", None)) and not isinstance(leaf, type):
            there[path] = leaf.to(device)
        else:
            _refuse_tensors_in(leaf)
    return replace_at(batch, there)


def _refuse_tensors_in(leaf: Any) -> None:
    """Refuse a dataclass with tensors, which would be left behind."""
    fields = dataclasses.fields(leaf) if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type) else ()
    if any(isinstance(getattr(leaf, field.name, None), Tensor) for field in fields):
        raise TypeError(
            f"a batch must be of tensors in tuples, lists and mappings, got a {type(leaf).__name__} with tensors, "
            "which has no to(device); add one, or let the collate_fn return vars(batch)"
        )
