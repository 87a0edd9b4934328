"""Losses and accuracy for soft targets: cross-entropy, binary cross-entropy, soft accuracy."""

import functools
import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mixcollate.checks import check_choice, check_class_index, check_flag, check_number, check_tensor, is_readable
from mixcollate.kernels.support import is_differentiated, is_fusible
from mixcollate.targets import SoftTarget, check_classes

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = get_args(Reduction)


def soft_cross_entropy(
    logits: Tensor,
    target: Tensor | SoftTarget,
    *,
    ignore_index: int = -100,
    ignore_nan: bool = True,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with soft targets, dense or sparse; computed in float32, or in float64 for float64 logits.

    For class indices it equals ``F.cross_entropy``. For a :class:`SoftTarget` with one partner and
    ``reduction="none"`` it equals ``lam * F.cross_entropy(logits, a) + (1 - lam) * F.cross_entropy(logits, b)`` with
    ``a, b = target.labels.T`` and ``lam = target.shares[:, 0]``; the corresponding dense target gives the same. It
    differs from ``F.cross_entropy`` with class probabilities:

    |                        | here                            | ``F.cross_entropy``   |
    | ---------------------- | ------------------------------- | --------------------- |
    | ``"mean"``             | over the total (weighted) share | over the rows         |
    | ``label_smoothing``    | spreads each row's own sum      | spreads 1 in each row |
    | share 0 of -inf logits | 0                               | NaN                   |
    | ``ignore_index``       | that class does not count       | must be negative      |
    | NaN in the target      | left out, if ``ignore_nan``     | NaN                   |
    | half-precision logits  | a float32 loss                  | a loss in their dtype |

    On a GPU, one kernel computes the loss of logits ``[B, num_classes]`` and one the gradient; each reads the logits
    and the target once. With ``weight``, float64 logits or a target that requires a gradient, plain torch computes
    both; the gradient also for ``create_graph=True``, so that it can be differentiated again.

    Args:
        logits: ``[B, num_classes]`` or ``[B, num_classes, d1, ...]``, floating point.
        target: class indices ``[B, d1, ...]`` (as in evaluation); shares with the shape of ``logits``; or a
            :class:`SoftTarget` whose tensors are ``[B, K, d1, ...]``.
        ignore_index: class index that does not count.
        ignore_nan: ignore the entries of a dense target that are NaN.
        label_smoothing: in [0, 1]; leave it at 0 if the targets are smoothed already.
        weight: ``[num_classes]``, a factor for each class.
        reduction: ``"none"``: ``[B, d1, ...]``; ``"sum"``; ``"mean"``: the sum over the total weight of all targets, so
            that ignored labels do not lower it. If nothing counts, it is NaN, with a gradient of 0.
    """
    label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)
    check_choice("reduction", reduction, REDUCTIONS)
    ignore_nan = check_flag("ignore_nan", ignore_nan)
    ignore_index = check_class_index("ignore_index", ignore_index)
    target = _as_target(logits, target)
    if weight is not None:
        _check_weight(weight, logits)
    labels, shares = target if isinstance(target, SoftTarget) else (None, target)
    how: dict[str, Any] = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
    how |= {"ignore_nan": ignore_nan, "reduction": reduction}
    narrow = logits.ndim == 2 and logits.dtype != torch.float64
    if weight is None and narrow and is_fusible(logits) and not is_differentiated(shares):
        from mixcollate.kernels import fused_targets  # the only way to Triton, taken on first use

        if shares.dtype not in (torch.float16, torch.bfloat16):
            shares = shares.to(torch.float32)
        plain = functools.partial(_in_torch, weight=None, **how)
        with torch.cuda.device(logits.device):  # Triton launches on the current device; autograd sets it later
            return fused_targets.soft_cross_entropy(logits, shares, labels, plain=plain, **how)
    return _in_torch(logits, shares, labels, weight=weight, **how)


def soft_binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_nan: bool = True,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross-entropy with soft targets, some of which may be missing; computed in float32 or float64.

    If none is missing it equals ``F.binary_cross_entropy_with_logits``.

    Args:
        logits: floating point, of any shape: ``[B, num_classes]``, or ``[B, 1]`` for one logit.
        target: of the same shape, in [0, 1]; NaN for missing labels.
        ignore_nan: ignore the entries that are NaN: their loss and gradient are 0, and ``"mean"`` does not count them.
        label_smoothing: in [0, 1]; how far to move targets towards one half.
        weight: a factor for each entry; broadcast with ``logits``.
        pos_weight: a factor for the positive part of each entry's loss; broadcast with ``logits``.
        reduction: ``"none"``: the shape of ``logits``; ``"sum"``; ``"mean"``: over the entries that count. If none
            counts, it is NaN, with a gradient of 0.
    """
    label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)
    check_choice("reduction", reduction, REDUCTIONS)
    ignore_nan = check_flag("ignore_nan", ignore_nan)
    _check_logits(logits)
    if isinstance(target, SoftTarget):
        raise TypeError("target must be a tensor, got a SoftTarget; pass target.dense(num_classes)")
    check_tensor("target", target)
    _check_device("target", target, logits)
    if target.shape != logits.shape:
        raise ValueError(f"target must have the shape of logits {tuple(logits.shape)}, got {tuple(target.shape)}")
    weight, pos_weight = _as_factor("weight", weight, logits), _as_factor("pos_weight", pos_weight, logits)
    logits, target = logits.to(_sum_dtype(logits)), target.to(_sum_dtype(logits))
    missing = target.isnan() & ignore_nan
    logits, target = logits.masked_fill(missing, 0.0), target.masked_fill(missing, 0.0)
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, target, weight, pos_weight=pos_weight, reduction="none")
    return _reduced(losses.masked_fill(missing, 0.0), (~missing).sum(), reduction)


