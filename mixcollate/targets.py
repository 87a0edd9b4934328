"""Labels and a plan become soft targets; the loss and the accuracy that go with them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from mixcollate.checks import check_choice
from mixcollate.kernels.checks import can_fuse
from mixcollate.kernels.packed import PackedPlan, pack
from mixcollate.plan import MixPlan

Targets = Literal["dense", "sparse"]
LabelMode = Literal["lerp", "union"]
Reduction = Literal["mean", "sum", "none"]


class TargetOptions(TypedDict, total=False):
    """What a :class:`TargetRule` takes."""

    num_classes: int | None
    targets: Targets
    label_smoothing: float
    label_mode: LabelMode
    ignore_index: int


class SoftTarget(NamedTuple):
    """A soft target that never spells out its zeros: a few classes and the share of each.

    Attributes:
        labels: ``[B, K]`` int64, the image's own class first; ``ignore_index`` where there is none.
        shares: ``[B, K]`` float32, how much each of them counts; rows sum to one.
    """

    labels: Tensor
    shares: Tensor

    def dense(self, num_classes: int, *, label_smoothing: float = 0.0, ignore_index: int = -100) -> Tensor:
        """``[B, num_classes]`` float32. Rows sum to one, less what belongs to ignored labels."""
        labels, shares = self.known(ignore_index)
        rows = torch.zeros(len(labels), num_classes, device=labels.device)
        return smooth(rows.scatter_add_(1, labels, shares), label_smoothing)

    def known(self, ignore_index: int) -> "SoftTarget":
        """The same, with class 0 and share 0 in the place of each ignored label."""
        ignored = self.labels == ignore_index
        return SoftTarget(self.labels.masked_fill(ignored, 0), self.shares.masked_fill(ignored, 0.0))


@dataclass(frozen=True, kw_only=True)
class TargetRule:
    """How labels become soft targets; checked once, when it is made.

    Attributes:
        num_classes: number of classes; needed for dense targets from class indices.
        targets: ``"dense"``: float32 ``[B, num_classes]``; ``"sparse"``: a :class:`SoftTarget` (class indices only).
        label_smoothing: in [0, 1): that part of each row's sum is spread over all classes.
        label_mode: ``"lerp"`` weights labels by their shares; ``"union"`` gives every class that is present a 1.
        ignore_index: the class index that stands for no label; such a label counts nothing.
    """

    num_classes: int | None = None
    targets: Targets = "dense"
    label_smoothing: float = 0.0
    label_mode: LabelMode = "lerp"
    ignore_index: int = -100

    def __post_init__(self) -> None:
        check_choice("targets", self.targets, get_args(Targets))
        check_choice("label_mode", self.label_mode, get_args(LabelMode))
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {self.num_classes}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.targets == "sparse" and self.label_smoothing:
            raise ValueError(
                f"label_smoothing must be 0 for targets='sparse', got {self.label_smoothing}; "
                "give it to soft_cross_entropy"
            )
        if self.targets == "sparse" and self.label_mode == "union":
            raise ValueError("label_mode must be 'lerp' for targets='sparse', got 'union'; use targets='dense'")

    def check(self, labels: Tensor, plan: MixPlan | PackedPlan) -> None:
        """Refuse labels that :meth:`mix` cannot mix by ``plan``; on a GPU their values are not looked at."""
        if not isinstance(labels, Tensor):
            raise TypeError(f"labels must be a tensor, got {type(labels).__name__}")
        if labels.ndim not in (1, 2) or len(labels) != len(plan):
            raise ValueError(
                f"labels must be [{len(plan)}] class indices or [{len(plan)}, num_classes] rows, "
                f"got {tuple(labels.shape)}"
            )
        if labels.ndim == 2:
            if self.targets == "sparse":
                raise ValueError("labels must be class indices [B] for targets='sparse', got rows; use targets='dense'")
            if self.num_classes is not None and labels.shape[1] != self.num_classes:
                raise ValueError(f"labels must have num_classes={self.num_classes} columns, got {labels.shape[1]}")
            return
        if labels.dtype.is_floating_point or labels.dtype == torch.bool:
            raise TypeError(
                f"labels [B] must be integers, got {labels.dtype}; for rows of scores pass [B, num_classes]"
            )
        if self.num_classes is not None:
            self._check_range(labels, self.num_classes)
        elif self.targets == "dense":
            raise ValueError("num_classes must be given for class indices; or pass one-hot labels, or targets='sparse'")

    def _check_range(self, labels: Tensor, num_classes: int) -> None:
        if labels.device.type != "cpu" or len(labels) == 0:
            return
        labels = labels.to(torch.int64)  # a narrow type may not hold num_classes
        low, high = torch.aminmax(labels)
        if low >= 0 and high < num_classes:
            return
        wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != self.ignore_index)]
        if len(wrong):
            raise ValueError(
                f"labels must be in 0 … {num_classes - 1} (or ignore_index={self.ignore_index}), got {int(wrong[0])}"
            )

    def mix(self, labels: Tensor, plan: MixPlan | PackedPlan) -> Tensor | SoftTarget:
        """Mix ``labels`` as ``plan`` mixes their images; they are checked and left as they are.

        Args:
            labels: ``[B]`` class indices (``ignore_index``: no class), or ``[B, num_classes]`` one-hot, soft or
                multi-hot.
            plan: one row for each label; packed on their device, it need not be copied there.
        """
        self.check(labels, plan)
        if labels.ndim == 2:
            return smooth(_mix_rows(labels.to(torch.float32), plan, self.label_mode), self.label_smoothing)
        if self.targets == "dense" and self.label_mode == "lerp" and plan.then is None and _can_fuse(labels):
            return self._fused(labels, plan)
        target = _mix_indices(labels.to(torch.int64), plan)
        if self.targets == "sparse":
            return target
        classes = self.num_classes or 0  # the check has made sure that it is given
        if self.label_mode == "union":
            present = SoftTarget(target.labels, (target.shares > 0).to(torch.float32))
            return smooth(present.dense(classes, ignore_index=self.ignore_index).clamp_(max=1), self.label_smoothing)
        return target.dense(classes, label_smoothing=self.label_smoothing, ignore_index=self.ignore_index)

    def _fused(self, labels: Tensor, plan: MixPlan | PackedPlan) -> Tensor:
        from mixcollate.kernels import fused_targets  # one launch; the only way to Triton, taken on first use

        placed = pack(plan, labels.device) if isinstance(plan, MixPlan) else plan
        with torch.cuda.device(labels.device):  # Triton launches on the current device
            return fused_targets.soft_targets(
                labels,
                placed,
                num_classes=self.num_classes or 0,
                label_smoothing=self.label_smoothing,
                ignore_index=self.ignore_index,
            )


def mix_targets(labels: Tensor, plan: MixPlan | PackedPlan, **options: Unpack[TargetOptions]) -> Tensor | SoftTarget:
    """Mix labels as ``plan`` mixes their images, by the :class:`TargetRule` that the keyword arguments make."""
    return TargetRule(**options).mix(labels, plan)


def smooth(rows: Tensor, label_smoothing: float) -> Tensor:
    """Spread ``label_smoothing`` of each row's sum evenly over all classes."""
    if label_smoothing == 0 or rows.numel() == 0:
        return rows
    return (1 - label_smoothing) * rows + label_smoothing / rows.shape[1] * rows.sum(1, keepdim=True)


