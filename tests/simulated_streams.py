"""Simulated CUDA streams on the CPU: tensor operations are queued, and run in random orders that the streams allow.

Every operation reads and writes memory only when its turn comes, so a missing wait shows as a wrong batch.
"""

import random
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Event:
    """As in CUDA, waiting for an event that was never recorded does nothing."""

    def __init__(self):
        self.mark = None

    def record(self, stream):
        self.mark = (stream, len(stream.queue))


class Stream:
    """A queue of operations, of which ``done`` have run."""

    def __init__(self):
        self.queue, self.done = [], 0

    def wait_event(self, event):
        self.queue.append((lambda: None, event.mark))

    def ready(self):
        if self.done == len(self.queue):
            return False
        mark = self.queue[self.done][1]
        return mark is None or mark[0].done >= mark[1]

    def run_one(self):
        operation, _ = self.queue[self.done]
        self.done += 1
        operation()


class SimulatedStreams(TorchDispatchMode):
    """Replaces ``torch.cuda`` in a loader, and queues every tensor operation inside ``with``."""

    Event = Event

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.eagerness = self.random.choice([0.0, 0.3, 0.6, 0.9])
        self.main = Stream()
        self.streams, self.current = [self.main], self.main
        self.busy = False

    def Stream(self, device):
        self.streams.append(Stream())
        return self.streams[-1]

    def current_stream(self, device):
        return self.main

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.busy:
            return function(*args, **kwargs)
        if function._schema.is_mutable:
            self.enqueue(lambda: function(*args, **kwargs))
            return args[0]
        result = function(*args, **kwargs)
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given:
            result.fill_(-1)  # invalid until the operation has run
            if not function._schema.name.startswith("aten::empty"):
                self.enqueue(lambda: result.copy_(function(*args, **kwargs)))
        return result

    def enqueue(self, operation):
        self.current.queue.append((operation, None))
        while self.random.random() < self.eagerness and self.advance():
            pass

    def advance(self):
        ready = [stream for stream in self.streams if stream.ready()]
        if ready:
            self.busy = True
            self.random.choice(ready).run_one()
            self.busy = False
        return bool(ready)

    def synchronize(self):
        while self.advance():
            pass
        assert all(stream.done == len(stream.queue) for stream in self.streams), "deadlock"
