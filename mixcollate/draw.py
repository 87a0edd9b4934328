"""The draw of a batch: who is paired with whom, and what else methods draw their plans from."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from mixcollate.checks import result_of
from mixcollate.plan import Array, MixPlan, cached, mutual_pairs

Per = Literal["pair", "sample", "batch"]
Pairing = Literal["matching", "shuffle", "roll", "flip"]
PairingFunction = Callable[[Tensor, np.random.Generator], Any]
"""``(labels, numbers) -> partner``: integers ``[B]`` in [0, B), drawn only from the NumPy generator ``numbers``."""


@dataclass(frozen=True, eq=False)
class Draw:
    """What a method draws a plan from: random numbers, the shape of the batch, its pairing, and the epoch.

    Attributes:
        numbers: the only source of randomness.
        shape: ``(batch, channels, height, width)``.
        epoch: passed to schedules.
        partner: ``[B, 1]`` int64, each image's (first) partner.
        pairs: ``[pairs, 2]`` int64, the images of each pair, if partners are mutual; an image may be its own partner.
        pairing: as requested; see :func:`draw_from`.
        labels: of the batch, if they are known when the plan is drawn.
        size: ``(height, width)``.
        pair: ``[B]`` int64, the index of each image's pair; ``None`` if partners are not mutual.
    """

    numbers: np.random.Generator
    shape: tuple[int, int, int, int]
    partner: Array
    pairs: Array | None
    pairing: Pairing | PairingFunction | None
    epoch: int = 0
    labels: Tensor | None = None

    @cached
    def size(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.shape[2:]

    @cached
    def pair(self) -> Array | None:
        """``[B]`` int64, the index of each image's pair, if partners are mutual."""
        if self.pairs is None:
            return None
        pair: Array = np.empty(self.shape[0], np.int64)
        pair[self.pairs] = np.arange(len(self.pairs))[:, None]
        return pair

    def set_pairs(self, plan: MixPlan, per: Per) -> None:
        """Set the pairs of ``plan``, which has this draw's partners and numbers for each of ``units(per)``."""
        varies = callable(self.pairing) and per != "pair"  # a function may pair up some batches and not others
        pairs = None if varies else self.pairs
        plan.set_pairs(pairs, pairs is not None and per != "sample")

    def units(self, per: Per) -> tuple[int, Array]:
        """How many draws ``per`` needs, and the index ``[B]`` of each image's draw among them."""
        batch = self.shape[0]
        if per == "pair" and self.pairs is not None and self.pair is not None:
            return len(self.pairs), self.pair
        if per == "pair" and callable(self.pairing):
            raise ValueError(
                "per='pair' needs mutual partners, but the pairing function returned others; use per='sample'"
            )
        if per == "batch":
            return 1, np.zeros(batch, np.int64)
        return batch, np.arange(batch)

    def several_partners(self, several: int) -> Array:
        """``[B, several]`` int64: the pairing's partner, then those of random permutations (or of further rolls)."""
        batch = self.shape[0]
        further = [
            np.roll(np.arange(batch), k) if self.pairing == "roll" else self.numbers.permutation(batch)
            for k in range(2, several + 1)
        ]
        return np.stack([self.partner[:, 0], *further], 1)


def draw_from(
    numbers: np.random.Generator,
    shape: tuple[int, int, int, int],
    pairing: Pairing | PairingFunction | None,
    epoch: int = 0,
    labels: Tensor | None = None,
) -> Draw:
    """Choose the partners of a batch, and return what methods draw their plans from.

    ``"matching"`` is a random perfect matching (in an odd batch one image is its own partner), ``"shuffle"`` a random
    permutation, ``"roll"`` takes the previous image (torchvision), ``"flip"`` counts from the end of the batch (timm).
    ``None`` makes each image its own partner; a function is called.
    """
    batch = shape[0]
    pairs = None
    if pairing == "matching":
        order = numbers.permutation(batch)
        positions, other = _matching(batch)
        partner = np.empty(batch, np.int64)
        partner[order] = order.take(other)
        pairs = order.take(positions)
    elif callable(pairing):
        partner = _partner_by(pairing, labels, numbers, batch)
        pairs = mutual_pairs(partner)
    elif pairing == "shuffle":
        partner = numbers.permutation(batch)
    elif pairing == "roll":
        partner = np.roll(np.arange(batch), 1)
    elif pairing == "flip":
        partner = np.arange(batch)[::-1].copy()
        pairs = mutual_pairs(partner)
    elif pairing is None:
        partner = np.arange(batch)
    else:
        raise ValueError(f"pairing must be one of {', '.join(get_args(Pairing))}, or a function, got {pairing!r}")
    return Draw(numbers, shape, partner[:, None], pairs, pairing, epoch, labels)


@functools.lru_cache(maxsize=64)
def _matching(batch: int) -> tuple[Array, Array]:
    """``[pairs, 2]``, which positions of a random order form a pair, and ``[B]``, the other position in the pair of
    each; in an odd batch the last is its own partner.
    """
    half, odd = batch // 2, [batch - 1] * (batch % 2)
    first, second = np.array([[*range(half), *odd], [*range(half, 2 * half), *odd]], np.int64)
    return np.stack([first, second], 1), np.concatenate([second[:half], first])


def _partner_by(function: PairingFunction, labels: Tensor | None, numbers: np.random.Generator, batch: int) -> Array:
    """``[B]`` int64: the partners that a user's function returns."""
    if labels is None:
        raise ValueError(
            "pairing is a function of the labels, but there are none; pass them: make_plan(images, labels=...)"
        )
    returned = result_of("pairing", function, labels.cpu(), numbers)
    try:
        partner = np.asarray(returned)
    except ValueError as error:  # ragged lists
        raise ValueError(f"pairing must return the partner of each image [B], got {returned!r}") from error
    if partner.shape != (batch,) or partner.dtype.kind not in "iu":
        raise ValueError(
            f"pairing must return the partner of each of {batch} images as integers [B], got "
            f"{partner.shape} {partner.dtype}"
        )
    if batch and not 0 <= partner.min() <= partner.max() < batch:
        raise ValueError(f"pairing must return partners in [0, {batch}), got {partner.min()} … {partner.max()}")
    return partner.astype(np.int64)


def own_shares(numbers: np.random.Generator, alpha: float, count: int) -> Array:
    """Own shares from Beta(alpha, alpha), float64; all 1 where alpha is 0."""
    if alpha == 0:
        return np.ones(count)
    return numbers.random(count) if alpha == 1 else numbers.beta(alpha, alpha, count)
