"""Draws: who is paired with whom, and how far one draw reaches."""

from typing import get_args

import numpy as np
import pytest
import scipy.stats

from mixcollate.draw import Pairing, draw_from
from mixcollate.stream import numbers

PAIRINGS = get_args(Pairing)
BATCHES = [0, 1, 2, 3, 8, 17]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_every_pairing_is_a_permutation(pairing, batch):
    draw = draw_from(numbers(0, 0, batch), (batch, 3, 4, 4), pairing)
    assert draw.partner.shape == (batch, 1)
    assert draw.partner.dtype == np.int64
    assert sorted(draw.partner[:, 0]) == list(range(batch))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("pairing", ["matching", "flip"])
def test_mutual_pairings(pairing, batch):
    """Partners have each other and share one number in 0 … (B + 1) // 2 - 1; an odd batch leaves one to itself."""
    draw = draw_from(numbers(0, 0, batch), (batch, 3, 4, 4), pairing)
    partner, index = draw.partner[:, 0], np.arange(batch)
    assert np.array_equal(partner[partner], index)
    assert (partner == index).sum() == batch % 2
    assert np.array_equal(draw.pair[partner], draw.pair)
    assert sorted(np.bincount(draw.pair, minlength=(batch + 1) // 2)) == [1] * (batch % 2) + [2] * (batch // 2)


def test_roll_and_flip_are_torchvision_s_and_timm_s():
    assert draw_from(numbers(0, 0, 0), (4, 3, 2, 2), "roll").partner[:, 0].tolist() == [3, 0, 1, 2]
    assert draw_from(numbers(0, 0, 0), (4, 3, 2, 2), "flip").partner[:, 0].tolist() == [3, 2, 1, 0]


def test_matchings_are_uniform():
    """Six images can be matched in 15 ways."""
    ways = [tuple(draw_from(numbers(0, 0, n), (6, 1, 1, 1), "matching").partner[:, 0]) for n in range(3000)]
    counts = np.unique(np.array(ways), axis=0, return_counts=True)[1]
    assert len(counts) == 15
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_further_partners_are_permutations(pairing, batch):
    draw = draw_from(numbers(0, 0, 0), (batch, 3, 4, 4), pairing)
    several = draw.several_partners(3)
    assert several.shape == (batch, 3)
    assert np.array_equal(several[:, 0], draw.partner[:, 0])
    assert all(sorted(column) == list(range(batch)) for column in several.T)


def test_units():
    """What one draw reaches: a pair where pairs are mutual (else an image), an image, the batch."""
    for pairing, count in {"matching": 4, "flip": 4, "shuffle": 7, "roll": 7}.items():
        draw = draw_from(numbers(0, 0, 0), (7, 3, 4, 4), pairing)
        assert draw.units("pair")[0] == count
        assert draw.units("sample")[0] == 7
        assert draw.units("batch")[0] == 1
        for per in ("pair", "sample", "batch"):
            units, unit = draw.units(per)
            reach = np.arange(units)[unit]
            assert reach.shape == (7,)
            assert set(reach) == set(range(units))
