"""DeviceLoader: right batches under every legal order of the device's work, and no batch lost on the way."""

import copy
import pickle
import random
import subprocess
import sys
import warnings
from collections import UserDict
from dataclasses import dataclass, field
from unittest.mock import MagicMock

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset, default_collate
from torchvision import tv_tensors

import mixcollate as mc
from mixcollate.loader import DeviceLoader, Slot
from mixcollate.roles import leaves
from mixcollate.schedules import until
from tests.simulated_streams import SimulatedStreams, Stream


class Batches:
    """Batch ``k`` of epoch ``e`` is full of ``100 e + k``; the last one is shorter."""

    def __init__(self, count=8, fails_at=None):
        self.fails_at, self.epoch = fails_at, 0
        self.batches = [
            [
                (torch.full((2 if k == count - 1 else 4, 3), 100.0 * e + k), {"label": torch.full((4,), k)})
                for k in range(count)
            ]
            for e in range(5)
        ]

    def __iter__(self):
        batches = self.batches[self.epoch]
        self.epoch += 1
        for k, batch in enumerate(batches):
            if k == self.fails_at:
                raise OSError("boom")
            yield batch

    def __len__(self):
        return len(self.batches[0])


def simulated(loader, seed, **options):
    """A DeviceLoader whose device is simulated, and the simulation."""
    streams = SimulatedStreams(seed)
    device_loader = DeviceLoader(loader, "cpu", **options)
    device_loader._streams = streams
    return device_loader, streams


def train(device_loader, streams, epochs=1, stop_at=None):
    """What a training loop sees: each batch is read by an operation on the consumer's stream."""
    seen = []
    with streams:
        for _ in range(epochs):
            for k, (images, rest) in enumerate(device_loader._prefetched()):
                read = torch.empty_like(images)
                read.copy_(images)
                seen.append((images, read, rest["label"]))
                if k == stop_at:
                    break
    streams.synchronize()
    return [
        (images.flatten()[0].item(), read.unique().tolist(), label.unique().tolist()) for images, read, label in seen
    ]


@pytest.mark.parametrize("prefetch", [1, 2, 3])
def test_every_schedule_gives_the_right_batches(prefetch):
    for seed in range(60):
        seen = train(*simulated(Batches(), seed, prefetch=prefetch), epochs=2)
        assert seen == [(v, [v], [v % 100]) for v in (100.0 * e + k for e in range(2) for k in range(8))], seed


@pytest.mark.parametrize("forgotten", ["copied", "freed"])
def test_the_simulation_notices_a_missing_wait(forgotten, monkeypatch):
    """If this fails, the test above proves nothing."""
    waits = Stream.wait_event

    def wait_event(stream, event):
        (slot,) = [s for s in slots if event in (s.copied, s.freed)] or [None]
        if slot is None or event is not getattr(slot, forgotten):
            waits(stream, event)

    slots = []
    make = mc.loader.Slot.__init__

    def remember(slot, streams):
        make(slot, streams)
        slots.append(slot)

    monkeypatch.setattr(mc.loader.Slot, "__init__", remember)
    monkeypatch.setattr(Stream, "wait_event", wait_event)
    wanted = [(float(k), [float(k)], [k]) for k in range(8)]
    assert any(train(*simulated(Batches(), seed)) != wanted for seed in range(60))


def test_an_early_break_leaves_the_next_epoch_whole():
    for seed in range(20):
        device_loader, streams = simulated(Batches(), seed)
        train(device_loader, streams, stop_at=2)
        assert len(device_loader._free_slots) == 2  # what was on its way at the break is used again
        assert [v for v, _, _ in train(device_loader, streams)] == [100.0 + k for k in range(8)]


def test_memory_is_flat_over_epochs():
    device_loader, streams = simulated(Batches(), 0, prefetch=2)
    train(device_loader, streams, epochs=5)
    assert len(device_loader._free_slots) == 3 and len(streams.streams) == 2  # prefetch + 1 slots, one copy stream


def test_two_iterators_of_one_loader_do_not_share_memory():
    device_loader, streams = simulated(Batches(), 1)
    with streams:
        pairs = [(a[0], b[0]) for a, b in zip(device_loader._prefetched(), device_loader._prefetched(), strict=True)]
    streams.synchronize()
    assert [(a.unique().tolist(), b.unique().tolist()) for a, b in pairs] == [([k], [100.0 + k]) for k in range(8)]


