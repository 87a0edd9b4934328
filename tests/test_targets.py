"""Soft targets, against one-hot arithmetic done by hand."""

import contextlib
import math
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mixcollate as mc
from mixcollate.kernels import support
from mixcollate.kernels.packed import pack
from mixcollate.plan import identity, restrict
from mixcollate.targets import TargetRule, mix_targets


def plans(batch=6):
    images = torch.empty(batch, 3, 16, 24)
    torch.manual_seed(0)
    return {
        "one partner": mc.MixUp().make_plan(images),
        "three partners": mc.RICAP().make_plan(images),
        "no partner": mc.Cutout().make_plan(images),
        "two passes": mc.Compose([mc.CutMix(), mc.MixUp()]).make_plan(images),
    }


SETTINGS = ["float64", "bfloat16", "meta"]


@contextlib.contextmanager
def under(setting):
    """A default dtype for the whole process, or a default device, on which no value can be read."""
    if setting == "meta":
        torch.set_default_device(setting)
    else:
        torch.set_default_dtype(getattr(torch, setting))
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


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
        torch.testing.assert_close(got.sum(1).cpu(), torch.ones(6).float())
    sparse = mix_targets(labels.to(device), plan, num_classes=None, targets="sparse")
    assert sparse.labels.dtype == torch.int64 and sparse.shares.dtype == torch.float32
    assert torch.equal(sparse.labels[:, 0].cpu(), labels)
    torch.testing.assert_close(sparse.dense(5).cpu(), wanted)
    many = mix_targets(2**40 * labels.to(device), plan, targets="sparse")  # of any number of classes
    assert torch.equal(many.labels, 2**40 * sparse.labels)


def test_soft_rows_are_mixed_linearly():
    plan, rows = plans()["one partner"], torch.rand(6, 5).softmax(1)
    torch.testing.assert_close(mix_targets(rows, plan, num_classes=5), by_hand(rows, plan).float())


@pytest.mark.parametrize("batch", [0, 1, 2, 3])
def test_small_batches(batch):
    plan = mc.MixUp().make_plan(torch.empty(batch, 3, 4, 4))
    assert mix_targets(torch.arange(batch), plan, num_classes=3).shape == (batch, 3)
    assert mix_targets(torch.arange(batch), plan, num_classes=3, targets="sparse").labels.shape == (batch, 2)
    for label_mode in ("lerp", "union"):
        for rows in (torch.rand(batch, 3), torch.ones(batch, 3, dtype=torch.int64)):
            assert mix_targets(rows, plan, label_mode=label_mode).shape == (batch, 3)
    assert mix_targets(torch.rand(batch), plan, targets="values").shape == (batch,)
    twice = mc.Compose([mc.RICAP(), mc.MixUp()]).make_plan(torch.empty(batch, 3, 4, 4))
    assert mix_targets(torch.arange(batch), twice, num_classes=3).shape == (batch, 3)
    assert mix_targets(torch.arange(batch), twice, targets="sparse").shares.shape == (batch, 8)


def test_label_smoothing_is_torchs():
    plan, labels = plans()["one partner"], torch.arange(6)
    logits = torch.randn(6, 7)
    smoothed = mix_targets(labels, plan, num_classes=7, label_smoothing=0.1)
    sparse = mix_targets(labels, plan, num_classes=7, targets="sparse")
    torch.testing.assert_close(smoothed.sum(1), torch.ones(6).float())
    torch.testing.assert_close(smoothed.min(), torch.tensor(0.1 / 7).float())
    wanted = F.cross_entropy(logits, sparse.dense(7), label_smoothing=0.1)
    torch.testing.assert_close(F.cross_entropy(logits, smoothed), wanted)
    torch.testing.assert_close(mc.soft_cross_entropy(logits, sparse, label_smoothing=0.1), wanted)
    torch.testing.assert_close(mc.soft_cross_entropy(logits, sparse.dense(7), label_smoothing=0.1), wanted)


