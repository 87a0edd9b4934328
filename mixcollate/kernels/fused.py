"""The pixel rules of ``reference`` in Triton: one pass over the pixels, specialised on the parts that a plan has.

A program works on a tile of ``VECTORS`` x ``VEC`` places of one image, or of both images of a pair, where ``VEC``
places are 16 bytes of the output. A place is a pixel, of which a program handles several channels; from channels-last
to channels-last ("lines") a place is one element, in memory order. If images that are not pairs are mixed in place, a
tile holds a few vectors of every image, so that everything is read before anything is overwritten.
"""

# ruff: noqa: RUF005 - Triton adds tuples, but does not unpack them
# mypy: disable-error-code="attr-defined, no-untyped-call, call-arg, arg-type, assignment, misc, var-annotated"
# (to mypy a kernel is a plain function, and constexpr a class without attributes)
#
# How to read this file. `ENTRY` holds the offsets of the parts in an entry of the plan, `SHAPE` describes images and
# tiles. Both are compile-time constants: an `if` on them costs nothing, and parts that a plan lacks are not compiled.
# Per-place tensors are `[vectors, vec]`, or `[vectors, 1]` if they are equal within a vector: a thread holds whole
# vectors, so such values are computed once per vector.
#
# Memory orders. "planes" and "lines" are the two dense ones, where a vector is 16 contiguous bytes. Between the two, a
# place would be read and written at different strides; for three channels ("interleaved") three whole vectors are read
# and sorted in registers instead. Anything else is "strided": correct, but slow.
#
# Three levels of skipping, since in place unchanged pixels need not move: nothing is launched if no part of the plan
# has an effect (`mix`); a program whose rows are unchanged returns after a few scalar loads (`_any_changed_in_tile`);
# in all others, unchanged vectors are neither read nor written (`_needed_vectors`). In place or not, a vector that
# comes wholly from one image is not read from the other.
#
# Triton also compiles the code after a `return` in a branch: if results differ in shape, that code needs an `else`.

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixcollate.kernels.bounds import ONE
from mixcollate.kernels.fused_targets import NO_ROWS, UNSPECIALISED, UnwrittenTargets, write_soft_target
from mixcollate.kernels.launch import launch
from mixcollate.kernels.noise import ERFINV_CENTRE, ERFINV_TAIL
from mixcollate.kernels.overlap import reach_into_each_other
from mixcollate.kernels.packed import EntryFormat, PackedPlan
from mixcollate.kernels.pixels import Affine
from mixcollate.plan import FAR

VECTORS = 128  # one per thread, in 4 warps
VECTORS_OF_ALL = 2048  # in a tile of all images: two per thread, in 32 warps
MOST_IMAGES = 1024  # in such a tile; the values of more would not fit into registers
GRID_LIMIT = 65535  # programs on the second axis of a launch

_GRID_LIMIT = tl.constexpr(GRID_LIMIT)
_FAR = tl.constexpr(FAR)
_ONE = tl.constexpr(ONE)  # shares are compared as bits: the interpreter cannot compare scalar floats
_CENTRE = tl.constexpr(ERFINV_CENTRE)
_TAIL = tl.constexpr(ERFINV_TAIL)


class Geometry(NamedTuple):
    """What a kernel is specialised on, in addition to the plan's layout.

    Attributes:
        height, width, channels: of an image.
        group: channels per program; 1 in lines, where each place belongs to one channel.
        read: memory order of the images: ``"planes"`` (each channel dense), ``"lines"`` (dense channels-last),
            ``"interleaved"`` (lines of 3 channels, where places are pixels: read in whole vectors, and sorted in
            registers) or ``"strided"``.
        write: memory order of the output, likewise.
        vectors, vec: the size of a tile.
        programs: number of programs for one entry of the plan, with all of its channels.
        batch: number of images, if a tile holds vectors of all of them; otherwise 0.
        each: number of vectors of each image.
        normalise: whether there are scale and bias.
        skip: whether only vectors that change are read and written (in place, without normalising).
        exact: whether to select instead of multiplying for shares of 0 and 1, as floats may be infinite.
        rounded: whether the output is integer.
        real: the dtype of the arithmetic.
        warps: per program, so that a thread has one vector, or two in a tile of all images.
    """

    height: int
    width: int
    channels: int
    group: int
    read: str
    write: str
    vectors: int
    vec: int
    programs: int
    batch: int
    each: int
    normalise: bool
    skip: bool
    exact: bool
    rounded: bool
    real: tl.dtype
    warps: int

    __hash__ = object.__hash__  # cached, one object per kind of batch: no need to hash twenty fields at each launch