def test_batches_before_an_exception_are_delivered():
    for prefetch in (1, 3):
        device_loader, streams = simulated(Batches(fails_at=5), 0, prefetch=prefetch)
        delivered = []
        with pytest.raises(OSError, match="boom"), streams:
            delivered.extend(device_loader._prefetched())
        streams.synchronize()
        assert [images.unique().tolist() for images, _ in delivered] == [[float(k)] for k in range(5)]


def test_batches_before_one_that_cannot_be_copied_are_delivered():
    """As when memory runs out while it is copied, ahead of them."""

    class Uncopied(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.empty_like:
                raise MemoryError("boom")
            return super().__torch_function__(function, types, args, kwargs or {})

    batches = [torch.full((2, 3), float(k)) for k in range(8)]
    batches[5] = batches[5].as_subclass(Uncopied)
    for prefetch in (1, 3):
        device_loader, streams = simulated(batches, 0, prefetch=prefetch)
        delivered = []
        with pytest.raises(MemoryError, match="boom"), streams:
            delivered.extend(device_loader._prefetched())
        streams.synchronize()
        assert [images.unique().tolist() for images in delivered] == [[k] for k in range(5)]


def test_mixed_batches_are_the_consumers_own():
    """With every operation run at once: the values, and that no output lies in a slot."""
    images, labels = torch.randint(0, 256, (10, 3, 8, 9), dtype=torch.uint8), torch.arange(10)
    plain = DataLoader(TensorDataset(images, labels), 4, collate_fn=mc.MixupCollate(num_classes=10, seed=0))
    wanted = [batch.mix() for batch in plain]
    again = DataLoader(TensorDataset(images, labels), 4, collate_fn=mc.MixupCollate(num_classes=10, seed=0))
    device_loader, streams = simulated(again, 0)
    streams.busy = True
    got = list(device_loader._prefetched())
    for (mixed, targets), (x, y) in zip(got, wanted, strict=True):
        assert torch.equal(mixed, x) and torch.equal(targets, y)
    slots = {t.untyped_storage().data_ptr() for slot in device_loader._free_slots for t in slot.memory.values()}
    assert not slots & {t.untyped_storage().data_ptr() for pair in got for t in pair}


def delivered(batches, **options):
    """What a loader delivers on a device where every operation runs at once."""
    device_loader, streams = simulated(batches, 0, **options)
    streams.busy = True
    return device_loader, list(device_loader._prefetched())


def test_training_uses_the_memory_of_an_evaluation():
    """Memory made in inference mode can be written only there."""
    device_loader, _ = simulated(Batches(), 0)
    device_loader._streams.busy = True
    with torch.inference_mode():
        list(device_loader._prefetched())
    assert [images.unique().item() for images, _ in device_loader._prefetched()] == [100.0 + k for k in range(8)]


def test_memory_keeps_no_gradient_of_a_batch():
    images = torch.rand(2, 3, requires_grad=True)
    device_loader, batches = delivered([images] * 3)
    batches[2].sum().backward()
    assert images.grad.unique().tolist() == [1]
    assert all(slot.memory[0].grad_fn is None for slot in device_loader._free_slots)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_tensors_without_strides_are_delivered():
    sparse, nested = torch.eye(2).to_sparse(), torch.nested.nested_tensor([torch.rand(2), torch.rand(3)])
    _, batches = delivered([(torch.rand(2, 3), sparse, nested)] * 3)
    for _, first, second in batches:
        assert torch.equal(first.to_dense(), torch.eye(2)) and torch.equal(second[1], nested[1])


def test_any_batch_may_follow_any_other():
    """A place in the batch may hold a number now, and a row of numbers next."""
    batches = [
        (torch.tensor(1.0), torch.ones(3), "a name"),
        (torch.ones(4), torch.tensor(2.0)),
        {"images": torch.ones(4, 2), "labels": torch.arange(4)},
        (torch.ones(4, 1), torch.ones(2, 2).bfloat16()),
        torch.tensor(3),
    ]
    for seed in range(5):
        epoch = random.Random(seed).choices(batches, k=20)
        device_loader, streams = simulated(epoch, seed)
        with streams:
            seen = list(device_loader._prefetched())
        streams.synchronize()
        torch.testing.assert_close([*map(tensors_of, seen)], [*map(tensors_of, epoch)], rtol=0, atol=0)


def tensors_of(batch):
    return [leaf for _, leaf in leaves(batch) if isinstance(leaf, torch.Tensor)]


def test_torchvisions_types_arrive():
    images, masks = tv_tensors.Image(torch.rand(2, 3, 4, 4)), tv_tensors.Mask(torch.zeros(2, 4, 4))
    ((image, mask),) = delivered([(images, masks)])[1]
    assert (type(image), type(mask)) == (tv_tensors.Image, tv_tensors.Mask)


def test_on_the_cpu_it_mixes_and_passes_through():
    data = TensorDataset(torch.rand(10, 3, 8, 9), torch.arange(10))
    collate = mc.MixupCollate(num_classes=10, seed=0)
    loader = DataLoader(data, 4, collate_fn=collate, sampler=DistributedSampler(data, 2, 0))
    wrapped = DeviceLoader(loader, "cpu")
    assert len(wrapped) == 2 and wrapped.dataset is data and wrapped.sampler is loader.sampler
    assert wrapped.batch_sampler is loader.batch_sampler and wrapped.drop_last is False
    assert [targets.shape for _, targets in wrapped] == [(4, 10), (1, 10)]
    wrapped.set_epoch(3)
    assert loader.sampler.epoch == 3 and collate.epoch == 3
    assert wrapped.state_dict() == {"collate": {"seed": 0, "step": 2}}
    wrapped.load_state_dict({"collate": {"seed": 0, "step": 7}})
    assert collate.stream.step == 7
    with pytest.raises(AttributeError, match="'DeviceLoader' object has no attribute 'batches'"):
        _ = wrapped.batches
    with pytest.raises(ValueError, match="prefetch must be a whole number of at least 1, got 0"):
        DeviceLoader(loader, prefetch=0)
    with pytest.raises(TypeError, match="loader must be an iterable of batches, got int"):
        DeviceLoader(3)
    with pytest.raises(TypeError, match="collate must be the loader's MixupCollate, got function"):
        DeviceLoader(loader, collate=default_collate)


def test_on_the_cpu_it_mixes_in_the_memory_that_was_stacked():
    data = TensorDataset(torch.rand(8, 3, 8, 9), torch.arange(8))
    batches = list(DataLoader(data, 4, collate_fn=mc.MixupCollate(num_classes=10)))
    memory = [batch._batch[0].data_ptr() for batch in batches]
    assert [len(batch) for batch in batches] == [2, 2]
    assert [images.data_ptr() for images, _ in DeviceLoader(batches, "cpu")] == memory


@pytest.mark.parametrize("device", ["cuda:99", "mtia", "hpu"])
def test_a_device_that_is_not_here_is_reported_when_iteration_begins(device):
    loader = DeviceLoader([torch.rand(2)], device)
    with pytest.raises(ValueError, match=f"^device must be one that torch can use here, got {device}; device=None"):
        iter(loader)


@pytest.mark.parametrize("name", ["enabled", "mixup_enabled"])
def test_the_switch_goes_by_timms_name_too(name):
    collate = mc.MixupCollate(num_classes=10)
    loader = DeviceLoader(DataLoader(TensorDataset(torch.rand(4, 3, 8, 9), torch.arange(4)), 4, collate_fn=collate))
    setattr(loader, name, False)
    assert not collate.enabled and not getattr(loader, name)
    ((_, targets),) = loader
    assert targets.max(1).values.tolist() == [1, 1, 1, 1]


class Node:
    """What torchdata's nodes look like: the collate is a function that is mapped over batches."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __iter__(self):
        return iter([self.root.source.map_fn([(torch.rand(3, 8, 9), k) for k in range(4)])])


def test_the_collate_is_found_or_given():
    collate = mc.MixupCollate(num_classes=10, seed=0)
    nodes = Node(root=Node(source=Node(map_fn=collate)))
    assert DeviceLoader(nodes, "cpu").state_dict() == {"collate": {"seed": 0, "step": 0}}
    hidden = iter([])
    assert DeviceLoader(hidden, "cpu").state_dict() == {}
    with pytest.raises(RuntimeError, match=r"DeviceLoader\(loader, collate=...\)"):
        _ = DeviceLoader(hidden, "cpu").mixup_enabled
    with pytest.raises(ValueError, match="state must be of a DeviceLoader without a collate that takes"):
        DeviceLoader(hidden, "cpu").load_state_dict({"collate": {"seed": 0, "step": 5}})
    loader = DeviceLoader(hidden, "cpu", collate=collate)
    loader.load_state_dict({"collate": {"seed": 0, "step": 5}})
    loader.set_epoch(3)
    assert (collate.stream.step, collate.epoch) == (5, 3)


def test_a_collate_that_the_loader_does_not_have_is_refused():
    """It would not mix: the batches of torch's own would be handed out as they are."""
    data, collate = TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8)), mc.MixupCollate(num_classes=8)
    with pytest.raises(ValueError, match=r"collate must be what makes .*: write DataLoader\(..., collate_fn=collate\)"):
        DeviceLoader(DataLoader(data, 4), "cpu", collate=collate)
    hidden = DataLoader(data, 4, collate_fn=lambda samples: collate(samples))
    assert next(iter(DeviceLoader(hidden, "cpu", collate=collate)))[1].shape == (4, 8)


