"""Memory is used again only when nobody can see it any more."""

import copy
import os
import pickle
import queue
import sys
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

import mixcollate as mc
from mixcollate import execution
from mixcollate.kernels import host, mix, mix_masks
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
    assert not recycler._free
    del held
    assert len(recycler._free) == KEPT
    for copied in (pickle.loads(pickle.dumps(recycler)), copy.copy(recycler)):
        assert not copied._free
        copied.empty((2**20,), torch.uint8)
        assert len(copied._free) == 1 and len(recycler._free) == KEPT


def test_small_tensors_do_not_push_out_the_images():
    recycler = Recycler()
    address = recycler.empty((2**20,), torch.uint8).data_ptr()
    for size in range(1000, 1010):
        recycler.empty((size,), torch.uint8)
    assert len(recycler._free) == 1 and recycler.empty((2**20,), torch.uint8).data_ptr() == address
    recycler = Recycler()
    recycler.empty_like(torch.empty(2**19, dtype=torch.uint8), dtype=torch.float32)  # not small once it is written
    assert len(recycler._free) == 1


@pytest.mark.parametrize("size", [1000, 2**20])
def test_torch_is_asked_for_nothing_but_memory(size):
    """``torch.empty_like`` of a tensor on the meta device runs twenty times as long, in Python."""

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function.name())
            return function(*args, **(kwargs or {}))

    names = []
    with Calls():
        Recycler().empty((size,), torch.uint8)
    assert "aten::empty.memory_format" in names and "aten::empty_like" not in names


def test_memory_of_another_size_waits_for_its_own():
    recycler = Recycler()
    small, large = (recycler.empty((size,), torch.uint8) for size in (2**20, 2**21))
    places = small.data_ptr(), large.data_ptr()
    del small, large
    small = recycler.empty((2**20,), torch.uint8)
    assert small.data_ptr() == places[0] and small.untyped_storage().nbytes() == 2**20
    assert len(recycler._free) == 1 and recycler.empty((2**21,), torch.uint8).data_ptr() == places[1]


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


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("side", [3, 300])
def test_what_it_makes_is_like_any_tensor(side, dtype, memory_format):
    recycler, like = Recycler(), torch.empty(8, 3, side, side + 1)
    made = recycler.empty_like(like, dtype=dtype, memory_format=memory_format)
    wanted = torch.empty_like(like, dtype=dtype, memory_format=memory_format)
    assert (made.dtype, made.shape, made.stride()) == (dtype, wanted.shape, wanted.stride())
    assert made.is_leaf and not made._is_view() and made.untyped_storage().nbytes() == made.nbytes
    transposed = torch.empty(9, 5, side, side).transpose(0, 3)
    assert recycler.empty_like(transposed).stride() == torch.empty_like(transposed).stride()


HOLDERS = {
    "a view": lambda tensor: tensor[1:, ::2].T,
    "NumPy": lambda tensor: tensor.numpy()[5:],
    "a memoryview": lambda tensor: memoryview(tensor.numpy()),
    "DLPack": lambda tensor: torch.from_dlpack(tensor),
    "a detached twin": lambda tensor: tensor.detach(),
    "an autograd graph": lambda tensor: (tensor * torch.ones(1, requires_grad=True)).grad_fn,
    "a queue": lambda tensor: (lambda held: (held.put(tensor), held)[1])(queue.Queue()),
    "a cycle": lambda tensor: (lambda held: (held.append([held, tensor]), held)[1])([]),
    "its storage": lambda tensor: tensor.untyped_storage(),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_whoever_holds_a_result_keeps_it(holder):
    """Nothing that anybody can still see is lent again; once it is let go, it is."""
    recycler = Recycler()
    tensor = recycler.empty((1000, 1000), torch.float32)
    address = tensor.data_ptr()
    held = HOLDERS[holder](tensor)
    del tensor
    assert not recycler._free and recycler.empty((1000, 1000), torch.float32).data_ptr() != address
    recycler._free.clear()
    if holder == "a cycle":
        held.clear()
    del held
    assert recycler.empty((1000, 1000), torch.float32).data_ptr() == address


def test_many_threads_share_it():
    """Whatever each of them holds stays as it wrote it."""
    recycler, wrong, sizes = Recycler(), [], (2**20, 2**20 + 64, 2**21)
    interval = sys.getswitchinterval()

    def work(number):
        kept = []
        try:
            for step in range(2000):
                tensor = recycler.empty((sizes[step % 3],), torch.uint8)
                tensor[0] = tensor[-1] = number
                kept.append(tensor)
                if len(kept) > 2:
                    oldest = kept.pop(0)
                    if not oldest[0] == oldest[-1] == number:
                        wrong.append((number, int(oldest[0]), int(oldest[-1])))
        except Exception as error:
            wrong.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and len(recycler._free) <= KEPT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_memory_of_its_own():
    recycler = Recycler()
    held, free = recycler.empty((2**20,), torch.uint8).fill_(1), recycler.empty((2**20,), torch.uint8).fill_(2)
    del free
    child = os.fork()
    if child == 0:
        again = recycler.empty((2**20,), torch.uint8).fill_(3)
        os._exit(0 if (held == 1).all() and (again == 3).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (held == 1).all() and (recycler.empty((2**20,), torch.uint8) == 2).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_a_transform_in_a_loop_uses_the_same_memory(dtype):
    images, transform = torch.zeros(4, 3, 300, 300, dtype=dtype), mc.CutMix()
    addresses = set()
    for _ in range(10):
        mixed = transform.replay(images, None, transform.make_plan(images), mean=0.5, std=0.2)
        addresses.add(mixed.data_ptr())
    assert len(addresses) == 2  # one is held while the next is made


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32], ids=str)
def test_masks_in_a_loop_use_the_same_memory(dtype):
    masks, plan = torch.zeros(8, 400, 400, dtype=dtype), mc.CutMix().make_plan(torch.empty(8, 3, 400, 400))
    kept, first = mix_masks(masks, plan), mix_masks(masks, plan)
    address = first.data_ptr()
    assert address != kept.data_ptr()
    del first
    assert mix_masks(masks, plan).data_ptr() == address


