"""Transforms: called like torchvision's, right about what they did, and clear about what they refuse."""

import contextlib
import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import mixcollate as mc
from mixcollate.draw import draw_from
from mixcollate.execution import execute
from mixcollate.kernels import mix, mix_masks, pack
from mixcollate.plan import MixPlan, two_shares
from mixcollate.roles import Roles
from mixcollate.schedules import ramp, until
from mixcollate.stream import numbers
from tests.transforms_under_test import erasing, mixing

BATCHES = [0, 1, 2, 3, 16]


def flat_colours(batch, height=13, width=29, dtype=torch.float32):
    """Image k is white in channel k and black elsewhere, so the mean colour of an output is its target."""
    return torch.eye(batch, dtype=dtype)[:, :, None, None].repeat(1, 1, height, width)


def census(images):
    return images.double().mean((2, 3)).float()


@pytest.mark.parametrize("per", ["pair", "sample", "batch"])
@pytest.mark.parametrize("name", mixing())
def test_target_is_the_pixel_census(name, per, device):
    transform = mixing(num_classes=16, per=per, pairing="matching")[name]
    images, labels = flat_colours(16).to(device), torch.arange(16, device=device)
    for _ in range(5):
        mixed, targets = transform(images, labels)
        torch.testing.assert_close(census(mixed), targets, rtol=0, atol=1e-5)  # a mean of 377 float32 pixels


@pytest.mark.parametrize("pairing", ["shuffle", "roll", "flip"])
@pytest.mark.parametrize("name", [name for name in mixing() if name != "Compose"])
def test_target_is_the_pixel_census_for_every_pairing(name, pairing, device):
    transform = mixing(num_classes=7, per="sample", pairing=pairing)[name]
    images, labels = flat_colours(7).to(device), torch.arange(7, device=device)
    mixed, targets = transform(images, labels)
    torch.testing.assert_close(census(mixed), targets, rtol=0, atol=1e-5)


@pytest.mark.parametrize("transform", [v2.MixUp(num_classes=16), v2.CutMix(num_classes=16)])
def test_the_census_holds_for_torchvision_too(transform):
    mixed, targets = transform(flat_colours(16), torch.arange(16))
    torch.testing.assert_close(census(mixed), targets, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", mixing())
def test_any_batch_size(name, batch):
    transform = mixing(num_classes=max(batch, 1))[name]
    images = torch.rand(batch, 3, 5, 7)
    kept = images.clone()
    mixed, targets = transform(images, torch.arange(batch))
    assert mixed.shape == images.shape and targets.shape == (batch, max(batch, 1))
    torch.testing.assert_close(targets.sum(1), torch.ones(batch))
    assert torch.equal(images, kept)


def test_one_image_is_left_to_itself():
    image = torch.rand(1, 3, 8, 8)
    mixed, targets = mc.MixUp(num_classes=3)(image, torch.tensor([2]))
    assert torch.equal(mixed, image) and targets.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", mixing() | erasing())
def test_dtype_in_is_dtype_out_and_targets_are_float32(name, dtype):
    transform = (mixing(num_classes=1000) | erasing())[name]
    images = (torch.rand(6, 3, 16, 24) * 255).to(dtype)
    result = transform(images, torch.full((6,), 999)) if transform.mixes else (transform(images), None)
    assert result[0].dtype == dtype
    if result[1] is not None:
        assert result[1].dtype == torch.float32 and result[1][:, 999].allclose(torch.ones(6))


@pytest.mark.parametrize("name", mixing() | erasing())
def test_channels_last_is_kept(name):
    transform = (mixing(num_classes=6) | erasing())[name]
    images = torch.rand(6, 3, 16, 24).to(memory_format=torch.channels_last)
    plan = transform.make_plan(images)
    mixed = transform.replay(images, None, plan)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed, transform.replay(images.contiguous(), None, plan))


@pytest.mark.parametrize("name", mixing() | erasing())
def test_inplace_writes_into_the_images(name):
    images = torch.rand(6, 3, 16, 24)
    transform = (mixing(num_classes=6, inplace=True) | erasing(inplace=True))[name]
    plan = transform.make_plan(images)
    expected = mix(images, plan, impl="reference")
    mixed = transform.replay(images, None, plan)
    assert mixed is images and torch.equal(images, expected)


@pytest.mark.parametrize("name", [name for name in mixing() if name != "Compose"])
def test_video_frames_share_one_plan(name):
    transform = mixing(num_classes=4)[name]
    frame = torch.rand(4, 1, 3, 9, 11)
    video = frame.repeat(1, 5, 1, 1, 1)
    mixed, _ = transform(video, torch.arange(4))
    assert mixed.shape == video.shape
    assert torch.equal(mixed, mixed[:, :1].expand_as(mixed))


def test_mixup_takes_anything_with_a_batch():
    for shape in ((6,), (6, 11), (6, 2, 50), (6, 2, 3, 4, 5, 2)):
        images = torch.rand(shape)
        transform = mc.MixUp(num_classes=6)
        plan = transform.make_plan(images)
        own = torch.from_numpy(plan.own_share).view(-1, *[1] * (len(shape) - 1))
        expected = own * images + (1 - own) * images[plan.partner]
        torch.testing.assert_close(transform.replay(images, None, plan), expected)


def test_cutmix_refuses_what_has_no_rows_and_columns():
    with pytest.raises(ValueError, match=r"images must be \[B, C, H, W\] .* got \(4, 3, 100\)"):
        mc.CutMix(num_classes=4)(torch.rand(4, 3, 100), torch.arange(4))


@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_torchvision_semantics_given_its_draw(name):
    """per="batch", pairing="roll" is torchvision's transform; its own draw gives its own result."""
    images, labels = torch.rand(7, 3, 13, 29), torch.arange(7)
    ours = getattr(mc, name)(num_classes=7, per="batch", pairing="roll")
    theirs = getattr(v2, name)(num_classes=7)
    for _ in range(10):
        plan = ours.make_plan(images)
        params = {"labels": labels, "batch_size": 7}
        if name == "MixUp":
            params["lam"] = float(plan.own_share[0])
        else:
            top, left, bottom, right = plan.box[0].tolist()
            params |= {"box": (left, top, right, bottom), "lam_adjusted": float(plan.own_share[0])}
        mixed, targets = ours.replay(images, labels, plan)
        torch.testing.assert_close(mixed, theirs.transform(images, params))
        torch.testing.assert_close(targets, theirs.transform(labels, params))