@pytest.mark.parametrize("loader", [MagicMock(), Node()], ids=["a mock", "a loop"])
def test_wrappers_without_an_end_have_no_collate(loader):
    if isinstance(loader, Node):
        loader.source = loader
    assert DeviceLoader(loader, "cpu").collate is None


@pytest.mark.parametrize("ahead", [False, True])
def test_a_collate_that_cannot_be_seen_is_the_first_batchs(ahead):
    """A generator shows none: it would get no epoch, and its state would be left out."""
    collate = mc.MixupCollate(mc.MixUp(p=until(1)), num_classes=4, seed=0)
    batches = [[(torch.rand(3, 8, 9), k) for k in range(4)]] * 2
    hidden = iter([collate(samples) for samples in batches])
    loader, streams = simulated(hidden, 0)
    loader.set_epoch(1)
    with streams:
        for _, targets in loader._prefetched() if ahead else loader:
            assert set(targets.unique().tolist()) == {0, 1}  # nothing is mixed from this epoch on
    assert (loader.collate, collate.epoch) == (collate, 1)
    assert loader.state_dict() == {"collate": {"seed": 0, "step": 2}}


@pytest.mark.parametrize("ahead", [False, True])
def test_zipped_loaders_show_the_collate_that_they_share(ahead):
    """As labelled and unlabelled images; of two collates, neither is this loader's, and asking for it is an error."""
    collate = mc.MixupCollate(mc.MixUp(p=until(1)), num_classes=4, seed=0)
    samples = [(torch.rand(3, 8, 9), k) for k in range(4)]
    loader, streams = simulated(zip([collate(samples)], [collate(samples)], strict=True), 0)
    loader.set_epoch(1)
    with streams:
        for (_, targets), (_, others) in loader._prefetched() if ahead else loader:
            assert targets.max(1).values.tolist() == others.max(1).values.tolist() == [1, 1, 1, 1]
    assert (loader.collate, loader.state_dict()) == (collate, {"collate": {"seed": 0, "step": 2}})
    other = mc.MixupCollate(num_classes=4)
    loader = DeviceLoader(zip([collate(samples)], [other(samples)], strict=True), "cpu")
    assert [len(batch) for batch in loader] == [2]
    with pytest.raises(RuntimeError, match="cannot find the MixupCollate"):
        loader.enabled = False


