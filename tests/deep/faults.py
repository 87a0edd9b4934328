"""A fault in a loader's epoch gives a clear error and leaves nothing behind, and the next epoch works.

python -m tests.deep.faults FAULT CONTEXT     # a separate process, so that it can be killed if it hangs
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import time

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

import mixcollate as mc

BATCH, COUNT = 8, 10


class Images(Dataset):
    """Square images with ``side`` rows, the ``k``-th full of ``k``; while ``armed``, number ``bad`` cannot be read."""

    def __init__(self, bad=None, side=16):
        self.bad, self.side = bad, side
        self.armed = torch.zeros(1, dtype=torch.bool).share_memory_()

    def __len__(self):
        return BATCH * COUNT

    def __getitem__(self, index):
        if index == self.bad and bool(self.armed):
            raise OSError(f"image {index} cannot be read")
        return torch.full((3, self.side, self.side), index, dtype=torch.uint8), index % 10


class Collating:
    """``default_collate``, which fails for one batch while ``armed``."""

    def __init__(self):
        self.armed = torch.zeros(1, dtype=torch.bool).share_memory_()

    def __call__(self, samples):
        if bool(self.armed) and any(int(image[0, 0, 0]) == 20 for image, _ in samples):
            raise ArithmeticError("this batch cannot be collated")
        return default_collate(samples)


def loader(context, data=None, **options):
    collate = mc.MixupCollate(num_classes=10, seed=0, **options)
    return DataLoader(data or Images(), BATCH, collate_fn=collate, num_workers=2, multiprocessing_context=context)


def epoch(batches):
    """Read a whole epoch, and assert that every sample is there with a weight of one."""
    total = torch.zeros(10)
    for images, targets in batches:
        assert images.shape[1:2] == (3,)
        total += targets.sum(0)
    torch.testing.assert_close(total, torch.full((10,), BATCH * COUNT / 10), rtol=0, atol=1e-4)


def traces():
    """Resources that a process could leak: children, threads, descriptors, shared memory segments."""
    gc.collect()
    children = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
            children += [pid] if int(parent) == os.getpid() and state != "Z" else []
    segments = [name for name in os.listdir("/dev/shm") if name.startswith(f"torch_{os.getpid()}_")]
    return {
        "children": len(children),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "segments": len(segments),
    }


@contextlib.contextmanager
def raises(kind, *words):
    try:
        yield
    except kind as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"{kind.__name__} was not raised")


def killed(context):
    """Torch raises the error by a signal, at any point of the main process; or, under ``forkserver``, whose workers are
    not its children, when the next batch is requested. This waits for the signal: if a worker has closed its socket but
    is not dead yet, torch raises a bare ``ConnectionResetError``.
    """
    batches = loader(context)
    with raises(RuntimeError, "DataLoader worker"):
        iterator = iter(batches)
        next(iterator).mix()
        for worker in iterator._workers:
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(2)
        for batch in iterator:
            batch.mix()
    return batches


def data_set(context):
    data = Images(bad=30)
    batches = loader(context, data)
    data.armed[0] = True
    with raises(OSError, "image 30 cannot be read"):
        epoch(batches)
    data.armed[0] = False
    return batches


def collate_fn(context):
    inner = Collating()
    batches = loader(context, collate_fn=inner)
    inner.armed[0] = True
    with raises(ArithmeticError, "this batch cannot be collated"):
        epoch(batches)
    inner.armed[0] = False
    return batches


def loop(context):
    batches = loader(context)
    with raises(ZeroDivisionError):
        for k, batch in enumerate(batches):
            batch.mix()
            1 / (k - 3)
    return batches


def interrupt(context):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with SIGINT ignored
    batches = loader(context)
    with raises(KeyboardInterrupt):
        for k, batch in enumerate(batches):
            batch.mix()
            if k == 3:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
    return batches


def early_break(context):
    batches = loader(context)
    for batch in batches:
        images, kept = batch.mix()[0], batch.mix()[0].clone()
        break
    epoch(batches)
    assert torch.equal(images, kept)
    return batches


def garbage(context):
    """The iterator is deleted in the middle of an epoch; batches that it has delivered can still be mixed."""
    batches = loader(context)
    iterator = iter(batches)
    late = [next(iterator) for _ in range(3)]
    del iterator
    gc.collect()
    for batch in late:
        images, _ = batch.mix()
        assert images.shape == (BATCH, 3, 16, 16)
    return batches


def full(context):
    """A batch does not fit into shared memory: the error says so, and smaller batches still work."""
    with raises(RuntimeError):
        epoch(loader(context, Images(side=400)))
    return loader(context)


FAULTS = {
    "killed": killed, "dataset": data_set, "collate_fn": collate_fn, "loop": loop, "interrupt": interrupt,
    "early break": early_break, "garbage": garbage, "full": full,
}  # fmt: skip


def main(fault, context):
    torch.set_num_threads(1)
    if context == "forkserver":
        torch.multiprocessing.set_forkserver_preload(["torch", "mixcollate"])  # else each worker imports them anew
    epoch(loader(context))  # what a healthy epoch leaves behind is not a leak
    before = traces()
    epoch(FAULTS[fault](context))
    end = time.monotonic() + 20
    while (after := traces()) != before and time.monotonic() < end:
        time.sleep(0.1)
    assert all(after[name] <= before[name] for name in before), f"left behind: {before} became {after}"
    print("the next epoch works")


if __name__ == "__main__":
    main(*sys.argv[1:])
