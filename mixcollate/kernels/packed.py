"""A plan as one int32 tensor, so that it crosses to a device in one copy and a captured graph can be given a new one.

Each pass of the plan is a table with a row for each image (a row for each pair, where both can be mixed by one
program), then the partners and shares that labels need. A row holds the numbers of its images, then what they share,
then what the first has of its own, then the second; floats as their bits, bitmaps as bytes.
"""

import functools
import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixcollate.plan import PARTS, Array, MixPlan

ERASING = ("erase_box", "grid", "turn", "cell", "hidden", "fill", "noise")
FLOATS = ("own_outside", "own_inside", "turn", "fill")
BITS = ("bitmap", "hidden")


class RowFormat(NamedTuple):
    """Where a kernel finds what in a row of the table; a part at 0 is absent.

    Attributes:
        width: words in a row.
        images: how many images a row writes: 2 for a pair, else 1.
        partners: how many partners each image has.
        mutual: whether the images of a pair share the numbers of their mixing; what erases them is their own.
        second: words from what the first image of a pair has of its own to what the second has.
        boxes: boxes to erase in each image.
        fills: numbers in each fill.
        bitmap_line: bits in a line of the bitmap.
        hidden_line: bits in a line of hidden cells.
    """

    width: int
    images: int
    partners: int
    mutual: bool
    second: int = 0
    boxes: int = 0
    fills: int = 0
    bitmap_line: int = 0
    hidden_line: int = 0
    own_outside: int = 0
    own_inside: int = 0
    box: int = 0
    bitmap: int = 0
    resized: int = 0
    corner: int = 0
    shift: int = 0
    erase_box: int = 0
    grid: int = 0
    turn: int = 0
    cell: int = 0
    hidden: int = 0
    fill: int = 0
    noise: int = 0


@dataclass(frozen=True)
class Layout:
    """What the words of a packed plan mean: all of a plan but its numbers.

    Attributes:
        batch: number of images.
        size: ``(height, width)`` of the images.
        partners: how many each image has.
        rows: of the table; fewer than ``batch`` if a row is a pair.
        paired: whether a row is a pair.
        mutual: whether its images share the numbers of their mixing.
        fill_mean: as in the plan.
        parts: name and shape (of one image) of each part that is there.
        then: the layout of the further passes.
    """

    batch: int
    size: tuple[int, int]
    partners: int
    rows: int
    paired: bool
    mutual: bool
    fill_mean: bool
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    then: "Layout | None" = None

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.parts)

    @functools.cached_property
    def row(self) -> RowFormat:
        """The offsets of the parts in a row."""
        place: dict[str, int] = {}
        end = 2 if self.paired else 1 + self.partners
        for name, shape in self.parts:
            if self.shares(name):
                place[name], end = end, end + _words(name, shape)
        start = end
        for name, shape in self.parts:
            if not self.shares(name):
                place[name], end = end, end + _words(name, shape)
        second = end - start
        return RowFormat(
            width=_aligned(end + second if self.paired else end),
            images=2 if self.paired else 1,
            partners=self.partners,
            mutual=self.mutual,
            second=second,
            boxes=self.shapes.get("erase_box", (0,))[0],
            fills=self.shapes.get("fill", (0, 0))[1],
            bitmap_line=8 * self.shapes.get("bitmap", (0, 0))[1],
            hidden_line=8 * self.shapes.get("hidden", (0, 0))[1],
            **place,
        )

    def shares(self, name: str) -> bool:
        """Whether the images of a pair share this part."""
        return self.mutual and name not in ERASING

    @functools.cached_property
    def table(self) -> int:
        """Words in the table of this pass."""
        return self.rows * self.row.width

    @functools.cached_property
    def words(self) -> int:
        """Words of this pass alone."""
        return _aligned(self.table + self.batch * (1 + 2 * self.partners))

    @functools.cached_property
    def key(self) -> str:
        """The layout as text, which an operator can take; :func:`layout_from_key` reads it."""
        return json.dumps(asdict(self))


@functools.lru_cache(maxsize=256)
def _interned(**fields: Any) -> Layout:
    """One object for equal layouts, so that each computes its offsets once."""
    return Layout(**fields)