def test_the_articles_recipe_to_the_letter():
    """MixUp(alpha=1, per="batch", pairing="shuffle") is ``lam * x + (1 - lam) * x[index]`` and its two losses."""
    images, labels = torch.rand(8, 3, 16, 16), torch.randint(0, 5, (8,))
    transform = mc.MixUp(alpha=1.0, per="batch", pairing="shuffle", targets="sparse")
    plan = transform.make_plan(images)
    lam, index = float(plan.own_share[0]), torch.from_numpy(plan.partner)
    assert len(set(plan.own_share.tolist())) == 1 and sorted(index.tolist()) == list(range(8))
    mixed, target = transform.replay(images, labels, plan)
    torch.testing.assert_close(mixed, lam * images + (1 - lam) * images[index])
    labels_a, labels_b = target.labels.T
    assert torch.equal(labels_a, labels) and torch.equal(labels_b, labels[index])
    weights = torch.randn(3 * 16 * 16, 5, requires_grad=True)
    logits = mixed.flatten(1) @ weights
    theirs = lam * F.cross_entropy(logits, labels_a) + (1 - lam) * F.cross_entropy(logits, labels_b)
    (wanted,) = torch.autograd.grad(theirs, weights, retain_graph=True)
    ours = mc.soft_cross_entropy(logits, target)
    (got,) = torch.autograd.grad(ours, weights)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(got, wanted)


def test_nested_structures_and_tv_tensors():
    sample = {"image": tv_tensors.Image(torch.rand(4, 3, 8, 9)), "meta": {"id": [1, 2]}, "label": torch.arange(4)}
    result = mc.CutMix(num_classes=4)(sample)
    assert isinstance(result["image"], tv_tensors.Image) and result["meta"] == {"id": [1, 2]}
    assert result["label"].shape == (4, 4)
    pair = mc.MixUp(num_classes=4, labels_getter=lambda inputs: inputs[1]["y"])(
        (torch.rand(4, 3, 8, 9), {"y": torch.arange(4)})
    )
    assert pair[1]["y"].shape == (4, 4)
    alone = mc.MixUp(labels_getter=None)(torch.rand(4, 3, 8, 9))
    assert alone.shape == (4, 3, 8, 9)


def test_in_v2_compose_and_in_a_collate_function():
    pipeline = v2.Compose([v2.ToDtype(torch.float32, scale=True), mc.MixUp(num_classes=10), mc.RandomErasing(p=1.0)])
    images, labels = torch.randint(0, 256, (6, 3, 8, 9), dtype=torch.uint8), torch.arange(6)
    mixed, targets = pipeline(images, labels)
    assert mixed.dtype == torch.float32 and targets.shape == (6, 10)
    loader = DataLoader(
        TensorDataset(images, labels), 3, collate_fn=lambda s: pipeline(*torch.utils.data.default_collate(s))
    )
    for mixed, targets in loader:
        assert mixed.shape == (3, 3, 8, 9) and targets.shape == (3, 10)


def test_masks_follow_their_images():
    index = torch.arange(4).view(4, 1, 1).expand(4, 8, 9).contiguous()
    images = flat_colours(4, 8, 9)
    sample = {"image": tv_tensors.Image(images), "mask": tv_tensors.Mask(index), "labels": torch.arange(4)}
    for name in ("CutMix", "RICAP", "FMix", "Mosaic", "ResizeMix"):
        result = getattr(mc, name)(num_classes=4)(sample)
        assert result["mask"].dtype == torch.int64
        assert torch.equal(result["mask"], result["image"].argmax(1)), name
    soft = mc.MixUp(num_classes=4)(sample | {"mask": tv_tensors.Mask(images.clone())})
    assert torch.equal(soft["mask"].as_subclass(torch.Tensor), soft["image"].as_subclass(torch.Tensor))
    with pytest.raises(ValueError, match="masks must be one-hot floats for a plan that blends, got torch.int64"):
        mc.MixUp(num_classes=4)(sample)
    erased = mc.Cutout()({"image": tv_tensors.Image(images), "mask": tv_tensors.Mask(index)})
    assert torch.equal(erased["mask"], index) and not torch.equal(erased["image"], images)


def test_p_counts_pairs_samples_and_batches():
    images = torch.empty(400, 1, 4, 4)
    torch.manual_seed(0)
    for per, units in (("pair", 200), ("sample", 400)):
        mixed = (mc.MixUp(p=0.3, per=per).make_plan(images).own_share != 1).sum()
        share = mixed / 400
        assert abs(share - 0.3) < 4 * (0.21 / units) ** 0.5, per  # four standard errors
    batches = [(mc.MixUp(p=0.3, per="batch").make_plan(images).own_share != 1).all() for _ in range(400)]
    assert abs(np.mean(batches) - 0.3) < 4 * (0.21 / 400) ** 0.5


def test_p_zero_changes_nothing_and_keeps_the_target_type():
    images, labels = torch.rand(5, 3, 4, 4), torch.arange(5)
    mixed, targets = mc.CutMix(num_classes=5, p=0)(images, labels)
    assert torch.equal(mixed, images) and torch.equal(targets, torch.eye(5))