def mix(
    images: Tensor, plan: PackedPlan, out: Tensor, *, affine: Affine | None, targets: UnwrittenTargets | None = None
) -> None:
    """One pass over ``images [B, C, H, W]`` into ``out``, which may be ``images``: mix, normalise, erase, cast.

    Mixing in place needs no copy of the batch, unless the plan joins pieces or resizes, or partners are not pairs and
    the batch has more than 1024 images. ``targets`` are written by the same launch.
    """
    if out.numel() == 0:
        if targets is not None:
            targets.write()
        return
    entry, entries = plan.layout.entry, plan.layout.entries
    in_place = out.data_ptr() == images.data_ptr()
    if in_place and targets is not None and reach_into_each_other([out, targets.labels]):
        targets.write()  # from the images as they were: for an autoencoder, they are the labels
        targets = None
    # In place, a partner may have been overwritten already. A pair is safe, since one program reads and writes both.
    # Any other partners need one program for all images, or a copy to read from.
    together = in_place and not plan.layout.paired and bool(entry.own_outside or entry.corner)
    if together and (entry.corner or entry.resized or entries > MOST_IMAGES):
        images, together = images.clone(), False
    by_pixel = is_by_pixel(entry, images.itemsize + out.itemsize) and not together
    geometry = _geometry(images, out, in_place=in_place, normalise=affine is not None, by_pixel=by_pixel)
    shape = geometry
    if together:
        shape, entries = _of_all_images(geometry, entries, VECTORS_OF_ALL), 1
    # The first level of skipping: no part of the plan has an effect.
    if entry.own_outside or entry.corner or entry.erase_box or entry.grid or entry.hidden or not shape.skip:
        # One further program per image writes its soft target: a launch of its own would cost more.
        programs = shape.programs if targets is None else shape.programs + -(-len(targets.labels) // entries)
        launch(
            mix_kernel,
            _launch_grid(entries, programs),
            (images, out, plan.words, *(affine or (out, out)), *(targets.tensors if targets else (out, out, out))),
            (*images.stride(), *out.stride(), *(targets.numbers if targets else (0, 0))),
            (entry, shape, targets.rows if targets else NO_ROWS),
            num_warps=shape.warps,
            enable_fp_fusion=False,  # so that a * b + c is rounded twice, as in plain torch
        )
    elif targets is not None:
        targets.write()
    if entry.noise:
        grid = _launch_grid(plan.layout.entries * entry.images, _tile_count(geometry))
        options = {"num_warps": geometry.warps, "enable_fp_fusion": False}
        launch(noise_kernel, grid, (out, plan.words), out.stride(), (entry, geometry), **options)


def is_by_pixel(entry: EntryFormat, moved: int) -> bool:
    """Whether a plan computes so much for each pixel that its channels should share it.

    Sorting channels-last pixels in registers makes memory slower, the more bytes are ``moved`` for an element. Measured
    on an H200: it pays for grids and resizing, except of float32, and for pieces and cells of uint8 that stays uint8 or
    becomes half precision.
    """
    return bool((entry.grid or entry.resized) and moved < 8) or bool((entry.corner or entry.hidden) and moved <= 3)


def _geometry(images: Tensor, out: Tensor, *, in_place: bool, normalise: bool, by_pixel: bool) -> Geometry:
    source, target = (images.stride(), images.dtype), (out.stride(), out.dtype)
    return _geometry_of(images.shape, source, target, in_place, normalise, by_pixel, VECTORS)


@functools.lru_cache(maxsize=256)
def _geometry_of(
    shape: tuple[int, ...], source: Any, target: Any, in_place: bool, normalise: bool, by_pixel: bool, vectors: int
) -> Geometry:
    """Cached: computed once per kind of batch."""
    strides, dtype = source
    out_strides, out_dtype = target
    channels, height, width = shape[1:]
    for one in (strides, out_strides):
        _check_extent(shape, one)
    read, write = _memory_order(shape, strides), _memory_order(shape, out_strides)
    vec = max(16 // out_dtype.itemsize, 1)  # the widest that a thread can write at once
    if by_pixel:
        vec = min(vec, 8)  # whose registers leave room for more threads
    # A vector is read in one access only if its address is known to be a multiple of its size: images and channels must
    # start at multiples of 16 elements, on which Triton specialises strides.
    steps = (height * width, strides[0], out_strides[0])
    aligned = all(step % 16 == 0 for step in steps)
    # If both sides have the same order, every access is a whole vector. Between planes and lines one side would be
    # accessed 2 bytes at a time; three channels are sorted in registers instead. If the channels of a pixel should
    # share what is computed, they are sorted even between lines and lines.
    sorts = by_pixel or read != write
    if sorts and "lines" in (read, write) and "strided" not in (read, write) and channels == 3 and aligned:
        read, write = ("interleaved" if order == "lines" else order for order in (read, write))
    elif read != write:
        read = write = "strided"
    vectors = 2 * vectors if write == "lines" else vectors  # one channel per place, so twice as many
    geometry = Geometry(
        height=height,
        width=width,
        channels=channels,
        group=1 if write == "lines" else 3 if channels % 3 == 0 else 2 if channels % 2 == 0 else 1,
        read=read,
        write=write,
        vectors=vectors,
        vec=vec,
        programs=0,
        batch=0,
        each=vectors,
        normalise=normalise,
        skip=in_place and not normalise,  # normalising changes every pixel
        exact=dtype.is_floating_point,
        rounded=not out_dtype.is_floating_point,
        real=tl.float64 if dtype == torch.float64 else tl.float32,
        warps=0,
    )
    vectors = min(vectors, _vectors_of_image(geometry))
    return _with_extent(geometry._replace(vectors=vectors, each=vectors))


@functools.lru_cache(maxsize=256)
def _of_all_images(geometry: Geometry, batch: int, vectors: int) -> Geometry:
    """The same geometry with tiles that hold two or more vectors of every image."""
    images: int = triton.next_power_of_2(batch)
    each = max(min(vectors // images, _vectors_of_image(geometry)), 2)
    # Many vectors of one channel rather than few of three: longer contiguous runs make memory faster.
    return _with_extent(geometry._replace(vectors=each * images, batch=batch, each=each, group=1))


def _with_extent(geometry: Geometry) -> Geometry:
    """The same geometry with the number of programs and their warps."""
    groups = 1 if geometry.write == "lines" else geometry.channels // geometry.group
    most = 32 if geometry.batch else 4
    warps = max(min(geometry.vectors // 32, most) * 32 // _threads_in_a_warp(), 1)
    return geometry._replace(programs=_tile_count(geometry) * groups, warps=warps)


def _places_of_image(geometry: Geometry) -> int:
    """Number of places in an image, or in one of its channels."""
    return geometry.height * geometry.width * (geometry.channels if geometry.write == "lines" else 1)


def _vectors_of_image(geometry: Geometry) -> int:
    """Number of vectors that hold them, rounded up to a power of two."""
    count: int = triton.next_power_of_2(-(-_places_of_image(geometry) // geometry.vec))
    return count


def _tile_count(geometry: Geometry) -> int:
    return -(-_places_of_image(geometry) // (geometry.each * geometry.vec))


def _memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> str:
    """The memory order of the pixels of one image; the stride of an axis of length 1 is ignored."""
    channels, height, width = shape[1:]
    _, channel, row, col = strides
    if (width == 1 or col == 1) and (height == 1 or row == width):
        return "planes"
    if channel == 1 and (width == 1 or col == channels) and (height == 1 or row == width * channels):
        return "lines"
    return "strided"


def _check_extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Refuse images whose offsets do not fit into 32 bits."""
    last = sum((length - 1) * abs(stride) for length, stride in zip(shape[1:], strides[1:], strict=True))
    if last >= 2**30:
        raise ValueError(f"an image must span at most 2**30 elements for impl='fused', got {last + 1}")


def _launch_grid(rows: int, programs: int) -> tuple[int, int, int]:
    """The grid, with images on the fastest axis: partners that other programs read at the same time are then cached."""
    return rows, min(programs, GRID_LIMIT), -(-programs // GRID_LIMIT)


@functools.cache
def _threads_in_a_warp() -> int:
    """64 on some AMD GPUs, otherwise 32."""
    return 32 if torch.version.hip is None else int(torch.cuda.get_device_properties(0).warp_size)


@triton.jit(do_not_specialize=UNSPECIALISED)
def mix_kernel(
    images_ptr,
    out_ptr,
    plan_ptr,
    scale_ptr,
    bias_ptr,
    labels_ptr,
    target_ptr,
    shares_ptr,
    image_stride,
    channel_stride,
    row_stride,
    col_stride,
    out_image_stride,
    out_channel_stride,
    out_row_stride,
    out_col_stride,
    batch,
    partners,
    ENTRY: tl.constexpr,
    SHAPE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One program mixes a tile of a group of channels of one image, of a pair, or of all images; or it writes a soft
    target.
    """
    group: tl.constexpr = SHAPE.group
    program = tl.program_id(1) + tl.program_id(2) * _GRID_LIMIT
    # All threads of a program take the same branch, and targets need fewer registers than pixels.
    if ROWS.kind != "":
        if program >= SHAPE.programs:
            row = (program - SHAPE.programs) * tl.num_programs(0) + tl.program_id(0)
            if row < batch:
                write_soft_target(row, batch, partners, plan_ptr, labels_ptr, target_ptr, shares_ptr, ROWS)
            return
    entry_ptr = plan_ptr + _entry_index(SHAPE).to(tl.int64) * ENTRY.width
    tile, channel = _tile_and_channel(program, SHAPE)
    # The second level of skipping; a tile of all images has no single entry to look at.
    if SHAPE.skip and SHAPE.batch == 0:
        if not _any_changed_in_tile(entry_ptr, tile, ENTRY, SHAPE):
            return
    start, place, row, x, live = _places_of_tile(tile, SHAPE)
    col = x
    if SHAPE.write == "lines":
        col = x // SHAPE.channels
        channel = x - col * SHAPE.channels
    image = tl.load(entry_ptr).to(tl.int64)
    other = image
    if ENTRY.partner_count > 0:
        other = tl.load(entry_ptr + 1).to(tl.int64)
    own = own_share(entry_ptr, row, col, x, live, ENTRY, SHAPE)
    others_own = own  # a mutual pair shares its numbers, so one difference serves both
    if ENTRY.images == 2 and not ENTRY.mutual:
        others_own = own_share(entry_ptr + ENTRY.second, row, col, x, live, ENTRY, SHAPE)
    itself = _is_its_own_partner(entry_ptr, image, other, ENTRY, SHAPE)
    mine, theirs, written = _needed_vectors(entry_ptr, start, row, col, x, live, ENTRY, SHAPE)

    # All loads come before any store: without alias analysis Triton cannot move a load above a store, and in a tile of
    # all images one thread reads what another writes.
    strides = (channel_stride, row_stride, col_stride)
    image_ptr = images_ptr + image * image_stride
    other_ptr = images_ptr + other * image_stride
    if ENTRY.corner:
        values = join_pieces(images_ptr, entry_ptr, row, col, channel, mine, image_stride, strides, ENTRY, SHAPE)
    else:
        values = _load_values(image_ptr, start, place, row, col, channel, mine, strides, SHAPE)
    others = values
    if ENTRY.resized:
        others = _load_partner(
            other_ptr, entry_ptr, tile, start, place, row, col, channel, theirs, strides, ENTRY, SHAPE
        )
    elif ENTRY.own_outside:
        others = _load_values(other_ptr, start, place, row, col, channel, theirs, strides, SHAPE)
    if SHAPE.normalise:
        scales = _load_per_channel(scale_ptr, channel, start, SHAPE)
        biases = _load_per_channel(bias_ptr, channel, start, SHAPE)

    # Tuples, because Triton has no lists of tensors. The loop is unrolled, so each channel stays in its registers.
    first = ()
    second = ()
    for c in tl.static_range(group):
        mixed, swapped = values[c].to(SHAPE.real), others[c].to(SHAPE.real)
        if ENTRY.own_outside:
            value, other_value = mixed, swapped
            mixed, swapped = blend(value, other_value, own, itself, SHAPE)
            if ENTRY.images == 2 and not ENTRY.mutual:
                swapped, _ = blend(other_value, value, others_own, itself, SHAPE)
        if SHAPE.normalise:
            mixed = mixed * scales[c] + biases[c]
            swapped = swapped * scales[c] + biases[c]
        first = first + (mixed,)
        second = second + (swapped,)
    if ENTRY.fill:
        first = erase_tile(first, entry_ptr, tile, start, row, col, x, channel, live, ENTRY, SHAPE)
        if ENTRY.images == 2:
            second = erase_tile(second, entry_ptr + ENTRY.second, tile, start, row, col, x, channel, live, ENTRY, SHAPE)

    order: tl.constexpr = SHAPE.write
    if order == "interleaved":
        first = _interleave(first[0], first[1], first[2])
        second = _interleave(second[0], second[1], second[2])
    out_strides = (out_channel_stride, out_row_stride, out_col_stride)
    if SHAPE.batch > 0:
        tl.debug_barrier()  # partners belong to other threads: all must have read before any writes
    for c in tl.static_range(group):
        target = _offsets(start, place, row, col, channel + c, out_strides, order, SHAPE)
        tl.store(out_ptr + image * out_image_stride + target, first[c].to(out_ptr.dtype.element_ty), mask=written)
        if ENTRY.images == 2:
            tl.store(out_ptr + other * out_image_stride + target, second[c].to(out_ptr.dtype.element_ty), mask=written)


@triton.jit
def _entry_index(SHAPE: tl.constexpr):
    """The row of the plan for this program; in a tile of all images, the row for each vector."""
    if SHAPE.batch == 0:
        return tl.program_id(0)
    else:
        return tl.minimum(tl.arange(0, SHAPE.vectors) // SHAPE.each, SHAPE.batch - 1)[:, None]


@triton.jit
def _tile_and_channel(program, SHAPE: tl.constexpr):
    """The tile of this program, and its first channel."""
    groups: tl.constexpr = 1 if SHAPE.write == "lines" else SHAPE.channels // SHAPE.group
    return program // groups, program % groups * SHAPE.group


@triton.jit
def _places_of_tile(tile, SHAPE: tl.constexpr):
    """The start of each vector of a tile, and for each place its index in memory order, its row, its position in that
    row, and whether it exists. Rows are ``[vectors, 1]`` if no vector crosses from one to the next.
    """
    unit: tl.constexpr = SHAPE.channels if SHAPE.write == "lines" else 1
    line: tl.constexpr = SHAPE.width * unit
    count: tl.constexpr = SHAPE.height * line
    # A vector within one row has one row number, and a vector wholly within the image has one mask. Shapes [vectors, 1]
    # tell the compiler so; then accesses stay 16 bytes wide, and divisions are made per vector, not per place.
    vector = tl.arange(0, SHAPE.vectors)
    start = ((tile * SHAPE.each + vector % SHAPE.each) * SHAPE.vec)[:, None]
    lane = tl.arange(0, SHAPE.vec)[None, :]
    place = start + lane
    if line % SHAPE.vec == 0:
        row = start // line
        x = start % line + lane
    else:
        row = place // line
        x = place % line
    if count % SHAPE.vec == 0:
        live = start < count
    else:
        live = place < count
    if SHAPE.batch > 0:
        live = live & (vector // SHAPE.each < SHAPE.batch)[:, None]  # padded to a power of two
    return start, place, row, x, live


@triton.jit
def _any_changed_in_tile(entry_ptr, tile, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """Whether the plan changes any pixel in the rows of a tile."""
    images: tl.constexpr = ENTRY.images
    mixings: tl.constexpr = 1 if ENTRY.mutual else images  # erasing is separate even in a mutual pair
    top, bottom = _rows_of_tile(tile, SHAPE)
    changes = top < 0  # never: a scalar False that the compiler can add to
    if ENTRY.corner:
        changes = top >= 0
    for side in tl.static_range(mixings):
        changes = changes | _any_mixed_in_rows(entry_ptr + side * ENTRY.second, top, bottom, ENTRY)
    for side in tl.static_range(images):
        changes = changes | _any_erased_in_rows(entry_ptr + side * ENTRY.second, top, bottom, ENTRY)
    return changes


@triton.jit
def _any_mixed_in_rows(entry_ptr, top, bottom, ENTRY: tl.constexpr):
    """Whether any pixel between two rows comes from the partner."""
    # Shares are compared as bits: the interpreter cannot compare scalar floats, and equal bits are equal shares.
    mixes = top < 0
    if ENTRY.own_outside:
        mixes = mixes | (tl.load(entry_ptr + ENTRY.own_outside) != _ONE)
        if ENTRY.box:
            mixes = mixes | (
                (tl.load(entry_ptr + ENTRY.own_inside) != _ONE) & _box_meets_rows(entry_ptr + ENTRY.box, top, bottom)
            )
    return mixes


@triton.jit
def _any_erased_in_rows(entry_ptr, top, bottom, ENTRY: tl.constexpr):
    """Whether anything is erased between two rows."""
    # Grids and cells only count as present or not: finding their rows would cost as much as it saves.
    boxes: tl.constexpr = ENTRY.boxes
    erases = top < 0
    for n in tl.static_range(boxes):
        erases = erases | _box_meets_rows(entry_ptr + ENTRY.erase_box + 4 * n, top, bottom)
    if ENTRY.grid:
        erases = erases | (tl.load(entry_ptr + ENTRY.grid) > 0)
    if ENTRY.hidden:
        # FAR is the side of the cells of images without hidden ones
        erases = erases | (tl.load(entry_ptr + ENTRY.cell) < _FAR)
    return erases


@triton.jit
def _rows_of_tile(tile, SHAPE: tl.constexpr):
    """The first row of a tile, and the one after its last."""
    line: tl.constexpr = SHAPE.width * (SHAPE.channels if SHAPE.write == "lines" else 1)
    places: tl.constexpr = SHAPE.vectors * SHAPE.vec
    return tile * places // line, ((tile + 1) * places - 1) // line + 1


@triton.jit
def _box_meets_rows(box_ptr, top, bottom):
    """Whether a box has any pixel between two rows."""
    begin, left, end, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
    return (begin < bottom) & (end > top) & (end > begin) & (right > left)


@triton.jit
def own_share(entry_ptr, row, col, x, live, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """``[vectors, 1 or vec]``: the image's own share of each place."""
    own = tl.full([SHAPE.vectors, 1], 1.0, tl.float32)
    if ENTRY.own_outside:
        own = own * _load_float(entry_ptr + ENTRY.own_outside)
        if ENTRY.box:
            inside = in_box(entry_ptr + ENTRY.box, row, x, SHAPE)
            if ENTRY.bitmap:
                inside = inside & _load_bits(entry_ptr + ENTRY.bitmap, row * ENTRY.bitmap_line + col, live)
            own = tl.where(inside, _load_float(entry_ptr + ENTRY.own_inside), own)
    return own


@triton.jit
def in_box(box_ptr, row, x, SHAPE: tl.constexpr):
    """Which places lie in a box. In lines its edges are scaled, instead of dividing every position by the channels."""
    unit: tl.constexpr = SHAPE.channels if SHAPE.write == "lines" else 1
    top, left, bottom, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
    # One comparison per place: positions left of the box wrap around, and in other rows the box has width 0.
    width = tl.where((row >= top) & (row < bottom), tl.maximum(right - left, 0) * unit, 0)
    return (x - left * unit).to(tl.uint32, bitcast=True) < width.to(tl.uint32, bitcast=True)


@triton.jit
def _needed_vectors(entry_ptr, start, row, col, x, live, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """For which vectors the image is read, for which its partner, and which are written; possibly a few too many.

    ``[vectors, 1]`` if possible, because with one mask value per vector accesses stay 16 bytes wide.
    """
    images: tl.constexpr = ENTRY.images
    mixings: tl.constexpr = 1 if ENTRY.mutual else images
    written = live
    if SHAPE.skip and not ENTRY.corner:
        changes = start < 0
        for side in tl.static_range(mixings):
            changes = changes | _vectors_with_share_other_than(
                1, entry_ptr + side * ENTRY.second, start, row, x, ENTRY, SHAPE
            )
        for side in tl.static_range(images):
            changes = changes | _vectors_with_erased_places(
                entry_ptr + side * ENTRY.second, start, row, col, x, live, ENTRY, SHAPE
            )
        written = live & changes
    # At a share of 0 the image need not be read, at 1 its partner need not: CutMix moves no more bytes than a copy. A
    # pair reads both, since each needs the other.
    mine = written
    theirs = written
    if ENTRY.own_outside and ENTRY.images == 1:
        mine = written & _vectors_with_share_other_than(0, entry_ptr, start, row, x, ENTRY, SHAPE)
        theirs = written & _vectors_with_share_other_than(1, entry_ptr, start, row, x, ENTRY, SHAPE)
    return mine, theirs, written


@triton.jit
def _vectors_with_share_other_than(
    SHARE: tl.constexpr, entry_ptr, start, row, x, ENTRY: tl.constexpr, SHAPE: tl.constexpr
):
    """Which vectors hold an own share other than ``SHARE``, 0 or 1."""
    bits: tl.constexpr = _ONE * SHARE  # of 1.0 or 0.0
    vectors = start < (1 - SHARE) * 0x7FFFFFFF
    if ENTRY.own_outside:
        vectors = (tl.full([SHAPE.vectors, 1], 0, tl.int32) + tl.load(entry_ptr + ENTRY.own_outside)) != bits
        if ENTRY.box:
            inside = (tl.full([SHAPE.vectors, 1], 0, tl.int32) + tl.load(entry_ptr + ENTRY.own_inside)) != bits
            meets, within = _vectors_in_box(entry_ptr + ENTRY.box, start, row, x, SHAPE)
            # A vector wholly in the box has no place outside, unless there is a bitmap.
            if not ENTRY.bitmap:
                vectors = vectors & ~within
            vectors = vectors | (meets & inside)
    return vectors


@triton.jit
def _vectors_in_box(box_ptr, start, row, x, SHAPE: tl.constexpr):
    """Which vectors have any place in a box, and which have all."""
    unit: tl.constexpr = SHAPE.channels if SHAPE.write == "lines" else 1
    line: tl.constexpr = SHAPE.width * unit
    if line % SHAPE.vec != 0:  # vectors may cross the end of a row, so every place is checked
        inside = in_box(box_ptr, row, x, SHAPE)
        return _any_place(inside), tl.min(inside.to(tl.int32), axis=1)[:, None] > 0
    else:
        top, left, bottom, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
        first = start % line
        rows = (row >= top) & (row < bottom)
        within = (first >= left * unit) & (first + SHAPE.vec <= right * unit)
        meets = (first + SHAPE.vec > left * unit) & (first < right * unit)
        return rows & meets, rows & within


@triton.jit
def _vectors_with_erased_places(entry_ptr, start, row, col, x, live, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """Which vectors have places that are overwritten."""
    boxes: tl.constexpr = ENTRY.boxes
    vectors = start < 0
    for n in tl.static_range(boxes):
        meets, _ = _vectors_in_box(entry_ptr + ENTRY.erase_box + 4 * n, start, row, x, SHAPE)
        vectors = vectors | meets
    if ENTRY.grid:
        vectors = vectors | _any_place(on_grid(entry_ptr, row, col, ENTRY, SHAPE))
    if ENTRY.hidden:
        vectors = vectors | _any_place(in_hidden_cell(entry_ptr, row, col, live, ENTRY))
    return vectors


@triton.jit
def _any_place(places):
    """``[vectors, 1]``: whether any place of a vector is set."""
    if places.shape[1] == 1:
        return places
    else:
        return tl.max(places.to(tl.int32), axis=1)[:, None] > 0


@triton.jit
def _offsets(start, place, row, col, channel, strides, ORDER: tl.constexpr, SHAPE: tl.constexpr):
    """Offsets within an image; for interleaved channels, of three consecutive vectors."""
    # Written as the vector's start plus the lane, so that the compiler sees that the places of a vector are contiguous.
    if ORDER == "lines":
        return place
    elif ORDER == "planes":
        return place + channel * strides[0]
    elif ORDER == "interleaved":
        return place + 2 * start + channel * SHAPE.vec
    else:
        return _strided_offsets(row, col, channel, strides)


@triton.jit
def _load_values(image_ptr, start, place, row, col, channel, mask, strides, SHAPE: tl.constexpr):
    """The values of an image at the places of a tile, one tensor per channel."""
    group: tl.constexpr = SHAPE.group
    order: tl.constexpr = SHAPE.read
    values = ()
    for c in tl.static_range(group):
        offset = _offsets(start, place, row, col, channel + c, strides, order, SHAPE)
        values = values + (tl.load(image_ptr + offset, mask=mask, other=0),)
    if order == "interleaved":
        values = _separate(values[0], values[1], values[2])
    return values


@triton.jit
def _interleave(red, green, blue):
    """The values of three channels in channels-last order, as three consecutive vectors.

    Recursively by halves, down to single pixels. A thread holds whole vectors, so this only renames registers.
    """
    if red.shape[1] == 1:
        return red, green, blue
    else:
        red, red_right = _split_in_halves(red)
        green, green_right = _split_in_halves(green)
        blue, blue_right = _split_in_halves(blue)
        a, b, c = _interleave(red, green, blue)
        d, e, f = _interleave(red_right, green_right, blue_right)
        return _join_halves(a, b), _join_halves(c, d), _join_halves(e, f)


@triton.jit
def _separate(first, second, third):
    """The inverse of ``_interleave``: three channels from three consecutive interleaved vectors."""
    if first.shape[1] == 1:
        return first, second, third
    else:
        a, b = _split_in_halves(first)
        c, d = _split_in_halves(second)
        e, f = _split_in_halves(third)
        red, green, blue = _separate(a, b, c)
        red_right, green_right, blue_right = _separate(d, e, f)
        return _join_halves(red, red_right), _join_halves(green, green_right), _join_halves(blue, blue_right)


@triton.jit
def _split_in_halves(values):
    """The left and the right half of each vector."""
    return tl.split(tl.permute(tl.reshape(values, [values.shape[0], 2, values.shape[1] // 2]), [0, 2, 1]))


@triton.jit
def _join_halves(left, right):
    """Vectors of twice the length."""
    return tl.reshape(tl.permute(tl.join(left, right), [0, 2, 1]), [left.shape[0], 2 * left.shape[1]])


@triton.jit
def _is_its_own_partner(entry_ptr, image, other, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """``[vectors, 1]``: whether an image stays unchanged, infinite pixels too: its own partner, not resized."""
    zeros = tl.full([SHAPE.vectors, 1], 0, tl.int64)
    itself = (zeros + image) == (zeros + other)
    if ENTRY.resized:
        itself = itself & ((zeros + tl.load(entry_ptr + ENTRY.resized)) == 0)
    return itself


@triton.jit
def blend(values, other, own, itself, SHAPE: tl.constexpr):
    """``image + (1 - own) * (other - image)``, and the same for the partner. A share of 1 or 0 copies, and so does an
    image that is its own partner, since the difference of infinite pixels is NaN.
    """
    # The partner loses what the image gains. It is rounded once, so the sum of a pair of integer images is preserved.
    difference = (1 - own).to(SHAPE.real) * (other - values)
    if SHAPE.rounded:
        difference = _round_half_to_even(difference)
    blended, swapped = values + difference, other - difference
    if SHAPE.exact:
        stays = (own == 1) | itself  # own == 0 goes first: there the image itself may not have been read
        blended = tl.where(own == 0, other, tl.where(stays, values, blended))
        swapped = tl.where(own == 0, values, tl.where(stays, other, swapped))
    return blended, swapped


@triton.jit
def _load_partner(
    other_ptr, entry_ptr, tile, start, place, row, col, channel, mask, strides, ENTRY: tl.constexpr, SHAPE: tl.constexpr
):
    """The values of a partner; where ``resized`` says so, of all of it, resized into the box. About half of the tiles
    meet no box, and one branch spares them.
    """
    kind = tl.load(entry_ptr + ENTRY.resized)
    top, bottom = _rows_of_tile(tile, SHAPE)
    if (kind > 0) & _any_mixed_in_rows(entry_ptr, top, bottom, ENTRY):
        values = resize_into_box(other_ptr, entry_ptr, kind, row, col, channel, mask, strides, ENTRY, SHAPE)
    else:
        values = _as_real(_load_values(other_ptr, start, place, row, col, channel, mask, strides, SHAPE), SHAPE)
    return values


@triton.jit
def _as_real(values, SHAPE: tl.constexpr):
    """The values of all channels in the dtype of the arithmetic."""
    group: tl.constexpr = SHAPE.group
    real = ()
    for c in tl.static_range(group):
        real = real + (values[c].to(SHAPE.real),)
    return real


@triton.jit
def resize_into_box(
    other_ptr, entry_ptr, kind, row, col, channel, mask, strides, ENTRY: tl.constexpr, SHAPE: tl.constexpr
):
    """The values of an image that is resized into the box: bilinearly, or if ``kind`` is 1 to the nearest pixels."""
    box_ptr = entry_ptr + ENTRY.box
    top, left, bottom, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
    height, width = tl.maximum(bottom - top, 1), tl.maximum(right - left, 1)
    if kind == 1:
        near_row = _nearest(row - top, height, SHAPE.height)
        near_col = _nearest(col - left, width, SHAPE.width)
        values = _load_strided(other_ptr, near_row, near_col, channel, mask, strides, SHAPE)
    else:
        down, above, below = _between(row - top, height, SHAPE.height, SHAPE)
        across, before, after = _between(col - left, width, SHAPE.width, SHAPE)
        corner = _load_strided(other_ptr, above, before, channel, mask, strides, SHAPE)
        right_of = _load_strided(other_ptr, above, after, channel, mask, strides, SHAPE)
        under = _load_strided(other_ptr, below, before, channel, mask, strides, SHAPE)
        opposite = _load_strided(other_ptr, below, after, channel, mask, strides, SHAPE)
        values = _bilinear(corner, right_of, under, opposite, across, down, SHAPE)
    return values


@triton.jit
def _load_strided(image_ptr, row, col, channel, mask, strides, SHAPE: tl.constexpr):
    """The values of an image at any rows and columns, one tensor per channel, in the dtype of the arithmetic."""
    group: tl.constexpr = SHAPE.group
    values = ()
    for c in tl.static_range(group):
        offset = _strided_offsets(row, col, channel + c, strides)
        values = values + (tl.load(image_ptr + offset, mask=mask, other=0).to(SHAPE.real),)
    return values


@triton.jit
def _bilinear(corner, right_of, under, opposite, across, down, SHAPE: tl.constexpr):
    """Interpolate between four pixels."""
    group: tl.constexpr = SHAPE.group
    values = ()
    for c in tl.static_range(group):
        upper = corner[c] + across * (right_of[c] - corner[c])
        lower = under[c] + across * (opposite[c] - under[c])
        value = upper + down * (lower - upper)
        if SHAPE.rounded:
            value = _round_half_to_even(value)
        values = values + (value,)
    return values


@triton.jit
def _nearest(inside, length, LENGTH: tl.constexpr):
    """The pixel that a place of a box shows, on one axis."""
    inside = tl.minimum(tl.maximum(inside, 0), length - 1)
    if 2 * LENGTH * LENGTH >= 2**31:  # as of a long signal; 64 bits would slow down all others
        inside = inside.to(tl.int64)
    return (2 * inside + 1) * LENGTH // (2 * length)


@triton.jit
def _between(inside, length, LENGTH: tl.constexpr, SHAPE: tl.constexpr):
    """The two pixels between which a place of a box lies, on one axis, and how far from the first."""
    length = length.to(SHAPE.real)
    if SHAPE.real == tl.float64:
        reciprocal = 1 / length
    else:
        reciprocal = tl.div_rn(1.0, length)  # a plain float32 division is approximate on a GPU
    source = (inside.to(SHAPE.real) + 0.5) * (reciprocal * LENGTH) - 0.5
    source = tl.minimum(tl.maximum(source, 0.0), LENGTH - 1.0)
    before = source.to(tl.int32)
    return source - before.to(SHAPE.real), before, tl.minimum(before + 1, LENGTH - 1)


@triton.jit
def _strided_offsets(row, col, channel, strides):
    return row * strides[1] + col * strides[2] + channel * strides[0]


@triton.jit
def join_pieces(
    images_ptr, entry_ptr, row, col, channel, mask, image_stride, strides, ENTRY: tl.constexpr, SHAPE: tl.constexpr
):
    """Four pieces that meet at ``corner``, each read from its image at its ``shift``."""
    under = row >= tl.load(entry_ptr + ENTRY.corner)
    right = col >= tl.load(entry_ptr + ENTRY.corner + 1)
    pieces = ()
    for piece in tl.static_range(4):
        down = tl.load(entry_ptr + ENTRY.shift + 2 * piece)
        across = tl.load(entry_ptr + ENTRY.shift + 2 * piece + 1)
        # a piece is an offset that combines its image and its shift
        pieces = pieces + (
            tl.load(entry_ptr + piece).to(tl.int64) * image_stride + _strided_offsets(down, across, 0, strides),
        )
    # Choosing the address of the piece instead of its value takes one load per place instead of four.
    piece = tl.where(under, tl.where(right, pieces[3], pieces[2]), tl.where(right, pieces[1], pieces[0]))
    return _load_strided(images_ptr + piece, row, col, channel, mask, strides, SHAPE)


@triton.jit
def _load_per_channel(numbers_ptr, channel, start, SHAPE: tl.constexpr):
    """A number for each channel: scalars, or in lines a tensor."""
    group: tl.constexpr = SHAPE.group
    numbers = ()
    for c in tl.static_range(group):
        numbers = numbers + (_load_of_channel(numbers_ptr, channel + c, start, SHAPE),)
    return numbers


@triton.jit
def _load_of_channel(numbers_ptr, channel, start, SHAPE: tl.constexpr):
    """The number of a channel. For three channels in lines they are rotated to the first channel of each vector, so
    that the number of each lane is known at compile time.
    """
    if SHAPE.write == "lines" and SHAPE.channels == 3:
        a, b, c = tl.load(numbers_ptr), tl.load(numbers_ptr + 1), tl.load(numbers_ptr + 2)
        turn = start % 3
        one = tl.where(turn == 0, a, tl.where(turn == 1, b, c))
        two = tl.where(turn == 0, b, tl.where(turn == 1, c, a))
        three = tl.where(turn == 0, c, tl.where(turn == 1, a, b))
        lane = tl.arange(0, SHAPE.vec)[None, :] % 3
        number = tl.where(lane == 0, one, tl.where(lane == 1, two, three))
    else:
        number = tl.load(numbers_ptr + channel)
    return number.to(tl.float32, bitcast=True).to(SHAPE.real)


@triton.jit
def erase_tile(values, entry_ptr, tile, start, row, col, x, channel, live, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """Erase in all channels of a tile. Most tiles meet no box, so one branch skips them. Grids and cells meet all
    tiles, and in place unchanged tiles were skipped before.
    """
    if SHAPE.batch > 0 or SHAPE.skip or ENTRY.grid or ENTRY.hidden:
        return _erase_channels(values, entry_ptr, start, row, col, x, channel, live, ENTRY, SHAPE)
    else:
        top, bottom = _rows_of_tile(tile, SHAPE)
        if _any_erased_in_rows(entry_ptr, top, bottom, ENTRY):
            values = _erase_channels(values, entry_ptr, start, row, col, x, channel, live, ENTRY, SHAPE)
        return values


@triton.jit
def _erase_channels(values, entry_ptr, start, row, col, x, channel, live, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    group: tl.constexpr = SHAPE.group
    erased = ()
    for c in tl.static_range(group):
        erased = erased + (erase(values[c], entry_ptr, start, row, col, x, channel + c, live, ENTRY, SHAPE),)
    return erased


@triton.jit
def erase(values, entry_ptr, start, row, col, x, channel, live, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """Overwrite the plan's boxes, grids and cells with its fill."""
    boxes: tl.constexpr = ENTRY.boxes
    for n in tl.static_range(boxes):
        inside = in_box(entry_ptr + ENTRY.erase_box + 4 * n, row, x, SHAPE)
        values = tl.where(inside, _load_fill(entry_ptr, n, channel, start, ENTRY, SHAPE), values)
    if ENTRY.grid:
        values = tl.where(
            on_grid(entry_ptr, row, col, ENTRY, SHAPE), _load_fill(entry_ptr, 0, channel, start, ENTRY, SHAPE), values
        )
    if ENTRY.hidden:
        hidden = in_hidden_cell(entry_ptr, row, col, live, ENTRY)
        values = tl.where(hidden, _load_fill(entry_ptr, 0, channel, start, ENTRY, SHAPE), values)
    return values


@triton.jit
def erased(entry_ptr, row, col, x, live, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """Which places are overwritten."""
    boxes: tl.constexpr = ENTRY.boxes
    places = (row < 0) & (x < 0)
    for n in tl.static_range(boxes):
        places = places | in_box(entry_ptr + ENTRY.erase_box + 4 * n, row, x, SHAPE)
    if ENTRY.grid:
        places = places | on_grid(entry_ptr, row, col, ENTRY, SHAPE)
    if ENTRY.hidden:
        places = places | in_hidden_cell(entry_ptr, row, col, live, ENTRY)
    return places


@triton.jit
def _load_fill(entry_ptr, box, channel, start, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """The value of erased places; the frames of a video share those of their channels."""
    fill_ptr = entry_ptr + ENTRY.fill + box * ENTRY.fills
    if ENTRY.fills == 1:
        return _load_float(fill_ptr).to(SHAPE.real)
    else:
        return _load_of_channel(fill_ptr, channel % ENTRY.fills, start, SHAPE)


@triton.jit
def on_grid(entry_ptr, row, col, ENTRY: tl.constexpr, SHAPE: tl.constexpr):
    """Which places the (rotated) grid erases; a tile of 0 erases none."""
    tile = tl.load(entry_ptr + ENTRY.grid)
    hole = tl.load(entry_ptr + ENTRY.grid + 1)
    inverted = (tl.load(entry_ptr + ENTRY.grid + 4) > 0).to(tl.int32)
    cosine, sine = _load_float(entry_ptr + ENTRY.turn), _load_float(entry_ptr + ENTRY.turn + 1)
    y = row.to(tl.float32) + (0.5 - SHAPE.height / 2)
    x = col.to(tl.float32) + (0.5 - SHAPE.width / 2)
    row = tl.floor(cosine * y - sine * x).to(tl.int32)
    col = tl.floor(sine * y + cosine * x).to(tl.int32)
    down = _modulo(row + tl.load(entry_ptr + ENTRY.grid + 2), tile)
    across = _modulo(col + tl.load(entry_ptr + ENTRY.grid + 3), tile)
    in_hole = ((down < hole) & (across < hole)).to(tl.int32)
    return (in_hole != inverted) & ((in_hole * 0 + tile) > 0)


@triton.jit
def _modulo(number, divisor):
    """The remainder, never negative."""
    divisor = tl.maximum(divisor, 1)
    remainder = number % divisor  # of the sign of the number, as in C
    return tl.where(remainder < 0, remainder + divisor, remainder)


@triton.jit
def in_hidden_cell(entry_ptr, row, col, live, ENTRY: tl.constexpr):
    """Which places lie in cells whose bit is set."""
    side = tl.load(entry_ptr + ENTRY.cell)
    return _load_bits(entry_ptr + ENTRY.hidden, row // side * ENTRY.hidden_line + col // side, live)


@triton.jit
def _load_bits(words_ptr, index, mask):
    """Bits of a bitmap, lowest first, which makes them the same in bytes and in words."""
    word = tl.load(words_ptr + (index >> 5), mask=mask, other=0)  # beyond the image there may be no bitmap
    return ((word >> (index & 31)) & 1) != 0


@triton.jit
def _load_float(word_ptr):
    return tl.load(word_ptr).to(tl.float32, bitcast=True)


@triton.jit
def _round_half_to_even(values):
    """Round to integers, half to even; for values below 2**22."""
    # 1.5 * 2**23 leaves float32 no bits for a fraction, so the addition itself rounds
    return (values + 12582912.0) - 12582912.0


@triton.jit
def noise_kernel(
    out_ptr,
    plan_ptr,
    out_image_stride,
    out_channel_stride,
    out_row_stride,
    out_col_stride,
    ENTRY: tl.constexpr,
    SHAPE: tl.constexpr,
):
    """One program writes noise to the erased places of a tile of one image, in all channels.

    It is a separate kernel because its registers would slow down every plan that erases.
    """
    order: tl.constexpr = "strided" if SHAPE.write == "interleaved" else SHAPE.write
    side = tl.program_id(0) % ENTRY.images
    entry_ptr = plan_ptr + (tl.program_id(0) // ENTRY.images).to(tl.int64) * ENTRY.width
    image = tl.load(entry_ptr + side).to(tl.int64)
    entry_ptr += side * ENTRY.second
    tile = tl.program_id(1) + tl.program_id(2) * _GRID_LIMIT
    key = tl.load(entry_ptr + ENTRY.noise)
    top, bottom = _rows_of_tile(tile, SHAPE)
    if (key != 0) & _any_erased_in_rows(entry_ptr, top, bottom, ENTRY):
        start, place, row, x, live = _places_of_tile(tile, SHAPE)
        col = x
        if SHAPE.write == "lines":
            col = x // SHAPE.channels
        mask = live & erased(entry_ptr, row, col, x, live, ENTRY, SHAPE)
        strides = (out_channel_stride, out_row_stride, out_col_stride)
        image_ptr = out_ptr + image * out_image_stride
        pixel = row * SHAPE.width + col
        if SHAPE.write == "lines":
            channel = x - col * SHAPE.channels
            values = noise(channel * (SHAPE.height * SHAPE.width) + pixel, key, SHAPE)
            tl.store(image_ptr + place, values.to(out_ptr.dtype.element_ty), mask=mask)
        else:
            for channel in range(SHAPE.channels):
                values = noise(channel * (SHAPE.height * SHAPE.width) + pixel, key, SHAPE)
                target = image_ptr + _offsets(start, place, row, col, channel, strides, order, SHAPE)
                tl.store(target, values.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def noise(place, key, SHAPE: tl.constexpr):
    """Normal float32 noise, or uniform in 0 … 255, for every place."""
    # Scramble the place before adding the key: otherwise the noise of key + 1 would be that of key, one place further.
    bits = _scramble(_scramble(place.to(tl.uint32)) + key.to(tl.uint32, bitcast=True))
    if SHAPE.rounded:
        return (bits >> 24).to(tl.float32)
    uniform = ((bits >> 16).to(tl.float32) + 0.5) * (1 / 65536)  # exact, and never 0 or 1
    return 1.4142135623730951 * _erfinv(2 * uniform - 1)


@triton.jit
def _scramble(x):
    """A bijection of 32-bit integers that mixes all bits (Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _erfinv(x):
    """Giles' single-precision inverse error function."""
    w = -tl.log((1 - x) * (1 + x))
    central = w < 5
    t = tl.where(central, w - 2.5, tl.sqrt_rn(w) - 3)
    result = tl.zeros_like(x)
    for k in tl.static_range(9):
        result = result * t + tl.where(central, _CENTRE[k], _TAIL[k])
    return result * x
