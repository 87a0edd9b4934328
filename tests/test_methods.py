"""What each method draws, against the figures of its paper, its official code, and other libraries.

Every test draws from a fixed seed, so it passes always or never. Means lie within four standard errors: a wrong rule
is off by far more, and a right one fails once in 16,000 seeds.
"""

import ast
import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch.utils.data import DataLoader

import mixcollate
from mixcollate import Compose, RandomChoice, methods
from mixcollate.draw import Draw, draw_from, own_shares
from mixcollate.kernels import mix
from mixcollate.methods import fmix
from mixcollate.methods.boxes import signal_axis
from mixcollate.plan import Array, MixPlan
from mixcollate.stream import numbers
from mixcollate.transforms import DrawOptions, ErasingOptions, ErasingTransform, LabelOptions, MixOptions, MixTransform
from tests import cases

SMALL, LARGE = (32, 32), (224, 224)
MANY = 40_000


def draw_for(size: tuple[int, int], batch: int = MANY, seed: int = 0) -> Draw:
    return draw_from(numbers(seed, 0, 0), (batch, 3, *size), "matching")


def assert_mean(values: Array, expected: float, *, rounding: float = 0.0) -> None:
    """The mean, within four standard errors and the rounding of a figure that is quoted."""
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - expected) <= 4 * error + rounding, (values.mean(), expected, error)


def assert_uniform(values: Array, low: int, high: int) -> None:
    """Integers from ``low`` to ``high - 1``, all as often."""
    assert values.min() >= low
    assert values.max() < high
    assert high == low + 1 or scipy.stats.chisquare(np.bincount(values - low, minlength=high - low)).pvalue > 1e-3


def erased_share(plan: MixPlan) -> Array:
    """``[B]``: the share of pixels that become 1."""
    images = torch.zeros(len(plan), 3, *plan.size, dtype=torch.uint8)
    return mix(images, plan).double().mean((1, 2, 3)).numpy()


