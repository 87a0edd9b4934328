"""Calls that are like an earlier one are not decided again; their results must not show it."""

import copy
import pickle
import random

import pytest
import torch
from torchvision import tv_tensors

import mixcollate as mc
from mixcollate import execution

B, CLASSES = 6, 5
LABELS = torch.arange(B) % CLASSES


def kinds():
    """Batches that differ in what decisions depend on, and in numbers alone; some cannot be mixed."""
    floats, whole = torch.rand(B, 3, 6, 8), torch.randint(0, 256, (B, 3, 6, 8), dtype=torch.uint8)
    rows = torch.softmax(torch.rand(B, CLASSES), 1)
    return {
        "floats": (floats, LABELS),
        "other floats": (1 - floats, LABELS.flip(0)),
        "bytes": (whole, LABELS),
        "double": (floats.double(), LABELS),
        "channels last": (floats.contiguous(memory_format=torch.channels_last), LABELS),
        "every second row": (torch.rand(B, 3, 12, 8)[:, :, ::2], LABELS),
        "the same memory for all": (floats[:1].expand(B, -1, -1, -1), LABELS),
        "learned": (floats.clone().requires_grad_(), LABELS),
        "fewer": (floats[:4], LABELS[:4]),
        "larger": (torch.rand(B, 3, 12, 16), LABELS),
        "video": (torch.rand(B, 2, 3, 6, 8), LABELS),
        "an image each": (tv_tensors.Image(floats), LABELS),
        "a mapping": {"image": floats, "label": LABELS},
        "labels in a column": (floats, LABELS[:, None]),
        "narrow labels": (floats, LABELS.to(torch.int8)),
        "some ignored": (floats, LABELS.masked_fill(LABELS == 2, -100)),
        "rows of shares": (floats, rows),
        "rows that are learned": (floats, torch.rand(B, CLASSES, requires_grad=True)),
        "a label of no class": (floats, LABELS.clone().fill_(CLASSES)),
        "a negative row": (floats, torch.full((B, CLASSES), -1.0)),
        "too few labels": (floats, LABELS[1:]),
        "whole pixels": (floats.long(), LABELS),
        "negated images": (torch._neg_view(floats), LABELS),
        "negated rows": (floats, torch._neg_view(-rows)),
        "compressed rows": (floats, rows.to_sparse()),
    }


TRANSFORMS = {
    "MixUp": mc.MixUp(num_classes=CLASSES, seed=1),
    "MixUp in place": mc.MixUp(num_classes=CLASSES, inplace=True, seed=1),
    "CutMix": mc.CutMix(num_classes=CLASSES, seed=1),
    "sparse": mc.CutMix(num_classes=CLASSES, targets="sparse", seed=1),
    "union": mc.MixUp(num_classes=CLASSES, label_mode="union", label_smoothing=0.1, seed=1),
    "class 2 ignored": mc.MixUp(num_classes=CLASSES, ignore_index=2, seed=1),
    "no labels": mc.MixUp(labels_getter=None, seed=1),
    "shuffled": mc.MixUp(num_classes=CLASSES, per="sample", pairing="shuffle", seed=1),
    "RICAP": mc.RICAP(num_classes=CLASSES, seed=1),
    "Cutout": mc.Cutout(length=4, fill=(7.0, 8.0, 9.0), seed=1),
    "a fill for floats": mc.Cutout(length=4, fill=0.5, seed=1),
    "choice": mc.RandomChoice([mc.MixUp(), mc.CutMix()], p=(0.4, 0.4), num_classes=CLASSES, seed=1),
    "mixed, then erased": mc.Compose([mc.MixUp(), mc.RandomErasing(p=0.5)], num_classes=CLASSES, seed=1),
    "two passes": mc.Compose([mc.MixUp(), mc.CutMix()], num_classes=CLASSES, seed=1),
}


def outcome(call, batch):
    """What a call returns or raises, and what its batch is afterwards."""
    given = copied(batch)
    try:
        returned = call(*given) if isinstance(given, tuple) else call(given)
    except (TypeError, ValueError) as error:
        return type(error), str(error), given
    return returned, given


def copied(batch):
    if isinstance(batch, dict):
        return {key: copied(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(map(copied, batch))
    return batch if batch.is_neg() else copy.deepcopy(batch)  # which would negate it in memory


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor) and one.layout == torch.sparse_coo:
        assert_same(one.to_dense(), other.to_dense())
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.stride(), one.requires_grad) == (other.dtype, other.stride(), other.requires_grad)
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_same(tuple(one.values()), tuple(other.values()))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.mark.filterwarnings("ignore:.*is left unchanged although its images are mixed")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_was_decided_before_shows_in_no_result(name):
    transform, batches = copy.deepcopy(TRANSFORMS[name]), kinds()
    order = [*batches] * 4
    random.Random(0).shuffle(order)
    for kind in order:
        expected = outcome(copy.deepcopy(transform), batches[kind])  # a copy decides for itself
        assert_same(outcome(transform, batches[kind]), expected)