def test_random_choice_chooses_for_each_pair():
    transform = mc.RandomChoice([mc.MixUp(alpha=0.8), mc.CutMix()], p=[0.25, 0.75], seed=3)
    plan = transform.make_plan(torch.empty(4000, 3, 32, 32))
    blended = (plan.own_outside != 1) & (plan.own_outside != 0)
    assert abs(blended.mean() - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    assert (blended == blended[plan.partner]).all() and plan.mutual


def wrong_plan(draw):
    """Partners outside the batch."""
    shares = two_shares(np.ones(draw.shape[0]))
    return MixPlan(size=draw.size, partners=draw.partner + 100, shares=shares)


class Wrong(mc.MixUp):
    def plan_batch(self, draw):
        return wrong_plan(draw)


@pytest.mark.parametrize("how", ["a class", "a method of its own"])
@pytest.mark.parametrize("where", ["alone", "in a choice", "in a choice in a Compose"])
def test_plans_that_others_draw_are_checked_wherever_they_are(where, how):
    transform = Wrong(num_classes=5) if how == "a class" else mc.MixUp(num_classes=5)
    if how == "a method of its own":
        transform.plan_batch = wrong_plan
    if where != "alone":
        transform = mc.RandomChoice([transform, transform])
    if where == "in a choice in a Compose":
        transform = mc.Compose([transform, mc.Cutout(length=2)])
    for _ in range(3):
        with pytest.raises(ValueError, match="plan.partners must be in 0 … 4, got"):
            transform(torch.rand(5, 3, 8, 8), torch.arange(5))


def test_the_transforms_of_a_container_stay():
    compose = mc.Compose([mc.MixUp(), mc.Cutout(length=2)])
    with pytest.raises(TypeError):
        compose.transforms[0] = mc.CutMix()
    with pytest.raises(AttributeError, match="transforms cannot be changed after a Compose is made"):
        compose.transforms = [mc.CutMix()]
    assert [type(one) for one in compose.transforms] == [mc.MixUp, mc.Cutout]


def test_compose_of_mix_and_erase_is_one_pass():
    choice = mc.RandomChoice([mc.MixUp(alpha=0.8), mc.CutMix()])
    transform = mc.Compose([choice, mc.RandomErasing(p=0.25, fill="noise")], num_classes=8)
    plan = transform.make_plan(torch.empty(8, 3, 32, 32))
    assert plan.then is None and plan.mixes and plan.erases
    images = torch.rand(8, 3, 32, 32)
    mixed, targets = transform.replay(images, torch.arange(8), plan)
    assert torch.equal(mixed, transform.replay(images, None, plan)) and targets.shape == (8, 8)


def test_compose_of_two_mixes_is_two_passes():
    plan = mc.Compose([mc.MixUp(), mc.CutMix()]).make_plan(torch.empty(8, 3, 32, 32))
    assert plan.then is not None and plan.then.box is not None
    plan = mc.Compose([mc.MixUp(), mc.CutMix()], seed=0).make_plan(torch.empty(64, 3, 32, 32))
    assert (plan.partner != plan.then.partner).any()  # whoever mixes next has partners of its own


@pytest.mark.parametrize("name", mixing(num_classes=6) | erasing())
def test_replay_pickle_and_copy(name):
    transform = (mixing(num_classes=6) | erasing())[name]
    images, labels = torch.rand(6, 3, 16, 24), torch.arange(6)
    plan = pickle.loads(pickle.dumps(transform.make_plan(images)))
    first = transform.replay(images, labels, plan)
    for twin in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        again = twin.replay(images, labels, plan)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_manual_seed_reproduces_and_seed_is_a_stream_of_its_own():
    images = torch.empty(8, 3, 8, 8)

    def draw(transform):
        return transform.make_plan(images).own_share.tolist()

    torch.manual_seed(5)
    first = draw(mc.MixUp()), draw(mc.MixUp())
    torch.manual_seed(5)
    assert first == (draw(mc.MixUp()), draw(mc.MixUp())) and first[0] != first[1]
    keyed, state = mc.MixUp(seed=7), torch.get_rng_state()
    stream = [draw(keyed) for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is neither read nor written
    again = mc.MixUp(seed=7)
    again.stream.step = 2
    assert draw(again) == stream[2] and stream[0] != stream[1]


def test_ranks_draw_different_plans(monkeypatch):
    images, shares = torch.empty(8, 3, 8, 8), []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        torch.manual_seed(0)
        shares.append(
            (mc.MixUp(seed=7).make_plan(images).own_share.tolist(), mc.MixUp().make_plan(images).own_share.tolist())
        )
    assert shares[0][0] != shares[1][0] and shares[0][1] != shares[1][1]


def test_schedules_follow_the_epoch():
    images = torch.empty(1000, 3, 32, 32)
    grid = mc.GridMask(p=ramp(0.8, 240))
    assert not grid.make_plan(images, epoch=0).grid[:, 0].any()
    grid.set_epoch(120)
    assert abs((grid.make_plan(images).grid[:, 0] > 0).mean() - 0.4) < 4 * (0.24 / 1000) ** 0.5
    choice = mc.RandomChoice([mc.MixUp(p=until(3)), mc.CutMix(p=until(3))])
    choice.set_epoch(2)
    assert (choice.make_plan(images).own_share != 1).any()
    choice.set_epoch(3)
    assert (choice.make_plan(images).own_share == 1).all()
    for name in ("MixUp", "CutMix", "FMix", "RICAP"):
        rising = getattr(mc, name)(**{"beta" if name == "RICAP" else "alpha": ramp(0.8, 4)})
        assert (rising.make_plan(images, epoch=0).own_share == 1).all()  # 0 mixes nothing
        rising.set_epoch(4)
        assert (rising.make_plan(images).own_share != 1).any()
    with pytest.raises(ValueError, match="alpha in epoch 0 must be a finite number of at least 0, got -1"):
        mc.MixUp(alpha=lambda epoch: -1).make_plan(images, epoch=0)
    sharper = mc.MixUp(alpha=lambda epoch: 1000.0 if epoch else 0.01)
    sharper.set_epoch(1)
    assert abs(sharper.make_plan(images).own_share - 0.5).max() < 0.1
    assert pickle.loads(pickle.dumps(until(3)))(2) == 1.0


@pytest.mark.parametrize("set_on", ["collate", "transform", "neither"])
def test_a_schedule_warns_if_the_epoch_was_not_set(set_on):
    """In a collate also if it was set on the transform: the collate has an epoch of its own."""
    choice = pickle.loads(pickle.dumps(mc.RandomChoice([mc.MixUp(p=until(2)), mc.CutMix()])))
    collate = mc.MixupCollate(choice, num_classes=4)
    batch = (torch.rand(4, 3, 8, 8), torch.arange(4))
    if set_on != "neither":
        {"collate": collate, "transform": choice}[set_on].set_epoch(0)
    if set_on == "collate":
        collate.mix(batch)
    else:
        with pytest.warns(
            UserWarning, match=r"p is a function of the epoch, but set_epoch was not called.* on the collate"
        ):
            collate.mix(batch)
    if set_on != "transform":
        with pytest.warns(UserWarning, match="p is a function of the epoch, but set_epoch was not called"):
            choice(batch[0], torch.eye(4))
    assert type(collate.state_dict()["step"]) is int
    eager = mc.MixupCollate(choice, num_classes=4, eager=True)
    eager.set_epoch(1)
    assert type(eager.state_dict()["epoch"]) is int


def test_gradients_flow_back_to_images():
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    mixed, _ = mc.MixUp(num_classes=4)(images, torch.arange(4))
    mixed.sum().backward()
    torch.testing.assert_close(images.grad, torch.ones_like(images))  # a pair's weights sum to one


def test_autograd_matches_the_weights():
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    transform = mc.MixUp(per="sample", pairing="roll")
    plan = transform.make_plan(images)
    transform.replay(images, None, plan)[0].sum().backward()
    own = float(plan.own_share[0])
    torch.testing.assert_close(images.grad[0], torch.full((3, 8, 8), own))
    torch.testing.assert_close(images.grad[3], torch.full((3, 8, 8), 1 - own))


def test_hide_and_seek_scales_to_small_images_and_refuses_what_blanks_them():
    plan = mc.HideAndSeek(seed=0).make_plan(torch.empty(4000, 3, 32, 32))
    hidden = mix(torch.ones(4000, 1, 32, 32), plan).mean((1, 2, 3)) == 0
    assert hidden.float().mean() < 0.001
    with pytest.raises(ValueError, match=r"sizes must be at most half the shorter side \(32 pixels\), got 56"):
        mc.HideAndSeek(sizes=(0, 16, 32, 44, 56)).make_plan(torch.empty(2, 3, 32, 32))


def test_constructors_and_calls_refuse_with_the_rule_and_the_value():
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    for call, message in (
        (lambda: mc.MixUp(alpha=0), "alpha must be a finite number above 0, got 0; drop the transform"),
        (lambda: mc.MixUp(alpha=float("inf")), "alpha must be a finite number above 0, got inf"),
        (
            lambda: mc.MixUp(targets="sparse", label_smoothing=0.1),
            "label_smoothing must be 0 for targets='sparse', got",
        ),
        (lambda: mc.MixUp(targets="sparse", label_mode="union"), "label_mode must be 'lerp' for targets='sparse', got"),
        (lambda: mc.MixUp(p=1.5), r"p must be a probability in \[0, 1\], got 1.5"),
        (lambda: mc.MixUp(per="image"), "per must be one of 'pair', 'sample', 'batch', got 'image'"),
        (lambda: mc.MixUp(pairing="random"), "pairing must be one of 'matching', .* got 'random'"),
        (lambda: mc.MixUp(pairing="roll"), "per='pair' needs mutual partners, got pairing='roll'; use per='sample'"),
        (lambda: mc.MixUp(targets="one-hot"), "targets must be one of 'dense', 'sparse', 'values', got 'one-hot'"),
        (lambda: mc.MixUp(label_smoothing=1.5), r"label_smoothing must be a finite number in \[0, 1\], got 1.5"),
        (lambda: mc.MixUp(num_classes=0), "num_classes must be a whole number of at least 1, got 0"),
        (lambda: mc.MixUp(seed=-1), "seed must be .*, got -1"),
        (lambda: mc.MixUp(labels_getter="label"), "labels_getter must be 'default', a function or None, got 'label'"),
        (lambda: mc.CutMix(minmax=(0.5, 0.2)), r"minmax must be \(low, high\) .* got \(0.5, 0.2\)"),
        (lambda: mc.CutMix(placement="centre"), "placement must be one of 'clipped', 'inside', 'timm', got 'centre'"),
        (lambda: mc.Cutout(per="pair"), "per must be one of 'sample', 'batch', got 'pair'"),
        (lambda: mc.Cutout(fill="black"), "fill must be one of 'mean', 'noise', 'channel_noise', got 'black'"),
        (lambda: mc.RandomErasing(value=1.0, fill=2.0), "give value or fill, not both; got value=1.0, fill=2.0"),
        (lambda: mc.GridMask(ratio=1.0), r"ratio must be a finite number in \(0, 1\), got 1.0"),
        (lambda: mc.RandomChoice([]), "RandomChoice needs at least one transform"),
        (
            lambda: mc.RandomChoice([mc.MixUp(), mc.MixUp(pairing="flip")]),
            r"must share a pairing, got \['flip', 'match",
        ),
        (lambda: mc.RandomChoice([mc.MixUp()], p=[0.5, 0.5]), "p must be one probability for each of 1 transforms"),
        (lambda: mc.Compose([mc.MixUp(seed=1)]), "seed must be given to Compose, not to the MixUp in it"),
        (
            lambda: mc.Compose([mc.MixUp(num_classes=3), mc.CutMix(num_classes=4)]),
            "num_classes must be the same for all",
        ),
        (lambda: mc.MixUp()(images, labels), "num_classes must be given for class indices"),
        (lambda: mc.MixUp(num_classes=3)(images, labels), r"labels must be in 0 … 2 \(or ignore_index=-100\), got 3"),
        (
            lambda: mc.MixUp(num_classes=4)(images),
            r"no labels found among \[the batch\]: pass \(images, labels\), .* labels_getter=None mixes images that",
        ),
        (lambda: mc.MixUp(num_classes=4)(images, labels[:3]), r"labels must be \[4\] class indices .* got \(3,\)"),
        (lambda: mc.MixUp(num_classes=4)(images, images, labels), "labels must be"),
        (
            lambda: mc.RandomErasing(1.0, inplace=True)(images[:1].expand(4, 3, 8, 8)),
            "images mixed in place must hold every element in memory of its own, .* clone",
        ),
        (
            lambda: mc.MixUp(labels_getter=None, inplace=True)(images.clone().requires_grad_()),
            "images mixed in place must not require a gradient; .* without inplace=True",
        ),
        (lambda: mc.Cutout(fill="mean")(images), "fill='mean' needs mean= and std=; .* fill="),
        (lambda: mc.Cutout(fill=(1.0, 2.0))(images), "fill must have 1 or 3 values"),
        (lambda: mc.Cutout(fill=0.5)((images * 255).byte()), "fill must be whole numbers in 0 … 255 for torch.uint8"),
        (lambda: mc.CutMix(num_classes=4).replay(images[:, :, :4], None, mc.CutMix().make_plan(images)), "drawn for"),
        (lambda: mc.CutMix(num_classes=4).replay(images[:3], None, mc.CutMix().make_plan(images)), "plan's 4, got"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (
            lambda: mc.Compose([v2.RandomErasing()]),
            "Compose takes mixcollate's transforms, got RandomErasing; .*v2.Comp",
        ),
        (lambda: mc.RandomChoice([mc.MixUp]), r"takes mixcollate's transforms, got <class .*MixUp'>; write MixUp\(\)"),
        (
            lambda: next(iter(DataLoader([(torch.rand(3, 8, 8), 1)], collate_fn=mc.Compose))),
            r"(?s)Compose takes mixcollate's transforms, got tuple; collate_fn must be MixupCollate",
        ),
        (
            lambda: mc.MixUp(num_classes=4)(images.long(), labels),
            "images must be uint8 or floating point, got torch.int64",
        ),
        (lambda: mc.MixUp(num_classes=4)(images, labels.float()), "labels .B. must be integers, got torch.float32"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_a_batch_that_could_only_be_half_mixed_is_refused():
    images = torch.rand(4, 3, 8, 8)
    boxes = tv_tensors.BoundingBoxes(torch.zeros(4, 4), format="XYXY", canvas_size=(8, 8))
    with pytest.raises(ValueError, match="a batch with BoundingBoxes cannot be mixed"):
        mc.CutMix(num_classes=4)({"image": images, "boxes": boxes, "labels": torch.arange(4)})
    with pytest.raises(ValueError, match="'depth' looks like masks, further images"):
        mc.CutMix(num_classes=4)({"image": images, "depth": images[:, :1], "labels": torch.arange(4)})
    with pytest.raises(ValueError, match="more than one tensor looks like images: .* wrap"):
        mc.CutMix(num_classes=4)(images, torch.arange(4), images[:, :1])
    wrapped, labels = tv_tensors.Image(images), torch.arange(4)
    for beside in (images[:, 0], images[:, 0].long(), images[:, :1], images[:, :, :4, :5]):
        for batch in ((wrapped, labels, beside), *([(images, labels, beside)] if beside.ndim == 3 else [])):
            with pytest.raises(ValueError, match="got .* beside .*: wrap it in tv_tensors.Mask or Image"):
                mc.CutMix(num_classes=4)(batch)
            assert mc.RandomErasing(1.0)(batch)[2] is beside
    features = torch.rand(4, 7, 9)
    with pytest.raises(ValueError, match="looks like masks, further images or targets"):
        mc.CutMix(num_classes=4)(images, labels, features)
    before = images.clone()
    for other in (images[:, :, :4], images[:3]):
        with pytest.raises(ValueError, match="images must share batch.*in mask_keys.* not normalised"):
            mc.CutMix(num_classes=4, inplace=True)(wrapped, labels, tv_tensors.Image(other))
    assert torch.equal(images, before)


def test_images_are_found_behind_their_labels():
    """Batches of Hugging Face's collators begin with them."""
    batch = {"labels": torch.arange(4), "age": torch.rand(4), "pixel_values": torch.rand(4, 3, 8, 8)}
    with pytest.warns(UserWarning, match="'age' is left unchanged"):
        mixed = v2.Compose([mc.MixUp(num_classes=4), mc.RandomErasing(1.0)])(batch)
    assert mixed["age"] is batch["age"] and mixed["labels"].shape == (4, 4)
    assert (mixed["pixel_values"] == 0).any() and not torch.equal(mixed["pixel_values"], batch["pixel_values"])


@pytest.mark.filterwarnings("ignore")  # dynamo's, about itself
@pytest.mark.parametrize("name", ["MixUp", "RICAP", "RandomErasing"])
def test_a_compiled_step_calls_transforms_as_they_are(name):
    """They break its graph, and are not compiled themselves."""
    images, labels = torch.rand(6, 3, 16, 12), torch.arange(6)

    def step(images, labels, transform, plan):
        applied = transform.replay(images * 2, None, plan)
        return transform(images * 2, labels)[0], applied, mix(images, transform.make_plan(images)) + 1

    def make():
        return mc.RandomErasing(seed=3) if name == "RandomErasing" else getattr(mc, name)(num_classes=6, seed=3)

    compiled, transform, twin = torch.compile(step, backend="aot_eager"), make(), make()
    for number, plan in enumerate([make().make_plan(images) for _ in range(4)]):
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            made = compiled(images, labels, transform, plan)
        for got, wanted in zip(made, step(images, labels, twin, plan), strict=True):
            assert torch.equal(got, wanted)


def test_repr_shows_what_was_chosen():
    assert repr(mc.MixUp(alpha=0.2, num_classes=10)) == "MixUp(alpha=0.2, num_classes=10)"
    assert "p=" not in repr(mc.RandomChoice([mc.MixUp(), mc.CutMix()]))
    some = mc.RandomChoice([mc.MixUp(), mc.CutMix()], p=(0.4, 0.4), per="batch")
    assert some.extra_repr() == "p=[0.4, 0.4], per='batch'" and some.extra_repr() in repr(some)
    assert "mixes" not in repr(mc.RandomChoice([mc.MixUp()])) and "per" not in repr(mc.Compose([mc.MixUp()]))
    assert [repr(method()) for method in (mc.Cutout, mc.CutMix, mc.HideAndSeek)] == [
        "Cutout()",
        "CutMix()",
        "HideAndSeek()",
    ]


def test_what_is_no_argument_is_read_only_too():
    """It would be read, unchecked: a misspelt pairing left all images unmixed."""
    for transform, name in ((mc.RandomChoice([mc.MixUp()]), "pairing"), (mc.Compose([mc.CutMix()]), "per")):
        with pytest.raises(AttributeError, match=f"{name} cannot be changed after a .* is made, got 'bogus'"):
            setattr(transform, name, "bogus")
    with pytest.raises(ValueError, match="pairing must be one of matching, .* or a function, got 'bogus'"):
        draw_from(numbers(0, 0, 0), (4, 3, 8, 8), "bogus")


def test_a_choice_among_what_draws_for_whole_batches_is_for_whole_batches():
    both = mc.Compose([mc.MixUp(per="batch"), mc.RandomErasing(per="batch")])
    assert mc.RandomChoice([both, mc.CutMix(per="batch")]).per == "batch"
    assert mc.RandomChoice([mc.Compose([mc.MixUp(per="batch"), mc.Cutout()]), mc.CutMix(per="batch")]).per == "pair"


def test_a_compiled_replay_of_a_packed_plan_is_left_to_eager_code():
    """Traced, it would be twenty times slower, and break in the middle."""
    transform, graphs = mc.MixUp(num_classes=4, seed=0), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    packed = pack(transform.make_plan(images), "cpu")
    wanted = transform.replay(images, labels, packed)
    compiled = torch.compile(lambda images, labels: transform.replay(images, labels, packed), backend=backend)
    for got, right in zip(compiled(images, labels), wanted, strict=True):
        assert torch.equal(got, right)
    assert not graphs


def test_layout_and_inplace_of_members_are_not_lost():
    volumes = torch.rand(2, 3, 4, 8, 8)
    for container in (mc.Compose, mc.RandomChoice):
        erased = container([mc.Cutout(length=0.9, inside=True, fill=(1.0, 2.0, 3.0), layout="BCDHW")])(volumes)
        assert [erased[:, k].max() for k in range(3)] == [1, 2, 3]
        with pytest.raises(ValueError, match="layout must be the same for all transforms"):
            container([mc.Cutout(layout="BCDHW")], layout="BCT")
        for members, options in (
            ([mc.MixUp(label_smoothing=0.1)], {"label_smoothing": 0.2}),
            ([mc.MixUp(label_smoothing=0.1)], {"label_smoothing": 0.0}),
            ([mc.MixUp(num_classes=10), mc.CutMix()], {"num_classes": 100}),
            ([mc.MixUp(label_smoothing=0.1), mc.CutMix(label_smoothing=0.2)], {}),
        ):
            with pytest.raises(ValueError, match=" must be the same for all transforms in a container, got "):
                container(members, **options)
        with pytest.raises(ValueError, match=f"inplace must be given to {container.__name__}"):
            container([mc.MixUp(inplace=True)])


def test_a_class_may_be_mixed_into_a_method():
    class Logged:
        pass

    class First(Logged, mc.MixUp):
        def __init__(self, **options):
            super().__init__(**options)

    assert First(alpha=0.3).alpha == 0.3
    with pytest.raises(TypeError, match="First has no argument beta"):
        First(beta=1.0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch's forward gradients use
@pytest.mark.parametrize("name", mixing())
def test_gradients_go_forward_too(name):
    transform, images = mixing()[name], torch.rand(4, 3, 8, 8)
    tangent = torch.randn_like(images)
    plan = transform.make_plan(images)
    with forward_ad.dual_level():
        moved = forward_ad.unpack_dual(mix(forward_ad.make_dual(images, tangent), plan)).tangent
    torch.testing.assert_close(moved, mix(tangent, plan))


@pytest.mark.parametrize("wrapped", ["images", "labels"])
def test_tensors_that_wrap_others_are_refused(wrapped):
    """A kernel would be given their address, which is 0."""
    batch = {"images": torch.rand(4, 3, 8, 8), "labels": torch.arange(4)}
    batch[wrapped] = TwoTensor(batch[wrapped], batch[wrapped])
    with pytest.raises(
        TypeError, match="images, labels and masks must be a dense tensor .*, got a TwoTensor; pass the"
    ):
        mc.MixUp(num_classes=4)(batch)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", mixing())
def test_transforms_of_torch_func(name):
    """Of what mixes, and of what only holds it: a loss by its parameters, an ensemble's batches."""
    transform, images, labels = mixing(num_classes=4)[name], torch.rand(4, 3, 8, 8), torch.arange(4)
    plan = transform.make_plan(images)
    leaf = images.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(mix(leaf, plan).square().sum(), leaf)
    torch.testing.assert_close(torch.func.grad(lambda x: mix(x, plan).square().sum())(images), wanted)
    (mixed, tangent) = torch.func.jvp(lambda x: mix(x, plan), (images,), (images + 1,))
    torch.testing.assert_close(mixed, mix(images, plan))
    torch.testing.assert_close(tangent, mix(images + 1, plan))
    both = torch.stack([images, images.flip(0)])
    torch.testing.assert_close(torch.vmap(lambda x: mix(x, plan))(both), torch.stack([mix(x, plan) for x in both]))
    layer = torch.nn.Linear(192, 4)

    def loss(parameters):
        torch.manual_seed(0)
        mixed, targets = transform(images, labels)
        return mc.soft_cross_entropy(torch.func.functional_call(layer, parameters, mixed.flatten(1)), targets)

    parameters = dict(layer.named_parameters())
    gradients = torch.func.grad(loss)(parameters)
    wanted = torch.autograd.grad(loss(parameters), list(parameters.values()))
    torch.testing.assert_close(list(gradients.values()), list(wanted))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("layout", [None, "BTCHW", "BCDHW"])
def test_videos_volumes_and_masks_under_torch_func(layout):
    """What is viewed as images of more channels, and what is written to, have no addresses there."""
    images = torch.rand(4, 3, 8, 8) if layout is None else torch.rand(4, 3, 2, 8, 8).transpose(1, 2)
    plan = mc.CutMix(seed=0, layout=layout).make_plan(images)
    kinds = [lambda x: mix(x, plan, layout=layout)]
    if layout is None:
        kinds = [lambda x: mix_masks(x, plan)]
        with contextlib.suppress(RuntimeError):  # torch 2.11 views no integers as bytes under vmap
            torch.vmap(lambda x: x.view(torch.uint8))(torch.zeros(2, 1, dtype=torch.int64))
            kinds.append(lambda x: mix_masks((10 * x).long(), plan) + 0 * x)
    for kind in kinds:
        wanted = kind(images)
        assert torch.equal(torch.vmap(kind)(images[None])[0], wanted)
        assert torch.equal(torch.func.functionalize(kind)(images), wanted)
        assert torch.equal(torch.func.jvp(kind, (images,), (images,))[0], wanted)
        assert torch.equal(torch.func.vjp(kind, images)[0], wanted)
    written = torch.vmap(lambda x: mix(x, plan, out=torch.empty_like(x), layout=layout))(images[None])[0]
    assert torch.equal(written, mix(images, plan, layout=layout))


@pytest.mark.filterwarnings("ignore:.*performance drop.*scatter")
def test_a_batch_of_several_images_and_class_masks_under_vmap():
    """Each batch gets one-hot masks of its own, and images are compared with each other by no address."""
    first, second = torch.rand(4, 3, 8, 8), torch.rand(4, 1, 8, 8)
    masks = torch.arange(256).view(4, 8, 8) % 3
    plan, roles = mc.CutMix().make_plan(first), Roles(images=((0,), (1,)), masks=((2,),))

    def mixing(*batch):
        return execute(batch, roles, plan, (), inplace=True, mask_classes=3)

    mixed = torch.vmap(mixing)(*(one.clone()[None] for one in (first, second, masks)))
    for one, wanted in zip(mixed, mixing(first, second, masks), strict=True):
        assert torch.equal(one[0], wanted)


def test_numbers_and_colours_can_be_chosen_between():
    """A fill of one number for all channels, beside one for each."""
    choice = mc.RandomChoice(
        [mc.Cutout(length=4, inside=True, fill=7.0), mc.Cutout(length=4, inside=True, fill=(1.0, 2.0, 3.0))]
    )
    erased = choice(torch.zeros(64, 3, 4, 4))
    kinds = {tuple(image[:, 0, 0].tolist()) for image in erased}
    assert kinds == {(7.0, 7.0, 7.0), (1.0, 2.0, 3.0)}


def test_a_choice_reaches_as_far_as_partners_allow():
    """Images whose partners are not mutual choose for themselves."""
    for pairing in ("matching", "flip", "shuffle", "roll"):
        mutual = pairing in ("matching", "flip")
        members = [method(pairing=pairing, per="sample") for method in (mc.MixUp, mc.CutMix)]
        assert mc.RandomChoice(members).per == ("pair" if mutual else "sample")


def test_a_choice_between_what_is_drawn_for_whole_batches_is_one_for_the_batch():
    """As in torchvision's recipe, whose ``v2.RandomChoice`` gives the whole batch to MixUp or to CutMix."""
    images, labels = torch.eye(16)[:, :, None, None].expand(16, 16, 13, 29), torch.arange(16)
    torch.manual_seed(0)

    def kinds(choice):
        """For each of 20 batches, which of its images are blends."""
        batches = [choice(images, labels)[0] for _ in range(20)]
        return [((mixed > 0) & (mixed < 1)).flatten(1).any(1) for mixed in batches]

    theirs = v2.RandomChoice([method(num_classes=16) for method in (v2.MixUp, v2.CutMix)])
    ours = [method(per="batch", pairing="roll") for method in (mc.MixUp, mc.CutMix)]
    for choice in (theirs, mc.RandomChoice(ours, num_classes=16)):
        blended = kinds(choice)
        assert all(batch.all() == batch.any() for batch in blended) and len({bool(batch[0]) for batch in blended}) == 2
    assert mc.RandomChoice([*ours, mc.RandomErasing()]).per == "sample"  # which draws for each image


def test_every_further_mix_has_partners_of_its_own():
    """Also if something is erased first, and if partners depend on the labels."""
    plan = mc.Compose([mc.Cutout(), mc.MixUp(), mc.CutMix()], seed=0).make_plan(torch.empty(64, 3, 8, 8))
    first, second = plan, plan.then
    while first.partner.tolist() == list(range(64)):  # what erases takes none
        first, second = second, second.then
    assert (first.partner != second.partner).any()
    seen = []

    def pairing(labels, numbers):
        seen.append(labels.tolist())
        return numbers.permutation(4)

    mixes = [method(pairing=pairing, per="sample") for method in (mc.MixUp, mc.CutMix)]
    mc.Compose(mixes, num_classes=4)(torch.rand(4, 3, 8, 8), torch.tensor([3, 1, 0, 2]))
    assert seen == [[3, 1, 0, 2]] * 2


def test_random_erasing_is_torchvisions_given_its_draw():
    images = torch.rand(5, 3, 17, 23)
    ours = mc.RandomErasing(p=1.0, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=(0.1, 0.2, 0.3), per="batch")
    for _ in range(10):
        plan = ours.make_plan(images)
        top, left, bottom, right = plan.erase_box[0, 0].tolist()
        value = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
        wanted = v2.functional.erase(images, top, left, bottom - top, right - left, value)
        assert torch.equal(ours.replay(images, None, plan), wanted)


def test_random_erasing_has_torchvisions_arguments_and_areas():
    """The erased share of images, one draw each, against torchvision's own class: a seeded two-sample test."""
    torch.manual_seed(0)
    image, arguments = torch.ones(1, 1, 48, 40), {"p": 0.5, "scale": (0.02, 0.33), "ratio": (0.3, 3.3), "value": 0}
    theirs = [float((v2.RandomErasing(**arguments)(image) == 0).float().mean()) for _ in range(2000)]
    ours = (mc.RandomErasing(**arguments)(image.expand(2000, 1, 48, 40)) == 0).float().mean((1, 2, 3))
    assert stats.ks_2samp(ours.numpy(), theirs).pvalue > 1e-4
    for name in ("MixUp", "CutMix", "RandomErasing"):
        given = inspect.signature(getattr(v2, name)).parameters
        common = inspect.signature(mc.transforms.MixTransform).parameters
        taken = common | inspect.signature(getattr(mc, name)).parameters
        assert {k: p.default for k, p in given.items()} == {k: taken[k].default for k in given}


def test_what_probabilities_lack_to_one_leaves_images_as_they_are():
    images = torch.rand(4000, 1, 4, 4)
    choice = mc.RandomChoice([mc.MixUp(), mc.CutMix(minmax=(0.5, 0.9))], p=[0.25, 0.25], per="sample", seed=0)
    plan = choice.make_plan(images)
    mixed = mix(images, plan)
    unchanged = (mixed == images).flatten(1).all(1).double().mean()
    assert abs(unchanged - 0.5) < 4 * (0.25 / 4000) ** 0.5
    whole = [mc.RandomChoice([mc.MixUp(), mc.CutMix()], p=p, seed=0).make_plan(images) for p in ([0.5, 0.5], None)]
    assert (whole[0].own_share == whole[1].own_share).all()
    thirds = mc.RandomChoice([mc.MixUp(), mc.CutMix(), mc.RICAP()], p=[1 / 3] * 3)
    assert len(thirds._upper) == 2  # rounding leaves no image out


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([1, 1], r"p must sum to more than 0 and at most 1 \(the rest is left unchanged\), got \[1"),
        ([0, 0], "p must sum to more than 0 and at most 1"),
        ([0.5, float("nan")], r"p\[1\] must be a probability in \[0, 1\], got nan"),
        ([0.5, -0.1], r"p\[1\] must be a probability"),
        ([0.5], "p must be one probability for each of 2 transforms"),
        (0.5, "p must be one probability for each of 2 transforms"),
        ("ab", "p must be one probability for each of 2 transforms"),
        (torch.tensor(0.5), r"p must be one probability for each of 2 transforms, got tensor\(0.5000\)"),
        ([0.5, None], r"p\[1\] must be a probability"),
    ],
)
def test_probabilities_of_a_choice_are_checked(p, message):
    with pytest.raises((ValueError, TypeError), match=message):
        mc.RandomChoice([mc.MixUp(), mc.CutMix()], p=p)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("record", ["export", "trace", "make_fx"])
@pytest.mark.parametrize("call", ["forward", "make_plan", "replay", "mix", "collate"])
def test_no_plan_is_exported(record, call):
    """The recorded program would mix every batch alike, or return memory that nobody has written."""
    mixup = mc.MixUp(num_classes=4, seed=0)
    collate = mc.MixupCollate(mixup)
    plan = mixup.make_plan(torch.empty(4, 3, 8, 8))
    calls = {
        "forward": ("MixUp", mixup),
        "make_plan": ("MixUp", lambda images, labels: mixup.make_plan(images, labels=labels)),
        "replay": ("MixUp", lambda images, labels: mixup.replay(images, labels, plan)),
        "mix": ("mix", lambda images, labels: mix(images, plan)),
        "collate": ("MixupCollate|MixUp", lambda *batch: collate.mix(batch)),
    }
    name, function = calls[call]

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mixup = mixup  # torch 2.6 warns of modules that it finds nowhere

        def forward(self, images, labels):
            return function(images, labels)

    recorders = {
        "export": lambda *both: torch.export.export(*both, strict=False),  # the default since torch 2.7
        "trace": torch.jit.trace,
        "make_fx": lambda module, batch: make_fx(module)(*batch),
    }
    batch = torch.rand(4, 3, 8, 8), torch.arange(4)
    if call in ("replay", "mix") and record != "export":  # the plan is the caller's
        recorded = recorders[record](Module(), batch)
        for result, wanted in zip(tree_leaves(recorded(*batch)), tree_leaves(function(*batch)), strict=True):
            torch.testing.assert_close(result, wanted, rtol=0, atol=0)
        return
    with pytest.raises(RuntimeError, match=f"that contains ({name}) cannot be exported, since plans are drawn on the"):
        recorders[record](Module(), batch)


@pytest.mark.parametrize(
    "inside",
    [lambda one: one, lambda one: mc.RandomChoice([one, mc.MixUp()]), lambda one: mc.Compose([one, mc.Cutout()])],
)
def test_a_method_of_ones_own_returns_a_plan_of_its_batch(inside):
    class Other(mc.MixTransform):
        drawn = None

        def plan_batch(self, draw):
            return self.drawn

    images = torch.rand(4, 3, 8, 8)
    for Other.drawn, got in (
        (None, "None"),
        ((1, 2), r"\(1, 2\)"),
        (mc.MixUp().make_plan(images[:3]), r"one of 3 of \(8, 8\)"),
        (mc.CutMix().make_plan(images[..., :6]), r"one of 4 of \(8, 6\)"),
    ):
        with pytest.raises(
            ValueError, match=rf"Other.plan_batch must return a MixPlan of 4 images .* \(8, 8\), got {got}"
        ):
            inside(Other()).make_plan(images)
    with pytest.raises(NotImplementedError, match=r"MixTransform must define plan_batch\(draw\)"):
        mc.MixTransform().make_plan(images)


def test_a_plan_that_was_drawn_for_a_layout_is_replayed_in_it():
    signals, mixup = torch.rand(4, 2, 16), mc.CutMix()
    plan = mixup.make_plan(signals, layout="BCT")
    wanted = mc.CutMix(layout="BCT").replay(signals, None, plan)
    assert torch.equal(mixup.replay(signals, None, plan, layout="BCT"), wanted)
    with pytest.raises(ValueError, match="layout must be one of"):
        mixup.replay(signals, None, plan, layout="TCB")


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 makes no plain tensor of a fake one")
@pytest.mark.parametrize(
    "labels, options",
    [
        (torch.arange(6) % 3, {"num_classes": 3}),
        (torch.arange(6) % 3, {"targets": "sparse"}),
        (torch.eye(6), {"label_smoothing": 0.1}),
        (torch.rand(6), {"targets": "values"}),
    ],
)
def test_fake_tensors_become_fakes_of_the_result(labels, options):
    """They have no values to read, as where the memory of a training step is estimated."""
    images = torch.rand(6, 3, 8, 10)
    for name, transform in (mixing(**options) | erasing(p=1)).items():
        made = tree_leaves(transform(images, labels))
        with FakeTensorMode() as mode:
            fakes = tree_leaves(transform(mode.from_tensor(images), mode.from_tensor(labels)))
        assert [(one.shape, one.dtype) for one in fakes] == [(one.shape, one.dtype) for one in made], name


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 makes no plain tensor of a fake one")
def test_fake_masks_become_fakes_of_the_result():
    images, masks = torch.rand(6, 3, 8, 10), torch.zeros(6, 8, 10, dtype=torch.int64)
    roles = Roles(images=((0,),), masks=((1,),))
    plan = mc.MixUp(seed=0).make_plan(images)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(images), mode.from_tensor(masks)
        mixed = execute(fake, roles, plan, (), mask_classes=3)
    assert [tuple(one.shape) for one in mixed] == [(6, 3, 8, 10), (6, 3, 8, 10)]


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 makes no plain tensor of a fake one")
def test_fake_videos_and_masks():
    """Their addresses are not asked for, which torch would warn of."""
    video, masks = torch.rand(4, 2, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.int64)
    plan = mc.CutMix().make_plan(video)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert mix(mode.from_tensor(video), plan).shape == video.shape
        assert mix_masks(mode.from_tensor(masks), plan).dtype == masks.dtype


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 makes no plain tensor of a fake one")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_batches_are_normalised_where_they_are(device):
    """On a GPU too, whose kernels must not be launched on memory that there is not."""
    collate = mc.MixupCollate(mc.CutMix(), num_classes=3, mean=(0.4, 0.5, 0.6), std=0.25)
    with FakeTensorMode():
        images = torch.empty(6, 3, 8, 10, dtype=torch.uint8, device=device)
        mixed, targets = collate.mix((images, torch.empty(6, dtype=torch.int64, device=device)))
        loss = mc.soft_cross_entropy(torch.empty(6, 3, device=device), targets)
    assert mixed.shape == images.shape and mixed.dtype == torch.float32 and targets.shape == (6, 3)
    assert {one.device.type for one in (mixed, targets, loss)} == {device}
