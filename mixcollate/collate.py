"""``MixupCollate`` stacks samples in the workers; the ``MixBatch`` it returns is mixed on the device, once."""

import copy
import math
import pickle
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.data import default_collate, default_convert, get_worker_info
from torch.utils.data._utils.collate import collate as torch_collate  # documented: how default_collate is extended
from torch.utils.data._utils.collate import default_collate_fn_map
from torchvision import tv_tensors

from mixcollate.kernels import Statistic, as_batch, beside, mix, mix_masks, mix_samples
from mixcollate.kernels.checks import result_dtype
from mixcollate.kernels.host import LARGE
from mixcollate.kernels.packed import PackedPlan
from mixcollate.memory import Recycler
from mixcollate.methods import CutMix, MixUp, RandomErasing
from mixcollate.methods.fill import Fill
from mixcollate.plan import MixPlan, Per, Stream, identity, only
from mixcollate.targets import SoftTarget
from mixcollate.transforms import Compose, MixOptions, MixTransform, RandomChoice, belongs_to

Key = int | str

IMAGE_KEYS = ("image", "images", "pixel_values", "img")
LABEL_KEYS = ("label", "labels", "target", "targets")

_REST_OF_DEFAULT = {kind: how for kind, how in default_collate_fn_map.items() if kind is not Tensor}


