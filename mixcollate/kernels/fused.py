"""The pixel rules of ``reference`` in Triton: one pass over the pixels, specialised on the parts that a plan has."""

# ruff: noqa: RUF005 - Triton adds tuples, but does not unpack them
# mypy: disable-error-code="attr-defined, no-untyped-call, call-arg, arg-type, assignment, misc, var-annotated"
# (to mypy a kernel is a plain function, and constexpr a class without attributes)
#
# How to read this file. First what is launched, then the kernel that mixes, the rules in the order of `reference`, and
# noise; then what need not be read or written; last how numbers are read, and sorted between memory orders.
#
# `ENTRY` holds the offsets of the parts in an entry of the plan (see `packed`), `TILING` says what tiles, vectors and
# places are (see `tiling`). Both are compile-time constants: an `if` on them costs nothing, and parts that a plan lacks
# are not compiled. Tensors are `[vectors, vec]`, a number for each place, or `[vectors, 1]` if places of a vector have
# the same: a thread holds whole vectors, so such numbers are computed once per vector. Along a row, `x` counts places,
# and `col` pixels.
#
# Three levels of skipping, since in place unchanged pixels need not move: nothing is launched if no part of the plan
# has an effect (`mix`); a program whose rows are unchanged returns after a few scalar loads (`_any_changed_in_tile`);
# in all others, unchanged vectors are neither read nor written (`_needed_vectors`). In place or not, a vector that
# comes wholly from one image is not read from the other.
#
# Triton also compiles the code after a `return` in a branch: if results differ in shape, that code needs an `else`.

import triton
import triton.language as tl
from torch import Tensor

from mixcollate.kernels.bounds import ONE
from mixcollate.kernels.fused_targets import NO_ROWS, UNSPECIALISED, UnwrittenTargets, write_soft_target
from mixcollate.kernels.launch import launch
from mixcollate.kernels.noise import ERFINV_CENTRE, ERFINV_TAIL
from mixcollate.kernels.overlap import reach_into_each_other
from mixcollate.kernels.packed import PackedPlan
from mixcollate.kernels.pixels import Affine
from mixcollate.kernels.tiling import MOST_IMAGES, VECTORS_OF_ALL, is_by_pixel, of_all_images, tile_count, tiling_of
from mixcollate.plan import FAR

GRID_LIMIT = 65535  # programs on the second axis of a launch

