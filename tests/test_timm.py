"""from_timm agrees with timm in distribution: two-sample tests of shares, areas and erased boxes, seeded."""

import random
from inspect import signature

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.mixup import FastCollateMixup, Mixup, mixup_target
from timm.data.random_erasing import RandomErasing

import mixcollate as mc

BATCH = 16
SIGNIFICANT = 1e-4  # each test is drawn once with a fixed seed, so a right distribution fails none of them


def samples(height=32, width=24):
    """Image k is 255 in channel k, so the mean of channel j in output i is the share of image j."""
    colours = (torch.eye(BATCH)[:, :, None, None] * 255).repeat(1, 1, height, width).to(torch.uint8)
    return [(image, k) for k, image in enumerate(colours)]


def own_shares(targets, mode):
    """Independent draws among the own shares: all (elem), one a pair, or one a batch."""
    own = targets.diagonal().double().numpy()
    return {"elem": own, "pair": own[: BATCH // 2], "batch": own[:1]}[mode]


def distances(mode, count, **arguments):
    """The own shares of ``count`` batches, ours and timm's."""
    np.random.seed(0)
    common = {"num_classes": BATCH, "label_smoothing": 0.0, "mode": mode, **arguments}
    theirs = FastCollateMixup(**common)
    ours = mc.MixupCollate.from_timm(seed=0, **common)
    batch = samples()
    drawn = [own_shares(collate([(x.clone(), y) for x, y in batch])[1], mode) for collate in [theirs] * count]
    return np.concatenate([own_shares(ours(batch)[1], mode) for _ in range(count)]), np.concatenate(drawn)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mixup_alpha": 0.4},
        {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
        {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.7, "switch_prob": 0.3},
        {"mixup_alpha": 0.0, "cutmix_minmax": (0.2, 0.8)},
        {"mixup_alpha": 0.0, "cutmix_alpha": 0.5, "correct_lam": False},
    ],
)
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_shares_have_timms_distribution(mode, arguments):
    ours, theirs = distances(mode, 400 if mode == "batch" else 60, **arguments)
    assert stats.ks_2samp(ours, theirs).pvalue > SIGNIFICANT


def test_rows_of_several_labels_are_mixed_like_timms():
    rows = (torch.rand(BATCH, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    batch = [(image, rows[k]) for image, k in samples()]
    common = {"num_classes": 5, "multi_label": True}
    if "multi_label" not in signature(mixup_target).parameters:
        pytest.skip("this timm mixes no rows of several labels")
    images, targets = mc.MixupCollate.from_timm(label_smoothing=0.0, seed=0, **common)(batch)
    own = images.float().mean((2, 3)).diagonal()[0] / 255  # of the whole batch
    torch.testing.assert_close(targets, mixup_target(rows, lam=own, **common), rtol=0, atol=0.01)
    with pytest.raises(ValueError, match=r"label_smoothing must be 0 with multi_label=True, got 0.1; smooth the rows"):
        mc.MixupCollate.from_timm(**common)
    ours = signature(mc.MixupCollate.from_timm).parameters
    assert list(signature(Mixup).parameters) == list(ours)[:10]
    erasing = {"reprob": 0.0, "remode": "pixel", "recount": 1}  # timm's loader's, but for remode, its script's
    assert {name: ours[name].default for name in erasing} == erasing


def test_the_two_sample_test_can_fail():
    ours, _ = distances("elem", 60, mixup_alpha=0.4)
    _, theirs = distances("elem", 60, mixup_alpha=1.0)
    assert stats.ks_2samp(ours, theirs).pvalue < SIGNIFICANT


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_partners_and_pixels_are_timms(mode):
    collate = mc.MixupCollate.from_timm(0.8, 1.0, mode=mode, label_smoothing=0.0, num_classes=BATCH, seed=0)
    for _ in range(10):
        images, targets = collate(samples())
        for i in range(BATCH):
            assert set(targets[i].nonzero().flatten().tolist()) <= {i, BATCH - 1 - i}
        shares = images.double().mean((2, 3)) / 255
        torch.testing.assert_close(shares, targets.double(), rtol=0, atol=0.5 / 255 + 1e-6)  # rounded to a grey level


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_cutmix_is_chosen_with_timms_probability_for_whatever_one_draw_reaches(mode):
    collate = mc.MixupCollate.from_timm(0.8, 1.0, switch_prob=0.2, mode=mode, num_classes=2, seed=0)
    plans = [collate.transform.make_plan(torch.empty(BATCH, 3, 32, 32)) for _ in range(400)]
    pasted = np.stack([plan.own_outside == 1 for plan in plans])  # outside their boxes, images are their own
    assert pasted.mean() == pytest.approx(0.2, abs=0.08)
    assert (pasted == pasted[:, ::-1]).all() == (mode != "elem")
    assert (pasted == pasted[:, :1]).all() == (mode == "batch")
    boxes = np.stack([plan.box for plan in plans])[pasted]
    whole = boxes[(boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < 32).all(1)]  # what the edges have cut nothing off
    assert {*((whole[:, 2] - whole[:, 0]) % 2)} == {0, 1}  # torchvision's and the paper's sides are even


def test_targets_are_timms_given_its_draw():
    """The same λ through timm's mixup_target and ours, smoothing included."""
    collate = mc.MixupCollate.from_timm(mode="batch", num_classes=20, seed=0)
    plan = collate.transform.make_plan(torch.empty(BATCH, 3, 8, 8))
    labels = torch.arange(BATCH)
    theirs = mixup_target(labels, 20, float(plan.own_share[0]), smoothing=0.1)
    torch.testing.assert_close(collate.rules[0].mix(labels, plan), theirs)


def test_odd_batches_which_timm_refuses():
    with pytest.raises(AssertionError):
        Mixup(num_classes=BATCH)(torch.rand(3, 3, 8, 8), torch.arange(3))
    images, targets = mc.MixupCollate.from_timm(num_classes=BATCH, label_smoothing=0.0)(samples()[:3])
    assert targets[1].argmax() == 1 and targets[1].max() == 1 and len(images) == 3


@pytest.mark.parametrize("count", [1, 3])
def test_erased_areas_have_timms_distribution(count):
    random.seed(0)
    torch.manual_seed(0)
    ones = torch.ones(64, 3, 48, 40)
    theirs = RandomErasing(probability=0.6, max_count=count, mode="const", device="cpu")
    collate = mc.MixupCollate.from_timm(reprob=0.6, recount=count, remode="const", num_classes=2, seed=0)
    erasing = collate.transform.transforms[1]
    assert erasing.scale == (theirs.min_area, theirs.max_area) and erasing.count == (theirs.min_count, theirs.max_count)
    assert np.log(erasing.ratio) == pytest.approx(theirs.log_aspect_ratio)
    areas = [[], []]
    for _ in range(20):
        for which, erased in enumerate((erasing(ones), theirs(ones.clone()))):
            areas[which].append((erased[:, 0] == 0).double().mean((1, 2)))
    assert stats.ks_2samp(*(torch.cat(kind).numpy() for kind in areas)).pvalue > SIGNIFICANT


@pytest.mark.parametrize(("remode", "colours"), [("const", 1), ("rand", 1), ("pixel", 99)])
def test_fills_are_timms(remode, colours):
    collate = mc.MixupCollate.from_timm(
        prob=0.0, reprob=1.0, remode=remode, num_classes=BATCH, mean=0.5, std=0.25, seed=0
    )
    images, _ = collate([(torch.full((3, 32, 32), 255, dtype=torch.uint8), 0)] * BATCH)
    white = (1 - 0.5) / 0.25
    fills = [image[:, (image != white).all(0)] for image in images]  # [3, erased pixels] each
    assert all(fill.shape[1] > 0 for fill in fills)
    found = [fill.unique(dim=1).shape[1] for fill in fills if fill.shape[1] >= colours]
    assert all(count == 1 if colours == 1 else count >= colours for count in found)
    if remode == "const":
        assert all((fill == 0).all() for fill in fills)
    else:
        values = torch.cat([fill.flatten() if colours > 1 else fill[:, 0] for fill in fills])
        assert stats.kstest(values.numpy(), "norm").pvalue > SIGNIFICANT


def test_what_timm_would_not_take_is_refused():
    for arguments, message in (
        ({"mode": "image"}, "mode must be one of 'batch', 'pair', 'elem', got 'image'"),
        ({"mode": "half"}, "got 'half', which mixes a batch and drops half of it; use half the batch size"),
        ({"remode": "noise"}, "remode must be one of 'const', 'rand', 'pixel', got 'noise'"),
        ({"mixup_alpha": 0.0}, "mixup_alpha or cutmix_alpha must be positive, got 0.0 and 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            mc.MixupCollate.from_timm(**arguments)
