"""A plan as one int32 tensor, so that it takes one copy to a device, and can be replaced in a captured CUDA graph.

Each pass of the plan is a table with an entry for each image (for each pair, if one program can mix both), followed by
the partners and shares that labels need. An entry holds the indices of its images, then the parts that they share, then
those of the first image, then those of the second; floats as their bits, bitmaps as bytes.
"""

import functools
import json
import math
from collections import namedtuple
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcollate.checks import check_device, check_kind
from mixcollate.kernels.bounds import check_bounds
from mixcollate.kernels.pixels import LEVELS
from mixcollate.plan import PARTS, Array, MixPlan, padded

_make_namedtuple: Any = namedtuple  # whose fields mypy would have to know
_REQUIRED = ["width", "images", "partner_count", "mutual"]
_OPTIONAL = ["second", "boxes", "fills", "bitmap_line", "hidden_line", *PARTS]

EntryFormat = _make_namedtuple("EntryFormat", _REQUIRED + _OPTIONAL, defaults=[0] * len(_OPTIONAL))
"""The layout of an entry of the table: a field for each part of a plan with its offset in words, or 0 if absent.

Attributes:
    width: words in an entry.
    images: number of images that an entry writes: 2 for a pair, else 1.
    partner_count: number of partners of each image.
    mutual: whether the images of a pair share the parts that mix them; parts that erase are never shared.
    second: words from the unshared parts of the first image of a pair to those of the second.
    boxes: boxes to erase in each image.
    fills: numbers in each fill.
    bitmap_line: bits in a line of the bitmap.
    hidden_line: bits in a line of hidden cells.
"""
EntryFormat.__hash__ = object.__hash__  # there is one object for each layout, so a launch need not hash thirty fields


