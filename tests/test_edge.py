"""Whatever a batch holds is mixed with its images, kept because it was named so, or refused before any writing."""

import copy
import itertools
import pickle
import warnings
from collections import OrderedDict, UserDict
from collections.abc import MutableMapping
from dataclasses import make_dataclass, replace
from types import SimpleNamespace
from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

import mixcollate as mc
from mixcollate import execution, stream
from mixcollate.kernels import host, mix, mix_masks, pack
from tests.test_collate import Samples

B, H, W = 4, 8, 12
COLOURS = torch.eye(B)[:, :, None, None].expand(B, B, H, W).contiguous()
"""Image k is all colour k, so that the mean colour of a mixed image is its target."""
LABELS = torch.arange(B)


def samples_of(batch):
    """The samples that default_collate makes this batch of."""
    if isinstance(batch, dict):
        return [{key: value[k] for key, value in batch.items()} for k in range(B)]
    return [tuple(value[k] for value in batch) for k in range(B)]


WAYS = ["deferred", "eager", "mix", "to"]


def through(way, batch, transform=None, **options):
    """A batch on one of the ways through a collate."""
    collate = mc.MixupCollate(transform or mc.CutMix(), eager=way == "eager", **options)
    if way == "mix":
        return collate.mix(batch)
    made = collate(samples_of(batch))
    return made.to("cpu") if way == "to" else made.mix() if way == "deferred" else made


def tensors_of(batch):
    return [leaf for _, leaf in mc.roles.leaves(batch) if isinstance(leaf, Tensor)]


def refused(way, batch, error, message, transform=None, **options):
    """The call raises, and every tensor is what it was."""
    before = [tensor.clone() for tensor in tensors_of(batch)]
    with pytest.raises(error, match=message):
        through(way, batch, transform, **options)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(batch), before, strict=True))


# Things beside the images


BESIDE = {
    "a heat map of a quarter of the size": torch.rand(B, 5, H // 4, W // 4),
    "bands of half the resolution": torch.rand(B, 2, H // 2, W // 2),
    "a mask of class indices": torch.zeros(B, H, W, dtype=torch.int64),
    "boxes": torch.rand(B, 3, 4),
    "key points": torch.rand(B, 17, 2),
    "logits of a teacher": torch.rand(B, 10),
    "a second signal": torch.rand(B, 1, 100),
    "token ids": torch.randint(0, 9, (B, 6)),
    "an array": np.random.rand(B, 3),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in BESIDE if name != "an array"])
def test_what_has_two_axes_and_no_role_is_refused(name, way):
    value = BESIDE[name]
    refused(way, (COLOURS, LABELS, value), ValueError, r"blend_keys .* keep_keys", num_classes=B)
    batch = {"image": COLOURS, "label": LABELS, "other": value}
    refused(way, batch, ValueError, r"'other' looks like .* blend_keys .* keep_keys", num_classes=B)
    kept = through(way, batch, num_classes=B, keep_keys="other")
    assert torch.equal(kept["other"], value)
    assert torch.equal(through(way, (COLOURS, LABELS, value), num_classes=B, keep_keys=2)[2], value)


@pytest.mark.parametrize("name", BESIDE)
def test_a_transform_refuses_it_too(name):
    images = COLOURS.clone()
    with pytest.raises(ValueError, match="looks like (masks|images)|no rule for mixing"):
        mc.CutMix(num_classes=B, inplace=True)({"image": images, "label": LABELS, "other": BESIDE[name]})
    with pytest.raises(ValueError, match="looks like (masks|images)|no rule for mixing"):
        mc.RandomChoice([mc.MixUp(), mc.RICAP()], num_classes=B, inplace=True)(images, LABELS, BESIDE[name])
    assert torch.equal(images, COLOURS)


def test_lists_of_boxes_of_many_lengths_are_refused_too():
    rows = [(COLOURS[k], k, torch.rand(k + 1, 4)) for k in range(B)]

    def collate_fn(samples):
        return (*default_collate([row[:2] for row in samples]), [row[2] for row in samples])

    with pytest.raises(ValueError, match=r"'2.0' looks like .* got \(1, 4\) beside"):
        mc.MixupCollate(num_classes=B, collate_fn=collate_fn)(rows)
    kept = mc.MixupCollate(num_classes=B, collate_fn=collate_fn, keep_keys=2)(rows).mix()
    assert [len(boxes) for boxes in kept[2]] == [1, 2, 3, 4]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [torch.arange(B), torch.rand(B), torch.ones(B, dtype=torch.bool)])
def test_what_has_one_axis_stays_with_a_warning(way, value):
    for batch in ((COLOURS, LABELS, value), {"image": COLOURS, "label": LABELS, "gender_label": value}):
        key = 2 if isinstance(batch, tuple) else "gender_label"
        with pytest.warns(UserWarning, match=f"{key!r} is left unchanged .* label_key; .* keep_keys"):
            mixed = through(way, batch, num_classes=B)
        assert torch.equal(mixed[key], value)
        assert torch.equal(through(way, batch, num_classes=B, keep_keys=key)[key], value)  # and no warning


def test_what_stays_is_not_warned_of_by_each_worker_in_each_epoch():
    collate = mc.MixupCollate(num_classes=B)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = [pickle.loads(pickle.dumps(collate([(COLOURS[k], k, k) for k in range(B)]))) for _ in range(2)]
    with pytest.warns(UserWarning, match="index 2 is left unchanged") as caught:
        for batch in batches:
            batch.mix()
    assert len(caught) == 1


@pytest.mark.parametrize(
    "values",
    [
        [torch.arange(k + 1) for k in range(B)],
        [[k] * (k + 1) for k in range(B)],
        [{"ids": torch.ones(2)}] * B,
        ({"ids": torch.ones(2)},) * B,
    ],
)
def test_lists_of_many_lengths_stay_with_a_warning(values):
    """As the classes in an image do, of which each has its own number."""
    batch = {"image": COLOURS, "label": LABELS, "classes": values}
    with pytest.warns(UserWarning, match="'classes' is left unchanged .* label_key; .* keep_keys") as caught:
        assert through("mix", batch, num_classes=B)["classes"] == values
    assert len(caught) == 1
    through("mix", batch, num_classes=B, keep_keys="classes")  # and no warning


def test_names_and_paths_stay_without_a_word():
    batch = {"image": COLOURS, "label": LABELS, "path": ["a", "b", "c", "d"], "meta": {"split": ["train"] * B}}
    mixed = through("mix", batch, num_classes=B)
    assert mixed["path"] == ["a", "b", "c", "d"] and mixed["meta"] == {"split": ["train"] * B}
    nothing = {"image": COLOURS[:0], "label": LABELS[:0], "path": []}
    assert all(through("mix", nothing, num_classes=B, keep_keys=keep)["path"] == [] for keep in ((), "path"))
    assert through("mix", {**batch, "from": [{"site": "a"}] * B}, num_classes=B)["from"] == [{"site": "a"}] * B
    assert through("mix", {**batch, "weights": [0.5] * (B + 1)}, num_classes=B)["weights"] == [0.5] * (B + 1)


@pytest.mark.parametrize("empty", [[], (), {}, [[]] * B, {"inner": []}], ids=str)
def test_what_holds_nothing_has_no_role(empty):
    """The boxes of images that have none, say; keep_keys may name them, since those of the next batch may have some."""
    batch = {"image": COLOURS, "y": LABELS, "boxes": empty, "label": empty}
    for keep in ((), "boxes", "label"):
        mixed = through("mix", batch, num_classes=B, keep_keys=keep)
        assert mixed["y"].shape == (B, B) and mixed["boxes"] == mixed["label"] == empty
    with pytest.raises(ValueError, match="keep_keys must name entries among .* got 'box'"):
        through("mix", batch, num_classes=B, keep_keys="box")


@pytest.mark.parametrize("way", WAYS)
def test_erasing_leaves_the_rest_alone(way):
    for value in [value for value in BESIDE.values() if isinstance(value, Tensor) and value.ndim < 4]:
        mixed = through(way, (COLOURS, LABELS, value), mc.RandomErasing(p=1))
        assert torch.equal(mixed[1], LABELS) and torch.equal(mixed[2], value)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_blended_follows_the_labels(way):
    logits, embedding = torch.eye(B) * 7, torch.rand(B, 2, 3, dtype=torch.float64)
    batch = {"image": COLOURS, "label": LABELS, "teacher": logits, "embedding": embedding}
    for transform in (mc.CutMix(), mc.MixUp(), mc.RICAP(), mc.Compose([mc.MixUp(), mc.RandomErasing()])):
        mixed = through(way, batch, transform, num_classes=B, blend_keys=("teacher", "embedding"))
        torch.testing.assert_close(mixed["teacher"], 7 * mixed["label"])
        wanted = torch.einsum("ij,jkl->ikl", mixed["label"].double(), embedding)
        assert mixed["embedding"].dtype == torch.float64
        torch.testing.assert_close(mixed["embedding"], wanted, rtol=0, atol=1e-6)
    keys = {"blend_keys": "teacher", "keep_keys": "embedding", "num_classes": B}
    refused(way, {**batch, "teacher": logits.long()}, TypeError, "blend_keys must name float tensors", **keys)


def test_what_is_blended_has_a_row_for_each_image():
    batch = {"image": COLOURS, "label": LABELS, "teacher": torch.rand(B - 1, 5)}
    message = rf"blend_keys must name tensors with a row for each of the {B} images, got \({B - 1}, 5\) at 'teacher'"
    refused("mix", batch, ValueError, message, blend_keys="teacher", num_classes=B)


# Several targets


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("targets", ["dense", "sparse"])
def test_several_targets_have_a_number_of_classes_each(way, targets):
    coarse = LABELS // 2
    for batch, keys, classes in (
        ((COLOURS, LABELS, coarse), (1, 2), (B, 2)),
        ({"image": COLOURS, "fine": LABELS, "coarse": coarse}, None, {"fine": B, "coarse": 2}),
        ({"image": COLOURS, "fine": LABELS, "coarse": coarse}, ("fine", "coarse"), {"coarse": 2, "fine": B}),
        ({"image": COLOURS, "label": LABELS, "gender_label": coarse}, ("label", "gender_label"), [B, 2]),
    ):
        mixed = through(way, batch, mc.CutMix(targets=targets), label_key=keys, num_classes=classes)
        fine, other = (mixed[key] for key in (keys or classes))
        if targets == "sparse":
            fine, other = fine.dense(B), other.dense(2)
        torch.testing.assert_close(fine[:, :2].sum(1), other[:, 0])
        torch.testing.assert_close(mixed["image" if isinstance(batch, dict) else 0].mean((2, 3)), fine)