class PackedPlan:
    """A plan on a device. ``copy_`` replaces its numbers in place, as before the replay of a CUDA graph.

    Attributes:
        words: the plan, int32; further passes follow the first.
        layout: what the words mean.
        key: the layout as text.
        whole_fill: whether its fill can be that of integer images.
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
        return self.layout.size

    @property
    def fill_mean(self) -> bool:
        return self.layout.fill_mean

    @property
    def then(self) -> "PackedPlan | None":
        later = self.layout.then
        return None if later is None else PackedPlan(self.words[self.layout.words :], later, whole_fill=self.whole_fill)

    @property
    def partners(self) -> Tensor:
        """``[B, K]`` int32 on the device, as the plan's."""
        start, count = self.layout.table, self.layout.batch * self.layout.partners
        return self.words[start : start + count].view(self.layout.batch, self.layout.partners)

    @property
    def shares(self) -> Tensor:
        """``[B, 1 + K]`` float32 on the device, as the plan's."""
        start = self.layout.table + self.layout.batch * self.layout.partners
        count = self.layout.batch * (1 + self.layout.partners)
        return self.words[start : start + count].view(torch.float32).view(self.layout.batch, 1 + self.layout.partners)

    def copy_(self, plan: MixPlan) -> "PackedPlan":
        """Replace the numbers by those of ``plan``, in one copy that the host does not wait for.

        Raises:
            ValueError: if ``plan`` has parts, or pairs, that this one has no words for.
        """
        _check(plan, self.layout)
        self.words.copy_(_staged(plan, self.layout, self.words.device), non_blocking=True)
        self.whole_fill = _whole_fill(plan)
        return self

    def unpack(self) -> MixPlan:
        """The plan on the host; waits for the device."""
        return _read(self.words.cpu().numpy(), self.layout)


def pack(plan: MixPlan, device: torch.device | str) -> PackedPlan:
    """``plan`` on ``device``: one pinned buffer, one copy that the host does not wait for.

    Raises:
        ValueError: if a partner is not in the batch.
    """
    layout = _layout(plan)
    words = _staged(plan, layout, torch.device(device)).to(device, non_blocking=True)
    return PackedPlan(words, layout, whole_fill=_whole_fill(plan))


def is_whole(fill: Array | None) -> bool:
    """Whether integer images can take this fill."""
    return fill is None or not fill.any() or not bool(((fill < 0) | (fill > 255) | (fill % 1 != 0)).any())


def _whole_fill(plan: MixPlan) -> bool:
    return is_whole(plan.fill) and (plan.then is None or _whole_fill(plan.then))


@functools.lru_cache(maxsize=256)
def layout_from_key(key: str) -> Layout:
    """The layout that ``key`` is the text of."""
    return _layout_from(json.loads(key))


def _layout_from(fields: dict[str, Any]) -> Layout:
    parts = tuple((name, tuple(shape)) for name, shape in fields["parts"])
    then = fields["then"] and _layout_from(fields["then"])
    return _interned(**{**fields, "size": tuple(fields["size"]), "parts": parts, "then": then})


def _layout(plan: MixPlan) -> Layout:
    check_partners(plan)
    pairs = _pairs(plan)
    return _interned(
        batch=len(plan),
        size=plan.size,
        partners=plan.partners.shape[1],
        rows=len(plan if pairs is None else pairs),
        paired=pairs is not None,
        mutual=pairs is not None and plan.mutual,
        fill_mean=plan.fill_mean,
        parts=tuple(plan.shapes.items()),
        then=None if plan.then is None else _layout(plan.then),
    )


def _staged(plan: MixPlan, layout: Layout, device: torch.device) -> Tensor:
    """The words of a plan on the host: pinned, if they go to a GPU."""
    passes = [layout]
    while passes[-1].then is not None:
        passes.append(passes[-1].then)
    words = torch.empty(sum(one.words for one in passes), dtype=torch.int32, pin_memory=device.type == "cuda")
    start, array = 0, words.numpy()
    current: MixPlan | None = plan
    for one in passes:
        if current is not None:
            _write(current, one, array[start : start + one.words])
            start, current = start + one.words, current.then
    return words


def _write(plan: MixPlan, layout: Layout, words: Array) -> None:
    """Write one pass."""
    pairs = _pairs(plan) if layout.paired else None
    table = words[: layout.table].reshape(layout.rows, layout.row.width)
    if pairs is None:
        table[:, 0] = np.arange(layout.batch)
        table[:, 1 : 1 + layout.partners] = plan.partners
    else:
        table[:, :2] = pairs
    for name, shape in layout.parts:
        values = _as_words(name, _fitted(name, getattr(plan, name), (layout.batch, *shape)))
        start, count = getattr(layout.row, name), values.shape[1]
        table[:, start : start + count] = values if pairs is None else values[pairs[:, 0]]
        if pairs is not None and not layout.shares(name):
            start += layout.row.second
            table[:, start : start + count] = values[pairs[:, 1]]
    labels = words[layout.table :]
    count = plan.partners.size
    labels[:count] = plan.partners.ravel()
    labels[count : count + plan.shares.size] = plan.shares.ravel().view(np.int32)


