"""The base of all transforms: configuration, a draw, and a call like a ``torchvision.transforms.v2`` transform's."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any, TypedDict, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from mixcollate.checks import (
    Settled,
    check_choice,
    check_count,
    check_flag,
    check_kind,
    check_probability,
    check_scheduled,
    check_tensor,
    is_compiling,
    is_recorded,
    result_of,
    shown,
)
from mixcollate.draw import Draw, Pairing, PairingFunction, Per, draw_from
from mixcollate.execution import Executor, execute, first_images, refuse_class_indices
from mixcollate.kernels import Axes, Impl, PackedPlan, Statistic
from mixcollate.kernels.api import cannot_be_exported, uncompiled
from mixcollate.kernels.bounds import check_bounds, mark_as_checked
from mixcollate.kernels.prepare import AXES, check_layout
from mixcollate.plan import PLACES, MixPlan, identity, restrict
from mixcollate.roles import IMAGES_AND_LABELS, IMAGES_ONLY, Keys, LabelsGetter, find, first_labels
from mixcollate.schedules import EpochNotSet, Scheduled, value_in_epoch
from mixcollate.stream import Stream
from mixcollate.targets import LabelMode, TargetRule, Targets


class DrawOptions(TypedDict, total=False):
    """Arguments of every transform; see :class:`MixTransform`."""

    per: Per
    inplace: bool
    layout: Axes | None
    seed: int | None


class ErasingOptions(DrawOptions, total=False):
    """Arguments of every erasing transform; see :class:`ErasingTransform`."""

    p: Scheduled


class LabelOptions(TypedDict, total=False):
    """Further arguments of every transform that mixes labels; see :class:`MixTransform`."""

    num_classes: int | Sequence[int] | None
    labels_getter: LabelsGetter
    targets: Targets
    label_smoothing: float
    label_mode: LabelMode
    ignore_index: int


class MixOptions(DrawOptions, LabelOptions, total=False):
    """Arguments of every mixing transform; see :class:`MixTransform`."""

    p: Scheduled
    pairing: Pairing | PairingFunction


def _spelled_out(transform: type) -> inspect.Signature | None:
    """The signature of ``transform.__init__`` with the arguments of its base class in place of ``**options``.

    ``None`` if it does not pass options on, or takes any number of arguments by position.
    """
    *own, options = inspect.signature(vars(transform)["__init__"]).parameters.values()
    if options.kind is not options.VAR_KEYWORD or any(p.kind is p.VAR_POSITIONAL for p in own):
        return None
    base_class = next(one for one in transform.__mro__[1:] if issubclass(one, MixTransform))  # not a mixin
    base = inspect.signature(base_class).parameters
    passed_on = get_args(options.annotation)  # of Unpack[...]: only these of the base's arguments
    wanted = set(passed_on[0].__annotations__ if passed_on else base) - {p.name for p in own}
    further = [p.replace(kind=p.KEYWORD_ONLY) for name, p in base.items() if name in wanted]
    return inspect.Signature([*own, *further])


def _checked_init(transform: type) -> Any:
    """``transform.__init__`` with all arguments in its signature, for ``help`` and editors; then they are read-only.

    A wrong argument is refused in the name of the class that was called; Python's own error would name the base class,
    to which ``**options`` are passed on.
    """
    init, signature = vars(transform)["__init__"], _spelled_out(transform)
    if signature is None:
        return init
    _, *parameters = signature.parameters.values()  # without self
    names = [p.name for p in parameters]
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    # Only scheduled values, which are checked in each epoch, may be assigned later. Other attributes of the base class
    # are read, too, where they are no arguments.
    inherited = [p for name, p in inspect.signature(MixTransform).parameters.items() if name not in names]
    settled = [p.name for p in (*parameters, *inherited) if p.annotation is not Scheduled]

    @functools.wraps(init)
    def checked(self: Any, *arguments: Any, **options: Any) -> None:
        for name, value in options.items():
            if name not in names:
                raise TypeError(
                    f"{transform.__name__} has no argument {name} (got {shown(value)}); it has {', '.join(names)}"
                )
        if len(arguments) > len(positional):
            name, value = names[len(positional)], arguments[len(positional)]
            way_out = f"write {name}=..."
            if isinstance(value, MixTransform):
                way_out = "pass transforms as one list"
            elif not positional and isinstance(value, (Tensor, list)):  # perhaps a batch, or samples from a loader
                way_out += f", and pass batches to what {transform.__name__}(...) makes"
            raise TypeError(f"{transform.__name__} takes {name} by keyword, got {shown(value)} by position: {way_out}")
        init(self, *arguments, **options)
        self._settle(transform, settled)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


class MixTransform(Settled, v2.Transform):
    """Base class of all methods: holds hyper-parameters, draws plans, and applies them to images, labels and masks.

    Call it like a torchvision transform: ``images, targets = transform(images, labels)``. It accepts nested structures,
    and tensors on the CPU or on a GPU. ``make_plan`` draws a plan without touching a pixel; ``replay`` applies a plan.
    To write your own method, subclass this and define ``plan_batch``. As in torchvision, ``train()`` and ``eval()``
    have no effect: do not call the transform in evaluation.

    Args:
        num_classes: number of classes; required for dense targets from class indices. A sequence, if ``labels_getter``
            returns several labels.
        labels_getter: ``"default"`` finds labels by name, or takes the second input, as torchvision does; a function of
            the inputs returns the labels among them (one tensor, or several); ``None``: there are no labels.
        p: probability that a pair (or sample, or batch: see ``per``) is changed; a number or a function of the epoch.
        per: what one draw is for: ``"pair"`` (both of its images), ``"sample"`` or ``"batch"``. ``"pair"`` needs mutual
            partners: ``"matching"``, ``"flip"``, or such a function.
        pairing: ``"matching"`` (random pairs), ``"shuffle"`` (random permutation), ``"roll"`` (as torchvision),
            ``"flip"`` (as timm), or a function ``(labels, numbers) -> partner [B]`` of the labels (of several, the
            first) and a NumPy generator.
        targets: ``"dense"``: float32 ``[B, num_classes]``; ``"sparse"``: a :class:`~mixcollate.SoftTarget`;
            ``"values"``: labels are numbers ``[B]`` or ``[B, K]`` rather than classes, and are blended.
        label_smoothing: in [0, 1]: the part of each row's sum that is spread evenly over all classes.
        label_mode: ``"lerp"`` weights labels by their shares; ``"union"`` gives every class of the mixed images a 1
            (of rows of shares, their greatest).
        ignore_index: the class index of images without a label, which adds nothing to a target.
        inplace: whether to write the result into the memory of the input images, if it has their dtype.
        layout: the order of the axes, if it is not ``[B, C, H, W]`` or, for video, ``[B, T, C, H, W]``: ``"BCDHW"``
            for volumes (boxes extend through all slices), ``"BCT"`` for signals (boxes are intervals). ``"BCHW"`` or
            ``"BTCHW"`` says that a last axis of 1, 3 or 4 is the width.
        seed: seed of the stream of plans, which then depends on the seed, the rank and ``stream.step`` alone (in a
            worker of a loader, also on the seed that the loader gave it). Default: each plan takes 64 bits from torch's
            default generator, so ``torch.manual_seed`` reproduces a run.
    """

    mixes = True
    blends = False
    """Whether a pixel can be a blend of two images, so that masks of class indices cannot be mixed alike."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _checked_init(cls)  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        num_classes: int | Sequence[int] | None = None,
        labels_getter: LabelsGetter = "default",
        p: Scheduled = 1.0,
        per: Per = "pair",
        pairing: Pairing | PairingFunction | None = "matching",
        targets: Targets = "dense",
        label_smoothing: float = 0.0,
        label_mode: LabelMode = "lerp",
        ignore_index: int = -100,
        inplace: bool = False,
        layout: Axes | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("per", per, get_args(Per))
        if not (callable(pairing) or (pairing is None and not self.mixes)):
            check_choice("pairing", pairing, get_args(Pairing))
        if per == "pair" and pairing in ("shuffle", "roll"):
            raise ValueError(f"per='pair' needs mutual partners, got pairing={pairing!r}; use per='sample' or 'batch'")
        if not (labels_getter is None or labels_getter == "default" or callable(labels_getter)):
            raise ValueError(f"labels_getter must be 'default', a function or None, got {labels_getter!r}")
        check_scheduled("p", p, check_probability)
        rule = TargetRule(
            targets=targets, label_smoothing=label_smoothing, label_mode=label_mode, ignore_index=ignore_index
        )
        self.num_classes, self.labels_getter = num_classes, labels_getter
        self.p, self.per, self.pairing = p, per, pairing
        self.targets, self.label_smoothing, self.label_mode = targets, label_smoothing, label_mode
        self.ignore_index, self.inplace = ignore_index, check_flag("inplace", inplace)
        self.layout = None if layout is None else check_choice("layout", layout, AXES)
        self.stream = Stream(seed)
        self.epoch: int = EpochNotSet(0)
        self.rules = rule.of(num_classes)
        self._keys = Keys(labels_getter=labels_getter, layout=self.layout)
        self._executor = Executor(self.rules if self.mixes else (), layout=self.layout)

    def __setattr__(self, name: str, value: object) -> None:
        # timm's training script sets mixup_enabled; a subclass may have such an attribute of its own
        if name in ("enabled", "mixup_enabled") and self._settled and not hasattr(self, name):
            raise AttributeError(
                f"{name} is a switch of MixupCollate, not of {type(self).__name__}, got {shown(value)}: a transform "
                "acts whenever it is called, so do not call it, or set MixupCollate(transform).enabled"
            )
        super().__setattr__(name, value)

    def plan_batch(self, draw: Draw) -> MixPlan:
        """Draw a plan in which every image is changed, as if ``p`` were 1. Each method defines this.

        Draw only from ``draw.numbers``, once for each of ``draw.units(self.per)``. If images have one partner, it must
        be ``draw.partner`` itself, not a copy: then the layout of the packed plan, and whether pairs are mixed in
        place, never depend on what was drawn.
        """
        raise NotImplementedError(f"{type(self).__name__} must define plan_batch(draw), which returns a MixPlan")

    def draw_plan(self, draw: Draw) -> MixPlan:
        """Draw a plan in which each pair (sample, batch) is changed with probability ``p``."""
        plan = self.plan_batch(draw)
        if isinstance(plan, MixPlan) and plan.partners is draw.partner and not plan.knows_pairs:
            draw.set_pairs(plan, self.per)  # containers set what their members agree on
        if not _is_ours(self):
            self._check_drawn(plan, draw)
        p = value_in_epoch("p", self.p, draw.epoch, check_probability)
        if p == 1:
            return plan
        count, unit = draw.units(self.per)
        changed = (draw.numbers.random(count) < p)[unit]
        # all images keep the fill, erased or not, so that a fill they cannot take is refused in the first batch
        return restrict(plan, changed, alike=self.per != "sample", keep=("fill",))

    def _check_drawn(self, plan: Any, draw: Draw) -> None:
        """Refuse what a user's method drew before it is taken apart, here and in containers."""
        name, is_plan = type(self).__name__, isinstance(plan, MixPlan)
        if is_plan:
            check_bounds(plan)
        if not is_plan or len(plan) != draw.shape[0] or plan.size != draw.size:
            got = f"one of {len(plan)} of {plan.size}" if is_plan else shown(plan)
            raise ValueError(
                f"{name}.plan_batch must return a MixPlan of {draw.shape[0]} images of (height, width) {draw.size}, "
                f"got {got}"
            )
        if not self.mixes and (least := _least_own_share(plan)) < 1:
            raise ValueError(
                f"{name} must be a MixTransform to change labels, which an ErasingTransform leaves alone: plan.shares "
                f"must give each image's own label 1, got {least}"
            )

    def make_plan(
        self,
        images: Tensor,
        *,
        labels: Tensor | None = None,
        stream: Stream | None = None,
        epoch: int | None = None,
        layout: Axes | None = None,
    ) -> MixPlan:
        """Draw a plan for ``images`` ``[B, C, H, W]`` (video ``[B, T, C, H, W]``); only their shape matters.

        Args:
            images: not modified.
            labels: passed to the ``pairing``, if that is a function.
            stream: where the random numbers come from; default: the transform's own stream.
            epoch: passed to schedules; default: the epoch last given to ``set_epoch``.
            layout: of the images; default: the transform's.
        """
        if is_compiling():
            options: dict[str, Any] = {"labels": labels, "stream": stream, "epoch": epoch, "layout": layout}
            return cast(MixPlan, uncompiled(self.make_plan, images, **options))
        if is_recorded():
            raise cannot_be_exported(type(self).__name__)
        check_tensor("images", images)
        check_kind("labels", labels, Tensor, None)
        source = self.stream.next() if stream is None else check_kind("stream", stream, Stream).next()
        epoch = self.epoch if epoch is None else check_count("epoch", epoch, least=0)
        layout = self.layout if layout is None else check_choice("layout", layout, AXES)
        with np.errstate(under="ignore"):  # a tiny share may become 0, whatever NumPy is set to raise
            draw = draw_from(source, plan_shape(images, layout), self.pairing, epoch, labels)
            plan = result_of("plan_batch", self.draw_plan, draw)
        if plan.size == (1, 1) and not PLACES.isdisjoint(plan.shapes):
            raise ValueError(
                f"images must have more than one pixel for boxes, got {tuple(images.shape)}"
                + ("; use MixUp for them" if self.mixes else "")
            )
        if self._draws_alone():
            mark_as_checked(plan)  # a full check would take half as long as the draw
        return plan

    def _draws_alone(self) -> bool:
        """Whether only this library's code draws plans: no user's subclass, nor a replaced method."""
        inner = [module for module in self._modules.values() if isinstance(module, MixTransform)]
        return _is_ours(self) and all([transform._draws_alone() for transform in inner])

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
        layout: Axes | None = None,
    ) -> Any:
        """Apply ``plan``; returns ``(images, targets)``, or only the images if there are no labels.

        The keyword arguments are those of :func:`mixcollate.kernels.mix`; ``layout`` defaults to the transform's.
        """
        options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "memory_format": memory_format}
        options |= {"impl": impl, "layout": self.layout if layout is None else check_choice("layout", layout, AXES)}
        if is_compiling():
            return uncompiled(self.replay, images, labels, plan, **options)
        check_tensor("images", images)
        if labels is not None:
            check_tensor("labels", labels)
        check_kind("plan", plan, MixPlan, PackedPlan)
        if isinstance(plan, MixPlan):
            check_bounds(plan)
        batch: Any = images if labels is None else (images, labels)
        roles = IMAGES_ONLY if labels is None else IMAGES_AND_LABELS
        return execute(batch, roles, plan, self._executor.rules, inplace=self.inplace, **options)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch for schedules, if this transform is used without a collate."""
        self.epoch = check_count("epoch", epoch, least=0)

    def extra_repr(self) -> str:
        """The hyper-parameters that differ from the defaults."""
        arguments = inspect.signature(type(self)).parameters
        # None as a default stands for another one
        own = {name: p.default for name, p in arguments.items() if p.default is not None}
        defaults = {name: p.default for name, p in inspect.signature(MixTransform).parameters.items()} | own
        values = {name: vars(self)[name] for name in arguments if name in vars(self)}
        changed = (name for name, value in values.items() if name not in defaults or value != defaults[name])
        return ", ".join(f"{name}={values[name]!r}" for name in changed if values[name] is not None)

    def forward(self, *inputs: Any) -> Any:
        """Mix the images (and masks) among ``inputs``, and turn their labels into soft targets."""
        if is_compiling():
            return uncompiled(self.forward, *inputs)
        batch = inputs if len(inputs) != 1 else inputs[0]
        roles = find(batch, self._keys, mixes=self.mixes, labelled=self.mixes and self.labels_getter is not None)
        roles.warn()
        if self.blends:
            refuse_class_indices(batch, roles)
        plan = self.make_plan(first_images(batch, roles), labels=first_labels(batch, roles))
        return self._executor.run(batch, roles, plan, inplace=self.inplace)


class ErasingTransform(MixTransform):
    """Base class of methods that overwrite pixels with a fill, and do not change labels or masks.

    Args:
        p: probability that an image is changed; a number or a function of the epoch.
        per: what one draw is for: ``"sample"`` or ``"batch"``.
        inplace: whether to erase in the memory of the input images.
        layout: ``"BCDHW"`` for volumes, ``"BCT"`` for signals; default: images ``[B, C, H, W]`` or video
            ``[B, T, C, H, W]``.
        seed: seed of the stream of plans, which then depends on the seed, the rank and ``stream.step`` alone (in a
            worker of a loader, also on the seed that the loader gave it). Default: each plan takes 64 bits from torch's
            default generator.
    """

    mixes = False

    def __init__(
        self,
        *,
        p: Scheduled = 1.0,
        per: Per = "sample",
        inplace: bool = False,
        layout: Axes | None = None,
        seed: int | None = None,
    ) -> None:
        check_choice("per", per, ("sample", "batch"))
        super().__init__(p=p, per=per, pairing=None, inplace=inplace, layout=layout, seed=seed)


class Unchanged(ErasingTransform):
    """Leave all images unchanged, as evaluation does."""

    def plan_batch(self, draw: Draw) -> MixPlan:
        return identity(draw.shape[0], draw.size)


def _least_own_share(plan: MixPlan) -> float:
    """The smallest share that an image's own label keeps in any pass."""
    least = float(plan.own_share.min(initial=1))
    return least if plan.then is None else min(least, _least_own_share(plan.then))


def _is_ours(transform: MixTransform) -> bool:
    drawing = type(transform), transform.draw_plan, transform.plan_batch
    return all([part.__module__.startswith("mixcollate.") for part in drawing])


def plan_shape(images: Tensor, layout: Axes | None = None) -> tuple[int, int, int, int]:
    """``(batch, channels, height, width)`` of the plan for ``images``. Signals ``BCT`` have height 1; anything that is
    no image, video, volume or signal counts as one row of pixels.
    """
    if images.ndim == 0:
        raise ValueError(f"images must be a batch [B, ...], got a tensor without dimensions: {shown(images)}")
    if layout is not None:
        check_layout(images, layout)
        sizes = dict(zip(layout, images.shape, strict=True))
        return sizes["B"], sizes["C"], sizes.get("H", 1), sizes["T" if layout == "BCT" else "W"]
    if images.ndim in (4, 5):
        batch, (channels, height, width) = images.shape[0], images.shape[-3:]
        return batch, channels, height, width
    return images.shape[0], 1, 1, images[:1].numel()
