"""The plan: everything random about one batch, drawn once, on the host, and kept in one frozen record.

Nothing outside the plan is random: pixels, labels, masks, previews and replays all read the same one. A plan
holds NumPy arrays with one row per image; a part that no image of the batch uses is ``None``.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mixcollate.checks import shown

T = TypeVar("T")
Array = npt.NDArray[Any]

FAR = 2**30
"""A row or column beyond the edge of any image."""


class cached(functools.cached_property[T]):
    """``cached_property`` without its lock, which before Python 3.12 costs more than the values cached here."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        vars(instance)[self.func.__name__] = value = self.func(instance)
        return value


class Part(NamedTuple):
    """Describes an optional field of a plan. All code that packs, selects, copies or checks parts reads it from here.

    Attributes:
        neutral: the value that leaves an image unchanged.
        shape: of one row; ``None`` for an axis of any length.
        dtype: float32 for numbers, uint8 for bits (lowest first), int64 for 32 unsigned bits; otherwise integers.
        erases: whether it is part of erasing, which leaves labels and masks unchanged.
        places: whether it holds rows and columns, so that images must have the plan's size.
        apart: whether an image that has it cannot be mixed in place together with its partner.
    """

    neutral: float
    shape: tuple[int | None, ...] = ()
    dtype: type[np.generic] = np.int32
    erases: bool = False
    places: bool = False
    apart: bool = False


def part(neutral: float, *shape: int | None, dtype: type[np.generic] = np.int32, **marks: bool) -> Any:
    """An optional field of a plan; ``marks`` are those of :class:`Part`."""
    return field(default=None, metadata={"part": Part(neutral, shape, dtype, **marks)})