def box_areas(boxes: Array, size: tuple[int, int]) -> Array:
    """``[...]``: the share of the image that a box covers."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) / (size[0] * size[1])


# What holds for every method.


def test_a_new_method_is_listed_exported_and_documented():
    """A method is its file, its two exports and a README row; and the tests of kernels draw it."""
    folder = Path(methods.__file__).parent
    written = {
        node.name
        for path in folder.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        and {ast.unparse(base) for base in node.bases} & {"MixTransform", "ErasingTransform"}
    }
    assert set(methods.ALL) == written, "export it from mixcollate/methods/__init__.py"
    assert {name for name in written if getattr(mixcollate, name, None) is methods.ALL[name]} == written
    readme = (folder.parents[1] / "README.md").read_text()
    assert {name for name in written if f"\n| `{name}` | " in readme} == written
    drawn = {name.partition("-")[0].replace("_", "") for name in cases.METHODS}
    assert drawn == {name.lower() for name in written}, "draw it in tests/cases.py, with settings for tiny images"


@pytest.mark.parametrize(("base", "options"), [(MixTransform, MixOptions), (ErasingTransform, ErasingOptions)])
def test_what_type_checkers_read_is_what_the_base_takes(base, options):
    assert set(options.__annotations__) == set(inspect.signature(base).parameters)
    for options in (DrawOptions, LabelOptions):
        assert set(options.__annotations__) <= set(inspect.signature(MixTransform).parameters)


@pytest.mark.parametrize("method", [*methods.ALL.values(), RandomChoice, Compose], ids=lambda method: method.__name__)
def test_signatures_spell_out_every_argument(method):
    """What ``help`` and editors show: the base's arguments too, with their defaults; and each can be given."""
    shown = inspect.signature(method).parameters
    code = method.__init__.__wrapped__.__code__
    own = list(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
    base = inspect.signature(method.__mro__[1]).parameters
    for name, parameter in shown.items():
        if name not in own:
            assert parameter.default == base[name].default
            assert parameter.annotation == base[name].annotation
    if method in methods.ALL.values():
        assert set(shown) == {*own, *base}
    else:  # what belongs to members is not given to containers
        assert set(shown) == {*own, *LabelOptions.__annotations__}
    members = {"transforms": [mixcollate.MixUp()]} if "transforms" in shown else {}
    for name, parameter in shown.items():
        method(**{**members, **({} if name in members else {name: parameter.default})})
    documented = re.findall(r"^    (\w+):", inspect.getdoc(method).partition("Args:\n")[2], re.MULTILINE)
    documented_as_options = set() if method in methods.ALL.values() else {"inplace", "layout", "seed"}
    assert set(documented) == {*own, "options"} - documented_as_options


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: methods.Cutout(pairing="roll"), "^Cutout has no argument pairing .got 'roll'.; it has length, holes"),
        (lambda: methods.MixUp(alhpa=1), "^MixUp has no argument alhpa .got 1.; it has alpha, num_classes, labels"),
        (
            lambda: methods.MixUp(torch.rand(4, 3, 99, 99), torch.arange(4)),
            r"^MixUp takes alpha by keyword, got a Tensor of shape \(4, 3, 99, 99\) by position: write alpha=..., and "
            r"pass batches to what MixUp\(...\) makes$",
        ),
        (
            lambda: next(iter(DataLoader([(torch.rand(3, 99, 99), 1)], collate_fn=methods.CutMix))),
            r"(?s)^CutMix takes alpha by .{,300}, and pass batches to what CutMix\(...\) makes$",
        ),
        (lambda: methods.MixUp(0.2), "^MixUp takes alpha by keyword, got 0.2 by position: write alpha=...$"),
        (lambda: methods.RandomErasing(0.2, (0, 1)), "^RandomErasing takes scale by keyword, got .0, 1. by position"),
        (
            lambda: RandomChoice(methods.MixUp(), methods.CutMix()),
            "got CutMix.* by position: pass transforms as one list",
        ),
        (lambda: RandomChoice([methods.MixUp()], [0.5]), r"^RandomChoice takes p by keyword, got \[0.5\] by position"),
    ],
)
def test_arguments_that_there_are_not(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("name", [name for name in methods.ALL if name != "RandomErasing"])
def test_arguments_go_by_name(name):
    with pytest.raises(TypeError, match=rf"^{name} takes .* by keyword, got 0.5 by position"):
        methods.ALL[name](0.5)


def test_methods_of_one_s_own_take_what_they_say():
    class Several(methods.MixUp):
        def __init__(self, *several, **options):
            super().__init__(**options)

    class Renamed(methods.MixUp):
        def __init__(self, strength=0.5, **options):
            super().__init__(alpha=strength, **options)

    class Heir(Renamed):
        pass

    assert Several(1, 2, p=0.5).p == 0.5
    for method in (Renamed, Heir):
        assert method(0.3, p=0.5).alpha == 0.3
        assert next(iter(inspect.signature(method).parameters)) == "strength"
        assert inspect.signature(method).parameters["per"].default == "pair"


@pytest.mark.parametrize("shape", [(b, 3, *size) for b in (0, 1, 2, 3) for size in ((1, 1), (1, 7), (5, 1), (6, 9))])
@pytest.mark.parametrize("name", cases.METHODS)
def test_small_batches_and_images(name, shape):
    for per in ("pair", "sample", "batch"):
        for pairing in ("matching", "shuffle", "roll", "flip"):
            for seed in range(3):
                plan = cases.plan(name, shape, per=per, pairing=pairing, seed=seed)
                mixed = mix(torch.ones(shape), plan)
                assert mixed.shape == shape
                assert name in cases.ERASING or (mixed == 1).all()


@pytest.mark.parametrize("name", cases.MIXING)
def test_shares_are_a_census(name):
    """Image k is all colour k: how much of each colour is in an output is its label, counted, not assumed."""
    for batch, size in ((7, (13, 29)), (6, (8, 8)), (3, (1, 1)), (5, (1, 40)), (4, (9, 1))):
        images = torch.eye(batch)[:, :, None, None].expand(batch, batch, *size)
        for per in ("pair", "sample", "batch"):
            plan = cases.plan(name, (batch, batch, *size), per=per)
            census = mix(images, plan).double().mean((2, 3)).numpy()
            labels = np.zeros((batch, batch))
            everyone = np.concatenate([np.arange(batch)[:, None], plan.partners], 1)
            np.add.at(labels, (np.arange(batch)[:, None], everyone), plan.shares)
            if name == "cutmix-soft":  # only its pixels are changed
                continue
            np.testing.assert_allclose(census, labels, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("name", [name for name in cases.METHODS if name != "cutmix-soft"])
def test_what_one_draw_reaches(name):
    """All images of a batch, both of a pair, or one alone."""
    shape = (64, 3, 21, 18)
    for per, reach in (("batch", np.zeros(64, int)), ("pair", None), ("sample", np.arange(64))):
        draw = draw_from(numbers(0, 0, 0), shape, "matching")
        plan = cases.METHODS[name](draw, per)
        unit = draw.pair if reach is None else reach
        rows = np.concatenate([part.reshape(64, -1) for part in (plan.shares, *plan.parts.values())], 1)
        distinct = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
        assert all(len(set(distinct[unit == u])) == 1 for u in set(unit))
        assert len(set(distinct)) >= 0.4 * len(set(unit))  # some draws coincide: few tiles, untouched images


@pytest.mark.parametrize("name", ["mixup", "cutmix", "ricap", "resizemix", "fmix", "mosaic"])
def test_samples_are_independent(name):
    """Shares of neighbours, and of partners, do not go together under ``per="sample"``."""
    own = np.stack([cases.plan(name, (64, 3, 21, 18), per="sample", seed=seed).own_share for seed in range(200)])
    bound = 4 / math.sqrt(own.size)  # four standard errors
    assert abs(np.corrcoef(own[:, 1:].ravel(), own[:, :-1].ravel())[0, 1]) < bound
    assert abs(np.corrcoef(own[1:].ravel(), own[:-1].ravel())[0, 1]) < bound
    partners = np.stack([cases.plan(name, (64, 3, 21, 18), per="sample", seed=s).partners[:, 0] for s in range(200)])
    assert abs(np.corrcoef(own.ravel(), np.take_along_axis(own, partners, 1).ravel())[0, 1]) < bound


# Signals: one pixel high, or wide.


@pytest.mark.parametrize("size", [(1, 400), (400, 1)])
@pytest.mark.parametrize(
    ("method", "own_share"),
    [
        (methods.CutMix(placement="inside"), 1 / 2),
        (methods.CutMix(), 1 - 5 / 12),  # centred anywhere and clipped: a share s shows s - s² / 4
        (methods.CutMix(minmax=(0.2, 0.4)), 0.7),
        (methods.ResizeMix(), 0.55),
        (methods.ResizeMix(clipped=True), 1 - 0.45 + (0.8**3 - 0.1**3) / 0.7 / 12),
        (methods.RICAP(), 1 / 2),
        (methods.Mosaic(), 1 / 2),
        (methods.FMix(), 1 / 2),
    ],
)
def test_boxes_of_signals_have_their_share_along_the_one_axis(method, own_share, size):
    many = 400 if isinstance(method, methods.FMix) else 10_000
    plan = cases.drawn(method, draw_for(size, many), "sample")
    assert_mean(plan.own_share.astype(float), own_share, rounding=4e-3)  # sides are whole pixels, of 400
    if plan.box is not None:
        top, left, bottom, right = plan.box[plan.own_share < 1].T
        thin = (top, bottom) if size[0] == 1 else (left, right)
        assert (thin[0] == 0).all()
        assert (thin[1] == 1).all()
    else:  # two crops meet, the other two are empty
        assert ((plan.shares > 0).sum(1) <= 2).all()


@pytest.mark.parametrize("size", [(1, 400), (400, 1)])
@pytest.mark.parametrize(
    ("method", "erased"),
    [
        (methods.Cutout(fill=1.0), 7 / 16),
        (methods.Cutout(fill=1.0, length=100, inside=True), 1 / 4),
        (methods.RandomErasing(fill=1.0), 0.175),
        (methods.RandomErasing(fill=1.0, log_ratio=False, count=(2, 2), scale=(0.1, 0.1)), 0.0975),  # they may overlap
        (methods.GridMask(fill=1.0), 0.4),
        (methods.GridMask(fill=1.0, invert=True), 0.6),
        (methods.HideAndSeek(fill=1.0), 0.4),
    ],
)
def test_intervals_of_signals_are_erased(method, erased, size):
    share = erased_share(cases.drawn(method, draw_for(size, 2000), "sample"))
    assert_mean(share, erased, rounding=8e-3)
    assert (share > 0).mean() > 0.7  # Hide-and-Seek leaves a fifth whole


@pytest.mark.parametrize("method", methods.ALL.values(), ids=methods.ALL)
def test_every_method_changes_signals(method):
    """``[B, C, T]``: what erases leaves marks; what mixes leaves a census."""
    signals = torch.eye(6)[:, :, None].expand(6, 6, 50).contiguous()
    options = {"num_classes": 6} if method.mixes else {"fill": 7.0}
    transform = method(**options, p=1.0, layout="BCT", seed=0)
    if not method.mixes:
        assert not torch.equal(transform(signals), signals)
        return
    mixed, targets = transform(signals, torch.arange(6))
    assert not torch.equal(mixed, signals)
    if method is not methods.ResizeMix:  # between two pixels of one colour it rounds
        torch.testing.assert_close(mixed.mean(2), targets, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize(
    ("method", "size", "message"),
    [
        (methods.CutMix(), (1, 1), "images must have more than one pixel for boxes, got .4, 3, 1, 1.; use MixUp"),
        (methods.RandomErasing(1.0), (1, 1), "images must have more than one pixel"),
        (methods.CutMix(), (2, 2), "images must have sides of more than 2 pixels for CutMix's clipped boxes"),
        (methods.Cutout(length=0.1), (4, 4), "length must be at least 2 pixels of .4, 4., or nothing .* got 0.1"),
        (methods.Cutout(length=1), (8, 8), "length must be at least 2 pixels of .8, 8., or nothing .* got 1"),
        (methods.Cutout(length=0.1, inside=True), (4, 4), "length must be at least 1 pixels of .4, 4."),
        (methods.GridMask(tile=(1, 3)), (8, 8), "tile and ratio must leave holes of a pixel or more, got tile=.1, 3."),
        (methods.GridMask(), (2, 2), "tile and ratio must leave holes of a pixel or more"),
        (methods.HideAndSeek(sizes=(0,)), (8, 8), r"sizes must include one of a pixel or more, got \(0,\)"),
        (methods.HideAndSeek(), (2, 2), "sizes must include one of a pixel or more"),
    ],
)
def test_what_can_change_nothing_is_refused(method, size, message):
    with pytest.raises(ValueError, match=message):
        method.make_plan(torch.empty(4, 3, *size))


@pytest.mark.parametrize(
    ("method", "size"),
    [
        (methods.CutMix(nonempty=True), (2, 2)),
        (methods.CutMix(placement="inside"), (2, 2)),
        (methods.Cutout(length=1, inside=True), (8, 8)),
        (methods.Cutout(length=2), (2, 2)),
        (methods.GridMask(tile=(1, 4), p=1.0), (8, 8)),
        (methods.GridMask(tile=(1, 2), invert=True, p=1.0), (8, 8)),
        (methods.HideAndSeek(sizes=(0, 1)), (2, 2)),
        (methods.MixUp(), (1, 1)),
    ],
)
def test_what_can_change_a_little_is_not(method, size):
    images = torch.arange(64.0)[:, None, None, None].expand(64, 3, *size) + 1
    plan = method.make_plan(images)
    assert not torch.equal(mix(images, plan), images)


def test_nonempty_boxes():
    """A pixel at least; and no other box changes."""
    for options in ({}, {"placement": "inside"}, {"placement": "timm"}, {"minmax": (0.0, 0.5)}, {"alpha": 0.05}):
        plain, full = (
            cases.drawn(methods.CutMix(nonempty=nonempty, **options), draw_for((9, 7), 4000), "sample")
            for nonempty in (False, True)
        )
        before, after = (box_areas(plan.box, (9, 7)) for plan in (plain, full))
        assert (before == 0).any()
        assert (after > 0).all()
        assert (full.box >= 0).all()
        assert (full.box[:, 2:] <= (9, 7)).all()
        assert (full.box[before > 0] == plain.box[before > 0]).all()
        np.testing.assert_allclose(full.own_share, 1 - after, atol=1e-7)  # float32
    off = methods.CutMix(alpha=lambda epoch: 0, nonempty=True).make_plan(torch.empty(8, 3, 9, 7), epoch=5)
    assert (off.own_share == 1).all()


def test_nonempty_boxes_inside_prefer_no_place():
    """Those of one pixel, which would be empty otherwise, are as likely at every pixel."""
    cutmix = methods.CutMix(alpha=0.02, placement="inside", nonempty=True)
    plan = cases.drawn(cutmix, draw_for((3, 4)), "sample")
    top, left = plan.box[box_areas(plan.box, (3, 4)) * 12 == 1, :2].T
    assert scipy.stats.chisquare(np.bincount(top * 4 + left, minlength=12)).pvalue > 1e-4


def test_a_signal_may_have_two_pixels():
    assert signal_axis((1, 2)).tolist() == [[True], [False]] and not signal_axis((1, 1)).any()


# mixup.


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 0.8, 1, 2])
def test_own_shares_are_beta(alpha):
    """The float64 draw, but for its ends: float64 makes 1 % of Beta(0.1, 0.1) exactly 1, float32 much more."""
    drawn, expected, end = own_shares(numbers(0, 0, 0), alpha, MANY), scipy.stats.beta(alpha, alpha), 1e-10
    for beyond in (drawn < end, drawn > 1 - end):
        assert scipy.stats.binomtest(int(beyond.sum()), MANY, expected.cdf(end)).pvalue > 1e-3
    inner = drawn[(drawn > end) & (drawn < 1 - end)]
    low, high = expected.cdf([end, 1 - end])
    assert scipy.stats.kstest(inner, lambda x: (expected.cdf(x) - low) / (high - low)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.2, 1, 2])