def test_a_loader_whose_state_is_missing_below_has_none():
    """As of Accelerate's, which have the method and then ask a DataLoader that has not."""

    class Prepared(Batches):
        def state_dict(self):
            raise AttributeError("'DataLoader' object has no attribute 'dl_state_dict'")

        load_state_dict = state_dict

    device_loader, streams = simulated(Prepared(), 0)
    assert len(train(device_loader, streams)) == 8
    assert device_loader.state_dict() == {}
    device_loader.load_state_dict({})


@pytest.mark.parametrize("simulate", [False, True])
def test_mappings_that_are_no_dicts_arrive_or_are_refused(simulate):
    features = UserDict(pixels=torch.rand(4, 3), names=["a", "b", "c", "d"])
    moves = Moves(torch.rand(4))

    def delivered(batch):
        device_loader, streams = simulated([batch], 0)
        streams.busy = True
        return list(device_loader._prefetched() if simulate else device_loader)

    ((got, moved),) = delivered((features, moves))
    assert type(got) is UserDict and torch.equal(got["pixels"], features["pixels"]) and got["names"][1] == "b"
    assert moved.on == torch.device("cpu")
    collate = mc.MixupCollate(num_classes=4, collate_fn=lambda samples: (*default_collate(samples), moves))
    ((_, _, moved),) = delivered(collate([(torch.rand(3, 4, 4), k) for k in range(4)]))
    assert moved.on == torch.device("cpu")
    for kind in (Pair, SlottedPair):
        with pytest.raises(TypeError, match=f"got a {kind.__name__} with tensors, which has no to"):
            delivered(kind(torch.rand(4, 3), torch.arange(4)))
        names = kind("a", "b")
        assert delivered((names,)) == [(names,)]
    assert delivered((WithDefault,)) == [(WithDefault,)]  # a class holds no tensors of a batch


