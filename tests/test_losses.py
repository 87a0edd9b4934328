"""The losses and the accuracy of soft targets, against torch's own losses and plain formulas in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import mixcollate as mc
from mixcollate.targets import mix_targets
from tests.test_targets import SETTINGS, plans, under


def by_formula(logits: Tensor, target: Tensor, *, weight: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """The losses of rows ``[B, C]``, in float64: one class at a time, those without a share left out."""
    losses = []
    for row, shares in zip(logits.double(), target.double(), strict=True):
        loss, spread = torch.zeros((), dtype=torch.float64), label_smoothing / len(row) * float(shares.nansum())
        for c, share in enumerate(shares.nan_to_num(0.0).tolist()):
            share = (1 - label_smoothing) * share + spread
            factor = share if weight is None else share * float(weight[c])
            if factor:
                loss = loss + factor * (row.logsumexp(0) - row[c])
        losses.append(loss)
    return torch.stack(losses)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_indices_give_torchs_loss(weighted, reduction, device):
    logits = torch.randn(8, 5, device=device, requires_grad=True)
    labels = torch.tensor([0, 1, 4, -100, 2, 2, -100, 3], device=device)
    weight = torch.rand(5, device=device) if weighted else None
    wanted = F.cross_entropy(logits, labels, weight=weight, reduction=reduction)
    got = mc.soft_cross_entropy(logits, labels, weight=weight, reduction=reduction)
    torch.testing.assert_close(got, wanted)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (got, wanted)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["one partner", "three partners", "two passes"])
def test_dense_and_sparse_targets_give_torchs_probability_loss(name, device):
    plan, labels = plans()[name], torch.tensor([0, 3, 3, 1, 4, 0], device=device)
    logits = torch.randn(6, 5, device=device, requires_grad=True)
    dense = mix_targets(labels, plan, num_classes=5)
    sparse = mix_targets(labels, plan, num_classes=5, targets="sparse")
    wanted = F.cross_entropy(logits, dense)
    (gradient,) = torch.autograd.grad(wanted, logits)
    for target in (dense, sparse):
        got = mc.soft_cross_entropy(logits, target)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(torch.autograd.grad(got, logits)[0], gradient)


def test_loss_of_half_precision_logits_is_float32():
    logits, labels = torch.randn(6, 1000, dtype=torch.bfloat16), torch.full((6,), 999)
    loss = mc.soft_cross_entropy(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), labels))


def test_soft_accuracy_is_the_share_on_the_predicted_class():
    logits = torch.eye(4)
    sparse = mc.SoftTarget(torch.tensor([[0, 1], [1, 1], [0, 2], [-100, 3]]), torch.tensor([[0.7, 0.3]] * 4))
    accuracy = (0.7 + 1.0 + 0.3 + 0.3) / 3.3
    assert float(mc.soft_accuracy(logits, sparse)) == pytest.approx(accuracy)
    assert float(mc.soft_accuracy(logits, sparse.dense(4))) == pytest.approx(accuracy)
    assert float(mc.soft_accuracy(logits, torch.tensor([0, 1, 3, 3]))) == 0.75


def test_soft_accuracy_leaves_missing_entries_out():
    target = torch.tensor([[0.5, math.nan, 0.5], [math.nan] * 3, [math.nan, 1, 0]])
    assert mc.soft_accuracy(torch.eye(3)[[0, 1, 1]], target) == 0.75
    assert mc.soft_accuracy(torch.eye(3)[[1, 1, 1]], target) == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_soft_accuracy_of_many_targets_in_half_precision(dtype):
    """Whose sum is more than their dtype can hold."""
    logits, rows = torch.zeros(70_000, 3), torch.full((70_000, 3), 0.25)
    sparse = mc.SoftTarget(torch.zeros(70_000, 2, dtype=torch.int64), torch.full((70_000, 2), 0.5))
    assert mc.soft_accuracy(logits, rows.to(dtype)) == pytest.approx(1 / 3)
    assert mc.soft_accuracy(logits, sparse._replace(shares=sparse.shares.to(dtype))) == 1
    assert mc.soft_accuracy(logits, rows.double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_a_sparse_target_may_be_narrow(dtype):
    logits, labels, shares = torch.randn(4, 5), torch.tensor([[0, 4]] * 4), torch.full((4, 2), 0.5)
    wanted = mc.soft_cross_entropy(logits, mc.SoftTarget(labels, shares))
    assert mc.soft_cross_entropy(logits, mc.SoftTarget(labels.to(dtype), shares)) == wanted


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-13)], ids=str)
def test_losses_are_those_of_the_formula(dtype, tolerance, weighted, label_smoothing):
    """In float64 to its last digits: shares are widened before anything is added up."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(6, 5, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.rand(5, generator=generator).to(dtype) if weighted else None
    options = {"label_smoothing": label_smoothing, "weight": weight}
    labels = torch.tensor([0, 3, -100, 1, 4, 0])
    for plan in plans().values():
        sparse = mix_targets(labels, plan, targets="sparse")
        dense = torch.zeros(6, 5, dtype=torch.float64)
        for i, (row, shares) in enumerate(zip(sparse.labels.tolist(), sparse.shares.tolist(), strict=True)):
            for c, share in zip(row, shares, strict=True):
                if c >= 0:
                    dense[i, c] += share
        wanted = by_formula(logits, dense, **options)
        total = dense.sum() if weight is None else (dense * weight).sum()
        (gradient,) = torch.autograd.grad(wanted.sum(), logits)
        for target in (sparse, dense):
            losses = mc.soft_cross_entropy(logits, target, reduction="none", **options)
            assert losses.dtype == dtype
            torch.testing.assert_close(losses.double(), wanted, rtol=tolerance, atol=tolerance)
            mean = mc.soft_cross_entropy(logits, target, **options)
            torch.testing.assert_close(mean.double(), wanted.sum() / total, rtol=tolerance, atol=tolerance)
            (got,) = torch.autograd.grad(losses.sum(), logits)
            torch.testing.assert_close(got, gradient, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("places", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("ignore_index", [-100, 2, 255])
def test_indices_give_torchs_loss(places, weighted, reduction, label_smoothing, ignore_index):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(5, 7, *places, generator=generator).requires_grad_()
    labels = torch.randint(7, (5, *places), generator=generator)
    labels[1] = labels.view(-1)[-1] = ignore_index
    weight = torch.rand(7, generator=generator) if weighted else None
    options = {
        "weight": weight, "reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": ignore_index
    }  # fmt: skip
    losses = [loss(logits, labels, **options) for loss in (mc.soft_cross_entropy, F.cross_entropy)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*[torch.autograd.grad(loss.sum(), logits)[0] for loss in losses])
    one_hot = F.one_hot(labels.clamp(0, 6), 7).movedim(-1, 1).float() * (labels != ignore_index)[:, None]
    dense = mc.soft_cross_entropy(logits, one_hot, **options)  # the same with weights, too
    torch.testing.assert_close(dense, losses[1])


@pytest.mark.parametrize("places", [(), (4,), (2, 3)], ids=str)
def test_probabilities_of_any_places_give_torchs_loss(places):
    logits = torch.randn(3, 5, *places, requires_grad=True)
    target = torch.rand(3, 5, *places).softmax(1)
    wanted = F.cross_entropy(logits, target, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(mc.soft_cross_entropy(logits, target, reduction="none", label_smoothing=0.1), wanted)
    shares, labels = target.sort(dim=1)
    sparse = mc.SoftTarget(labels, shares)
    torch.testing.assert_close(mc.soft_cross_entropy(logits, sparse, reduction="none", label_smoothing=0.1), wanted)
    assert mc.soft_accuracy(logits, sparse) == pytest.approx(float(mc.soft_accuracy(logits, target)), abs=1e-6)
    picked = torch.zeros(())
    for b, *place in torch.ones(3, *places).nonzero().tolist():
        picked += target[(b, int(logits[(b, slice(None), *place)].argmax()), *place)]
    assert float(mc.soft_accuracy(logits, target)) == pytest.approx(float(picked) / math.prod((3, *places)), abs=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_when_nothing_counts(label_smoothing, weighted):
    """As torch: the mean is NaN, and its gradient 0."""
    for batch in (4, 0):
        logits = torch.randn(batch, 3, requires_grad=True)
        labels = torch.full((batch,), -100)
        options = {"label_smoothing": label_smoothing, "weight": torch.rand(3) if weighted else None}
        sparse = mc.SoftTarget(labels[:, None].expand(batch, 2), torch.full((batch, 2), 0.5))
        for target in (labels, sparse, torch.zeros(batch, 3), torch.full((batch, 3), math.nan)):
            for reduction, value in (("mean", math.nan), ("sum", 0.0), ("none", [0.0] * batch)):
                loss = mc.soft_cross_entropy(logits, target, reduction=reduction, **options)
                torch.testing.assert_close(loss, torch.tensor(value), equal_nan=True)
                if target is labels:
                    theirs = F.cross_entropy(logits, labels, reduction=reduction, **options)
                    torch.testing.assert_close(loss, theirs, equal_nan=True)
                (gradient,) = torch.autograd.grad(loss.sum(), logits)
                assert (gradient == 0).all()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
def test_an_ignored_row_may_hold_anything(bad, label_smoothing):
    logits, labels = torch.randn(3, 4), torch.tensor([0, -100, 3])
    logits[1] = bad
    wanted = F.cross_entropy(logits[[0, 2]], labels[[0, 2]], label_smoothing=label_smoothing)
    one_hot = F.one_hot(labels.clamp(min=0), 4) * (labels >= 0)[:, None]
    for target in (labels, mc.SoftTarget(labels[:, None], torch.ones(3, 1)), one_hot, one_hot.double()):
        loss = mc.soft_cross_entropy(logits.requires_grad_(), target, label_smoothing=label_smoothing)
        torch.testing.assert_close(loss, wanted)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient[[0, 2]].isfinite().all()


def test_a_class_that_is_ruled_out_counts_nothing_where_it_has_no_share():
    """A logit of minus infinity: dense and sparse agree, and gradients are finite."""
    logits = torch.tensor([[0.0, 1.0, -math.inf], [-math.inf, 2.0, 0.5]], requires_grad=True)
    sparse = mc.SoftTarget(torch.tensor([[1, 2], [2, 1]]), torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    two = torch.tensor([[math.log1p(math.exp(-1)), 0], [math.log1p(math.exp(-1.5)), math.log1p(math.exp(1.5))]])
    wanted = torch.stack([two[0, 0], 0.75 * two[1, 0] + 0.25 * two[1, 1]])
    for weight in (None, torch.ones(3)):
        for target in (sparse, sparse.dense(3)):
            losses = mc.soft_cross_entropy(logits, target, reduction="none", weight=weight)
            torch.testing.assert_close(losses, wanted)
            (gradient,) = torch.autograd.grad(losses.sum(), logits)
            chances = torch.tensor([[0.0, 1.0, -math.inf], [-math.inf, 2.0, 0.5]]).softmax(1)
            torch.testing.assert_close(gradient, chances - sparse.dense(3))
    excluded = mc.soft_cross_entropy(logits, torch.tensor([2, 0]), reduction="none")
    assert excluded.tolist() == [math.inf, math.inf]  # what has a share is infinitely wrong, as in torch


def test_ignore_index_means_the_same_for_every_kind_of_target():
    logits, labels = torch.randn(4, 5), torch.tensor([1, 2, 4, 2])
    partners = torch.tensor([2, 1, 2, 0])
    sparse = mc.SoftTarget(torch.stack([labels, partners], 1), torch.tensor([[0.75, 0.25]] * 4))
    one = [F.cross_entropy(logits, index, reduction="none", ignore_index=2) for index in (labels, partners)]
    wanted = 0.75 * one[0] + 0.25 * one[1]
    for target in (sparse, sparse.dense(5)):
        torch.testing.assert_close(mc.soft_cross_entropy(logits, target, reduction="none", ignore_index=2), wanted)
        counted = 0.75 * (labels != 2).sum() + 0.25 * (partners != 2).sum()
        torch.testing.assert_close(mc.soft_cross_entropy(logits, target, ignore_index=2), wanted.sum() / counted)
        hits = 0.75 * ((labels == 4) & (labels != 2)).sum() / counted
        assert mc.soft_accuracy(F.one_hot(torch.tensor([4] * 4), 5).float(), target, ignore_index=2) == hits
        assert mc.soft_cross_entropy(logits, target, ignore_index=9) == mc.soft_cross_entropy(logits, target)


@pytest.mark.parametrize("ignored", [0, 4])
def test_the_first_class_and_the_last_can_be_ignored(ignored):
    logits, labels = torch.randn(5, 5), torch.arange(5)
    wanted = F.cross_entropy(logits, labels, ignore_index=ignored)
    rows = torch.eye(5)
    torch.testing.assert_close(mc.soft_cross_entropy(logits, rows, ignore_index=ignored), wanted)
    assert mc.soft_accuracy(rows[[ignored] * 5], rows, ignore_index=ignored) == 0


def test_a_class_of_no_weight_may_be_ruled_out_where_labels_are_smoothed():
    """Its logit of minus infinity counts nothing, also of the part that is spread over all classes."""
    logits, weight = torch.randn(4, 3), torch.tensor([1.0, 0.5, 0.0])
    logits[:, 2] = -math.inf
    rows = torch.eye(3)[[0, 1, 0, 1]]
    wanted = by_formula(logits, rows, weight=weight, label_smoothing=0.1).float()
    for target in (rows, rows.argmax(1)):
        losses = mc.soft_cross_entropy(logits, target, weight=weight, label_smoothing=0.1, reduction="none")
        torch.testing.assert_close(losses, wanted)


@pytest.mark.parametrize("loss", [mc.soft_cross_entropy, mc.soft_binary_cross_entropy])
def test_missing_entries_are_left_out(loss):
    """Those that are NaN, with their gradients; unless one asks to see them."""
    logits = torch.randn(3, 4, requires_grad=True)
    target = torch.tensor([[1.0, 0, math.nan, 0], [math.nan] * 4, [0, 0.5, 0.5, 1]])
    losses = loss(logits, target, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    missing = target.isnan()
    if loss is mc.soft_binary_cross_entropy:
        wanted = -(target * logits.sigmoid().log() + (1 - target) * (1 - logits.sigmoid()).log()).nan_to_num(0.0)
        slope = (logits.sigmoid() - target).nan_to_num(0.0)
        total = 7
        assert (losses[missing] == 0).all() and (gradient[missing] == 0).all()
    else:
        wanted = by_formula(logits, target).float()
        slope = (logits.softmax(1) - target.nan_to_num(0.0)) * torch.tensor([[1.0], [0], [0]]) + (
            2 * logits.softmax(1) - target.nan_to_num(0.0)
        ) * torch.tensor([[0.0], [0], [1]])
        total = 3
    torch.testing.assert_close(losses, wanted)
    torch.testing.assert_close(gradient, slope)
    torch.testing.assert_close(loss(logits, target), wanted.sum() / total)
    assert loss(logits, target, ignore_nan=False).isnan()
    nothing = loss(logits, torch.full((3, 4), math.nan))
    assert nothing.isnan() and (torch.autograd.grad(nothing, logits)[0] == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_whole_target_gives_torchs_binary_loss(reduction):
    logits, target = torch.randn(6, 3, requires_grad=True), torch.rand(6, 3)
    weight, pos_weight = torch.rand(3), 2 * torch.rand(3)
    for options in ({}, {"weight": weight}, {"pos_weight": pos_weight}, {"weight": weight, "pos_weight": pos_weight}):
        losses = [
            loss(logits, target, reduction=reduction, **options)
            for loss in (mc.soft_binary_cross_entropy, F.binary_cross_entropy_with_logits)
        ]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*[torch.autograd.grad(loss.sum(), logits)[0] for loss in losses])
        smoothed = mc.soft_binary_cross_entropy(logits, target, label_smoothing=0.2, reduction=reduction, **options)
        by_hand = F.binary_cross_entropy_with_logits(logits, 0.8 * target + 0.1, reduction=reduction, **options)
        torch.testing.assert_close(smoothed, by_hand)
    whole = mc.soft_binary_cross_entropy(logits.bfloat16(), (target > 0.5), reduction=reduction)
    assert whole.dtype == torch.float32  # integers and bools are targets, too


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.bfloat16, torch.float64])
def test_factors_of_the_binary_loss_count_in_its_precision(dtype):
    """torch takes 1 from pos_weight in its own dtype: 0 would become 255 as uint8, and 300 stay 300 as bfloat16."""
    logits, target = torch.randn(6, 3), torch.rand(6, 3)
    factor = torch.tensor([0, 1, 3 if dtype in (torch.uint8, torch.bool) else 300]).to(dtype)
    for name in ("weight", "pos_weight"):
        losses = [mc.soft_binary_cross_entropy(logits, target, **{name: one}) for one in (factor, factor.float())]
        assert losses[0].dtype == torch.float32 and losses[0] == losses[1]


def test_a_missing_entry_may_lie_beside_any_logit():
    logits = torch.tensor([[math.nan, 1.0, -math.inf]], requires_grad=True)
    loss = mc.soft_binary_cross_entropy(logits, torch.tensor([[math.nan, 1.0, math.nan]]))
    torch.testing.assert_close(loss, torch.tensor(math.log1p(math.exp(-1))))
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -1 / (1 + math.e), 0.0]]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch's forward gradients use
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradients_are_those_of_finite_differences(label_smoothing):
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    shares = torch.rand(4, 2, dtype=torch.float64).softmax(1).requires_grad_()
    rows = torch.rand(4, 5, dtype=torch.float64)
    rows[0] = 0  # a share of 0 has a gradient, too
    partly = rows.clone()
    partly[1, 2] = math.nan
    labels, weight = torch.tensor([[0, 1], [2, 2], [4, -100], [3, 0]]), torch.rand(5, dtype=torch.float64)
    options = {"label_smoothing": label_smoothing, "weight": weight}
    for reduction in ("mean", "sum", "none"):

        def sparse(logits, shares, reduction=reduction):
            return mc.soft_cross_entropy(logits, mc.SoftTarget(labels, shares), reduction=reduction, **options)

        def dense(logits, rows, reduction=reduction):
            return mc.soft_cross_entropy(logits, rows, reduction=reduction, **options)

        def binary(logits, rows, reduction=reduction):
            return mc.soft_binary_cross_entropy(logits, rows, reduction=reduction, **options)

        for loss, target in ((sparse, shares), (dense, rows), (dense, partly), (binary, rows), (binary, partly)):
            inputs = (logits, target.requires_grad_())
            assert torch.autograd.gradcheck(loss, inputs, check_forward_ad=True)


def targets_of_every_kind(batch=6, classes=5):
    labels = torch.tensor([0, 3, -100, 1, 4, 0])[:batch]
    sparse = mix_targets(labels, plans()["one partner"], targets="sparse")
    return {"indices": labels, "sparse": sparse, "dense": sparse.dense(classes)}


@pytest.mark.parametrize("kind", targets_of_every_kind())
def test_under_autocast_the_loss_is_float32(kind):
    target, layer = targets_of_every_kind()[kind], torch.nn.Linear(8, 5)
    features = torch.randn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = layer(features)
        assert logits.dtype == torch.bfloat16
        loss = mc.soft_cross_entropy(logits, target, label_smoothing=0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mc.soft_cross_entropy(logits.float(), target, label_smoothing=0.1))
    loss.backward()
    assert layer.weight.grad.isfinite().all()


def test_a_usual_dense_target_takes_the_passes_of_torchs_own_loss():
    """Over memory of the size of the logits; what only NaN and infinities need is not there."""

    class Passes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            self.names += [function.name()] if getattr(result, "shape", None) == (6, 50) else []
            return result

    logits, rows = torch.randn(6, 50), torch.rand(6, 50)
    names = []
    for loss in (mc.soft_cross_entropy, F.cross_entropy):
        with Passes() as passes:
            passes.names = []
            loss(logits, rows)
        names.append(passes.names)
    assert names[0] == names[1] != []


@pytest.mark.parametrize("kind", targets_of_every_kind())
def test_vmap_and_per_sample_gradients(kind):
    """One row at a time, as for gradients of single samples."""
    target, logits = targets_of_every_kind()[kind], torch.randn(6, 5)

    def one(target):
        return mc.SoftTarget(*(part[None] for part in target)) if isinstance(target, tuple) else target[None]

    def loss(row, target):
        return mc.soft_cross_entropy(row[None], one(target), label_smoothing=0.1, reduction="sum")

    hits = torch.func.vmap(lambda row, target: mc.soft_accuracy(row[None], one(target)))(logits, target)
    rows = [mc.SoftTarget(*parts) for parts in zip(*target, strict=True)] if isinstance(target, tuple) else target
    each = [mc.soft_accuracy(row[None], one(target)) for row, target in zip(logits, rows, strict=True)]
    torch.testing.assert_close(hits, torch.stack(each), equal_nan=True)
    each = torch.func.vmap(loss)(logits, target)
    torch.testing.assert_close(each, mc.soft_cross_entropy(logits, target, label_smoothing=0.1, reduction="none"))
    gradients = torch.func.vmap(torch.func.grad(loss))(logits, target)
    exact = torch.autograd.functional.jacobian(
        lambda logits: mc.soft_cross_entropy(logits, target, label_smoothing=0.1, reduction="none"), logits
    )
    torch.testing.assert_close(gradients, exact[range(6), range(6)])


@pytest.mark.parametrize("kind", targets_of_every_kind())
def test_the_losses_compile_to_one_graph(kind):
    target = targets_of_every_kind()[kind]
    logits, weight = torch.randn(6, 5, requires_grad=True), torch.rand(5)

    def step(logits, target):
        loss = mc.soft_cross_entropy(logits, target, label_smoothing=0.1, weight=weight)
        if kind == "dense":
            loss = loss + mc.soft_binary_cross_entropy(logits, target)
        return loss + mc.soft_accuracy(logits, target)

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(logits, target)
    torch.testing.assert_close(compiled, step(logits, target))
    torch.testing.assert_close(
        torch.autograd.grad(compiled, logits)[0], torch.autograd.grad(step(logits, target), logits)[0]
    )


def test_timms_losses_take_our_targets():
    timm_loss = pytest.importorskip("timm.loss")
    logits, labels = torch.randn(6, 5), torch.tensor([0, 3, 2, 1, 4, 0])
    dense = mix_targets(labels, plans()["one partner"], num_classes=5)
    torch.testing.assert_close(timm_loss.SoftTargetCrossEntropy()(logits, dense), mc.soft_cross_entropy(logits, dense))
    theirs = timm_loss.BinaryCrossEntropy(smoothing=0.0)(logits, dense)
    torch.testing.assert_close(theirs, mc.soft_binary_cross_entropy(logits, dense))


@pytest.mark.parametrize("setting", SETTINGS)
def test_process_wide_settings_change_nothing(setting):
    logits, weight = torch.randn(6, 5), torch.rand(5)
    kinds, missing = targets_of_every_kind(), torch.tensor([[math.nan, 1.0, 0.0, 0.5, 1.0]] * 6)

    def losses():
        yield mc.soft_binary_cross_entropy(logits, missing, label_smoothing=0.1)
        for target in kinds.values():
            yield mc.soft_cross_entropy(logits, target, label_smoothing=0.1, weight=weight)
            yield mc.soft_accuracy(logits, target)

    wanted = list(losses())
    with under(setting):
        got = list(losses())
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype == torch.float32 and torch.equal(one, other)


def test_what_no_loss_can_be_made_of_is_refused():
    logits, rows = torch.randn(6, 5), torch.rand(6, 5)
    cross_entropy, binary = mc.soft_cross_entropy, mc.soft_binary_cross_entropy
    sparse = mc.SoftTarget(torch.zeros(6, 2, dtype=torch.int64), torch.ones(6, 2))
    for error, call, message in (
        (ValueError, lambda: cross_entropy(logits, rows[:, :4]), r"shape of logits \(6, 5\), got \(6, 4\)"),
        (ValueError, lambda: cross_entropy(logits[0], torch.rand(5)), r"logits must be \[B, num_classes\].*\(5,\)"),
        (ValueError, lambda: cross_entropy(logits, torch.arange(4)), r"target must be \(6,\), .* got \(4,\)"),
        (ValueError, lambda: cross_entropy(logits[..., None], torch.zeros(6, 2).long()), r"\(6, 1\), .* got \(6, 2\)"),
        (ValueError, lambda: cross_entropy(logits[:4], sparse), r"for logits \(4, 5\), got \(6, 2\) and \(6, 2\)"),
        (ValueError, lambda: cross_entropy(logits, mc.SoftTarget(sparse.labels, torch.ones(6, 1))), r"and \(6, 1\)"),
        (TypeError, lambda: cross_entropy(logits, torch.rand(6)), "an integer dtype .* got torch.float32"),
        (TypeError, lambda: cross_entropy(logits, torch.ones(6).bool()), "an integer dtype .* got torch.bool"),
        (TypeError, lambda: cross_entropy(logits.long(), torch.arange(6)), "logits must be floating .* torch.int64"),
        (ValueError, lambda: cross_entropy(logits, torch.arange(6)), "classes in 0 … 4 or ignore_index, got 5"),
        (ValueError, lambda: cross_entropy(logits, torch.arange(6) - 1), "classes in 0 … 4 or ignore_index, got -1"),
        (ValueError, lambda: cross_entropy(logits, rows, label_smoothing=1.1), r"in \[0, 1\], got 1.1"),
        (ValueError, lambda: cross_entropy(logits, rows, label_smoothing=math.nan), r"in \[0, 1\], got nan"),
        (ValueError, lambda: cross_entropy(logits, rows, reduction="max"), "reduction must be .* got 'max'"),
        (ValueError, lambda: cross_entropy(logits, rows, weight=torch.ones(())), r"weight must be \[5\], .* got \(\)"),
        (ValueError, lambda: cross_entropy(logits, rows, weight=torch.ones(1)), r"weight must be \[5\], .* got \(1,\)"),
        (ValueError, lambda: cross_entropy(logits, rows, weight=torch.ones(1, 5)), r"got \(1, 5\)"),
        (TypeError, lambda: binary(logits, sparse), r"got a SoftTarget; pass target.dense\(num_classes\)"),
        (ValueError, lambda: binary(logits[:, 0], rows[:, :1]), r"shape of logits \(6,\), got \(6, 1\)"),
        (ValueError, lambda: binary(logits, rows, label_smoothing=-0.1), r"in \[0, 1\], got -0.1"),
        (ValueError, lambda: binary(logits, rows, reduction="max"), "reduction must be .* got 'max'"),
        (TypeError, lambda: cross_entropy(logits, None), "target must be a tensor, got NoneType"),
        (TypeError, lambda: cross_entropy(logits, rows.to_sparse()), "target must be a dense tensor .*sparse_coo"),
        (TypeError, lambda: cross_entropy(logits, rows, weight=[1.0] * 5), "weight must be a tensor, got list"),
        (TypeError, lambda: cross_entropy(logits, rows, ignore_index=1.5), "ignore_index must be a whole .* got 1.5"),
        (TypeError, lambda: binary(logits, rows, ignore_nan="no"), "ignore_nan must be True or False, got 'no'"),
        (TypeError, lambda: binary(logits, None), "target must be a tensor, got NoneType"),
        (ValueError, lambda: binary(logits, rows, weight=torch.ones(1, 6, 5)), r"weight must broadcast .*\(1, 6, 5\)"),
        (ValueError, lambda: binary(logits, rows, pos_weight=torch.ones(6)), r"pos_weight must broadcast .*\(6,\)"),
        (ValueError, lambda: mc.soft_accuracy(logits, torch.arange(6)), "classes in 0 … 4 or ignore_index, got 5"),
        (ValueError, lambda: mc.soft_accuracy(logits, rows[:, :4]), r"shape of logits \(6, 5\), got \(6, 4\)"),
        (ValueError, lambda: mc.soft_accuracy(logits, torch.arange(4)), r"target must be \(6,\), .* got \(4,\)"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_what_is_no_soft_target_is_refused_by_name():
    logits, labels, shares = torch.randn(4, 5), torch.tensor([[0, 1]] * 4), torch.full((4, 2), 0.5)
    for target, message in (
        (mc.SoftTarget(labels.float(), shares), "target.labels must be class indices, got torch.float32"),
        (mc.SoftTarget(labels.tolist(), shares), "target.labels must be a tensor, got list"),
        (mc.SoftTarget(labels, shares.tolist()), "target.shares must be a tensor, got list"),
        (mc.SoftTarget(labels, shares)[:2], "got a tuple; index its labels and shares instead"),
    ):
        with pytest.raises(TypeError, match=message):
            mc.soft_cross_entropy(logits, target)
        with pytest.raises(TypeError, match=message):
            mc.soft_accuracy(logits, target)


def test_targets_that_lie_elsewhere_are_refused():
    """A kernel would take their addresses for those of its own device."""
    logits, labels, shares = torch.randn(4, 5), torch.tensor([[0, 1]] * 4), torch.full((4, 2), 0.5)
    for target in (
        labels[:, 0].to("meta"),
        torch.rand(4, 5, device="meta"),
        mc.SoftTarget(labels.to("meta"), shares),
        mc.SoftTarget(labels, shares.to("meta")),
    ):
        with pytest.raises(ValueError, match="target must be on cpu like the logits, got meta"):
            mc.soft_cross_entropy(logits, target)
    rows, there = torch.rand(4, 5), torch.rand(5, device="meta")
    for name, call in (
        ("weight", lambda: mc.soft_cross_entropy(logits, rows, weight=there)),
        ("target", lambda: mc.soft_binary_cross_entropy(logits, rows.to("meta"))),
        ("weight", lambda: mc.soft_binary_cross_entropy(logits, rows, weight=there)),
        ("pos_weight", lambda: mc.soft_binary_cross_entropy(logits, rows, pos_weight=there)),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be on cpu like the logits, got meta"):
            call()


def test_one_logit_is_no_softmax():
    logits, target = torch.randn(8, 1), torch.rand(8, 1)
    for function in (mc.soft_cross_entropy, mc.soft_accuracy):
        with pytest.raises(ValueError, match=r"two classes or more, got \(8, 1\).*use soft_binary_cross_entropy"):
            function(logits, target)
        with pytest.raises(ValueError, match=r"two classes or more, got \(8, 0\)"):
            function(logits[:, :0], target[:, :0])
    assert mc.soft_binary_cross_entropy(logits, target) > 0


def test_a_recorded_loss_leaves_out_what_is_missing():
    """Although nothing was missing when it was recorded."""
    logits, target = torch.randn(4, 3), torch.rand(4, 3)
    recorded = make_fx(lambda *both: mc.soft_cross_entropy(*both))(logits, target)
    target[0] = math.nan
    torch.testing.assert_close(recorded(logits, target), mc.soft_cross_entropy(logits, target), rtol=0, atol=1e-6)