def soft_accuracy(logits: Tensor, target: Tensor | SoftTarget, *, ignore_index: int = -100) -> Tensor:
    """The share of the targets that the predicted classes have, in [0, 1], as a scalar tensor.

    For class indices this is the accuracy; for mixed targets, mixup's ``lam``-weighted training accuracy.

    Args:
        logits, target, ignore_index: as for :func:`soft_cross_entropy`; NaN in a target does not count.
    """
    ignore_index = check_class_index("ignore_index", ignore_index)
    target = counted_target(_as_target(logits, target), ignore_index)
    predicted = logits.argmax(1, keepdim=True)
    if isinstance(target, SoftTarget):
        check_classes("target", target.labels, logits.shape[1])
        shares, hits = target.shares, target.shares * (target.labels == predicted)
    else:
        shares = _without_nan(target)
        hits = shares.gather(1, predicted)
    dtype = _sum_dtype(shares)  # half precision cannot hold their sum
    return hits.sum(dtype=dtype) / shares.sum(dtype=dtype)


def _in_torch(
    logits: Tensor,
    shares: Tensor,
    labels: Tensor | None,
    *,
    weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    ignore_nan: bool,
    reduction: Reduction,
) -> Tensor:
    """The loss in plain torch; ``labels`` are those of a sparse target."""
    target = counted_target(shares if labels is None else SoftTarget(labels, shares), ignore_index)
    losses, total = _losses(logits, target, weight, label_smoothing=label_smoothing, ignore_nan=ignore_nan)
    return _reduced(losses, total, reduction)


