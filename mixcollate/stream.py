"""The random numbers of plans. Those of one plan follow from its address alone: seed, rank and step."""

import multiprocessing
import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils.data import get_worker_info

from mixcollate.checks import check_count, count_in_environment, is_transformed


def numbers(seed: int, rank: int, step: int, stream: int = 0) -> np.random.Generator:
    """The random numbers of one plan: the same on every machine, whatever was drawn before.

    The step is the high word of the counter, so no two steps can ever share numbers.
    """
    counter = np.array([0, 0, stream, step], np.uint64)  # a list would lose low bits
    bits = np.random.Philox(_Key(seed, rank), counter=counter)  # type: ignore[arg-type]  # it takes any ISeedSequence
    return np.random.Generator(bits)


class _Key(ISeedSequence):
    """A key for Philox. Passed as ``key=`` it would cost twice as much: NumPy would read the system's entropy, too."""

    def __init__(self, *words: int) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint64) -> npt.NDArray[Any]:
        return np.array(self.words, dtype)


class _Word(threading.local):
    """64 bits of each thread to draw a seed into: new ones for each would take three times as long."""

    def __init__(self) -> None:
        with torch.inference_mode(False), unset_fake_temporarily():  # later callers need a real tensor
            self.bits = _new_word()


def _new_word() -> Tensor:
    return torch.empty((), dtype=torch.int64, device="cpu")


_WORD = _Word()


class Stream:
    """The random numbers of successive plans: a seed, and a count of the plans drawn so far. Safe to share by threads.

    With a seed, plan ``step`` depends on ``(seed, rank, step)`` alone; in a loader's worker also on ``part``. Without
    one, each plan takes 64 bits from torch's default CPU generator, so ``torch.manual_seed`` reproduces a run.

    Args:
        seed: in [0, 2**64), or ``None``.
        part: separates streams that share a seed. Default: 0; in a worker, the seed that the loader gave it for this
            epoch.
    """

    def __init__(self, seed: int | None, *, part: int | None = None) -> None:
        self.seed = None if seed is None else check_count("seed", seed, least=0, most=2**64 - 1)
        self.step, self.part = 0, part
        self._sent: tuple[int, int] | None = None  # process id and rank of the process it came from
        self._counting = threading.Lock()

    def next(self) -> np.random.Generator:
        """The random numbers of the next plan."""
        with self._counting:
            step, self.step = self.step, self.step + 1
        if self.seed is None:
            with unset_fake_temporarily():
                word = _new_word() if is_transformed() else _WORD.bits  # torch.func refuses to change what is kept
                seed = int(word.random_(-(2**63), None).item())
            return numbers(seed % 2**64, self._rank(), 0)
        worker = get_worker_info()
        part = self.part if self.part is not None else 0 if worker is None else worker.seed
        return numbers(self.seed, self._rank(), step, part)

    def of_part(self, part: int) -> "Stream":
        """A new stream of the same seed, from its first step."""
        other = Stream(self.seed, part=part)
        other._sent = self._sent
        return other

    def _rank(self) -> int:
        """This process's rank; in a spawned worker, the rank of the process that started it."""
        if self._sent is not None and get_worker_info() is not None:
            parent = multiprocessing.parent_process()
            process, rank = self._sent
            if parent is not None and process == parent.pid:
                return rank
        return current_rank()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_counting": None, "sender": (os.getpid(), self._rank())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        sender = state.pop("sender")
        if sender[0] != os.getpid():  # not a copy in the same process, which may get its rank only later
            state["_sent"] = sender
        vars(self).update(state, _counting=threading.Lock())


def current_rank() -> int:
    """This process's rank: torch.distributed's if it runs, else the launcher's ``RANK``, else 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return count_in_environment("RANK", 0, least=0)