class Moves:
    """Knows itself how to move."""

    def __init__(self, on):
        self.on = on

    def to(self, device):
        return Moves(device)


@dataclass
class Pair:
    images: torch.Tensor
    labels: torch.Tensor


@dataclass(slots=True)
class SlottedPair:
    images: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor = field(init=False)


MEAN = torch.zeros(3)


@dataclass
class WithDefault:
    mean: torch.Tensor = MEAN


def test_it_warns_where_each_rank_gets_all_batches(monkeypatch):
    data = TensorDataset(torch.arange(8))

    def warned(loader):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            list(DeviceLoader(loader, "cpu"))
        return [str(warning.message) for warning in seen]

    for ranks in ("1", ""):
        monkeypatch.setenv("WORLD_SIZE", ranks)
        assert warned(DataLoader(data, 4)) == []
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(TypeError, match="WORLD_SIZE in the environment must be a whole number .*, got 'two'"):
        warned(DataLoader(data, 4))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "each of 2 ranks gets every batch" in warned(DataLoader(data, 4, shuffle=True))[0]
    assert "its sampler is a SequentialSampler" in warned(DataLoader(data, 4))[0]
    for sharded in ({"sampler": DistributedSampler(data, 2, 0)}, {"batch_sampler": [[0, 2], [4, 6]]}):
        assert warned(DataLoader(data, **sharded)) == []
    prepared = DataLoader(data, 4)
    prepared.base_dataloader = None
    assert warned(prepared) == []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    assert "each of 3 ranks gets every batch" in warned(DataLoader(data, 4))[0]


def test_what_is_made_on_the_device_is_read_after_it_is_made():
    """As by Accelerate, which moves and so mixes a batch, on the stream that trains."""

    class OnGpu(torch.Tensor):
        is_cuda = True
        __torch_function__ = torch._C._disabled_torch_function_impl  # what is made of it is a plain tensor

    labels = [torch.full((4,), k) for k in range(8)]

    class Made:
        def __iter__(self):
            for k in range(8):
                yield {"images": (torch.ones(4, 3) * k).as_subclass(OnGpu), "on the host": labels[k]}

    for seed in range(60):
        device_loader, streams = simulated(Made(), seed)
        seen = []
        with streams:
            for batch in device_loader._prefetched():
                seen.append([torch.empty_like(part).copy_(part) for part in batch.values()])
        streams.synchronize()
        assert [[part.unique().tolist() for part in batch] for batch in seen] == [[[k], [k]] for k in range(8)], seed


def test_the_allocator_learns_who_reads_the_slots():
    """They are made on the copies' stream, and whoever reads them may do so later than that."""
    slot, readers = Slot(SimulatedStreams(0)), []

    class OnGpu(torch.Tensor):
        is_cuda = True

        def record_stream(self, stream):
            readers.append(stream)

    slot.memory = {0: torch.zeros(2).as_subclass(OnGpu)}
    for consumer in ("one", "another"):
        slot.leave((), consumer)
    assert readers == ["one", "another"]