def test_mixup_takes_them(alpha):
    plan = cases.drawn(methods.MixUp(alpha=alpha), draw_for(SMALL, 16), "sample")
    draw = draw_for(SMALL, 16)
    assert np.array_equal(plan.own_outside, own_shares(draw.numbers, alpha, 16).astype(np.float32))
    assert np.array_equal(plan.own_outside, plan.own_share)


# CutMix.


def draw_cutmix(size, placement, alpha=1.0, **options) -> MixPlan:
    return cases.drawn(methods.CutMix(alpha=alpha, placement=placement, **options), draw_for(size), "sample")


@pytest.mark.parametrize(
    ("size", "placement", "mean", "more_than_half", "greatest"),
    [
        (SMALL, "clipped", 0.2993, 0.146, 0.879),
        (SMALL, "timm", 0.3103, 0.164, 0.938),
        (SMALL, "inside", 0.4790, 0.483, 0.938),
        (LARGE, "clipped", 0.3188, 0.176, 0.978),
        (LARGE, "timm", 0.3200, 0.177, 0.987),
        (LARGE, "inside", 0.4978, 0.497, 0.991),
    ],
)
def test_cutmix_areas(size, placement, mean, more_than_half, greatest):
    """The figures of the official code, timm 1.0.31 and kornia 0.9, from 200,000 draws each (so: an error as well)."""
    plan = draw_cutmix(size, placement)
    pasted = box_areas(plan.box, size)
    error = pasted.std() / math.sqrt(200_000)
    assert_mean(pasted, mean, rounding=5e-5 + 4 * error)
    assert_mean((pasted > 0.5).astype(float), more_than_half, rounding=5e-4 + 4 * 0.5 / math.sqrt(200_000))
    assert pasted.max() <= greatest + 5e-4
    np.testing.assert_allclose(plan.own_share, 1 - pasted, atol=1e-7)  # float32


