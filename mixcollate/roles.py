"""Find the images, labels and masks of a batch, and refuse what cannot be mixed; done once for each batch.

A batch is a tensor, or nested tuples, lists and mappings of tensors. A path is the keys and indices that lead to one.
"""

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, cast

import numpy as np
import PIL.Image
from torch import Tensor
from torchvision import tv_tensors

from mixcollate.checks import result_of, shown, warn
from mixcollate.kernels import Axes
from mixcollate.kernels.pixels import check_pixels
from mixcollate.kernels.prepare import TOO_FEW_AXES

Key = int | str
Path = tuple[Key, ...]
LabelsGetter = Callable[[Any], Any] | Literal["default"] | None

IMAGE_NAMES = ("image", "images", "pixel_values", "img", "x")
LABEL_NAMES = ("label", "labels", "target", "targets", "y", "class_label")
"""Names by which images and labels are found, ignoring case; earlier names take precedence."""

BOX_NAMES = ("bbox", "bboxes", "box", "boxes", "keypoint", "keypoints")
"""Names of entries that hold positions in the images, whatever type torch has collated them to."""

_OF_THE_COLLATE = "(arguments of MixupCollate)"
_AS_A_COLLATE = "DataLoader(dataset, collate_fn=MixupCollate(...))"

CHANNELS = (1, 3, 4)
"""Sizes of a last axis that looks like channels."""