def test_ignored_labels_count_nothing():
    plan = mc.MixUp(per="batch", pairing="roll").make_plan(torch.empty(4, 3, 4, 4))
    lam = float(plan.own_share[0])
    labels = torch.tensor([0, -100, -100, 2])
    dense = mix_targets(labels, plan, num_classes=3)
    torch.testing.assert_close(dense[0], torch.tensor([lam, 0, 1 - lam]).float())
    torch.testing.assert_close(dense[1], torch.tensor([1 - lam, 0, 0]).float())
    assert dense[2].tolist() == [0, 0, 0]
    torch.testing.assert_close(dense[3], torch.tensor([0, 0, lam]).float())
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


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of scatter_add_ in torch 2.6
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"label_mode": "union"}, {"targets": "sparse"}])
@pytest.mark.parametrize("name", plans())
def test_an_ensembles_labels_are_mixed_under_vmap(name, options):
    plan, labels = plans()[name], torch.arange(6)
    rule = TargetRule(num_classes=6, **options)
    both = torch.stack([labels, labels.flip(0)])
    mixed = torch.func.vmap(lambda each: rule.mix(each, plan))(both)
    wanted = [rule.mix(each, plan) for each in both]
    if options.get("targets") == "sparse":
        wanted, mixed = ([target.dense(6) for target in some] for some in (wanted, map(mc.SoftTarget, *mixed)))
    torch.testing.assert_close([*mixed], wanted)


def test_nobody_looks_for_a_compiler_while_a_graph_is_traced(monkeypatch):
    """Dynamo would follow, into files and processes, and break the graph there."""
    monkeypatch.setattr(support, "can_fuse", lambda: pytest.fail("it was asked"))
    monkeypatch.setattr(support, "is_compiling", lambda: True)
    assert not support.is_fusible(SimpleNamespace(is_cuda=True))