def _mix_indices(labels: Tensor, plan: MixPlan | PackedPlan) -> SoftTarget:
    sources, shares = _sources(labels, plan)
    target, later = SoftTarget(labels[sources], shares.clone()), plan.then
    while later is not None:
        sources, shares = _sources(labels, later)
        mixed = target.shares[sources] * shares[:, :, None]  # [B, 1 + K, K before]
        target, later = SoftTarget(target.labels[sources].flatten(1), mixed.flatten(1)), later.then
    return target


def _sources(labels: Tensor, plan: MixPlan | PackedPlan) -> tuple[Tensor, Tensor]:
    """``[B, 1 + K]`` each: whose labels each image gets, its own first, and their shares."""
    partners, shares = _on(labels, plan)
    themselves = torch.arange(len(labels), device=labels.device)[:, None]
    return torch.cat([themselves, partners.to(torch.int64)], 1), shares


def _mix_rows(rows: Tensor, plan: MixPlan | PackedPlan | None, label_mode: LabelMode) -> Tensor:
    while plan is not None:
        partners, shares = _on(rows, plan)
        if label_mode == "union":
            shares = (shares > 0).to(rows.dtype)
        mixed = rows * shares[:, :1]
        for partner, share in zip(partners.to(torch.int64).T, shares.T[1:, :, None], strict=True):
            mixed = (
                torch.maximum(mixed, rows[partner] * share) if label_mode == "union" else mixed + rows[partner] * share
            )
        rows, plan = mixed, plan.then
    return rows


