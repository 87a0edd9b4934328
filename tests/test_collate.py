"""MixupCollate in real loaders: one stream whatever the workers do, switches that act at once, nothing half mixed."""

import copy
import functools
import gc
import os
import pickle
import sys
import threading
import warnings
from collections import UserDict
from dataclasses import dataclass
from multiprocessing.context import set_spawning_popen
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate
from torch.utils.data._utils.collate import default_collate_fn_map
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import pil_to_tensor

import mixcollate as mc
from mixcollate.kernels import pack

IMAGES = torch.randint(0, 256, (50, 3, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 10
TWO = mc.Compose([mc.MixUp(), mc.CutMix()])  # two passes


def dataset():
    return TensorDataset(IMAGES, LABELS)


class Samples(Dataset):
    """A list of samples as a dataset that pickles."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def loader(collate, data=None, **options):
    return DataLoader(data or dataset(), 16, collate_fn=collate, **options)


def all_of(batches):
    images, targets = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(targets)


def test_the_loop_of_the_readme_just_works():
    kept = IMAGES.clone()
    for images, targets in loader(mc.MixupCollate(num_classes=10)):
        assert images.dtype == torch.uint8 and targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.ones(len(images)))
    assert torch.equal(IMAGES, kept)


STARTS = ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))]


# Spawned workers import torch anew; those of the next test give the same stream, too.
@pytest.mark.parametrize("context", STARTS)
def test_any_number_of_workers_gives_the_same_stream(context):
    wanted = all_of(loader(mc.MixupCollate(num_classes=10, seed=3)))
    again = all_of(loader(mc.MixupCollate(num_classes=10, seed=3), num_workers=2, multiprocessing_context=context))
    assert all(torch.equal(a, b) for a, b in zip(wanted, again, strict=True))
    other = all_of(loader(mc.MixupCollate(num_classes=10, seed=4)))
    assert not torch.equal(wanted[0], other[0])


@pytest.mark.parametrize("context", STARTS)
def test_switches_act_on_the_next_batch_of_persistent_workers(context):
    collate = mc.MixupCollate(mc.MixUp(p=lambda epoch: float(epoch < 2)), num_classes=10, seed=0)
    wanted = all_of(loader(mc.MixupCollate(mc.MixUp(), num_classes=10, seed=0)))
    batches = loader(collate, num_workers=2, persistent_workers=True, multiprocessing_context=context)

    def mixed_batches():
        return [bool((targets.max(1).values < 1).any()) for _, targets in batches]

    collate.set_epoch(0)
    assert all(torch.equal(a, b) for a, b in zip(all_of(batches), wanted, strict=True))
    assert mixed_batches() == [True] * 4
    collate.enabled = False
    images, targets = all_of(batches)
    assert torch.equal(images, IMAGES) and torch.equal(targets, torch.eye(10)[LABELS])
    collate.enabled = True
    assert mixed_batches() == [True] * 4
    collate.set_epoch(2)
    assert mixed_batches() == [False] * 4
    seen = []
    collate.set_epoch(0)
    for batch in batches:  # in the middle of an epoch, for batches that are stacked already
        seen.append(bool((batch[1].max(1).values < 1).any()))
        collate.enabled = False
    assert seen == [True, False, False, False]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resumes_in_the_middle_of_an_epoch(workers):
    collate = mc.MixupCollate(num_classes=10, seed=3)
    whole = [(images.clone(), targets) for images, targets in loader(collate)]
    collate = mc.MixupCollate(num_classes=10, seed=3)
    for k, batch in enumerate(loader(collate, num_workers=workers)):
        batch.mix()
        if k == 1:
            break
    state = pickle.loads(pickle.dumps(collate.state_dict()))
    assert state == {"seed": 3, "step": 2}
    resumed = mc.MixupCollate(num_classes=10, seed=3)
    resumed.load_state_dict(state)
    rest = torch.utils.data.Subset(dataset(), range(32, 50))
    for (images, targets), (again, same) in zip(whole[2:], loader(resumed, rest, num_workers=2), strict=True):
        assert torch.equal(images, again) and torch.equal(targets, same)
    with pytest.raises(ValueError, match="state must be of a collate with seed=3, got seed=4"):
        resumed.load_state_dict({"seed": 4, "step": 0})
    with pytest.raises(ValueError, match="state must be of a collate with seed=3, got seed='3'"):
        resumed.load_state_dict({"seed": "3", "step": 0})
    before = resumed.state_dict()
    with pytest.raises(ValueError, match="^epoch must be a whole number from 0"):
        resumed.load_state_dict({"seed": 3, "step": 7, "epoch": -1})
    assert resumed.state_dict() == before


def test_manual_seed_reproduces_a_run():
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        runs.append(all_of(loader(mc.MixupCollate(num_classes=10), num_workers=2)))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("seed", [None, 3])
def test_eager_workers_and_epochs_differ(seed):
    same = TensorDataset(IMAGES[:16].repeat(4, 1, 1, 1), LABELS[:16].repeat(4))
    collate = mc.MixupCollate(num_classes=10, eager=True, seed=seed)
    batches = loader(collate, same, num_workers=2)
    drawn = [targets for _ in range(2) for _, targets in batches]
    assert all(isinstance(targets, torch.Tensor) for targets in drawn)
    assert len({targets.numpy().tobytes() for targets in drawn}) == 8


def test_eager_workers_see_switches_too():
    collate = mc.MixupCollate(num_classes=10, eager=True)
    batches = loader(collate, num_workers=2, persistent_workers=True)
    assert (all_of(batches)[1].max(1).values < 1).any()
    collate.enabled = False
    assert torch.equal(all_of(batches)[1], torch.eye(10)[LABELS])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["tensors", "NumPy"])
@pytest.mark.parametrize(
    "transform",
    [mc.MixUp(), mc.CutMix(per="batch", pairing="roll"), mc.ResizeMix(), mc.RICAP(), mc.Cutout(), TWO, None],
)
def test_eager_stacks_while_it_mixes(transform, kind, workers, monkeypatch):
    """Large images are not stacked first; what comes out is the same, and no sample is written."""
    monkeypatch.setattr(mc.stacking, "LARGE", 0)
    monkeypatch.setattr(mc.kernels.host, "LARGE", 0)
    monkeypatch.setattr(mc.stream, "get_worker_info", lambda: None)  # one stream, wherever it is drawn
    kept = IMAGES.clone()
    rows = [(image if kind == "tensors" else image.numpy(), 3, image / 2) for image in IMAGES]
    for options in ({}, {"mean": 0.5, "std": 0.25}, {"memory_format": torch.channels_last}, {"dtype": torch.bfloat16}):
        runs = []
        for eager in (False, True):
            collate = mc.MixupCollate(transform, num_classes=10, eager=eager, mask_keys=2, seed=5, **options)
            collate.enabled = transform is not None
            runs.append([tuple(batch) for batch in loader(collate, Samples(rows), num_workers=workers)])
        for plain, eager in zip(*runs, strict=True):
            assert plain[0].is_contiguous(memory_format=options.get("memory_format", torch.contiguous_format))
            assert all(torch.equal(one, other) for one, other in zip(plain, eager, strict=True))
    assert torch.equal(IMAGES, kept)


def test_large_videos_are_stacked_before_they_are_mixed():
    rows = [(torch.rand(2, 3, 64, 64), k) for k in range(4)]
    first, again = (mc.MixupCollate(mc.CutMix(), num_classes=4, eager=eager, seed=0)(rows) for eager in (False, True))
    assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("eager", [False, True])
def test_workers_stack_in_shared_memory(eager, monkeypatch):
    """So that sending a batch takes no copy. Eager ones stack large images while they mix them, into such memory."""
    monkeypatch.setattr(mc.stacking, "get_worker_info", object)
    stacking = mc.stacking.Stacking(defer_large=eager)
    small, large = (stacking.stack([tv_tensors.Image(torch.ones(3, side, side))] * 2) for side in (8, 64))
    assert small.is_shared() and isinstance(large, mc.stacking.Unstacked if eager else torch.Tensor)
    with torch.device("meta"):
        assert stacking.empty((2, 3), torch.float32).is_shared()


def test_a_batch_is_mixed_once():
    (batch,) = list(loader(mc.MixupCollate(num_classes=10), TensorDataset(IMAGES[:16], LABELS[:16])))
    assert "not mixed yet" in repr(batch)
    images, targets = batch
    assert batch[0] is images and batch.to("cpu")[1] is targets and batch.mix()[0] is images and len(batch) == 2
    assert "(mixed;" in repr(batch) and batch.to("meta")[1].is_meta and batch[1] is targets
    with pytest.raises(RuntimeError, match="this batch is mixed already"):
        _ = batch.images
    copied = images.clone(), targets.clone()
    assert batch.with_stacked(copied).mix() is copied and batch.mix()[0] is images


@pytest.mark.parametrize("move", [tuple, lambda batch: batch.to("cpu")], ids=["unpacked", "moved"])
def test_a_batch_that_a_loop_mixes_once_more_is_told_of_once(move):
    """As where ``collate.mix`` took the place of timm's ``mixup_fn``, and the loader got the collate, too."""
    samples = [(torch.rand(3, 4, 4), k) for k in range(4)]
    collate = mc.MixupCollate(num_classes=4)
    with pytest.warns(UserWarning, match="^labels were class indices before, .* are mixed already") as told:
        for _ in range(3):
            collate.mix(move(collate(samples)))
    assert len(told) == 1
    mc.MixupCollate(num_classes=4).mix(move(collate(samples)))  # another may mix rows only
    collate.plain().mix(move(collate(samples)))


def test_a_batch_has_its_length_while_another_thread_mixes_it():
    lengths = []

    class Asked(mc.MixUp):
        def plan_batch(self, draw):
            asking.start()
            asking.join(0.1)  # it waits until the batch is mixed
            return super().plan_batch(draw)

    batch = mc.MixupCollate(Asked(), num_classes=10)(list(zip(IMAGES[:4], LABELS[:4], strict=True)))
    asking = threading.Thread(target=lambda: lengths.append(len(batch)))
    batch.mix()
    asking.join()
    assert lengths == [2]


def test_a_batch_of_images_alone_is_as_long_as_they_are():
    batch = mc.MixupCollate(mc.Cutout())(list(IMAGES[:4]))
    assert len(batch) == 4 == len(list(batch)) == len(batch)


@pytest.mark.parametrize("look", [lambda batch: (batch.images, batch.labels), lambda batch: batch.stacked])
def test_raw_images_stay_as_they_are_once_somebody_has_seen_them(look):
    (batch,) = list(loader(mc.MixupCollate(num_classes=10), TensorDataset(IMAGES[:16], LABELS[:16])))
    raw, labels = look(batch)
    assert torch.equal(raw, IMAGES[:16]) and torch.equal(labels, LABELS[:16])
    mixed, _ = batch
    assert torch.equal(raw, IMAGES[:16]) and not torch.equal(mixed, raw)


def sent(batch):
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()  # which moves tensors to shared memory
    queue.put(batch)
    return queue.get()


@pytest.mark.parametrize("share", [copy.copy, sent])
def test_of_batches_that_share_memory_none_is_mixed_twice(share):
    rows = list(zip(IMAGES[:16], LABELS[:16], strict=True))
    wanted = mc.MixupCollate(num_classes=10, seed=3)
    wanted = [wanted(rows).mix() for _ in range(2)]
    collate = mc.MixupCollate(num_classes=10, seed=3)
    batch = collate(rows)
    twin = share(batch)
    mixed = [batch.mix(), twin.mix()]
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(mixed, wanted, strict=True))


def test_the_data_sets_own_memory_is_never_written():
    kept = IMAGES.clone()
    views = DataLoader(range(1), collate_fn=mc.MixupCollate(num_classes=10, collate_fn=lambda _: (IMAGES, LABELS)))
    mixed, _ = next(iter(views))
    assert torch.equal(IMAGES, kept) and not torch.equal(mixed, kept)


def test_pin_memory_calls_the_batchs_own_method(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    pinned = []

    def pin(tensor, device=None):
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    after = pin_memory(mc.MixupCollate(num_classes=10)((IMAGES[:16], LABELS[:16])))
    assert isinstance(after, mc.MixBatch) and len(pinned) == 2
    images, _ = after.to("cpu")
    assert images is pinned[0]  # mixed in the memory of the copy


@pytest.mark.parametrize(
    "given, options, non_blocking",
    [
        (("cuda",), {}, True),
        (("cuda", torch.float32, False), {}, False),
        (("cuda",), {"non_blocking": False}, False),
        (("cpu",), {"non_blocking": True}, False),  # it could be read before it has arrived
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_copies_are_made_without_waiting_and_mixed_in_place(given, options, non_blocking, mixed, monkeypatch):
    """On a GPU; what is sent to one is here copied in the memory of the host."""
    asked, there, to = set(), [], torch.Tensor.to

    def sent(tensor, *where, **how):
        if not where or not isinstance(where[0], torch.device):
            return to(tensor, *where, **how)
        asked.add(how["non_blocking"])
        if tensor.data_ptr() not in there:
            tensor = tensor.clone()
            there.append(tensor.data_ptr())
        return tensor

    batch = mc.MixupCollate(num_classes=10)((IMAGES[:16] / 255, LABELS[:16]))
    if mixed:
        batch.mix()
    monkeypatch.setattr(torch.Tensor, "to", sent)
    images, _ = batch.to(*given, **options)
    assert asked == {non_blocking} and images.data_ptr() == there[0]


def test_the_first_images_are_those_whose_units_are_checked():
    collate = mc.MixupCollate(num_classes=10, mean=0.5, std=0.5, image_key=("image", "depth"))
    right, wrong = torch.rand(8, 3, 4, 4), torch.randn(8, 3, 4, 4) * 9
    with pytest.warns(UserWarning, match="mean and std are for images in"):
        collate([{"image": wrong[k], "depth": right[k], "label": k} for k in range(8)]).mix()
    collate([{"image": right[k], "depth": wrong[k], "label": k} for k in range(8)]).mix()  # which has units of its own


@pytest.mark.parametrize("eager", [False, True])
def test_images_in_other_units_are_told_of_once(eager):
    """Each batch has another range, and so another text, which Python would show as a new warning."""
    samples = [(torch.full((1, 4, 4), 9.0 * k), k) for k in range(8)]
    collate = mc.MixupCollate(num_classes=8, mean=0.5, std=0.5, eager=eager)
    with pytest.warns(UserWarning, match=r"in \[0, 1\], but these range from 9.00 to 9.00") as told:
        for begin in range(1, 7):
            _, _ = collate(samples[begin:])
    assert len(told) == 1
    for options, level in (({"mean": 0.5}, -0.5), ({"std": 0.5}, 2.5)):
        with pytest.warns(UserWarning, match=f"range from {level:.2f} to {level:.2f}"):
            mc.MixupCollate(num_classes=8, **options)([(torch.full((1, 4, 4), level), 0)] * 2).mix()


def test_the_process_that_mixes_tells_of_images_in_other_units():
    """Each worker is new in each epoch, and would tell of it again."""
    collate = mc.MixupCollate(num_classes=8, mean=0.5, std=0.5)
    samples = [(torch.full((1, 4, 4), 9.0), k) for k in range(8)]
    with pytest.warns(UserWarning, match="these range from 9.00 to 9.00") as told:
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # in the workers, which inherit it
                batches = list(DataLoader(samples, batch_size=4, num_workers=2, collate_fn=collate))
            for batch in batches:
                batch.mix()
    assert len(told) == 1


@pytest.mark.parametrize("images", [torch.rand(0, 3, 8, 8), torch.rand(4, 3, 8, 8, device="meta")], ids=["no", "meta"])
def test_units_are_not_asked_of_images_without_values(images):
    mc.MixupCollate(mc.MixUp(labels_getter=None), mean=0.5, std=0.5)((images,))


def test_an_ignored_mask_fits_int32():
    mc.MixupCollate(mask_ignore_index=-(2**31))
    with pytest.raises(ValueError, match="mask_ignore_index must be"):
        mc.MixupCollate(mask_ignore_index=-(2**31) - 1)


def test_the_default_of_ignored_pixels_is_no_class():
    """Of 256 classes and more, 255 is one, whose pixels would silently belong to none."""
    with pytest.raises(ValueError, match="mask_ignore_index must be given for mask_classes=256, .* got 255; pass -1"):
        mc.MixupCollate(mask_keys=2, mask_classes=256)
    mc.MixupCollate(mask_keys=2, mask_classes=255)
    collate = mc.MixupCollate(mc.CutMix(), num_classes=10, mask_keys=2, mask_classes=256, mask_ignore_index=-1)
    _, _, masks = collate.mix((IMAGES, LABELS, torch.full((len(IMAGES), *IMAGES.shape[2:]), 255)))
    assert (masks.argmax(1) == 255).all()


def test_what_a_batch_lacks_is_reported_with_a_way_out():
    batch = mc.MixupCollate(num_classes=10)((IMAGES[:16], LABELS[:16]))
    with pytest.raises(AttributeError, match=r"MixBatch has no attribute .pop.; unpack it, or use batch.mix\(\)"):
        batch.pop("labels")
    with pytest.raises(AttributeError, match=r"no attribute .cuda.; .* or batch.to\(device\), which .*eager=True\)"):
        batch.cuda()
    with pytest.raises(TypeError, match=r"MixBatch takes no items, got one at 0; .* or batch.to\(device\), which"):
        batch[0] = batch[0].to("cpu")  # as loops do that move a batch item by item
    assert not hasattr(batch, "shape") and isinstance(copy.copy(batch), mc.MixBatch)


def test_a_data_set_that_is_pinned_already_is_never_written(monkeypatch):
    """torch returns the tensor itself then."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, device=None: tensor)
    images = IMAGES[:16].clone()
    batch = mc.MixupCollate(num_classes=10)((images, LABELS[:16])).pin_memory()
    mixed, _ = batch
    assert torch.equal(images, IMAGES[:16]) and not torch.equal(mixed, images)
    assert batch.pin_memory() is batch and batch[0] is mixed


def test_torchvisions_types_stay_in_pinned_memory(monkeypatch):
    """A tensor's own ``pin_memory`` gives a plain one."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.as_subclass(torch.Tensor).clone())
    batch = mc.MixupCollate(num_classes=10)((tv_tensors.Image(IMAGES[:4]), LABELS[:4])).pin_memory()
    assert type(batch.images) is tv_tensors.Image


def test_of_several_images_one_that_is_pinned_already_is_not_written_either(monkeypatch):
    pinned = IMAGES[:16].clone()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor if tensor is pinned else tensor.clone())
    collate = mc.MixupCollate(num_classes=10, image_key=(0, 2))
    batch = collate((IMAGES[:16], LABELS[:16], pinned)).pin_memory()
    mixed = batch.mix()
    assert torch.equal(pinned, IMAGES[:16]) and torch.equal(mixed[2], mixed[0]) and not torch.equal(mixed[0], pinned)
    assert [part.dtype for part in batch.to(torch.float16)] == [torch.float16, torch.float32, torch.float16]


@pytest.mark.parametrize("way", ["unpacked", "sent", "mixed"])
def test_a_dtype_means_the_same_for_a_batch_that_is_mixed_already(way):
    collate = mc.MixupCollate(num_classes=10, seed=0)
    wanted = mc.MixupCollate(num_classes=10, seed=0)((IMAGES[:16], LABELS[:16])).to(torch.float64)[0]
    batch = collate((IMAGES[:16], LABELS[:16]))
    {"unpacked": lambda: [*batch], "sent": lambda: batch.to("cpu"), "mixed": lambda: batch.mix()}[way]()
    made = batch.to(torch.float64)[0]
    assert made.max() <= 1 and batch[0] is made
    torch.testing.assert_close(made, wanted, rtol=0, atol=0.5 / 255 + 1e-6)  # the bytes were rounded
    with pytest.raises(TypeError, match="dtype must be"):
        batch.to(torch.int64)
    floats = mc.MixupCollate(num_classes=10)((IMAGES[:16] / 255, LABELS[:16]))
    floats.mix()
    with pytest.raises(TypeError, match="dtype must be"):
        floats.to(torch.uint8)


def test_normalises_in_the_same_pass():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    collate = mc.MixupCollate(num_classes=10, mean=mean, std=std, seed=0)
    plain = mc.MixupCollate(num_classes=10, dtype=torch.float64, seed=0)
    for (images, _), (raw, _) in zip(loader(collate), loader(plain), strict=True):
        assert images.dtype == torch.float32
        wanted = (raw - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(images, wanted.float(), rtol=0, atol=1e-5)  # float32 scale and bias
    half = mc.MixupCollate(num_classes=10, mean=0.5, std=0.2, dtype=torch.bfloat16, memory_format=torch.channels_last)
    images, _ = next(iter(loader(half)))
    assert images.dtype == torch.bfloat16 and images.is_contiguous(memory_format=torch.channels_last)


def test_turned_off_it_still_normalises_and_keeps_the_targets_type():
    collate = mc.MixupCollate(num_classes=10, mean=0.5, std=0.25)
    collate.enabled = False
    images, targets = next(iter(loader(collate)))
    torch.testing.assert_close(images, (IMAGES[:16] / 255 - 0.5) / 0.25, rtol=0, atol=1e-5)
    assert targets.dtype == torch.float32 and torch.equal(targets, torch.eye(10)[LABELS[:16]])


def test_statistics_are_read_once():
    """Those on a GPU could not be read by forked workers, and each time would make the host wait."""
    mean, std = torch.full((3,), 0.25), torch.full((3,), 0.5)
    collate = mc.MixupCollate(num_classes=10, mean=mean, std=std)
    mean.fill_(9), std.fill_(9)
    assert (collate.output["mean"], collate.output["std"]) == ([0.25] * 3, [0.5] * 3)


def test_fill_mean_is_the_mean_after_normalising():
    collate = mc.MixupCollate(mc.Cutout(fill="mean", length=6, inside=True), mean=0.3, std=0.2, num_classes=10)
    images, targets = next(iter(loader(collate)))
    assert ((images == 0).sum((1, 2, 3)) >= 3 * 36).all() and targets.shape == (16, 10)
    untouched = mc.MixupCollate(mc.Cutout(), mean=0.3, std=0.2)
    assert next(iter(loader(untouched)))[1].dtype == torch.int64


@pytest.mark.parametrize("container", [mc.Compose, mc.RandomChoice])
def test_labels_of_erased_images_become_rows_of_as_many_classes_as_either_says(container):
    """So that targets keep their type where a container is left without a method that mixes."""
    for collate in (
        mc.MixupCollate(container([mc.Cutout()]), num_classes=10),
        mc.MixupCollate(container([mc.Cutout()], num_classes=10)),
    ):
        assert torch.equal(collate.mix((IMAGES, LABELS))[1], torch.eye(10)[LABELS])
    assert mc.MixupCollate(container([mc.Cutout()])).mix((IMAGES, LABELS))[1] is LABELS


@pytest.mark.parametrize("kind", ["tensor", "numpy", "float", "dict", "three", "images only", "pil"])
def test_all_kinds_of_samples(kind):
    rows = [(IMAGES[k], int(LABELS[k])) for k in range(6)]
    collate_fn = default_collate
    if kind == "numpy":
        rows = [(image.numpy(), np.int64(label)) for image, label in rows]
    elif kind == "float":
        rows = [(image / 255, label) for image, label in rows]
    elif kind == "dict":
        rows = [{"pixel_values": image, "labels": label, "id": str(label)} for image, label in rows]
    elif kind == "three":
        rows = [(image, label, k) for k, (image, label) in enumerate(rows)]
    elif kind == "images only":
        rows = [image for image, _ in rows]
    elif kind == "pil":
        rows = [(PIL.Image.fromarray(image.permute(1, 2, 0).numpy()), label) for image, label in rows]

        def collate_fn(samples):
            return default_collate([(pil_to_tensor(image), label) for image, label in samples])

    classes = None if kind == "images only" else 10
    keep = 2 if kind == "three" else ()
    collate = mc.MixupCollate(num_classes=classes, collate_fn=collate_fn, keep_keys=keep, seed=0)
    (batch,) = list(loader(collate, Samples(rows)))
    mixed = batch.to("cpu")
    if kind == "images only":
        assert isinstance(mixed, torch.Tensor) and mixed.shape == (6, 3, 12, 20)
        return
    images, targets = (mixed["pixel_values"], mixed["labels"]) if kind == "dict" else mixed[:2]
    assert images.shape == (6, 3, 12, 20) and targets.shape == (6, 10)
    if kind == "dict":
        assert mixed["id"] == ["0", "1", "2", "3", "4", "5"] and batch["labels"] is targets
    if kind == "three":
        assert mixed[2].tolist() == list(range(6)) and isinstance(mixed, tuple)


@pytest.mark.parametrize("kept", [torch.eye(2).to_sparse(), torch.empty(2, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_memory_of_the_host_are_stacked_where_they_are(kept):
    collate = mc.MixupCollate(num_classes=10, keep_keys=2)
    _, _, stacked = collate([(IMAGES[k], k, kept) for k in range(4)]).mix()
    assert (stacked.shape, stacked.layout, stacked.device) == ((4, *kept.shape), kept.layout, kept.device)


def test_keys_masks_and_several_images():
    index = torch.arange(4).view(4, 1, 1).expand(4, 8, 9).contiguous()
    colours = torch.eye(4)[:, :, None, None].expand(4, 4, 8, 9).contiguous()
    rows = [{"rgb": colours[k], "depth": colours[k] * 2, "mask": index[k], "y": k} for k in range(4)]
    keys = {"image_key": ("rgb", "depth"), "label_key": "y", "mask_keys": "mask"}
    collate = mc.MixupCollate(mc.CutMix(), num_classes=4, **keys)
    mixed = collate(rows).mix()
    assert torch.equal(mixed["depth"], 2 * mixed["rgb"]) and torch.equal(mixed["mask"], mixed["rgb"].argmax(1))
    torch.testing.assert_close(mixed["y"], mixed["rgb"].mean((2, 3)))
    with pytest.raises(ValueError, match=r"'mask' looks like masks.* name it in mask_keys, image_key"):
        mc.MixupCollate(mc.CutMix(), num_classes=4, image_key=("rgb", "depth"), label_key="y")(rows)
    with pytest.raises(
        ValueError, match=r"label_key must name tensors among \['rgb', 'depth', 'mask', 'y'\], got 'label'"
    ):
        mc.MixupCollate(mc.CutMix(), num_classes=4, **{**keys, "label_key": "label"})(rows)
    with pytest.raises(ValueError, match="more than one tensor looks like images: 'rgb' .* name them in image_key"):
        mc.MixupCollate(mc.CutMix(), num_classes=4)(rows)


def test_ragged_images_and_boxes_are_refused():
    with pytest.raises(
        ValueError, match="images must have one size to make a batch, got .* resize, crop or pad them in the dataset"
    ):
        mc.MixupCollate(num_classes=10)([(torch.rand(3, 4, 5), 0), (torch.rand(3, 5, 4), 1)])
    boxes = [tv_tensors.BoundingBoxes(torch.zeros(k, 4), format="XYXY", canvas_size=(4, 5)) for k in (1, 2)]
    for beside in (boxes[:1] * 2, boxes):
        samples = [(torch.rand(3, 4, 5), 0, one) for one in beside]
        with pytest.raises(ValueError, match="a batch with BoundingBoxes cannot be mixed"):
            mc.MixupCollate(num_classes=10)(samples)
    assert torch.equal(
        mc.MixupCollate(mc.Cutout(length=2))([(torch.rand(3, 4, 5), 0, boxes[0])] * 2)[2], torch.zeros(2, 1, 4)
    )


def test_what_a_collate_and_its_transform_disagree_on_is_refused():
    with pytest.raises(ValueError, match="seed must be given to MixupCollate or to its transform, not to both"):
        mc.MixupCollate(mc.MixUp(seed=1), seed=2)
    for getter in (None, lambda batch: batch[1]):
        with pytest.raises(ValueError, match="not by both; got .'y',. and labels_getter=(None|<function)"):
            mc.MixupCollate(mc.MixUp(labels_getter=getter), label_key="y")
    with pytest.raises(ValueError, match="num_classes must be the transform's 5, got 6"):
        mc.MixupCollate(mc.MixUp(num_classes=5), num_classes=6)
    with pytest.raises(
        TypeError, match=r"transform must be one of mixcollate's, got <class .*MixUp'>; write MixUp\(\)"
    ):
        mc.MixupCollate(mc.MixUp)
    for kind in (list, tuple):
        with pytest.raises(
            TypeError, match=f"mixcollate's, got <class '{kind.__name__}'>; put several into RandomChoice"
        ):
            mc.MixupCollate(kind([mc.MixUp(), mc.CutMix()]))
    with pytest.raises(TypeError, match=r"got <class 'list'>; collate_fn must be what MixupCollate\(...\) makes, not"):
        next(iter(DataLoader(TensorDataset(torch.rand(4, 3, 8, 9)), collate_fn=mc.MixupCollate)))
    with pytest.raises(TypeError, match="transform must be one of mixcollate's, got <class 'int'>$"):
        mc.MixupCollate(10)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:.*quantize")
def test_samples_that_cannot_be_stacked_are_reported_with_their_place():
    image = torch.rand(3, 4, 4)
    flipped, foreign = np.zeros((3, 4, 4), np.float32)[..., ::-1], np.zeros((3, 4, 4), ">f4")
    for samples, message in (
        ([(image, 0, None)] * 2, "got NoneType at index 2"),
        ([{"image": image, "label": None}] * 2, "got NoneType at 'label'"),
        ([{"image": image, "file": Path("a.jpg")}] * 2, f"got {type(Path()).__name__} at 'file'"),
        ([(image, np.array(["a", "b"]))] * 2, "got an array of <U1 at index 1"),
        ([(torch.quantize_per_tensor(image, 0.1, 0, torch.quint8), 0)] * 2, r"quantized; pass .dequantize\(\)"),
        ([(torch.nested.nested_tensor([image]), 0)] * 2, "got a nested tensor at index 0; pad it with"),
        ([(torch.nested.nested_tensor([image], layout=torch.jagged), 0)] * 2, "got a nested tensor at index 0"),
        ([(flipped, 0)] * 2, r"got strides \(64, 16, -4\) of <f4 at index 0; use np.ascontiguousarray"),
        ([(foreign, 0)] * 2, "of >f4 at index 0; use np.ascontiguousarray"),
        ([(image, 0), (image, 0, 1)], "the same structure to be stacked, got 2 items in one and 3 in another"),
        ([(image, 0, 1), (image, 0)], "the same structure to be stacked, got 3 items in one and 2 in another"),
        ([(image, [1, 2]), (image, [1, 2, 3])], r"must have one size .* the shapes \(2,\) and \(3,\) at index 1"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            mc.MixupCollate()(samples)


def test_copies_have_a_stream_of_their_own_and_orphans_say_so():
    collate = mc.MixupCollate(num_classes=10, seed=0)
    twin = copy.deepcopy(collate)
    list(batch.mix() for batch in loader(twin, num_workers=1))
    assert (collate.stream.step, twin.stream.step) == (0, 4)
    batch = pickle.loads(pickle.dumps(twin([(IMAGES[0], 1), (IMAGES[1], 2)])))
    assert batch.mix()[1].shape == (2, 10)
    sent = pickle.dumps(twin([(IMAGES[0], 1), (IMAGES[1], 2)]))
    del twin, batch
    gc.collect()
    orphan = pickle.loads(sent)
    with pytest.raises(RuntimeError, match="the MixupCollate that made this batch is gone from this process"):
        orphan.mix()


@pytest.mark.parametrize("eager", [False, True])
def test_a_shallow_copy_has_a_switch_and_an_epoch_of_its_own(eager):
    collate = mc.MixupCollate(num_classes=10, seed=0, eager=eager)
    twin = copy.copy(collate)
    twin.enabled = False
    twin.set_epoch(3)
    twin.mix((IMAGES, torch.zeros(len(IMAGES), dtype=torch.long)))
    assert collate.enabled and collate.epoch == 0 and (collate.stream.step, twin.stream.step) == (0, 1)


def test_a_pickled_copy_mixes_its_own_batches():
    collate = mc.MixupCollate(num_classes=10)
    for twin in (pickle.loads(pickle.dumps(collate)), copy.deepcopy(collate)):
        twin.enabled = False
        assert all(torch.equal(images, IMAGES[:16]) for images, _ in [next(iter(loader(twin, num_workers=1)))])
    assert collate.stream.step == 0
    eager = copy.deepcopy(mc.MixupCollate(num_classes=10, eager=True))
    assert eager._shared.is_shared()


def in_another_process(rank, collate, unpicklable, wanted):
    for workers in (0, 1):
        images, targets = all_of(loader(copy.deepcopy(collate), num_workers=workers))
        assert torch.equal(images, wanted[0]) and torch.equal(targets, wanted[1])
        with pytest.raises(Exception, match="was sent to a worker without its transform, which cannot be pickled"):
            all_of(loader(unpicklable, num_workers=workers))


@pytest.mark.slow  # a launcher's processes, which are not forked
def test_a_process_of_a_launcher_mixes():
    """torch.multiprocessing.spawn pickles as a loader's workers are pickled, but such a process does all the work."""
    wanted = all_of(loader(mc.MixupCollate(num_classes=10, seed=3)))
    unpicklable = mc.MixupCollate(mc.MixUp(p=lambda epoch: 1.0), num_classes=10)
    collate = mc.MixupCollate(num_classes=10, seed=3)
    torch.multiprocessing.spawn(in_another_process, (collate, unpicklable, wanted))


def always():
    return lambda epoch: 1.0


NAMELESS = lambda epoch: 1.0  # noqa: E731


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, epoch):
        return 1.0


@pytest.mark.parametrize("schedule", [always(), NAMELESS, Locked()], ids=["local", "nameless", "with a lock"])
@pytest.mark.parametrize("eager", [False, True])
def test_only_a_worker_that_mixes_needs_the_transform(eager, schedule):
    """What is pickled for a process that is about to start; here none is. A copy has it in any case."""
    collate = mc.MixupCollate(mc.MixUp(p=schedule), num_classes=10, eager=eager)
    set_spawning_popen(object())
    try:
        sent = collate.__getstate__()
    finally:
        set_spawning_popen(None)
    assert sent["transform"] is (collate.transform if eager else None)
    assert copy.copy(collate).transform is collate.transform


def test_a_batch_of_a_loader_that_is_gone():
    images, targets = next(iter(loader(mc.MixupCollate(num_classes=10), num_workers=1)))
    assert images.shape == (16, 3, 12, 20) and targets.shape == (16, 10)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("kind", ["tuple", "dict", "numpy", "tensor"])
def test_batches_that_are_made_already(kind, eager, own):
    """As from a loader with batch_size=None; their memory is somebody else's."""
    images = IMAGES[:4].clone()
    made = {
        "tuple": (images, LABELS[:4]),
        "dict": {"image": images, "label": LABELS[:4]},
        "numpy": (images.numpy(), LABELS[:4].numpy()),
        "tensor": images,
    }[kind]
    options = {"collate_fn": lambda batch: torch.utils.data.default_convert(batch)} if own else {}
    classes = None if kind == "tensor" else 10
    collate = mc.MixupCollate(num_classes=classes, seed=1, eager=eager, **options)
    (batch,) = DataLoader(Samples([made]), batch_size=None, collate_fn=collate)
    mixed = batch if eager else batch.mix()
    wanted = mc.MixupCollate(num_classes=10, seed=1)(list(zip(images, LABELS[:4], strict=True))).mix()
    assert torch.equal(mixed if kind == "tensor" else mixed["image"] if kind == "dict" else mixed[0], wanted[0])
    assert torch.equal(images, IMAGES[:4])


class Pair(NamedTuple):
    image: torch.Tensor
    label: int
    name: str = "a"


def test_containers_come_back_as_they_were():
    collate = mc.MixupCollate(num_classes=10)
    mixed = collate([Pair(IMAGES[k], k) for k in range(4)]).mix()
    assert isinstance(mixed, Pair) and mixed.label.shape == (4, 10) and mixed.name == ("a",) * 4
    user = mc.MixupCollate(num_classes=10, collate_fn=lambda rows: UserDict(default_collate(rows)))
    batch = user([{"image": IMAGES[k], "label": k} for k in range(4)])
    assert isinstance(batch.stacked, UserDict) and batch.mix()["label"].shape == (4, 10)
    assert [*batch.keys()] == ["image", "label"]


class Table(UserDict):
    """A mapping as long as its tensors, over whose rows it iterates, as a TensorDict is."""

    device = None

    def keys(self):
        return self.data.keys()

    def items(self):
        return self.data.items()

    def __len__(self):
        return len(self.data["label"])  # without an axis that raises

    def __iter__(self):
        return (self.data["label"][row] for row in range(len(self)))

    def __setitem__(self, key, value):
        self.data[key] = value if self.device is None else value.to(self.device)

    def clear_device_(self):
        self.device = None


def test_a_mapping_may_iterate_over_its_rows(monkeypatch):
    def collate(tables, *, collate_fn_map):
        return Table(default_collate([table.data for table in tables]))

    monkeypatch.setitem(default_collate_fn_map, Table, collate)
    whole = Table({"image": IMAGES[:4], "label": LABELS[:4]})
    samples = [Table({"image": IMAGES[k], "label": LABELS[k]}) for k in range(4)]
    wanted = mc.MixupCollate(num_classes=10, seed=0)([sample.data for sample in samples]).mix()
    for given in (whole, samples):
        mixed = mc.MixupCollate(num_classes=10, seed=0)(given).mix()
        assert isinstance(mixed, Table)
        assert all(map(torch.equal, mixed.data.values(), wanted.values()))
    assert torch.equal(whole["label"], LABELS[:4])
    samples[3]["index"] = LABELS[3]
    with pytest.raises(ValueError, match=r"only some have \['index'\]"):
        mc.MixupCollate(num_classes=10)(samples)


def test_a_mapping_that_keeps_its_tensors_on_a_device_is_moved_all_the_same():
    table = Table({"image": IMAGES[:4], "label": LABELS[:4]})
    table.device = "cpu"
    moved = mc.MixupCollate(num_classes=10)(table).to("meta")
    assert {tensor.device.type for tensor in moved.data.values()} == {"meta"}
    assert table.device == "cpu" and table["image"].device.type == "cpu"


@dataclass
class Extra:
    weights: torch.Tensor


def test_a_dataclass_whose_tensors_would_stay_behind_is_refused():
    """Before anything is mixed, as by a loader of the same batches, which says the same."""
    given = {"image": IMAGES[:4], "label": LABELS[:4], "extra": Extra(torch.ones(4))}
    batch = mc.MixupCollate(num_classes=10)(given)
    loaders = [mc.DeviceLoader([one], "cpu") for one in (given, batch)]
    for move in (lambda: batch.to("cpu"), *[functools.partial(list, one) for one in loaders]):
        with pytest.raises(TypeError, match=r"got a Extra with tensors, which has no to\(device\)"):
            move()
    assert batch.mix()["extra"] is given["extra"]


class Indexed(NamedTuple):
    index: int
    picture: torch.Tensor
    mask: torch.Tensor
    label: int


def test_named_tuples_are_read_by_the_names_of_their_fields():
    """Their second item, which would be the labels of another tuple, may be anything."""
    samples = [Indexed(k, IMAGES[k], IMAGES[k, 0].float(), 9 - k) for k in range(4)]
    options = {"num_classes": 10, "mask_keys": "mask", "keep_keys": "index", "seed": 0}
    mixed = mc.MixupCollate(**options)(samples).mix()
    wanted = mc.MixupCollate(**options)([sample._asdict() for sample in samples]).mix()
    assert isinstance(mixed, Indexed)
    assert all(map(torch.equal, mixed, wanted.values()))
    keys = mc.MixupCollate(**{**options, "label_key": 3, "image_key": "picture", "keep_keys": 0})
    assert all(map(torch.equal, keys(samples).mix(), mixed))
    with pytest.raises(ValueError, match=r"among \['index', 'picture', 'mask', 'label'\], got 'image'"):
        mc.MixupCollate(num_classes=10, image_key="image")(samples)


class Fields(NamedTuple):
    images: torch.Tensor
    labels: int


def test_fields_that_are_to_be_mixed_are_not_mistaken_for_the_raw_ones():
    batch = mc.MixupCollate(num_classes=10)([Fields(IMAGES[k], k) for k in range(4)])
    for name in ("images", "labels"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'; unpack it, or use batch.mix"):
            getattr(batch, name)
    assert batch.stacked.labels.tolist() == [0, 1, 2, 3]
    mixed = batch.mix()
    assert mixed.labels.shape == (4, 10)
    with pytest.raises(AttributeError, match="no attribute 'images'"):
        _ = batch.images


class Attributes(dict):
    """Its keys are attributes too; what is missing raises a KeyError, against the protocol."""

    __getattr__ = dict.__getitem__

    def __copy__(self):  # Python 3.10 looks for a method in vain, as if it were a key
        return Attributes(self)


def test_keys_that_are_attributes_are_told_from_those_that_are_not():
    collate = mc.MixupCollate(num_classes=10)
    batch = collate([Attributes(image=IMAGES[k], labels=k) for k in range(4)])
    with pytest.raises(AttributeError, match="no attribute 'labels'"):
        _ = batch.labels
    assert torch.equal(batch.images, IMAGES[:4]) and batch.stacked["labels"].tolist() == [0, 1, 2, 3]
    assert type(batch.mix()) is Attributes and batch["labels"].shape == (4, 10)
    assert collate([dict(image=IMAGES[k], labels=k) for k in range(4)]).labels.tolist() == [0, 1, 2, 3]


def test_fields_of_nested_named_tuples_have_names_too():
    """An item beside them must not become the labels."""
    samples = [(Indexed(k, IMAGES[k], IMAGES[k, 0].float(), 9 - k), "name") for k in range(4)]
    mixed, _ = mc.MixupCollate(num_classes=10, mask_keys="0.mask", keep_keys="0.index", seed=0)(samples).mix()
    wanted = mc.MixupCollate(num_classes=10, mask_keys="mask", keep_keys="index", seed=0)([one for one, _ in samples])
    assert all(map(torch.equal, mixed, wanted))
    named = [{"two": one, "domain": 0} for one, _ in samples]
    options = {"image_key": "two.picture", "label_key": "two.label", "keep_keys": ("two.mask", "two.index", "domain")}
    assert torch.equal(mc.MixupCollate(num_classes=10, **options, seed=0)(named)["two"].label, wanted[3])


def test_boxes_in_a_named_tuple_are_kept_by_their_name():
    boxes = tv_tensors.BoundingBoxes([[0, 0, 2, 2]], format="XYXY", canvas_size=(12, 20))
    samples = [Indexed(k, IMAGES[k], boxes, k) for k in range(4)]
    mixed = mc.MixupCollate(num_classes=4, image_key="picture", keep_keys=("index", "mask"))(samples).mix()
    assert torch.equal(mixed.mask, boxes.expand(4, 1, 4))


@pytest.mark.parametrize(
    "sample, error, message",
    [
        (
            {"img": IMAGES[0], "fine_label": 1},
            ValueError,
            r"no labels found among \['img', 'fine_label'\]: .*label_key=",
        ),
        (
            {"img": IMAGES[0], "local": IMAGES[0, :, :8, :8], "label": 1},
            ValueError,
            "'local' looks like masks, further",
        ),
        ((IMAGES[0], 1, {"depth": IMAGES[0, 0]}), ValueError, r"'2.depth' looks like masks.* got \(2, 12, 20\) beside"),
        (((IMAGES[0], IMAGES[0]), 1), ValueError, "more than one tensor looks like images: '0.0' .* '0.1'"),
        ((IMAGES[0], "cat"), TypeError, "must have a tensor at index 1, got (list|tuple)"),
    ],
)
@pytest.mark.parametrize("eager", [False, True])
def test_what_could_only_be_half_mixed_is_refused_in_the_worker(sample, error, message, eager):
    with pytest.raises(error, match=message):
        mc.MixupCollate(num_classes=10, eager=eager)([sample] * 2)


def test_labels_need_not_be_there_if_nobody_asks_for_them():
    mc.MixupCollate(mc.MixUp(), keep_keys="index")([{"image": IMAGES[0], "index": 1}] * 2).mix()
    mc.MixupCollate(mc.Cutout())([{"image": IMAGES[0], "fine_label": 1}] * 2).mix()
    with pytest.raises(ValueError, match=r"no labels found among .* MixupCollate\(label_key=...\)"):
        mc.MixupCollate(mc.MixUp())([{"image": IMAGES[0], "fine_label": 1}] * 2)


def test_errors_of_others_stay_what_they_are():
    def broken(samples):
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="^disk on fire$"):
        mc.MixupCollate(num_classes=10, collate_fn=broken)([(IMAGES[0], 1)])
    with pytest.raises(ValueError, match="samples must not be empty"):
        mc.MixupCollate(num_classes=10)([])


def test_a_batch_that_is_refused_is_not_mixed():
    batch = mc.MixupCollate(mc.CutMix(), num_classes=2, seed=1)([(IMAGES[0], 1), (IMAGES[1], 2)])
    with pytest.raises(ValueError, match="labels must be in 0 … 1"):
        batch.mix()
    assert torch.equal(batch.images, IMAGES[:2])


@pytest.mark.parametrize("transform", [mc.MixUp, mc.RICAP])
def test_turned_off_sparse_targets_keep_their_width(transform):
    collate = mc.MixupCollate(transform(targets="sparse"))
    collate.enabled = False
    images, targets = collate([(IMAGES[k], k) for k in range(4)])
    assert torch.equal(images, IMAGES[:4])
    assert targets.labels.shape == targets.shares.shape == (4, 4 if transform is mc.RICAP else 2)
    assert targets.shares[:, 0].tolist() == [1] * 4 and targets.labels[:, 0].tolist() == [0, 1, 2, 3]
    plan = collate.transform.make_plan(IMAGES)
    assert pack(collate._unmixed(plan), "cpu").layout == pack(plan, "cpu").layout  # and the kernel that is compiled


def test_a_batch_of_exactly_three_is_no_target_triple():
    images, targets = mc.MixupCollate(num_classes=10)([(IMAGES[k], k) for k in range(3)])
    assert images.shape == (3, 3, 12, 20) and targets.shape == (3, 10)


def test_targets_have_one_type_on_every_batch():
    collate = mc.MixupCollate(mc.CutMix(p=0.5, per="batch"), num_classes=10)
    kinds = {(targets.dtype, targets.ndim) for _ in range(5) for _, targets in loader(collate)}
    assert kinds == {(torch.float32, 2)}


# Threads, ranks and eager streams


def test_threads_mix_a_batch_once_and_draw_every_plan_once():
    from concurrent.futures import ThreadPoolExecutor

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        collate = mc.MixupCollate(num_classes=10, seed=0)
        rows = [(IMAGES[k], k % 10) for k in range(16)]
        batches = [collate(rows) for _ in range(50)]
        with ThreadPoolExecutor(4) as threads:
            mixed = list(threads.map(lambda k: tuple(batches[k % 50]), range(200)))
        for k in range(50):
            assert all(mixed[k][0] is mixed[k + 50 * turn][0] for turn in range(4))
        assert collate.stream.step == 50
        shares = {targets.numpy().tobytes() for _, targets in mixed[:50]}
        wanted = mc.MixupCollate(num_classes=10, seed=0)
        assert shares == {wanted(rows).mix()[1].numpy().tobytes() for _ in range(50)}
    finally:
        sys.setswitchinterval(interval)


def eager_epochs(collate, epochs, workers=2):
    drawn = []
    batches = loader(collate, num_workers=workers, persistent_workers=False)
    for epoch in epochs:
        collate.set_epoch(epoch)
        drawn.append(all_of(batches))
    return drawn


def test_eager_streams_resume_at_the_beginning_of_an_epoch():
    collate = mc.MixupCollate(num_classes=10, eager=True, seed=3)
    whole = eager_epochs(collate, [0, 1])
    state = pickle.loads(pickle.dumps(collate.state_dict()))
    assert state == {"seed": 3, "step": 0, "epoch": 1}
    whole += eager_epochs(collate, [2])
    resumed = mc.MixupCollate(num_classes=10, eager=True, seed=3)
    resumed.load_state_dict(state)
    assert resumed.epoch == 1
    (again,) = eager_epochs(resumed, [2])
    assert all(torch.equal(a, b) for a, b in zip(whole[2], again, strict=True))
    assert len({targets.numpy().tobytes() for _, targets in whole}) == 3


def test_the_epoch_is_set_by_set_epoch_and_has_a_limit():
    collate = mc.MixupCollate(num_classes=10, eager=True, seed=3)
    with pytest.raises(AttributeError, match=r"^epoch must be set with set_epoch\(epoch\), got 2$"):
        collate.epoch = 2
    most = 2**44 - 2
    for epoch in (most + 1, 2**63):
        with pytest.raises(ValueError, match=f"^epoch must be a whole number from 0 to {most}, got {epoch}$"):
            collate.set_epoch(epoch)
    assert collate.epoch == 0
    eager_epochs(collate, [most])


def test_eager_streams_that_cannot_resume_say_so():
    collate = mc.MixupCollate(num_classes=10, eager=True, seed=3)
    assert collate.state_dict() == {"seed": 3, "step": 0, "epoch": None}
    collate.load_state_dict(collate.state_dict())  # of a run that has not begun: it does not make the epoch known
    list(loader(collate, num_workers=1))
    with pytest.raises(RuntimeError, match=r"cannot be resumed unless they know the epoch: call set_epoch"):
        collate.state_dict()
    collate.set_epoch(1)  # as the message says
    assert collate.state_dict() == {"seed": 3, "step": 0, "epoch": 1}


NO_STATES = [{}, {"seed": 3}, {"step": 1}, None, *({"seed": 3, "step": step} for step in (-1, 2.5, 2**63 + 1))]


@pytest.mark.parametrize("state", NO_STATES)
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises((TypeError, ValueError), match="state"):
        mc.MixupCollate(num_classes=10, seed=3).load_state_dict(state)


def rank_of_a_worker(rank, results):
    os.environ.pop("RANK", None)
    torch.distributed.init_process_group("gloo", init_method=f"file://{results}/rendezvous", rank=rank, world_size=2)
    collate = mc.MixupCollate(num_classes=10, eager=True, seed=3)
    collate.set_epoch(0)
    batches = loader(collate, num_workers=1, multiprocessing_context="spawn")
    torch.save(all_of(batches)[1], f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # four processes that are not forked, each of which imports torch
def test_spawned_workers_of_ranks_draw_different_plans(tmp_path):
    torch.multiprocessing.spawn(rank_of_a_worker, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert not torch.equal(first, second)


def test_workers_that_know_the_epoch_have_streams_of_their_own(monkeypatch):
    """Of an eager collate: one for each epoch and worker, and none of them the main process's."""
    collate, streams = mc.MixupCollate(num_classes=10, seed=3, eager=True), {}
    for epoch in range(3):
        collate.set_epoch(epoch)
        for worker in range(4):
            asked = SimpleNamespace(id=worker, seed=0)
            monkeypatch.setattr(mc.collate, "get_worker_info", lambda asked=asked: asked)
            stream = collate._stream()
            assert stream is collate._stream()  # and goes on where it was
            streams[epoch, worker] = stream.part
    unseeded = mc.MixupCollate(num_classes=10, eager=True)
    assert unseeded._stream() is unseeded.stream and unseeded.state_dict()["seed"] is None
    monkeypatch.setattr(mc.collate, "get_worker_info", lambda: None)
    assert collate._stream() is collate.stream
    assert streams == {(epoch, worker): (epoch + 1) * 2**20 + worker for epoch, worker in streams}


class Echo(torch.utils.data.IterableDataset):
    """Batches that its worker sends twice, as they are or as a copy."""

    def __init__(self, collate, again):
        self.collate, self.again = collate, again

    def __iter__(self):
        for k in range(0, 24, 8):
            batch = self.collate([(torch.full((3, 8, 8), 10.0 * i), i) for i in range(k, k + 8)])
            yield batch
            yield self.again(batch)


@pytest.mark.parametrize("again", [lambda batch: batch, copy.copy])
def test_a_batch_that_is_sent_twice_is_mixed_from_the_same_images(again):
    collate = mc.MixupCollate(num_classes=24, seed=0)
    batches = [tuple(batch) for batch in DataLoader(Echo(collate, again), batch_size=None, num_workers=1)]
    assert len(batches) == 6
    for images, targets in batches:
        torch.testing.assert_close(targets @ torch.arange(0, 240, 10.0), images.mean((1, 2, 3)))


def test_evaluation_leaves_the_memory_of_a_finished_batch_alone():
    collate = mc.MixupCollate(mc.MixUp(num_classes=4, inplace=True), mean=0.5, std=0.5)
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    before = images.clone()
    normalised, _ = collate.plain().mix((images, labels))
    assert torch.equal(images, before) and not torch.equal(normalised, before)


def test_whichever_images_need_a_gradient_are_not_mixed_in_place():
    images, labels, depth = torch.rand(4, 3, 8, 8), torch.arange(4), torch.rand(4, 1, 8, 8, requires_grad=True)
    mixed = mc.MixupCollate(num_classes=4, image_key=(0, 2)).mix((images, labels, depth), inplace=True)
    mixed[2].sum().backward()
    assert depth.grad.abs().max() > 0


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("eager", [False, True])
def test_a_sample_that_needs_a_gradient_may_be_any_of_them(size, eager):
    samples = [(torch.rand(3, size, size), k) for k in range(6)]
    samples[3][0].requires_grad_()
    images, targets = mc.MixupCollate(num_classes=6, eager=eager, seed=0)(samples)
    images.sum().backward()
    assert samples[3][0].grad.abs().max() > 0 and targets.shape == (6, 6)


def test_one_tensor_a_sample_is_a_sample_where_images_are_named_by_place():
    samples = [torch.rand(3, 8, 8) for _ in range(5)]
    assert mc.MixupCollate(mc.Cutout(length=2), image_key=0)(samples).mix().shape == (5, 3, 8, 8)


@pytest.mark.parametrize(
    "use", [list, lambda batch: batch.mix(), lambda batch: batch.to("cpu"), lambda batch: [batch[0]]]
)
def test_a_compiled_step_may_take_a_batch_as_it_is(use):
    """Drawing breaks the graph there, as in a transform; also when the last epochs are plain."""
    torch.compiler.reset()
    collate = mc.MixupCollate(num_classes=4, seed=0)
    samples = [(torch.rand(3, 8, 8), k % 4) for k in range(6)]
    step = torch.compile(lambda batch: [2 * part for part in use(batch)], backend="eager")
    for enabled in (True, False):
        collate.enabled, collate.stream.step = enabled, 0
        got = step(collate(samples))
        collate.stream.step = 0
        wanted = collate(samples).mix()
        assert all(torch.equal(a, 2 * b) for a, b in zip(got, wanted, strict=False))
    eager = mc.MixupCollate(num_classes=4, seed=0, eager=True)
    collated = torch.compile(lambda samples: eager(samples), backend="eager")
    for eager.enabled in (True, False):
        assert [part.shape for part in collated(samples)] == [(6, 3, 8, 8), (6, 4)]
    stacked = tuple(default_collate(samples))
    collate.stream.step = 0
    mixed = torch.compile(lambda batch: collate.mix(batch), backend="eager")(stacked)
    collate.stream.step = 0
    assert all(map(torch.equal, mixed, collate.mix(stacked)))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_batch_whose_mixing_was_interrupted_is_not_mixed_again(monkeypatch, error):
    collate = mc.MixupCollate(num_classes=8, seed=0)
    batch = collate([(torch.full((3, 64, 64), float(k)), k) for k in range(8)])

    def interrupt(*arguments):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("mixcollate.kernels.host.erase", interrupt)
        with pytest.raises(error):
            batch.mix()
    asked = batch.mix, batch.pin_memory, batch.keys, lambda: batch.to("cpu"), lambda: batch.images
    for ask in (*asked, lambda: batch.stacked, lambda: [*batch], lambda: len(batch)):
        with pytest.raises(RuntimeError, match="mixing this batch was interrupted.*; use the next batch"):
            ask()


def test_a_batch_that_was_refused_can_be_mixed_in_another_way():
    batch = mc.MixupCollate(mc.Cutout(fill=(0.5, 0.5, 0.5)), image_key=0)([torch.rand(3, 8, 8) for _ in range(2)])
    with pytest.raises(TypeError, match="dtype"):
        batch.mix(dtype=torch.int32)
    assert batch.mix().shape == (2, 3, 8, 8)


def test_a_batch_in_memory_of_others_is_unharmed_by_any_error(monkeypatch):
    """Nothing is written there, so that it can be mixed after all, as where memory was short."""
    collate = mc.MixupCollate(num_classes=10)
    batch = collate((IMAGES[:16], LABELS[:16]))
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(mc.execution, "execute", lambda *args, **options: (_ for _ in ()).throw(MemoryError()))
        batch.mix()
    assert len(batch.mix()) == 2


def test_one_image_that_was_mixed_can_be_cast():
    one = tv_tensors.Image(torch.rand(3, 8, 8))
    batch = mc.MixupCollate(mc.Cutout(), collate_fn=lambda samples: one)([None])
    assert batch.mix().shape == (3, 8, 8)
    assert batch.to("cpu", torch.float16).shape == (3, 8, 8)


@pytest.mark.parametrize("eager", [False, True])
def test_a_batch_is_mixed_under_torch_func(eager):
    """As in a loss that is a function of the parameters, or of the images."""
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6)
    wanted, given = (mc.MixupCollate(num_classes=6, mean=0.5, seed=1, eager=eager) for _ in range(2))
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(wanted.mix((leaf, labels))[0].square().sum(), leaf)
    torch.testing.assert_close(torch.func.grad(lambda x: given.mix((x, labels))[0].square().sum())(images), gradient)
    mixed = torch.vmap(lambda x: given.mix((x, labels))[0])(images[None])
    torch.testing.assert_close(mixed[0], wanted.mix((images, labels))[0])