class MixupCollate:
    """A ``collate_fn`` that mixes after the transfer: workers stack, the main process decides, the device mixes.

    ``DataLoader(dataset, collate_fn=MixupCollate(num_classes=10))`` yields :class:`MixBatch`; unpacked where they are,
    or sent ``.to("cuda")``, they become ``(images, targets)``. Plans are drawn by the object that was given to the
    loader, in the order in which batches are used, whatever the workers do: ``enabled``, ``set_epoch`` and schedules
    act on the next batch, and any number of workers gives the same stream.

    Args:
        transform: what to do to a batch; default: :class:`MixUp` with ``alpha``.
        num_classes: number of classes, unless the transform knows it. With a transform that leaves labels alone
            (Cutout, say) it turns them into one-hot rows.
        alpha: of the default transform.
        mean: subtracted after mixing, in the units of images in [0, 1]; a number, or one for each channel.
        std: divided by after that; likewise.
        dtype: of the images that come out; default: as they are, float32 if uint8 is normalised.
        memory_format: of the images that come out, e.g. ``torch.channels_last``; default: as they are.
        collate_fn: makes a batch of samples first; default: torch's. PIL images need one that makes tensors.
        image_key: where images are in a batch: an index or a key, or several. Default: the first item, or what is
            called image, images, pixel_values or img.
        label_key: where labels are; default: the second item, or what is called label(s) or target(s).
        mask_keys: where segmentation masks are, which are mixed by the same plan.
        eager: mix in the worker and return plain tensors, for frameworks that move nothing else.
        seed: of the stream of plans; default: that of the transform, or else torch's default generator.
    """

    def __init__(
        self,
        transform: MixTransform | None = None,
        *,
        num_classes: int | None = None,
        alpha: float = 1.0,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        image_key: Key | Sequence[Key] | None = None,
        label_key: Key | None = None,
        mask_keys: Key | Sequence[Key] = (),
        eager: bool = False,
        seed: int | None = None,
    ) -> None:
        transform = MixUp(alpha=alpha) if transform is None else copy.copy(transform)
        if not isinstance(transform, MixTransform):
            raise TypeError(f"transform must be one of mixcollate's, got {type(transform).__name__}")
        if seed is not None and transform.stream.seed is not None:
            raise ValueError(f"seed must be given to MixupCollate or to its transform, not to both; got {seed}")
        if num_classes is not None and transform.num_classes not in (None, num_classes):
            raise ValueError(f"num_classes must be the transform's {transform.num_classes}, got {num_classes}")
        transform.num_classes = num_classes or transform.num_classes
        self.transform = transform
        self._mixes, self._classes = transform.mixes, transform.num_classes  # a worker may lack the transform
        self.stream = transform.stream if seed is None else Stream(seed)
        self.mean, self.std, self.dtype, self.memory_format = mean, std, dtype, memory_format
        self.collate_fn, self.eager = collate_fn, eager
        self.image_keys = image_key if image_key is None else _several(image_key)
        self.label_key, self.mask_keys = label_key, _several(mask_keys)
        # (enabled, epoch): seen at once by workers, which mix themselves when eager
        self._shared = torch.tensor([1, 0])
        if eager:
            self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._half = False
        self._memory = Recycler()
        self._name = uuid.uuid4().hex
        _COLLATES[self._name] = self

    @property
    def enabled(self) -> bool:
        """Whether batches are mixed. When off, images are still normalised and targets keep their type."""
        return bool(self._shared[0])

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._shared[0] = int(value)

    def set_epoch(self, epoch: int) -> None:
        """Tell the schedules which epoch it is; acts on the next batch."""
        self._shared[1] = epoch

    def state_dict(self) -> dict[str, int | None]:
        """Where the stream of plans stands; with a seed, all it takes to resume exactly."""
        return {"seed": self.stream.seed, "step": self.stream.step}

    def load_state_dict(self, state: Mapping[str, int | None]) -> None:
        """Go on where ``state_dict`` was taken."""
        if state["seed"] != self.stream.seed:
            raise ValueError(f"state must be of a collate with seed={self.stream.seed}, got seed={state['seed']}")
        self.stream.step = state["step"] or 0

    def __call__(self, samples: list[Any]) -> Any:
        """Stack samples into a :class:`MixBatch`; if ``eager``, into a mixed batch.

        What is no list of samples is a batch already, as from a loader with ``batch_size=None``.
        """
        listed, stacks = isinstance(samples, list), self.collate_fn is default_collate
        if listed and not samples:
            raise ValueError("samples must not be empty")
        if self._mixes:
            _refuse_boxes(samples[0] if listed else samples)
        if stacks:
            batch = self._stack(samples) if listed else default_convert(samples)  # type: ignore[no-untyped-call]
        else:
            batch = self.collate_fn(samples)
        if isinstance(batch, list):
            batch = tuple(batch)  # torch's default makes lists of tuples
        elif isinstance(batch, Mapping):
            batch = dict(batch)
        images, *_ = self._find(batch)  # refuse here, in the worker, what could not be mixed later
        ours = stacks and listed  # stacking always copies, so the memory is nobody else's
        if not self.eager:
            return MixBatch(batch, self, ours=ours)
        mixed = {id(self._at(batch, key)) for key in images}
        batch = tree_map_only(Unstacked, lambda value: value if id(value) in mixed else self._joined(value), batch)
        return self.mix(batch, inplace=ours)

    def _stack(self, samples: list[Any]) -> Any:
        """torch's default_collate, but what it need not stack into shared memory goes where memory was used before."""
        try:
            if get_worker_info() is not None and not self.eager:
                return default_collate(samples)
            return torch_collate(samples, collate_fn_map={Tensor: self._stack_tensors, **_REST_OF_DEFAULT})
        except RuntimeError as error:
            if "stack expects each tensor to be equal size" not in str(error):
                raise
            raise ValueError(f"images must have one size to make a batch, resize them first; got: {error}") from error

    def _stack_tensors(self, tensors: Sequence[Tensor], *, collate_fn_map: Any = None) -> "Tensor | Unstacked":
        first = tensors[0]
        plain = first.layout == torch.strided and first.device.type == "cpu" and not first.requires_grad
        if not plain or any(tensor.dtype != first.dtype for tensor in tensors):
            return torch.stack(list(tensors))
        large = self.eager and first.ndim == 3 and first.numel() >= LARGE
        if large and all(tensor.shape == first.shape for tensor in tensors):
            return Unstacked(tensors)
        return self._joined(tensors)

    def _joined(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors), out=self._empty((len(tensors), *tensors[0].shape), tensors[0].dtype))

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for a batch: what a worker sends must be shared, so it is from the start."""
        if get_worker_info() is None:
            return self._memory.empty(shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        shared = torch.UntypedStorage._new_shared(size, device="cpu")  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=torch.uint8).set_(shared).view(dtype).view(shape)

    def mix(self, batch: Any, *, inplace: bool = False) -> Any:
        """Draw the next plan and mix a collated batch, where it is, once.

        Args:
            batch: ``images``, ``(images, labels, ...)`` or a dict of tensors.
            inplace: the memory of the images may be used for the result.

        Returns:
            The same structure with mixed images (and masks) and soft targets.
        """
        images, labels, masks = self._find(batch)
        if self.transform is None:
            raise RuntimeError("this MixupCollate came here without its transform, which cannot be pickled")
        pixels = _stacked(self._at(batch, images[0]))
        plan = self.transform.make_plan(pixels, stream=self.stream, epoch=int(self._shared[1]))
        if not self.enabled:  # sparse targets keep their width
            sparse = self.transform.targets == "sparse"
            plan = only(np.zeros(len(plan), bool), plan) if sparse else identity(len(plan), plan.size)
        placed = beside(pixels, plan)
        changed: dict[Key, Any] = {}
        if labels is not None:  # first, as this may be refused, and images may be mixed in place
            changed[labels] = self._mix_labels(self._at(batch, labels), placed)
        changed |= {key: mix_masks(self._at(batch, key), plan) for key in masks}
        changed |= {key: self._mix_images(self._at(batch, key), placed, inplace=inplace) for key in images}
        if self._half:
            batch, changed = _first_half((batch, changed), len(plan))
        if isinstance(batch, Tensor):
            return changed[0]
        if isinstance(batch, Mapping):
            return {**batch, **changed}
        values = [changed.get(key, value) for key, value in enumerate(batch)]
        return type(batch)(*values) if hasattr(batch, "_fields") else tuple(values)

    def _mix_images(self, images: "Tensor | Unstacked", plan: MixPlan | PackedPlan, *, inplace: bool) -> Tensor:
        like = _stacked(images)
        normalised = not (self.mean is None and self.std is None)
        dtype = result_dtype(like, self.dtype, normalised=normalised, out=None)
        if isinstance(images, Unstacked):
            if self.memory_format is None and isinstance(plan, MixPlan):
                mixed = self._empty(tuple(like.shape), dtype)
                return mix_samples(images, plan, mean=self.mean, std=self.std, out=mixed)
            images = self._joined(images)
        out = None
        if self.memory_format is None and inplace and dtype == images.dtype:
            out = images
        elif self.memory_format is None and images.device.type == "cpu" and images.is_contiguous():
            out = self._empty(tuple(images.shape), dtype)
        return mix(images, plan, mean=self.mean, std=self.std, dtype=dtype, memory_format=self.memory_format, out=out)

    def _mix_labels(self, labels: Tensor, plan: MixPlan | PackedPlan) -> Tensor | SoftTarget:
        if self.transform.mixes or self.transform.num_classes is not None:
            return self.transform.mix_labels(labels, plan)
        return labels

    def _find(self, batch: Any) -> tuple[Sequence[Key], Key | None, Sequence[Key]]:
        """The keys of images, labels and masks; whatever else looks like them is refused."""
        keys: list[Key]
        if isinstance(batch, Tensor):
            keys = [0]
        elif isinstance(batch, Mapping):
            keys = list(batch)
        elif isinstance(batch, tuple):
            keys = list(range(len(batch)))
        else:
            raise TypeError(f"a batch must be a tensor, a tuple or a dict, got {type(batch).__name__}; see collate_fn")
        named = isinstance(batch, Mapping)
        images = self.image_keys or _first(keys, IMAGE_KEYS if named else (0,), "image_key")
        labels = self.label_key
        if labels is None:
            labels = next((key for key in (LABEL_KEYS if named else (1,)) if key in keys), None)
        wanted = [*images, *([] if labels is None else [labels]), *self.mask_keys]
        missing = [key for key in wanted if key not in keys]
        if missing:
            raise ValueError(f"image_key, label_key and mask_keys must be among {keys}, got {missing}")
        if labels is None and not isinstance(batch, Tensor):
            likely = [key for key in keys if isinstance(key, str) and any(word in key.lower() for word in LABEL_KEYS)]
            if self._classes is not None or (self._mixes and likely):
                raise ValueError(f"label_key must be given: none of {', '.join(LABEL_KEYS)} is among {keys}")
        for key in wanted:
            value = _stacked(self._at(batch, key))
            if not isinstance(value, Tensor) and (self._mixes or key != labels):
                raise TypeError(f"a batch must have a tensor at {key!r}, got {type(value).__name__}; see collate_fn")
        if self._mixes:
            for key in keys:
                if key not in wanted:
                    _refuse_image_like(key, self._at(batch, key), _stacked(self._at(batch, images[0])))
        return images, labels, self.mask_keys

    @staticmethod
    def _at(batch: Any, key: Key) -> Any:
        return batch if isinstance(batch, Tensor) else batch[key]

    def __repr__(self) -> str:
        return f"MixupCollate({self.transform!r}, enabled={self.enabled}, eager={self.eager})"

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        if get_spawning_popen() is not None and not self.eager:
            try:
                ForkingPickler.dumps(self.transform)
            except (pickle.PicklingError, AttributeError, TypeError):
                state["transform"] = None  # a loader's worker only stacks, so a schedule need not be picklable
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.eager:
            self._shared.share_memory_()  # type: ignore[no-untyped-call]
        if self._name in _COLLATES:
            self._name = uuid.uuid4().hex  # batches of a copy are mixed by the copy
        _COLLATES[self._name] = self

    @classmethod
    def from_timm(
        cls,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: tuple[float, float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
        *,
        reprob: float = 0.0,
        remode: str = "pixel",
        recount: int = 1,
        **options: Any,
    ) -> "MixupCollate":
        """What timm's ``Mixup``, ``FastCollateMixup`` and loader do with these arguments, odd batches included.

        Args:
            mixup_alpha: mixup's alpha; 0: no mixup.
            cutmix_alpha: CutMix's alpha; 0: no CutMix.
            cutmix_minmax: CutMix boxes with sides between these shares; makes CutMix active.
            prob: probability of mixing a batch, pair or element.
            switch_prob: probability of CutMix where both are active.
            mode: ``"batch"``, ``"pair"``, ``"elem"``, or ``"half"``: only the first half, mixed with the second.
            correct_lam: count the label's share from CutMix's pixels.
            label_smoothing: timm's default is 0.1.
            num_classes: timm's default is 1000.
            multi_label: labels are rows of zeros and ones. timm smooths each towards 0.5, which is left to the data
                set here: give ``label_smoothing=0``.
            reprob: probability of erasing a box of an image after normalising (give ``mean`` and ``std``).
            remode: ``"const"``, ``"rand"`` (one colour a box) or ``"pixel"``.
            recount: most boxes an image.
            options: of :class:`MixupCollate`.
        """
        per: dict[str, Per] = {"batch": "batch", "pair": "pair", "elem": "sample", "half": "sample"}
        fills: dict[str, Fill] = {"const": 0.0, "rand": "channel_noise", "pixel": "noise"}
        if mode not in per:
            raise ValueError(f"mode must be one of {', '.join(per)}, got {mode!r}")
        if remode not in fills:
            raise ValueError(f"remode must be one of {', '.join(fills)}, got {remode!r}")
        if multi_label and label_smoothing != 0:
            raise ValueError(
                f"label_smoothing must be 0 with multi_label=True, got {label_smoothing}; "
                "smooth the rows in the data set: labels * (1 - s) + s / 2"
            )
        if cutmix_minmax is not None:
            cutmix_alpha = 1.0
        if mixup_alpha <= 0 and cutmix_alpha <= 0:
            raise ValueError(f"mixup_alpha or cutmix_alpha must be positive, got {mixup_alpha} and {cutmix_alpha}")
        common: MixOptions = {"pairing": "flip", "per": per[mode], "p": prob}
        mixing: dict[MixTransform, float] = {}
        if mixup_alpha > 0:
            mixing[MixUp(alpha=mixup_alpha, **common)] = 1 - switch_prob
        if cutmix_alpha > 0:
            cutmix = CutMix(
                alpha=cutmix_alpha, minmax=cutmix_minmax, placement="timm", correct_lam=correct_lam, **common
            )
            mixing[cutmix] = switch_prob
        transform: MixTransform = next(iter(mixing))
        if len(mixing) > 1:
            transform = RandomChoice(list(mixing), p=list(mixing.values()), per=per[mode])
        if reprob > 0:
            erasing = RandomErasing(
                p=reprob, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), count=(1, recount), fill=fills[remode]
            )
            transform = Compose([transform, erasing])
        transform.label_smoothing = label_smoothing
        collate = cls(transform, num_classes=num_classes, **options)
        collate._half = mode == "half"
        return collate


class Unstacked(list[Tensor]):
    """Samples of one shape and dtype that are stacked while they are mixed; to pytrees a leaf."""


_COLLATES: "weakref.WeakValueDictionary[str, MixupCollate]" = weakref.WeakValueDictionary()
"""The collate objects of this process by name: how a batch from a worker finds the one that has the counter."""


class MixBatch:
    """A stacked batch that is mixed once, where it is wanted.

    ``images, targets = batch`` mixes it where it is, ``batch.to("cuda")`` there. It is neither a tuple nor a dict,
    because data loaders and frameworks rebuild those.
    """

    def __init__(self, batch: Any, collate: MixupCollate, *, ours: bool = False) -> None:
        self._batch = batch
        self._collate: MixupCollate | None = collate
        self._name = collate._name
        self._mixed: Any = None
        self._ours = ours  # whether the batch may be mixed in its own memory

    @property
    def images(self) -> Tensor:
        """The stacked images as they came, not mixed."""
        images: Tensor = self._raw()[0]
        return images

    @property
    def labels(self) -> Any:
        """The labels as they came, or ``None``."""
        return self._raw()[1]

    def _raw(self) -> tuple[Any, Any]:
        if self._mixed is not None:
            raise RuntimeError("this batch is mixed already; look at batch.images and batch.labels before that")
        images, labels, _ = self._owner()._find(self._batch)
        self._ours = False  # somebody looks at this memory now: mixing must leave it as it is
        at = MixupCollate._at
        return at(self._batch, images[0]), None if labels is None else at(self._batch, labels)

    def mix(self) -> Any:
        """The mixed batch, in the place of the stacked one: ``(images, targets)``, or a dict for dict samples."""
        if self._mixed is None:
            self._mixed = self._owner().mix(self._batch, inplace=self._ours)
            self._batch = None
        return self._mixed

    def to(self, device: torch.device | str | int, non_blocking: bool = True) -> Any:
        """Copy to ``device`` and mix there: ``(images, targets)``, or a dict for dict samples."""
        if self._mixed is None:
            before = tree_leaves(self._batch)
            self._batch = _moved(self._batch, device, non_blocking)
            self._ours |= all(now is not then for now, then in zip(tree_leaves(self._batch), before, strict=True))
        return _moved(self.mix(), device, non_blocking)

    @property
    def stacked(self) -> Any:
        """The whole stacked batch, for a loader that copies it itself; see ``moved``."""
        return self._batch if self._mixed is None else self._mixed

    def moved(self, stacked: Any) -> "MixBatch":
        """This batch with ``stacked``, a copy of its tensors whose memory is not to be mixed in."""
        if self._mixed is None:
            self._batch, self._ours = stacked, False
        else:
            self._mixed = stacked
        return self

    def pin_memory(self, device: Any = None) -> "MixBatch":
        """Copy to pinned memory; called by the loader."""
        self._batch = tree_map_only(Tensor, lambda tensor: tensor.pin_memory(), self._batch)
        self._ours = True
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(self.mix())

    def __getitem__(self, key: Key) -> Any:
        return self.mix()[key]

    def __len__(self) -> int:
        batch = self._batch if self._mixed is None else self._mixed
        return 1 if isinstance(batch, Tensor) else len(batch)

    def _owner(self) -> MixupCollate:
        if self._collate is None:
            raise RuntimeError("the MixupCollate that made this batch is gone from this process; keep it alive")
        return self._collate

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_collate": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._collate = _COLLATES.get(self._name)  # on this side the batch belongs to the object of that name


def _stacked(value: Any) -> Any:
    """A value of a batch as it will be, but for the pixels of samples that are not stacked yet."""
    return as_batch(value) if isinstance(value, Unstacked) else value


def _several(key: Key | Sequence[Key]) -> tuple[Key, ...]:
    return (key,) if isinstance(key, (int, str)) else tuple(key)


def _first(keys: Sequence[Key], names: Sequence[Key], argument: str) -> tuple[Key]:
    for name in names:
        if name in keys:
            return (name,)
    raise ValueError(f"{argument} must be given: none of {', '.join(map(str, names))} is among {keys}")


def _moved(batch: Any, device: torch.device | str | int, non_blocking: bool) -> Any:
    # a copy that the host does not wait for is safe towards CUDA alone: elsewhere it may be read before it is there
    non_blocking = non_blocking and torch.device(device).type == "cuda"
    return tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=non_blocking), batch)


def _first_half(batch: Any, count: int) -> Any:
    """The first half of whatever there is for each of ``count`` images; default_collate lists names as they are."""

    def listed(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(isinstance(one, (str, bytes)) for one in value)

    def halved(value: Any) -> Any:
        whole = listed(value) or (isinstance(value, Tensor) and value.ndim > 0)
        return value[: count // 2] if whole and len(value) == count else value

    return tree_map(halved, batch, is_leaf=listed)


def _refuse_boxes(sample: Any) -> None:
    for value in tree_leaves(sample):
        if isinstance(value, (tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)):
            raise ValueError(f"a sample with {type(value).__name__} cannot be mixed: there is no rule for it")


def _refuse_image_like(key: Key, value: Any, images: Any) -> None:
    for leaf in map(_stacked, tree_leaves(value)):
        if belongs_to(leaf, images):
            raise ValueError(
                f"{key!r} looks like masks or further images, so it must be mixed with the images or left out: "
                f"name it in mask_keys or image_key; got {tuple(leaf.shape)} beside {tuple(images.shape)}"
            )