_GRID_LIMIT = tl.constexpr(GRID_LIMIT)
_FAR = tl.constexpr(FAR)
_ONE = tl.constexpr(ONE)  # shares are compared as bits: the interpreter cannot compare scalar floats
_CENTRE = tl.constexpr(ERFINV_CENTRE)
_TAIL = tl.constexpr(ERFINV_TAIL)


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
    tiling = of_one = tiling_of(images, out, in_place=in_place, normalise=affine is not None, by_pixel=by_pixel)
    if together:
        tiling, entries = of_all_images(of_one, entries, VECTORS_OF_ALL), 1
    # The first level of skipping: no part of the plan has an effect.
    if entry.own_outside or entry.corner or entry.erase_box or entry.grid or entry.hidden or not tiling.skip:
        # One further program per image writes its soft target: a launch of its own would cost more.
        programs = tiling.programs if targets is None else tiling.programs + -(-len(targets.labels) // entries)
        launch(
            mix_kernel,
            _launch_grid(entries, programs),
            (images, out, plan.words, *(affine or (out, out)), *(targets.tensors if targets else (out, out, out))),
            (*images.stride(), *out.stride(), *(targets.numbers if targets else (0, 0))),
            (entry, tiling, targets.rows if targets else NO_ROWS),
            num_warps=tiling.warps,
            enable_fp_fusion=False,  # so that a * b + c is rounded twice, as in plain torch
        )
    elif targets is not None:
        targets.write()
    if entry.noise:
        grid = _launch_grid(plan.layout.entries * entry.images, tile_count(of_one))
        options = {"num_warps": of_one.warps, "enable_fp_fusion": False}
        launch(noise_kernel, grid, (out, plan.words), out.stride(), (entry, of_one), **options)


def _launch_grid(rows: int, programs: int) -> tuple[int, int, int]:
    """The grid, with images on the fastest axis: partners that other programs read at the same time are then cached."""
    return rows, min(programs, GRID_LIMIT), -(-programs // GRID_LIMIT)


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
    TILING: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One program mixes a tile of a group of channels of one image, of a pair, or of all images; or it writes a soft
    target.
    """
    group: tl.constexpr = TILING.group
    program = tl.program_id(1) + tl.program_id(2) * _GRID_LIMIT
    # All threads of a program take the same branch, and targets need fewer registers than pixels.
    if ROWS.kind != "":
        if program >= TILING.programs:
            row = (program - TILING.programs) * tl.num_programs(0) + tl.program_id(0)
            if row < batch:
                write_soft_target(row, batch, partners, plan_ptr, labels_ptr, target_ptr, shares_ptr, ROWS)
            return
    entry_ptr = plan_ptr + _entry_index(TILING).to(tl.int64) * ENTRY.width
    tile, channel = _tile_and_channel(program, TILING)
    # The second level of skipping; a tile of all images has no single entry to look at.
    if TILING.skip and TILING.batch == 0:
        if not _any_changed_in_tile(entry_ptr, tile, ENTRY, TILING):
            return
    start, place, row, x, live = _places_of_tile(tile, TILING)
    col = x
    if TILING.write == "lines":
        col = x // TILING.channels
        channel = x - col * TILING.channels
    image = tl.load(entry_ptr).to(tl.int64)
    other = image
    if ENTRY.partner_count > 0:
        other = tl.load(entry_ptr + 1).to(tl.int64)
    own = own_share(entry_ptr, row, col, x, live, ENTRY, TILING)
    others_own = own  # a mutual pair shares its numbers, so one difference serves both
    if ENTRY.images == 2 and not ENTRY.mutual:
        others_own = own_share(entry_ptr + ENTRY.second, row, col, x, live, ENTRY, TILING)
    itself = _is_its_own_partner(entry_ptr, image, other, ENTRY, TILING)
    mine, theirs, written = _needed_vectors(entry_ptr, start, row, col, x, live, ENTRY, TILING)

    # All loads come before any store: without alias analysis Triton cannot move a load above a store, and in a tile of
    # all images one thread reads what another writes.
    strides = (channel_stride, row_stride, col_stride)
    image_ptr = images_ptr + image * image_stride
    other_ptr = images_ptr + other * image_stride
    if ENTRY.corner:
        values = join_pieces(images_ptr, entry_ptr, row, col, channel, mine, image_stride, strides, ENTRY, TILING)
    else:
        values = _load_values(image_ptr, start, place, row, col, channel, mine, strides, TILING)
    others = values
    if ENTRY.resized:
        others = _load_partner(
            other_ptr, entry_ptr, tile, start, place, row, col, channel, theirs, strides, ENTRY, TILING
        )
    elif ENTRY.own_outside:
        others = _load_values(other_ptr, start, place, row, col, channel, theirs, strides, TILING)
    if TILING.normalise:
        scales = _load_per_channel(scale_ptr, channel, start, TILING)
        biases = _load_per_channel(bias_ptr, channel, start, TILING)

    # Tuples, because Triton has no lists of tensors. The loop is unrolled, so each channel stays in its registers.
    first = ()
    second = ()
    for c in tl.static_range(group):
        mixed, swapped = values[c].to(TILING.real), others[c].to(TILING.real)
        if ENTRY.own_outside:
            value, other_value = mixed, swapped
            mixed, swapped = blend(value, other_value, own, itself, TILING)
            if ENTRY.images == 2 and not ENTRY.mutual:
                swapped, _ = blend(other_value, value, others_own, itself, TILING)
        if TILING.normalise:
            mixed = mixed * scales[c] + biases[c]
            swapped = swapped * scales[c] + biases[c]
        first = first + (mixed,)
        second = second + (swapped,)
    if ENTRY.fill:
        first = erase_tile(first, entry_ptr, tile, start, row, col, x, channel, live, ENTRY, TILING)
        if ENTRY.images == 2:
            second = erase_tile(
                second, entry_ptr + ENTRY.second, tile, start, row, col, x, channel, live, ENTRY, TILING
            )

    order: tl.constexpr = TILING.write
    if order == "interleaved":
        first = _interleave(first[0], first[1], first[2])
        second = _interleave(second[0], second[1], second[2])
    out_strides = (out_channel_stride, out_row_stride, out_col_stride)
    if TILING.batch > 0:
        tl.debug_barrier()  # partners belong to other threads: all must have read before any writes
    for c in tl.static_range(group):
        target = _offsets(start, place, row, col, channel + c, out_strides, order, TILING)
        tl.store(out_ptr + image * out_image_stride + target, first[c].to(out_ptr.dtype.element_ty), mask=written)
        if ENTRY.images == 2:
            tl.store(out_ptr + other * out_image_stride + target, second[c].to(out_ptr.dtype.element_ty), mask=written)


@triton.jit
def _entry_index(TILING: tl.constexpr):
    """The row of the plan for this program; in a tile of all images, the row for each vector."""
    if TILING.batch == 0:
        return tl.program_id(0)
    else:
        return tl.minimum(tl.arange(0, TILING.vectors) // TILING.each, TILING.batch - 1)[:, None]


@triton.jit
def _tile_and_channel(program, TILING: tl.constexpr):
    """The tile of this program, and its first channel."""
    groups: tl.constexpr = 1 if TILING.write == "lines" else TILING.channels // TILING.group
    return program // groups, program % groups * TILING.group


@triton.jit
def _places_of_tile(tile, TILING: tl.constexpr):
    """The start of each vector of a tile, and for each place its index in memory order, its row, its position in that
    row, and whether it exists. Rows are ``[vectors, 1]`` if no vector crosses from one to the next.
    """
    count: tl.constexpr = TILING.height * TILING.line
    # A vector within one row has one row number, and a vector wholly within the image has one mask. Shapes [vectors, 1]
    # tell the compiler so; then accesses stay 16 bytes wide, and divisions are made per vector, not per place.
    vector = tl.arange(0, TILING.vectors)
    start = ((tile * TILING.each + vector % TILING.each) * TILING.vec)[:, None]
    lane = tl.arange(0, TILING.vec)[None, :]
    place = start + lane
    if TILING.line % TILING.vec == 0:
        row = start // TILING.line
        x = start % TILING.line + lane
    else:
        row = place // TILING.line
        x = place % TILING.line
    if count % TILING.vec == 0:
        live = start < count
    else:
        live = place < count
    if TILING.batch > 0:
        live = live & (vector // TILING.each < TILING.batch)[:, None]  # padded to a power of two
    return start, place, row, x, live


@triton.jit
def own_share(entry_ptr, row, col, x, live, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """``[vectors, 1 or vec]``: the image's own share of each place."""
    own = tl.full([TILING.vectors, 1], 1.0, tl.float32)
    if ENTRY.own_outside:
        own = own * _load_float(entry_ptr + ENTRY.own_outside)
        if ENTRY.box:
            inside = in_box(entry_ptr + ENTRY.box, row, x, TILING)
            if ENTRY.bitmap:
                inside = inside & _load_bits(entry_ptr + ENTRY.bitmap, row * ENTRY.bitmap_line + col, live)
            own = tl.where(inside, _load_float(entry_ptr + ENTRY.own_inside), own)
    return own


@triton.jit
def in_box(box_ptr, row, x, TILING: tl.constexpr):
    """Which places lie in a box. In lines its edges are scaled, instead of dividing every position by the channels."""
    unit: tl.constexpr = TILING.unit
    top, left, bottom, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
    # One comparison per place: positions left of the box wrap around, and in other rows the box has width 0.
    width = tl.where((row >= top) & (row < bottom), tl.maximum(right - left, 0) * unit, 0)
    return (x - left * unit).to(tl.uint32, bitcast=True) < width.to(tl.uint32, bitcast=True)


@triton.jit
def _is_its_own_partner(entry_ptr, image, other, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """``[vectors, 1]``: whether an image stays unchanged, infinite pixels too: its own partner, not resized."""
    zeros = tl.full([TILING.vectors, 1], 0, tl.int64)
    itself = (zeros + image) == (zeros + other)
    if ENTRY.resized:
        itself = itself & ((zeros + tl.load(entry_ptr + ENTRY.resized)) == 0)
    return itself


@triton.jit
def blend(values, other, own, itself, TILING: tl.constexpr):
    """``image + (1 - own) * (other - image)``, and the same for the partner. A share of 1 or 0 copies, and so does an
    image that is its own partner, since the difference of infinite pixels is NaN.
    """
    # The partner loses what the image gains. It is rounded once, so the sum of a pair of integer images is preserved.
    difference = (1 - own).to(TILING.real) * (other - values)
    if TILING.rounded:
        difference = _round_half_to_even(difference)
    blended, swapped = values + difference, other - difference
    if TILING.exact:
        stays = (own == 1) | itself  # own == 0 goes first: there the image itself may not have been read
        blended = tl.where(own == 0, other, tl.where(stays, values, blended))
        swapped = tl.where(own == 0, values, tl.where(stays, other, swapped))
    return blended, swapped


@triton.jit
def _load_partner(
    other_ptr,
    entry_ptr,
    tile,
    start,
    place,
    row,
    col,
    channel,
    mask,
    strides,
    ENTRY: tl.constexpr,
    TILING: tl.constexpr,
):
    """The values of a partner; where ``resized`` says so, of all of it, resized into the box. About half of the tiles
    meet no box, and one branch spares them.
    """
    kind = tl.load(entry_ptr + ENTRY.resized)
    top, bottom = _rows_of_tile(tile, TILING)
    if (kind > 0) & _any_mixed_in_rows(entry_ptr, top, bottom, ENTRY):
        values = resize_into_box(other_ptr, entry_ptr, kind, row, col, channel, mask, strides, ENTRY, TILING)
    else:
        values = _as_real(_load_values(other_ptr, start, place, row, col, channel, mask, strides, TILING), TILING)
    return values


@triton.jit
def resize_into_box(
    other_ptr, entry_ptr, kind, row, col, channel, mask, strides, ENTRY: tl.constexpr, TILING: tl.constexpr
):
    """The values of an image that is resized into the box: bilinearly, or if ``kind`` is 1 to the nearest pixels."""
    box_ptr = entry_ptr + ENTRY.box
    top, left, bottom, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
    height, width = tl.maximum(bottom - top, 1), tl.maximum(right - left, 1)
    if kind == 1:
        near_row = _nearest(row - top, height, TILING.height)
        near_col = _nearest(col - left, width, TILING.width)
        values = _load_strided(other_ptr, near_row, near_col, channel, mask, strides, TILING)
    else:
        down, above, below = _between(row - top, height, TILING.height, TILING)
        across, before, after = _between(col - left, width, TILING.width, TILING)
        corner = _load_strided(other_ptr, above, before, channel, mask, strides, TILING)
        right_of = _load_strided(other_ptr, above, after, channel, mask, strides, TILING)
        under = _load_strided(other_ptr, below, before, channel, mask, strides, TILING)
        opposite = _load_strided(other_ptr, below, after, channel, mask, strides, TILING)
        values = _bilinear(corner, right_of, under, opposite, across, down, TILING)
    return values


@triton.jit
def _bilinear(corner, right_of, under, opposite, across, down, TILING: tl.constexpr):
    """Interpolate between four pixels."""
    group: tl.constexpr = TILING.group
    values = ()
    for c in tl.static_range(group):
        upper = corner[c] + across * (right_of[c] - corner[c])
        lower = under[c] + across * (opposite[c] - under[c])
        value = upper + down * (lower - upper)
        if TILING.rounded:
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
def _between(inside, length, LENGTH: tl.constexpr, TILING: tl.constexpr):
    """The two pixels between which a place of a box lies, on one axis, and how far from the first."""
    length = length.to(TILING.real)
    if TILING.real == tl.float64:
        reciprocal = 1 / length
    else:
        reciprocal = tl.div_rn(1.0, length)  # a plain float32 division is approximate on a GPU
    source = (inside.to(TILING.real) + 0.5) * (reciprocal * LENGTH) - 0.5
    source = tl.minimum(tl.maximum(source, 0.0), LENGTH - 1.0)
    before = source.to(tl.int32)
    return source - before.to(TILING.real), before, tl.minimum(before + 1, LENGTH - 1)


@triton.jit
def join_pieces(
    images_ptr, entry_ptr, row, col, channel, mask, image_stride, strides, ENTRY: tl.constexpr, TILING: tl.constexpr
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
    return _load_strided(images_ptr + piece, row, col, channel, mask, strides, TILING)


@triton.jit
def erase_tile(values, entry_ptr, tile, start, row, col, x, channel, live, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """Erase in all channels of a tile. Most tiles meet no box, so one branch skips them. Grids and cells meet all
    tiles, and in place unchanged tiles were skipped before.
    """
    if TILING.batch > 0 or TILING.skip or ENTRY.grid or ENTRY.hidden:
        return _erase_channels(values, entry_ptr, start, row, col, x, channel, live, ENTRY, TILING)
    else:
        top, bottom = _rows_of_tile(tile, TILING)
        if _any_erased_in_rows(entry_ptr, top, bottom, ENTRY):
            values = _erase_channels(values, entry_ptr, start, row, col, x, channel, live, ENTRY, TILING)
        return values


@triton.jit
def _erase_channels(values, entry_ptr, start, row, col, x, channel, live, ENTRY: tl.constexpr, TILING: tl.constexpr):
    group: tl.constexpr = TILING.group
    erased = ()
    for c in tl.static_range(group):
        erased = erased + (erase(values[c], entry_ptr, start, row, col, x, channel + c, live, ENTRY, TILING),)
    return erased


@triton.jit
def erase(values, entry_ptr, start, row, col, x, channel, live, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """Overwrite the plan's boxes, grids and cells with its fill."""
    boxes: tl.constexpr = ENTRY.boxes
    for n in tl.static_range(boxes):
        inside = in_box(entry_ptr + ENTRY.erase_box + 4 * n, row, x, TILING)
        values = tl.where(inside, _load_fill(entry_ptr, n, channel, start, ENTRY, TILING), values)
    if ENTRY.grid:
        values = tl.where(
            on_grid(entry_ptr, row, col, ENTRY, TILING), _load_fill(entry_ptr, 0, channel, start, ENTRY, TILING), values
        )
    if ENTRY.hidden:
        hidden = in_hidden_cell(entry_ptr, row, col, live, ENTRY)
        values = tl.where(hidden, _load_fill(entry_ptr, 0, channel, start, ENTRY, TILING), values)
    return values


@triton.jit
def erased(entry_ptr, row, col, x, live, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """Which places are overwritten."""
    boxes: tl.constexpr = ENTRY.boxes
    places = (row < 0) & (x < 0)
    for n in tl.static_range(boxes):
        places = places | in_box(entry_ptr + ENTRY.erase_box + 4 * n, row, x, TILING)
    if ENTRY.grid:
        places = places | on_grid(entry_ptr, row, col, ENTRY, TILING)
    if ENTRY.hidden:
        places = places | in_hidden_cell(entry_ptr, row, col, live, ENTRY)
    return places


@triton.jit
def _load_fill(entry_ptr, box, channel, start, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """The value of erased places; the frames of a video share those of their channels."""
    fill_ptr = entry_ptr + ENTRY.fill + box * ENTRY.fills
    if ENTRY.fills == 1:
        return _load_float(fill_ptr).to(TILING.real)
    else:
        return _load_of_channel(fill_ptr, channel % ENTRY.fills, start, TILING)


@triton.jit
def on_grid(entry_ptr, row, col, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """Which places the (rotated) grid erases; a tile of 0 erases none."""
    tile = tl.load(entry_ptr + ENTRY.grid)
    hole = tl.load(entry_ptr + ENTRY.grid + 1)
    inverted = (tl.load(entry_ptr + ENTRY.grid + 4) > 0).to(tl.int32)
    cosine, sine = _load_float(entry_ptr + ENTRY.turn), _load_float(entry_ptr + ENTRY.turn + 1)
    y = row.to(tl.float32) + (0.5 - TILING.height / 2)
    x = col.to(tl.float32) + (0.5 - TILING.width / 2)
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
def noise_kernel(
    out_ptr,
    plan_ptr,
    out_image_stride,
    out_channel_stride,
    out_row_stride,
    out_col_stride,
    ENTRY: tl.constexpr,
    TILING: tl.constexpr,
):
    """One program writes noise to the erased places of a tile of one image, in all channels.

    It is a separate kernel because its registers would slow down every plan that erases.
    """
    order: tl.constexpr = "strided" if TILING.write == "interleaved" else TILING.write
    side = tl.program_id(0) % ENTRY.images
    entry_ptr = plan_ptr + (tl.program_id(0) // ENTRY.images).to(tl.int64) * ENTRY.width
    image = tl.load(entry_ptr + side).to(tl.int64)
    entry_ptr += side * ENTRY.second
    tile = tl.program_id(1) + tl.program_id(2) * _GRID_LIMIT
    key = tl.load(entry_ptr + ENTRY.noise)
    top, bottom = _rows_of_tile(tile, TILING)
    if (key != 0) & _any_erased_in_rows(entry_ptr, top, bottom, ENTRY):
        start, place, row, x, live = _places_of_tile(tile, TILING)
        col = x
        if TILING.write == "lines":
            col = x // TILING.channels
        mask = live & erased(entry_ptr, row, col, x, live, ENTRY, TILING)
        strides = (out_channel_stride, out_row_stride, out_col_stride)
        image_ptr = out_ptr + image * out_image_stride
        pixel = row * TILING.width + col
        if TILING.write == "lines":
            channel = x - col * TILING.channels
            values = noise(channel * (TILING.height * TILING.width) + pixel, key, TILING)
            tl.store(image_ptr + place, values.to(out_ptr.dtype.element_ty), mask=mask)
        else:
            for channel in range(TILING.channels):
                values = noise(channel * (TILING.height * TILING.width) + pixel, key, TILING)
                target = image_ptr + _offsets(start, place, row, col, channel, strides, order, TILING)
                tl.store(target, values.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def noise(place, key, TILING: tl.constexpr):
    """Normal float32 noise, or uniform in 0 … 255, for every place."""
    # Scramble the place before adding the key: otherwise the noise of key + 1 would be that of key, one place further.
    bits = _scramble(_scramble(place.to(tl.uint32)) + key.to(tl.uint32, bitcast=True))
    if TILING.rounded:
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


@triton.jit
def _any_changed_in_tile(entry_ptr, tile, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """Whether the plan changes any pixel in the rows of a tile."""
    images: tl.constexpr = ENTRY.images
    mixings: tl.constexpr = 1 if ENTRY.mutual else images  # erasing is separate even in a mutual pair
    top, bottom = _rows_of_tile(tile, TILING)
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
def _rows_of_tile(tile, TILING: tl.constexpr):
    """The first row of a tile, and the one after its last."""
    places: tl.constexpr = TILING.vectors * TILING.vec
    return tile * places // TILING.line, ((tile + 1) * places - 1) // TILING.line + 1


@triton.jit
def _box_meets_rows(box_ptr, top, bottom):
    """Whether a box has any pixel between two rows."""
    begin, left, end, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
    return (begin < bottom) & (end > top) & (end > begin) & (right > left)


@triton.jit
def _needed_vectors(entry_ptr, start, row, col, x, live, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """For which vectors the image is read, for which its partner, and which are written; possibly a few too many.

    ``[vectors, 1]`` if possible, because with one mask value per vector accesses stay 16 bytes wide.
    """
    images: tl.constexpr = ENTRY.images
    mixings: tl.constexpr = 1 if ENTRY.mutual else images
    written = live
    if TILING.skip and not ENTRY.corner:
        changes = start < 0
        for side in tl.static_range(mixings):
            changes = changes | _vectors_with_share_other_than(
                1, entry_ptr + side * ENTRY.second, start, row, x, ENTRY, TILING
            )
        for side in tl.static_range(images):
            changes = changes | _vectors_with_erased_places(
                entry_ptr + side * ENTRY.second, start, row, col, x, live, ENTRY, TILING
            )
        written = live & changes
    # At a share of 0 the image need not be read, at 1 its partner need not: CutMix moves no more bytes than a copy. A
    # pair reads both, since each needs the other.
    mine = written
    theirs = written
    if ENTRY.own_outside and ENTRY.images == 1:
        mine = written & _vectors_with_share_other_than(0, entry_ptr, start, row, x, ENTRY, TILING)
        theirs = written & _vectors_with_share_other_than(1, entry_ptr, start, row, x, ENTRY, TILING)
    return mine, theirs, written


@triton.jit
def _vectors_with_share_other_than(
    SHARE: tl.constexpr, entry_ptr, start, row, x, ENTRY: tl.constexpr, TILING: tl.constexpr
):
    """Which vectors hold an own share other than ``SHARE``, 0 or 1."""
    bits: tl.constexpr = _ONE * SHARE  # of 1.0 or 0.0
    vectors = start < (1 - SHARE) * 0x7FFFFFFF
    if ENTRY.own_outside:
        vectors = (tl.full([TILING.vectors, 1], 0, tl.int32) + tl.load(entry_ptr + ENTRY.own_outside)) != bits
        if ENTRY.box:
            inside = (tl.full([TILING.vectors, 1], 0, tl.int32) + tl.load(entry_ptr + ENTRY.own_inside)) != bits
            meets, within = _vectors_in_box(entry_ptr + ENTRY.box, start, row, x, TILING)
            # A vector wholly in the box has no place outside, unless there is a bitmap.
            if not ENTRY.bitmap:
                vectors = vectors & ~within
            vectors = vectors | (meets & inside)
    return vectors


@triton.jit
def _vectors_in_box(box_ptr, start, row, x, TILING: tl.constexpr):
    """Which vectors have any place in a box, and which have all."""
    unit: tl.constexpr = TILING.unit
    if TILING.line % TILING.vec != 0:  # vectors may cross the end of a row, so every place is checked
        inside = in_box(box_ptr, row, x, TILING)
        return _any_place(inside), tl.min(inside.to(tl.int32), axis=1)[:, None] > 0
    else:
        top, left, bottom, right = tl.load(box_ptr), tl.load(box_ptr + 1), tl.load(box_ptr + 2), tl.load(box_ptr + 3)
        first = start % TILING.line
        rows = (row >= top) & (row < bottom)
        within = (first >= left * unit) & (first + TILING.vec <= right * unit)
        meets = (first + TILING.vec > left * unit) & (first < right * unit)
        return rows & meets, rows & within


@triton.jit
def _vectors_with_erased_places(entry_ptr, start, row, col, x, live, ENTRY: tl.constexpr, TILING: tl.constexpr):
    """Which vectors have places that are overwritten."""
    boxes: tl.constexpr = ENTRY.boxes
    vectors = start < 0
    for n in tl.static_range(boxes):
        meets, _ = _vectors_in_box(entry_ptr + ENTRY.erase_box + 4 * n, start, row, x, TILING)
        vectors = vectors | meets
    if ENTRY.grid:
        vectors = vectors | _any_place(on_grid(entry_ptr, row, col, ENTRY, TILING))
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
def _load_values(image_ptr, start, place, row, col, channel, mask, strides, TILING: tl.constexpr):
    """The values of an image at the places of a tile, one tensor per channel."""
    group: tl.constexpr = TILING.group
    order: tl.constexpr = TILING.read
    values = ()
    for c in tl.static_range(group):
        offset = _offsets(start, place, row, col, channel + c, strides, order, TILING)
        values = values + (tl.load(image_ptr + offset, mask=mask, other=0),)
    if order == "interleaved":
        values = _separate(values[0], values[1], values[2])
    return values


@triton.jit
def _load_strided(image_ptr, row, col, channel, mask, strides, TILING: tl.constexpr):
    """The values of an image at any rows and columns, one tensor per channel, in the dtype of the arithmetic."""
    group: tl.constexpr = TILING.group
    values = ()
    for c in tl.static_range(group):
        offset = _strided_offsets(row, col, channel + c, strides)
        values = values + (tl.load(image_ptr + offset, mask=mask, other=0).to(TILING.real),)
    return values


@triton.jit
def _offsets(start, place, row, col, channel, strides, ORDER: tl.constexpr, TILING: tl.constexpr):
    """Offsets within an image; for interleaved channels, of three consecutive vectors."""
    # Written as the vector's start plus the lane, so that the compiler sees that the places of a vector are contiguous.
    if ORDER == "lines":
        return place
    elif ORDER == "planes":
        return place + channel * strides[0]
    elif ORDER == "interleaved":
        return place + 2 * start + channel * TILING.vec
    else:
        return _strided_offsets(row, col, channel, strides)


@triton.jit
def _strided_offsets(row, col, channel, strides):
    return row * strides[1] + col * strides[2] + channel * strides[0]


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
def _load_per_channel(numbers_ptr, channel, start, TILING: tl.constexpr):
    """A number for each channel: scalars, or in lines a tensor."""
    group: tl.constexpr = TILING.group
    numbers = ()
    for c in tl.static_range(group):
        numbers = numbers + (_load_of_channel(numbers_ptr, channel + c, start, TILING),)
    return numbers


@triton.jit
def _load_of_channel(numbers_ptr, channel, start, TILING: tl.constexpr):
    """The number of a channel. For three channels in lines they are rotated to the first channel of each vector, so
    that the number of each lane is known at compile time.
    """
    if TILING.write == "lines" and TILING.channels == 3:
        a, b, c = tl.load(numbers_ptr), tl.load(numbers_ptr + 1), tl.load(numbers_ptr + 2)
        turn = start % 3
        one = tl.where(turn == 0, a, tl.where(turn == 1, b, c))
        two = tl.where(turn == 0, b, tl.where(turn == 1, c, a))
        three = tl.where(turn == 0, c, tl.where(turn == 1, a, b))
        lane = tl.arange(0, TILING.vec)[None, :] % 3
        number = tl.where(lane == 0, one, tl.where(lane == 1, two, three))
    else:
        number = tl.load(numbers_ptr + channel)
    return number.to(tl.float32, bitcast=True).to(TILING.real)


@triton.jit
def _load_bits(words_ptr, index, mask):
    """Bits of a bitmap, lowest first, which makes them the same in bytes and in words."""
    word = tl.load(words_ptr + (index >> 5), mask=mask, other=0)  # beyond the image there may be no bitmap
    return ((word >> (index & 31)) & 1) != 0


@triton.jit
def _load_float(word_ptr):
    return tl.load(word_ptr).to(tl.float32, bitcast=True)


@triton.jit
def _as_real(values, TILING: tl.constexpr):
    """The values of all channels in the dtype of the arithmetic."""
    group: tl.constexpr = TILING.group
    real = ()
    for c in tl.static_range(group):
        real = real + (values[c].to(TILING.real),)
    return real


@triton.jit
def _round_half_to_even(values):
    """Round to integers, half to even; for values below 2**22."""
    # 1.5 * 2**23 leaves float32 no bits for a fraction, so the addition itself rounds
    return (values + 12582912.0) - 12582912.0
