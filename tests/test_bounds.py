"""Plans made by hand: what is out of bounds is refused wherever a plan enters, before anything is written."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixcollate import Compose, CutMix, Cutout, ErasingTransform, MixUp, RandomChoice
from mixcollate.kernels import bounds, mix, mix_masks, pack
from mixcollate.targets import mix_targets
from tests import cases

SHAPE = (4, 3, 9, 12)
HALVES = np.full((4, 2), 0.5, np.float32)
THREE = cases.plan("mixup", (3, 3, 9, 12))
BOXES = np.array([[0, 0, 9, 13]] * 4, np.int32)

WRONG = {
    r"plan.partners must be in 0 … 3, got 0 … 4": ("mixup", {"partners": np.array([[1], [0], [4], [2]])}),
    r"plan.partners must be in 0 … 3, got -1 … 2": ("mixup", {"partners": np.array([[1], [0], [-1], [2]])}),
    r"plan.shares must be of shape \(4, 2\) .* got \(4, 3\)": ("mixup", {"shares": np.ones((4, 3), np.float32)}),
    r"plan.shares must be in \[0, 1\], got -0.5 … 1.5": ("mixup", {"shares": np.float32([[1.5, -0.5]] * 4)}),
    r"plan.shares must sum to 1 in each row, got 1.39": ("mixup", {"shares": np.full((4, 2), 0.7, np.float32)}),
    r"plan.shares must be float32, got float64": ("mixup", {"shares": np.ones((4, 2))}),
    r"plan.own_outside must be in \[0, 1\], got nan": ("mixup", {"own_outside": np.float32([0, 1, np.nan, 1])}),
    r"plan.own_outside must have a row for each of 4 images, got 3": ("mixup", {"own_outside": np.ones(3, np.float32)}),
    r"plan.own_inside must be in \[0, 1\], got -1.0": ("cutmix", {"own_inside": np.full(4, -1, np.float32)}),
    r"plan.own_outside must come with|plan.own_inside must come with": ("cutmix", {"box": None}),
    r"plan.own_outside or plan.corner must say how pixels are mixed": ("mixup", {"own_outside": None}),
    r"plan.box must be boxes .* within \(height, width\) \(9, 12\), got .* 13\]": ("cutmix", {"box": BOXES}),
    r"plan.box must be boxes .* got \[-1": ("cutmix", {"box": BOXES - 1}),
    r"plan.erase_box must be boxes": ("cutout", {"erase_box": np.stack([BOXES] * 2, 1)}),
    r"plan.bitmap must be \[B, 9, 2\], got \(4, 9, 1\)": ("fmix", {"bitmap": np.zeros((4, 9, 1), np.uint8)}),
    r"plan.resized must be in 0 … 2, got 3 … 3": ("resizemix", {"resized": np.full(4, 3, np.int8)}),
    r"plan.corner must be in 0 …": ("ricap", {"corner": np.full((4, 2), -1, np.int32)}),
    r"plan.partners must name three .* got 1": ("ricap", {"partners": np.ones((4, 1), int), "shares": HALVES}),
    r"plan.shift must leave every piece within": ("ricap", {"shift": np.full((4, 4, 2), 9, np.int32)}),
    r"plan.shift must come with corner": ("ricap", {"corner": None}),
    r"plan.grid must come with fill": ("gridmask", {"fill": None}),
    r"plan.grid must come with fill and turn": ("gridmask", {"turn": None}),
    r"plan.grid must have tiles and holes in 0.* got \[-1": ("gridmask", {"grid": np.full((4, 5), -1, np.int32)}),
    r"plan.grid must have tiles and holes .* 2147483647": ("gridmask", {"grid": np.full((4, 5), 2**31 - 1, np.int32)}),
    r"plan.turn must be in -1 … 1, got nan": ("gridmask", {"turn": np.full((4, 2), np.nan, np.float32)}),
    r"plan.cell must be sides of at least one pixel, got 0": ("hide_and_seek", {"cell": np.zeros(4, np.int32)}),
    r"plan.hidden must have bits for all cells of 1 pixels": ("hide_and_seek", {"cell": np.ones(4, np.int32)}),
    r"plan.shift must be int32 or int64, got float64; .astype\(np.int32\)": ("ricap", {"shift": np.ones((4, 4, 2))}),
    r"plan.corner must be int32 or int64, got complex64": ("ricap", {"corner": np.zeros((4, 2), np.complex64)}),
    r"plan.turn must be float32, got int64": ("gridmask", {"turn": np.zeros((4, 2), np.int64)}),
    r"plan.turn must be float32, got float64": ("gridmask", {"turn": np.zeros((4, 2))}),
    r"plan.fill must be float32, got float64": ("cutout", {"fill": np.ones((4, 2, 1))}),
    r"plan.partners must be int64 or int32, got uint8": ("mixup", {"partners": np.ones((4, 1), np.uint8)}),
    r"plan.partners must be int64 or int32, got float64": ("cutout", {"partners": np.ones((4, 0))}),
    r"plan.box must be int32 or int64, got uint32": ("cutmix", {"box": np.zeros((4, 4), np.uint32)}),
    r"plan.box must be int32 or int64, got >i4": ("cutmix", {"box": np.zeros((4, 4), ">i4")}),
    r"plan.resized must be int8 or int32 or int64, got bool": ("resizemix", {"resized": np.ones(4, bool)}),
    r"plan.hidden must be uint8, got int64": ("hide_and_seek", {"hidden": np.zeros((4, 5, 1), np.int64)}),
    r"plan.noise must be in 0 … 4294967295, got -1 … -1": ("cutout-noise", {"noise": np.full(4, -1)}),
    r"plan.partners must be \[B, n\], got \(4,\)": ("mixup", {"partners": np.arange(4)}),
    r"plan.partners must be a NumPy array, got a Tensor": ("mixup", {"partners": torch.zeros(4, 1, dtype=torch.int64)}),
    r"plan.shares must be a NumPy array, got \[\[": ("mixup", {"shares": HALVES.tolist()}),
    r"plan.partners must be a NumPy array, got None$": ("cutout", {"partners": None}),
    r"plan.shares must be a NumPy array.*, got None$": ("cutout", {"shares": None}),
    r"plan.shares must be (a NumPy array )?\[B, n\], got (array\(1.\)|\(\))$": ("mixup", {"shares": np.array(1.0)}),
    r"plan.own_outside must be \[B\], got \(4, 1\)": ("mixup", {"own_outside": HALVES[:, :1]}),
    r"plan.box must be \[B, 4\], got \(4, 1, 4\)": ("cutmix", {"box": np.zeros((4, 1, 4), np.int32)}),
    r"plan.grid must be \[B, 5\], got \(4, 4\)": ("gridmask", {"grid": np.ones((4, 4), np.int32)}),
    r"plan.fill must be \[B, n, n\], got \(4, 1\)": ("cutout", {"fill": HALVES[:, :1]}),
    r"plan.fill must be finite, got nan": ("cutout", {"fill": np.full((4, 2, 1), np.nan, np.float32)}),
    r"plan.fill must have one row per box, 2, got 1": ("cutout", {"fill": np.ones((4, 1, 1), np.float32)}),
    r"plan.fill_mean must be True or False, got 'yes'": ("cutout", {"fill_mean": "yes"}),
    r"plan.size must be two integers \(height, width\), got \[9, 12\]": ("mixup", {"size": [9, 12]}),
    r"plan.then must be of the 4 images of the pass before, got 3": ("mixup", {"then": THREE}),
    r"plan.then must be a MixPlan, got 'mixup'": ("mixup", {"then": "mixup"}),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_is_out_of_bounds_is_refused_wherever_it_enters(message):
    name, parts = WRONG[message]
    right = cases.plan(name, SHAPE)
    images = torch.zeros(SHAPE)
    packed = pack(right, "cpu")
    words = packed.words.clone()
    for plan in (replace(right, **parts), replace(cases.plan("mixup", SHAPE), then=replace(right, **parts))):
        for impl in ("reference", "host"):
            with pytest.raises((ValueError, TypeError), match=message):
                mix(images, plan, out=images, impl=impl)
        with pytest.raises((ValueError, TypeError), match=message):
            mix_targets(torch.arange(4), plan, num_classes=4)
        with pytest.raises((ValueError, TypeError), match=message):
            mix_masks(images, plan)
        with pytest.raises((ValueError, TypeError), match=message):
            pack(plan, "cpu")
        with pytest.raises((ValueError, TypeError), match=message):
            CutMix(inplace=True).replay(images, None, plan)
    with pytest.raises((ValueError, TypeError)):
        packed.copy_(replace(right, **parts))
    assert not images.any() and torch.equal(packed.words, words)


@pytest.mark.parametrize("name", [*cases.METHODS, "all"])
@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_what_is_drawn_is_within_bounds(name, shape):
    """Empty batches too: they can be packed, and unpacked."""
    plan = cases.plan(name, shape)
    assert len(pack(plan, "cpu").unpack()) == shape[0]
    assert pack(plan, "cpu").copy_(plan).unpack().shapes == plan.shapes


def test_a_plan_that_was_changed_is_checked_again():
    """Its arrays can be written to, and compiled loops would read whatever its partners then say."""
    plan, images = cases.plan("mixup", SHAPE), torch.rand(SHAPE)
    mix(images, plan)
    unpickled = pickle.loads(pickle.dumps(plan))
    for changed in (plan, unpickled):
        changed.partners[0] = 100_000
        with pytest.raises(ValueError, match="plan.partners must be in 0 … 3, got .* 100000"):
            mix(images, changed)
    twice = replace(cases.plan("cutout", SHAPE), then=cases.plan("cutmix", SHAPE))
    mix(images, twice)
    twice.then.box[0, 3] = 13
    with pytest.raises(ValueError, match="plan.box must be boxes"):
        mix_masks(images, twice)


def backwards(part):
    return part[::-1].copy()[::-1]


def read_only(part):
    return np.broadcast_to(part, part.shape)


@pytest.mark.parametrize("stored", [backwards, read_only])
@pytest.mark.parametrize("shape", [SHAPE, (1, 3, 9, 12)], ids=str)
@pytest.mark.parametrize("name", [*cases.METHODS, "all"])
def test_a_plan_may_be_read_only_or_stored_backwards(name, shape, stored):
    plan, images, labels = cases.plan(name, shape), torch.rand(shape), torch.arange(shape[0])
    parts = {**plan.parts, "partners": plan.partners, "shares": plan.shares}
    other = replace(plan, **{part: stored(array) for part, array in parts.items()})
    for impl in ("reference", "host"):
        assert torch.equal(mix(images, other, impl=impl), mix(images, plan, impl=impl))
    assert torch.equal(mix_targets(torch.eye(shape[0]), other), mix_targets(torch.eye(shape[0]), plan))
    for target, wanted in zip(*[mix_targets(labels, one, targets="sparse") for one in (other, plan)], strict=True):
        assert torch.equal(target, wanted)


class Beyond(MixUp):
    """A user's method, whose boxes reach beyond the image."""

    def plan_batch(self, draw):
        return replace(cases.plan("cutmix", draw.shape), box=BOXES)