def test_memory_of_another_order_is_not_kept():
    """A batch arrives as it is, whatever the one before it was."""
    slot = Slot(SimulatedStreams(0))
    for memory_format in (torch.channels_last, torch.contiguous_format, torch.channels_last):
        images = torch.rand(4, 3, 5, 6).contiguous(memory_format=memory_format)
        (arrived,) = slot.receive((images,), torch.device("cpu"))
        assert arrived.stride() == images.stride() and torch.equal(arrived, images)
        (fewer,) = slot.receive((images[:3],), torch.device("cpu"))
        assert fewer.data_ptr() == arrived.data_ptr()
        (more,) = slot.receive((torch.cat([images, images]),), torch.device("cpu"))
        assert torch.equal(more, torch.cat([images, images]))


def test_samplers_learn_the_epoch_once_wherever_they_are(monkeypatch):
    sampler, told = DistributedSampler(range(8), 2, 0), []
    set_epoch = sampler.set_epoch
    monkeypatch.setattr(sampler, "set_epoch", lambda epoch: told.append(epoch) or set_epoch(epoch))
    batches = BatchSampler(sampler, 4, False)
    for options in ({"sampler": sampler}, {"batch_sampler": batches}, {"sampler": batches, "batch_size": None}):
        sampler.set_epoch(0)
        told.clear()
        mc.DeviceLoader(DataLoader(range(8), **options), "cpu").set_epoch(3)
        assert sampler.epoch == 3 and told == [3]


@pytest.mark.parametrize("name", ["loader", "iterable"])
def test_what_is_wrapped_learns_the_epoch(name):
    """As in tqdm, which has no sampler: each epoch would have the order of the first. Some wrappers have epochs."""
    data, collate = TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8)), mc.MixupCollate(num_classes=8)
    loader = DataLoader(data, 4, sampler=DistributedSampler(data, 2, 0), collate_fn=collate)
    wrapped = DeviceLoader(Node(**{name: Node(**{name: loader})}), "cpu")
    wrapped.set_epoch(3)
    assert (loader.sampler.epoch, collate.epoch, wrapped.enabled) == (3, 3, True)
    told = []
    DeviceLoader(Node(**{name: loader, "set_epoch": told.append}), "cpu").set_epoch(5)
    assert (loader.sampler.epoch, collate.epoch, told) == (3, 5, [5])


@pytest.mark.parametrize("used", [False, True])
def test_it_can_be_copied_and_sent(used, monkeypatch):
    """After an epoch on a device, too, whose streams and memory stay behind."""
    loader, streams = DeviceLoader(Batches(), "cpu"), SimulatedStreams(0)
    streams.busy = True
    monkeypatch.setattr(DeviceLoader, "_streams", streams)
    if used:
        assert len(list(loader._prefetched())) == 8
    for twin in (copy.deepcopy(loader), copy.copy(loader), pickle.loads(pickle.dumps(loader))):
        assert [images[0, 0].item() % 100 for images, _ in twin._prefetched()] == [*range(8)]
        assert not {id(slot) for slot in twin._free_slots} & {id(slot) for slot in loader._free_slots}


def test_the_loaders_state_is_that_of_the_last_batch_handed_out():
    """Also if it is the dict in which the loader itself counts."""

    class Stateful(Batches):
        def __init__(self):
            super().__init__()
            self.state = {"position": 0}

        def __iter__(self):
            for batch in super().__iter__():
                self.state["position"] += 1
                yield batch

        def state_dict(self):
            return self.state

    device_loader, streams = simulated(Stateful(), 0, prefetch=2)
    with streams:
        states = [device_loader.state_dict()["loader"]["position"] for _ in device_loader._prefetched()]
    assert states == list(range(1, 9))


class Resumable(Batches):
    """A loader whose state is the epoch that comes next."""

    def state_dict(self):
        return self.epoch

    def load_state_dict(self, state):
        self.epoch = state


STATELESS = DataLoader([0], collate_fn=tuple)
WITHOUT, WITH = (rf"must be of a DeviceLoader {word} a {{}} that takes a state" for word in ("without", "with"))


