"""Plans: what they hold, and what joining two of them means."""

import sys
import types
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mixcollate.kernels.bounds as bounds_module
import mixcollate.kernels.packed as packed_module
import mixcollate.plan as plan_module
from mixcollate import Compose, RandomChoice, methods
from mixcollate.draw import draw_from
from mixcollate.kernels import mix
from mixcollate.plan import MixPlan, chain, identity, restrict, select, two_shares
from mixcollate.stream import numbers
from tests import cases


def same(one: MixPlan | None, other: MixPlan | None) -> bool:
    """Whether two plans hold the same numbers."""
    if one is None or other is None:
        return one is other
    for field in fields(MixPlan):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "then":
            equal = same(mine, theirs)
        elif isinstance(mine, np.ndarray):
            equal = isinstance(theirs, np.ndarray) and mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
        else:
            equal = mine == theirs
        if not equal:
            return False
    return True


def pixels(plan: MixPlan, seed: int = 0) -> torch.Tensor:
    shape = (len(plan), 3, *plan.size)
    return mix(torch.rand(shape, generator=torch.Generator().manual_seed(seed)), plan, impl="reference")


@pytest.mark.parametrize("name", [*cases.METHODS, "all"])
def test_a_plan_is_a_function_of_its_address(name):
    shape = (5, 3, 9, 8)
    assert same(cases.plan(name, shape, seed=1), cases.plan(name, shape, seed=1))
    assert not same(cases.plan(name, shape, seed=1), cases.plan(name, shape, seed=2))


def test_shapes_and_types():
    """Every part has one row an image and the dtype that the kernels expect."""
    types = {"partners": np.int64, "noise": np.int64, "resized": np.int8, "bitmap": np.uint8, "hidden": np.uint8}
    floats = ("shares", "own_outside", "own_inside", "turn", "fill")
    for batch in (0, 1, 2, 3):
        for name in cases.METHODS:
            for per in ("pair", "sample", "batch"):
                plan = cases.plan(name, (batch, 3, 9, 13), per=per)
                for field in fields(MixPlan):
                    part = getattr(plan, field.name)
                    if isinstance(part, np.ndarray):
                        assert len(part) == batch, (name, field.name)
                        expected = np.float32 if field.name in floats else types.get(field.name, np.int32)
                        assert part.dtype == expected, (name, field.name)
                        assert part.flags.writeable, (name, field.name)  # torch warns about others
                assert plan.mixes == (name in cases.MIXING)
                assert plan.erases == (name in cases.ERASING)
                assert plan.shares.shape == (batch, 1 + plan.partners.shape[1])
                np.testing.assert_allclose(plan.shares.sum(1), 1, rtol=0, atol=1e-6)  # float32
                assert ((plan.shares >= 0) & (plan.shares <= 1)).all()


def test_identity_changes_nothing():
    plan, images = identity(3, (4, 5)), torch.rand(3, 2, 4, 5)
    assert torch.equal(mix(images, plan, impl="reference"), images)
    assert plan.partner.tolist() == [0, 1, 2]
    assert plan.own_share.tolist() == [1, 1, 1]
    assert not plan.mixes
    assert not plan.erases


def test_partner_is_flat_where_there_is_one():
    assert cases.plan("mixup", (4, 3, 5, 5)).partner.shape == (4,)
    assert cases.plan("ricap", (4, 3, 5, 5)).partner.shape == (4, 3)


@pytest.mark.parametrize("name", [*cases.METHODS, "all"])
def test_select_treats_each_image_as_its_own_plan_does(name):
    """Also where the plans have different parts, numbers of partners, boxes and passes."""
    shape = (6, 3, 9, 8)
    choice = np.array([0, 1, 2, 2, 1, 0])
    for seed in range(3):
        other = cases.plan("all", shape, seed=seed + 10)
        plans = [cases.plan(name, shape, seed=seed), other, cases.plan("gridmask", shape, seed=seed)]
        joined = select(choice, plans)
        if joined.then is not None:  # a later pass reads partners after the first: the order is part of the plan
            assert not joined.then.mixes
        each = torch.stack([pixels(plan) for plan in plans])
        assert torch.equal(pixels(joined), each[torch.from_numpy(choice), torch.arange(6)])
        for i, k in enumerate(choice):
            width = plans[k].shares.shape[1]
            assert np.array_equal(joined.shares[i, :width], plans[k].shares[i])
            assert (joined.shares[i, width:] == 0).all()
            assert (joined.partners[i, width - 1 :] == i).all()


def test_select_of_one_plan_is_that_plan():
    plan = cases.plan("all", (5, 3, 6, 6))
    assert same(select(np.zeros(5, np.int64), [plan]), plan)