def test_what_cannot_be_a_target_is_refused():
    plan = plans()["one partner"]
    for call, message in (
        (lambda: mix_targets(torch.rand(6, 5), plan, num_classes=4), "labels must have num_classes=4 columns, got 5"),
        (lambda: mix_targets(torch.rand(6, 5), plan, num_classes=5, targets="sparse"), "must be class indices .* rows"),
        (lambda: mix_targets(torch.rand(6, 5, 2), plan, num_classes=5), r"got \(6, 5, 2\)"),
        (lambda: mix_targets(torch.arange(5), plan, num_classes=5), r"must be \[6\] class indices .* got \(5,\)"),
        (lambda: mix_targets(torch.arange(7), plan, num_classes=7), r"must be \[6\] class indices .* got \(7,\)"),
        (
            lambda: mix_targets(torch.tensor([0, 1, 2, 3, 4, -1]), plan, num_classes=5),
            "labels must be in 0 … 4 .* got -1",
        ),
        (
            lambda: mix_targets(torch.arange(6), plan, num_classes=6, targets="sparse", label_smoothing=0.1),
            "label_smoothing must be 0 for targets='sparse', got 0.1; give it to soft_cross_entropy",
        ),
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


NAN = math.nan


def leaves_out(values, share):
    """That share of a row, of which a share of 0 takes nothing, not even NaN."""
    return [share * value if share else 0.0 for value in values]


def mixed_by_hand(rows, plan, combine):
    """As by_hand, for rows of which entries may be NaN."""
    while plan is not None:
        mixed = []
        for i in range(len(rows)):
            parts = [leaves_out(rows[i], float(plan.shares[i, 0]))]
            for share, partner in zip(plan.shares[i, 1:].tolist(), plan.partners[i].tolist(), strict=True):
                parts.append(leaves_out(rows[partner], share))
            mixed.append([combine(entries) for entries in zip(*parts, strict=True)])
        rows, plan = mixed, plan.then
    return rows


def p_half(plan, seed=0):
    """The same plan for half of the images; the others keep all of their labels."""
    return restrict(plan, np.random.default_rng(seed).random(len(plan)) < 0.5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", [*plans(), "cutmix"])
def test_a_share_of_nothing_brings_nothing(name, label_smoothing, device):
    """What is not annotated stays with the images that are really mixed with it."""
    whole = mc.CutMix(seed=3).make_plan(torch.empty(6, 3, 16, 24)) if name == "cutmix" else plans()[name]
    rows = [[NAN, 1, 0], [0.0, 0, 1], [NAN] * 3, [1.0, 1, 0], [0.0, NAN, 1], [1.0, 0, 0]]
    for plan in (whole, p_half(whole), restrict(whole, np.zeros(6, bool))):
        wanted = torch.tensor(mixed_by_hand(rows, plan, sum)).float()
        spread = label_smoothing / 3 * wanted.nan_to_num(0.0).sum(1, keepdim=True)
        wanted = (1 - label_smoothing) * wanted + spread  # NaN stays NaN, and spreads nothing
        for placed in (plan, pack(plan, device)):
            got = mix_targets(torch.tensor(rows, device=device), placed, label_smoothing=label_smoothing)
            torch.testing.assert_close(got.cpu(), wanted, equal_nan=True)
        values = mix_targets(torch.tensor(rows, device=device), plan, targets="values")
        torch.testing.assert_close(values.cpu(), torch.tensor(mixed_by_hand(rows, plan, sum)), equal_nan=True)
        if not np.isin(plan.shares, (0, 1)).all():
            continue
        assert torch.equal(got.isnan(), torch.tensor(rows, device=device).isnan())  # p = 0 changes nothing


def test_one_missing_label_at_p_0():
    """One logit, one image of which is not annotated."""
    images, labels = torch.rand(2, 3, 4, 4), torch.tensor([[NAN], [1.0]])
    for label_mode in ("lerp", "union"):
        _, target = mc.MixUp(p=0, num_classes=1, label_mode=label_mode)(images, labels)
        assert target.isnan().tolist() == [[True], [False]] and target[1] == 1
    _, target = mc.MixUp(num_classes=1)(images, labels)
    assert target.isnan().all()


def test_union_of_missing_labels():
    plan = mc.CutMix(per="batch", pairing="roll", seed=1).make_plan(torch.empty(4, 3, 16, 16))
    assert 0 < plan.own_share[0] < 1
    rows = torch.tensor([[1, NAN], [0, 1.0], [0, 0], [0, 0]])
    union = mix_targets(rows, restrict(plan, np.array([True, False, True, True])), label_mode="union")
    assert union.nan_to_num(7.0).tolist() == [[1, 7], [0, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("batch", [0, 4])
def test_sparse_targets_have_as_many_columns_without_images(batch):
    twice = mc.Compose([mc.MixUp(), mc.CutMix()])
    choice = mc.RandomChoice([twice, mc.MixUp()], targets="sparse")
    _, target = choice(torch.rand(batch, 3, 8, 8), torch.arange(batch))
    assert target.labels.shape == target.shares.shape == (batch, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 4), (6, 2, 3)], ids=str)
def test_values_are_mixed_by_the_shares(shape, dtype):
    """Regression labels: numbers of any size and sign, which keep their shape."""
    values = (100 * torch.randn(shape, dtype=torch.float64)).to(dtype)
    for plan in plans().values():
        got = mix_targets(values, plan, targets="values")
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        assert got.dtype == exact and got.shape == shape
        rows = by_hand(values.to(exact).view(6, -1), plan)
        torch.testing.assert_close(got, rows.view(shape), rtol=1e-6, atol=1e-4)


def test_a_column_of_class_indices_is_a_row_of_them():
    plan, labels = plans()["one partner"], torch.tensor([0, 3, -100, 1, 4, 0])
    for targets_, label_mode in (("dense", "lerp"), ("dense", "union"), ("sparse", "lerp")):
        options = {"num_classes": 5, "targets": targets_, "label_mode": label_mode}
        one, other = (mix_targets(given, plan, **options) for given in (labels, labels[:, None]))
        pairs = zip(one, other, strict=True) if targets_ == "sparse" else [(one, other)]
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64], ids=str)
def test_integer_rows_of_zeros_and_ones(dtype):
    plan, rows = plans()["one partner"], torch.tensor([[0], [1], [1], [0], [1], [0]])
    torch.testing.assert_close(mix_targets(rows.to(dtype), plan, num_classes=1), by_hand(rows.float(), plan))
    wide = rows.expand(6, 4).contiguous()
    torch.testing.assert_close(mix_targets(wide.to(dtype), plan), by_hand(wide.float(), plan))