def test_cutmix_at_the_limit():
    """Centred anywhere and clipped, boxes of a great image cover 77/240 on average."""
    assert_mean(box_areas(draw_cutmix((4096, 4096), "clipped").box, (4096, 4096)), 77 / 240, rounding=2e-4)


@pytest.mark.parametrize(("placement", "odd"), [("clipped", 0), ("timm", 1)])
def test_cutmix_centres_are_uniform(placement, odd):
    """A share of one half, almost surely: boxes of 16 by 17 pixels, of which the paper's code takes 16 by 16."""
    top, left, bottom, right = draw_cutmix((23, 25), placement, alpha=1e12).box.T
    assert_uniform(np.where(top > 0, top + 8, bottom - 8), 0, 23)
    assert_uniform(np.where(left > 0, left + 8, right - 8 - odd), 0, 25)
    assert (bottom - top).max() == 16
    assert (right - left).max() == 16 + odd


def test_cutmix_inside_is_uniform():
    top, left, bottom, right = draw_cutmix((23, 25), "inside", alpha=1e12).box.T
    assert_uniform(top, 0, 23 - 16 + 1)
    assert_uniform(left, 0, 25 - 17 + 1)
    assert set(bottom - top) == {16}
    assert set(right - left) == {17}


def test_cutmix_minmax():
    """Sides between shares of the image's, the upper end excluded; fully inside."""
    box = draw_cutmix((40, 40), "clipped", minmax=(0.1, 0.15)).box
    for start, stop in ((0, 2), (1, 3)):
        side = box[:, stop] - box[:, start]
        assert_uniform(side, 4, 6)
        for length in (4, 5):
            assert_uniform(box[side == length, start], 0, 40 - length + 1)


def test_cutmix_uncorrected_label():
    """The drawn share, as some papers have it: its mean is a half, though boxes are clipped."""
    assert_mean(draw_cutmix(SMALL, "clipped", correct_lam=False).own_share.astype(float), 0.5)


# Cutout.


def draw_cutout(size, length, *, inside=False, holes=1, batch=MANY, fill=1.0) -> MixPlan:
    transform = methods.Cutout(length=length, holes=holes, inside=inside, fill=fill)
    return cases.drawn(transform, draw_for(size, batch), "sample")


@pytest.mark.parametrize(("size", "length", "mean"), [(SMALL, 16, 0.1914), (SMALL, 8, 0.0549), (LARGE, 112, 0.1914)])
def test_cutout_areas(size, length, mean):
    area = box_areas(draw_cutout(size, length).erase_box[:, 0], size)
    assert_mean(area, mean, rounding=1e-4)
    assert area.min() >= (length / 2 / size[0]) ** 2
    assert area.max() == (length / size[0]) ** 2


def test_cutout_centres_are_pixels():
    """Where both edges lie inside, the upper one is uniform; at the border it is clipped."""
    top, left, bottom, right = draw_cutout((32, 48), 8).erase_box[:, 0].T
    for start, stop, length in ((top, bottom, 32), (left, right, 48)):
        centre = np.where(start > 0, start + 4, stop - 4)
        assert_uniform(centre, 0, length)


def test_cutout_inside():
    top, left, bottom, right = draw_cutout((32, 48), 9, inside=True).erase_box[:, 0].T
    assert_uniform(top, 0, 32 - 9 + 1)
    assert_uniform(left, 0, 48 - 9 + 1)
    assert (bottom - top == 9).all()
    assert (right - left == 9).all()
    box = draw_cutout((5, 9), 7, inside=True, batch=20).erase_box[:, 0]  # as much of the square as there is room for
    assert (box[:, 2] - box[:, 0] == 5).all()
    assert (box[:, 3] - box[:, 1] == 7).all()


def test_cutout_odd_sides_lose_a_pixel():
    box = draw_cutout(SMALL, 9).erase_box[:, 0]
    assert (box[:, 2] - box[:, 0]).max() == 8


@pytest.mark.parametrize(("size", "mean"), [(SMALL, 0.19), (LARGE, 0.19), ((14, 14), 0.15)])
def test_cutout_default_areas(size, mean):
    """As docs/methods/cutout.md says."""
    plan = cases.drawn(methods.Cutout(), draw_for(size), "sample")
    assert_mean(box_areas(plan.erase_box[:, 0], size), mean, rounding=5e-3)


def test_cutout_holes_are_independent():
    box = draw_cutout(SMALL, 8, holes=3).erase_box
    assert box.shape == (MANY, 3, 4)
    top = box[..., 0].astype(float)
    assert np.abs(np.corrcoef(top.T) - np.eye(3)).max() < 4 / math.sqrt(MANY)


@pytest.mark.parametrize("size", [(2, 2), (2, 64), (1, 64)], ids=str)
def test_a_hole_of_one_pixel_is_refused(size):
    """Clipped, an odd side loses a pixel."""
    with pytest.raises(ValueError, match="length must be at least 2 pixels"):
        methods.Cutout(length=1).make_plan(torch.empty(4, 1, *size))
    assert methods.Cutout(length=1, inside=True).make_plan(torch.empty(4, 1, *size)).erase_box.any()


# Random Erasing.


def draw_random_erasing(size, scale, ratio, *, log_ratio=True, count=(1, 1), attempts=10, batch=MANY) -> MixPlan:
    transform = methods.RandomErasing(
        scale=scale, ratio=ratio, log_ratio=log_ratio, count=count, attempts=attempts, fill=1.0
    )
    return cases.drawn(transform, draw_for(size, batch), "sample")


