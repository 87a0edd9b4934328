"""``MixupCollate`` stacks samples in the workers and returns a batch that is mixed on the device, once."""

import copy
import inspect
import pickle
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils.data import default_collate, default_convert, get_worker_info

from mixcollate import timm as timm_arguments
from mixcollate.batch import MixBatch, register
from mixcollate.checks import (
    Settled,
    check_choice,
    check_count,
    check_flag,
    is_compiling,
    is_readable,
    result_of,
    shown,
    warn,
)
from mixcollate.execution import Executor, first_images, refuse_class_indices
from mixcollate.kernels import Axes, Statistic
from mixcollate.kernels.api import uncompiled
from mixcollate.kernels.pixels import as_list, check_affine, check_output
from mixcollate.kernels.prepare import AXES
from mixcollate.kernels.support import is_differentiated
from mixcollate.methods import MixUp
from mixcollate.plan import ERASING, Array, MixPlan, restrict, without_mixing
from mixcollate.roles import (
    Key,
    Keys,
    Path,
    Roles,
    find,
    first_labels,
    is_batch,
    keys_of,
    kinds_of,
    leads_to,
    leaf_at,
    leaves,
    refuse_boxes,
    replace_at,
)
from mixcollate.schedules import EpochNotSet
from mixcollate.stacking import Stacking, Unstacked
from mixcollate.stream import Stream
from mixcollate.targets import TargetRule, for_each_label
from mixcollate.transforms import MixTransform, Unchanged

Classes = int | Sequence[int] | Mapping[Key, int]

_ENABLED, _EPOCH, _EPOCH_IS_SET, _WORKERS_DREW = range(4)  # indices of a collate's state
_NEW = (1, 0, 0, 0)