@dataclass(frozen=True)
class Layout:
    """The meaning of the words of a packed plan: everything about a plan except its numbers.

    Attributes:
        batch: number of images.
        size: ``(height, width)`` of the images.
        partner_count: number of partners of each image.
        entries: number of entries in the table; fewer than ``batch`` if they are pairs.
        paired: whether an entry is a pair.
        mutual: whether the images of a pair share the parts that mix them.
        fill_mean: as in the plan.
        parts: name and shape (for one image) of each part that is present.
        then: the layout of further passes.
    """

    batch: int
    size: tuple[int, int]
    partner_count: int
    entries: int
    paired: bool
    mutual: bool
    fill_mean: bool
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    then: "Layout | None" = None

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parts, by name."""
        return dict(self.parts)

    @functools.cached_property
    def entry(self) -> Any:
        """The offsets of the parts in an entry, as an :data:`EntryFormat`."""
        place: dict[str, int] = {}
        end = self.index_words
        for name, shape in self.parts:
            if self.is_shared(name):
                place[name], end = end, end + _word_count(name, shape)
        start = end
        for name, shape in self.parts:
            if not self.is_shared(name):
                place[name], end = end, end + _word_count(name, shape)
        second = end - start
        return EntryFormat(
            width=_rounded_up(end + second if self.paired else end),
            images=2 if self.paired else 1,
            partner_count=self.partner_count,
            mutual=self.mutual,
            second=second,
            boxes=self.shapes.get("erase_box", (0,))[0],
            fills=self.shapes.get("fill", (0, 0))[1],
            bitmap_line=8 * self.shapes.get("bitmap", (0, 0))[1],
            hidden_line=8 * self.shapes.get("hidden", (0, 0))[1],
            **place,
        )

    @property
    def index_words(self) -> int:
        """Words in an entry for the indices of its images, and of the partners that it does not write."""
        return 2 if self.paired else 1 + self.partner_count

    @functools.cached_property
    def part_words(self) -> int:
        """Words of all parts of one image: those that a pair shares, then the others."""
        return sum(_word_count(name, shape) for name, shape in self.parts)

    def is_shared(self, name: str) -> bool:
        """Whether the images of a pair share this part."""
        return self.mutual and not PARTS[name].erases

    @functools.cached_property
    def table(self) -> int:
        """Words in the table of this pass."""
        return self.entries * int(self.entry.width)

    @functools.cached_property
    def words(self) -> int:
        """Words of this pass, without further ones."""
        return _rounded_up(self.table + self.batch * (1 + 2 * self.partner_count))

    @functools.cached_property
    def key(self) -> str:
        """The layout as a string, which can be passed to an operator; :func:`layout_from_key` parses it."""
        return json.dumps(asdict(self))


@functools.lru_cache(maxsize=256)
def _one_layout(**fields: Any) -> Layout:
    """One object for equal layouts, so that offsets are computed once."""
    return Layout(**fields)


class PackedPlan:
    """A plan on a device. ``copy_`` replaces its numbers in place, for example before a CUDA graph is replayed.

    Attributes:
        words: the plan, int32; further passes follow the first.
        layout: what the words mean.
        key: the layout as a string.
        whole_fill: whether integer images can hold its fill.
    """

    def __init__(self, words: Tensor, layout: Layout, *, whole_fill: bool = True) -> None:
        self.words = words
        self.layout = layout
        self.key = layout.key
        self.whole_fill = whole_fill

    def __len__(self) -> int:
        return self.layout.batch

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` of the images."""
        return self.layout.size

    @property
    def fill_mean(self) -> bool:
        """As in the plan."""
        return self.layout.fill_mean

    @property
    def then(self) -> "PackedPlan | None":
        """The further passes, in the same memory."""
        later = self.layout.then
        return None if later is None else PackedPlan(self.words[self.layout.words :], later, whole_fill=self.whole_fill)

    @property
    def partners(self) -> Tensor:
        """``[B, K]`` int32, on the device."""
        batch, several = self.layout.batch, self.layout.partner_count
        start = self.layout.table
        return self.words[start : start + batch * several].view(batch, several)

    @property
    def shares(self) -> Tensor:
        """``[B, 1 + K]`` float32, on the device."""
        batch, several = self.layout.batch, self.layout.partner_count
        start = self.layout.table + batch * several
        return self.words[start : start + batch * (1 + several)].view(torch.float32).view(batch, 1 + several)

    def copy_(self, plan: MixPlan) -> "PackedPlan":
        """Replace the numbers by those of ``plan``, in one copy that does not block the host.

        Raises:
            ValueError, TypeError: if ``plan`` has parts or pairs that do not fit, or numbers out of bounds.
            RuntimeError: while a CUDA graph is captured.
        """
        _check_room(check_kind("plan", plan, MixPlan), self.layout)
        self.words.copy_(_words_on_host(plan, self.layout, self.words.device), non_blocking=True)
        self.whole_fill = _whole_fill(plan)
        return self

    def unpack(self) -> MixPlan:
        """The plan on the host; waits for the device."""
        return _plan_of_words(self.words.cpu().numpy(), self.layout)


def pack(plan: MixPlan, device: torch.device | str) -> PackedPlan:
    """Copy ``plan`` to ``device`` from pinned memory. The host does not wait for the copy, and the current stream only
    where it reads the plan.

    Raises:
        ValueError, TypeError: if a number of the plan is out of bounds.
        RuntimeError: while a CUDA graph is captured, which would repeat the copy of this plan.
    """
    device = check_device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    layout = layout_of(check_kind("plan", plan, MixPlan))
    words = _words_on_host(plan, layout, device)
    if device.type == "cuda" and not torch.cuda.current_stream(device).query():
        words = _overtaking(words, device)
    else:  # the stream is idle, so the copy starts at once
        words = words.to(device, non_blocking=True)
    return PackedPlan(words, layout, whole_fill=_whole_fill(plan))


def _overtaking(words: Tensor, device: torch.device, streams: Any = torch.cuda) -> Tensor:
    """Copy ``words`` to ``device`` on a separate stream, without waiting for the work queued on the current one.

    Between two kernels of one stream, a copy costs 11 µs on an H200, a third of the mixing. A second stream costs 20 µs
    on the host, which has the time if the device is behind.
    """
    copying, reading = copy_stream(device, streams), streams.current_stream(device)
    with streams.stream(copying):
        there = torch.empty_like(words, device=device).copy_(words, non_blocking=True)
    copied = streams.Event()
    copied.record(copying)
    reading.wait_event(copied)
    if there.is_cuda:  # allocated on the copy stream, which must not reuse it while it is read
        there.record_stream(reading)
    return there


@functools.cache
def copy_stream(device: torch.device, streams: Any) -> Any:
    """The stream that copies plans to a device."""
    return streams.Stream(device=device)


