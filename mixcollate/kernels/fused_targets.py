"""Soft targets and their cross-entropy in Triton, whatever the number of classes."""

# ruff: noqa: RUF005 - Triton adds tuples, but does not unpack them
# mypy: disable-error-code="attr-defined, no-untyped-call, call-arg, arg-type, assignment, misc, var-annotated"
# (to mypy a kernel is a plain function, and constexpr a class without attributes)

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixcollate.kernels.launch import launch
from mixcollate.kernels.packed import PackedPlan

BLOCK = 512  # numbers of a row per iteration: 16 bytes for each thread of 4 warps
UNSPECIALISED = ("batch", "partners")  # parameters; or the last batch of an epoch would be compiled for anew


class Rows(NamedTuple):
    """Compile-time constants of soft targets.

    Attributes:
        kind: ``"dense"``: rows of shares from class indices; ``"sparse"``: class indices and their shares; ``"mixed"``:
            a weighted sum of rows; ``""``: no targets.
        sources: number of labels that a target is made of.
        classes: length of a row.
        kept: factor that label smoothing applies to a row.
        spread: share of the row's sum that label smoothing adds to each class.
        ignore_index: class index that stands for no label.
        block: how many numbers of a row a program handles per iteration.
    """

    kind: str = ""
    sources: int = 1
    classes: int = 1
    kept: float = 1.0
    spread: float = 0.0
    ignore_index: int = -100
    block: int = 1

    __hash__ = object.__hash__  # there is one object for each rule


NO_ROWS = Rows()


class UnwrittenTargets(NamedTuple):
    """Soft targets that are not written yet: extra programs of the images' launch will do it, or :meth:`write`.

    Attributes:
        labels: ``[B]`` class indices, or rows of numbers ``[B, ...]``, dense in memory.
        plan: a plan of one pass, on the same device.
        out: float32 rows ``[B, num_classes]``, or with the shape of ``labels``; for sparse targets ``[B, S]`` int64.
        shares: for sparse targets ``[B, S]`` float32; else ``out`` again.
        rows: compile-time constants.
    """

    labels: Tensor
    plan: PackedPlan
    out: Tensor
    shares: Tensor
    rows: Rows

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors that a kernel takes, after the plan's words."""
        return self.labels, self.out, self.shares

    @property
    def numbers(self) -> tuple[int, int]:
        """The number of targets, and the offset of their partners in the plan's words."""
        return len(self.labels), self.plan.layout.table

    def write(self) -> None:
        """Write them, in a separate launch."""
        if self.out.numel() > 0:
            grid = (len(self.labels), 1, 1)
            tensors = (self.plan.words, *self.tensors)
            launch(soft_targets_kernel, grid, tensors, self.numbers, (self.rows,), enable_fp_fusion=False)


def prepare_dense(
    labels: Tensor, plan: PackedPlan, *, num_classes: int, label_smoothing: float = 0.0, ignore_index: int = -100
) -> UnwrittenTargets:
    """``[B, num_classes]`` float32 from class indices ``[B]``. Rows sum to one, minus the shares of ignored labels."""
    out = torch.empty(len(labels), num_classes, dtype=torch.float32, device=labels.device)
    rows = _rows_of("dense", plan.layout.partner_count, num_classes, label_smoothing, ignore_index)
    return UnwrittenTargets(labels.contiguous(), plan, out, out, rows)


def prepare_sparse(labels: Tensor, plan: PackedPlan) -> UnwrittenTargets:
    """``[B, S]`` int64 and float32: the class indices of each image and its partners, and their shares."""
    shape = len(labels), 1 + plan.layout.partner_count
    out = torch.empty(shape, dtype=torch.int64, device=labels.device)
    shares = torch.empty(shape, dtype=torch.float32, device=labels.device)
    return UnwrittenTargets(labels.contiguous(), plan, out, shares, _rows_of("sparse", plan.layout.partner_count))


