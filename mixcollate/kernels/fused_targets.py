"""Soft targets and their cross-entropy in Triton, from a few labels a row, whatever the number of classes."""

# mypy: disable-error-code="attr-defined, no-untyped-call, call-arg, arg-type, assignment, misc, var-annotated"
# (to mypy a kernel is a plain function, and constexpr a class without attributes)

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixcollate.kernels.launch import launch
from mixcollate.kernels.packed import PackedPlan


def soft_targets(
    labels: Tensor, plan: PackedPlan, *, num_classes: int, label_smoothing: float = 0.0, ignore_index: int = -100
) -> Tensor:
    """``[B, num_classes]`` float32 in one launch. Rows sum to one, less what belongs to ignored labels.

    Args:
        labels: ``[B]`` class indices.
        plan: of one pass, on the device of the labels.
    """
    batch, several = len(plan), plan.layout.partner_count
    out = torch.empty(batch, num_classes, dtype=torch.float32, device=labels.device)
    if out.numel() > 0:
        block = min(triton.next_power_of_2(num_classes), 1024)
        partners = plan.layout.table
        launch(
            soft_targets_kernel,
            (batch, -(-num_classes // block), 1),
            (labels.contiguous(), plan.words, out),
            (partners, partners + batch * several, 1.0 - label_smoothing, label_smoothing / num_classes, ignore_index),
            (num_classes, 1 + several, label_smoothing > 0, block),
            enable_fp_fusion=False,
        )
    return out


@triton.jit
def soft_targets_kernel(
    labels_ptr,
    plan_ptr,
    out_ptr,
    partners,
    shares,
    kept,
    spread,
    ignore_index,
    CLASSES: tl.constexpr,
    SOURCES: tl.constexpr,
    SMOOTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program writes a block of classes of one row; the same class twice adds up."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    values = tl.zeros([BLOCK], tl.float32)
    total = 0.0
    for s in tl.static_range(SOURCES):
        source = row
        if s > 0:
            source = tl.load(plan_ptr + partners + row * (SOURCES - 1) + (s - 1)).to(tl.int64)
        share = tl.load(plan_ptr + shares + row * SOURCES + s).to(tl.float32, bitcast=True)
        label = tl.load(labels_ptr + source).to(tl.int64)  # a narrower type may not hold the classes
        label, share = _known(label, share, ignore_index, CLASSES)
        values += tl.where(column == label, share, 0.0)
        total += share
    if SMOOTH:
        values = kept * values + spread * total
    values = tl.where((column < CLASSES) & (tl.zeros_like(values) + total == float("inf")), float("inf"), values)
    tl.store(out_ptr + row * CLASSES + column, values, mask=column < CLASSES)


@triton.jit
def _known(label, share, ignore_index, CLASSES: tl.constexpr):
    """A label and its share: 0 if it is ignored, infinite if there is no such class, so that the loss shows it (NaN
    would be left out, as what is not annotated).
    """
    share = tl.where((label >= 0) & (label < CLASSES), share, float("inf"))
    return label, tl.where(label == ignore_index, 0.0, share)


@triton.jit
def _label(labels_ptr, shares_ptr, place, ignore_index, CLASSES: tl.constexpr):
    return _known(tl.load(labels_ptr + place), tl.load(shares_ptr + place), ignore_index, CLASSES)


def soft_cross_entropy(
    logits: Tensor, labels: Tensor, shares: Tensor, *, label_smoothing: float = 0.0, ignore_index: int = -100
) -> Tensor:
    """``[B]`` float32: the cross-entropy of each row of ``logits [B, num_classes]`` with its sparse soft target.

    Reads the logits once, and for the gradient once more; no ``[B, num_classes]`` target is made.

    Args:
        logits: float16, bfloat16 or float32; the gradient has its dtype.
        labels: ``[B, S]`` class indices.
        shares: ``[B, S]`` float32, through which no gradient flows.
    """
    loss: Tensor = _SoftCrossEntropy.apply(logits, labels, shares, label_smoothing, ignore_index)
    return loss


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, shares, label_smoothing, ignore_index):
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        labels, shares = labels.contiguous(), shares.contiguous()
        batch, classes = logits.shape
        loss, log_sum = (torch.empty(batch, dtype=torch.float32, device=logits.device) for _ in range(2))
        smoothing = (1.0 - label_smoothing, label_smoothing / max(classes, 1))
        if batch > 0:
            block, warps = _row_block(classes)
            launch(
                cross_entropy_kernel,
                (batch, 1, 1),
                (logits, labels, shares, loss, log_sum),
                (logits.stride(0), *smoothing, ignore_index),
                (classes, shares.shape[1], label_smoothing > 0, block),
                num_warps=warps,
                enable_fp_fusion=True,
            )
        ctx.save_for_backward(logits, labels, shares, log_sum)
        ctx.smoothing, ctx.ignore_index = smoothing, ignore_index
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss):
        logits, labels, shares, log_sum = ctx.saved_tensors
        batch, classes = logits.shape
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        if batch > 0:
            block = min(triton.next_power_of_2(classes), 2048)
            launch(
                cross_entropy_gradient_kernel,
                (batch, -(-classes // block), 1),
                (logits, labels, shares, log_sum, grad_loss, grad),
                (logits.stride(0), grad_loss.stride(0), *ctx.smoothing, ctx.ignore_index),
                (classes, shares.shape[1], block),
                enable_fp_fusion=True,
            )
        return grad, None, None, None, None


def _row_block(classes: int) -> tuple[int, int]:
    """How many classes a program reads at a time, and its warps: the whole row in registers, if it is short."""
    block = min(triton.next_power_of_2(classes), 8192)
    return block, 4 if block <= 2048 else 8


@triton.jit
def cross_entropy_kernel(
    logits_ptr,
    labels_ptr,
    shares_ptr,
    loss_ptr,
    log_sum_ptr,
    row_stride,
    kept,
    spread,
    ignore_index,
    CLASSES: tl.constexpr,
    SOURCES: tl.constexpr,
    SMOOTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program reads one row once, with a running maximum, and writes its loss and the logarithm of its sum."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    top = -float("inf")
    total = 0.0
    plain = 0.0
    for start in range(0, CLASSES, BLOCK):
        column = start + tl.arange(0, BLOCK)
        live = column < CLASSES
        logits = tl.load(row_ptr + column, mask=live, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(tl.maximum(top, tl.max(logits, 0)), -3e38)  # finite, even if a block is all -inf
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher), 0)
        if SMOOTH:
            plain += tl.sum(tl.where(live, logits, 0.0), 0)
        top = higher
    log_sum = top + tl.log(total)
    loss = 0.0
    known = 0.0
    for s in tl.static_range(SOURCES):
        label, share = _label(labels_ptr, shares_ptr, row * SOURCES + s, ignore_index, CLASSES)
        here = (share != 0) & (label >= 0) & (label < CLASSES)
        logit = tl.load(row_ptr + label, mask=here, other=0.0).to(tl.float32)
        loss += tl.where(share != 0, kept * share * (log_sum - logit), 0.0)
        known += share
    if SMOOTH:
        loss += tl.where(known != 0, spread * known * (CLASSES * log_sum - plain), 0.0)
    loss = tl.where(known == float("inf"), float("inf"), loss)
    tl.store(loss_ptr + row, loss)
    tl.store(log_sum_ptr + row, log_sum)


@triton.jit
def cross_entropy_gradient_kernel(
    logits_ptr,
    labels_ptr,
    shares_ptr,
    log_sum_ptr,
    grad_loss_ptr,
    grad_ptr,
    row_stride,
    grad_loss_stride,
    kept,
    spread,
    ignore_index,
    CLASSES: tl.constexpr,
    SOURCES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program writes a block of classes of one row: the row's share of softmax, less its target."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = column < CLASSES
    logits = tl.load(logits_ptr + row * row_stride + column, mask=live, other=-float("inf")).to(tl.float32)
    target = tl.zeros([BLOCK], tl.float32)
    known = 0.0
    for s in tl.static_range(SOURCES):
        label, share = _label(labels_ptr, shares_ptr, row * SOURCES + s, ignore_index, CLASSES)
        target += tl.where(column == label, share, 0.0)
        known += share
    softmax = tl.exp(logits - tl.load(log_sum_ptr + row))
    grad = known * softmax - (kept * target + spread * known)
    grad = tl.where(tl.zeros_like(grad) + known != 0, grad, 0.0)  # a row without a label, whatever its logits are
    grad = grad * tl.load(grad_loss_ptr + row * grad_loss_stride)
    tl.store(grad_ptr + row * CLASSES + column, grad.to(grad_ptr.dtype.element_ty), mask=live)