class MixupCollate(Settled):
    """A ``collate_fn`` that mixes after the transfer: workers stack, the main process decides, the device mixes.

    ``DataLoader(dataset, collate_fn=MixupCollate(num_classes=10))`` yields :class:`MixBatch`. Unpacking a batch, or
    moving it with ``.to("cuda")``, mixes it there and gives ``(images, targets)``. Plans are drawn in the main process,
    in the order in which batches are used: ``enabled``, ``set_epoch`` and schedules act on the next batch, and with a
    seed the stream does not depend on the number of workers. The collate has its own stream and epoch, and leaves those
    of the transform alone.

    Args:
        transform: what to apply to a batch; default: :class:`MixUp` with ``alpha``.
        num_classes: number of classes, unless the transform has it; for several labels one number each, in the order
            of ``label_key`` (or of what the transform's ``labels_getter`` returns), or a mapping from their keys. If it
            is given with a transform that only erases (such as Cutout), labels become one-hot rows.
        alpha: alpha of the default transform; default: 1.
        mean: subtracted after mixing, for images in [0, 1] (uint8 is divided by 255 first); one number, or one for
            each channel.
        std: what the difference is divided by, likewise.
        dtype: dtype of the resulting images; default: unchanged, or float32 if uint8 images are normalised.
        memory_format: memory format of the resulting images ``[B, C, H, W]``, e.g. ``torch.channels_last``; default:
            unchanged. Video, volumes and signals take none.
        collate_fn: makes a batch from a list of samples; default: torch's. PIL images must be converted to tensors, by
            it or in the dataset.
        image_key: where the images are in a batch: an index or a key (nested: ``"outer.inner"``), or several of them,
            for which ``mean``, ``std`` and ``dtype`` are the same. Default: torchvision's ``tv_tensors``, else an entry
            named image(s), pixel_values, img or x, else the first tensor with three axes or more (or, if there is none,
            with any).
        label_key: where the labels are, likewise; default: an entry named label(s), target(s), y or class_label, else
            the second item.
        mask_keys: where segmentation masks or heat maps are, which are mixed by the same plan.
        blend_keys: where float tensors ``[B, ...]`` are (a teacher's logits, embeddings) that are blended by the
            labels' shares.
        keep_keys: what stays as it is although its images are mixed: indices, weights, names.
        mask_classes: number of classes of masks ``[B, H, W]`` that hold class indices. They become float32 masks
            ``[B, mask_classes, H, W]``, one-hot or, where blended, soft; also if the transform only erases.
        mask_ignore_index: class index of pixels that belong to no class, for ``mask_classes``; must be given for more
            than 255 classes.
        layout: axes of the images, ``"BCDHW"`` for volumes, ``"BCT"`` for signals; default: that of the transform.
        eager: whether to mix in the worker and return plain tensors, for frameworks that can move nothing else.
        seed: seed of the stream of plans; default: that of the transform. If neither has one, each plan takes 64 bits
            from torch's default generator, so ``torch.manual_seed`` reproduces a run.
    """

    _state: list[int] | Array

    def __init__(
        self,
        transform: MixTransform | None = None,
        *,
        num_classes: Classes | None = None,
        alpha: float | None = None,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        image_key: Key | Sequence[Key] | None = None,
        label_key: Key | Sequence[Key] | None = None,
        mask_keys: Key | Sequence[Key] = (),
        blend_keys: Key | Sequence[Key] = (),
        keep_keys: Key | Sequence[Key] = (),
        mask_classes: int | None = None,
        mask_ignore_index: int = 255,
        layout: Axes | None = None,
        eager: bool = False,
        seed: int | None = None,
    ) -> None:
        if transform is None:
            transform = MixUp(alpha=1.0 if alpha is None else alpha)
        elif alpha is not None:
            raise ValueError(f"alpha is for the default transform, got alpha={alpha} and a {type(transform).__name__}")
        _check_transform(transform)
        if seed is not None and transform.stream.seed is not None:
            raise ValueError(f"seed must be given to MixupCollate or to its transform, not to both; got {seed}")
        if not callable(collate_fn):
            raise TypeError(f"collate_fn must be a function of a list of samples, got {type(collate_fn).__name__}")
        self.transform, self.collate_fn, self.eager = transform, collate_fn, check_flag("eager", eager)
        if label_key is None and isinstance(num_classes, Mapping):
            label_key = tuple(num_classes)
        self.keys = Keys(
            image=keys_of("image_key", image_key),
            label=keys_of("label_key", label_key),
            mask=keys_of("mask_keys", mask_keys),
            blend=keys_of("blend_keys", blend_keys),
            keep=keys_of("keep_keys", keep_keys),
            labels_getter=transform.labels_getter,
            layout=transform.layout if layout is None else check_choice("layout", layout, AXES),
        )
        if self.keys.label and transform.labels_getter != "default":
            raise ValueError(
                "labels must be named by label_key (or keys of num_classes) or the transform's labels_getter, not by "
                f"both; got {self.keys.label} and labels_getter={transform.labels_getter!r}"
            )
        rules = _rules(transform, num_classes, self.keys.label)
        # the transform itself may be missing in a worker
        self._mixes, self._blends, self._inplace = transform.mixes, transform.blends, transform.inplace
        check_affine(mean, std, dtype)
        mean, std = as_list("mean", mean), as_list("std", std)  # now: forked workers cannot read tensors on a GPU
        check_output(dtype, memory_format)
        mask_classes = None if mask_classes is None else check_count("mask_classes", mask_classes)
        mask_ignore_index = check_count("mask_ignore_index", mask_ignore_index, least=-(2**31))
        if mask_classes is not None and mask_classes > mask_ignore_index == 255:
            raise ValueError(
                f"mask_ignore_index must be given for mask_classes={mask_classes}, since its default is one of these "
                "classes, got 255; pass -1 if every pixel belongs to a class"
            )
        self.stream = Stream(transform.stream.seed if seed is None else seed)
        self._hold(_NEW)
        self._workers_stream: Stream | None = None
        self._warned_of_unclear = self._warned_of_units = False
        self._has_seen_indices = self._warned_of_rows = False
        self._stacking = Stacking(defer_large=eager)
        self._executor = Executor(
            rules,
            memory=self._stacking,
            mask_classes=mask_classes,
            mask_ignore_index=mask_ignore_index,
            mean=mean,
            std=std,
            dtype=dtype,
            memory_format=memory_format,
            layout=self.keys.layout,
        )
        self.name = uuid.uuid4().hex
        register(self)
        self._settle(MixupCollate, _ARGUMENTS)

    @property
    def rules(self) -> Sequence[TargetRule]:
        """How each of the labels becomes a target; empty if they stay as they are."""
        return self._executor.rules

    @property
    def output(self) -> Mapping[str, Any]:
        """``mean``, ``std``, ``dtype``, ``memory_format`` and ``layout`` of the images; ``None`` if not given."""
        return self._executor.output

    @property
    def enabled(self) -> bool:
        """Whether batches are mixed. If not, images are still erased and normalised, and targets keep their type."""
        return bool(self._state[_ENABLED])

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._state[_ENABLED] = int(check_flag("enabled", value))

    @property
    def mixup_enabled(self) -> bool:
        """timm's name for ``enabled``."""
        return self.enabled

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self.enabled = value

    @property
    def epoch(self) -> int:
        """The epoch that schedules are evaluated for; see ``set_epoch``."""
        return int(self._state[_EPOCH]) if self._state[_EPOCH_IS_SET] else EpochNotSet(0)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        raise AttributeError(f"epoch must be set with set_epoch(epoch), got {shown(epoch)}")

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that schedules are evaluated for, from the next batch on."""
        most = 2**44 - 2  # so that the parts of `_stream` fit in 64 bits
        self._state[_EPOCH] = check_count("epoch", epoch, least=0, most=most)
        self._state[_EPOCH_IS_SET] = 1
        self._state[_WORKERS_DREW] = 0

    def state_dict(self) -> dict[str, int | None]:
        """The position in the stream of plans, ``{"seed": ..., "step": ...}``; if ``eager``, with the ``"epoch"``
        (``None`` before ``set_epoch``).

        With a seed, this is all that is needed to resume exactly, provided that ``set_epoch`` is called with the epoch
        and ``enabled`` is set as before.

        With ``eager=True`` workers draw the plans, each from its own stream. If ``set_epoch`` is called at the start of
        each epoch, plans depend only on the seed, the rank, the epoch, the number of workers and the worker's count of
        batches, so that a run can resume at the start of an epoch. (If it is called with the same epoch again,
        persistent workers continue their count.)

        Raises:
            RuntimeError: if workers have drawn plans without knowing the epoch, which cannot be resumed.
        """
        state = {"seed": self.stream.seed, "step": self.stream.step}
        if not self.eager:
            return state
        if self._state[_WORKERS_DREW]:
            raise RuntimeError(
                "an eager collate whose workers draw cannot be resumed unless they know the epoch: call "
                "set_epoch(epoch) before each epoch, or let the main process draw with eager=False"
            )
        return {**state, "epoch": int(self.epoch) if self._state[_EPOCH_IS_SET] else None}

    def load_state_dict(self, state: Mapping[str, int | None]) -> None:
        """Resume from what ``state_dict`` returned."""
        if not isinstance(state, Mapping) or not {"seed", "step"} <= set(state):
            raise ValueError(f"state must be what state_dict() returned, with seed and step, got {state!r}")
        if state["seed"] != self.stream.seed:
            raise ValueError(f"state must be of a collate with seed={self.stream.seed}, got seed={state['seed']!r}")
        step = check_count("state['step']", state["step"], least=0, most=2**63)
        if (epoch := state.get("epoch")) is not None:
            self.set_epoch(epoch)
        self.stream.step = step

    def plain(self) -> "MixupCollate":
        """A collate for evaluation, which stacks, normalises and casts images like this one, but never mixes.

        Labels, masks and whatever other keys name stay unchanged, and may be missing. It has its own ``enabled`` and
        epoch.
        """
        other = copy.copy(self)
        vars(other).update(
            transform=Unchanged(),
            keys=replace(self.keys, labels_getter="default", partial=True),
            stream=Stream(0),  # draws nothing from torch's generator
            _mixes=False,
            _blends=False,
            _inplace=False,
            _executor=Executor((), memory=self._stacking, **self.output),
        )
        other._hold(_NEW)
        return other

    def __call__(self, samples: Any) -> Any:
        """Stack samples into a :class:`MixBatch`, or, if ``eager``, into a mixed batch.

        Anything but a list of samples is taken to be a batch already, as from a loader with ``batch_size=None``: a
        tensor, a tuple, a mapping, or a list as torch's ``default_collate`` returns (``[images, labels]``, of one
        length). A list of tensors that all have the same number of axes is a list of samples, unless a key is an index
        other than 0.
        """
        batch, kinds, may_overwrite = self._collated(samples)
        may_overwrite |= self._inplace
        unstacked = {path: leaf for path, leaf in leaves(batch) if isinstance(leaf, Unstacked)} if self.eager else {}
        stacked = replace_at(batch, {path: leaf.like for path, leaf in unstacked.items()})  # only their shapes
        roles = self._find(stacked, kinds)
        doubt = self._check_units(leaf_at(stacked, roles.images[0]))
        if not self.eager:
            return MixBatch(batch, roles, self, may_overwrite=may_overwrite, doubt=doubt)
        others = {path: leaf for path, leaf in unstacked.items() if path not in roles.images}
        batch = replace_at(batch, {path: self._stacking.join(leaf.samples) for path, leaf in others.items()})
        labels = first_labels(batch, roles)
        return self.mix_stacked(batch, roles, labels=labels, may_overwrite=may_overwrite, doubt=doubt)

    def _collated(self, samples: Any) -> tuple[Any, dict[Path, type] | None, bool]:
        """Samples as a batch, the types that its items had (``None``: unknown), and whether its memory is not the
        caller's.
        """
        if isinstance(samples, list) and not samples:
            raise ValueError("samples must not be empty")
        if self.collate_fn is not default_collate:
            kinds, is_new = None, False
            batch = result_of("collate_fn", self.collate_fn, samples)
        elif not isinstance(samples, list) or is_batch(samples, self.keys):
            kinds, is_new = kinds_of(samples), False
            # leaf by leaf: of a mapping torch asks for the keys as if it were a dict, which fails for a TensorDict
            batch = replace_at(samples, {path: default_convert(leaf) for path, leaf in leaves(samples)})  # type: ignore[no-untyped-call]
        else:
            kinds, is_new = kinds_of(samples[0]), True
            for path, kind in kinds.items() if self._mixes else ():
                if not any(leads_to(samples[0], path, key) for key in self.keys.keep):
                    refuse_boxes(path, kind)
            batch = self._stacking.stack(samples)
        return tuple(batch) if isinstance(batch, list) else batch, kinds, is_new  # torch makes lists of tuples

    def mix(self, batch: Any, *, inplace: bool = False) -> Any:
        """Draw the next plan and mix a collated batch on its device.

        Args:
            batch: ``images``, ``(images, labels, ...)`` or a mapping of tensors.
            inplace: allow the result to be written into the memory of the images.

        Returns:
            The same structure with mixed images (and masks) and soft targets.
        """
        roles = self._find(batch, None)
        may_overwrite = check_flag("inplace", inplace) or self._inplace
        return self.mix_stacked(batch, roles, labels=first_labels(batch, roles), may_overwrite=may_overwrite)

    def mix_stacked(
        self,
        batch: Any,
        roles: Roles,
        *,
        labels: Tensor | None,
        may_overwrite: bool,
        dtype: torch.dtype | None = None,
        doubt: str | None = None,
    ) -> Any:
        """Draw the next plan and apply it to a batch whose roles are known; called by :class:`MixBatch`.

        Args:
            batch: a stacked batch, on the device where it is mixed.
            roles: where the images, labels and masks are in it.
            labels: the first labels, on the host, if there are any.
            may_overwrite: whether the images may be mixed in place.
            dtype: dtype of the resulting images; default: the collate's.
            doubt: what to warn of, unless that was done. Each worker would warn again in each epoch.
        """
        if is_compiling():
            options: dict[str, Any] = {"labels": labels, "may_overwrite": may_overwrite, "dtype": dtype, "doubt": doubt}
            return uncompiled(self.mix_stacked, batch, roles, **options)
        if self.transform is None:
            raise RuntimeError("this MixupCollate was sent to a worker without its transform, which cannot be pickled")
        if roles.unclear and not self._warned_of_unclear:
            roles.warn()
            self._warned_of_unclear = True  # Python would show it again whenever its filters change
        if doubt is not None and not self._warned_of_units:
            warn(doubt)
            self._warned_of_units = True  # Python would show it again for each new range
        if roles.labels and self._mixes:
            self._warn_of_rows(leaf_at(batch, roles.labels[0]))
        plan = self.transform.make_plan(
            first_images(batch, roles), labels=labels, stream=self._stream(), epoch=self.epoch, layout=self.keys.layout
        )
        if not self.enabled:
            plan = self._unmixed(plan)
        given = [leaf_at(batch, path) for path in roles.images]
        differentiated = any(isinstance(images, Tensor) and is_differentiated(images) for images in given)
        inplace = may_overwrite and not differentiated  # autograd needs the original images
        return self._executor.run(batch, roles, plan, inplace=inplace, dtype=dtype)

    def _stream(self) -> Stream:
        """The stream to draw from: in a worker that knows the epoch, one for this epoch and worker."""
        worker = get_worker_info()
        if worker is None or self.stream.seed is None:
            return self.stream
        if not self._state[_EPOCH_IS_SET]:
            self._state[_WORKERS_DREW] = 1
            return self.stream
        part = ((self.epoch + 1) << 20) + worker.id  # never 0: that part is the main process's
        if self._workers_stream is None or self._workers_stream.part != part:
            self._workers_stream = self.stream.of_part(part)
        return self._workers_stream

    def _unmixed(self, plan: MixPlan) -> MixPlan:
        """The same plan without its mixing; sparse targets keep their width."""
        if any(rule.targets == "sparse" for rule in self.rules):
            return restrict(plan, np.zeros(len(plan), bool), alike=True, keep=ERASING)
        return without_mixing(plan)

    def _check_units(self, images: Tensor) -> str | None:
        """Refuse a mean and std in other units than the images; return what to warn of if these look wrong."""
        mean, std = self.output["mean"], self.output["std"]
        if mean is None and std is None:
            return None
        check_affine(mean, std, images=images.dtype)
        known = images.dtype.is_floating_point and is_readable(images) and images[:1].numel() > 0
        if not known or self._warned_of_units:
            return None
        low, high = torch.aminmax(images[:1])
        if low < -0.01 or high > 2:
            wrong = (
                f"mean and std are for images in [0, 1], but these range from {low:.2f} to {high:.2f}: are they "
                "normalised in the dataset already, or still in 0 … 255?"
            )
        elif max([*(mean or ()), *(std or ())]) > 10:
            wrong = (
                f"mean and std must be those of images in [0, 1], got mean={mean}, std={std} for images from "
                f"{low:.2f} to {high:.2f}: are they those of images in 0 … 255?"
            )
        else:
            return None
        return f"{wrong} If mean and std are in the units of the images, as for spectrograms, ignore this"

    def _warn_of_rows(self, labels: Any) -> None:
        """Warn once if labels are rows after class indices: they may be targets that this collate has made of those."""
        if not isinstance(labels, Tensor) or self._warned_of_rows:
            return
        if not labels.is_floating_point():
            self._has_seen_indices |= labels.ndim == 1
        elif self._has_seen_indices and labels.ndim == 2:
            self._warned_of_rows = True
            warn(
                "labels were class indices before, and are rows now: if they are targets that this collate has made, "
                "their images are mixed already, and must not be given to mix() again",
            )

    def _find(self, batch: Any, kinds: dict[Path, type] | None) -> Roles:
        """Find the roles in a batch; what could not be mixed later is refused here, in the worker."""
        labelled = any(rule.num_classes is not None for rule in self.rules)
        roles = find(batch, self.keys, mixes=self._mixes, labelled=labelled, kinds=kinds)
        if self._blends and self._executor.masks["mask_classes"] is None:
            refuse_class_indices(batch, roles)
        return roles

    def __repr__(self) -> str:
        return f"MixupCollate({self.transform!r}, enabled={self.enabled}, eager={self.eager})"

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        if self.eager:
            del state["_state"]  # it lies in shared memory
        if get_spawning_popen() is not None and not self.eager:
            try:
                ForkingPickler.dumps(self.transform)
            except (pickle.PicklingError, AttributeError, TypeError):
                state["transform"] = None  # the worker only stacks, so schedules need not be picklable
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._shared is not None:
            self._state = _in_shared_memory(self._shared)
        if not register(self):
            self.name = uuid.uuid4().hex  # a copy mixes its own batches
            self.stream = copy.copy(self.stream)  # copy.copy shares it, and the state
            self._hold(self._state)
            register(self)

    def _hold(self, state: Sequence[int] | Array) -> None:
        """Keep a copy of the state as numbers, which any mode of torch lets change; if eager, workers see them."""
        numbers = [int(number) for number in state]
        with unset_fake_temporarily():
            self._shared = torch.tensor(numbers, dtype=torch.int64, device="cpu") if self.eager else None
            self._state = numbers if self._shared is None else _in_shared_memory(self._shared)

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
        """Make the collate that does what timm's ``Mixup``, ``FastCollateMixup`` and loader do with these arguments.

        Batches of an odd size are allowed.

        Args:
            mixup_alpha: alpha of mixup; 0 turns mixup off.
            cutmix_alpha: alpha of CutMix; 0 turns CutMix off.
            cutmix_minmax: smallest and largest side of CutMix boxes, as shares of the image's; turns CutMix on.
            prob: probability of mixing a batch, pair or element.
            switch_prob: probability of CutMix if both are on.
            mode: ``"batch"``, ``"pair"`` or ``"elem"``; ``"half"`` is not supported.
            correct_lam: count the labels' shares from the pixels of CutMix's box.
            label_smoothing: as in timm.
            num_classes: as in timm.
            multi_label: labels are rows of zeros and ones. timm smooths each towards 0.5; here that is left to the
                dataset, and ``label_smoothing`` must be 0.
            reprob: probability of erasing a box of an image after normalising (which takes ``mean`` and ``std``).
            remode: ``"const"``, ``"rand"`` (one colour for each box) or ``"pixel"``.
            recount: maximum number of boxes in an image.
            options: further arguments of :class:`MixupCollate`.
        """
        transform = timm_arguments.transform(
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            cutmix_minmax=cutmix_minmax,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
            correct_lam=correct_lam,
            label_smoothing=label_smoothing,
            multi_label=multi_label,
            reprob=reprob,
            remode=remode,
            recount=recount,
        )
        return cls(transform, num_classes=num_classes, **options)


_ARGUMENTS = {
    "mix_prob",  # timm's attribute for prob
    *(name for made in (MixupCollate, MixupCollate.from_timm) for name in inspect.signature(made).parameters),
}


def _check_transform(transform: object) -> None:
    """Refuse anything but a transform of this library."""
    if isinstance(transform, MixTransform):
        return
    kind = transform if isinstance(transform, type) else type(transform)
    way_out = f"; write {kind.__name__}()" if kind is transform else ""
    if isinstance(transform, (list, tuple)):
        way_out = "; put several into RandomChoice([...]) or Compose([...])"
        if not any(isinstance(one, MixTransform) for one in transform):  # but samples, from a loader
            way_out = "; collate_fn must be what MixupCollate(...) makes, not the class itself"
    raise TypeError(f"transform must be one of mixcollate's, got {kind}{way_out}")


def _in_shared_memory(state: Tensor) -> Array:
    """The numbers of a tensor, moved to memory that workers share, if they are not there yet."""
    return state.share_memory_().numpy()  # type: ignore[no-any-return, no-untyped-call]


def _rules(transform: MixTransform, classes: Classes | None, labels: Sequence[Key]) -> tuple[TargetRule, ...]:
    """A rule for each of the labels; none if they stay as they are."""
    if classes is None:
        return transform.rules if transform.mixes or transform.num_classes is not None else ()
    if isinstance(classes, Mapping):
        if set(classes) != set(labels):
            raise ValueError(f"num_classes must have the keys of label_key {list(labels)}, got {list(classes)}")
        numbers = [classes[key] for key in labels]
    else:
        numbers = for_each_label(classes)
    if len(numbers) != max(len(labels), 1) and not callable(transform.labels_getter):  # which may return several
        raise ValueError(
            f"num_classes must be one for each of label_key {list(labels)}, got {classes!r}; name all labels in "
            "label_key, or in a mapping {key: number}"
        )
    known = [rule.num_classes for rule in transform.rules if rule.num_classes is not None]
    if known and known != numbers:
        raise ValueError(f"num_classes must be the transform's {transform.num_classes}, got {classes!r}")
    return transform.rules[0].of(numbers)
