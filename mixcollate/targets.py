"""Turn labels into soft targets, as a plan says."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from mixcollate.checks import (
    check_choice,
    check_class_index,
    check_count,
    check_device,
    check_number,
    check_tensor,
    is_readable,
    shown,
)
from mixcollate.kernels.bounds import check_bounds
from mixcollate.kernels.packed import PackedPlan, pack
from mixcollate.kernels.support import Impl, is_differentiated, is_fusible
from mixcollate.plan import Array, MixPlan, beside, takes_partners

if TYPE_CHECKING:
    from mixcollate.kernels.fused_targets import UnwrittenTargets

Targets = Literal["dense", "sparse", "values"]
LabelMode = Literal["lerp", "union"]


class TargetOptions(TypedDict, total=False):
    """The arguments of :class:`TargetRule`."""

    num_classes: int | None
    targets: Targets
    label_smoothing: float
    label_mode: LabelMode
    ignore_index: int


class SoftTarget(NamedTuple):
    """A soft target in sparse form: a few classes per image, and the share of each.

    Attributes:
        labels: ``[B, K]`` int64, the image's own class first; ``ignore_index`` for images without a label.
        shares: ``[B, K]`` float32, the weight of each label; rows sum to one.
    """

    labels: Tensor
    shares: Tensor

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> "SoftTarget":
        """The same on ``device``; dtypes are kept."""
        there = check_device(device)
        return SoftTarget(*[part.to(there, non_blocking=non_blocking) for part in self])

    def dense(self, num_classes: int, *, label_smoothing: float = 0.0, ignore_index: int = -100) -> Tensor:
        """``[B, num_classes]`` float32. Rows sum to one, less the shares of ignored labels."""
        check_number("label_smoothing", label_smoothing, 0, 1)
        check_count("num_classes", num_classes)
        check_class_index("ignore_index", ignore_index)
        labels, shares = self.known(ignore_index)
        # new_zeros, since under vmap there must be rows for each sample
        rows = labels.new_zeros(len(labels), num_classes, dtype=torch.float32)
        try:
            rows.scatter_add_(1, labels, shares)
        except RuntimeError as error:
            check_classes("labels", labels, num_classes)
            raise ValueError(
                "labels must be int64 and shares float32, [B, K] both, got "
                f"{tuple(labels.shape)} {labels.dtype} and {tuple(shares.shape)} {shares.dtype}"
            ) from error
        return smooth(rows, label_smoothing)

    def known(self, ignore_index: int) -> "SoftTarget":
        """The same target with class 0 and share 0 in place of each ignored label."""
        ignored = self.labels == ignore_index
        return SoftTarget(self.labels.masked_fill(ignored, 0), self.shares.masked_fill(ignored, 0.0))


def _soft_target(cls: type[SoftTarget], labels: Any, shares: Tensor | None = None) -> SoftTarget:
    """Also accepts one iterable of both, since some frameworks rebuild every tuple in a batch by ``type(x)(items)``."""
    if shares is None and isinstance(labels, Tensor):
        raise TypeError(f"SoftTarget takes labels and shares, [B, K] both, got {shown(labels)} alone")
    both: Iterable[Any] = labels if shares is None else (labels, shares)
    return cls._make(both)


SoftTarget.__new__ = _soft_target  # type: ignore[method-assign, assignment]  # a NamedTuple's body may not define it


@dataclass(frozen=True, kw_only=True)
class TargetRule:
    """How labels become soft targets. Arguments are checked when the rule is made.

    Attributes:
        num_classes: number of classes; required for dense targets from class indices.
        targets: ``"dense"``: float32 ``[B, num_classes]``; ``"sparse"``: a :class:`SoftTarget` (class indices only);
            ``"values"``: labels are numbers, as in regression, and keep their shape.
        label_smoothing: in [0, 1], the part of each row's sum that is spread evenly over all classes.
        label_mode: ``"lerp"`` weights labels by their shares; ``"union"`` gives every class that is present a 1
            (of rows of shares, their greatest).
        ignore_index: the class index that means "no label"; it adds nothing to a target.
    """

    num_classes: int | None = None
    targets: Targets = "dense"
    label_smoothing: float = 0.0
    label_mode: LabelMode = "lerp"
    ignore_index: int = -100

    def __post_init__(self) -> None:
        check_choice("targets", self.targets, get_args(Targets))
        check_choice("label_mode", self.label_mode, get_args(LabelMode))
        vars(self).update(  # as Python's own numbers, which is all that kernels accept
            num_classes=None if self.num_classes is None else check_count("num_classes", self.num_classes),
            label_smoothing=check_number("label_smoothing", self.label_smoothing, 0, 1),
            ignore_index=check_class_index("ignore_index", self.ignore_index),
        )
        if self.targets == "dense":
            self._check_smoothing(self.num_classes)
            return
        if self.label_smoothing:
            instead = "; give it to soft_cross_entropy" if self.targets == "sparse" else ""
            raise ValueError(
                f"label_smoothing must be 0 for targets={self.targets!r}, got {self.label_smoothing}{instead}"
            )
        if self.label_mode == "union":
            raise ValueError(
                f"label_mode must be 'lerp' for targets={self.targets!r}, got 'union'; use targets='dense'"
            )
        if self.targets == "values" and self.num_classes is not None:
            raise ValueError(f"num_classes must be None for targets='values', got {self.num_classes}")

    def _check_smoothing(self, columns: int | None) -> None:
        if columns == 1 and self.label_smoothing:
            raise ValueError(
                f"label_smoothing must be 0 for a single logit, which has no other class, got {self.label_smoothing}; "
                "soft_binary_cross_entropy(..., label_smoothing=) smooths towards one half"
            )

    def of(self, num_classes: int | Sequence[int] | None) -> "tuple[TargetRule, ...]":
        """One such rule for each label, with its number of classes."""
        return tuple(replace(self, num_classes=each) for each in for_each_label(num_classes))

    def _check_kind(self, labels: Tensor, plan: MixPlan | PackedPlan) -> None:
        """Refuse labels of a shape or dtype that cannot be mixed."""
        check_tensor("labels", labels)
        if isinstance(plan, MixPlan):
            check_bounds(plan)
        if labels.shape[:1] != (len(plan),):
            kinds = f"[{len(plan)}] class indices or [{len(plan)}, num_classes] rows"
            wanted = f"[{len(plan)}, ...] values" if self.targets == "values" else kinds
            raise ValueError(f"labels must be {wanted} for a plan of {len(plan)} images, got {tuple(labels.shape)}")
        if self.targets == "values":
            if not labels.dtype.is_floating_point:
                raise TypeError(f"labels must be floating point for targets='values', got {labels.dtype}; use .float()")
        elif self._class_indices(labels) is None:
            self._check_kind_of_rows(labels)
        elif self.num_classes is None and self.targets == "dense":
            raise ValueError(
                "num_classes must be given for class indices; or pass one-hot labels [B, num_classes], floats [B, 1] "
                "for a single logit, or targets='sparse'"
            )

    def _class_indices(self, labels: Tensor) -> Tensor | None:
        """``[B]``, if labels are class indices; so is a column of integers, unless there is only one class."""
        if self.targets == "values" or labels.dtype.is_floating_point or labels.dtype == torch.bool:
            return None
        if labels.ndim == 2 and labels.shape[1] == 1 and self.num_classes != 1:
            labels = labels[:, 0]
        return labels if labels.ndim == 1 else None

    def _known(self, classes: Array, *, unsigned: bool) -> Array | None:
        """Which of ``classes``, int64 ``[B]``, are not ``ignore_index`` (``None``: all); refuses those of no class."""
        end = 2**63 if self.num_classes is None else self.num_classes
        if np.maximum.reduce(classes.view(np.uint64), initial=0) >= end:  # a negative number is a huge one
            outside = (classes < 0) | (classes > end - 1)
            if not unsigned:  # of uint64, in which -100 is a large number
                outside &= classes != self.ignore_index
            if outside.any():
                wrong = int(classes[outside][0])
                got = wrong % 2**64 if unsigned else wrong
                advice = "; for a single logit pass floats [B, 1] and use soft_binary_cross_entropy" if end == 1 else ""
                raise ValueError(
                    f"labels must be in 0 … {end - 1} (or ignore_index={self.ignore_index}), got {got}{advice}"
                )
        elif not 0 <= self.ignore_index < end:
            return None
        known: Array = classes != self.ignore_index
        return known

    def _check_kind_of_rows(self, labels: Tensor) -> None:
        if labels.ndim == 1:
            raise TypeError(
                f"labels [B] must be integers, got {labels.dtype}; use .long() for class indices, [B, num_classes] for "
                "a single logit or for rows of scores, and targets='values' for regression"
            )
        if labels.ndim != 2:
            raise ValueError(f"labels must be [B] class indices or [B, num_classes] rows, got {tuple(labels.shape)}")
        if self.targets == "sparse":
            raise ValueError("labels must be class indices [B] for targets='sparse', got rows; use targets='dense'")
        if self.num_classes is not None and labels.shape[1] != self.num_classes:
            raise ValueError(f"labels must have num_classes={self.num_classes} columns, got {labels.shape[1]}")
        self._check_smoothing(labels.shape[1])

    def mix(self, labels: Tensor, plan: MixPlan | PackedPlan) -> Tensor | SoftTarget:
        """Mix ``labels`` as ``plan`` mixes their images; they are not modified.

        Args:
            labels: ``[B]`` or ``[B, 1]`` class indices (``ignore_index``: no class); ``[B, num_classes]`` one-hot,
                soft or multi-hot rows: integers 0 and 1, or floats with NaN for missing annotations; or, for
                ``targets="values"``, floats ``[B, ...]``.
            plan: one row per label. If it is packed on the device of the labels, nothing is copied; if it is packed on
                another, it is read back.

        Returns:
            As ``targets`` says. NaN in a row appears in the same entries of the images that it is mixed into, and in
            no other. Numbers are float32; those of ``targets="values"`` float64 if the labels are.
        """
        target, unwritten = self.prepare(labels, plan)
        if unwritten is not None:
            with torch.cuda.device(labels.device):  # Triton launches on the current device
                unwritten.write()
        return target

    def prepare(
        self, labels: Tensor, plan: MixPlan | PackedPlan
    ) -> "tuple[Tensor | SoftTarget, UnwrittenTargets | None]":
        """The target that :meth:`mix` returns and, on a GPU, what still has to write it (``None``: it is complete), so
        that the launch that mixes the images can do both.
        """
        self._check_kind(labels, plan)
        if isinstance(plan, PackedPlan) and plan.words.device != labels.device:
            plan = plan.unpack()
        return self.prepare_alike(labels, plan, self.choose(labels, plan))

    def choose(self, labels: Tensor, plan: MixPlan | PackedPlan) -> Impl:
        """What makes the target: the kernels, NumPy (if values can be read), or plain torch."""
        if is_readable(labels):
            return "host"
        exact = self.targets == "values" and labels.dtype == torch.float64
        differentiated = is_differentiated(labels)  # as a teacher's predictions may be
        if takes_partners(plan.then) or self.label_mode == "union" or exact or differentiated:
            return "reference"
        return "fused" if is_fusible(labels) else "reference"

    def prepare_alike(
        self, labels: Tensor, plan: MixPlan | PackedPlan, implementation: Impl
    ) -> "tuple[Tensor | SoftTarget, UnwrittenTargets | None]":
        """:meth:`prepare` by the chosen implementation, for labels whose shape and dtype are known to be right."""
        indices = self._class_indices(labels)
        if implementation == "host":
            return self._mix_on_host(labels, indices, plan), None
        if implementation == "reference":
            return self._mix_in_torch(labels, indices, plan), None
        unwritten = self._unwritten(labels, indices, plan)
        sparse = unwritten.rows.kind == "sparse"
        return SoftTarget(unwritten.out, unwritten.shares) if sparse else unwritten.out, unwritten

    def _mix_in_torch(self, labels: Tensor, indices: Tensor | None, plan: MixPlan | PackedPlan) -> Tensor | SoftTarget:
        """Targets made by torch."""
        if self.targets == "values":
            return _mix_rows(labels if labels.dtype == torch.float64 else labels.to(torch.float32), plan, "lerp")
        if indices is None:
            return smooth(_mix_rows(labels.to(torch.float32), plan, self.label_mode), self.label_smoothing)
        indices = indices.to(torch.int64)
        sources, shares = (beside(indices, part) for part in _sources(plan))
        target = SoftTarget(indices[sources], shares.clone())  # not in the memory of the plan
        if self.targets == "sparse":
            return target
        if self.label_mode == "union":
            target = SoftTarget(target.labels, (target.shares > 0).to(torch.float32))
        rows = target.dense(self.num_classes or 0, ignore_index=self.ignore_index)
        return smooth(rows.clamp(max=1) if self.label_mode == "union" else rows, self.label_smoothing)

    def _unwritten(self, labels: Tensor, indices: Tensor | None, plan: MixPlan | PackedPlan) -> "UnwrittenTargets":
        from mixcollate.kernels import fused_targets  # the only way to Triton, taken on first use

        placed = pack(plan, labels.device) if isinstance(plan, MixPlan) else plan
        if indices is None:
            return fused_targets.prepare_mixed(labels, placed, label_smoothing=self.label_smoothing)
        if self.targets == "sparse":
            return fused_targets.prepare_sparse(indices, placed)
        return fused_targets.prepare_dense(
            indices,
            placed,
            num_classes=self.num_classes or 0,  # never None: _check_kind has made sure
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )

    def _mix_on_host(self, labels: Tensor, indices: Tensor | None, plan: MixPlan | PackedPlan) -> Tensor | SoftTarget:
        """Targets of labels whose values can be read, and so are checked."""
        if indices is None:
            if self.targets != "values":
                check_rows(labels)
            return self._mix_in_torch(labels, None, plan)
        classes = indices.to(torch.int64).numpy()  # num_classes may not fit a narrower type
        known = self._known(classes, unsigned=indices.dtype == torch.uint64)
        if self.targets == "dense" and self.label_mode == "union":
            return self._mix_in_torch(labels, indices, plan)
        sources, shares = map(np.asarray, _sources(plan))
        if self.targets == "sparse":
            chosen = classes.take(sources)
            return SoftTarget(torch.from_numpy(chosen), torch.from_numpy(shares.copy()))  # not in the plan's memory
        return smooth(torch.from_numpy(self._dense_rows(classes, known, sources, shares)), self.label_smoothing)

    def _dense_rows(self, classes: Array, known: Array | None, sources: Array, shares: Array) -> Array:
        """Dense targets by NumPy, which takes a third of torch's time for a few numbers."""
        if known is not None:
            classes, shares = np.where(known, classes, 0), np.where(known[sources], shares, np.float32(0))
        rows = np.zeros((len(classes), self.num_classes or 0), np.float32)
        numbers = rows.reshape(-1)  # a view: one index is faster than two
        starts = np.arange(0, numbers.size, rows.shape[1])
        numbers[starts + classes] = shares[:, 0]  # the first source of each image is itself
        for source, share in zip(sources.T[1:], shares.T[1:], strict=True):
            numbers[starts + classes.take(source)] += share
        return rows