@pytest.mark.parametrize("setting", SETTINGS)
def test_process_wide_settings_change_nothing(setting):
    labels, rows = torch.tensor([0, 3, -100, 1, 4, 0]), torch.rand(6, 5)

    def mixed():
        for plan in made:
            for options in ({}, {"label_smoothing": 0.1}, {"label_mode": "union"}, {"targets": "sparse"}):
                target = mix_targets(labels, plan, num_classes=5, **options)
                yield from target if isinstance(target, mc.SoftTarget) else [target]
            yield mix_targets(labels, plan, targets="sparse").dense(5, label_smoothing=0.1)
            yield from (mix_targets(rows, plan), mix_targets(rows, plan, label_mode="union"))
            yield mix_targets(rows[:, 0], plan, targets="values")

    made = [*plans().values()]
    wanted = list(mixed())
    with under(setting):
        got = list(mixed())
    assert [one.dtype for one in got] == [one.dtype for one in wanted]
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


def test_a_soft_target_can_be_rebuilt_by_frameworks():
    """Some call the type with the parts, some with one iterable of them, as they would a tuple's."""
    target = mc.SoftTarget(torch.tensor([[0, 1]]), torch.tensor([[0.25, 0.75]]))
    rebuilt = [
        type(target)(*map(torch.clone, target)),
        type(target)(map(torch.clone, target)),
        type(target)([part.clone() for part in target]),
        target._make(map(torch.clone, target)),
        target._replace(labels=target.labels.clone()),
        pickle.loads(pickle.dumps(target)),
        torch.utils._pytree.tree_map(torch.clone, target),
        torch.utils.data._utils.pin_memory.pin_memory(target) if torch.cuda.is_available() else target,
    ]
    for one in rebuilt:
        assert type(one) is mc.SoftTarget and one._fields == ("labels", "shares")
        assert torch.equal(one.labels, target.labels) and torch.equal(one.shares, target.shares)
    with pytest.raises(TypeError, match="Expected 2 arguments, got 3"):
        mc.SoftTarget([1, 2, 3])

    @torch.compile(fullgraph=True, backend="aot_eager")
    def doubled(target):
        return mc.SoftTarget(target.labels, 2 * target.shares)

    torch.compiler.reset()
    assert torch.equal(doubled(target).shares, 2 * target.shares)


def test_labels_that_cannot_be_mixed_are_refused():
    plan, rows = plans()["one partner"], torch.zeros(6, 3)
    sevens = torch.tensor([0, 1, 0, 7, 1, 0])
    huge, hundred = (torch.full((6,), 2**64 - n, dtype=torch.uint64) for n in (5, 100))
    nested = torch.nested.nested_tensor([torch.zeros(2)] * 6, layout=torch.jagged)
    with warnings.catch_warnings():  # on their way out of torch
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(rows, 0.1, 0, torch.quint8)
    for error, labels, options, message in (
        (TypeError, rows.to_sparse(), {}, "labels must be a dense tensor .* got torch.sparse_coo"),
        (TypeError, rows.to(torch.complex64), {}, "labels must be a dense tensor .* got .*complex64"),
        (TypeError, nested, {}, "labels must be a dense tensor .* got nested"),
        (TypeError, quantized, {}, "labels .* got quantized"),
        (ValueError, sevens[:, None], {"num_classes": 5}, "labels must be in 0 … 4 .* got 7"),
        (ValueError, sevens[:, None].expand(6, 3), {}, "must be zeros and ones, got 7; pass class indices as"),
        (ValueError, -sevens[:, None].expand(6, 3), {}, "must be zeros and ones, got -1; .* annotations by NaN"),
        (ValueError, sevens[:, None].expand(6, 3).to(torch.uint64), {}, "must be zeros and ones, got 7"),
        (ValueError, rows - 1, {}, "must be finite and at least 0, got -1.0; mark missing annotations by NaN"),
        (ValueError, rows.index_fill(0, torch.tensor(2), math.inf), {}, "must be finite and at least 0, got inf"),
        (ValueError, (rows * NAN).index_fill(0, torch.tensor(2), -2), {}, "must be finite and at least 0, got -2.0"),
        (ValueError, huge, {"num_classes": 5}, f"labels must be in 0 … 4 .* got {2**64 - 5}"),
        (ValueError, huge, {"targets": "sparse"}, f"got {2**64 - 5}"),
        (ValueError, hundred, {"num_classes": 5}, f"got {2**64 - 100}"),  # it is not ignore_index
        (ValueError, sevens - 1, {"targets": "sparse"}, "labels must be in 0 … .* got -1"),
        (ValueError, sevens.clamp(max=1), {"num_classes": 1}, r"in 0 … 0 .* for a single logit pass floats \[B, 1\]"),
        (ValueError, sevens.clamp(max=1), {}, r"num_classes must be given .* floats \[B, 1\] for a single logit"),
        (ValueError, sevens[:, None], {}, "num_classes must be given for class indices"),
        (TypeError, rows[:, 0], {"num_classes": 3}, "must be integers, got torch.float32; .* targets='values'"),
        (TypeError, sevens, {"targets": "values"}, "floating point for targets='values', got torch.int64"),
        (ValueError, torch.tensor(1), {"num_classes": 3}, r"labels must be \[6\] class indices or .* got \(\)"),
        (ValueError, sevens[:4], {"num_classes": 3}, r"labels must be \[6\] class indices or .* got \(4,\)"),
        (ValueError, rows[:4], {"targets": "values"}, r"\[6, ...\] values for a plan of 6 images, got \(4, 3\)"),
    ):
        with pytest.raises(error, match=message):
            mix_targets(labels, plan, **options)
        with pytest.raises(error, match=message):
            TargetRule(**options).prepare(labels, plan)