@dataclass(frozen=True, eq=False, kw_only=True)
class MixPlan:
    """What happens to each image of one batch, as arrays with one row per image.

    The output is ``image + (1 - own) * (other - image)``: ``own`` is ``own_inside`` inside the image's box (and its
    bitmap), ``own_outside`` elsewhere, and ``other`` its first partner. Erased pixels then take the fill.

    Attributes:
        size: ``(height, width)`` of the images that the plan was drawn for.
        partners: ``[B, K]`` int64, the images mixed into each image (``K`` = 0: nothing is mixed).
        shares: ``[B, 1 + K]`` float32, the weights of the labels: the image's own share, then its partners'. Those of
            pixels do not follow from them: a method sets both.
        own_outside: ``[B]`` float32 in [0, 1], the image's own share outside its box.
        own_inside: ``[B]`` float32 in [0, 1], its own share inside the box.
        box: ``[B, 4]`` int32 ``(top, left, bottom, right)``, half-open.
        bitmap: ``[B, height, ceil(width / 8)]`` uint8, lowest bit first: only pixels whose bit is set are inside.
        resized: ``[B]`` int8: 1 (nearest) or 2 (bilinear) if the box shows the whole partner, resized; otherwise 0.
        corner: ``[B, 2]`` int32 (row, column) where four pieces meet: the image's own is top left, then its
            partners' top right, bottom left and bottom right.
        shift: ``[B, 4, 2]`` int32 (rows, columns) from a pixel to where its piece reads.
        erase_box: ``[B, N, 4]`` int32, boxes to erase, like ``box``; a later one lies on top.
        grid: ``[B, 5]`` int32 ``(tile, hole, rows, columns, inverted)``: pixels whose position, shifted by ``rows``
            and ``columns``, falls in the first ``hole`` of each ``tile`` on both axes are erased; if inverted, all
            others are.
        turn: ``[B, 2]`` float32, cosine and sine of the angle by which the grid is rotated about the centre, from which
            ``rows`` and ``columns`` count; (1, 0) leaves it upright.
        cell: ``[B]`` int32, side in pixels of the square cells of ``hidden``.
        hidden: ``[B, R, ceil(Q / 8)]`` uint8, lowest bit first: which cells are erased.
        fill: ``[B, N, F]`` float32, what erased pixels become, for each box (grid and cells use the first);
            ``F`` is 1 or the number of channels. In the units of the output, so 0 is the mean after normalising.
        noise: ``[B]`` int64 in [0, 2**32): the key of the noise that erased pixels become instead; 0 for none.
        fill_mean: whether the fill stands for the dataset's mean, which is right only if that is subtracted.
        then: the plan of a further pass, if one pass cannot do everything.
        parts: the arrays that are present, from ``own_outside`` to ``noise``, by name.
        pairs: ``[pairs, 2]``, the two images of each pair, if partners are mutual; else ``None``.
        mutual: whether the two images of a pair also mix alike.
    """

    size: tuple[int, int]
    partners: Array
    shares: Array
    own_outside: Array | None = part(1, dtype=np.float32)
    own_inside: Array | None = part(1, dtype=np.float32)
    box: Array | None = part(0, 4, places=True)
    bitmap: Array | None = part(255, None, None, dtype=np.uint8, places=True, apart=True)
    resized: Array | None = part(0, dtype=np.int8)
    corner: Array | None = part(FAR, 2, places=True, apart=True)
    shift: Array | None = part(0, 4, 2, places=True, apart=True)
    erase_box: Array | None = part(0, None, 4, erases=True, places=True)
    grid: Array | None = part(0, 5, erases=True, places=True)
    turn: Array | None = part(0, 2, dtype=np.float32, erases=True)
    cell: Array | None = part(FAR, erases=True)
    hidden: Array | None = part(0, None, None, dtype=np.uint8, erases=True, places=True)
    fill: Array | None = part(0, None, None, dtype=np.float32, erases=True)
    noise: Array | None = part(0, dtype=np.int64, erases=True)
    fill_mean: bool = False
    then: "MixPlan | None" = None

    # A plan also remembers what follows from its numbers: `parts`, `pairs` and `mutual` (which a draw may set), and the
    # numbers that passed the check in `kernels.bounds`. These are no fields: `replace` must forget them, and whoever
    # makes a plan of another's fields need not know them.

    def __len__(self) -> int:
        try:  # it is asked for before anything is checked
            return len(self.shares)
        except TypeError as error:
            raise TypeError(f"plan.shares must be a NumPy array [B, n], got {shown(self.shares)}") from error

    @property
    def partner(self) -> Array:
        """``[B]`` int64 if images have one partner (or none: then themselves), ``[B, K]`` if they have several."""
        if self.partners.shape[1] == 0:
            return np.arange(len(self))
        return self.partners[:, 0] if self.partners.shape[1] == 1 else self.partners

    @property
    def own_share(self) -> Array:
        """``[B]`` float32: the weight that each image's own label keeps."""
        return self.shares[:, 0]

    @cached
    def parts(self) -> dict[str, Array]:
        """The parts that are present, by name."""
        return {name: value for name, value in vars(self).items() if value is not None and name in PARTS}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The names of the parts that are present, and the shape of each for one image."""
        return {name: array.shape[1:] for name, array in self.parts.items()}

    @property
    def mixes(self) -> bool:
        """Whether this pass uses pixels of partners."""
        return bool(self.partners.shape[1])

    @property
    def erases(self) -> bool:
        """Whether this pass overwrites pixels with a fill."""
        return self.fill is not None

    @property
    def blends(self) -> bool:
        """Whether any pixel, in any pass, is a blend of two; if not, pixels are only copied."""
        shares = [array for array in (self.own_outside, self.own_inside) if array is not None]
        fractions = any(bool(((array != 0) & (array != 1)).any()) for array in shares)
        return fractions or (self.then is not None and self.then.blends)

    def rows(self, index: Array) -> "MixPlan":
        """The plan of the images ``index`` alone; partners are still numbered as in the whole batch."""
        parts: dict[str, Any] = {name: array[index] for name, array in self.parts.items()}
        later = None if self.then is None else self.then.rows(index)
        return replace(self, partners=self.partners[index], shares=self.shares[index], then=later, **parts)

    def for_masks(self) -> "MixPlan":
        """The same plan, all passes, for segmentation masks: nothing is erased, resizing takes the nearest pixel."""
        changed: dict[str, Any] = dict.fromkeys(ERASING)
        changed["resized"] = None if self.resized is None else np.minimum(self.resized, 1)
        later = None if self.then is None else self.then.for_masks()
        return replace(self, fill_mean=False, then=later, **changed)._keep_pairs_of(self)

    def at_size(self, size: tuple[int, int]) -> "MixPlan":
        """The same plan for masks or heat maps of this ``(height, width)``; unless it is the images', erasing nothing.

        Raises:
            ValueError: if an edge does not fall on a whole pixel at that size.
        """
        if size == self.size:
            return self
        new, old = np.array(size), np.maximum(self.size, 1)
        parts: dict[str, Any] = dict.fromkeys(ERASING)
        for name, array in (("box", self.box), ("corner", self.corner), ("shift", self.shift)):
            if array is not None:
                axes = array.shape[-1] // 2
                scaled, rest = np.divmod(array.astype(np.int64) * np.tile(new, axes), np.tile(old, axes))
                uncut = array >= FAR
                if rest[~uncut].any():
                    raise ValueError(
                        f"masks must have the (height, width) {self.size} of their images, or a size at which all "
                        f"edges of the plan fall on whole pixels, got {size}, where its {name} does not; resize the "
                        "masks"
                    )
                parts[name] = np.where(uncut, FAR, scaled).astype(np.int32)
        if self.bitmap is not None:
            repeats, rest = np.divmod(new, old)
            if rest.any() or 0 in repeats:
                raise ValueError(
                    f"masks must have the (height, width) {self.size} of their images, or a multiple of it, got "
                    f"{size}, at which free-form contours cannot be scaled; resize the masks"
                )
            bits = np.unpackbits(self.bitmap, axis=2, count=self.size[1], bitorder="little")
            parts["bitmap"] = np.packbits(bits.repeat(repeats[0], 1).repeat(repeats[1], 2), axis=2, bitorder="little")
        later = None if self.then is None else self.then.at_size(size)
        return replace(self, size=size, then=later, **parts)._keep_pairs_of(self)

    @cached
    def pairs(self) -> Array | None:
        """``[pairs, 2]``, the two images of each pair, if partners are mutual (an image may be its own partner).

        Then both can be mixed in place at once. Derived from ``partners``, unless :meth:`set_pairs` was called.
        """
        return mutual_pairs(self.partners[:, 0]) if self.partners.shape[1] == 1 else None

    @cached
    def mutual(self) -> bool:
        """Whether the two images of a pair also mix alike, so that one gains exactly what the other loses."""
        return self.pairs is not None and APART.isdisjoint(self.parts) and self._mixes_alike(self.pairs)

    def set_pairs(self, pairs: Array | None, mutual: bool) -> "MixPlan":
        """Set ``pairs`` and ``mutual``, which would otherwise be derived from the numbers; returns this plan.

        A draw sets them from its configuration alone. So all plans of one transform have the same packed layout, even
        if in some of them two images happen to be each other's partners, or happen to have equal numbers.
        """
        vars(self).update(pairs=pairs, mutual=mutual and APART.isdisjoint(self.parts))
        return self

    @property
    def knows_pairs(self) -> bool:
        """Whether ``pairs`` and ``mutual`` were set, or derived already."""
        return "pairs" in vars(self) and "mutual" in vars(self)

    def _keep_pairs_of(self, other: "MixPlan", *, alike: bool = True) -> "MixPlan":
        """Take over the pairs of ``other``, from which this plan was made; ``alike``: both images of a pair were
        treated the same.
        """
        if other.knows_pairs:
            self.set_pairs(other.pairs, other.mutual and alike)
        return self

    @property
    def pairs_hold(self) -> bool:
        """Whether the numbers still fit ``pairs`` and ``mutual``; those of a copy may have been changed."""
        pairs, mutual = vars(self).get("pairs"), vars(self).get("mutual")
        if pairs is None or self.partners.shape[1] != 1:
            return pairs is None
        partners = self.partners[pairs, 0]
        swaps = partners == pairs[:, ::-1]
        alone = partners == pairs  # allowed within a pair only at a share of 1: it would be mixed with the other
        for shares in (self.own_outside, self.own_inside):
            alone = alone if shares is None else alone & (shares[pairs] == 1)
        if not (swaps | alone).all():
            return False
        return not mutual or self._mixes_alike(pairs)

    def forget_pairs(self) -> None:
        """Drop ``pairs`` and ``mutual``, so that they are derived again from numbers that have changed."""
        for name in ("pairs", "mutual"):
            vars(self).pop(name, None)
        if self.then is not None:
            self.then.forget_pairs()

    def _mixes_alike(self, pairs: Array) -> bool:
        first, second = pairs.T
        mixing = [array for name, array in self.parts.items() if not PARTS[name].erases]
        return all([bool((array[first] == array[second]).all()) for array in mixing])


PARTS: dict[str, Part] = {f.name: f.metadata["part"] for f in fields(MixPlan) if "part" in f.metadata}
"""The optional fields of a plan, each with its description."""

ERASING = tuple(name for name, one in PARTS.items() if one.erases)
PLACES = frozenset(name for name, one in PARTS.items() if one.places)
APART = frozenset(name for name, one in PARTS.items() if one.apart)


def beside(tensor: Tensor, part: Array | Tensor | None) -> Tensor:
    """A part of a plan, packed or not, that is known to be present, as a tensor on the device of ``tensor``."""
    part = np.array(part) if isinstance(part, np.ndarray) else part  # torch takes none read-only, or stored backwards
    return torch.as_tensor(part, device=tensor.device)


def mutual_pairs(partner: Array) -> Array | None:
    """``[pairs, 2]`` if partners ``[B]`` are mutual, otherwise ``None``; an image may be its own partner."""
    index = np.arange(len(partner))
    if not (partner.take(partner, mode="clip") == index).all():  # partners outside the batch fail this, too
        return None
    (first,) = (partner >= index).nonzero()
    return np.array([first, partner[first]]).T


def identity(batch: int, size: tuple[int, int], **erasing: Any) -> MixPlan:
    """The plan that leaves ``batch`` images unchanged, except for the ``erasing`` parts."""
    partners, shares = np.empty((batch, 0), np.int64), np.ones((batch, 1), np.float32)
    return MixPlan(size=size, partners=partners, shares=shares, **erasing)


def two_shares(own_share: Array) -> Array:
    """``[B, 2]`` float32: the weights of an image's own label and its partner's."""
    shares = np.empty((len(own_share), 2), np.float32)
    shares[:, 0] = own_share
    np.subtract(1, own_share, out=shares[:, 1])
    return shares


def select(choice: Array, plans: Sequence[MixPlan], *, alike: bool = False) -> MixPlan:
    """The plan that treats image ``i`` as ``plans[choice[i]]`` does; all plans are for the same images.

    Args:
        choice: ``[B]`` integers.
        plans: the plans to choose from.
        alike: whether both images of a pair always make the same choice.
    """
    batch = len(choice)
    rows = batch * choice + np.arange(batch)  # in all plans' rows, stacked: one take is cheaper than a mask per plan
    partners = [plan.partners for plan in plans]
    width = max([array.shape[1] for array in partners])
    if any([array.shape[1] != width for array in partners]):
        themselves = np.arange(batch)[:, None]
        partners = [np.concatenate([p] + [themselves] * (width - p.shape[1]), 1) for p in partners]
    later = None
    if any([plan.then is not None for plan in plans]):  # a plan of no images is false
        later = select(choice, [plan.then if plan.then is not None else identity(batch, plan.size) for plan in plans])
    present = {name for plan in plans for name in plan.parts}
    given = {name: [getattr(plan, name) for plan in plans] for name in present}
    if "fill" in given:
        given["fill"] = _with_one_width(given["fill"])
    parts: dict[str, Any] = {name: _chosen_rows(rows, arrays, PARTS[name].neutral) for name, arrays in given.items()}
    selected = MixPlan(
        size=plans[0].size,
        partners=_chosen_rows(rows, partners, 0),
        shares=_chosen_rows(rows, [plan.shares for plan in plans], 0),
        fill_mean=any([plan.fill_mean for plan in plans]),
        then=later,
        **parts,
    )
    mixing = [plan for plan in plans if plan.mixes]
    if width == 1 and all([plan.knows_pairs for plan in mixing]):
        shared = all([plan.partners is mixing[0].partners for plan in mixing])  # else mutual only by chance
        selected.set_pairs(mixing[0].pairs if shared else None, shared and alike and all([p.mutual for p in mixing]))
    return selected


def takes_partners(plan: Any) -> bool:
    """Whether any pass of a plan, packed or not, uses partners."""
    return plan is not None and (plan.partners.shape[1] > 0 or takes_partners(plan.then))


def restrict(plan: MixPlan, changed: Array, *, alike: bool = False, keep: Collection[str] = ()) -> MixPlan:
    """``plan`` for the images that are ``changed``; the others keep their partners, but also all of their pixels.

    Args:
        plan: of all images.
        changed: ``[B]`` bool.
        alike: whether always both images of a pair are changed, or neither.
        keep: names of parts that all images keep, in every pass.
    """
    parts: dict[str, Any] = {
        name: array if name in keep else _rows_where(changed, array, PARTS[name].neutral)
        for name, array in plan.parts.items()
    }
    alone = np.eye(1, plan.shares.shape[1], dtype=np.float32) if plan.mixes else 1
    later = None if plan.then is None else restrict(plan.then, changed, keep=keep)  # it has other pairs
    some = MixPlan(
        size=plan.size,
        partners=plan.partners,
        shares=_rows_where(changed, plan.shares, alone),
        fill_mean=plan.fill_mean,
        then=later,
        **parts,
    )
    return some._keep_pairs_of(plan, alike=alike)


def without_mixing(plan: MixPlan) -> MixPlan:
    """``plan`` without its mixing: only what it erases is left. Passes that erase nothing are dropped."""
    later = None if plan.then is None else without_mixing(plan.then)
    if later is not None and not later.erases:
        later = None
    if later is not None and not plan.erases:
        return later
    erasing = {name: array for name, array in plan.parts.items() if name in ERASING}
    return identity(len(plan), plan.size, fill_mean=plan.fill_mean, then=later, **erasing)


def _rows_where(rows: Array, array: Array, otherwise: Any) -> Array:
    """``array`` where ``rows [B]`` is true, ``otherwise`` elsewhere."""
    return np.where(rows.reshape(-1, *[1] * (array.ndim - 1)), array, otherwise)


def _with_one_width(fills: Sequence[Array | None]) -> list[Array | None]:
    """Fills ``[B, N, F]`` with the same ``F``: where some have a number per channel, the others are repeated."""
    width = max([fill.shape[2] for fill in fills if fill is not None])
    return [fill if fill is None or fill.shape[2] == width else fill.repeat(width, 2) for fill in fills]


def _chosen_rows(rows: Array, arrays: Sequence[Array | None], neutral: float) -> Array:
    """``rows`` of all arrays, stacked and padded to one shape; a missing array counts as neutral rows."""
    given = [array for array in arrays if array is not None]
    first, shape = given[0], given[0].shape
    if all([array is first for array in arrays]):
        return first
    if any([array.shape != shape for array in given]):
        shape = tuple(map(max, zip(*(array.shape for array in given), strict=True)))
    return np.concatenate([padded(array, shape, neutral, first.dtype) for array in arrays]).take(rows, 0)


def padded(array: Array | None, shape: tuple[int, ...], neutral: float, dtype: npt.DTypeLike) -> Array:
    """``array`` padded with ``neutral`` to ``shape``; a missing array is all ``neutral``."""
    if array is None:
        return np.full(shape, neutral, dtype)
    if array.shape == shape:
        return array
    padding = [(0, long - short) for long, short in zip(shape, array.shape, strict=True)]
    return np.pad(array, padding, constant_values=neutral)


def chain(first: MixPlan, second: MixPlan) -> MixPlan:
    """The plan that does ``first``, then ``second``: in one pass if possible, otherwise in two."""
    if first.then is not None:
        return replace(first, then=chain(first.then, second))._keep_pairs_of(first)
    if second.mixes or first.erases:
        return replace(first, then=second)._keep_pairs_of(first)
    parts: dict[str, Any] = {**first.parts, **{name: getattr(second, name) for name in ERASING}}
    both = MixPlan(
        size=first.size,
        partners=first.partners,
        shares=first.shares,
        fill_mean=second.fill_mean,
        then=second.then,
        **parts,
    )
    return both._keep_pairs_of(first)