def test_one_hot_masks_are_mixed_where_they_were_made(monkeypatch):
    """With tens of classes they are as large as all images."""
    made = []
    kept = execution.one_hot_masks
    monkeypatch.setattr(
        execution, "one_hot_masks", lambda *masks, **options: made.append(kept(*masks, **options)) or made[0]
    )
    collate = mc.MixupCollate(mask_classes=3, mask_keys="mask", label_key="label", num_classes=4)
    masks = torch.randint(0, 3, (4, 8, 8))
    batch = {"image": torch.rand(4, 3, 8, 8), "mask": masks.clone(), "label": torch.arange(4)}
    assert collate.mix(batch)["mask"].data_ptr() == made[0].data_ptr() and torch.equal(batch["mask"], masks)


def test_float32_copies_use_the_same_memory(monkeypatch):
    """Half precision is mixed in float32."""
    monkeypatch.setattr(host, "_SCRATCH", recycler := Recycler())
    images, collate = (
        torch.zeros(4, 3, 300, 300, dtype=torch.bfloat16),
        mc.MixupCollate(mean=0.5, std=0.2, num_classes=4),
    )
    used = set()
    for _ in range(3):
        collate.mix((images, torch.arange(4)))
        used.add(tuple(sorted(buffer.ctypes.data for buffer in recycler._free)))
    assert len(used) == 1 and len(recycler._free) > 0


def test_results_that_are_kept_stay_as_they_are():
    """In lists, in views of any kind, and in graphs that are differentiated later."""
    images, labels = torch.rand(8, 3, 224, 224), torch.arange(8)
    transform, twin = (mc.Compose([mc.MixUp(num_classes=8), mc.RandomErasing(p=0.5)], seed=1) for _ in range(2))
    layer = torch.nn.Linear(224, 1)
    kept, wanted = [], []
    for _ in range(6):
        mixed, _ = transform(images, labels)
        kept.append((mixed.numpy()[1:, :, ::7], mixed[:, 1], (layer(mixed) ** 2).sum()))
        del mixed
    for _ in range(6):
        mixed = twin(images, labels)[0].clone()
        wanted.append((mixed.numpy()[1:, :, ::7], mixed[:, 1], (layer(mixed) ** 2).sum()))
    for (array, view, loss), (wanted_array, wanted_view, wanted_loss) in zip(kept, wanted, strict=True):
        assert (array == wanted_array).all() and torch.equal(view, wanted_view)
        gradients = (torch.autograd.grad(one, layer.weight)[0] for one in (loss, wanted_loss))
        assert torch.equal(*gradients)


def test_threads_that_mix_do_not_write_into_each_others_results():
    images, done, wrong = torch.rand(4, 3, 300, 300), queue.Queue(), []
    plans = [mc.MixUp().make_plan(images) for _ in range(4)]
    wanted = [mix(images, plan, impl="reference") for plan in plans]

    def work(number):
        for _ in range(20):
            done.put((number, mix(images, plans[number])))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(80):
        number, mixed = done.get(timeout=60)
        if not torch.equal(mixed, wanted[number]):
            wrong.append(number)
    assert not wrong


def test_inference_mode():
    """Results in inference mode are inference tensors, and others are not, whatever memory they get."""
    images, plan = torch.rand(4, 3, 300, 300), mc.MixUp().make_plan(torch.empty(4, 3, 300, 300))
    for _ in range(3):
        with torch.inference_mode():
            assert mix(images, plan).is_inference()
        assert not mix(images, plan).requires_grad_().is_inference()