def for_each_label(num_classes: int | Sequence[int] | None) -> list[Any]:
    """The number of classes of each label, as a list. Its items are checked by :class:`TargetRule`."""
    if not isinstance(num_classes, Sequence) or isinstance(num_classes, (str, bytes)):
        return [None if num_classes is None else check_count("num_classes", num_classes)]
    if len(num_classes) == 0:
        raise ValueError(f"num_classes must be an integer, or one for each of several labels, got {num_classes!r}")
    return list(num_classes)


def mix_targets(labels: Tensor, plan: MixPlan | PackedPlan, **options: Unpack[TargetOptions]) -> Tensor | SoftTarget:
    """Mix labels as ``plan`` mixes their images; keyword arguments are those of :class:`TargetRule`."""
    return TargetRule(**options).mix(labels, plan)


def smooth(rows: Tensor, label_smoothing: float) -> Tensor:
    """Spread ``label_smoothing`` of each row's sum evenly over all classes; NaN stays NaN, and adds nothing."""
    if label_smoothing == 0 or rows.numel() == 0:
        return rows
    return (1 - label_smoothing) * rows + label_smoothing / rows.shape[1] * rows.nansum(1, keepdim=True)


def _sources(plan: MixPlan | PackedPlan) -> tuple[Any, Any]:
    """``[B, S]`` each: whose labels each image gets after all passes, and their shares (if packed, tensors)."""
    batch, partners, shares, later = len(plan), plan.partners, plan.shares, plan.then
    host = isinstance(plan, MixPlan)
    own: Any = np.arange(batch)[:, None] if host else torch.arange(batch, device=partners.device)[:, None]
    join: Any = np.concatenate if host else torch.concatenate
    sources = join([own, partners], 1)
    while later is not None:
        chosen = join([own, later.partners], 1)
        width = sources.shape[1] * chosen.shape[1]
        sources = sources[chosen].reshape(batch, width)
        with np.errstate(under="ignore"):
            shares = (shares[chosen] * later.shares[:, :, None]).reshape(batch, width)
        later = later.then
    return sources, shares