@pytest.mark.parametrize(
    "transform", [Beyond(), Compose([Beyond(), Cutout()]), RandomChoice([Compose([Beyond()]), MixUp()], p=[1.0, 0.0])]
)
def test_what_a_users_method_draws_is_checked(transform):
    with pytest.raises(ValueError, match="plan.box must be boxes"):
        mix(images := torch.rand(SHAPE), transform.make_plan(images))


class Returning(MixUp):
    """A user's method that returns the same plan again and again."""

    def __init__(self, plan, **options):
        super().__init__(**options)
        vars(self).update(plan=plan)

    def plan_batch(self, draw):
        return self.plan


@pytest.mark.parametrize("message", WRONG)
def test_what_a_users_method_returns_is_checked_before_it_is_taken_apart(message):
    name, parts = WRONG[message]
    plan, images = replace(cases.plan(name, SHAPE), **parts), torch.zeros(SHAPE)
    for transform in (
        Returning(plan),
        Returning(plan, p=0.5),
        RandomChoice([MixUp(), Returning(plan)]),
        Compose([MixUp(), Returning(plan)]),
        Compose([Returning(plan), Cutout()]),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            transform.make_plan(images)


@pytest.mark.parametrize("twice", [False, True])
def test_labels_are_not_left_alone_by_a_users_method_that_mixes(twice):
    """It should be a MixTransform; one that erases may name partners, if it takes nothing from their labels."""

    class Blending(ErasingTransform):
        shares = HALVES

        def plan_batch(self, draw):
            plan = replace(cases.plan("mixup", draw.shape), shares=self.shares, own_outside=self.shares[:, 0])
            return replace(cases.plan("cutout", draw.shape), then=plan) if twice else plan

    class Blended(Blending):
        shares = np.float32([[1, 0]] * 4)

    images, labels = torch.rand(SHAPE), torch.arange(4)
    for transform in (Blending(), RandomChoice([Blending(), Cutout()]), Compose([MixUp(num_classes=4), Blending()])):
        with pytest.raises(ValueError, match="Blending must be a MixTransform to change labels, .* got 0.5"):
            transform(images, labels)
    assert torch.equal(Blended()(images, labels)[1], labels)


@pytest.mark.parametrize("name", ["plan_batch", "draw_plan"])
@pytest.mark.parametrize("on_class", [False, True])
def test_what_a_users_function_in_a_methods_place_draws_is_checked(on_class, name, monkeypatch):
    transform = MixUp()
    if on_class:
        monkeypatch.setattr(MixUp, name, Beyond.plan_batch)
    else:
        monkeypatch.setattr(transform, name, Beyond().plan_batch)
    with pytest.raises(ValueError, match="plan.box must be boxes"):
        mix(images := torch.rand(SHAPE), transform.make_plan(images))


@pytest.mark.parametrize("transform", [CutMix(), RandomChoice([MixUp(), CutMix()]), Compose([MixUp(), CutMix()])])
def test_what_ours_draw_need_not_be_checked_until_it_is_changed(transform, monkeypatch):
    images = torch.rand(SHAPE)
    with monkeypatch.context() as patched:
        patched.setattr(bounds, "_check_array", None)
        plan = transform.make_plan(images)
        mix(images, plan)
    last = plan if plan.then is None else plan.then
    last.box[0, 3] = 13
    with pytest.raises(ValueError, match="plan.box must be boxes"):
        mix(images, plan)


def test_a_plan_that_was_changed_is_asked_for_its_pairs_again():
    """What its draw said of them holds no longer."""
    plan, images = cases.plan("mixup", SHAPE), torch.rand(SHAPE)
    mix(images, plan)
    plan.own_outside[:] = np.float32([0, 0.25, 0.5, 1])
    wanted = mix(images, plan, impl="reference")
    torch.testing.assert_close(mix(images, plan, out=images.clone()), wanted)
    inplace = images.clone()
    torch.testing.assert_close(mix(inplace, plan, out=inplace), wanted)


def found(plan):
    """A plan made by hand, whose pairs somebody has looked at."""
    by_hand = replace(plan)
    assert by_hand.mutual
    return by_hand


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan)), found])
@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_that_was_changed_is_asked_for_its_pairs_again(copied, packed):
    images, labels = torch.eye(8)[:, :, None, None].repeat(1, 1, 64, 64), torch.arange(8)
    mixup = MixUp(num_classes=8, seed=0)

    def mixed(change):
        plan = copied(copy.deepcopy(mixup.make_plan(images)))
        change(plan)
        return mixup.replay(images, labels, pack(plan, "cpu") if packed else plan)

    def rolled(plan):
        plan.partners[:, 0] = np.roll(np.arange(8), 1)

    def unlike(plan):
        plan.own_outside[0], plan.shares[0] = 0.25, (0.25, 0.75)

    for change in (rolled, unlike, lambda plan: None):
        pixels, targets = mixed(change)
        torch.testing.assert_close(pixels.mean((2, 3)), targets)
