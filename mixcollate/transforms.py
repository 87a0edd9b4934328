"""The transforms: configuration, a draw, and a call like that of a ``torchvision.transforms.v2`` transform."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, cast, get_args

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2
from typing_extensions import Unpack

from mixcollate.checks import check_choice, check_probability, check_scheduled
from mixcollate.kernels import Impl, Statistic, beside, mix, mix_masks, uncompiled
from mixcollate.kernels.packed import PackedPlan
from mixcollate.plan import Draw, MixPlan, Pairing, Per, Stream, chain, draw_from, only, select
from mixcollate.schedules import Scheduled, at
from mixcollate.targets import LabelMode, SoftTarget, Targets, check_targets, mix_targets

LabelsGetter = Callable[[Any], Any] | Literal["default"] | None


class DrawOptions(TypedDict, total=False):
    """What every transform takes; see :class:`MixTransform`."""

    per: Per
    inplace: bool
    seed: int | None


class ErasingOptions(DrawOptions, total=False):
    """What every erasing transform takes; see :class:`ErasingTransform`."""

    p: Scheduled


class LabelOptions(TypedDict, total=False):
    """What every transform that mixes labels takes, too."""

    num_classes: int | None
    labels_getter: LabelsGetter
    targets: Targets
    label_smoothing: float
    label_mode: LabelMode
    ignore_index: int


class MixOptions(DrawOptions, LabelOptions, total=False):
    """What every mixing transform takes; see :class:`MixTransform`."""

    p: Scheduled
    pairing: Pairing


class MixTransform(v2.Transform):
    """A method and its hyper-parameters: draws plans, and runs them on images, labels and masks.

    Called like torchvision's: ``images, targets = transform(images, labels)``, on nested structures too, on CPU or
    CUDA tensors. ``make_plan`` draws without touching a pixel, ``replay`` runs a plan.

    Args:
        num_classes: number of classes; needed when labels are class indices and targets dense.
        labels_getter: ``"default"`` finds labels as torchvision does; a function of the inputs; ``None``: no labels.
        p: probability that a pair (sample, batch: see ``per``) is changed; a number or a function of the epoch.
        per: how far one draw reaches: ``"pair"``, ``"sample"`` or ``"batch"``.
        pairing: ``"matching"`` (random pairs), ``"shuffle"`` (random permutation), ``"roll"`` (torchvision's),
            ``"flip"`` (timm's).
        targets: ``"dense"``: float32 ``[B, num_classes]``; ``"sparse"``: a :class:`~mixcollate.SoftTarget`.
        label_smoothing: in [0, 1).
        label_mode: ``"lerp"``, or ``"union"`` for multi-hot labels of which all count fully.
        ignore_index: the class index of images without a label.
        inplace: mix in the memory of the images that are passed in.
        seed: of a stream of plans that depends on nothing else but the rank (``stream.step`` counts them). Default:
            each plan takes 64 bits from torch's default generator, so that ``torch.manual_seed`` reproduces a run.
    """

    mixes = True

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        labels_getter: LabelsGetter = "default",
        p: Scheduled = 1.0,
        per: Per = "pair",
        pairing: Pairing | None = "matching",
        targets: Targets = "dense",
        label_smoothing: float = 0.0,
        label_mode: LabelMode = "lerp",
        ignore_index: int = -100,
        inplace: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("per", per, get_args(Per))
        check_choice("targets", targets, get_args(Targets))
        check_choice("label_mode", label_mode, get_args(LabelMode))
        if pairing is not None:
            check_choice("pairing", pairing, get_args(Pairing))
        if per == "pair" and pairing in ("shuffle", "roll"):
            raise ValueError(f"per='pair' needs mutual partners, got pairing={pairing!r}; use per='sample' or 'batch'")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if not (labels_getter is None or labels_getter == "default" or callable(labels_getter)):
            raise ValueError(f"labels_getter must be 'default', a function or None, got {labels_getter!r}")
        check_scheduled("p", p, check_probability)
        check_targets(targets, label_smoothing, label_mode)
        self.num_classes, self.labels_getter = num_classes, labels_getter
        self.p, self.per, self.pairing = p, per, pairing
        self.targets, self.label_smoothing, self.label_mode = targets, label_smoothing, label_mode
        self.ignore_index, self.inplace = ignore_index, inplace
        self.stream, self.epoch = Stream(seed), 0

    def plan_batch(self, draw: Draw) -> MixPlan:
        """The method's own part: a plan in which every image is changed, as if ``p`` were 1."""
        raise NotImplementedError

    def draw_plan(self, draw: Draw) -> MixPlan:
        """A plan in which only a share ``p`` of the images (pairs, batches) is changed."""
        plan = self.plan_batch(draw)
        p = at("p", self.p, draw.epoch, check_probability)
        if p == 1:
            return plan
        count, unit = draw.units(self.per)
        return only((draw.numbers.random(count) < p)[unit], plan)

    def make_plan(self, images: Tensor, *, stream: Stream | None = None, epoch: int | None = None) -> MixPlan:
        """Draw a plan for ``images`` ``[B, C, H, W]`` (video ``[B, T, C, H, W]``), of which only the shape counts.

        Args:
            images: left as they are.
            stream: the numbers are the next of this one; default: the transform's own.
            epoch: what schedules are asked for; default: the one that ``set_epoch`` has told.
        """
        if torch.compiler.is_compiling():
            return cast(MixPlan, uncompiled(self.make_plan, images, stream=stream, epoch=epoch))
        source = (self.stream if stream is None else stream).next()
        epoch = self.epoch if epoch is None else epoch
        return self.draw_plan(draw_from(source, plan_shape(images), self.pairing, epoch))

    def replay(
        self,
        images: Tensor,
        labels: Tensor | None,
        plan: MixPlan | PackedPlan,
        *,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        impl: Impl = "auto",
    ) -> Any:
        """Run ``plan``: ``(images, targets)``, or the images alone where there are no labels.

        The keyword arguments are those of :func:`mixcollate.kernels.mix`.
        """
        placed = beside(images, plan, impl) if isinstance(plan, MixPlan) else plan
        targets: Tensor | SoftTarget | None = labels
        if self.mixes and labels is not None:
            targets = self.mix_labels(labels, placed)
        out = images if self.inplace else None
        mixed = mix(images, placed, mean=mean, std=std, dtype=dtype, memory_format=memory_format, out=out, impl=impl)
        return mixed if labels is None else (mixed, targets)

    def mix_labels(self, labels: Tensor, plan: MixPlan | PackedPlan) -> Tensor | SoftTarget:
        """Soft targets for ``labels`` as this transform is told to make them."""
        return mix_targets(
            labels,
            plan,
            num_classes=self.num_classes,
            targets=self.targets,
            label_smoothing=self.label_smoothing,
            label_mode=self.label_mode,
            ignore_index=self.ignore_index,
        )

    def set_epoch(self, epoch: int) -> None:
        """Tell the schedules which epoch it is, where this transform is called by itself."""
        self.epoch = epoch

    def extra_repr(self) -> str:
        """The hyper-parameters that differ from the common defaults."""
        defaults = inspect.signature(MixTransform).parameters
        told = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        for name in ("training", "stream", "epoch"):
            told.pop(name, None)
        changed = (k for k in told if k not in defaults or told[k] != defaults[k].default)
        return ", ".join(f"{name}={told[name]!r}" for name in changed if told[name] is not None)

    def forward(self, *inputs: Any) -> Any:
        """Mix the images (and masks) among ``inputs`` and turn their labels into soft targets."""
        if [type(value) for value in inputs] == [Tensor, Tensor] and self.mixes and self.labels_getter == "default":
            images, labels = inputs  # the usual call is spared the search, a seventh of the host's time
            return self.replay(images, labels, self.make_plan(images))
        structure = inputs if len(inputs) > 1 else inputs[0]
        flat, spec = tree_flatten(structure)
        labels = self._find_labels(structure) if self.mixes else None
        slots = _image_slots(flat, labels, mixes=self.mixes)
        plan = self.make_plan(flat[slots[0]])
        placed = beside(flat[slots[0]], plan)
        outputs = list(flat)
        targets = None if labels is None else self.mix_labels(labels, placed)
        for slot, value in enumerate(flat):
            if isinstance(value, tv_tensors.Mask):
                outputs[slot] = tv_tensors.wrap(mix_masks(value.as_subclass(Tensor), plan), like=value)
        for slot in slots:
            value = flat[slot]
            mixed = self.replay(value.as_subclass(Tensor), None, placed)
            outputs[slot] = tv_tensors.wrap(mixed, like=value) if isinstance(value, tv_tensors.TVTensor) else mixed
        if targets is not None:
            where = next(slot for slot, value in enumerate(flat) if value is labels)
            outputs[where] = targets
        return tree_unflatten(outputs, spec)

    def _find_labels(self, structure: Any) -> Tensor | None:
        if self.labels_getter is None:
            return None
        labels = _default_labels(structure) if self.labels_getter == "default" else self.labels_getter(structure)
        if not isinstance(labels, Tensor):
            raise ValueError(f"labels must be a tensor, got {type(labels).__name__}; tell labels_getter where they are")
        return labels


class ErasingTransform(MixTransform):
    """A method that overwrites pixels with a fill and leaves labels and masks as they are.

    Args:
        p: probability that an image is changed; a number or a function of the epoch.
        per: ``"sample"`` or ``"batch"``: how far one draw reaches.
        inplace: erase in the memory of the images that are passed in.
        seed: see :class:`MixTransform`.
    """

    mixes = False

    def __init__(
        self, *, p: Scheduled = 1.0, per: Per = "sample", inplace: bool = False, seed: int | None = None
    ) -> None:
        check_choice("per", per, ("sample", "batch"))
        super().__init__(p=p, per=per, pairing=None, inplace=inplace, seed=seed)


class RandomChoice(MixTransform):
    """Choose one of several transforms for each pair (sample, batch).

    What happens to labels is told here or by the transforms, which must agree.

    Args:
        transforms: the transforms to choose from; those that mix must share one ``pairing``.
        p: their probabilities; default: all the same.
        per: how far one choice reaches; default: ``"pair"`` if any of them mixes, else ``"sample"``.
        options: ``inplace``, ``seed`` and what :class:`MixTransform` takes for labels.
    """

    def __init__(
        self,
        transforms: Sequence[MixTransform],
        *,
        p: Sequence[float] | None = None,
        per: Per | None = None,
        inplace: bool = False,
        seed: int | None = None,
        **options: Unpack[LabelOptions],
    ) -> None:
        transforms = _check_transforms("RandomChoice", transforms)
        pairings = {t.pairing for t in transforms if t.mixes}
        if len(pairings) > 1:
            raise ValueError(f"the transforms of RandomChoice must share one pairing, got {sorted(map(str, pairings))}")
        mixes = bool(pairings)
        super().__init__(
            per=per or ("pair" if mixes and pairings <= {"matching", "flip"} else "sample"),
            pairing=pairings.pop() if mixes else None,
            inplace=inplace,
            seed=seed,
            **_shared_options(transforms, options),
        )
        weights = [1.0] * len(transforms) if p is None else [float(value) for value in p]
        if len(weights) != len(transforms) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"p must be one probability for each of {len(transforms)} transforms, got {p}")
        self.mixes = mixes
        self.transforms = torch.nn.ModuleList(transforms)
        self._upper = np.cumsum(weights[:-1]) / sum(weights)  # transform k is chosen by numbers from upper[k - 1] on

    def plan_batch(self, draw: Draw) -> MixPlan:
        count, unit = draw.units(self.per)
        choice = np.searchsorted(self._upper, draw.numbers.random(count), side="right")[unit]
        return select(choice, [transform.draw_plan(draw) for transform in _members(self)])


class Compose(MixTransform):
    """Do several transforms one after the other, in one pass where it can hold them all (mix, then erase).

    Where one mix follows another, labels are mixed twice, too: the second share counts what the first has put into the
    images evenly over their area, whatever part of it a box then shows.

    Args:
        transforms: in order.
        options: ``inplace``, ``seed`` and what :class:`MixTransform` takes for labels.
    """

    def __init__(
        self,
        transforms: Sequence[MixTransform],
        *,
        inplace: bool = False,
        seed: int | None = None,
        **options: Unpack[LabelOptions],
    ) -> None:
        transforms = _check_transforms("Compose", transforms)
        first = next((t for t in transforms if t.mixes), None)
        super().__init__(
            per="sample",
            pairing=None if first is None else first.pairing,
            inplace=inplace,
            seed=seed,
            **_shared_options(transforms, options),
        )
        self.mixes = first is not None
        self.transforms = torch.nn.ModuleList(transforms)

    def plan_batch(self, draw: Draw) -> MixPlan:
        plan, mixed = None, False
        for transform in _members(self):
            if transform.mixes and mixed:  # whoever mixes next has partners of its own
                draw = draw_from(draw.numbers, draw.shape, transform.pairing, draw.epoch)
            further = transform.draw_plan(draw)
            plan, mixed = further if plan is None else chain(plan, further), mixed or transform.mixes
        if plan is None:
            raise ValueError("Compose needs at least one transform")
        return plan


def plan_shape(images: Tensor) -> tuple[int, int, int, int]:
    """``(batch, channels, height, width)`` for a plan; anything that is no image or video is one row of pixels."""
    if images.ndim == 0:
        raise ValueError("images must be a batch [B, ...], got a tensor without dimensions")
    if images.ndim in (4, 5):
        batch, (channels, height, width) = images.shape[0], images.shape[-3:]
        return batch, channels, height, width
    return images.shape[0], 1, 1, images[:1].numel()


def _image_slots(flat: Sequence[Any], labels: Tensor | None, *, mixes: bool) -> list[int]:
    """Where the images are: every tv_tensors.Image and Video, or else the plain tensor that looks like images, or else
    the first that is no label.
    """
    for value in flat:
        if isinstance(value, (PIL.Image.Image, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)):
            raise ValueError(f"a batch with {type(value).__name__} cannot be mixed: there is no rule for it")
    explicit = [slot for slot, value in enumerate(flat) if isinstance(value, (tv_tensors.Image, tv_tensors.Video))]
    plain = [slot for slot, value in enumerate(flat) if type(value) is Tensor and value is not labels]
    likely = [slot for slot in plain if flat[slot].ndim >= 4]
    slots = explicit or likely[:1] or plain[:1]
    if not slots:
        raise ValueError("images must be a tensor [B, C, H, W], found none; stack the samples first")
    if not explicit and len(likely) > 1:
        raise ValueError("more than one tensor looks like images; wrap those to be mixed in tv_tensors.Image or Video")
    images = flat[slots[0]]
    if any(flat[slot].shape[:1] + flat[slot].shape[-2:] != images.shape[:1] + images.shape[-2:] for slot in slots):
        raise ValueError(f"images must share batch, height and width, got {[tuple(flat[s].shape) for s in slots]}")
    for slot in plain:
        if mixes and slot not in slots and belongs_to(flat[slot], images):
            raise ValueError(
                f"a tensor {tuple(flat[slot].shape)} beside images {tuple(images.shape)} must be mixed, "
                "too: wrap it in tv_tensors.Mask or Image, or leave it out"
            )
    return slots


def belongs_to(value: Any, images: Tensor) -> bool:
    """Whether a tensor looks like masks of these images, or like further images of the same things."""
    if not isinstance(value, Tensor) or images.ndim < 4 or value.shape[:1] != images.shape[:1]:
        return False
    masks = value.ndim >= 3 and value.shape[-2:] == images.shape[-2:]
    return masks or (value.ndim == images.ndim and value.shape[1] == images.shape[1])


def _default_labels(structure: Any) -> Any:
    """Labels where torchvision looks for them: the second input, or under a key with 'label' in its name."""
    if isinstance(structure, (tuple, list)) and len(structure) > 1:
        structure = structure[1]
        if isinstance(structure, Tensor):
            return structure
    if isinstance(structure, dict):
        for key, value in sorted(structure.items(), key=lambda item: str(item[0]).lower() != "labels"):
            if "label" in str(key).lower():
                return value
    raise ValueError("no labels found: pass (images, labels), or a labels_getter, or labels_getter=None for no labels")


def _members(container: RandomChoice | Compose) -> list[MixTransform]:
    return [member for member in container.transforms if isinstance(member, MixTransform)]


def _check_transforms(name: str, transforms: Sequence[MixTransform]) -> list[MixTransform]:
    transforms = list(transforms)
    if not transforms:
        raise ValueError(f"{name} needs at least one transform")
    for transform in transforms:
        if not isinstance(transform, MixTransform):
            found = type(transform).__name__
            raise TypeError(f"{name} takes mixcollate's transforms, got {found}; put others around it in v2.Compose")
        if transform.stream.seed is not None:
            raise ValueError(f"seed must be given to {name}, not to the {type(transform).__name__} in it")
    return transforms


def _shared_options(transforms: Sequence[MixTransform], options: LabelOptions) -> dict[str, Any]:
    """What the container is told about labels, else what its members agree on."""
    shared: dict[str, Any] = {}
    for name in LabelOptions.__annotations__:
        default = inspect.signature(MixTransform).parameters[name].default
        told = [getattr(t, name) for t in transforms if t.mixes and getattr(t, name) != default]
        if name in options:
            shared[name] = options[name]  # type: ignore[literal-required]
        elif told:
            if any(value != told[0] for value in told):
                raise ValueError(f"{name} must be the same for all transforms in a container, got {told}; give it once")
            shared[name] = told[0]
    return shared