def prepare_mixed(labels: Tensor, plan: PackedPlan, *, label_smoothing: float = 0.0) -> UnwrittenTargets:
    """The sum of rows ``[B, ...]``, weighted by their shares, as float32."""
    labels = labels.contiguous()
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    out = torch.empty(labels.shape, dtype=torch.float32, device=labels.device)
    count = labels.numel() // max(len(labels), 1)
    return UnwrittenTargets(
        labels, plan, out, out, _rows_of("mixed", plan.layout.partner_count, count, label_smoothing)
    )


@functools.lru_cache(maxsize=256)
def _rows_of(
    kind: str, partners: int, classes: int = 1, label_smoothing: float = 0.0, ignore_index: int = -100
) -> Rows:
    """The constants of a rule, made only once."""
    return Rows(
        kind=kind,
        sources=1 + partners,
        classes=classes,
        kept=1.0 - label_smoothing,
        spread=label_smoothing / max(classes, 1),
        ignore_index=ignore_index,
        block=min(triton.next_power_of_2(max(classes, 1)), BLOCK),
    )


@triton.jit(do_not_specialize=UNSPECIALISED)
def soft_targets_kernel(plan_ptr, labels_ptr, out_ptr, shares_ptr, batch, partners, ROWS: tl.constexpr):
    """One program writes the soft target of one image."""
    write_soft_target(tl.program_id(0), batch, partners, plan_ptr, labels_ptr, out_ptr, shares_ptr, ROWS)


@triton.jit
def write_soft_target(row, batch, partners, plan_ptr, labels_ptr, out_ptr, shares_ptr, ROWS: tl.constexpr):
    """Write the soft target of one image, from its own label and those of its partners."""
    count: tl.constexpr = ROWS.sources
    row = row.to(tl.int64)
    partners_ptr = plan_ptr + partners
    share_ptr = partners_ptr + batch * (count - 1) + row * count
    sources = (row,)
    shares = ()
    for s in tl.static_range(count):
        if s > 0:
            sources = sources + (tl.load(partners_ptr + row * (count - 1) + (s - 1)).to(tl.int64),)
        shares = shares + (tl.load(share_ptr + s).to(tl.float32, bitcast=True),)
    if ROWS.kind == "sparse":
        for s in tl.static_range(count):
            tl.store(out_ptr + row * count + s, tl.load(labels_ptr + sources[s]).to(tl.int64))
            tl.store(shares_ptr + row * count + s, shares[s])
    elif ROWS.kind == "dense":
        _write_classes(out_ptr + row * ROWS.classes, labels_ptr, sources, shares, ROWS)
    else:
        _write_mixed_row(out_ptr + row * ROWS.classes, labels_ptr, sources, shares, ROWS)


@triton.jit
def _write_classes(row_ptr, labels_ptr, sources, shares, ROWS: tl.constexpr):
    """Write the share of each class; the shares of equal labels add up."""
    count: tl.constexpr = ROWS.sources
    ignored: tl.constexpr = ROWS.ignore_index  # Triton 3.5 passes constants to functions by a name alone
    classes: tl.constexpr = ROWS.classes
    labels = ()
    known = ()
    total = 0.0
    for s in tl.static_range(count):
        label = tl.load(labels_ptr + sources[s]).to(tl.int64)  # num_classes may not fit a narrower type
        share = _known_share(label, shares[s], ignored, classes)
        labels = labels + (label.to(tl.int32),)  # exact for classes; for others the share is 0 or infinite
        known = known + (share,)
        total += share
    for start in range(0, ROWS.classes, ROWS.block):
        column = start + tl.arange(0, ROWS.block)
        values = tl.full([ROWS.block], 0.0, tl.float32)
        for s in tl.static_range(count):
            values += tl.where(column == labels[s], known[s], 0.0)
        if ROWS.spread > 0:
            values = ROWS.kept * values + ROWS.spread * total
        values = tl.where(tl.zeros_like(values) + total == float("inf"), float("inf"), values)
        tl.store(row_ptr + column, values, mask=column < ROWS.classes)


