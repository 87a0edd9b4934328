"""The definition of every pixel rule, in plain torch on any device; written to be read, not to be fast.

Arithmetic is float32 (float64 for float64 images), whatever the dtypes of input and output.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcollate.kernels.noise import noise
from mixcollate.kernels.pixels import Affine
from mixcollate.plan import Array, MixPlan, beside


def mix(images: Tensor, plan: MixPlan, out: Tensor, *, affine: Affine | None) -> None:
    """One pass over ``images [B, C, H, W]`` into ``out``, which may be ``images``: mix, normalise, erase, cast."""
    out.copy_(mix_rows(images, plan, np.arange(len(plan)), affine=affine, dtype=out.dtype))


def mix_rows(images: Tensor, plan: MixPlan, rows: Array, *, affine: Affine | None, dtype: torch.dtype) -> Tensor:
    """The results for the images ``rows``, in ``dtype``; for all rows this is one pass."""
    integer = not dtype.is_floating_point
    part = _own_partners_untouched(plan.rows(rows), rows)
    values = _images_numbered(images, rows)  # [n, C, H, W]
    if part.corner is not None:
        values = join_pieces(images, part, rows)
    if part.own_outside is not None:
        values = blend(values, _images_numbered(images, part.partners[:, 0]), part, rounded=integer)
    if affine is not None:
        values = values * affine.scale[:, None, None] + affine.bias[:, None, None]
    if part.erases:
        values = erase(values, part, integer=integer)
    return values.to(dtype)


def _own_partners_untouched(part: MixPlan, rows: Array) -> MixPlan:
    """Leave an image that is its own partner unchanged, infinite pixels too, unless it is resized into its own box."""
    if part.own_outside is None:
        return part
    itself = part.partners[:, 0] == rows
    if part.resized is not None:
        itself = itself & (part.resized == 0)
    if not itself.any():
        return part
    weights: dict[str, Any] = {"own_outside": np.where(itself, np.float32(1), part.own_outside)}
    if part.own_inside is not None:
        weights["own_inside"] = np.where(itself, np.float32(1), part.own_inside)
    return replace(part, **weights)


def blend(values: Tensor, other: Tensor, plan: MixPlan, *, rounded: bool) -> Tensor:
    """``image + (1 - own) * (other - image)``, where ``own`` depends on whether a pixel lies inside the box.

    A share of 1 or 0 copies. For integer output the difference is rounded (half to even), so that the sum of a pair
    that is mixed alike is preserved.
    """
    if plan.resized is not None:
        other = resize_into_box(other, plan, rounded=rounded)
    own = beside(values, plan.own_outside)[:, None, None]  # [B, 1, 1]
    if plan.box is not None:
        own = torch.where(in_box(values, plan), beside(values, plan.own_inside)[:, None, None], own)  # [B, H, W]
    own = own[:, None]  # [B, 1, H, W]
    difference = (1 - own) * (other - values)  # [B, C, H, W]
    blended = values + (difference.round() if rounded else difference)
    return torch.where(own == 1, values, torch.where(own == 0, other, blended))


def in_box(values: Tensor, plan: MixPlan) -> Tensor:
    """``[B, H, W]`` bool: the pixels in each image's box whose bit is set."""
    rows, cols = _rows_and_columns(values)
    top, left, bottom, right = beside(values, plan.box)[:, :, None, None].unbind(1)  # [B, 1, 1]
    inside = (rows >= top) & (rows < bottom) & (cols >= left) & (cols < right)
    if plan.bitmap is None:
        return inside
    return inside & _bits_at(beside(values, plan.bitmap), cols.expand_as(inside))


def resize_into_box(other: Tensor, plan: MixPlan, *, rounded: bool) -> Tensor:
    """Resize each other image into the box, where ``resized`` says so (pixel centres aligned).

    The nearest pixel is computed in integers, ties to the later one, so images and masks of any dtype take the same.
    """
    height, width = other.shape[2:]
    rows, cols = _rows_and_columns(other)
    top, left, bottom, right = beside(other, plan.box)[:, :, None, None].unbind(1)  # [B, 1, 1]
    row, nearest_row = _shown_at(rows - top, bottom - top, height, other.dtype)  # [B, H, 1]
    col, nearest_col = _shown_at(cols - left, right - left, width, other.dtype)  # [B, 1, W]
    above, before = row.long(), col.long()
    below, after = (above + 1).clamp(max=height - 1), (before + 1).clamp(max=width - 1)
    down, across = (row - above)[:, None], (col - before)[:, None]  # [B, 1, H, 1], [B, 1, 1, W]
    upper = _pixels_at(other, above, before) + across * (
        _pixels_at(other, above, after) - _pixels_at(other, above, before)
    )
    lower = _pixels_at(other, below, before) + across * (
        _pixels_at(other, below, after) - _pixels_at(other, below, before)
    )
    bilinear = upper + down * (lower - upper)
    nearest = _pixels_at(other, nearest_row, nearest_col)
    kind = beside(other, plan.resized)[:, None, None, None]
    resized = torch.where(kind == 2, bilinear.round() if rounded else bilinear, nearest)
    return torch.where(kind == 0, other, resized)