def is_whole(fill: Array | None) -> bool:
    """Whether integer images can hold this fill."""
    largest = min(LEVELS.values())
    return fill is None or not fill.any() or not bool(((fill < 0) | (fill > largest) | (fill % 1 != 0)).any())


def _whole_fill(plan: MixPlan) -> bool:
    return is_whole(plan.fill) and (plan.then is None or _whole_fill(plan.then))


@functools.lru_cache(maxsize=256)
def layout_from_key(key: str) -> Layout:
    """The layout whose ``key`` this is."""
    return _layout_of_fields(json.loads(key))


def _layout_of_fields(fields: dict[str, Any]) -> Layout:
    parts = tuple((name, tuple(shape)) for name, shape in fields["parts"])
    then = fields["then"] and _layout_of_fields(fields["then"])
    return _one_layout(**{**fields, "size": tuple(fields["size"]), "parts": parts, "then": then})


def layout_of(plan: MixPlan) -> Layout:
    """The layout of the words of ``plan``."""
    check_bounds(plan)
    pairs = _pairs_to_mix_at_once(plan)
    return _one_layout(
        batch=len(plan),
        size=plan.size,
        partner_count=plan.partners.shape[1],
        entries=len(plan if pairs is None else pairs),
        paired=pairs is not None,
        mutual=pairs is not None and plan.mutual,
        fill_mean=plan.fill_mean,
        parts=tuple(plan.shapes.items()),
        then=None if plan.then is None else layout_of(plan.then),
    )


