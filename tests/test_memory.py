"""Memory is used again only when nobody can see it any more."""

import pickle

import torch
from torch.utils.data import DataLoader, TensorDataset

import mixcollate as mc
from mixcollate.memory import KEPT, Recycler


def test_memory_is_lent_again_when_its_last_view_is_gone():
    recycler = Recycler()
    first = recycler.empty((400, 1000), torch.float32)
    address, view = first.data_ptr(), first[1:]
    del first
    assert recycler.empty((400, 1000), torch.float32).data_ptr() != address  # the view still sees it
    del view
    again = recycler.empty((200, 1000, 2), torch.float32)
    assert again.data_ptr() == address and again.shape == (200, 1000, 2) and again.data_ptr() % 64 == 0


def test_what_is_kept_free_is_bounded_and_not_pickled():
    recycler = Recycler()
    held = [recycler.empty((2**20 + k,), torch.uint8) for k in range(10)]
    assert recycler._free == []
    del held
    assert len(recycler._free) == KEPT
    assert pickle.loads(pickle.dumps(recycler))._free == []


def test_small_tensors_do_not_push_out_the_images():
    recycler = Recycler()
    address = recycler.empty((2**20,), torch.uint8).data_ptr()
    for _ in range(10):
        recycler.empty((1000,), torch.uint8)
    assert recycler.empty((2**20,), torch.uint8).data_ptr() == address


def test_batches_that_are_kept_stay_as_they_are():
    images = torch.randint(0, 256, (40, 3, 300, 300), dtype=torch.uint8)
    for options in ({}, {"mean": 0.5, "std": 0.2}):
        loader = DataLoader(
            TensorDataset(images, torch.arange(40)), 4, collate_fn=mc.MixupCollate(num_classes=40, seed=0, **options)
        )
        copies, kept = [], []
        for mixed, _ in loader:
            kept.append(mixed)
            copies.append(mixed.clone())
        assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
        assert len({mixed.data_ptr() for mixed in kept}) == 10


def test_a_loop_uses_the_same_memory():
    images = torch.zeros(40, 3, 300, 300, dtype=torch.uint8)
    collate = mc.MixupCollate(num_classes=40, mean=0.5, std=0.2)
    loader = DataLoader(TensorDataset(images, torch.arange(40)), 4, collate_fn=collate)
    addresses = {batch[0].data_ptr() for batch in loader}
    assert len(addresses) <= 3
