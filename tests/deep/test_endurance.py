"""Memory, descriptors, shared segments, threads and caches do not grow: over 100,000 batches, or over 50 epochs with
each way of starting workers.

Deep because slow growth shows only after a long time.
"""

import functools
import gc
import os
import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import mixcollate as mc
from tests.deep import faults

BATCHES, EPOCHS = 100_000, 50
pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="memory and descriptors are read from Linux' /proc"),
]


def megabytes():
    gc.collect()
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def cached():
    """The number of entries in each cache of the package: memoised functions, and upper-case dictionaries."""
    modules = [module for name, module in sys.modules.items() if name.startswith("mixcollate")]
    values = [(f"{module.__name__}.{name}", value) for module in modules for name, value in vars(module).items()]
    entries = {
        name: value.cache_info().currsize for name, value in values if isinstance(value, functools._lru_cache_wrapper)
    }
    return entries | {name: len(value) for name, value in values if isinstance(value, dict) and name.isupper()}


@pytest.mark.parametrize("recipe", ["MixUp or CutMix, then RandomErasing", "FMix, RICAP or ResizeMix", "eager, timm's"])
def test_memory_is_flat_over_batches(recipe):
    """After a tenth of warm-up, it may take 8 MB more memory, but no descriptor, thread, segment or cache entry."""
    made = {
        "MixUp or CutMix, then RandomErasing": lambda: mc.MixupCollate(
            mc.Compose([mc.RandomChoice([mc.MixUp(), mc.CutMix()]), mc.RandomErasing(p=0.25)]),
            num_classes=10,
            mean=0.5,
            std=0.25,
        ),
        "FMix, RICAP or ResizeMix": lambda: mc.MixupCollate(
            mc.RandomChoice([mc.FMix(), mc.RICAP(), mc.ResizeMix()]), num_classes=10
        ),
        "eager, timm's": lambda: mc.MixupCollate.from_timm(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10),
    }[recipe]()
    images, labels = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16) % 10
    batches = DataLoader(TensorDataset(images, labels), 8, collate_fn=made)
    done, count, before = 0, BATCHES // 3, None
    while done < count:
        for batch in batches:
            mixed, targets = batch.mix() if isinstance(batch, mc.MixBatch) else batch
            done += 1
        made.set_epoch(done)
        if before is None and done >= count // 10:
            before = megabytes(), faults.traces(), cached()
    assert mixed.shape == (8, 3, 8, 8) and targets.shape == (8, 10)
    assert megabytes() - before[0] < 8
    assert faults.traces() == before[1]
    assert cached() == before[2]


@pytest.mark.parametrize("persistent", [False, True], ids=["anew", "persistent"])
@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_nothing_grows_over_epochs(context, persistent):
    """With workers of each kind, persistent or started for each epoch, after ten epochs of warm-up."""
    if context == "forkserver":
        torch.multiprocessing.set_forkserver_preload(["torch", "mixcollate"])  # else each worker imports torch anew
    collate = mc.MixupCollate(num_classes=10, seed=0)
    batches = DataLoader(
        faults.Images(), faults.BATCH, collate_fn=collate, num_workers=1 + persistent,
        persistent_workers=persistent, multiprocessing_context=context,
    )  # fmt: skip
    before = None
    for number in range(EPOCHS):
        collate.set_epoch(number)
        faults.epoch(batches)
        if number == 9:
            before = megabytes(), faults.traces(), cached()
    assert collate.state_dict()["step"] == EPOCHS * faults.COUNT
    assert megabytes() - before[0] < 8
    assert faults.traces() == before[1]
    assert cached() == before[2]