@dataclass(frozen=True)
class Roles:
    """The paths of the tensors of a batch, by what they are.

    Attributes:
        images: mixed by the plan; all share batch, height and width.
        labels: become soft targets.
        masks: mixed by the plan like their images, but never erased, normalised or cast.
        blended: tensors ``[B, ...]`` that are blended as a whole, by the labels' shares.
        unclear: names of what stays as it is, but may be labels.
    """

    images: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    blended: tuple[Path, ...] = ()
    unclear: tuple[str, ...] = ()

    def warn(self) -> None:
        """Warn of what is unclear. Called where the batch is mixed: each worker would warn again in each epoch."""
        for name in self.unclear:
            warn(
                f"{name} is left unchanged although its images are mixed: if it is a target, name it in label_key; if "
                f"not (an index, a weight), name it in keep_keys {_OF_THE_COLLATE}",
            )


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The entries of a batch that the caller has named: by a key, an index, or a path joined by dots."""

    image: tuple[Key, ...] = ()
    label: tuple[Key, ...] = ()
    mask: tuple[Key, ...] = ()
    blend: tuple[Key, ...] = ()
    keep: tuple[Key, ...] = ()
    labels_getter: LabelsGetter = "default"
    layout: Axes | None = None
    partial: bool = False  # entries other than images may be missing, or not tensors

    def __post_init__(self) -> None:
        named = [str(key) for key in (*self.image, *self.label, *self.mask, *self.blend, *self.keep)]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(
                f"each entry of a batch must have one role, got {', '.join(twice)} more than once in image_key, "
                "label_key, mask_keys, blend_keys and keep_keys"
            )


IMAGES_AND_LABELS = Roles(images=((0,),), labels=((1,),))
"""``(images, labels)``."""
IMAGES_ONLY = Roles(images=((),))
"""Images without labels."""

NO_KEYS = Keys()


def keys_of(name: str, key: Key | Sequence[Key] | None) -> tuple[Key, ...]:
    """The keys given for an argument, one or several, as a tuple."""
    if key is None:
        return ()
    keys = (key,) if isinstance(key, (int, str)) else key
    if not isinstance(keys, (tuple, list)) or not all(type(one) in (int, str) for one in keys):
        raise TypeError(f"{name} must be an index, a key, or several of them, got {key!r}; a path is 'outer.inner'")
    return tuple(keys)


def find(
    batch: Any, keys: Keys = NO_KEYS, *, mixes: bool, labelled: bool = False, kinds: Mapping[Path, type] | None = None
) -> Roles:
    """Find the role of each entry of a batch; refuse, before anything is drawn or written, what would be half mixed.

    Args:
        batch: a stacked batch.
        keys: the entries that the caller has named. Others are found by type (torchvision's ``tv_tensors``), by name,
            or by position: images first, then labels.
        mixes: whether pixels of partners are used. If so, every tensor of two or more axes must have a role or be
            named in ``keep_keys``; a tensor of one axis, which may be labels or an index, is unclear.
        labelled: whether labels are required.
        kinds: the types that tensors had before they were stacked, by their paths.
    """
    if type(batch) is tuple and [type(item) for item in batch] == [Tensor, Tensor] and keys == NO_KEYS and not kinds:
        images, labels = batch
        if images.ndim > labels.ndim and labels.ndim in (1, 2):  # the usual call is spared the search
            check_pixels(images)
            _refuse_layout(images, (0,))
            return IMAGES_AND_LABELS
    search = _Search(batch, keys, kinds or {})
    masks = search.named("mask_keys", keys.mask) or search.of_type(tv_tensors.Mask)
    blended, kept = search.named("blend_keys", keys.blend), search.kept()
    search.taken = {*masks, *blended, *kept, *search.named("image_key", keys.image)}
    labels = search.labels(needed=labelled, wanted=mixes)
    search.taken |= set(labels)
    images = search.images(mixes=mixes)
    search.taken |= set(images)
    unclear = search.refuse_the_rest(images) if mixes else ()
    return Roles(images, labels, masks, blended, unclear)


class _Search:
    """The search for roles in one batch."""

    def __init__(self, batch: Any, keys: Keys, kinds: Mapping[Path, type]) -> None:
        if not isinstance(batch, (Tensor, tuple, list, Mapping)):
            way_out = "; make a mapping of it: vars(batch)" if is_dataclass(batch) else ""
            if isinstance(batch, np.ndarray):
                way_out = "; convert it with torch.as_tensor"
            raise TypeError(
                f"a batch must be a tensor, or tuples, lists and mappings of tensors, got {shown(batch)}{way_out}"
            )
        self.batch, self.keys = batch, keys
        self.leaves = dict(leaves(batch))
        self.names = {path: _names_along(batch, path) for path in self.leaves}
        self.kinds = {path: kinds.get(path, type(leaf)) for path, leaf in self.leaves.items()}
        self.taken: set[Path] = set()

    def named(self, argument: str, keys: Sequence[Key]) -> tuple[Path, ...]:
        """The paths of the tensors named by an argument."""
        if self.keys.partial and argument != "image_key":
            return tuple(path for key in keys for path in self._matching(key)[:1])
        paths = tuple(self._named(argument, key) for key in keys)
        for path in paths:
            self._refuse_no_tensor(argument, path)
        return paths

    def kept(self) -> set[Path]:
        """The paths of everything in or below an entry of ``keep_keys``."""
        kept = set()
        for key in self.keys.keep:
            below = {path for path in self.leaves if leads_to(self.batch, path, key)}
            if not below and not self.keys.partial and not self._holds_nothing(key):
                raise self._missing("keep_keys", key)
            kept |= below
        return kept

    def _holds_nothing(self, key: Key) -> bool:
        """Whether there is such an entry, but with nothing in it in this batch."""
        return any(leads_to(self.batch, path, key) for path, _ in leaves(self.batch, empty=True))

    def of_type(self, *types: type) -> tuple[Path, ...]:
        """The paths of tensors of these types that have no role yet."""
        return tuple(path for path, kind in self.kinds.items() if issubclass(kind, types) and path not in self.taken)

    def labels(self, *, needed: bool, wanted: bool) -> tuple[Path, ...]:
        """The paths of the labels: from ``label_key``, from the getter, by name, or the second item."""
        getter = self.keys.labels_getter
        if self.keys.label:
            return self.named("label_key", self.keys.label)
        if getter is None:
            return ()
        if callable(getter):
            return self._returned(result_of("labels_getter", getter, self.batch))
        path = self._by_name(LABEL_NAMES)
        if path is None and isinstance(self.batch, (tuple, list)) and len(self.batch) > 1 and (1,) not in self.taken:
            path = (1,)
        if path is None:
            like = [one for one in self.leaves if one not in self.taken and _is_like_a_label(self.names[one])]
            if needed or (wanted and like):
                raise ValueError(
                    f"no labels found among {self._names()}: pass (images, labels), call them one of "
                    f"{', '.join(LABEL_NAMES)}, or say which they are with MixupCollate(label_key=...), or with the "
                    "labels_getter of a transform; labels_getter=None mixes images that have no labels"
                )
            return ()
        if needed or wanted:
            self._refuse_no_tensor("label_key", path)
            if self.leaves[path].ndim == 0:
                raise ValueError(
                    f"labels must be a batch, got one at {dotted(path)}: transforms mix batches, not single samples, "
                    f"as in {_AS_A_COLLATE}"
                )
            if self.leaves[path].ndim > 2:
                raise ValueError(
                    f"labels must be class indices [B] or rows [B, num_classes], got {tuple(self.leaves[path].shape)} "
                    f"at {dotted(path)}; if this is a mask, wrap it in tv_tensors.Mask or name it in mask_keys, and "
                    f"name the labels, if there are any, in label_key {_OF_THE_COLLATE}"
                )
        return (path,)

    def images(self, *, mixes: bool) -> tuple[Path, ...]:
        """The paths of the images: from ``image_key``, by type, by name, or the first tensor that has no role yet."""
        images = self.named("image_key", self.keys.image) or self.of_type(tv_tensors.Image, tv_tensors.Video)
        if not images:
            path = self._by_name(IMAGE_NAMES)
            images = self._first_tensor() if path is None else (path,)
        for path in images:
            self._refuse_no_tensor("image_key", path)
            self._refuse_one_sample(path, mixes=mixes)
            check_pixels(self.leaves[path])
            if self.keys.layout is None and not issubclass(self.kinds[path], tv_tensors.TVTensor):
                _refuse_layout(self.leaves[path], path)
        first = self.leaves[images[0]]
        for path in images[1:]:
            other = self.leaves[path]
            if other.shape[:1] + other.shape[-2:] != first.shape[:1] + first.shape[-2:]:
                shapes = [tuple(self.leaves[path].shape) for path in images]
                raise ValueError(
                    f"images must share batch, height and width to be mixed by one plan, got {shapes}; "
                    "name floats of another size in mask_keys, where they are mixed but not normalised or cast, or "
                    f"keep them with keep_keys {_OF_THE_COLLATE}"
                )
        return images

    def refuse_the_rest(self, images: Sequence[Path]) -> tuple[str, ...]:
        """Refuse entries that belong to the images and have no role; the names of those that might."""
        size = tuple(self.leaves[images[0]].shape)
        unclear: dict[Path, str] = {}
        for path, leaf in self.leaves.items():
            if path in self.taken:
                continue
            refuse_boxes(path, self.kinds[path])
            if name := next((key for key in self.names[path] if str(key).lower() in BOX_NAMES), None):
                raise _no_rule(str(name), path)
            if isinstance(leaf, PIL.Image.Image) or (isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim >= 2):
                raise ValueError(
                    f"{dotted(self.names[path])} looks like masks, further images or targets of these images, got "
                    f"{_shape(leaf)} beside {size}: wrap it in tv_tensors.Mask or Image, or name it in mask_keys, "
                    "image_key, label_key, blend_keys (floats such as logits) or, to leave it as it is, keep_keys "
                    f"{_OF_THE_COLLATE}"
                )
            place = self._list_of_each(path, size[0]) or (path if _is_one_each(leaf, size[0]) else None)
            if place is not None:
                unclear[place] = dotted(self.names[path][: len(place)])
        return tuple(unclear.values())

    def _list_of_each(self, path: Path, batch: int) -> Path | None:
        """The path of the list, with any numbers for each image, that this leaf belongs to."""
        if isinstance(self.leaves[path], (Tensor, np.ndarray)) or _are_numbers(self.leaves[path]):
            for end in range(1, len(path)):
                several = leaf_at(self.batch, path[:end])
                if isinstance(several, (list, tuple)) and len(several) == batch:
                    return path[:end]
        return None

    def _named(self, argument: str, key: Key) -> Path:
        matching = self._matching(key)
        if not matching:
            raise self._missing(argument, key)
        return matching[0]

    def _matching(self, key: Key) -> list[Path]:
        alone = isinstance(self.batch, Tensor) and key == 0
        return [path for path in self.leaves if alone or str(key) in (_joined(path), _joined(self.names[path]))]

    def _missing(self, argument: str, key: Key) -> ValueError:
        what = "entries" if argument == "keep_keys" else "tensors"
        return ValueError(f"{argument} must name {what} among {self._names()}, got {key!r}")

    def _names(self) -> str:
        return f"[{', '.join(map(_as_key, self.names.values()))}]"

    def _returned(self, returned: Any) -> tuple[Path, ...]:
        """The paths of the tensors that a ``labels_getter`` returned."""
        paths = []
        for labels in returned if isinstance(returned, (tuple, list)) else (returned,):
            place = next((path for path, leaf in self.leaves.items() if leaf is labels and path not in paths), None)
            if not isinstance(labels, Tensor) or place is None:
                found = f"a tensor {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
                raise ValueError(
                    f"labels_getter must return tensors that are in the batch, got {found} that is not; convert the "
                    "labels before the transform, not in the getter"
                )
            paths.append(place)
        return tuple(paths)

    def _by_name(self, names: Sequence[str]) -> Path | None:
        """The path whose last key is one of these names: the least nested one, then the one with the earliest name."""
        found = [
            (len(path), names.index(name), path)
            for path in self.leaves
            if path not in self.taken and path and (name := str(self.names[path][-1]).lower()) in names
        ]
        return min(found, key=lambda one: one[:2])[2] if found else None

    def _first_tensor(self) -> tuple[Path]:
        tensors = [path for path, leaf in self.leaves.items() if isinstance(leaf, Tensor) and path not in self.taken]
        candidates = [path for path in tensors if self.leaves[path].ndim >= 3] or tensors
        if not candidates:
            raise ValueError(
                f"images must be a tensor [B, C, H, W], found none among {self._names()}; stack the samples first, or "
                f"name the images in image_key {_OF_THE_COLLATE}"
            )
        first = self.leaves[candidates[0]]
        rivals = [path for path in candidates[1:] if first.ndim >= 3 and self.leaves[path].ndim >= first.ndim]
        if rivals:
            shown_first = [f"{dotted(path)} {tuple(self.leaves[path].shape)}" for path in (candidates[0], *rivals)[:3]]
            shapes = ", ".join(shown_first + [f"and {len(rivals) - 2} more"] * (len(rivals) > 2))
            raise ValueError(
                f"more than one tensor looks like images: {shapes}; stack those that are one batch, wrap images in "
                "tv_tensors.Image or Video, or name them in image_key, and name the rest in label_key, blend_keys "
                f"(floats such as logits) or, to leave it as it is, keep_keys {_OF_THE_COLLATE}"
            )
        return (candidates[0],)

    def _refuse_one_sample(self, path: Path, *, mixes: bool) -> None:
        """Refuse a single image where a batch is needed: its channels would be taken for images."""
        leaf, kind = self.leaves[path], self.kinds[path]
        one = is_one_sample(leaf, kind)
        alone = path == () and leaf.ndim == 3 and self.keys.layout is None and not (one or self.keys.partial)
        if alone or (one and mixes):
            way_out = f"mix whole batches, as in {_AS_A_COLLATE}" if mixes else "wrap it in tv_tensors.Image"
            raise ValueError(
                f"images must be a batch [B, C, H, W], got {tuple(leaf.shape)}, which looks like one image: {way_out}; "
                f"{TOO_FEW_AXES}"
            )

    def _refuse_no_tensor(self, argument: str, path: Path) -> None:
        leaf = leaf_at(self.batch, path)
        if isinstance(leaf, Tensor):
            return
        way_out = f"name a tensor in {argument}, or make one of it with collate_fn (arguments of MixupCollate)"
        alike = isinstance(self.batch, (tuple, list)) and len({type(item) for item in self.batch}) == 1
        if isinstance(leaf, (int, float)) or (alike and path not in self.leaves):
            way_out = f"transforms mix batches, and MixupCollate stacks samples, as in {_AS_A_COLLATE}"
        elif isinstance(leaf, np.ndarray) or _are_numbers(leaf):
            way_out = "convert it with torch.as_tensor"
        raise TypeError(f"a batch must have a tensor at {dotted(path)}, got {type(leaf).__name__}; {way_out}")


def leaves(batch: Any, *, empty: bool = False) -> list[tuple[Path, Any]]:
    """The leaves of a batch and their paths: whatever is no tuple, list or mapping, and lists of names or numbers.

    Args:
        batch: any structure.
        empty: whether tuples, lists and mappings of nothing count, too.
    """
    found: list[tuple[Path, Any]] = []
    waiting: list[tuple[Path, Any]] = [((), batch)]
    while waiting:
        path, value = waiting.pop()
        items: list[tuple[Key, Any]] | None = None
        if not isinstance(value, Tensor):  # asked first: whether it is a mapping takes ten times as long to ask
            if isinstance(value, Mapping):
                items = list(value.items())
            elif isinstance(value, (tuple, list)) and not _are_values(value):
                items = list(enumerate(value))
        if items is None or (empty and not items):
            found.append((path, value))
        waiting += [((*path, key), item) for key, item in reversed(items or [])]
    return found


def refuse_boxes(path: Path, kind: type) -> None:
    """Refuse bounding boxes and keypoints."""
    key_points = getattr(tv_tensors, "KeyPoints", tv_tensors.BoundingBoxes)  # since torchvision 0.23
    if issubclass(kind, (tv_tensors.BoundingBoxes, key_points)):
        raise _no_rule(kind.__name__, path)


def _no_rule(name: str, path: Path) -> ValueError:
    return ValueError(
        f"a batch with {name} cannot be mixed: there is no rule for mixing boxes or keypoints; leave out what is at "
        f"{dotted(path)}, or name it in keep_keys to pass it on unchanged {_OF_THE_COLLATE}"
    )


def is_one_sample(value: Tensor, kind: type) -> bool:
    """Whether a tensor of a torchvision type is a single image or video, not a batch of them."""
    if issubclass(kind, tv_tensors.Image):
        return value.ndim == 3
    return issubclass(kind, tv_tensors.Video) and value.ndim == 4


def kinds_of(sample: Any) -> dict[Path, type]:
    """The types of torchvision tensors in a sample, by their paths; stacking turns them into plain tensors."""
    return {path: type(leaf) for path, leaf in leaves(sample) if isinstance(leaf, tv_tensors.TVTensor)}


def leaf_at(batch: Any, path: Path) -> Any:
    """The entry of a batch at a path."""
    for key in path:
        batch = batch[key]
    return batch


def first_labels(batch: Any, roles: Roles) -> Tensor | None:
    """The labels that a ``pairing`` function gets; ``None`` if there are none or they are not a tensor."""
    labels = leaf_at(batch, roles.labels[0]) if roles.labels else None
    return labels if isinstance(labels, Tensor) else None


def replace_at(batch: Any, changed: Mapping[Path, Any]) -> Any:
    """A batch of the same structure with the entries at some paths replaced."""
    if () in changed:
        return changed[()]
    if not changed:
        return batch
    if type(batch) is tuple and all([len(path) == 1 for path in changed]):  # the usual batch is spared the recursion
        return tuple([changed.get((key,), value) for key, value in enumerate(batch)])
    below: dict[Key, dict[Path, Any]] = {}
    for path, value in changed.items():
        below.setdefault(path[0], {})[path[1:]] = value
    if isinstance(batch, Mapping):
        # a copy of another mapping may share its storage with the original, unless the class defines __copy__
        copied = isinstance(batch, MutableMapping) and (isinstance(batch, dict) or hasattr(batch, "__copy__"))
        result: Any = copy.copy(batch) if copied else dict(batch)
        if hasattr(type(result), "clear_device_"):  # else a TensorDict moves what it is given to its own device
            result.clear_device_()
        for key, inner in below.items():
            result[key] = replace_at(batch[key], inner)
        return result
    values = [replace_at(value, below[key]) if key in below else value for key, value in enumerate(batch)]
    if isinstance(batch, tuple):  # not by the constructor, whose arguments a subclass may have changed
        return tuple.__new__(type(batch), values)
    result = copy.copy(batch)
    result[:] = values
    return result


def map_tensors(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch of the same structure with ``function`` of each of its tensors, still of torchvision's types."""

    def mapped(tensor: Tensor) -> Tensor:
        result = function(tensor)
        if isinstance(tensor, tv_tensors.TVTensor) and not isinstance(result, tv_tensors.TVTensor):
            return cast(Tensor, tv_tensors.wrap(result, like=tensor))  # pin_memory and copy_ give plain ones
        return result

    return replace_at(batch, {path: mapped(leaf) for path, leaf in leaves(batch) if isinstance(leaf, Tensor)})


def is_batch(samples: Sequence[Any], keys: Keys) -> bool:
    """Whether a list holds the items of a batch, ``[images, labels]``, rather than samples.

    It must start with a tensor. Then it does if a key is an index into it, or if the others are not all tensors with as
    many axes, but each could belong to a batch of that length.
    """
    first, *others = samples
    if not isinstance(first, Tensor) or first.ndim == 0:
        return False
    named = (*keys.image, *keys.label, *keys.mask, *keys.blend, *keys.keep)
    if any(isinstance(key, int) and key > 0 for key in named):
        return True
    alike = all(isinstance(one, Tensor) and one.ndim == first.ndim for one in others)
    return not alike and all(_is_item(one, len(first)) for one in others)


def _is_item(one: Any, batch: int) -> bool:
    """Whether this could be an item of a batch beside its images: one entry for each of them, or a nested structure."""
    if isinstance(one, (Tensor, np.ndarray)):
        return one.shape[:1] in ((), (batch,))
    return isinstance(one, (list, tuple, Mapping))


def dotted(path: Path) -> str:
    """A path for error messages: ``'outer.inner'``, ``index 1``."""
    return f"index {path[0]}" if len(path) == 1 and isinstance(path[0], int) else _as_key(path)


def _as_key(path: Path) -> str:
    """A path as an argument would name it: ``'outer.inner'``, ``1``."""
    return repr(path[0] if len(path) == 1 else _joined(path)) if path else "the batch"


def _joined(path: Path) -> str:
    return ".".join(map(str, path))


def _shape(leaf: Any) -> Any:
    return tuple(leaf.shape) if hasattr(leaf, "shape") else type(leaf).__name__


def _is_like_a_label(path: Path) -> bool:
    return any(word in str(key).lower() for word in ("label", "target") for key in path[-1:])


def leads_to(batch: Any, path: Path, key: Key) -> bool:
    """Whether a key, or several joined by dots, is this path in a batch or a parent of it."""
    ways = path, _names_along(batch, path)
    return any(str(key) == _joined(way[:end]) for way in ways for end in range(1, len(path) + 1))


def _names_along(batch: Any, path: Path) -> Path:
    """A path with the names of fields in place of the indices into named tuples."""
    names: list[Key] = []
    for key in path:
        fields = getattr(batch, "_fields", None) if isinstance(batch, tuple) else None
        names.append(fields[key] if fields else key)
        batch = batch[key]
    return tuple(names)


def _are_values(batch: Sequence[Any]) -> bool:
    """Whether a list holds names or numbers, such as the strings of a batch from ``default_collate``."""
    return 0 < len(batch) and {type(one) for one in batch} <= {str, bytes, int, float}


def _is_one_each(leaf: Any, batch: int) -> bool:
    """Whether this holds one number for each image, and so might be a target."""
    if isinstance(leaf, (Tensor, np.ndarray)):
        return tuple(leaf.shape) == (batch,)
    return _are_numbers(leaf) and len(leaf) == batch


def _are_numbers(leaf: Any) -> bool:
    return isinstance(leaf, (list, tuple)) and all(isinstance(one, (int, float)) for one in leaf)


def _refuse_layout(images: Tensor, path: Path) -> None:
    """Refuse what looks like images with their channels last, whose boxes would be cut through the channels."""
    if images.ndim in (4, 5):
        height, width, channels = images.shape[-3:]
        if channels in CHANNELS and min(height, width) > max(CHANNELS):
            order, layout = ("(0, 3, 1, 2)", "BCHW") if images.ndim == 4 else ("(0, 1, 4, 2, 3)", "BTCHW")
            raise ValueError(
                f"images must be [B, C, H, W] or [B, T, C, H, W], got {tuple(images.shape)} at {dotted(path)}, whose "
                f"last axis looks like channels; use .permute{order}, or pass layout={layout!r} if it is the width"
            )