@triton.jit
def _write_mixed_row(row_ptr, labels_ptr, sources, shares, ROWS: tl.constexpr):
    """Write a weighted sum of rows; NaN stays NaN, and does not count in the sum that smoothing spreads."""
    total = 0.0
    if ROWS.spread > 0:
        for start in range(0, ROWS.classes, ROWS.block):
            values = _mixed_numbers(start, labels_ptr, sources, shares, ROWS)
            total += tl.sum(tl.where(values == values, values, 0.0), 0)
    for start in range(0, ROWS.classes, ROWS.block):
        values = _mixed_numbers(start, labels_ptr, sources, shares, ROWS)
        if ROWS.spread > 0:
            values = ROWS.kept * values + ROWS.spread * total
        column = start + tl.arange(0, ROWS.block)
        tl.store(row_ptr + column, values, mask=column < ROWS.classes)


@triton.jit
def _mixed_numbers(start, labels_ptr, sources, shares, ROWS: tl.constexpr):
    """A block of a weighted sum of rows. A share of 0 gives 0, even of NaN or infinity."""
    count: tl.constexpr = ROWS.sources
    column = start + tl.arange(0, ROWS.block)
    values = tl.full([ROWS.block], 0.0, tl.float32)
    for s in tl.static_range(count):
        source_ptr = labels_ptr + sources[s] * ROWS.classes
        numbers = tl.load(source_ptr + column, mask=column < ROWS.classes, other=0).to(tl.float32)
        values += tl.where(tl.zeros_like(numbers) + shares[s] == 0, 0.0, numbers * shares[s])
    return values


@triton.jit
def _known_share(label, share, ignore_index, CLASSES: tl.constexpr):
    """The share of a label: 0 if it is ignored, infinite if it is not a class, so that the loss shows it. (NaN would be
    ignored like a missing label.)
    """
    share = tl.where((label >= 0) & (label < CLASSES), share, float("inf"))
    return tl.where(label == ignore_index, 0.0, share)


