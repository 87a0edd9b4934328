"""Soft targets, their loss and their accuracy, against one-hot arithmetic and torch's own losses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mixcollate as mc
from mixcollate import targets
from mixcollate.kernels.packed import pack
from mixcollate.targets import mix_targets


def plans(batch=6):
    images = torch.empty(batch, 3, 16, 24)
    torch.manual_seed(0)
    return {
        "one partner": mc.MixUp().make_plan(images),
        "three partners": mc.RICAP().make_plan(images),
        "no partner": mc.Cutout().make_plan(images),
        "two passes": mc.Compose([mc.CutMix(), mc.MixUp()]).make_plan(images),
    }


def by_hand(rows, plan):
    """Rows mixed one image and one partner at a time."""
    while plan is not None:
        mixed = torch.zeros_like(rows)
        for i in range(len(rows)):
            mixed[i] = float(plan.shares[i, 0]) * rows[i]
            for share, partner in zip(plan.shares[i, 1:].tolist(), plan.partners[i].tolist(), strict=True):
                mixed[i] += share * rows[partner]
        rows, plan = mixed, plan.then
    return rows


@pytest.mark.parametrize("name", plans())
def test_dense_targets_are_mixed_one_hot_rows(name, device):
    plan, labels = plans()[name], torch.tensor([0, 3, 3, 1, 4, 0])
    wanted = by_hand(F.one_hot(labels, 5).float(), plan)
    for given in (labels, F.one_hot(labels, 5), F.one_hot(labels, 5).half()):
        got = mix_targets(given.to(device), plan, num_classes=5)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.cpu(), wanted)
        torch.testing.assert_close(got.sum(1).cpu(), torch.ones(6))
    sparse = mix_targets(labels.to(device), plan, num_classes=None, targets="sparse")
    assert sparse.labels.dtype == torch.int64 and sparse.shares.dtype == torch.float32
    assert torch.equal(sparse.labels[:, 0].cpu(), labels)
    torch.testing.assert_close(sparse.dense(5).cpu(), wanted)


def test_soft_rows_are_mixed_linearly():
    plan, rows = plans()["one partner"], torch.rand(6, 5).softmax(1)
    torch.testing.assert_close(mix_targets(rows, plan, num_classes=5), by_hand(rows, plan))


@pytest.mark.parametrize("batch", [0, 1, 2, 3])
def test_small_batches(batch):
    plan = mc.MixUp().make_plan(torch.empty(batch, 3, 4, 4))
    assert mix_targets(torch.arange(batch), plan, num_classes=3).shape == (batch, 3)
    assert mix_targets(torch.arange(batch), plan, num_classes=3, targets="sparse").labels.shape == (batch, 2)


def test_label_smoothing_is_torchs():
    plan, labels = plans()["one partner"], torch.arange(6)
    logits = torch.randn(6, 7)
    smoothed = mix_targets(labels, plan, num_classes=7, label_smoothing=0.1)
    sparse = mix_targets(labels, plan, num_classes=7, targets="sparse")
    torch.testing.assert_close(smoothed.sum(1), torch.ones(6))
    torch.testing.assert_close(smoothed.min(), torch.tensor(0.1 / 7))
    wanted = F.cross_entropy(logits, sparse.dense(7), label_smoothing=0.1)
    torch.testing.assert_close(F.cross_entropy(logits, smoothed), wanted)
    torch.testing.assert_close(mc.soft_cross_entropy(logits, sparse, label_smoothing=0.1), wanted)
    torch.testing.assert_close(mc.soft_cross_entropy(logits, sparse.dense(7), label_smoothing=0.1), wanted)


def test_ignored_labels_count_nothing():
    plan = mc.MixUp(per="batch", pairing="roll").make_plan(torch.empty(4, 3, 4, 4))
    lam = float(plan.own_share[0])
    labels = torch.tensor([0, -100, -100, 2])
    dense = mix_targets(labels, plan, num_classes=3)
    torch.testing.assert_close(dense[0], torch.tensor([lam, 0, 1 - lam]))
    torch.testing.assert_close(dense[1], torch.tensor([1 - lam, 0, 0]))
    assert dense[2].tolist() == [0, 0, 0]
    torch.testing.assert_close(dense[3], torch.tensor([0, 0, lam]))
    assert mix_targets(labels, plan, num_classes=3, label_smoothing=0.1)[2].tolist() == [0, 0, 0]
    logits = torch.randn(4, 3)
    sparse = mix_targets(labels, plan, num_classes=3, targets="sparse")
    a, b = sparse.labels.T
    one = F.cross_entropy(logits, a, reduction="none"), F.cross_entropy(logits, b, reduction="none")
    wanted = lam * one[0] + (1 - lam) * one[1]  # torch's index losses are 0 where the label is ignored
    for target in (sparse, dense):
        torch.testing.assert_close(mc.soft_cross_entropy(logits, target, reduction="none"), wanted)
        mean = wanted.sum() / (2 * lam + 2 * (1 - lam))
        torch.testing.assert_close(mc.soft_cross_entropy(logits, target), mean)


def test_union_keeps_every_label_that_is_present():
    plan = mc.CutMix(per="batch", pairing="roll", seed=1).make_plan(torch.empty(3, 3, 16, 16))
    assert 0 < plan.own_share[0] < 1
    rows = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    union = mix_targets(rows, plan, num_classes=4, label_mode="union")
    assert union.tolist() == [[1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]]
    index = mix_targets(torch.tensor([0, 1, 1]), plan, num_classes=3, label_mode="union")
    assert index.tolist() == [[1, 1, 0], [1, 1, 0], [0, 1, 0]]


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


def test_a_class_that_is_masked_out_does_not_spoil_the_loss():
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    target = mc.SoftTarget(torch.tensor([[1, 2]]), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(mc.soft_cross_entropy(logits, target), F.cross_entropy(logits, torch.tensor([1])))


def test_soft_accuracy_is_the_share_on_the_predicted_class():
    logits = torch.eye(4)
    sparse = mc.SoftTarget(torch.tensor([[0, 1], [1, 1], [0, 2], [-100, 3]]), torch.tensor([[0.7, 0.3]] * 4))
    accuracy = (0.7 + 1.0 + 0.3 + 0.3) / 3.3
    assert float(mc.soft_accuracy(logits, sparse)) == pytest.approx(accuracy)
    assert float(mc.soft_accuracy(logits, sparse.dense(4))) == pytest.approx(accuracy)
    assert float(mc.soft_accuracy(logits, torch.tensor([0, 1, 3, 3]))) == 0.75


def test_nobody_looks_for_a_compiler_while_a_graph_is_traced(monkeypatch):
    """Dynamo would follow, into files and processes, and break the graph there."""
    monkeypatch.setattr(targets, "can_fuse", lambda: pytest.fail("it was asked"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not targets._can_fuse(SimpleNamespace(is_cuda=True))


def test_what_cannot_be_a_target_is_refused():
    plan, logits = plans()["one partner"], torch.randn(6, 5)
    for call, message in (
        (lambda: mix_targets(torch.rand(6, 5), plan, num_classes=4), "labels must have num_classes=4 columns, got 5"),
        (lambda: mix_targets(torch.rand(6, 5), plan, num_classes=5, targets="sparse"), "must be class indices .* rows"),
        (lambda: mix_targets(torch.rand(6, 5, 2), plan, num_classes=5), r"got \(6, 5, 2\)"),
        (
            lambda: mix_targets(torch.tensor([0, 1, 2, 3, 4, -1]), plan, num_classes=5),
            "labels must be in 0 … 4 .* got -1",
        ),
        (
            lambda: mix_targets(torch.arange(6), plan, num_classes=6, targets="sparse", label_smoothing=0.1),
            "label_smoothing must be 0 for targets='sparse', got 0.1; give it to soft_cross_entropy",
        ),
        (lambda: mc.soft_cross_entropy(logits, torch.rand(6, 4)), r"shape of logits \(6, 5\), got \(6, 4\)"),
        (lambda: mc.soft_cross_entropy(logits[0], torch.rand(5)), r"logits must be \[B, num_classes\], got \(5,\)"),
        (lambda: mc.soft_cross_entropy(logits, torch.arange(6), label_smoothing=1.0), r"in \[0, 1\), got 1.0"),
        (lambda: mc.soft_cross_entropy(logits, torch.arange(6), reduction="max"), "reduction must be .* got 'max'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="labels must be a tensor, got list"):
        mix_targets([0] * 6, plan, num_classes=5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32], ids=str)
def test_labels_of_narrow_types(dtype):
    """They need not hold num_classes, or ignore_index."""
    plan, labels = plans()["one partner"], torch.tensor([0, 3, 100, 1, 4, 0])
    narrow, logits = labels.to(dtype), torch.randn(6, 40_000)
    for classes in (128, 256, 300, 40_000):
        assert torch.equal(
            mix_targets(narrow, plan, num_classes=classes), mix_targets(labels, plan, num_classes=classes)
        )
    assert mc.soft_cross_entropy(logits, narrow) == mc.soft_cross_entropy(logits, labels)
    assert mc.soft_accuracy(torch.eye(200)[[156, 1]], torch.tensor([156, 2]).to(torch.uint8)) == 0.5


def test_sparse_targets_are_not_the_plans_memory():
    plan = mc.MixUp(seed=0).make_plan(torch.empty(4, 3, 2, 2))
    kept = plan.shares.copy()
    for placed in (plan, pack(plan, "cpu")):
        target = mix_targets(torch.arange(4), placed, num_classes=4, targets="sparse")
        target.shares.zero_()
        assert (np.asarray(placed.shares) == kept).all()