def _check(plan: MixPlan | None, layout: Layout | None) -> None:
    """Refuse a plan that a packed one has no room for."""
    if (plan is None) != (layout is None):
        raise ValueError("plan must have as many passes as the packed plan; pack it anew")
    if plan is None or layout is None:
        return
    check_partners(plan)
    wanted = (layout.batch, layout.size, layout.partners, layout.fill_mean)
    given = (len(plan), plan.size, plan.partners.shape[1], plan.fill_mean)
    if given != wanted:
        raise ValueError(
            f"plan must have the (batch, size, partners, fill_mean) {wanted} of the packed plan, got {given}"
        )
    for name in plan.shapes:
        if name not in layout.shapes:
            raise ValueError(f"plan has a part {name!r} that the packed plan has no words for; pack it anew")
    pairs = _pairs(plan)
    if layout.paired and (pairs is None or len(pairs) != layout.rows):
        raise ValueError(f"plan must make {layout.rows} pairs, as the packed plan does; pack it anew")
    if layout.mutual and not plan.mutual:
        raise ValueError("plan must mix both images of a pair in the same way, as the packed plan does; pack it anew")
    _check(plan.then, layout.then)


def check_partners(plan: MixPlan) -> None:
    """Refuse partners that are not in the batch."""
    if plan.pairs is None and plan.partners.size and not 0 <= plan.partners.min() <= plan.partners.max() < len(plan):
        raise ValueError(
            f"plan.partners must be in 0 … {len(plan) - 1}, got {plan.partners.min()} … {plan.partners.max()}"
        )


def _pairs(plan: MixPlan) -> Array | None:
    """The pairs of which one program can mix both images; resizing reads elsewhere."""
    return None if plan.own_outside is None or plan.resized is not None else plan.pairs


def _fitted(name: str, array: Array | None, shape: tuple[int, ...]) -> Array:
    """``array`` padded to ``shape`` with what leaves an image as it is."""
    if array is None:
        return np.full(shape, PARTS[name], np.float32 if name in FLOATS else np.uint8 if name in BITS else np.int64)
    if array.shape == shape:
        return array
    fits = all(have <= room for have, room in zip(array.shape, shape, strict=True))
    if not fits or (name == "fill" and array.shape[2] != shape[2]):
        raise ValueError(f"plan.{name} must fit the packed plan's {shape}, got {array.shape}; pack it anew")
    padding = [(0, room - have) for have, room in zip(array.shape, shape, strict=True)]
    return np.pad(array, padding, constant_values=PARTS[name])


def _as_words(name: str, array: Array) -> Array:
    """``[B, words]`` int32: floats as their bits, bitmaps as their bytes, numbers below 2**32 modulo 2**32."""
    flat = array.reshape(len(array), -1)
    if name in FLOATS:
        return np.ascontiguousarray(flat, np.float32).view(np.int32)
    if name in BITS:
        padded = np.zeros((len(flat), 4 * _words(name, array.shape[1:])), np.uint8)
        padded[:, : flat.shape[1]] = flat
        return padded.view(np.int32)
    return flat.astype(np.uint32).view(np.int32) if name == "noise" else flat


def _read(words: Array, layout: Layout) -> MixPlan:
    """The inverse of writing, for all passes."""
    table = words[: layout.table].reshape(layout.rows, layout.row.width)
    order = table[:, :2].T.ravel() if layout.paired else table[:, 0]
    parts: dict[str, Any] = {}
    for name, shape in layout.parts:
        start, count = getattr(layout.row, name), _words(name, shape)
        values = table[:, start : start + count]
        if layout.paired:
            start += 0 if layout.shares(name) else layout.row.second
            values = np.concatenate([values, table[:, start : start + count]])
        rows = np.empty((layout.batch, count), np.int32)
        rows[order] = values
        parts[name] = _from_words(name, rows, shape)
    labels, count = words[layout.table :], layout.batch * layout.partners
    shares = labels[count : count + layout.batch * (1 + layout.partners)].view(np.float32)
    return MixPlan(
        size=layout.size,
        partners=labels[:count].reshape(layout.batch, layout.partners).astype(np.int64),
        shares=shares.reshape(layout.batch, 1 + layout.partners).copy(),
        fill_mean=layout.fill_mean,
        then=None if layout.then is None else _read(words[layout.words :], layout.then),
        **parts,
    )


def _from_words(name: str, rows: Array, shape: tuple[int, ...]) -> Array:
    if name in FLOATS:
        rows = rows.view(np.float32)
    elif name in BITS:
        rows = rows.view(np.uint8)[:, : int(np.prod(shape))]
    elif name == "noise":
        rows = rows.view(np.uint32).astype(np.int64)
    elif name == "resized":
        rows = rows.astype(np.int8)
    return rows.reshape(len(rows), *shape)


def _words(name: str, shape: tuple[int, ...]) -> int:
    items = int(np.prod(shape))
    return -(-items // 4) if name in BITS else items


def _aligned(words: int) -> int:
    return -(-words // 4) * 4