@pytest.mark.parametrize(
    ("scale", "ratio", "log_ratio", "attempts", "mean", "higher"),
    [
        ((0.02, 0.4), (0.3, 1 / 0.3), False, 100, 0.204, 0.76),  # the official code
        ((0.02, 0.33), (0.3, 3.3), True, 10, 0.175, 0.49),  # torchvision
        ((0.02, 1 / 3), (0.3, 1 / 0.3), True, 10, 0.176, 0.50),  # timm
    ],
)
def test_random_erasing_areas(scale, ratio, log_ratio, attempts, mean, higher):
    top, left, bottom, right = box = (
        draw_random_erasing(LARGE, scale, ratio, log_ratio=log_ratio, attempts=attempts).erase_box[:, 0].T
    )
    height, width = bottom - top, right - left
    assert_mean(box_areas(box.T, LARGE), mean, rounding=1e-3)  # quoted to three digits, from 30,000 draws
    assert_mean((height > width).astype(float), higher, rounding=1.2e-2)
    assert (height < 224).all()
    assert (width < 224).all()
    assert (height > 0).all()  # ten attempts are enough


def test_random_erasing_places_and_aspects():
    """One size: positions are uniform, the last included; the logarithm of the ratio is uniform."""
    top, left, bottom, right = draw_random_erasing((30, 40), (0.1, 0.1), (1, 1)).erase_box[:, 0].T
    assert set(bottom - top) == set(right - left) == {11}  # the root of 120
    assert_uniform(top, 0, 30 - 11 + 1)
    assert_uniform(left, 0, 40 - 11 + 1)
    top, left, bottom, right = draw_random_erasing((9000, 9000), (0.02, 0.02), (0.3, 3.3)).erase_box[:, 0].T
    ratio = np.log((bottom - top) / (right - left))
    low, high = math.log(0.3), math.log(3.3)
    assert scipy.stats.kstest(ratio, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_random_erasing_gives_up():
    """A box as high as the image is drawn again; with one attempt it is left out."""
    scale, ratio = (0.5, 0.5), (1, 4)  # fits with a ratio below 2: a half of the draws on the logarithmic scale
    for attempts, fits in ((1, 0.5), (2, 0.75), (4, 0.9375)):
        box = draw_random_erasing((1000, 1000), scale, ratio, attempts=attempts).erase_box[:, 0]
        assert_mean((box_areas(box, (1000, 1000)) > 0).astype(float), fits, rounding=2e-3)  # rounding of the sides
    assert (box_areas(draw_random_erasing((4, 4), (1, 1), (1, 1)).erase_box, (4, 4)) == 0).all()


def test_random_erasing_counts():
    """Boxes share the area (timm); how many there are is uniform."""
    box = draw_random_erasing(LARGE, (0.2, 0.2), (1, 1), count=(1, 3)).erase_box
    areas = box_areas(box, LARGE)
    used = (areas > 0).sum(1)
    assert_uniform(used, 1, 4)
    np.testing.assert_allclose(areas.sum(1), 0.2, atol=0.004)  # sides are whole pixels
    assert ((areas > 0) == (np.arange(3) < used[:, None])).all()


# GridMask.


def draw_gridmask(size, *, tile=(96, 224), ratio=0.6, rotate=360, invert=False, batch=400) -> MixPlan:
    transform = methods.GridMask(tile=tile, ratio=ratio, rotate=rotate, invert=invert, fill=1.0)
    return cases.drawn(transform, draw_for(size, batch), "sample")


def test_gridmask_numbers():
    tile, hole, _, _, inverted = draw_gridmask(LARGE, batch=MANY).grid.T
    assert_uniform(tile, 96, 224)  # 224 is not drawn, as in the official code
    assert np.array_equal(hole, tile - np.ceil(tile * 0.6))
    assert not inverted.any()
    fixed = draw_gridmask(LARGE, tile=(100, 101), batch=MANY)
    assert_uniform(fixed.grid[:, 2] % 100, 0, 100)
    assert_uniform(fixed.grid[:, 3] % 100, 0, 100)
    assert abs(np.corrcoef(fixed.grid[:, 2] % 100, fixed.grid[:, 3] % 100)[0, 1]) < 4 / math.sqrt(MANY)
    turn = draw_gridmask(LARGE, rotate=90, batch=MANY).turn.astype(float)
    degrees = np.rad2deg(np.arctan2(-turn[:, 1], turn[:, 0]))  # counter-clockwise, as PIL turns
    assert np.abs(degrees - degrees.round()).max() < 1e-4
    assert_uniform(degrees.round().astype(int), 0, 90)
    assert (draw_gridmask(LARGE, rotate=1).turn == (1, 0)).all()


@pytest.mark.parametrize("rotate", [1, 360])
@pytest.mark.parametrize(("invert", "mean"), [(False, 0.158), (True, 0.841)])
def test_gridmask_areas(rotate, invert, mean):
    """Squares of (1 - ratio) of a tile go: 0.16 but for the rounding; or, inverted, all else."""
    erased = erased_share(draw_gridmask(LARGE, rotate=rotate, invert=invert))
    tile = np.arange(96, 224)
    expected = (((tile - np.ceil(tile * 0.6)) / tile) ** 2).mean()
    assert_mean(erased, 1 - expected if invert else expected)
    assert abs(erased.mean() - mean) < 0.007  # the official code, measured; four standard errors
    if rotate == 360:
        assert erased.std() == pytest.approx(0.026, rel=0.2)  # likewise


@pytest.mark.parametrize(("size", "mean"), [(LARGE, 0.158), (SMALL, 0.146)])
def test_gridmask_areas_are_as_documented(size, mean):
    tile, hole = draw_gridmask(size, tile=None, batch=MANY).grid[:, :2].T
    assert_mean((hole / tile) ** 2, mean, rounding=5e-4)


@pytest.mark.parametrize(("size", "rotate"), [((7, 50), 360), ((1, 1), 360), ((64, 3), 45), ((20, 20), 1)])
def test_gridmask_positions_are_never_negative(size, rotate):
    """Remainders of negative numbers differ between languages, so there are none."""
    plan = draw_gridmask(size, tile=(2, 9), rotate=rotate, batch=2000)
    rows, cols = np.meshgrid(*(np.array([0, n - 1]) + 0.5 - n / 2 for n in size))
    cosine, sine = plan.turn[:, :, None, None].swapaxes(0, 1)
    assert (np.floor(cosine * rows - sine * cols).min((1, 2)) + plan.grid[:, 2]).min() >= 0
    assert (np.floor(sine * rows + cosine * cols).min((1, 2)) + plan.grid[:, 3]).min() >= 0


def test_a_grid_has_tiles_to_draw_from():
    methods.GridMask(tile=(5, 6))
    with pytest.raises(ValueError, match="tile must be .low, high. pixels with low < high"):
        methods.GridMask(tile=(5, 5))


def test_a_grid_need_not_turn():
    plan = methods.GridMask(p=1.0, rotate=0).make_plan(torch.empty(8, 3, 32, 32))
    assert (plan.turn == [1, 0]).all()


def test_a_grid_on_a_signal_begins_before_it():
    """Its one row begins a tile; and no position is below 0, where remainders differ between languages."""
    plan = methods.GridMask(p=1.0, tile=(5, 9)).make_plan(torch.empty(200, 2, 1, 50))
    side, _, rows, cols, _ = plan.grid.T
    reach = 27  # from the centre to the farthest pixel, and one
    assert (rows % side == 0).all()
    for place in (rows, cols):
        assert (place >= reach).all() and (place < reach + side).all()


# Hide-and-Seek.


def draw_hide_and_seek(size, sizes=(0, 16, 32, 44, 56), hide=0.5, batch=4000) -> MixPlan:
    return methods.HideAndSeek(hide=hide, fill=1.0).plan_cells(draw_for(size, batch), sizes)


@pytest.mark.parametrize(
    ("size", "sizes", "all_hidden"), [(SMALL, (0, 16, 32, 44, 56), 0.3125), (SMALL, (0, 4, 8, 16), 1 / 64)]
)
def test_hide_and_seek_on_small_images(size, sizes, all_hidden):
    """With the paper's sizes, meant for 224 pixels, 31 % of small images are hidden entirely."""
    hidden = erased_share(draw_hide_and_seek(size, sizes))
    assert_mean((hidden == 1).astype(float), all_hidden)
    assert_mean(hidden, 0.5 * (len(sizes) - 1) / len(sizes))


@pytest.mark.parametrize("size", [LARGE, (97, 131)])
def test_hide_and_seek_on_large_images(size):
    """Two fifths are hidden: one image in five is untouched, half of the others' cells are hidden."""
    hidden = erased_share(draw_hide_and_seek(size, batch=1000))
    assert_mean(hidden, 0.4)
    assert_mean((hidden == 0).astype(float), 0.2)
    assert (hidden < 1).all() or size != LARGE


@pytest.mark.parametrize("hide", [0.0, 0.25, 1.0])
def test_hide_and_seek_probability(hide):
    assert_mean(erased_share(draw_hide_and_seek((32, 24), (8,), hide)), hide)


def test_hide_and_seek_cells_are_independent():
    images = torch.zeros(4000, 3, 4, 4)
    hidden = mix(images, draw_hide_and_seek((4, 4), (1,)))[:, 0].view(4000, 16).double().numpy()
    assert np.abs(np.corrcoef(hidden.T) - np.eye(16)).max() < 5 / math.sqrt(4000)  # 120 coefficients


# RICAP and Mosaic.


def draw_ricap(size, beta=0.3, batch=MANY) -> MixPlan:
    return cases.drawn(methods.RICAP(beta=beta), draw_for(size, batch), "sample")


@pytest.mark.parametrize(("size", "at_an_edge", "single"), [(SMALL, 0.318, 0.103), (LARGE, 0.177, 0.032)])
def test_ricap_corners(size, at_an_edge, single):
    """The official code's figures, measured to three digits, and what the rounded distribution gives exactly."""
    plan = draw_ricap(size)
    edge = (plan.corner == 0) | (plan.corner == size)
    exact = 2 * scipy.stats.beta(0.3, 0.3).cdf(0.5 / size[0])
    assert exact == pytest.approx(at_an_edge, abs=3e-3)
    assert_mean(edge[:, 0].astype(float), exact)
    assert_mean(edge[:, 1].astype(float), exact)
    assert exact**2 == pytest.approx(single, abs=2e-3)
    assert_mean((plan.shares.max(1) == 1).astype(float), exact**2)


def test_ricap_shares():
    shares = draw_ricap(LARGE).shares.astype(float)
    assert_mean(shares.max(1), 0.751, rounding=2e-3)  # measured to three digits
    assert_mean((shares**2).sum(1), 0.661, rounding=2e-3)
    for share in shares.T:
        assert_mean(share, 0.25)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_ricap_corners_are_rounded_beta(beta):
    """Each of S + 1 boundaries as often as Beta says, half to even: the end ones get half a pixel's width."""
    counts = np.bincount(draw_ricap((12, 12), beta).corner.ravel(), minlength=13)
    edges = np.clip((np.arange(14) - 0.5) / 12, 0, 1)
    expected = np.diff(scipy.stats.beta(beta, beta).cdf(edges)) * counts.sum()
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_ricap_crops_are_uniform():
    """Where a piece reads, given its size, is uniform; and always inside its image."""
    size = (9, 7)
    plan = draw_ricap(size, beta=1.0)
    start = np.stack([np.zeros_like(plan.corner), plan.corner])  # [2, B, 2]
    stop = np.stack([plan.corner, np.broadcast_to(size, plan.corner.shape)])
    for piece in range(4):
        for axis, after in enumerate((piece // 2, piece % 2)):
            begin, end = start[after, :, axis], stop[after, :, axis]
            offset = begin + plan.shift[:, piece, axis]
            assert (offset >= 0).all()
            assert (offset + end - begin <= size[axis]).all()
            for side in (0, 3, size[axis]):
                assert_uniform(offset[end - begin == side], 0, size[axis] - side + 1)


def test_ricap_is_the_paper_s():
    """Renaming the four images changes nothing: each of them has the same part in what is drawn."""
    plan = draw_ricap(SMALL, batch=1000)
    assert all(sorted(column) == list(range(1000)) for column in plan.partners.T)
    draw = draw_for(SMALL, 1000)
    assert np.array_equal(plan.partners[:, 0], draw.partner[:, 0])


def test_mosaic():
    """Quadrants stay where they are, and meet between 0.2 and 0.8 of each side."""
    plan = cases.drawn(methods.Mosaic(), draw_for((50, 40)), "sample")
    assert_uniform(plan.corner[:, 0], 10, 41)  # both ends are drawn, as by darknet's rand_int
    assert_uniform(plan.corner[:, 1], 8, 33)
    assert (plan.shift == 0).all()
    row, col = (plan.corner / (50, 40)).T
    areas = np.stack([row * col, row * (1 - col), (1 - row) * col, (1 - row) * (1 - col)], 1)
    np.testing.assert_allclose(plan.shares, areas, atol=1e-6)  # float32
    assert all(sorted(column) == list(range(MANY)) for column in plan.partners.T)


# ResizeMix.


def draw_resizemix(size, *, clipped=False, scale=(0.1, 0.8), interpolation="bilinear", batch=MANY) -> MixPlan:
    transform = methods.ResizeMix(scale=scale, interpolation=interpolation, clipped=clipped)
    return cases.drawn(transform, draw_for(size, batch), "sample")


def test_resizemix_scales():
    """The scale is uniform, the box has the image's aspect, and the mean area is that of a uniform scale squared."""
    size = (2000, 1000)
    top, left, bottom, right = box = draw_resizemix(size).box.T
    scale = (bottom - top) / 2000
    assert scipy.stats.kstest(scale, scipy.stats.uniform(0.1, 0.7).cdf).pvalue > 1e-3
    assert np.abs((right - left) - 1000 * scale).max() <= 1
    assert_mean(box_areas(box.T, size), (0.8**3 - 0.1**3) / 3 / 0.7, rounding=1e-3)  # sides are cut to whole pixels


def test_resizemix_places():
    plan = draw_resizemix((40, 30), scale=(0.5, 0.5))
    top, left, bottom, right = plan.box.T
    assert set(bottom - top) == {20}
    assert set(right - left) == {15}
    assert_uniform(top, 0, 21)
    assert_uniform(left, 0, 16)
    np.testing.assert_allclose(plan.own_share, 0.75)


def test_resizemix_clipped():
    """openmixup: the centre is any pixel, and the whole partner is squeezed into what remains of the box."""
    plan = draw_resizemix((40, 40), scale=(0.5, 0.5), clipped=True)
    top, left, bottom, right = plan.box.T
    assert_uniform(np.where(top > 0, top + 10, bottom - 10), 0, 40)
    assert_uniform(np.where(left > 0, left + 10, right - 10), 0, 40)
    np.testing.assert_allclose(plan.own_share, 1 - box_areas(plan.box, (40, 40)), atol=1e-7)  # float32


def test_resizemix_interpolations():
    assert set(draw_resizemix(SMALL, batch=9).resized) == {2}
    assert set(draw_resizemix(SMALL, batch=9, interpolation="nearest").resized) == {1}


def test_resizemix_shows_at_least_a_pixel():
    top, left, bottom, right = draw_resizemix((3, 40), batch=500).box.T
    assert (bottom - top).min() == 1
    assert (right - left).min() == 4


# FMix.


def draw_fmix(size, alpha=1.0, decay=3.0, batch=500) -> MixPlan:
    return cases.drawn(methods.FMix(alpha=alpha, decay=decay), draw_for(size, batch), "sample")


def fmix_masks(plan: MixPlan) -> Array:
    """``[B, H, W]``: 1 where the partner shows."""
    return np.unpackbits(plan.bitmap, axis=2, count=plan.size[1], bitorder="little").astype(float)


@pytest.mark.parametrize("size", [SMALL, (17, 40)])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_fmix_shares(size, alpha):
    """The drawn share, rounded up or down to whole pixels as often."""
    plan = draw_fmix(size, alpha)
    pixels = size[0] * size[1]
    drawn = own_shares(draw_for(size, 500).numbers, alpha, 500)
    shown = fmix_masks(plan).sum((1, 2))
    np.testing.assert_allclose(plan.own_share, 1 - shown / pixels, atol=1e-7)  # float32
    off = pixels - shown - pixels * drawn
    assert np.abs(off).max() <= 1
    middle = (drawn > 0.01) & (drawn < 0.99)
    assert_mean((off[middle] > 0).astype(float), 0.5)
    assert_mean(off[middle], 0)
    assert_mean(plan.own_share.astype(float), 0.5)


def test_fmix_uses_all_frequencies_on_both_axes():
    """The official code mixes up two axes, so that its noise has no more than two frequencies along the width."""
    grey = fmix.grey_noise(numbers(0, 0, 0), 500, (64, 64), 3.0)
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(0)
    for line in (power[1:13, 0], power[0, 1:13]):  # amplitude falls with the cube of the frequency
        slope = np.polyfit(np.log(np.arange(1, 13)), np.log(line), 1)[0]
        assert slope == pytest.approx(-6, abs=0.2)
    ratio = power[1:13, 0] / power[0, 1:13]  # as strong on both: each is a mean of 500 exponential numbers
    np.testing.assert_allclose(ratio, 1, atol=5 * math.sqrt(2 / 500))


@pytest.mark.parametrize("decay", [-3.0, 0.0, 1.0, 1.8, 2.5, 3.0, 5.0, 20.0])
@pytest.mark.parametrize("size", [(224, 224), (32, 32), (48, 301), (1, 500), (5, 1), (1, 1)])
def test_fmix_leaves_out_what_moves_no_contour(size, decay):
    """The faintest frequencies hold a few millionths of the power: hardly any pixel is on another side without them."""
    height, width = size
    frequency = np.maximum(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)), 1 / max(size))
    spectrum = np.exp(2j * np.pi * np.random.default_rng(0).random((10, *frequency.shape))) * frequency**-decay
    rows, amplitude = fmix.amplitudes(size, decay)
    kept = np.zeros_like(spectrum)
    kept[:, rows, : amplitude.shape[1]] = spectrum[:, rows, : amplitude.shape[1]]
    whole, some = np.fft.irfft2(spectrum, size), np.fft.irfft2(kept, size)
    assert np.square(whole - some).sum() <= 1e-5 * np.square(whole).sum()
    third = np.full(10, height * width // 3)
    moved = fmix.greatest(whole, third) != fmix.greatest(some, third)
    assert moved.mean() < 0.004


@pytest.mark.parametrize("size", [(16, 16), (9, 13)])
def test_fmix_spectrum_is_complex_normal(size):
    """Real and imaginary parts are independent normal numbers, whose size is the amplitude; mirrored ones are real."""
    grey = fmix.grey_noise(numbers(0, 0, 0), 2000, size, 1.5)
    assert grey.dtype == np.float32
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.maximum(frequency, 1 / max(size)) ** -1.5
    spectrum = np.fft.rfft2(grey.astype(float)) / amplitude
    once = spectrum[:, 1 : (height + 1) // 2, 1 : (width + 1) // 2]
    real, imaginary = once.real.ravel(), once.imag.ravel()
    scale = real.std()
    for part in (real, imaginary):
        assert scipy.stats.kstest(part / scale, "norm").pvalue > 1e-3
    for function in (np.asarray, np.square, np.abs):
        correlation = np.corrcoef(function(real), function(imaginary))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(len(real))
    mean = spectrum[:, 0, 0].real
    np.testing.assert_allclose(spectrum[:, 0, 0].imag, 0, atol=1e-4 * scale)
    assert scipy.stats.kstest(mean / (2**0.5 * scale), "norm").pvalue > 1e-3


def test_fmix_draws_in_blocks_what_it_draws_at_once(monkeypatch):
    """How many masks fit in the cache is no matter of chance."""
    plans = []
    for block in (1, 3 * 17 * 40, 10**9):
        monkeypatch.setattr(fmix, "BLOCK", block)
        plans.append(draw_fmix((17, 40), batch=20))
    for plan in plans[1:]:
        np.testing.assert_array_equal(plan.bitmap, plans[0].bitmap)
        np.testing.assert_array_equal(plan.own_share, plans[0].own_share)


def test_fmix_counts_the_pixels_that_ties_add(monkeypatch):
    """Pixels as grey as the last one that an image keeps are kept too, and the label says so."""
    steps = np.repeat(np.arange(4, dtype=np.float32), 10).reshape(5, 8)
    monkeypatch.setattr(fmix, "grey_noise", lambda numbers, count, size, decay: np.stack([steps] * count))
    plan = draw_fmix((5, 8))
    shown = fmix_masks(plan).sum((1, 2))
    assert set(shown) == {0, 10, 20, 30, 40}
    np.testing.assert_allclose(plan.own_share, 1 - shown / 40, atol=1e-7)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (5, 6)])
def test_greatest_by_sorting(size):
    """Every count, none and all among them."""
    pixels = size[0] * size[1]
    count = np.arange(pixels + 1)
    values = np.random.default_rng(0).standard_normal((pixels + 1, *size), np.float32)
    order = np.argsort(np.argsort(-values.reshape(pixels + 1, pixels), 1), 1).reshape(values.shape)
    np.testing.assert_array_equal(fmix.greatest(values, count), order < count[:, None, None])


@pytest.mark.parametrize("decay", [-20.0, 0.0, 20.0])
def test_fmix_with_any_decay(decay):
    """Amplitudes differ by a factor of 10^44 here: float32 reaches 10^38."""
    plan = draw_fmix(LARGE, decay=decay, batch=4)
    drawn = own_shares(draw_for(LARGE, 4).numbers, 1.0, 4)
    np.testing.assert_allclose(plan.own_share, drawn, atol=3 / (LARGE[0] * LARGE[1]))


def test_fmix_blobs_are_larger_for_steeper_spectra():
    """Neighbours agree more often than not; the more so the faster high frequencies fall."""
    agreement = []
    for decay in (0.0, 1.5, 3.0):
        mask = fmix_masks(draw_fmix(SMALL, alpha=50.0, decay=decay))
        agreement.append([(mask[:, 1:] == mask[:, :-1]).mean(), (mask[..., 1:] == mask[..., :-1]).mean()])
    assert (np.diff(agreement, axis=0) > 0.05).all()
    np.testing.assert_allclose(agreement[0], 0.5, atol=0.01)
    np.testing.assert_allclose(*np.transpose(agreement), atol=0.01)


def test_fmix_masks_are_as_likely_everywhere():
    """Each pixel shows the partner half the time: nothing favours a place."""
    shown = fmix_masks(draw_fmix((8, 8), batch=4000)).mean(0)
    assert np.abs(shown - 0.5).max() < 4.5 * 0.5 / math.sqrt(4000)  # 64 means


# Fills.


def fills(fill, **options) -> MixPlan:
    return draw_cutout(SMALL, 8, fill=fill, batch=2000, **options)


@pytest.mark.parametrize(("fill", "values"), [(0.5, (0.5,)), ((0.5,), (0.5,)), ((1, 2, 3), (1, 2, 3))])
def test_constant_fills(fill, values):
    plan = fills(fill, holes=2)
    assert plan.fill.shape == (2000, 2, len(values))
    assert plan.fill.dtype == np.float32
    assert (plan.fill == values).all()
    assert plan.noise is None
    assert not plan.fill_mean


def test_mean_fill():
    plan = fills("mean")
    assert (plan.fill == 0).all()
    assert plan.fill_mean


def test_noise_fill():
    """Each image has a key, never the 0 that means none."""
    plan = fills("noise")
    assert plan.noise.dtype == np.int64
    assert plan.noise.min() > 0
    assert plan.noise.max() < 2**32
    assert len(set(plan.noise)) == 2000
    assert scipy.stats.kstest(plan.noise / 2**32, "uniform").pvalue > 1e-3


def test_channel_noise_fill():
    plan = fills("channel_noise", holes=2)
    assert plan.fill.shape == (2000, 2, 3)
    assert scipy.stats.kstest(plan.fill.ravel().astype(float), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(plan.fill.reshape(2000, 6).T) - np.eye(6)).max() < 4.5 / math.sqrt(2000)


@pytest.mark.parametrize("fill", [(1.0, 2.0), (1.0, 2.0, 3.0, 4.0)])
def test_fills_must_suit_the_channels(fill):
    with pytest.raises(ValueError, match=r"fill must have 1 or 3 values, one per channel, got \("):
        fills(fill)
    with pytest.raises(ValueError, match=r"fill must have a number for each channel, got \(\)"):
        methods.Cutout(fill=())


@pytest.mark.parametrize("number", [np.array(7), np.float32(7), torch.tensor(7.0)], ids=repr)
def test_a_fill_without_axes_is_a_number(number):
    images = torch.zeros(2, 3, 8, 8)
    assert torch.equal(methods.Cutout(fill=number, seed=0)(images), methods.Cutout(fill=7, seed=0)(images))


@pytest.mark.parametrize("name", methods.ALL)
def test_images_without_pixels_have_plans(name):
    """Which keep all labels, divide by nothing, and are refused nowhere."""
    method = methods.ALL[name](**({"p": 1.0} if name in ("GridMask", "RandomErasing") else {}))
    for size in ((0, 0), (0, 16)):
        plan = method.make_plan(torch.empty(4, 3, *size))
        assert np.isfinite(plan.shares).all()
        assert mix(torch.empty(4, 3, *size), plan).shape == (4, 3, *size)