def _on(labels: Tensor, plan: MixPlan | PackedPlan) -> tuple[Tensor, Tensor]:
    """Partners and shares beside the labels."""
    return torch.as_tensor(plan.partners, device=labels.device), torch.as_tensor(plan.shares, device=labels.device)


def check_targets(targets: Targets, label_smoothing: float, label_mode: LabelMode) -> None:
    """Refuse what sparse targets cannot say."""
    TargetRule(targets=targets, label_smoothing=label_smoothing, label_mode=label_mode)


def soft_cross_entropy(
    logits: Tensor,
    target: Tensor | SoftTarget,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with soft targets, dense or sparse; computed in float32.

    Equivalent, for a :class:`SoftTarget` of one partner and ``reduction="none"``, to ``lam * F.cross_entropy(logits,
    a) + (1 - lam) * F.cross_entropy(logits, b)`` with ``a, b = target.labels.T`` and ``lam = target.shares[:, 0]``.
    For class indices it is ``F.cross_entropy``.

    Args:
        logits: ``[B, num_classes]``, floating point.
        target: a :class:`SoftTarget`, rows ``[B, num_classes]``, or class indices ``[B]`` (as in evaluation).
        ignore_index: class index that counts nothing.
        label_smoothing: in [0, 1); leave it at 0 if the targets are smoothed already.
        weight: ``[num_classes]``, a factor for each class.
        reduction: ``"none"``: ``[B]``; ``"sum"``; ``"mean"``: the sum over the total weight of all targets, so that
            ignored labels do not lower it.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits must be [B, num_classes], got {tuple(logits.shape)}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if isinstance(target, Tensor) and target.ndim == 1:
        target = _certain(target)
    fusible = weight is None and logits.dtype != torch.float64 and _can_fuse(logits)
    if isinstance(target, SoftTarget) and fusible and not target.shares.requires_grad:
        from mixcollate.kernels import fused_targets

        with torch.cuda.device(logits.device):  # Triton launches on the current device; autograd sets it later
            losses = fused_targets.soft_cross_entropy(
                logits, *target, label_smoothing=label_smoothing, ignore_index=ignore_index
            )
        if reduction == "mean":
            return losses.sum() / target.known(ignore_index).shares.sum()
        return losses.sum() if reduction == "sum" else losses
    log_probability = logits.log_softmax(1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    weighted = log_probability if weight is None else log_probability * weight
    if isinstance(target, SoftTarget):
        labels, shares = target.known(ignore_index)
        rows = weighted.gather(1, labels).masked_fill(shares == 0, 0.0).mul(shares).sum(1)  # 0 times -inf counts 0
        counted = shares if weight is None else shares * weight[labels]
        sums = shares.sum(1)
    else:
        if target.shape != logits.shape:
            raise ValueError(f"target must have the shape of logits {tuple(logits.shape)}, got {tuple(target.shape)}")
        rows = (target * weighted).sum(1)
        counted = target if weight is None else target * weight
        sums = target.sum(1)
    if label_smoothing:
        rows = (1 - label_smoothing) * rows + label_smoothing / logits.shape[1] * sums * weighted.sum(1)
    if reduction == "none":
        return -rows
    return -rows.sum() / counted.sum() if reduction == "mean" else -rows.sum()


def _certain(labels: Tensor) -> SoftTarget:
    """Class indices ``[B]`` as a target."""
    return SoftTarget(labels[:, None].to(torch.int64), torch.ones(len(labels), 1, device=labels.device))


def _can_fuse(tensor: Tensor) -> bool:
    return tensor.is_cuda and not torch.compiler.is_compiling() and can_fuse()


def soft_accuracy(logits: Tensor, target: Tensor | SoftTarget, *, ignore_index: int = -100) -> Tensor:
    """The share of the targets that lies on the predicted classes, in [0, 1], as a scalar tensor.

    For class indices this is the accuracy; for mixed targets, mixup's ``lam``-weighted training accuracy.
    """
    predicted = logits.argmax(1)
    if isinstance(target, Tensor) and target.ndim == 1:
        target = _certain(target)
    if isinstance(target, SoftTarget):
        labels, shares = target.known(ignore_index)
        return (shares * (labels == predicted[:, None])).sum() / shares.sum()
    return target.gather(1, predicted[:, None]).sum() / target.sum()