def _words_on_host(plan: MixPlan, layout: Layout, device: torch.device) -> Tensor:
    """The words of a plan on the host, pinned if they go to a GPU."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "plan must be packed before a CUDA graph is captured, or each replay would repeat it: pass the result of "
            "pack(plan, device), and copy_ the next plan into it before each replay"
        )
    passes = [(plan, layout)]
    while plan.then is not None and layout.then is not None:
        plan, layout = plan.then, layout.then
        passes.append((plan, layout))
    count, pinned = sum(one.words for _, one in passes), device.type == "cuda"
    words = torch.empty(count, dtype=torch.int32, device="cpu", pin_memory=pinned)
    unwritten = words.numpy()
    for part, one in passes:
        _write_pass(part, one, unwritten[: one.words])
        unwritten = unwritten[one.words :]
    return words


def _write_pass(plan: MixPlan, layout: Layout, words: Array) -> None:
    """Write one pass."""
    pairs = _pairs_to_mix_at_once(plan) if layout.paired else None
    table = words[: layout.table].reshape(layout.entries, layout.entry.width)
    begin, end, second = layout.index_words, layout.index_words + layout.part_words, layout.entry.second
    if pairs is None:
        table[:, 0] = np.arange(layout.batch)
        table[:, 1:begin] = plan.partners
        rows = table[:, begin:end]
    else:
        table[:, :2] = pairs
        rows = np.empty((layout.batch, layout.part_words), np.int32)
    for name, shape in layout.parts:
        values = _as_words(name, _padded(name, getattr(plan, name), (layout.batch, *shape)))
        start = getattr(layout.entry, name) - begin
        rows[:, start : start + values.shape[1]] = values
    if pairs is not None:
        table[:, begin:end] = rows[pairs[:, 0]]
        if second > 0:
            table[:, end : end + second] = rows[pairs[:, 1], -second:]
    labels = words[layout.table :]
    count = plan.partners.size
    labels[:count] = plan.partners.ravel()
    labels[count : count + plan.shares.size] = plan.shares.ravel().view(np.int32)


def _check_room(plan: MixPlan | None, layout: Layout | None) -> None:
    """Refuse a plan that does not fit the layout of a packed one."""
    if (plan is None) != (layout is None):
        raise ValueError("plan must have as many passes as the packed plan; pack it again")
    if plan is None or layout is None:
        return
    check_bounds(plan)
    wanted = (layout.batch, layout.size, layout.partner_count, layout.fill_mean)
    given = (len(plan), plan.size, plan.partners.shape[1], plan.fill_mean)
    if given != wanted:
        raise ValueError(
            f"plan must have the (batch, size, partners, fill_mean) {wanted} of the packed plan, got {given}"
        )
    for name in plan.shapes:
        if name not in layout.shapes:
            raise ValueError(f"plan has a part {name!r} that the packed plan has no room for; pack it again")
    pairs = _pairs_to_mix_at_once(plan)
    if layout.paired and (pairs is None or len(pairs) != layout.entries):
        raise ValueError(f"plan must make {layout.entries} pairs, as the packed plan does; pack it again")
    if layout.mutual and not plan.mutual:
        raise ValueError("plan must mix both images of a pair in the same way, as the packed plan does; pack it again")
    _check_room(plan.then, layout.then)


def _pairs_to_mix_at_once(plan: MixPlan) -> Array | None:
    """The pairs, if one program can mix both images of each; not if it resizes, which reads other pixels."""
    return None if plan.own_outside is None or plan.resized is not None else plan.pairs


def _padded(name: str, array: Array | None, shape: tuple[int, ...]) -> Array:
    """``array`` padded to ``shape`` with values that leave images unchanged."""
    if array is not None and array.shape != shape:
        fits = all(have <= room for have, room in zip(array.shape, shape, strict=True))
        if not fits or (name == "fill" and array.shape[2] != shape[2]):
            raise ValueError(f"plan.{name} must fit the packed plan's {shape}, got {array.shape}; pack it again")
    return padded(array, shape, PARTS[name].neutral, PARTS[name].dtype)


def _as_words(name: str, array: Array) -> Array:
    """``[B, words]`` int32: floats as their bits, bitmaps as bytes, numbers below 2**32 as unsigned."""
    flat = array.reshape(len(array), math.prod(array.shape[1:]))
    if PARTS[name].dtype is np.float32:
        return np.ascontiguousarray(flat, np.float32).view(np.int32)
    if PARTS[name].dtype is np.uint8:
        whole_words = np.zeros((len(flat), 4 * _word_count(name, array.shape[1:])), np.uint8)
        whole_words[:, : flat.shape[1]] = flat
        return whole_words.view(np.int32)
    return flat.astype(np.uint32).view(np.int32) if PARTS[name].dtype is np.int64 else flat


def _plan_of_words(words: Array, layout: Layout) -> MixPlan:
    """The plan of these words, for all passes; the inverse of :func:`_write_pass`."""
    table = words[: layout.table].reshape(layout.entries, layout.entry.width)
    order = table[:, :2].T.ravel() if layout.paired else table[:, 0]
    parts: dict[str, Any] = {}
    for name, shape in layout.parts:
        start, count = getattr(layout.entry, name), _word_count(name, shape)
        values = table[:, start : start + count]
        if layout.paired:
            start += 0 if layout.is_shared(name) else layout.entry.second
            values = np.concatenate([values, table[:, start : start + count]])
        rows = np.empty((layout.batch, count), np.int32)
        rows[order] = values
        parts[name] = _from_words(name, rows, shape)
    labels, count = words[layout.table :], layout.batch * layout.partner_count
    shares = labels[count : count + layout.batch * (1 + layout.partner_count)].view(np.float32)
    plan = MixPlan(
        size=layout.size,
        partners=labels[:count].reshape(layout.batch, layout.partner_count).astype(np.int64),
        shares=shares.reshape(layout.batch, 1 + layout.partner_count).copy(),
        fill_mean=layout.fill_mean,
        then=None if layout.then is None else _plan_of_words(words[layout.words :], layout.then),
        **parts,
    )
    return plan.set_pairs(table[:, :2].astype(np.int64), layout.mutual) if layout.paired else plan


def _from_words(name: str, rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of :func:`_as_words`."""
    dtype = PARTS[name].dtype
    if dtype is np.uint8:
        rows = rows.view(np.uint8)[:, : math.prod(shape)]
    elif dtype is np.int64:
        rows = rows.view(np.uint32).astype(np.int64)
    else:
        rows = rows.view(np.float32) if dtype is np.float32 else rows.astype(dtype, copy=False)
    return rows.reshape(len(rows), *shape)


def _word_count(name: str, shape: tuple[int, ...]) -> int:
    items = math.prod(shape)
    return -(-items // 4) if PARTS[name].dtype is np.uint8 else items


def _rounded_up(words: int) -> int:
    return -(-words // 4) * 4