def _mix_rows(rows: Tensor, plan: MixPlan | PackedPlan | None, label_mode: LabelMode) -> Tensor:
    """The sum of ``rows [B, ...]`` weighted by their shares, or the maximum of those whose share is not 0."""
    while plan is not None:
        partners, shares = (beside(rows, part) for part in (plan.partners, plan.shares))
        if label_mode == "union":
            shares = (shares > 0).to(rows.dtype)
        own, *others = shares.T.reshape(shares.shape[1], len(rows), *[1] * (rows.ndim - 1))
        mixed = _weighted(rows, own)
        for partner, share in zip(partners.to(torch.int64).T, others, strict=True):
            other = _weighted(rows[partner], share)
            mixed = torch.maximum(mixed, other) if label_mode == "union" else mixed + other
        rows, plan = mixed, plan.then
    return rows


def check_rows(labels: Tensor) -> None:
    """Refuse rows of anything but shares, or zeros and ones."""
    if labels.numel() == 0 or labels.dtype == torch.bool:
        return
    rows = labels if labels.dtype.is_floating_point else labels.to(torch.int64)
    low, high = torch.aminmax(rows)
    if not rows.dtype.is_floating_point:
        if not 0 <= low <= high <= 1:
            wrong = int(rows[(rows < 0) | (rows > 1)][0])
            raise ValueError(
                f"integer labels [B, K] must be zeros and ones, got {wrong}; pass class indices as [B], "
                "regression labels as floats with targets='values', and mark missing annotations by NaN"
            )
    elif not 0 <= low <= high < math.inf:  # true for NaN as well
        wrong_values = rows[(rows < 0) | rows.isinf()]
        if len(wrong_values):
            raise ValueError(
                f"labels [B, K] must be finite and at least 0, got {float(wrong_values[0])}; mark missing "
                "annotations by NaN, and mix regression labels with targets='values'"
            )


def check_classes(name: str, labels: Tensor, classes: int) -> None:
    """Refuse labels that are not classes, if their values can be read."""
    if not is_readable(labels):
        return
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(f"{name} must hold classes in 0 … {classes - 1} or ignore_index, got {int(wrong[0])}")


def _weighted(rows: Tensor, share: Tensor) -> Tensor:
    """``share * rows``, which is 0 for a share of 0 even if the row is NaN."""
    return torch.where(share == 0, 0.0, rows * share)
