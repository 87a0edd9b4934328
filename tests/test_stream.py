"""Where the numbers of plans come from: each plan's have an address."""

import copy
import os
import pickle
import types

import numpy as np
import pytest
import torch

import mixcollate.stream as stream_module
from mixcollate.stream import Stream, current_rank, numbers


@pytest.mark.parametrize("address", [(0, 0, 0), (2**64 - 1, 7, 123_456), (5, 2**32, 2**63)])
def test_an_address_always_holds_the_same_numbers(address):
    seed, rank, step = address
    numbers(seed, rank, step + 1).random(1000)  # asking elsewhere, in whatever order, changes nothing
    assert np.array_equal(numbers(*address).random(50), numbers(*address).random(50))


def test_all_bits_of_a_seed_count():
    """Also the low ones of a seed beyond 2**63, which a float cannot hold: half of all fresh seeds."""
    seeds = [0, 1, 2**53 + 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
    assert len({numbers(seed, 0, 0).random() for seed in seeds}) == len(seeds)


def test_every_address_holds_other_numbers():
    addresses = [(s, r, n, stream) for s in range(3) for r in range(3) for n in range(3) for stream in range(2)]
    drawn = np.array([numbers(*address).random(2000) for address in addresses])
    assert len(np.unique(drawn)) == drawn.size
    correlation = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)  # 5 standard errors, for 1431 coefficients


def test_the_numbers_are_the_same_on_every_machine():
    """Philox is specified: these were drawn once and may never change."""
    assert numbers(1, 2, 3).integers(2**32, size=4).tolist() == [2625735159, 272477147, 3071521531, 3038709783]


def test_steps_never_share_numbers():
    """The step is the counter's high word: however many numbers step 0 takes, it does not reach step 1."""
    state = numbers(0, 0, 41).bit_generator.state["state"]["counter"]
    assert state.tolist() == [0, 0, 0, 41]


def test_a_seeded_stream_counts():
    stream = Stream(5)
    drawn = [stream.next().random() for _ in range(3)]
    assert drawn == [numbers(5, current_rank(), step).random() for step in range(3)]
    assert stream.step == 3
    stream.step = 1
    assert stream.next().random() == drawn[1]


def test_a_stream_without_a_seed_follows_torch():
    stream, drawn = Stream(None), []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append([stream.next().random() for _ in range(4)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 4
    assert stream.step == 8
    torch.manual_seed(3)
    seeds = [int(torch.empty((), dtype=torch.int64).random_(-(2**63), None)) % 2**64 for _ in range(4)]
    assert max(seeds) > 2**63 and drawn[0] == [numbers(seed, current_rank(), 0).random() for seed in seeds]
    before = torch.get_rng_state()
    Stream(0).next()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_are_64_bits(seed):
    with pytest.raises(ValueError, match=rf"seed must be .*, got {seed}"):
        Stream(seed)


@pytest.mark.parametrize(("given", "rank"), [("3", 3), ("", 0), (None, 0)])
def test_rank_is_the_launcher_s(monkeypatch, given, rank):
    if given is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", given)
    assert current_rank() == rank


@pytest.mark.parametrize("given", ["abc", "-1", "1.5"])
def test_a_rank_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("RANK", given)
    with pytest.raises(TypeError, match=f"RANK in the environment must be a whole number .*, got '{given}'"):
        Stream(0).next()


def test_rank_is_torch_distributed_s(monkeypatch):
    monkeypatch.setenv("RANK", "5")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert current_rank() == 0
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))])
def test_a_copy_made_before_the_process_has_a_rank_draws_for_that_rank(monkeypatch, copied):
    """Also in a forked worker, whose parent made the copy."""
    monkeypatch.delenv("RANK", raising=False)
    stream = copied(Stream(0))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(stream_module, "get_worker_info", lambda: types.SimpleNamespace(seed=7))
    parent = types.SimpleNamespace(pid=os.getpid())
    monkeypatch.setattr(stream_module.multiprocessing, "parent_process", lambda: parent)
    assert stream.next().random() == numbers(0, 1, 0, 7).random()


def test_a_copy_in_a_spawned_worker_keeps_the_rank_that_was_sent(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(stream_module, "get_worker_info", lambda: types.SimpleNamespace(seed=7))
    monkeypatch.setattr(stream_module.multiprocessing, "parent_process", lambda: types.SimpleNamespace(pid=-1))
    stream = Stream(0)
    stream._sent = -1, 3  # as after unpickling what the parent, of rank 3, has sent
    assert copy.deepcopy(stream).next().random() == numbers(0, 3, 0, 7).random()
