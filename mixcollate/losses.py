"""What soft targets are trained and measured with: cross-entropy, binary cross-entropy, accuracy."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from mixcollate.checks import check_choice, check_class, check_flag, check_number, check_tensor
from mixcollate.kernels.support import is_differentiated, is_fusible, is_transformed
from mixcollate.targets import SoftTarget

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
    """Cross-entropy with soft targets, dense or sparse; computed in float32, or in float64 for such logits.

    For class indices it is ``F.cross_entropy``. For a :class:`SoftTarget` of one partner and ``reduction="none"`` it is
    ``lam * F.cross_entropy(logits, a) + (1 - lam) * F.cross_entropy(logits, b)`` with ``a, b = target.labels.T`` and
    ``lam = target.shares[:, 0]``; a dense target gives the same as the sparse one that it was made of. Beside
    ``F.cross_entropy`` with class probabilities:

    ======================  ========================================  =====================================
    \\                       here                                      ``F.cross_entropy``
    ======================  ========================================  =====================================
    ``"mean"``              over the total (weighted) share           over the rows
    ``label_smoothing``     spreads each row's own sum                spreads 1 in each row
    share 0 of a -inf logit counts 0                                  NaN
    ``ignore_index``        that class counts nothing                 refused from 0 on
    NaN in the target       left out, if ``ignore_nan``               NaN
    half-precision logits   a float32 loss                            a loss in their dtype
    ======================  ========================================  =====================================

    On a GPU, logits ``[B, num_classes]`` and their target are read once, and once more for the gradient, by a kernel
    each. That gradient has no gradient of its own; with ``weight``, for float64, and for a target that is
    differentiated, too, plain torch computes both.

    Args:
        logits: ``[B, num_classes]`` or ``[B, num_classes, d1, ...]``, floating point.
        target: class indices ``[B, d1, ...]`` (as in evaluation); rows of the shape of ``logits``; or a
            :class:`SoftTarget` whose tensors are ``[B, K, d1, ...]``.
        ignore_index: class index that counts nothing.
        ignore_nan: leave out those entries of a dense target that are NaN.
        label_smoothing: in [0, 1]; leave it at 0 if the targets are smoothed already.
        weight: ``[num_classes]``, a factor for each class.
        reduction: ``"none"``: ``[B, d1, ...]``; ``"sum"``; ``"mean"``: the sum over the total weight of all targets, so
            that ignored labels do not lower it. If nothing counts that is NaN, with a gradient of 0.
    """
    label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)
    check_choice("reduction", reduction, REDUCTIONS)
    ignore_nan = check_flag("ignore_nan", ignore_nan)
    ignore_index = check_class("ignore_index", ignore_index)
    target = _as_target(logits, target)
    labels, shares = target if isinstance(target, SoftTarget) else (None, target)
    fusible = weight is None and logits.ndim == 2 and logits.dtype != torch.float64 and is_fusible(logits)
    if fusible and not is_differentiated(shares):
        from mixcollate.kernels import fused_targets

        if shares.dtype not in (torch.float16, torch.bfloat16):
            shares = shares.to(torch.float32)
        with torch.cuda.device(logits.device):  # Triton launches on the current device; autograd sets it later
            return fused_targets.soft_cross_entropy(
                logits,
                shares,
                labels,
                label_smoothing=label_smoothing,
                ignore_index=ignore_index,
                ignore_nan=ignore_nan,
                reduction=reduction,
            )
    target = _counted(target, ignore_index)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    logs = logits.log_softmax(1, dtype=wide)
    if weight is not None:
        check_tensor("weight", weight)
        if weight.shape != logits.shape[1:2]:
            raise ValueError(f"weight must be [{logits.shape[1]}], one a class, got {tuple(weight.shape)}")
        _check_device("weight", weight, logits)
        weight = weight.to(wide).view(-1, *[1] * (logits.ndim - 2))
    if isinstance(target, SoftTarget):
        shares, there = target.shares.to(wide), _gathered(logs, target.labels)
        counted = shares if weight is None else shares * weight.flatten()[target.labels]
        rows = _product(counted, there).sum(1)
    else:
        shares = target.to(wide)
        counted = shares if weight is None else shares * weight
        usual = (counted * logs).sum(1) if _is_readable(logs) else None
        if usual is not None and usual.isfinite().all():
            rows = usual
        else:  # there may be NaN in the target, or infinities that count nothing
            shares = _without_nan(shares) if ignore_nan else shares
            counted = shares if weight is None else shares * weight
            rows = _product(counted, logs).sum(1)
    if label_smoothing:
        of_all = logs if weight is None else _product(weight, logs)
        spread = _product(shares.sum(1), of_all.sum(1))
        rows = (1 - label_smoothing) * rows + label_smoothing / logits.shape[1] * spread
    return _reduced(-rows, counted.sum(), reduction)


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
    """Binary cross-entropy with soft targets of which some may be missing; in float32 or float64.

    With a whole target it is ``F.binary_cross_entropy_with_logits``.

    Args:
        logits: floating point, of any shape: ``[B, num_classes]``, or ``[B, 1]`` for one logit.
        target: of the same shape, in [0, 1]; NaN where nothing is annotated.
        ignore_nan: leave out those entries that are NaN: their loss and their gradient are 0, and ``"mean"`` does not
            count them.
        label_smoothing: in [0, 1]: targets are drawn towards one half by so much.
        weight: a factor for each entry, and ``pos_weight`` for each entry's positive part; of a shape that ``logits``
            can be broadcast with.
        reduction: ``"none"``: the shape of ``logits``; ``"sum"``; ``"mean"``: over the entries that count. If none
            counts that is NaN, with a gradient of 0.
    """
    check_number("label_smoothing", label_smoothing, 0, 1)
    check_choice("reduction", reduction, REDUCTIONS)
    check_flag("ignore_nan", ignore_nan)
    _check_logits(logits, least=0)
    if isinstance(target, SoftTarget):
        raise TypeError("target must be a tensor, got a SoftTarget; give target.dense(num_classes)")
    check_tensor("target", target)
    _check_device("target", target, logits)
    if target.shape != logits.shape:
        raise ValueError(f"target must have the shape of logits {tuple(logits.shape)}, got {tuple(target.shape)}")
    for name, factor in (("weight", weight), ("pos_weight", pos_weight)):
        _check_factor(name, factor, logits)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    logits, target = logits.to(wide), target.to(wide)
    missing = target.isnan() & ignore_nan
    logits, target = logits.masked_fill(missing, 0.0), target.masked_fill(missing, 0.0)
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, target, weight, pos_weight=pos_weight, reduction="none")
    return _reduced(losses.masked_fill(missing, 0.0), (~missing).sum(), reduction)


def soft_accuracy(logits: Tensor, target: Tensor | SoftTarget, *, ignore_index: int = -100) -> Tensor:
    """The share of the targets that lies on the predicted classes, in [0, 1], as a scalar tensor.

    For class indices this is the accuracy; for mixed targets, mixup's ``lam``-weighted training accuracy.

    Args:
        logits, target, ignore_index: as for :func:`soft_cross_entropy`; what is NaN in a target counts nothing.
    """
    check_class("ignore_index", ignore_index)
    target = _counted(_as_target(logits, target), ignore_index)
    predicted = logits.argmax(1, keepdim=True)
    if isinstance(target, SoftTarget):
        _check_classes(target.labels, logits.shape[1])
        shares, hits = target.shares, target.shares * (target.labels == predicted)
    else:
        shares = _without_nan(target)
        hits = shares.gather(1, predicted)
    wide = torch.float64 if shares.dtype == torch.float64 else torch.float32  # half precision cannot hold their sum
    return hits.sum(dtype=wide) / shares.sum(dtype=wide)


def _as_target(logits: Tensor, target: Tensor | SoftTarget) -> Tensor | SoftTarget:
    """``target`` beside its ``logits``, dense or sparse, which class indices become."""
    _check_logits(logits, least=2)
    batch, _, *places = logits.shape
    if isinstance(target, SoftTarget):
        check_tensor("target.labels", target.labels)
        check_tensor("target.shares", target.shares)
        if target.labels.dtype.is_floating_point:
            raise TypeError(f"target.labels must be class indices, got {target.labels.dtype}")
        wanted = (batch, target.labels.shape[1] if target.labels.ndim > 1 else 1, *places)
        if target.labels.shape != wanted or target.shares.shape != wanted:
            raise ValueError(
                f"target.labels and target.shares must be [B, K, ...] beside logits {tuple(logits.shape)}, got "
                f"{tuple(target.labels.shape)} and {tuple(target.shares.shape)}"
            )
        _check_device("target", target.labels, logits)
        _check_device("target", target.shares, logits)
        return SoftTarget(target.labels.to(torch.int64), target.shares)
    if isinstance(target, tuple):  # what indexing a SoftTarget gives
        raise TypeError("target must be a tensor or a SoftTarget, got a tuple; index its labels and its shares")
    check_tensor("target", target)
    _check_device("target", target, logits)
    if target.ndim == logits.ndim - 1:
        if target.dtype.is_floating_point or target.dtype == torch.bool:
            raise TypeError(f"target must be integers where it is class indices, got {target.dtype}")
        if target.shape != (batch, *places):
            raise ValueError(f"target must be {(batch, *places)}, one index a row of logits, got {tuple(target.shape)}")
        labels = target[:, None].to(torch.int64)
        return SoftTarget(labels, torch.ones_like(labels, dtype=torch.float32))
    if target.shape != logits.shape:
        raise ValueError(f"target must have the shape of logits {tuple(logits.shape)}, got {tuple(target.shape)}")
    return target


def _counted(target: Tensor | SoftTarget, ignore_index: int) -> Tensor | SoftTarget:
    """``target`` with a share of 0 for the class that is to be ignored."""
    if isinstance(target, SoftTarget):
        return target.known(ignore_index)
    if 0 <= ignore_index < target.shape[1]:
        ignored = torch.arange(target.shape[1], device=target.device) == ignore_index
        target = target.masked_fill(ignored.view(-1, *[1] * (target.ndim - 2)), 0)
    return target


def _check_logits(logits: Tensor, least: int) -> None:
    check_tensor("logits", logits)
    if logits.ndim < least:
        raise ValueError(f"logits must be [B, num_classes] or [B, num_classes, d1, ...], got {tuple(logits.shape)}")
    if least == 2 and logits.shape[1] < 2:
        raise ValueError(
            f"logits must be of two classes or more, got {tuple(logits.shape)}: the softmax of one is always 1, so for "
            "one logit take soft_binary_cross_entropy"
        )
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits must be floating point, got {logits.dtype}")


def _check_device(name: str, part: Tensor, logits: Tensor) -> None:
    if part.device != logits.device:
        raise ValueError(f"{name} must be on {logits.device} as the logits are, got {part.device}; move it there")


def _check_factor(name: str, factor: Tensor | None, logits: Tensor) -> None:
    if factor is None:
        return
    check_tensor(name, factor)
    if factor.ndim:  # a number may be anywhere
        _check_device(name, factor, logits)
    sides = zip(reversed(factor.shape), reversed(logits.shape), strict=False)
    if factor.ndim > logits.ndim or any(side not in (1, whole) for side, whole in sides):
        raise ValueError(f"{name} must broadcast with logits {tuple(logits.shape)}, got {tuple(factor.shape)}")


def _without_nan(target: Tensor) -> Tensor:
    """A dense target in which what is NaN counts nothing."""
    return target.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf) if target.is_floating_point() else target


def _is_readable(values: Tensor) -> bool:
    """Whether values can be looked at here and now: not on a GPU, nor while they are traced or stand for others."""
    return values.device.type == "cpu" and not (torch.compiler.is_compiling() or is_fake(values) or is_transformed())


def _product(shares: Tensor, values: Tensor) -> Tensor:
    """``shares * values`` in which a share of 0 counts 0, beside infinities and NaN too."""
    return shares * values.masked_fill((shares == 0) & ~values.isfinite(), 0.0)


def _gathered(values: Tensor, labels: Tensor) -> Tensor:
    """``values.gather(1, labels)``, with a clear message for labels that are no classes."""
    try:
        return values.gather(1, labels)
    except RuntimeError as error:
        _check_classes(labels, values.shape[1])
        raise error


def _check_classes(labels: Tensor, classes: int) -> None:
    """Refuse labels that are no classes, where their values can be read."""
    if not _is_readable(labels):
        return
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(f"target must hold classes in 0 … {classes - 1} or ignore_index, got {int(wrong[0])}")


def _reduced(losses: Tensor, total: Tensor, reduction: Reduction) -> Tensor:
    """The losses, their sum, or that over their ``total`` weight."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    mean = losses.sum() / total.masked_fill(total == 0, 1)
    return mean.masked_fill(total == 0, math.nan)  # 0 / 0 would have NaN as its gradient, too