def _losses(
    logits: Tensor, target: Tensor | SoftTarget, weight: Tensor | None, *, label_smoothing: float, ignore_nan: bool
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each row in plain torch, and the total (weighted) share of all targets."""
    logs = logits.log_softmax(1, dtype=_sum_dtype(logits))
    if weight is not None:
        weight = weight.to(logs.dtype).view(-1, *[1] * (logits.ndim - 2))
    if isinstance(target, SoftTarget):
        there = _gathered(logs, target.labels)
        weights = None if weight is None else weight.flatten()[target.labels]
        shares, counted, rows = _row_sums(target.shares.to(logs.dtype), there, weights, ignore_nan=False)
    else:
        shares, counted, rows = _row_sums(target.to(logs.dtype), logs, weight, ignore_nan=ignore_nan)
    if label_smoothing:
        of_all = logs if weight is None else _product(weight, logs)
        spread = _product(shares.sum(1), of_all.sum(1))
        rows = (1 - label_smoothing) * rows + label_smoothing / logits.shape[1] * spread
    return -rows, counted.sum()


def _row_sums(
    shares: Tensor, logs: Tensor, weight: Tensor | None, *, ignore_nan: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The shares, the weighted shares, and for each row the sum of ``logs`` times the latter."""
    counted = shares if weight is None else shares * weight
    if is_readable(logs):
        usual = (counted * logs).sum(1)
        if usual.detach().sum().isfinite():  # then all are, and this takes a third of the time of asking each
            return shares, counted, usual
    # there may be NaN in the target, or infinite logits with a share of 0
    if ignore_nan:
        shares = _without_nan(shares)
        counted = shares if weight is None else shares * weight
    return shares, counted, _product(counted, logs).sum(1)


def _as_target(logits: Tensor, target: Tensor | SoftTarget) -> Tensor | SoftTarget:
    """``target``, checked against ``logits``; class indices become a :class:`SoftTarget`."""
    _check_class_logits(logits)
    batch, _, *places = logits.shape
    if isinstance(target, SoftTarget):
        check_tensor("target.labels", target.labels)
        check_tensor("target.shares", target.shares)
        if target.labels.dtype.is_floating_point:
            raise TypeError(f"target.labels must be class indices, got {target.labels.dtype}")
        wanted = (batch, target.labels.shape[1] if target.labels.ndim > 1 else 1, *places)
        if target.labels.shape != wanted or target.shares.shape != wanted:
            raise ValueError(
                f"target.labels and target.shares must be [B, K, ...] for logits {tuple(logits.shape)}, got "
                f"{tuple(target.labels.shape)} and {tuple(target.shares.shape)}"
            )
        _check_device("target", target.labels, logits)
        _check_device("target", target.shares, logits)
        return SoftTarget(target.labels.to(torch.int64), target.shares)
    if isinstance(target, tuple):  # what indexing a SoftTarget gives
        raise TypeError("target must be a tensor or a SoftTarget, got a tuple; index its labels and shares instead")
    check_tensor("target", target)
    _check_device("target", target, logits)
    if target.ndim == logits.ndim - 1:
        if target.dtype.is_floating_point or target.dtype == torch.bool:
            raise TypeError(f"target must have an integer dtype to be class indices, got {target.dtype}")
        if target.shape != (batch, *places):
            raise ValueError(f"target must be {(batch, *places)}, one index per logits row, got {tuple(target.shape)}")
        labels = target[:, None].to(torch.int64)
        return SoftTarget(labels, torch.ones_like(labels, dtype=torch.float32))
    if target.shape != logits.shape:
        raise ValueError(f"target must have the shape of logits {tuple(logits.shape)}, got {tuple(target.shape)}")
    return target


def counted_target(target: Tensor | SoftTarget, ignore_index: int) -> Tensor | SoftTarget:
    """``target`` with the share of the ignored class set to 0."""
    if isinstance(target, SoftTarget):
        return target.known(ignore_index)
    if 0 <= ignore_index < target.shape[1]:
        ignored = torch.arange(target.shape[1], device=target.device) == ignore_index
        target = target.masked_fill(ignored.view(-1, *[1] * (target.ndim - 2)), 0)
    return target


def _check_logits(logits: Tensor) -> None:
    check_tensor("logits", logits)
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits must be floating point, got {logits.dtype}")


def _check_class_logits(logits: Tensor) -> None:
    """Refuse logits without an axis of two classes or more."""
    _check_logits(logits)
    if logits.ndim < 2:
        raise ValueError(f"logits must be [B, num_classes] or [B, num_classes, d1, ...], got {tuple(logits.shape)}")
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits must have two classes or more, got {tuple(logits.shape)}: the softmax of one is always 1; "
            "use soft_binary_cross_entropy"
        )


def _check_weight(weight: Tensor, logits: Tensor) -> None:
    check_tensor("weight", weight)
    if weight.shape != logits.shape[1:2]:
        raise ValueError(f"weight must be [{logits.shape[1]}], one for each class, got {tuple(weight.shape)}")
    _check_device("weight", weight, logits)


def _check_device(name: str, part: Tensor, logits: Tensor) -> None:
    if part.device != logits.device:
        raise ValueError(f"{name} must be on {logits.device} like the logits, got {part.device}; move it there")


def _as_factor(name: str, factor: Tensor | None, logits: Tensor) -> Tensor | None:
    """A factor of the losses, checked, in the dtype in which they are computed."""
    if factor is None:
        return None
    check_tensor(name, factor)
    if factor.ndim:  # a single number may be on any device
        _check_device(name, factor, logits)
    sides = zip(reversed(factor.shape), reversed(logits.shape), strict=False)
    if factor.ndim > logits.ndim or any(side not in (1, whole) for side, whole in sides):
        raise ValueError(f"{name} must broadcast with logits {tuple(logits.shape)}, got {tuple(factor.shape)}")
    return factor.to(_sum_dtype(logits))


def _sum_dtype(values: Tensor) -> torch.dtype:
    """The dtype of sums of these values: float64 for float64, else float32."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _without_nan(target: Tensor) -> Tensor:
    """A dense target with NaN replaced by 0."""
    return target.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf) if target.is_floating_point() else target


def _product(shares: Tensor, values: Tensor) -> Tensor:
    """``shares * values``, where a share of 0 gives 0 even if its value is infinite or NaN."""
    return shares * values.masked_fill((shares == 0) & ~values.isfinite(), 0.0)


def _gathered(values: Tensor, labels: Tensor) -> Tensor:
    """``values.gather(1, labels)``, with a clear error for labels that are not classes."""
    try:
        return values.gather(1, labels)
    except RuntimeError as error:
        check_classes("target", labels, values.shape[1])
        raise error


def _reduced(losses: Tensor, total: Tensor, reduction: Reduction) -> Tensor:
    """The losses, their sum, or their sum divided by ``total``."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if is_readable(total) and total != 0:
        return losses.sum() / total
    mean = losses.sum() / total.masked_fill(total == 0, 1)
    return mean.masked_fill(total == 0, math.nan)  # 0 / 0 would have NaN as its gradient, too