@pytest.mark.filterwarnings("ignore:labels were class indices before, and are rows now")
@pytest.mark.parametrize("options", [{}, {"mean": 0.4, "std": 0.2}, {"memory_format": torch.channels_last}], ids=str)
def test_nor_in_any_of_a_collate(options):
    collate = mc.MixupCollate(mc.CutMix(), num_classes=CLASSES, seed=1, **options)
    batches = {name: batch for name, batch in kinds().items() if name != "learned"}
    order = [(kind, inplace) for kind in batches for inplace in (False, False, True, True)]
    random.Random(0).shuffle(order)
    for number, (kind, inplace) in enumerate(order):
        collate.enabled = number % 5 != 4
        afresh = copy.deepcopy(collate)
        expected = outcome(mixing(afresh, inplace), batches[kind])
        assert_same(outcome(mixing(collate, inplace), batches[kind]), expected)


def mixing(collate, inplace):
    return lambda *batch: collate.mix(batch if len(batch) > 1 else batch[0], inplace=inplace)


def test_the_dtype_of_the_result_may_differ_between_calls():
    executor, roles = execution.Executor(()), execution.Roles(images=((),))
    images = torch.rand(B, 3, 6, 8)
    plan = mc.MixUp().make_plan(images)
    for dtype in (None, torch.float16, None, torch.float64, torch.float16):
        assert executor.run(images, roles, plan, dtype=dtype).dtype == (dtype or torch.float32)


def test_volumes_with_a_fill_for_each_channel_are_arranged_by_their_plan():
    one, each = (mc.Cutout(length=3, fill=fill, layout="BCDHW", seed=1) for fill in (5.0, (5.0, 6.0, 7.0)))
    volumes = torch.rand(B, 3, 4, 6, 8)
    executor = execution.Executor((), layout="BCDHW")
    roles = execution.Roles(images=((),))
    for transform in (one, each, one, each):
        plan = transform.make_plan(volumes)
        assert torch.equal(executor.run(volumes, roles, plan), transform.replay(volumes, None, plan))


def test_only_the_first_call_of_a_kind_decides(monkeypatch):
    decisions = []
    execute = execution.execute
    monkeypatch.setattr(execution, "execute", lambda *a, **options: decisions.append(1) or execute(*a, **options))
    transform, batches = mc.MixUp(num_classes=CLASSES), kinds()
    for _ in range(3):
        for kind in ("floats", "other floats", "bytes", "fewer", "a mapping", "some ignored"):
            outcome(transform, batches[kind])
    assert len(decisions) == 4
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        outcome(other, batches["floats"])
    assert len(decisions) == 6


def test_few_kinds_are_remembered():
    transform = mc.MixUp(num_classes=CLASSES)
    for width in range(3, 3 + 3 * execution.MOST_KINDS):
        transform(torch.rand(B, 3, 6, width), LABELS)
        assert len(transform._executor._decided) <= execution.MOST_KINDS


def test_a_plan_changed_between_two_calls_is_checked():
    transform = mc.CutMix(num_classes=CLASSES)
    images = torch.rand(B, 3, 6, 8)
    roles = execution.Roles(images=((0,),), labels=((1,),))
    plan = transform.make_plan(images)
    for _ in range(2):
        transform._executor.run((images, LABELS), roles, plan)
    plan.partners[0] = B
    with pytest.raises(ValueError, match="plan.partners must be in 0 … 5, got"):
        transform._executor.run((images, LABELS), roles, plan)
    with pytest.raises(ValueError, match="the plan was drawn for"):
        transform._executor.run((images, LABELS), roles, transform.make_plan(torch.rand(B, 3, 6, 9)))
    with pytest.raises(ValueError, match=r"labels must be \[4\] class indices"):
        transform._executor.run((images, LABELS), roles, transform.make_plan(images[:4]))


OF_SEVERAL = {
    "a label": (
        {"label_key": ["fine", "coarse"], "num_classes": [9, 3]},
        {"coarse": LABELS},
        "labels must be in 0 … 2",
    ),
    "a kind of labels": (
        {"label_key": ["fine", "coarse"], "num_classes": [9, 3]},
        {"coarse": LABELS / 2},
        "labels .* integer",
    ),
    "a mask": (
        {"mask_keys": ["whole", "parts"], "mask_classes": 2},
        {"parts": torch.full((B, 6, 8), 2)},
        r"masks must be class indices in 0 … 1",
    ),
    "masks that cannot be blended": (
        {"mask_keys": ["whole", "parts"], "transform": mc.MixUp()},
        {"whole": torch.zeros(B, 6, 8), "parts": torch.zeros(B, 6, 8, dtype=torch.uint8)},
        "masks must be one-hot",
    ),
    "an image": (
        {"image_key": ["image", "depth"], "mean": (0.4, 0.5, 0.6), "transform": mc.Cutout()},
        {"depth": torch.rand(B, 1, 6, 8)},
        "mean must",
    ),
}


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_an_error_says_which_of_several_entries_it_is_about(name):
    options, wrong, message = OF_SEVERAL[name]
    collate = mc.MixupCollate(**{"transform": mc.CutMix(), **options})
    right = {"image": torch.rand(B, 3, 6, 8), "fine": LABELS, "whole": torch.zeros(B, 6, 8, dtype=torch.int64)}
    names = {"image", *wrong, *options.get("label_key", ()), *options.get("mask_keys", ())}
    with pytest.raises((TypeError, ValueError), match=f"at '{list(wrong)[-1]}': {message}"):
        collate.mix({key: value for key, value in {**right, **wrong}.items() if key in names})