@pytest.mark.parametrize("name", [*cases.METHODS, "all"])
def test_only_some_images_are_changed(name):
    """The others keep their pixels and labels in every pass, and their partners: a pair stays one."""
    shape = (6, 3, 9, 8)
    changed = np.array([True, False, True, True, False, True])
    plan = cases.plan(name, shape)
    some, whole = restrict(plan, changed), pixels(plan)
    rows = torch.from_numpy(changed)
    assert torch.equal(pixels(some)[~rows], pixels(identity(6, shape[2:]))[~rows])
    if plan.then is None:
        assert torch.equal(pixels(some)[rows], whole[rows])
    while some is not None:
        assert np.array_equal(some.partners, plan.partners)
        assert np.array_equal(some.shares[changed], plan.shares[changed])
        assert (some.shares[~changed] == np.eye(1, plan.shares.shape[1])).all()
        some, plan = some.then, plan.then


@pytest.mark.parametrize("second", [*cases.METHODS, "all"])
@pytest.mark.parametrize("first", ["mixup", "ricap", "cutout", "all"])
def test_chain_does_one_then_the_other(first, second):
    shape = (5, 3, 8, 7)
    one, two = cases.plan(first, shape, seed=1), cases.plan(second, shape, seed=2)
    images = torch.rand(shape)
    expected = mix(mix(images, one, impl="reference"), two, impl="reference")
    assert torch.equal(mix(images, chain(one, two), impl="reference"), expected)


@pytest.mark.parametrize("names", [("mixup", "cutout", "gridmask"), ("cutout", "ricap", "mixup"), ("fmix",) * 3])
def test_chains_associate(names):
    """Whatever is joined first, all three run, in order."""
    shape = (5, 3, 8, 7)
    one, two, three = (cases.plan(name, shape, seed=seed) for seed, name in enumerate(names))
    images = torch.rand(shape)
    expected = images
    for plan in (one, two, three):
        expected = mix(expected, plan, impl="reference")
    for joined in (chain(chain(one, two), three), chain(one, chain(two, three))):
        assert torch.equal(mix(images, joined, impl="reference"), expected)


def test_erasing_after_mixing_is_one_pass():
    shape = (4, 3, 8, 8)
    for first in cases.MIXING:
        for second in cases.ERASING:
            assert chain(cases.plan(first, shape), cases.plan(second, shape)).then is None


def test_chain_keeps_what_the_mean_fill_needs():
    shape = (2, 3, 8, 8)
    draw = draw_from(numbers(0, 0, 0), shape, "matching")
    mean = cases.drawn(methods.Cutout(length=4, inside=True, fill="mean"), draw, "sample")
    assert chain(cases.plan("mixup", shape), mean).fill_mean
    with pytest.raises(ValueError, match="fill='mean' needs mean="):
        mix(torch.rand(shape), chain(cases.plan("cutout", shape), mean))


@pytest.mark.parametrize("name", [*cases.METHODS, "all"])
def test_rows_are_the_plan_of_some_images(name):
    """Partners keep their numbers in the whole batch."""
    plan = cases.plan(name, (6, 3, 7, 7))
    index = np.array([4, 1])
    part = plan.rows(index)
    assert len(part) == 2
    while plan is not None:
        for field in fields(MixPlan):
            whole = getattr(plan, field.name)
            if isinstance(whole, np.ndarray):
                assert np.array_equal(getattr(part, field.name), whole[index]), field.name
        plan, part = plan.then, part.then
    assert part is None


def test_mutual_plans_can_be_mixed_in_place():
    """A plan is mutual if partners have each other and the same box and shares."""
    shape = (6, 3, 7, 7)
    assert all(cases.plan(name, shape).mutual for name in ("mixup", "cutmix", "cutmix-soft", "resizemix"))
    assert all(cases.plan(name, shape, per="batch", pairing="flip").mutual for name in ("mixup", "cutmix"))
    assert not any(cases.plan(name, shape, per="sample").mutual for name in ("mixup", "cutmix", "resizemix"))
    assert not any(cases.plan(name, shape, per="batch", pairing="roll").mutual for name in ("mixup", "cutmix"))
    assert not any(cases.plan(name, shape).mutual for name in ("ricap", "mosaic", "fmix", *cases.ERASING))
    cutmix = cases.plan("cutmix", shape)
    for part in ("box", "own_inside", "own_outside"):
        changed = getattr(cutmix, part).copy()
        changed[0] += 1
        assert not replace(cutmix, **{part: changed}).mutual, part


def test_two_shares():
    shares = two_shares(np.array([0.25, 1]))
    assert shares.dtype == np.float32
    assert shares.tolist() == [[0.25, 0.75], [1, 0]]


def test_a_plan_cannot_be_changed():
    with pytest.raises(AttributeError):
        identity(1, (2, 2)).size = (3, 3)