def test_an_image_without_a_label_leaves_the_rows_beside_it_alone():
    """The last class of the row before it lies next to it in memory."""
    plan = plans()["one partner"]
    labels = torch.tensor([4, -100] * 3)
    rows = torch.where(labels[:, None] < 0, 0.0, torch.eye(5)[labels.clamp(min=0)])
    torch.testing.assert_close(mix_targets(labels, plan, num_classes=5), by_hand(rows, plan).float())


def test_integer_rows_hold_zeros_and_ones():
    plan = plans()["one partner"]
    for wrong in (2, -1):
        rows = torch.zeros(6, 5, dtype=torch.int64)
        rows[3, 2] = wrong
        with pytest.raises(ValueError, match=f"must be zeros and ones, got {wrong}"):
            mix_targets(rows, plan, num_classes=5)


def test_what_is_no_rule_is_refused():
    for options, message in (
        ({"targets": "soft"}, "targets must be one of 'dense', 'sparse', 'values', got 'soft'"),
        ({"label_mode": "max"}, "label_mode must be one of 'lerp', 'union', got 'max'"),
        ({"num_classes": 0}, "num_classes must be .* got 0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be a finite number in \[0, 1\], got -0.1"),
        ({"label_smoothing": 1.5}, r"label_smoothing must be a finite number in \[0, 1\], got 1.5"),
        ({"label_smoothing": NAN}, r"label_smoothing must be a finite number in \[0, 1\], got nan"),
        ({"targets": "sparse", "label_smoothing": 0.1}, "must be 0 .*; give it to soft_cross_entropy"),
        ({"targets": "values", "label_smoothing": 0.1}, "label_smoothing must be 0 for targets='values', got 0.1"),
        ({"targets": "sparse", "label_mode": "union"}, "must be 'lerp' for targets='sparse', got 'union'"),
        ({"targets": "values", "label_mode": "union"}, "must be 'lerp' for targets='values', got 'union'"),
        ({"targets": "values", "num_classes": 3}, "num_classes must be None for targets='values', got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            TargetRule(**options)
    for options, message in (
        ({"num_classes": 4.0}, "num_classes must be a whole number of at least 1, got 4.0"),
        ({"num_classes": "4"}, "num_classes must be a whole number of at least 1, got '4'"),
        ({"ignore_index": None}, "ignore_index must be a whole number .* got None"),
        ({"label_smoothing": "0.1"}, r"label_smoothing must be a finite number in \[0, 1\], got '0.1'"),
    ):
        with pytest.raises(TypeError, match=message):
            TargetRule(**options)
    sparse = mc.SoftTarget(torch.tensor([[0]]), torch.tensor([[1.0]]))
    with pytest.raises(ValueError, match=r"label_smoothing must be a finite number in \[0, 1\], got 2"):
        sparse.dense(3, label_smoothing=2)


def test_a_rule_for_each_of_several_labels():
    rule = TargetRule(label_smoothing=0.1)
    assert rule.of(5) == (TargetRule(num_classes=5, label_smoothing=0.1),)
    assert rule.of([5, 20]) == (*rule.of(5), *rule.of(20))
    assert rule.of(None) == (rule,)


def test_the_index_that_is_ignored_is_any_that_labels_can_hold():
    for index in (-(2**63), 2**63 - 1):
        labels = torch.tensor([0, index])
        assert mc.MixUp(num_classes=2, ignore_index=index, p=0)(torch.zeros(2, 3), labels)[1].tolist() == [
            [1, 0],
            [0, 0],
        ]
    for index in (-(2**63) - 1, 2**63):
        with pytest.raises(ValueError, match="ignore_index must be a whole number from"):
            mc.MixUp(ignore_index=index)


def test_sparse_targets_that_make_no_rows_are_refused():
    labels, shares = torch.tensor([[0], [2]]), torch.ones(2, 1)
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=f"labels must hold classes in 0 … 1 or ignore_index, got {wrong}"):
            mc.SoftTarget(labels.where(labels == 0, wrong), shares).dense(2)
    with pytest.raises(ValueError, match=r"int64 and shares float32, \[B, K\] both, .* torch.float32 and"):
        mc.SoftTarget(labels.float(), shares).dense(3)
    with pytest.raises(TypeError, match=r"labels and shares, \[B, K\] both, got a Tensor of shape \(2, 1\) alone"):
        mc.SoftTarget(labels)


def test_one_wrong_label_is_shown():
    rows = torch.eye(4)
    for wrong, message in ((-1.0, "got -1.0"), (math.inf, "got inf"), (-math.inf, "got -inf")):
        rows[2, 1] = wrong
        with pytest.raises(ValueError, match=f"labels .B, K. must be finite and at least 0, {message}"):
            TargetRule().mix(rows, identity(4, (8, 8)))
    with pytest.raises(ValueError, match=r"labels must be in 0 … 3 \(or ignore_index=-100\), got 4$"):
        TargetRule(num_classes=4).mix(torch.tensor([0, 1, 2, 4]), identity(4, (8, 8)))


def test_ignore_index_is_any_int64():
    target = mc.SoftTarget(torch.tensor([[0], [-(2**63)], [2**63 - 1]]), torch.ones(3, 1))
    for least_or_most in (-(2**63), 2**63 - 1):
        assert target.known(least_or_most).shares.sum() == 2
        assert mc.SoftTarget(target.labels[:1], target.shares[:1]).dense(3, ignore_index=least_or_most).sum() == 1
    for outside in (-(2**63) - 1, 2**63):
        with pytest.raises(ValueError, match=f"ignore_index must be a whole number .*, got {outside}"):
            target.dense(3, ignore_index=outside)


def test_one_logit_is_not_smoothed():
    """There is no other class to give it to."""
    with pytest.raises(ValueError, match=r"label_smoothing must be 0 for a single logit.*got 0.1; soft_binary_cross"):
        mc.MixUp(num_classes=1, label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"label_smoothing must be 0 for a single logit.*got 0.1; soft_binary_cross"):
        mc.MixUp(label_smoothing=0.1)(torch.rand(4, 3, 8, 8), torch.rand(4, 1))


def test_a_soft_target_moves():
    target = mc.SoftTarget(torch.tensor([[0, 1]]), torch.tensor([[0.25, 0.75]]))
    moved = target.to("meta", non_blocking=True)
    assert type(moved) is mc.SoftTarget and moved.labels.is_meta and moved.shares.is_meta
    assert moved.labels.dtype == torch.int64 and moved.shares.dtype == torch.float32
    with pytest.raises(ValueError, match="device must be a torch.device or the name of one, got torch.float16"):
        target.to(torch.float16)