@pytest.mark.parametrize("way", WAYS)
def test_partners_are_chosen_by_the_first_labels(way):
    asked = []

    def mirrored(labels, numbers):
        asked.append(labels.clone())
        return np.arange(B)[::-1]

    through(way, (COLOURS, LABELS, LABELS // 2), mc.CutMix(pairing=mirrored), label_key=(2, 1), num_classes=(2, B))
    assert len(asked) == 1 and torch.equal(asked[0], LABELS // 2)


def test_several_targets_and_one_number_are_refused():
    for classes in (B, (B,), (B, 2, 3), {"fine": B}):
        with pytest.raises(ValueError, match="num_classes must (be one for each|have the keys)"):
            mc.MixupCollate(label_key=("fine", "coarse"), num_classes=classes)
    with pytest.raises(ValueError, match=r"label_key \[\], got \(6, 2\); name all labels in label_key"):
        mc.MixupCollate(num_classes=(6, 2))
    two = mc.MixUp(labels_getter=lambda batch: (batch["a"], batch["b"]), num_classes=(B, 2))
    collate = mc.MixupCollate(mc.MixUp(labels_getter=two.labels_getter), num_classes=(B, 2))
    for call in (two, collate.mix):
        mixed = call({"image": COLOURS, "a": LABELS, "b": LABELS // 2})
        assert mixed["a"].shape == (B, B) and mixed["b"].shape == (B, 2)
    odd = LABELS % 2
    same = two({"images": COLOURS, "a": odd, "b": odd})
    assert same["a"].shape == (B, B) and same["b"].shape == (B, 2)  # one tensor in two places
    one = mc.MixUp(labels_getter=lambda batch: (batch["a"], batch["b"]), num_classes=B)
    with pytest.raises(ValueError, match="num_classes must be one for each of 2 labels"):
        one({"image": COLOURS, "a": LABELS, "b": LABELS // 2})
    with pytest.raises(
        ValueError, match=r"no labels found among \['image', 'fine_label', 'coarse_label'\]: .*label_key"
    ):
        mc.MixUp(num_classes=B)({"image": COLOURS, "fine_label": LABELS, "coarse_label": LABELS})


def test_a_getter_gives_tensors_of_the_batch():
    assert mc.MixUp(num_classes=B, labels_getter=lambda batch: [batch[1]])(COLOURS, LABELS)[1].shape == (B, B)
    with pytest.raises(ValueError, match="labels_getter must return tensors that are in the batch, got str"):
        mc.MixUp(num_classes=B, labels_getter=lambda batch: batch[2])(COLOURS, LABELS, "a")
    for getter in (lambda batch: batch[1][:, None].squeeze(1), lambda batch: batch[1].float(), lambda batch: None):
        with pytest.raises(ValueError, match="labels_getter must return tensors that are in the batch"):
            mc.MixUp(num_classes=B, labels_getter=getter)(COLOURS, LABELS)
        loader = DataLoader(Samples(samples_of((COLOURS, LABELS))), B, collate_fn=mc.MixupCollate(
            mc.MixUp(labels_getter=getter), num_classes=B))  # fmt: skip
        with pytest.raises(ValueError, match="labels_getter must return"):
            list(loader)
    collate = mc.MixupCollate(mc.MixUp(labels_getter=lambda batch: batch["why"]), num_classes=B)
    mixed = collate(samples_of({"image": COLOURS, "why": LABELS})).mix()
    assert mixed["why"].shape == (B, B)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_images_are_refused_by_name():
    nested = torch.nested.nested_tensor(list(COLOURS))
    for call in (mc.MixUp(num_classes=B), mc.Cutout(), mc.MixupCollate(num_classes=B).mix):
        for batch in ((nested, LABELS), {"image": nested, "label": LABELS}):
            with pytest.raises(TypeError, match="images must be a dense tensor of real numbers, got nested; pad the"):
                call(batch)


def none_of_them(*_):
    return next(iter(()))


class Exhausted(mc.MixTransform):
    plan_batch = none_of_them


@pytest.mark.parametrize("name", ["labels_getter", "pairing", "plan_batch", "collate_fn"])
def test_no_function_of_the_users_ends_an_epoch_in_silence(name):
    """A loader takes a ``StopIteration`` from within for its own end."""
    function = {name: none_of_them}
    made = {"collate_fn": mc.MixUp, "plan_batch": Exhausted}
    transform = made[name]() if name in made else mc.MixUp(**function)
    collate = mc.MixupCollate(transform, num_classes=B, eager=True, **(function if name == "collate_fn" else {}))
    with pytest.raises(ValueError, match=f"{name} must return something, but raised StopIteration"):
        list(DataLoader(Samples(samples_of((COLOURS, LABELS))), B, collate_fn=collate))


# Masks


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_that_is_the_target(way):
    numbers = LABELS[:, None, None].expand(B, H, W).contiguous()
    for batch, key in (((COLOURS, numbers), 1), ({"pixel_values": COLOURS, "labels": numbers}, "labels")):
        image = 0 if key == 1 else "pixel_values"
        mixed = through(way, batch, mask_keys=key)
        assert torch.equal(mixed[key], mixed[image].argmax(1))
        refused(way, batch, ValueError, "name it in mask_keys")
        refused(way, batch, ValueError, "one-hot", mc.MixUp(), mask_keys=key)
        soft = through(way, batch, mc.MixUp(), mask_keys=key, mask_classes=B)
        torch.testing.assert_close(soft[key], soft[image])


@pytest.mark.parametrize("way", WAYS)
def test_ignored_pixels_of_soft_masks_belong_to_no_class(way):
    numbers = LABELS[:, None, None].expand(B, H, W).clone()
    numbers[:, :, :3] = 255
    mixed = through(way, (COLOURS, numbers), mc.MixUp(), mask_keys=1, mask_classes=B)
    assert not mixed[1][..., :3].any()
    torch.testing.assert_close(mixed[1][..., 3:], mixed[0][..., 3:])
    refused(way, (COLOURS, numbers), ValueError, "masks must be class indices in 0 … 2", mask_keys=1, mask_classes=3)
    refused(way, (COLOURS, numbers.float()), TypeError, "class indices", mask_keys=1, mask_classes=B)


def test_masks_are_known_by_their_type_before_they_are_stacked():
    numbers = LABELS[:, None, None].expand(B, H, W).contiguous()
    rows = [{"rgb": tv_tensors.Image(COLOURS[k]), "seg": tv_tensors.Mask(numbers[k]), "y": k} for k in range(B)]
    for workers in (0, 1):
        (batch,) = DataLoader(
            Samples(rows), B, num_workers=workers, collate_fn=mc.MixupCollate(mc.CutMix(), num_classes=B)
        )
        mixed = batch.mix()
        assert torch.equal(mixed["seg"], mixed["rgb"].argmax(1))
        torch.testing.assert_close(mixed["y"], mixed["rgb"].mean((2, 3)))


@pytest.mark.parametrize("way", WAYS)
def test_masks_and_heat_maps_of_another_size(way):
    quarter = torch.rand(B, 5, H // 4, W // 4)
    batch = (COLOURS, LABELS, quarter)
    mixed = through(way, batch, mc.MixUp(), num_classes=B, mask_keys=2)  # a blend speaks of no places
    torch.testing.assert_close(mixed[2], torch.einsum("ij,jchw->ichw", mixed[1], quarter))
    numbers = LABELS[:, None, None].expand(B, 2 * H, 3 * W).contiguous()
    for transform in (mc.CutMix(), mc.RICAP(), mc.FMix(), mc.Mosaic()):
        mixed = through(way, (COLOURS, LABELS, numbers), transform, num_classes=B, mask_keys=2)
        wanted = mixed[0].argmax(1).repeat_interleave(2, 1).repeat_interleave(3, 2)
        assert torch.equal(mixed[2], wanted)
    resized = through(way, (COLOURS, LABELS, numbers), mc.ResizeMix(), num_classes=B, mask_keys=2)[2]
    assert resized.shape == numbers.shape and set(resized.unique().tolist()) <= set(range(B))  # its own nearest pixels
    odd = mc.MixUp(per="batch", alpha=1.0)
    assert through(way, (COLOURS, LABELS, torch.rand(B, 1, 5, 7)), odd, num_classes=B, mask_keys=2)[2].shape[-1] == 7
    refused(way, (COLOURS, LABELS, torch.rand(B, 1, H + 1, W)), ValueError, r"masks must have the \(height, width\)",
            mc.CutMix(placement="inside", minmax=(0.4, 0.6)), num_classes=B, mask_keys=2)  # fmt: skip
    refused(way, (COLOURS, LABELS, torch.rand(B, 1, H, W // 2)), ValueError, "free-form contours cannot be scaled",
            mc.FMix(), num_classes=B, mask_keys=2)  # fmt: skip


def test_edges_that_fall_on_whole_pixels_of_smaller_masks():
    plan = replace(mc.CutMix().make_plan(COLOURS), box=np.array([[0, 4, 4, 8]] * B, np.int32))
    small = mix_masks(COLOURS[..., ::4, ::4].contiguous(), plan)
    assert torch.equal(small, mix(COLOURS, plan)[..., ::4, ::4])


# Units


@pytest.mark.parametrize("way", WAYS)
def test_numbers_in_other_units_are_refused_with_those_that_are_right(way):
    images = (COLOURS * 255).to(torch.uint8)
    for mean, std in (((123.7, 116.3, 103.5, 0), (58.4, 57.1, 57.4, 1)), (127.5, 127.5), (0.5, 64.0)):
        refused(way, (images, LABELS), ValueError, r"mean and std must be those of images in \[0, 1\]", num_classes=B,
                mean=mean, std=std)  # fmt: skip
    for mean, std in ((float("nan"), 1), (0.5, 0), (0.5, (1, -1, 1, 1)), (None, float("inf")), ("0.5", None)):
        with pytest.raises((ValueError, TypeError), match="mean must|std must"):
            mc.MixupCollate(num_classes=B, mean=mean, std=std)
    with pytest.raises(TypeError, match="dtype must be floating point to normalise, got torch.int32"):
        mc.MixupCollate(num_classes=B, mean=0.5, dtype=torch.int32)
    for normalised in ((COLOURS - 0.5) / 0.1, COLOURS * 255):
        with pytest.warns(UserWarning, match="normalised in the dataset already"):
            mc.MixupCollate(num_classes=B, mean=0.5, std=0.25)(samples_of((normalised, LABELS))).mix()
    for options in ({"mean": (123.7, 116.3, 103.5, 0), "std": (58.4, 57.1, 57.4, 1)}, {"std": 64.0}):
        with pytest.warns(UserWarning, match=r"from 0.00 to 1.00: are they those of images in 0 … 255\?") as told:
            collate = mc.MixupCollate(num_classes=B, **options)
            for _ in range(2):
                collate(samples_of((COLOURS, LABELS))).mix()
        assert len(told) == 1
    overshot = torch.zeros_like(COLOURS)  # as resizing leaves pixels at an edge
    overshot[0, 0, 0, :2] = torch.tensor([-0.01, 2.0])
    mc.MixupCollate(num_classes=B, mean=0.5, std=0.25)(samples_of((overshot, LABELS))).mix()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64])
def test_integers_that_are_no_pixels_are_refused_in_the_worker(way, dtype):
    for transform in (mc.MixUp(), mc.CutMix(), mc.Cutout()):
        refused(way, (COLOURS.to(dtype), LABELS), TypeError, r"images must be uint8.*(\.to\(torch\.float32\)|_as_real)",
                transform, num_classes=B)  # fmt: skip
    with pytest.raises(TypeError, match="images must be uint8"):
        mc.MixupCollate(num_classes=B)(samples_of((COLOURS.to(dtype), LABELS)))  # not only at the first mix


# Layout, and what is no batch


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "shape, order",
    [((B, 32, 24, 3), r"\(0, 3, 1, 2\)"), ((B, 28, 28, 1), "permute"), ((B, 5, 16, 18, 3), r"\(0, 1, 4, 2, 3\)")],
)
def test_channels_last_are_refused(way, shape, order):
    for transform in (mc.CutMix(), mc.MixUp(), mc.RandomErasing(p=1)):
        refused(way, (torch.rand(shape), LABELS), ValueError, order, transform, num_classes=B)
    with pytest.raises(ValueError, match=order):
        mc.CutMix(num_classes=B)(torch.rand(shape), LABELS)
    kind = tv_tensors.Image if len(shape) == 4 else tv_tensors.Video
    assert mc.CutMix(num_classes=B)(kind(torch.rand(shape)), LABELS)[0].shape == shape


def test_channels_are_last_only_if_both_sides_are_longer_or_the_layout_says_otherwise():
    mixup, of_layout = mc.MixUp(labels_getter=None), mc.MixUp(labels_getter=None, layout="BCHW")
    for shape in ((B, 4, 9, 3), (B, 4, 4, 3), (B, 9, 4, 3)):
        assert mixup(torch.rand(shape)).shape == shape
    with pytest.raises(ValueError, match="last axis looks like channels"):
        mixup(torch.rand(B, 5, 5, 3))
    assert of_layout(torch.rand(B, 5, 5, 3)).shape == (B, 5, 5, 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["MixUp", "CutMix", "RICAP", "FMix", "Mosaic", "ResizeMix"])
def test_volumes_have_their_channels_second(way, name):
    """All of them as long as there are channels, so that the wrong axis would pass unseen."""
    volumes = COLOURS[:, :, None].repeat(1, 1, B, 1, 1) * torch.arange(1, B + 1).view(B, 1, 1) / 8  # slices differ
    transform = getattr(mc, name)
    for made in (transform(layout="BCDHW"), transform()):
        mixed = through(
            way, (volumes, LABELS), made, num_classes=B, layout="BCDHW", mean=(0, 1, 2, 3), std=(1, 2, 4, 8), seed=1
        )
        plain = through(way, (volumes[:, :, 0], LABELS), transform(), num_classes=B, seed=1)
        for depth in range(B):
            wanted = (plain[0] * (depth + 1) - torch.arange(4).view(4, 1, 1)) / 2.0 ** torch.arange(4).view(4, 1, 1)
            torch.testing.assert_close(mixed[0][:, :, depth], wanted)
        assert torch.equal(mixed[1], plain[1])
    mask = (LABELS[:, None, None, None] * torch.ones(B, H, W).long()).contiguous()
    if name not in ("MixUp", "ResizeMix"):
        mixed = through(way, (volumes, LABELS, mask), transform(), num_classes=B, layout="BCDHW", mask_keys=2)
        assert torch.equal(mixed[2], mixed[0].argmax(1))
        five = through(way, (volumes, LABELS, mask[:, None]), transform(), num_classes=B, layout="BCDHW", mask_keys=2)
        assert torch.equal(five[2][:, 0], five[0].argmax(1))
    alone = transform(num_classes=B, layout="BCDHW")(volumes, LABELS)
    torch.testing.assert_close(8 * alone[0][:, :, 0].mean((2, 3)), alone[1])


def test_erasing_reaches_through_all_slices():
    volumes = torch.ones(B, 2, 5, H, W)
    for transform in (mc.Cutout, mc.GridMask, mc.HideAndSeek, mc.RandomErasing):
        erased = transform(p=1.0, fill=(7.0, 9.0), layout="BCDHW")(volumes)
        assert torch.equal(erased, erased[:, :, :1].expand_as(erased))
        assert set(erased[:, 0].unique().tolist()) <= {1.0, 7.0} and set(erased[:, 1].unique().tolist()) <= {1.0, 9.0}


@pytest.mark.parametrize("layout", ["BCDHW", "BCT", "BTCHW"])
def test_a_layout_of_other_axes_is_refused(layout):
    for call in (lambda: mc.MixUp(layout=layout, num_classes=B)(COLOURS, LABELS),
                 lambda: through("mix", (COLOURS, LABELS), num_classes=B, layout=layout)):  # fmt: skip
        with pytest.raises(ValueError, match=f"images must have the {len(layout)} axes of layout='{layout}'"):
            call()
    for layout in ("BHWC", 3):
        with pytest.raises(ValueError, match="layout must be one of"):
            mc.MixUp(layout=layout)
        with pytest.raises(ValueError, match="layout must be one of"):
            mc.MixupCollate(layout=layout)


@pytest.mark.parametrize("own", [False, True])
def test_lists_are_batches_where_they_are_batches(own):
    listed = [COLOURS.clone(), LABELS.clone()]
    wanted = mc.MixupCollate(mc.CutMix(), num_classes=B, seed=1).mix((COLOURS, LABELS))
    collate = mc.MixupCollate(mc.CutMix(), num_classes=B, seed=1, **({"collate_fn": lambda x: x} if own else {}))
    for mixed in (collate(listed).mix(), mc.MixupCollate(mc.CutMix(), num_classes=B, seed=1).mix(listed)):
        assert torch.equal(mixed[0], wanted[0]) and torch.equal(mixed[1], wanted[1])
    (batch,) = DataLoader(
        Samples([listed]), batch_size=None, collate_fn=mc.MixupCollate(mc.CutMix(), num_classes=B, seed=1)
    )
    assert torch.equal(batch[0], wanted[0])
    names, nested = ["a"] * B, {"a": ("b", None)}
    for beside in (names, nested, (names, nested), torch.tensor(0.5)):
        collate = mc.MixupCollate(mc.CutMix(), num_classes=B, seed=1)
        assert collate([COLOURS, LABELS, beside]).mix()[2] == beside
    listed = [COLOURS, COLOURS.clone()]  # one of which is named by its place
    assert len(mc.MixupCollate(mc.CutMix(), keep_keys=1)(listed).mix()) == 2
    unlabelled = mc.MixupCollate()([COLOURS[k] for k in range(B)])  # samples, which are all alike
    assert unlabelled.mix().shape == COLOURS.shape


def test_one_sample_is_no_batch():
    image = torch.rand(3, H, W)
    with pytest.raises(ValueError, match="looks like one image: mix whole batches, as in DataLoader"):
        mc.MixupCollate()(image)
    with pytest.raises(TypeError, match="must have a tensor at index 1, got int"):
        mc.MixupCollate(num_classes=B)((image, 3))
    with pytest.raises(ValueError, match="must be a batch, got one at index 1: transforms mix batches, not single"):
        mc.MixUp(num_classes=B)(image, torch.tensor(3))
    for transform in (mc.MixUp(labels_getter=None), mc.CutMix(labels_getter=None)):
        with pytest.raises(ValueError, match="looks like one image"):
            transform(tv_tensors.Image(image))
        with pytest.raises(ValueError, match="looks like one image"):
            transform(tv_tensors.Video(torch.rand(5, 3, H, W)))
    with pytest.raises(ValueError, match="no labels found"):
        mc.MixupCollate(num_classes=B)(COLOURS)
    with pytest.raises(ValueError, match="no labels found"):
        mc.MixUp(num_classes=B)(COLOURS)


def test_one_video_has_one_draw():
    torch.manual_seed(0)
    frames = torch.ones(6, 3, 16, 20)
    erased = mc.RandomErasing(p=1)(tv_tensors.Video(frames))
    assert isinstance(erased, tv_tensors.Video) and erased.shape == frames.shape
    assert (erased == 0).any() and torch.equal(erased, erased[:1].expand_as(erased))
    image = mc.Cutout()(tv_tensors.Image(torch.ones(3, 16, 20)))
    assert image.shape == (3, 16, 20) and (image == 0).any()


def test_images_without_a_name_are_the_first_with_three_axes_or_else_the_first():
    rows, signals = torch.rand(B, 2), torch.rand(B, 2, 9)
    for batch, found in (({"a": rows, "b": signals}, "b"), ({"a": rows, "b": rows}, "a")):
        assert mc.roles.find(batch, mixes=False).images == ((found,),)


def test_many_candidates_are_counted():
    for names, told in (("abc", r"'c' \(4, 4, 8, 12\); stack"), ("abcde", r"'c' \(4, 4, 8, 12\), and 2 more; stack")):
        with pytest.raises(ValueError, match=rf"looks like images: 'a' \S.*, 'b' \S.*, {told}"):
            mc.Cutout()(dict.fromkeys(names, COLOURS))


def test_a_key_must_name_a_lone_tensor_by_its_place():
    assert mc.MixupCollate(mc.Cutout(), image_key=0).mix(COLOURS).shape == COLOURS.shape
    with pytest.raises(ValueError, match=r"image_key must name tensors among \[the batch\], got 'picture'"):
        mc.MixupCollate(mc.Cutout(), image_key="picture").mix(COLOURS)


@pytest.mark.parametrize("name", ["fine_label", "Fine_Label", "my_target"])
def test_entries_that_are_called_like_labels_must_be_named(name):
    with pytest.raises(ValueError, match=f"no labels found among .*{name}"):
        mc.MixupCollate().mix({"image": COLOURS, name: LABELS})
    mc.MixupCollate().mix({"image": COLOURS, name: {"texts": ["a"] * B}})  # what is below it has a name of its own


def test_more_than_one_candidate_is_refused():
    audio, frames = torch.rand(B, 1, 64), torch.rand(B, 1, 16, 5)
    for transform in (mc.MixUp(labels_getter=None), mc.CutMix(labels_getter=None), mc.RandomErasing(p=1)):
        with pytest.raises(
            ValueError, match=r"more than one tensor looks like images: index 0 \(4, 1, 64\), index . \(4, 1, 16, 5\)"
        ):
            transform(audio, frames) if transform.mixes else transform(audio, LABELS, frames)
    mixed = mc.MixupCollate(image_key=0, keep_keys=1).mix((audio, frames))
    assert torch.equal(mixed[1], frames) and not torch.equal(mixed[0], audio)


def test_names_are_found_in_any_case_and_nested():
    for image, label in (("X", "Y"), ("IMG", "class_label"), ("Pixel_Values", "Targets"), ("images", "Label")):
        mixed = through("mix", {label: LABELS, image: COLOURS}, num_classes=B)
        torch.testing.assert_close(mixed[image].mean((2, 3)), mixed[label])
        assert mc.CutMix(num_classes=B)({label: LABELS, image: COLOURS})[label].shape == (B, B)
    nested = {"inputs": {"rgb": COLOURS, "depth": 2 * COLOURS}, "meta": {"class": LABELS}}
    keys = {"image_key": ("inputs.rgb", "inputs.depth"), "label_key": "meta.class", "num_classes": B}
    mixed = through("mix", nested, **keys)
    assert torch.equal(mixed["inputs"]["depth"], 2 * mixed["inputs"]["rgb"])
    torch.testing.assert_close(mixed["inputs"]["rgb"].mean((2, 3)), mixed["meta"]["class"])
    with pytest.raises(ValueError, match=r"image_key must name tensors among \['inputs.rgb', .* got 'inputs.nir'"):
        through("mix", nested, **{**keys, "image_key": "inputs.nir"})


# Frameworks' own protocols


class Meta(Tensor):
    """A tensor with something that goes with it, as MONAI's."""


def test_tensors_of_other_types_come_back_as_they_were():
    images = COLOURS.as_subclass(Meta)
    images.affine = "kept"
    for mixed in (mc.CutMix(num_classes=B)(images, LABELS)[0], through("mix", (images, LABELS), num_classes=B)[0]):
        assert type(mixed) is Meta and mixed.affine == "kept"


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("way", ["deferred", "eager", "to"])
def test_samples_of_other_types_are_stacked_to_their_type(way, large, monkeypatch):
    """As torch does, whatever their size."""
    monkeypatch.setattr(mc.stacking, "LARGE", 0 if large else 2**30)
    mixed, targets = through(way, (COLOURS.as_subclass(Meta), LABELS), num_classes=B)
    assert type(mixed) is Meta and type(targets) is Tensor
    assert type(through(way, (tv_tensors.Image(COLOURS), LABELS), num_classes=B)[0]) is Tensor


class Pair(NamedTuple):
    image: Tensor
    label: Tensor


@pytest.mark.parametrize(
    "kind", [dict, OrderedDict, UserDict, lambda d: Pair(**d), lambda d: list(d.values()), lambda d: tuple(d.values())]
)
def test_containers_keep_their_type(kind):
    batch = kind({"image": COLOURS, "label": LABELS})
    for mixed in (mc.MixupCollate(mc.CutMix(), num_classes=B).mix(batch), mc.CutMix(num_classes=B)(batch)):
        assert type(mixed) is type(batch)
        images, targets = (mixed["image"], mixed["label"]) if isinstance(kind, type) else mixed
        torch.testing.assert_close(images.mean((2, 3)), targets)


def test_batches_of_dicts_are_read_like_dicts():
    def batch():
        return mc.MixupCollate(num_classes=B)(samples_of({"image": COLOURS, "label": LABELS}))

    assert set(batch().keys()) == {"image", "label"} and dict(**batch())["label"].shape == (B, B)
    (_, images), (_, targets) = batch().items()
    assert images.shape == COLOURS.shape and [value.shape for value in batch().values()][1] == targets.shape
    assert batch().get("label").shape == targets.shape and batch().get("mask") is None
    with pytest.raises(TypeError, match=r"items\(\) needs a batch of dict samples, .* batch.mix\(\)"):
        mc.MixupCollate(num_classes=B)(samples_of((COLOURS, LABELS))).items()


def test_to_means_what_it_means_for_tensors():
    def batch():
        return mc.MixupCollate(num_classes=B, seed=2)(samples_of((COLOURS, LABELS)))

    wanted, targets = batch().mix()
    for mixed in (batch().to("cpu", torch.float16), batch().to(dtype=torch.float16), batch().to(torch.float16),
                  batch().to("cpu", torch.float16, True), batch().to(device="cpu", dtype=torch.float16)):  # fmt: skip
        assert torch.equal(mixed[0], wanted.half()) and torch.equal(mixed[1], targets)
    mixed = batch()
    assert (
        torch.equal(mixed.to("cpu", non_blocking=True)[0], wanted) and mixed.to(torch.float64)[0].dtype == torch.float64
    )
    for wrong in ({"copy": True}, {"device": object()}, {"memory_format": torch.channels_last}):
        with pytest.raises((TypeError, ValueError), match=r"^to\(\) takes|memory_format"):
            batch().to(**wrong)


def test_a_model_that_holds_a_transform_is_initialised():
    model = nn.Sequential(nn.Linear(3, 3), mc.MixUp(num_classes=B), mc.RandomChoice([mc.MixUp(), mc.CutMix()]))
    seen = []
    model.apply(lambda module: seen.append(type(module).__name__))
    assert seen.count("MixUp") == 2
    model.eval()
    assert model[1](COLOURS, LABELS)[1].shape == (B, B)


# Nothing of the caller's changes


def test_collates_and_transforms_have_streams_and_epochs_of_their_own():
    rising = mc.RandomChoice([mc.MixUp(p=lambda epoch: epoch / 10), mc.CutMix(p=lambda epoch: epoch / 10)], seed=5)
    state = {name: copy.copy(value) for name, value in vars(rising).items()}
    rows = samples_of((COLOURS, LABELS))
    first, second = (mc.MixupCollate(rising, num_classes=B) for _ in range(2))
    first.set_epoch(10)
    second.set_epoch(0)
    mixed = first(rows).mix()
    assert (first.stream.step, second.stream.step, rising.stream.step) == (1, 0, 0)
    assert not torch.equal(mixed[0], COLOURS)
    assert torch.equal(second(rows).mix()[0], COLOURS) and (first.epoch, second.epoch, rising.epoch) == (10, 0, 0)
    second.set_epoch(10)
    second.stream.step = 0
    assert torch.equal(second(rows).mix()[0], mixed[0])  # the same plan, from the same address
    for name, value in vars(rising).items():
        if name not in ("stream", "_modules", "_executor"):
            assert value is state[name] or np.array_equal(value, state[name]), name
    assert rising.num_classes is None and first.transform is rising
    rising.set_epoch(0)
    with pytest.raises(ValueError, match="num_classes must be given"):
        rising(COLOURS, LABELS)


@pytest.mark.parametrize("mode", [torch.inference_mode, FakeTensorMode, lambda: torch.device("meta")])
def test_the_first_plan_of_a_thread_may_be_drawn_in_any_mode(mode, monkeypatch):
    """What is made then is kept, and drawn into outside of the mode."""
    with mode():
        monkeypatch.setattr(stream, "_WORD", stream._Word())
    seeds = []
    for _ in range(2):
        torch.manual_seed(5)
        seeds.append(mc.MixUp().make_plan(COLOURS).shares.tolist())
    assert seeds[0] == seeds[1]


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("mode", [torch.inference_mode, FakeTensorMode, lambda: torch.device("meta")])
def test_a_collate_may_be_made_in_one_mode_and_used_in_another(mode, eager):
    outside = mc.MixupCollate(num_classes=B, seed=0, eager=eager)
    with mode():
        inside = mc.MixupCollate(num_classes=B, seed=0, eager=eager)
        outside.set_epoch(3)
        outside.enabled = False
    assert (outside.epoch, outside.enabled) == (3, False)
    inside.set_epoch(3)
    inside.enabled = False
    assert torch.equal(inside.mix((COLOURS, LABELS))[0], COLOURS)


def test_alpha_belongs_to_the_default_transform():
    with pytest.raises(ValueError, match="alpha is for the default transform, got alpha=0.2 and a CutMix"):
        mc.MixupCollate(mc.CutMix(), alpha=0.2)
    assert mc.MixupCollate(alpha=0.2).transform.alpha == 0.2


def test_an_inplace_transform_is_in_place_in_a_collate():
    images = COLOURS.clone()
    mixed = mc.MixupCollate(mc.MixUp(inplace=True), num_classes=B).mix((images, LABELS))
    assert mixed[0] is images and not torch.equal(images, COLOURS)


@pytest.mark.parametrize("inplace", [False, True])
def test_the_memory_that_is_mixed_in_is_the_collates_own(inplace):
    """What it has stacked itself, whatever the transform says; what a collate_fn has made, only if that says so."""
    made = COLOURS.clone(), LABELS
    for options, own in (({}, True), ({"collate_fn": lambda samples: made}, inplace)):
        collate = mc.MixupCollate(mc.MixUp(inplace=inplace, seed=1), num_classes=B, **options)
        batch = collate(samples_of((COLOURS, LABELS)))
        memory = batch._batch[0].data_ptr()  # which batch.stacked would show, and so protect
        assert (batch.mix()[0].data_ptr() == memory) == own
    assert torch.equal(made[0], COLOURS) != inplace


# The door of evaluation


def test_evaluation_stacks_and_normalises_alike_and_draws_nothing():
    collate = mc.MixupCollate(mc.CutMix(), num_classes=B, mean=0.5, std=0.25, dtype=torch.float16)
    plain = collate.plain()
    before = torch.get_rng_state()
    images, labels = plain(samples_of((COLOURS, LABELS)))
    assert torch.equal(torch.get_rng_state(), before)
    assert images.dtype == torch.float16 and torch.equal(images, ((COLOURS - 0.5) / 0.25).half())
    assert torch.equal(labels, LABELS) and collate.stream.step == 0
    assert collate(samples_of((COLOURS, LABELS))).mix()[1].shape == (B, B)
    batch = {"pixel_values": COLOURS, "labels": LABELS, "boxes": torch.rand(B, 3, 4), "index": torch.arange(B)}
    evaluated = plain(samples_of(batch)).mix()
    assert torch.equal(evaluated["boxes"], batch["boxes"]) and torch.equal(evaluated["labels"], LABELS)
    workers = DataLoader(
        Samples(samples_of((COLOURS, LABELS))), B, num_workers=1, collate_fn=pickle.loads(pickle.dumps(plain))
    )
    assert torch.equal(next(iter(workers)).mix()[0], images)


def test_evaluation_has_a_switch_and_an_epoch_of_its_own():
    collate = mc.MixupCollate(num_classes=B, eager=True)
    collate.set_epoch(7)
    plain = collate.plain()
    plain.enabled = False
    plain.set_epoch(0)
    assert collate.enabled and collate.epoch == 7


def test_evaluation_data_may_lack_what_training_data_have():
    """Teachers, masks and labels are for training; names instead of labels are what a test set has."""
    masks = torch.randint(0, 4, (B, H, W))
    collate = mc.MixupCollate(
        mc.CutMix(), num_classes=B, label_key="label", blend_keys="teacher", keep_keys="index", mask_keys="mask",
        mask_classes=4,
    )  # fmt: skip
    plain = collate.plain()
    images = plain(samples_of({"image": COLOURS, "mask": masks})).mix()
    assert torch.equal(images["image"], COLOURS) and images["mask"].dtype == torch.int64
    assert torch.equal(images["mask"], masks)
    named = plain([{"image": COLOURS[k], "label": f"{k}.jpg"} for k in range(B)])
    assert named.labels == [f"{k}.jpg" for k in range(B)] and torch.equal(named.mix()["image"], COLOURS)
    for transform in (None, mc.MixUp(labels_getter=lambda batch: batch[1])):
        pairs = mc.MixupCollate(transform, num_classes=B).plain()([(COLOURS[k], f"{k}.jpg") for k in range(B)])
        assert torch.equal(pairs.mix()[0], COLOURS)
    with pytest.raises(ValueError, match="image_key must name"):
        mc.MixupCollate(image_key="picture").plain()(samples_of({"image": COLOURS, "label": LABELS}))


def test_erasing_leaves_alone_what_is_beside_the_images():
    """Names, numbers, boxes, soft targets; masks of any shape, too."""
    erase = mc.RandomErasing(p=1)
    image, mask = tv_tensors.Image(COLOURS[0]), tv_tensors.Mask(torch.ones(H, W))
    for batch in (
        (image, 3), {"image": image, "label": 3}, (image, mask), (image, tv_tensors.Mask(torch.ones(5, H, W))),
        (COLOURS, mc.SoftTarget(LABELS[:, None], torch.ones(B, 1))), (COLOURS, ["a.jpg"] * B),
    ):  # fmt: skip
        made = erase(batch)
        kept, given = ([*batch.values()], [*made.values()]) if isinstance(batch, dict) else (batch, made)
        assert given[1] is kept[1] or all(torch.equal(a, b) for a, b in zip(given[1], kept[1], strict=True))
        assert not torch.equal(given[0], kept[0])
    detection = [(COLOURS[k], {"boxes": torch.rand(2, 4), "labels": torch.tensor([1, 2])}) for k in range(B)]
    assert mc.MixupCollate(mc.Cutout())(detection).mix()[1]["boxes"].shape == (B, 2, 4)
    both = v2.Compose([mc.MixUp(num_classes=B, targets="sparse"), mc.RandomErasing(p=1)])
    assert isinstance(both(COLOURS, LABELS)[1], mc.SoftTarget)


@pytest.mark.parametrize("targets", ["dense", "sparse"])
def test_erasing_goes_on_when_mixing_is_off(targets):
    """As in timm, whose switch is its Mixup's, and whose erasing is its loader's; in whatever pass it is."""
    mixup, cutmix = mc.MixUp(targets=targets), mc.CutMix(targets=targets)
    erase, cut = mc.RandomErasing(p=1, scale=(0.3, 0.33), value=7.0), mc.Cutout(length=4, inside=True, fill=9.0)
    for methods in ([cutmix, erase], [erase, mixup], [mixup, cutmix, erase], [erase, mixup, cut, cutmix]):
        collate = mc.MixupCollate(mc.Compose(methods), num_classes=B)
        collate.enabled = False
        images, made = collate(samples_of((COLOURS, LABELS))).mix()
        fills = [7] * (erase in methods) + [9] * (cut in methods)
        erased = sum(images == fill for fill in fills) > 0
        assert all((images == fill).any() for fill in fills) and torch.equal(images[~erased], COLOURS[~erased])
        made = made.dense(B) if targets == "sparse" else made
        assert torch.equal(made, torch.eye(B)[LABELS])


def test_masks_of_volumes_become_one_hot():
    volumes, masks = COLOURS[:, :, None].expand(B, B, 3, H, W), LABELS[:, None, None, None].expand(B, 3, H, W)
    collate = mc.MixupCollate(mask_keys="mask", mask_classes=B, layout="BCDHW", num_classes=B)
    for numbers in (masks, masks[:, None]):
        mixed = collate.mix({"image": volumes, "mask": numbers, "label": LABELS})
        torch.testing.assert_close(mixed["mask"], mixed["image"])
    with pytest.raises(TypeError, match=r"masks must be class indices \[B, D, H, W\]"):
        collate.mix({"image": volumes, "mask": masks[:, 0], "label": LABELS})


def test_masks_of_signals_need_an_axis_more():
    """As the messages say, for what is copied and for what becomes one-hot."""
    signals, masks = COLOURS[:, :, 0], LABELS[:, None].expand(B, W)
    copying = mc.MixupCollate(mc.CutMix(), mask_keys=1, layout="BCT")
    blending = mc.MixupCollate(mc.MixUp(), mask_keys=1, mask_classes=B, layout="BCT")
    with pytest.raises(ValueError, match=r"masks must be .*\[B, T\] need an axis of channels: masks\[:, None\]"):
        copying.mix((signals, masks))
    with pytest.raises(TypeError, match=r"masks must be class .*of signals an axis of height 1: masks\[:, None\]"):
        blending.mix((signals, masks))
    mixed, numbers = copying.mix((signals, masks[:, None]))
    assert torch.equal(numbers[:, 0], mixed.argmax(1))
    mixed, soft = blending.mix((signals, masks[:, None]))
    torch.testing.assert_close(soft[:, :, 0], mixed)


def test_what_has_no_name_is_found_by_its_axes():
    roles = mc.roles.find({"index": LABELS, "picture": COLOURS}, mixes=False)
    assert roles.images == (("picture",),)


def test_names_are_found_by_depth_then_by_name_then_in_order():
    images = COLOURS, COLOURS + 1
    for batch, path in (
        ({"x": images[0], "image": images[1]}, ("image",)),
        ({"b": {"image": images[0]}, "a": {"image": images[1]}}, ("b", "image")),
        ({"deep": {"image": images[0]}, "x": images[1]}, ("x",)),
    ):
        assert mc.roles.find(batch, mixes=False).images == (path,)


def test_masks_of_another_size_follow_contours_and_corners():
    """A multiple of the images' on each axis; an image whose pieces are not cut has its corner far away."""
    fmix = mc.FMix().make_plan(COLOURS)
    wide = mix_masks(LABELS[:, None, None].expand(B, H, 2 * W).contiguous(), fmix)
    assert torch.equal(wide[:, :, ::2], mix_masks(LABELS[:, None, None].expand(B, H, W).contiguous(), fmix))
    for size in ((H, W // 2), (H, 3 * W // 2)):
        with pytest.raises(ValueError, match="free-form contours cannot be scaled"):
            mix_masks(torch.zeros(B, *size), fmix)
    some = mc.RandomChoice([mc.RICAP(), mc.MixUp(alpha=1e-3)], per="sample", seed=0).make_plan(COLOURS)
    assert (some.corner == mc.plan.FAR).any() and (some.corner != mc.plan.FAR).any()
    ones = torch.ones(B, 2 * H, 2 * W)
    torch.testing.assert_close(mix_masks(ones, some), ones)


def test_two_views_without_labels():
    views = mc.MixupCollate(mc.MixUp(), image_key=(0, 1))
    mixed = views([(COLOURS[k], COLOURS[k] + 1) for k in range(B)]).mix()
    torch.testing.assert_close(mixed[1] - mixed[0], torch.ones_like(COLOURS))
    made = views([COLOURS, COLOURS + 1]).mix()  # a batch already: samples have no second item to name
    assert len(made) == 2 and made[0].shape == COLOURS.shape


def test_images_of_other_channels_take_one_fill():
    recipe = mc.Compose([mc.MixUp(), mc.RandomErasing(p=1, value="noise")])
    collate = mc.MixupCollate(recipe, image_key=("rgb", "depth"), num_classes=B)
    made = collate(samples_of({"rgb": torch.rand(B, 3, H, W), "depth": torch.rand(B, 1, H, W), "label": LABELS})).mix()
    assert made["rgb"].shape == (B, 3, H, W) and made["depth"].shape == (B, 1, H, W)


def test_a_mapping_that_shares_its_copies_stays_as_it_is():
    class Shared(MutableMapping):
        def __init__(self, values):
            self.values_by_key = values

        def __getitem__(self, key):
            return self.values_by_key[key]

        def __setitem__(self, key, value):
            self.values_by_key[key] = value

        def __delitem__(self, key):
            del self.values_by_key[key]

        def __iter__(self):
            return iter(self.values_by_key)

        def __len__(self):
            return len(self.values_by_key)

    batch = Shared({"image": COLOURS, "label": LABELS})
    mixed = mc.MixUp(num_classes=B)(batch)
    assert batch["image"] is COLOURS and batch["label"] is LABELS and mixed["label"].shape == (B, B)


def test_labels_on_the_host_beside_a_plan_on_a_device(monkeypatch):
    """The images' plan lies with them; labels take the one that it was made of."""
    collate = mc.MixupCollate(num_classes=B, blend_keys="teacher", seed=0)
    batch = {"image": COLOURS, "label": LABELS, "teacher": torch.rand(B, 5)}
    wanted = mc.MixupCollate(num_classes=B, blend_keys="teacher", seed=0).mix(batch)
    monkeypatch.setattr(execution, "place", lambda plan, *_: pack(plan, "meta"))
    decision = SimpleNamespace(call=lambda images, *_: SimpleNamespace(run=lambda: images))
    monkeypatch.setattr(execution, "decide", lambda *_, **__: decision)
    made = collate.mix(batch)
    for name in ("label", "teacher"):
        torch.testing.assert_close(made[name], wanted[name])


def test_timms_switch_is_ours():
    collate = mc.MixupCollate(num_classes=B)
    collate.mixup_enabled = False
    assert not collate.enabled and torch.equal(collate(samples_of((COLOURS, LABELS))).mix()[0], COLOURS)
    with pytest.raises(TypeError, match="enabled must be"):
        collate.enabled = "off"
    with pytest.raises(AttributeError, match="^mix_prob cannot be changed after a MixupCollate is made"):
        collate.mix_prob = 0.5  # timm's attribute for its argument prob


# A pairing of one's own


def nearest(labels, numbers):
    """C-Mixup's: partners with near labels are likelier."""
    distance = np.abs(labels.numpy()[:, None] - labels.numpy())
    chance = np.exp(-(distance**2) / 2) * (1 - np.eye(len(labels)))
    return np.array([numbers.choice(len(labels), p=row / row.sum()) for row in chance])


def other_half(labels, numbers):
    """Each image of the first half with one of the second, and back."""
    half = len(labels) // 2
    order = numbers.permutation(half)
    return np.concatenate([half + order, np.argsort(order)])


@pytest.mark.parametrize("way", WAYS)
def test_partners_are_chosen_by_a_function_of_the_labels(way):
    transform = mc.MixUp(pairing=other_half, seed=3)
    mixed = through(way, (COLOURS, LABELS), transform, num_classes=B)
    torch.testing.assert_close(mixed[0].mean((2, 3)), mixed[1])
    assert ((mixed[1][:2, 2:] > 0).sum(1) == 1).all() and (mixed[1][:2, :2] > 0).sum() == 2
    again = through(way, (COLOURS, LABELS), mc.MixUp(pairing=other_half, seed=3), num_classes=B)
    assert torch.equal(again[0], mixed[0])
    ages = torch.tensor([20.0, 21.0, 70.0, 71.0])
    near = through(way, (COLOURS, ages), mc.MixUp(pairing=nearest, per="sample", targets="values", seed=1))
    torch.testing.assert_close(near[1], near[0].mean((2, 3)) @ ages)
    assert (near[1][:2] < 22).all() and (near[1][2:] > 69).all()


def test_a_pairing_function_is_checked():
    images = COLOURS
    for function, message in (
        (lambda labels, numbers: np.arange(3), r"pairing must return the partner of each of 4 images .* got \(3,\)"),
        (lambda labels, numbers: np.arange(4) + 1, r"pairing must return partners in \[0, 4\), got 1 … 4"),
        (lambda labels, numbers: np.arange(4) - 1, r"pairing must return partners in \[0, 4\), got -1 … 2"),
        (lambda labels, numbers: np.zeros(4), "integers"),
        (lambda labels, numbers: [[0], [1, 2]], r"pairing must return .* got \[\[0\], \[1, 2\]\]"),
        (lambda labels, numbers: np.array([1, 2, 3, 0]), "per='pair' needs mutual partners, but the pairing"),
    ):
        with pytest.raises(ValueError, match=message):
            mc.MixUp(num_classes=B, pairing=function)(images, LABELS)
    with pytest.raises(ValueError, match="pairing is a function of the labels, but there are none"):
        mc.MixUp(pairing=other_half, labels_getter=None)(images)
    one_for_all = mc.MixUp(num_classes=B, per="sample", pairing=lambda labels, numbers: np.ones(4, int))
    assert one_for_all.make_plan(images, labels=LABELS).partner.tolist() == [1, 1, 1, 1]


# Process-wide settings


@pytest.mark.parametrize("setting", [torch.float64, torch.bfloat16, torch.device("meta")])
@pytest.mark.parametrize("way", WAYS)
def test_defaults_of_the_process_change_nothing(way, setting):
    """A factory call without dtype or device would make float64 or meta tensors here."""
    mask = LABELS[:, None, None].expand(B, H, W).contiguous()
    rows = {"image": COLOURS, "label": LABELS, "mask": mask, "logits": torch.eye(B), "age": torch.arange(B) / 8}

    def run():
        options = {"mask_keys": "mask", "blend_keys": "logits", "keep_keys": "age", "mean": 0.5, "std": 0.25}
        deit = mc.Compose([mc.RandomChoice([mc.MixUp(), mc.CutMix()]), mc.RandomErasing(p=0.5, fill="noise")])
        mixed = []
        for transform in (mc.Compose([mc.CutMix(), mc.RandomErasing(p=0.5)]), mc.RICAP(), deit):
            mixed.append(through(way, rows, transform, num_classes=B, seed=2, mask_classes=B, **options))
        mixed.append(through(way, rows, mc.MixUp(targets="sparse"), num_classes=B, seed=2, **options | {"mask_keys": (),
            "keep_keys": ("age", "mask")}))  # fmt: skip
        return [leaf for _, leaf in mc.roles.leaves(mixed) if isinstance(leaf, Tensor)]

    wanted = run()
    if isinstance(setting, torch.device):
        with setting:
            got = run()
    else:
        before = torch.get_default_dtype()
        torch.set_default_dtype(setting)
        try:
            got = run()
        finally:
            torch.set_default_dtype(before)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, wanted, strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU can be used here")
@pytest.mark.parametrize("way", ["deferred", "eager", "to"])
def test_the_default_device_may_be_one_that_cannot_be_used(way):
    """As a GPU in a worker that was forked, whose samples lie on the host all the same."""
    rows = [(image, int(label)) for image, label in zip(COLOURS, LABELS, strict=True)]
    collate = mc.MixupCollate(mc.CutMix(), num_classes=B, eager=way == "eager")
    with torch.device("cuda"):
        made = collate(rows)
        mixed = made.to("cpu") if way == "to" else made.mix() if way == "deferred" else made
    torch.testing.assert_close(mixed[0].mean((2, 3)), mixed[1])


@pytest.mark.parametrize("loops", ["compiled", "numpy"])
def test_numpy_may_be_set_to_raise(loops, monkeypatch):
    """With a small alpha some shares are smaller than any float32; and pixels may be as small as that."""
    if loops == "numpy":
        monkeypatch.setattr(host, "loops", lambda: None)
    for dtype in (torch.float32, torch.float64):
        twice = mc.Compose([mc.MixUp(alpha=0.01), mc.MixUp(alpha=0.01)], num_classes=B, seed=0)
        with np.errstate(all="raise"):
            for _ in range(20):
                mixed, targets = twice(COLOURS.to(dtype), LABELS)
                torch.testing.assert_close(mixed.mean((2, 3)).float(), targets)
            mc.MixUp(num_classes=B, per="sample", pairing="roll")(COLOURS.to(dtype) * torch.finfo(dtype).tiny, LABELS)


def test_numpy_may_be_set_to_raise_while_a_plan_is_drawn():
    """Also where it is not MixUp that draws a number smaller than any float32."""
    for transform in (
        mc.CutMix(alpha=0.001, correct_lam=False),
        mc.RandomChoice([mc.CutMix(alpha=0.001, correct_lam=False), mc.MixUp(alpha=0.001)]),
        mc.FMix(decay=50),
        mc.Cutout(fill=1e-42),
    ):
        with np.errstate(all="raise"):
            for _ in range(20):
                transform.make_plan(COLOURS)


# All or nothing


@pytest.mark.parametrize("inplace", [False, True])
def test_nothing_is_written_if_a_later_part_is_refused(inplace):
    right = {"rgb": COLOURS.clone(), "nir": COLOURS.clone(), "y": LABELS}
    refused_for = {
        "images must be uint8 or floating point": {"nir": COLOURS.long()},
        "labels must be in 0": {"y": LABELS + 2},
        "masks must be one-hot floats": {"m": LABELS[:, None, None].expand(B, H, W)},
        **(
            {"images mixed in place must hold every element": {"nir": COLOURS[:1].expand(B, B, H, W)}}
            if inplace
            else {}
        ),
    }
    for message, wrong in refused_for.items():
        batch = {**right, **wrong}
        before = {key: value.detach().clone() for key, value in batch.items()}
        collate = mc.MixupCollate(
            num_classes=B, image_key=("rgb", "nir"), label_key="y", mask_keys=["m"] if "m" in batch else ()
        )
        with pytest.raises((ValueError, TypeError), match=message):
            collate.mix(batch, inplace=inplace)
        for key, value in batch.items():
            assert torch.equal(value, before[key]), key


def test_images_that_share_memory_are_not_mixed_twice():
    images = COLOURS.clone()
    batch = {"rgb": images, "view": images, "half": images[:, :, :], "y": LABELS}
    collate = mc.MixupCollate(num_classes=B, image_key=("rgb", "view", "half"), label_key="y")
    mixed = collate.mix(batch, inplace=True)
    for key in ("rgb", "view", "half"):
        torch.testing.assert_close(mixed[key].mean((2, 3)), mixed["y"])


@st.composite
def batches(draw):
    """Random nested batches, with what must become of every part of them."""
    batch = {"image": COLOURS.clone(), "label": LABELS.clone()}
    fate = {}
    parts = {
        "mask": (LABELS[:, None, None].expand(B, H, W).contiguous(), ("mask", "keep", "refuse")),
        "soft": (COLOURS.clone(), ("mask", "image", "keep", "refuse")),
        "boxes": (torch.rand(B, 2, 4), ("keep", "refuse")),
        "teacher": (torch.eye(B), ("blend", "keep", "refuse")),
        "index": (torch.arange(B), ("keep", "warn")),
        "path": (["a", "b", "c", "d"], ("nothing",)),
        "scale": (3.5, ("nothing",)),
    }
    for name in draw(st.lists(st.sampled_from(sorted(parts)), unique=True)):
        value, fates = parts[name]
        fate[name] = draw(st.sampled_from(fates))
        if draw(st.booleans()):
            batch["nested"] = {**batch.get("nested", {}), name: value}
            fate[f"nested.{name}"] = fate.pop(name)
        else:
            batch[name] = value
    return batch, fate


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from(["CutMix", "RICAP", "FMix"]), st.booleans())
def test_the_rule_itself(made, method, transform):
    batch, fate = made
    named = {
        role: tuple(key for key, value in fate.items() if value == role) for role in ("mask", "image", "blend", "keep")
    }
    collate = mc.MixupCollate(
        getattr(mc, method)(),
        num_classes=B,
        image_key=("image", *named["image"]),
        mask_keys=named["mask"],
        blend_keys=named["blend"],
        keep_keys=named["keep"],
    )
    before = copy.deepcopy(batch)
    run = mc.CutMix(num_classes=B, inplace=True) if transform else collate.mix
    unnamed = {"mask", "image", "blend", "keep"} & set(fate.values()) if transform else set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if "refuse" in fate.values() or unnamed:
            refusable = [key for key, value in fate.items() if value in ("refuse", "mask", "image", "blend", "keep")]
            if all(key.endswith("index") for key in refusable):
                return
            with pytest.raises(ValueError, match="looks like (masks|images)|no rule for mixing"):
                run(batch)
            assert all(torch.equal(a, b) for a, b in zip(tensors_of(batch), tensors_of(before), strict=True))
            return
        mixed = run(batch)
    flat, kept = dict(mc.roles.leaves(mixed)), dict(mc.roles.leaves(before))
    assert flat.keys() == kept.keys()
    torch.testing.assert_close(mixed["image"].mean((2, 3)), mixed["label"], rtol=0, atol=1e-5)
    warned = {str(one.message).split(" is left")[0] for one in caught}
    assert warned == {repr(key) for key, value in fate.items() if value == "warn"}
    for key, value in fate.items():
        got, was = flat[tuple(key.split("."))], kept[tuple(key.split("."))]
        if value in ("keep", "warn"):
            assert torch.equal(got, was)
        elif value == "nothing":
            assert got == was
        elif value == "blend":
            torch.testing.assert_close(got, mixed["label"])
        elif key.endswith("mask"):
            assert torch.equal(got, mixed["image"].argmax(1))
        else:
            assert torch.equal(got, mixed["image"])


def test_pil_images_say_what_to_do():
    rows = [(PIL.Image.new("RGB", (4, 4)), 1)] * 2
    with pytest.raises(TypeError, match=r"got PIL images at index 0; convert them in the dataset, .*PILToTensor\(\)"):
        mc.MixupCollate(num_classes=B)(rows)


FITTING = (np.ones(2, bool), np.ones(2, complex), np.array(1))
MISFITS = [
    ([(COLOURS[0], 0), (COLOURS[1].byte(), 1)], r"torch.float32 and torch.uint8 at index 0; .*ToDtype"),
    ([(COLOURS[0], torch.tensor(0)), (COLOURS[1], torch.tensor(1.0))], "torch.int64 and torch.float32 at index 1"),
    ([{"image": COLOURS[0], "label": 0}, {"image": COLOURS[1]}], "samples must have the same keys .* 'label'"),
    ([{"image": COLOURS[0]}, {"image": COLOURS[1], "label": 0}], r"samples must have the same keys .* \['label'\]"),
    ([(COLOURS[0], {"a": 0}), (COLOURS[1], {"a": 0, "m": 1})], r"samples must have the same keys .* \['m'\]"),
    ([[COLOURS[0], {"a": 0}], [COLOURS[1], {"a": 0, "m": 1}]], r"samples must have the same keys .* \['m'\]"),
    ([{"x": {"a": 0}, "y": 0}, {"x": {"a": 0, "m": 1}, "y": 0}], r"samples must have the same keys .* \['m'\]"),
    (
        [{"x": (COLOURS[0], {"a": 0})}, {"x": (COLOURS[1], {"a": 0, "m": 1})}],
        r"samples must have the same keys .* \['m'\]",
    ),
    ([{"image": COLOURS[0], "label": 0}, (COLOURS[1], 1)], "same structure .* only some have 'image', 'label'"),
    ([(COLOURS[0], 0), (None, 1)], "got NoneType at index 0"),
    ([(COLOURS[0], 0), (PIL.Image.new("RGB", (4, 4)), 1)], "got PIL images at index 0"),
    ([(COLOURS[0], 0), (COLOURS[1].numpy(), 1)], "one type .* got Tensor and ndarray at index 0"),
    ([(COLOURS[0], torch.tensor(0)), (COLOURS[1], 1)], "one type .* got Tensor and int at index 1"),
    ([(COLOURS[0], 1), (COLOURS[1], "a")], "one type .* got int and str at index 1"),
    ([(COLOURS[0].numpy(), 0), (COLOURS[1].byte().numpy(), 1)], "float32 and uint8 at index 0; .*ToDtype"),
    ([(COLOURS[0], []), (COLOURS[1], [LABELS])], "got 1 items in one and 2 in another; lists of different lengths"),
    ([COLOURS[0], None], "got NoneType at the batch"),
    ([torch.tensor(0.5), COLOURS[0]], r"samples must have one size .* the shapes \(\) and \(4, 8, 12\) at the batch"),
    ([COLOURS[0], COLOURS[1][0]], r"images must have one size .* and \(8, 12\) at the batch"),
    ([torch.rand(3, 64, 64), torch.rand(3, 64, 65)], r"images must have one size .* and \(3, 64, 65\) at the batch"),
    (
        [(COLOURS[0], COLOURS[0][0]), (COLOURS[1], COLOURS[1][0, :4])],
        r"samples must have one size .* and \(4, 12\) at index 1",
    ),
    ([(*FITTING, 0, COLOURS[0]), (*FITTING, 0.5, COLOURS[1][:2])], "images must have one size .* at index 4"),
]


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("rows, message", MISFITS)
def test_samples_that_make_no_batch_say_why(rows, message, eager):
    """Bytes beside numbers in [0, 1] would be promoted to them, 255 times too bright."""
    collate = mc.MixupCollate(num_classes=B, eager=eager)
    with pytest.raises((TypeError, ValueError), match=message):
        collate(rows)


@pytest.mark.parametrize("eager", [False, True])
def test_samples_that_make_no_batch_say_why_in_a_worker(eager):
    rows, message = MISFITS[0]
    loader = DataLoader(Samples(rows), 2, num_workers=1, collate_fn=mc.MixupCollate(num_classes=B, eager=eager))
    with pytest.raises(TypeError, match=message):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 1])
def test_whole_numbers_of_two_dtypes_keep_their_values(workers):
    """torch's own collation casts them to the first one's dtype in a worker, where 300 becomes 44."""
    rows = [(COLOURS[0], torch.tensor(1, dtype=torch.uint8)), (COLOURS[1], torch.tensor(300))]
    loader = DataLoader(rows, 2, num_workers=workers, collate_fn=mc.MixupCollate(mc.MixUp(targets="sparse")))
    assert next(iter(loader)).labels.tolist() == [1, 300]


BLENDING = {
    "choice": lambda: mc.RandomChoice([mc.MixUp(), mc.CutMix()], per="batch"),
    "rare": lambda: mc.MixUp(p=0.01, per="batch"),
    "composed": lambda: mc.Compose([mc.CutMix(), mc.MixUp(p=0.01)]),
}


@pytest.mark.parametrize("name", BLENDING)
def test_masks_that_some_batch_cannot_mix_are_refused_with_the_first(name):
    masks = torch.zeros(B, H, W, dtype=torch.int64)
    with pytest.raises(ValueError, match="masks must be one-hot floats"):
        BLENDING[name]()(tv_tensors.Image(COLOURS), LABELS, tv_tensors.Mask(masks))
    for enabled, eager in itertools.product((True, False), repeat=2):
        collate = mc.MixupCollate(BLENDING[name](), num_classes=B, mask_keys="m", eager=eager)
        collate.enabled = enabled
        with pytest.raises(ValueError, match="masks must be one-hot floats"):
            collate([{"image": image, "label": 0, "m": mask} for image, mask in zip(COLOURS, masks, strict=True)])
        collate.plain()([{"image": image, "label": 0, "m": mask} for image, mask in zip(COLOURS, masks, strict=True)])
    mc.CutMix(num_classes=B)(tv_tensors.Image(COLOURS), LABELS, tv_tensors.Mask(masks))


@pytest.mark.parametrize("fill", [0.5, (0.0, 300.0, 1.0, 1.0), "channel_noise"])
def test_a_fill_that_some_batch_cannot_take_is_refused_with_the_first(fill):
    images = torch.zeros(B, 4, H, W, dtype=torch.uint8)
    for erasing in (mc.RandomErasing(p=0.001, fill=fill), mc.Compose([mc.MixUp(), mc.Cutout(p=0.001, fill=fill)])):
        collate = mc.MixupCollate(erasing, num_classes=B)
        with pytest.raises(ValueError, match=r"fill must be whole numbers in 0 … 255 .*, got (0.5|300|-?\d[\d.e-]*);"):
            collate.mix((images, LABELS))
        mc.MixupCollate(erasing, num_classes=B, mean=0.5).mix((images, LABELS))


@pytest.mark.parametrize("keys", [("a", "b"), ("b", "a")])
def test_several_images_of_any_size_are_mixed_in_the_worker(keys):
    """Large ones are mixed while they are stacked; one that is small is not."""
    samples = [{"a": torch.rand(3, 64, 64), "b": torch.rand(1, 64, 64), "label": k} for k in range(B)]
    batches = [mc.MixupCollate(num_classes=B, image_key=keys, eager=eager, seed=1)(samples) for eager in (True, False)]
    for key in ("a", "b", "label"):
        torch.testing.assert_close(batches[0][key], batches[1][key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [None, "images", 3, {1, 2}, COLOURS.numpy(), iter([COLOURS, LABELS])])
def test_what_is_not_a_batch_is_reported(batch):
    for transform in (mc.MixUp(num_classes=B), mc.RandomErasing()):
        with pytest.raises(TypeError, match="a batch must be a tensor, or tuples, lists and mappings of tensors, got"):
            transform(batch)


@pytest.mark.parametrize(
    "batch, message",
    [
        ((COLOURS[0], 1), "a tensor at index 1, got int; transforms mix batches, and MixupCollate stacks"),
        ((COLOURS, LABELS.tolist()), "a tensor at index 1, got list; convert it with torch.as_tensor"),
        ((COLOURS, LABELS.numpy()), "a tensor at index 1, got ndarray; convert it with torch.as_tensor"),
        ((COLOURS.numpy(), LABELS.numpy()), "a tensor at index 1, got ndarray; convert it with torch.as_tensor"),
        (COLOURS.numpy(), "got a ndarray of shape .*; convert it with torch.as_tensor"),
        (make_dataclass("Batch", ["image"])(COLOURS), r"(?s)got Batch\(image=.*; make a mapping of it: vars\(batch\)"),
        (
            (COLOURS, ["a"] * B),
            r"a tensor at index 1, got list; name a tensor in label_key, .* \(arguments of MixupCollate\)",
        ),
        ({"image": COLOURS, "label": None}, "a tensor at 'label', got NoneType"),
    ],
)
def test_labels_that_are_no_tensor_are_named_by_their_type(batch, message):
    with pytest.raises(TypeError, match=message):
        mc.MixUp(num_classes=B)(batch)


def test_a_sample_that_is_a_dataclass_is_told_to_be_a_mapping():
    sample = make_dataclass("Sample", ["image", "label"])(COLOURS[0], 1)
    for samples, place in (([sample] * B, "the batch"), ([(sample, 1)] * B, "index 0")):
        with pytest.raises(TypeError, match=rf"got Sample at {place}; make a mapping of it: vars\(\.\.\.\), or pass"):
            mc.MixupCollate(num_classes=B)(samples)


def test_a_sparse_target_is_not_mixed_again():
    with pytest.raises(ValueError, match=r"'1.shares' looks like .* targets of these images"):
        mc.MixUp(num_classes=B)(COLOURS, mc.SoftTarget(LABELS[:, None], torch.ones(B, 1)))


@pytest.mark.parametrize("way", ["lazy", "eager", "plain"])
def test_samples_that_are_learned_have_gradients(way):
    """Those that are stacked here may be overwritten, but not where autograd needs them."""
    images = nn.Parameter(COLOURS.clone())
    collate = mc.MixupCollate(num_classes=B, eager=way == "eager", seed=1)
    collate = collate.plain() if way == "plain" else collate
    batch = collate(list(zip(images, LABELS, strict=True)))
    mixed = batch[0]
    assert collate.mix((images, LABELS), inplace=True)[0] is not images  # whose memory may be used, but cannot
    mixed.sum().backward()
    torch.testing.assert_close(images.grad.sum(), torch.tensor(float(images.numel())))
    assert type(mixed) is Tensor


def test_a_parameter_comes_out_as_a_tensor():
    mixed, _ = mc.MixUp(num_classes=B)(nn.Parameter(COLOURS.clone()), LABELS)
    assert type(mixed) is Tensor and mixed.grad_fn is not None


class Items(tuple):
    """A tuple that is made of its items one by one."""

    def __new__(cls, *items):
        return super().__new__(cls, items)


class Made(Pair):
    """A named tuple that is made of something else."""

    def __new__(cls, both):
        return super().__new__(cls, *both)


class Listed(list):
    name = ""


@pytest.mark.parametrize("make", [lambda x, y: Items(x, y), lambda x, y: Made((x, y)), lambda x, y: Listed([x, y])])
def test_sequences_that_are_made_in_ways_of_their_own_come_back(make):
    images = COLOURS.clone()
    batch = make(images, LABELS)
    vars(batch).update(name="mine")
    mixed = mc.MixUp(num_classes=B, inplace=True)(batch)
    assert type(mixed) is type(batch) and len(mixed) == 2 and mixed[0] is images
    if isinstance(batch, Listed):
        assert mixed.name == "mine" and batch[1] is LABELS


@pytest.mark.parametrize("keys", [{"label_key": "y", "keep_keys": "y"}, {"mask_keys": ("m", "m")}])
def test_what_has_two_roles_is_refused(keys):
    with pytest.raises(ValueError, match=r"each entry of a batch must have one role, got (y|m) more than once"):
        mc.MixupCollate(num_classes=B, **keys)


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], (1.0, 2.0, 3.0, 4.0), {"xyxy": [1, 2, 3, 4]}, 3])
@pytest.mark.parametrize("name", ["bbox", "Boxes", "keypoints"])
def test_boxes_are_refused_by_their_name_whatever_they_are_made_of(name, boxes):
    samples = [{"image": COLOURS[k], "label": k, name: boxes} for k in range(B)]
    with pytest.raises(ValueError, match=f"a batch with {name} cannot be mixed: .* no rule .* keep_keys"):
        mc.MixupCollate(num_classes=B)(samples)
    mc.MixupCollate(num_classes=B, keep_keys=name)(samples).mix()
    mc.MixupCollate(mc.Cutout())(samples).mix()


def test_gray_images_need_an_axis_of_channels():
    """Which the messages say: with ``layout="BCT"`` their rows would be channels, and their boxes intervals."""
    gray, said = COLOURS[:, 0], r"got \(4, 8, 12\).*; gray images .* need an axis of channels, images\[:, None\]"
    for collate in (mc.MixupCollate(mc.CutMix(), num_classes=B), mc.MixupCollate(mc.Cutout())):
        with pytest.raises(ValueError, match=said):
            collate((gray, LABELS)).mix()
        assert collate((gray[:, None], LABELS)).mix()[0].shape == (B, 1, H, W)
    for transform in (mc.CutMix(labels_getter=None), mc.Cutout()):
        with pytest.raises(ValueError, match=said):
            transform(gray)
    with pytest.raises(ValueError, match=f"to be normalised, {said}"):
        mix(gray, mc.MixUp().make_plan(gray), mean=0.5)


def test_one_image_that_is_to_be_erased_is_told_from_signals():
    """``layout="BCT"`` would cut another interval out of each of its channels."""
    with pytest.raises(ValueError, match="one image: wrap it in tv_tensors.Image; .*; signals .* layout='BCT'"):
        mc.RandomErasing(p=1.0)(COLOURS[0])
    assert mc.RandomErasing(p=1.0)(tv_tensors.Image(COLOURS[0])).shape == COLOURS[0].shape
    assert mc.RandomErasing(p=1.0, layout="BCT")(COLOURS[0]).shape == COLOURS[0].shape


def test_a_transform_that_is_given_samples_says_who_stacks_them():
    """As it is where somebody gives the loader a transform for its ``collate_fn``."""
    with pytest.raises(TypeError, match="MixupCollate stacks samples, as in DataLoader"):
        next(iter(DataLoader(Samples(samples_of((COLOURS, LABELS))), B, collate_fn=mc.MixUp(num_classes=B))))


# Signals


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["MixUp", "CutMix", "RICAP", "FMix", "Mosaic", "ResizeMix"])
def test_signals_are_mixed_along_their_one_axis(way, name):
    """The census again; and a box has its whole share of the axis, not the root of it."""
    signals = torch.eye(B)[:, :, None].expand(B, B, 400).contiguous()
    transform = getattr(mc, name)
    shares = []
    for seed in range(12):
        for made, layout in ((transform(), "BCT"), (transform(layout="BCT"), None)):
            mixed = through(way, (signals, LABELS), made, num_classes=B, layout=layout, seed=seed)
            torch.testing.assert_close(mixed[0].mean(2), mixed[1], rtol=0, atol=1e-5)
        shares.append(mixed[1].diagonal())
    own = torch.stack(shares)
    assert (own < 1).any(1).all()  # none is passed without a change
    if name == "CutMix":  # clipped, an interval of a share s covers s - s**2 / 4 on average: 5/12 of all
        assert abs(float(1 - own.mean()) - 5 / 12) < 0.15


def test_signals_are_erased_along_their_one_axis():
    for transform in (mc.Cutout, mc.RandomErasing, mc.GridMask, mc.HideAndSeek):
        erased = transform(p=1.0, layout="BCT", seed=0)(torch.ones(64, 2, 400))
        assert torch.equal(erased[:, 0], erased[:, 1]) and 0.02 < (erased == 0).float().mean() < 0.9, transform
    with pytest.raises(ValueError, match=r"signals \[B, C, T\] take layout='BCT'"):
        mc.CutMix(num_classes=B)(torch.rand(B, 2, 64), LABELS)


@pytest.mark.parametrize(
    "window", [lambda a, k: torch.from_numpy(a[:, k : k + 4]), lambda a, k: torch.from_numpy(a)[:, k : k + 4]]
)
def test_images_that_share_memory_are_not_mixed_in_place(window):
    """Of one tensor or of one NumPy array, whose views have a storage each."""
    pixels, labels = np.random.default_rng(0).random((6, 5, 32, 32), np.float32), torch.arange(6) % 4

    def mixed(inplace):
        collate = mc.MixupCollate(mc.MixUp(inplace=inplace), image_key=("a", "b"), num_classes=4, seed=0)
        there = pixels.copy()
        return collate.mix({"a": window(there, 0), "b": window(there, 1), "label": labels})

    got, wanted = mixed(True), mixed(False)
    assert all(torch.equal(got[key], wanted[key]) for key in ("a", "b"))