# A part of a plan is declared once, at its field.


def with_a_part_more(line):
    """``plan`` and ``kernels.packed`` as they would be with one line more in the class, with the bounds of it."""
    source = Path(plan_module.__file__).read_text()
    anchor = "    fill_mean: bool = False\n"
    assert source.count(anchor) == 1
    modules = {"extended_plan": source.replace(anchor, line + anchor)}
    modules["extended_bounds"] = Path(bounds_module.__file__).read_text()
    modules["extended_packed"] = Path(packed_module.__file__).read_text()
    for name in ("extended_bounds", "extended_packed"):
        text = modules[name].replace("mixcollate.plan", "extended_plan")
        modules[name] = text.replace("mixcollate.kernels.bounds", "extended_bounds")
    for name, text in modules.items():
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(text, name, "exec"), vars(module))
    plans, _, packed = [sys.modules.pop(name) for name in modules]
    return plans, packed


@pytest.mark.parametrize(
    "line, drawn",
    [
        ("    tint: Array | None = part(-1, 1, dtype=np.float32)\n", np.float32([[0.5], [-2], [3], [7]])),
        ("    tint: Array | None = part(4, 1)\n", np.int32([[1], [2], [-3], [2**30]])),
        (
            "    tint: Array | None = part(0, 1, dtype=np.int64, erases=True)\n",
            np.array([[1], [2**32 - 1], [0], [2**31]]),
        ),
        ("    tint: Array | None = part(255, None, dtype=np.uint8)\n", np.arange(12, dtype=np.uint8).reshape(4, 3)),
    ],
    ids=["numbers", "integers", "unsigned", "bits"],
)
def test_a_part_is_declared_once(line, drawn):
    """And then is packed, selected, kept for some images, and left out of masks, without another line."""
    plans, packed = with_a_part_more(line)
    matched = np.array([[1], [0], [3], [2]])
    shares, half = np.full((4, 2), 0.5, np.float32), np.full(4, 0.5, np.float32)
    plan = plans.MixPlan(size=(8, 8), partners=matched, shares=shares, own_outside=half, tint=drawn)
    neutral = plans.PARTS["tint"].neutral
    placed = packed.pack(plan, "cpu")
    for one in (placed, placed.copy_(plan), packed.PackedPlan(placed.words, packed.layout_from_key(placed.key))):
        tint = one.unpack().tint
        assert tint.dtype == drawn.dtype and np.array_equal(tint, drawn)
    assert (placed.copy_(replace(plan, tint=None)).unpack().tint == neutral).all()
    some = np.array([True, False, True, False])
    assert np.array_equal(plans.restrict(plan, some).tint, np.where(some[:, None], drawn, neutral))
    chosen = plans.select(some.astype(int), [plans.identity(4, (8, 8)), plan])
    assert np.array_equal(chosen.tint, np.where(some[:, None], drawn, neutral))
    assert np.array_equal(plan.rows(np.array([2])).tint, drawn[2:3])
    assert (plan.for_masks().tint is None) == ("erases" in line)


@pytest.mark.parametrize("container", [lambda *both: RandomChoice(both, per="sample"), lambda first, _: first])
def test_pairs_follow_from_the_configuration(container):
    """Partners of a shuffle are no pairs, though two images are each other's now and then: all its plans pack alike."""
    shuffled = {"pairing": "shuffle", "per": "sample", "p": 0.5}
    both = container(methods.MixUp(**shuffled), methods.CutMix(**shuffled))
    plans = [both.make_plan(torch.empty(2, 3, 8, 8)) for _ in range(20)]
    assert any((plan.partners[:, 0] == [1, 0]).all() for plan in plans)
    assert all(plan.pairs is None and not plan.mutual for plan in plans)


def test_pairs_that_a_function_makes_are_not_set():
    """Of images it may make pairs of some batches only; who asks for a draw a pair is promised them of all."""

    def neighbours(labels, numbers):
        return np.arange(len(labels)) ^ 1

    for per in ("pair", "sample", "batch"):
        for method in (methods.MixUp, methods.CutMix):
            plan = method(pairing=neighbours, per=per).make_plan(torch.empty(4, 3, 8, 8), labels=torch.arange(4))
            assert plan.mutual == (per == "pair")
            assert (plan.pairs is not None) == (per == "pair")


def test_second_partners_of_a_choice_are_no_pairs_of_the_first():
    """Each transform that mixes twice has drawn its own."""
    twice = [Compose([methods.MixUp(), methods.CutMix()]), Compose([methods.CutMix(), methods.MixUp()])]
    plans = [RandomChoice(twice, seed=seed).make_plan(torch.empty(8, 3, 8, 8)) for seed in range(8)]
    assert all(plan.pairs_hold and plan.then.pairs_hold for plan in plans)