@pytest.mark.parametrize(
    "state, loader, message",
    [
        (None, STATELESS, "must be what state_dict.. returned, with 'loader' and 'collate', got None"),
        ({"seed": 0, "step": 7}, STATELESS, "got {'seed': 0, 'step': 7}; load the state of a collate"),
        ({"colate": {}, "loader": 1}, Resumable(), "must be what state_dict.. returned"),
        ({}, STATELESS, WITH.format("collate")),
        ({"collate": {"seed": 0, "step": 7}}, Resumable(), WITH.format("loader")),
        ({"loader": 1}, Resumable(), WITH.format("collate")),
        ({"collate": {"seed": 0, "step": 7}, "loader": 1}, STATELESS, WITHOUT.format("loader")),
        ({"collate": {"seed": 1, "step": 7}, "loader": 1}, Resumable(), "must be of a collate with seed=0, got seed=1"),
        ({"collate": None, "loader": 1}, Resumable(), "with seed and step, got None"),
    ],
)
def test_a_state_of_another_loader_is_refused_and_changes_nothing(state, loader, message):
    collate = mc.MixupCollate(num_classes=10, seed=0)
    with pytest.raises(ValueError, match=f"^state .*{message}"):
        DeviceLoader(loader, "cpu", collate=collate).load_state_dict(state)
    assert collate.stream.step == 0 and getattr(loader, "epoch", 0) == 0


def test_a_state_that_was_loaded_is_the_state():
    device_loader, streams = simulated(Resumable(), 0, collate=mc.MixupCollate(num_classes=10, seed=0))
    train(device_loader, streams, stop_at=2)
    state = {"loader": 3, "collate": {"seed": 0, "step": 7}}
    device_loader.load_state_dict(state)
    assert device_loader.state_dict() == state
    assert train(device_loader, streams)[0][0] == 300


DEATH = """
import os, torch, mixcollate as mc
from torch.utils.data import DataLoader, Dataset

class Dies(Dataset):
    def __len__(self):
        return 20
    def __getitem__(self, index):
        if index == 12:
            os._exit(1)
        return torch.zeros(3, 4, 4), index

loader = DataLoader(Dies(), 4, num_workers=1, collate_fn=mc.MixupCollate(num_classes=20))
for images, targets in mc.DeviceLoader(loader, "cpu"):
    print("batch")
print("end")
"""


def test_the_death_of_a_worker_is_raised_not_waited_for():
    """In a process of its own: the signal of a child's death may be noticed anywhere."""
    result = subprocess.run([sys.executable, "-c", DEATH], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode != 0 and "end" not in result.stdout and "Error" in result.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_on_a_gpu_it_gives_what_the_cpu_gives():
    images, labels = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8), torch.arange(100) % 10
    runs = []
    for device in ("cpu", "cuda"):
        loader = DataLoader(
            TensorDataset(images, labels), 16, pin_memory=True, collate_fn=mc.MixupCollate(num_classes=10, seed=0)
        )
        runs.append([(x.cpu(), y.cpu()) for x, y in DeviceLoader(loader, device)])
    for (x, y), (u, v) in zip(*runs, strict=True):
        assert torch.equal(x, u)
        torch.testing.assert_close(y, v)


class Counting:
    """As torchdata's: its state is how many batches it has given, and an epoch's end is known once it was asked on."""

    def __init__(self):
        self.given = 0

    def __iter__(self):
        while self.given < 3:
            self.given += 1
            yield torch.rand(2, 3), {"label": torch.arange(2)}
        self.given = 0

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


def test_the_state_after_an_epoch_begins_the_next_one():
    """On a device, too, where the loader is asked for batches ahead."""
    for stop_at, left in ((None, 3), (0, 2), (1, 1), (2, 0)):
        whole, again = simulated(Counting(), 0), simulated(Counting(), 0)
        train(*whole, stop_at=stop_at)
        again[0].load_state_dict(whole[0].state_dict())
        assert len(train(*again)) == left


def test_whatever_has_epochs_learns_the_epoch():
    """As a loader of Accelerate's, and a streamed set of Hugging Face's, do."""

    class Knows(TensorDataset):
        def set_epoch(self, epoch):
            self.epoch = epoch

    class KnowingLoader(DataLoader):
        set_epoch = Knows.set_epoch

    data = Knows(torch.arange(8))
    DeviceLoader(DataLoader(data), "cpu").set_epoch(2)
    assert data.epoch == 2
    loader = KnowingLoader(TensorDataset(torch.arange(8)))
    DeviceLoader(loader, "cpu").set_epoch(3)
    assert loader.epoch == 3


def test_an_epoch_is_a_whole_number():
    with pytest.raises(TypeError, match="epoch must be a whole number of at least 0, got 'x'"):
        DeviceLoader([], "cpu").set_epoch("x")