def _shown_at(inside: Tensor, shown: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Where pixels ``inside`` a box of ``shown`` pixels read on an axis of ``length``: exactly, and nearest."""
    shown = shown.clamp(min=1)
    between = (inside.to(dtype) + 0.5) * (length / shown.to(dtype)) - 0.5
    nearest = (2 * inside + 1) * length // (2 * shown)
    return between.clamp(0, length - 1), nearest.clamp(0, length - 1)  # the result is not used outside the box


def join_pieces(images: Tensor, plan: MixPlan, rows: Array) -> Tensor:
    """Four pieces that meet at ``corner``, each read from its image at its ``shift``."""
    row, col = _rows_and_columns(images)
    corner_row, corner_col = beside(images, plan.corner)[:, :, None, None].unbind(1)  # [B, 1, 1]
    piece = 2 * (row >= corner_row).long() + (col >= corner_col).long()  # [B, H, W]
    source = beside(images, np.concatenate([rows[:, None], plan.partners], 1))  # [B, 4]
    shift = beside(images, plan.shift).long()  # [B, 4, 2]
    image = torch.arange(len(rows), device=images.device)[:, None, None]
    row, col = row + shift[image, piece, 0], col + shift[image, piece, 1]  # [B, H, W]
    joined = images[source[image, piece], :, row, col].permute(0, 3, 1, 2)
    return joined.to(_arithmetic_dtype(images))


def erase(values: Tensor, plan: MixPlan, *, integer: bool) -> Tensor:
    """Overwrite the plan's boxes, grids and cells with its fill or noise."""
    channels, height, width = values.shape[1:]
    rows, cols = _rows_and_columns(values)
    fill = beside(values, plan.fill).to(values.dtype)  # [B, N, F]
    fills = fill.repeat(1, 1, channels // fill.shape[2])[..., None, None].unbind(1)  # [B, C, 1, 1] each
    if plan.noise is not None:
        key = beside(values, plan.noise)[:, None, None, None]
        place = torch.arange(channels * height * width, device=values.device).view(1, channels, height, width)
        random = noise(place, key, integer=integer).to(values.dtype)  # [B, C, H, W]
        fills = tuple(torch.where(key == 0, one, random) for one in fills)
    if plan.erase_box is not None:
        for one, box in zip(fills, beside(values, plan.erase_box).unbind(1), strict=False):  # fills may be more
            top, left, bottom, right = box[:, :, None, None].unbind(1)  # [B, 1, 1]
            inside = (rows >= top) & (rows < bottom) & (cols >= left) & (cols < right)
            values = torch.where(inside[:, None], one, values)
    if plan.grid is not None:
        values = torch.where(on_grid(values, plan)[:, None], fills[0], values)
    if plan.hidden is not None:
        values = torch.where(in_hidden_cell(values, plan)[:, None], fills[0], values)
    return values


def on_grid(values: Tensor, plan: MixPlan) -> Tensor:
    """``[B, H, W]`` bool: the pixels that each image's (rotated) grid erases; a tile of 0 erases none."""
    rows, cols = _rows_and_columns(values)
    tile, hole, down, across, inverted = beside(values, plan.grid)[:, :, None, None].unbind(1)  # [B, 1, 1]
    cosine, sine = beside(values, plan.turn)[:, :, None, None].unbind(1)
    y = rows.float() + (0.5 - values.shape[2] / 2)
    x = cols.float() + (0.5 - values.shape[3] / 2)
    rows, cols = (cosine * y - sine * x).floor().long(), (sine * y + cosine * x).floor().long()  # [B, H, W]
    in_hole = ((rows + down) % tile.clamp(min=1) < hole) & ((cols + across) % tile.clamp(min=1) < hole)
    return (tile > 0) & (in_hole != (inverted > 0))


def in_hidden_cell(values: Tensor, plan: MixPlan) -> Tensor:
    """``[B, H, W]`` bool: the pixels in cells whose bit is set."""
    rows, cols = _rows_and_columns(values)
    side = beside(values, plan.cell)[:, None, None]
    image = torch.arange(len(values), device=values.device)[:, None]
    cells = beside(values, plan.hidden)[image, (rows // side)[:, :, 0]]  # [B, H, ceil(Q / 8)]
    return _bits_at(cells, (cols // side).expand(-1, rows.shape[1], -1))


def _arithmetic_dtype(images: Tensor) -> torch.dtype:
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def _images_numbered(images: Tensor, rows: Array) -> Tensor:
    return images[beside(images, rows)].to(_arithmetic_dtype(images))


def _rows_and_columns(values: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers ``[1, H, 1]`` and column numbers ``[1, 1, W]``."""
    height, width = values.shape[2:]
    rows = torch.arange(height, device=values.device)[None, :, None]
    cols = torch.arange(width, device=values.device)[None, None, :]
    return rows, cols


def _pixels_at(values: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """``[B, C, H, W]``: each image's pixels at ``row [B, H, 1]`` and ``col [B, 1, W]``."""
    image = torch.arange(len(values), device=values.device)[:, None, None]
    return values[image, :, row, col].permute(0, 3, 1, 2)


def _bits_at(words: Tensor, index: Tensor) -> Tensor:
    """Bits ``index [B, H, W]`` of rows of bytes ``words [B, H, Q]``, lowest bit first."""
    byte = words.gather(2, index // 8)
    return (byte >> (index % 8).to(byte.dtype)) & 1 != 0