def soft_cross_entropy(
    logits: Tensor,
    shares: Tensor,
    labels: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    ignore_nan: bool = True,
    reduction: str = "none",
    plain: Callable[..., Tensor] | None = None,
) -> Tensor:
    """The float32 cross-entropy of each row of ``logits [B, num_classes]`` with its soft target.

    Reads the logits and the shares once, and once more for the gradient; allocates nothing else of their size.

    Args:
        logits: float16, bfloat16 or float32; the gradient has its dtype.
        shares: ``[B, S]``, for the classes in ``labels``, or ``[B, num_classes]``; float16, bfloat16 or float32. They
            get no gradient.
        labels: ``[B, S]`` class indices.
        label_smoothing, ignore_index, reduction: see :func:`mixcollate.soft_cross_entropy`.
        ignore_nan: ignore shares ``[B, num_classes]`` that are NaN.
        plain: computes the same from ``logits, shares, labels`` in torch, for a gradient that is differentiated again.
    """
    rule = label_smoothing, ignore_index, ignore_nan, reduction, plain
    loss: Tensor = _SoftCrossEntropy.apply(logits, shares, labels, *rule)
    return loss


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, given, shares, labels, label_smoothing, ignore_index, ignore_nan, reduction, plain):
        logits, shares = _with_dense_rows(given), _with_dense_rows(shares)
        dense = labels is None
        labels = shares if dense else labels.contiguous()
        batch, classes = logits.shape
        losses, counted = (torch.empty(batch, dtype=torch.float32, device=logits.device) for _ in range(2))
        scale = torch.empty(batch, 2, dtype=torch.float32, device=logits.device)
        ctx.rule = 1.0 - label_smoothing, label_smoothing / max(classes, 1), ignore_index
        ctx.constants = classes, dense, 0 if dense else shares.shape[1], ignore_nan
        if batch > 0:
            block, warps = _row_block(classes, dense)
            launch(
                cross_entropy_kernel,
                (batch, 1, 1),
                (logits, shares, labels, losses, counted, scale),
                (logits.stride(0), shares.stride(0), *ctx.rule),
                (*ctx.constants, label_smoothing > 0, block),
                num_warps=warps,
                enable_fp_fusion=True,
            )
        ctx.mean, ctx.plain = reduction == "mean", plain
        total = counted.sum() if ctx.mean else counted
        ctx.save_for_backward(given, shares, labels, counted, scale, total)
        if reduction == "none":
            return losses
        return losses.sum() / total if ctx.mean else losses.sum()  # NaN without any label, as documented

    @staticmethod
    def backward(ctx, grad_loss):
        # hooks may bring them back with other strides, as torch.autograd.graph.save_on_cpu does
        logits, shares, *others = ctx.saved_tensors
        again = torch.is_grad_enabled()  # for create_graph=True: what a kernel writes would be a constant
        if again or not torch._C._has_storage(grad_loss):  # for is_grads_batched=True a kernel could not read it
            with torch.enable_grad():
                loss = ctx.plain(logits, shares, None if ctx.constants[1] else others[0])
            return *torch.autograd.grad(loss, logits, grad_loss, create_graph=again), *[None] * 7
        logits, shares = _with_dense_rows(logits), _with_dense_rows(shares)
        labels, counted, scale, total = [tensor.contiguous() for tensor in others]
        batch, classes = logits.shape
        grad_losses = grad_loss.expand(batch)
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        if batch > 0:
            block = _gradient_block(classes)
            launch(
                cross_entropy_gradient_kernel,
                (batch, -(-classes // block), 1),
                (logits, shares, labels, counted, scale, total, grad_losses, grad),
                (logits.stride(0), shares.stride(0), *ctx.rule, grad_losses.stride(0)),
                (*ctx.constants, ctx.mean, block),
                enable_fp_fusion=True,
            )
        return grad, *[None] * 7


def _with_dense_rows(rows):
    """The same rows, each contiguous; they need not follow each other."""
    return rows if rows.stride(1) == 1 else rows.contiguous()


@functools.lru_cache(maxsize=256)  # Triton takes 7 to 12 µs for a power of two
def _row_block(classes: int, dense: bool) -> tuple[int, int]:
    """How many classes a program reads per iteration, and its warps: a short row is read at once into registers. Dense
    shares need registers, too, and many small programs run at once, so that some read while others compute.
    """
    block = min(triton.next_power_of_2(classes), 2048 if dense else 8192)
    return block, 4 if block <= 2048 else 8


@functools.lru_cache(maxsize=256)
def _gradient_block(classes: int) -> int:
    """How many classes of a row one program writes the gradient of."""
    block: int = min(triton.next_power_of_2(classes), 2048)
    return block


@triton.jit
def _counted_shares(shares, column, ignore_index, IGNORE_NAN: tl.constexpr):
    """A block of a row of shares, in which ignored ones are 0."""
    if IGNORE_NAN:
        shares = tl.where(shares == shares, shares, 0.0)
    return tl.where(column == ignore_index, 0.0, shares)


@triton.jit
def cross_entropy_kernel(
    logits_ptr,
    shares_ptr,
    labels_ptr,
    losses_ptr,
    counted_ptr,
    scale_ptr,
    row_stride,
    shares_stride,
    kept,
    spread,
    ignore_index,
    CLASSES: tl.constexpr,
    DENSE: tl.constexpr,
    SOURCES: tl.constexpr,
    IGNORE_NAN: tl.constexpr,
    SMOOTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program reads one row once, with a running maximum that is subtracted first, so that large logits lose no
    precision. It writes the row's loss and the sum of its shares; and for the gradient its maximum, and the factor that
    turns ``exp(logit - maximum)`` into its softmax. (Their log-sum-exp would be one number, but rounded like a logit.)
    """
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    row_shares_ptr = shares_ptr + row * shares_stride
    top = -3.4028234663852886e38  # the lowest finite number, so that a block of -inf gives no NaN
    total = 0.0
    below = 0.0  # sum of top - logit
    loss = 0.0  # the same, weighted by the shares
    known = 0.0
    for start in range(0, CLASSES, BLOCK):
        column = start + tl.arange(0, BLOCK)
        live = column < CLASSES
        logits = tl.load(row_ptr + column, mask=live, other=-float("inf")).to(tl.float32)
        if DENSE:  # loaded here, so that both loads are under way before the reductions
            given = tl.load(row_shares_ptr + column, mask=live, other=0.0).to(tl.float32)
        higher = tl.maximum(top, tl.max(logits, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher), 0)
        if SMOOTH:
            rise = tl.where(start > 0, higher - top, 0.0)  # from the lowest number it may be infinite
            below += start * rise + tl.sum(tl.where(live, higher - logits, 0.0), 0)
        if DENSE:
            shares = _counted_shares(given, column, ignore_index, IGNORE_NAN)
            loss += known * tl.where(known != 0, higher - top, 0.0)
            loss += tl.sum(shares * tl.where(shares != 0, higher - logits, 0.0), 0)
            known += tl.sum(shares, 0)
        top = higher
    log_total = tl.log(total)
    counted = known
    for s in tl.static_range(SOURCES):
        given = tl.load(row_shares_ptr + s).to(tl.float32)
        label = tl.load(labels_ptr + row * SOURCES + s)
        share = _known_share(label, given, ignore_index, CLASSES)
        here = (share != 0) & (label >= 0) & (label < CLASSES)
        logit = tl.load(row_ptr + label, mask=here, other=0.0).to(tl.float32)
        loss += share * tl.where(share != 0, top - logit, 0.0)
        known += share
        counted += tl.where(share != 0, given, 0.0)
    loss = kept * (loss + known * tl.where(known != 0, log_total, 0.0))
    if SMOOTH:
        loss += spread * known * tl.where(known != 0, CLASSES * log_total + below, 0.0)
    loss = tl.where(known == float("inf"), float("inf"), loss)
    tl.store(losses_ptr + row, loss)
    tl.store(counted_ptr + row, counted)
    tl.store(scale_ptr + 2 * row, top)
    tl.store(scale_ptr + 2 * row + 1, 1.0 / total)


@triton.jit
def cross_entropy_gradient_kernel(
    logits_ptr,
    shares_ptr,
    labels_ptr,
    counted_ptr,
    scale_ptr,
    total_ptr,
    grad_losses_ptr,
    grad_ptr,
    row_stride,
    shares_stride,
    kept,
    spread,
    ignore_index,
    grad_losses_stride,
    CLASSES: tl.constexpr,
    DENSE: tl.constexpr,
    SOURCES: tl.constexpr,
    IGNORE_NAN: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program writes a block of classes of one row: softmax minus target, times the gradient of the loss."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = column < CLASSES
    logits = tl.load(logits_ptr + row * row_stride + column, mask=live, other=-float("inf")).to(tl.float32)
    grad_loss = tl.load(grad_losses_ptr + row * grad_losses_stride)
    if MEAN:
        total = tl.load(total_ptr)
        grad_loss = grad_loss / tl.where(total != 0, total, float("inf"))  # a mean over nothing has gradient 0
    row_shares_ptr = shares_ptr + row * shares_stride
    # factors of the whole row are multiplied once, so that each class takes a few instructions instead of thirty
    if DENSE:
        known = tl.load(counted_ptr + row)
        shares = tl.load(row_shares_ptr + column, mask=live, other=0.0).to(tl.float32)
        target = kept * grad_loss * _counted_shares(shares, column, ignore_index, IGNORE_NAN)
    else:
        known = 0.0
        target = tl.full([BLOCK], 0.0, tl.float32)
    for s in tl.static_range(SOURCES):
        label = tl.load(labels_ptr + row * SOURCES + s)
        share = _known_share(label, tl.load(row_shares_ptr + s).to(tl.float32), ignore_index, CLASSES)
        target += tl.where(column == label.to(tl.int32), kept * share * grad_loss, 0.0)
        known += share
    of_all = known * grad_loss
    factor = tl.where(known != 0, of_all * tl.load(scale_ptr + 2 * row + 1), 0.0)
    softmax = tl.exp(logits - tl.load(scale_ptr + 2 * row))  # without its factor
    softmax = tl.where(tl.zeros_like(softmax) + known != 0, softmax, 0.0)  # also for NaN logits in a row without labels
    grad = factor * softmax - (target + spread * of_all)
    tl.store(grad_ptr + row * CLASSES + column, grad.to(grad_ptr.dtype.element_ty), mask=live)
