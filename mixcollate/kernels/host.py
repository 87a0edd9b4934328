"""The fast CPU path: blends in cache-sized chunks, boxes and pieces as copies, the rest by the reference in chunks."""

import numpy as np
import torch
from torch import Tensor

from mixcollate.kernels import reference
from mixcollate.kernels.noise import noise
from mixcollate.plan import Array, MixPlan

CHUNK = 2**18  # elements whose float32 scratch stays in a core's second-level cache

_SAME_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mix(images: Tensor, plan: MixPlan, out: Tensor, *, scale: Tensor | None, bias: Tensor | None) -> None:
    """One pass over ``images [B, C, H, W]`` into ``out``, which may be ``images``; both on the CPU."""
    in_place = out.data_ptr() == images.data_ptr()
    mutual = plan.mutual
    if in_place and plan.mixes and not mutual:
        images = images.clone()  # some image is read after it is written
    rare = any(part is not None for part in (plan.resized, plan.bitmap, plan.grid, plan.hidden))
    same = out.dtype == images.dtype and (scale is None or out.dtype == torch.float32)
    if rare or not (same or (out.dtype == torch.float32 and images.dtype == torch.uint8)):
        mix_by_reference(images, plan, np.arange(len(plan)), out, mutual=mutual, scale=scale, bias=bias)
        return
    if not in_place:
        out.copy_(images)
    source = out if mutual else images
    if plan.corner is not None and plan.shift is not None:
        join_pieces(source, plan, plan.corner, plan.shift, out)
    if plan.own_outside is not None:
        blend(source, plan, plan.own_outside, out, mutual=mutual)
    if scale is not None and bias is not None:
        for image in out:
            image.mul_(scale[:, None, None]).add_(bias[:, None, None])
    if plan.erase_box is not None and plan.fill is not None:
        erase_boxes(plan.erase_box, plan.fill, plan.noise, out)


def mix_by_reference(
    source: Tensor, plan: MixPlan, rows: Array, out: Tensor, *, mutual: bool, scale: Tensor | None, bias: Tensor | None
) -> None:
    """What the reference makes of ``rows``, a chunk at a time; a mutual pair is read before either is written."""
    partner = plan.partners[:, 0] if mutual else np.arange(len(plan))
    for chunk in _chunks(rows[rows <= partner[rows]], out):
        both = np.union1d(chunk, partner[chunk])
        values = reference.mix_rows(source, plan, both, scale=scale, bias=bias, dtype=out.dtype)
        out.index_copy_(0, torch.from_numpy(both), values)


def blend(source: Tensor, plan: MixPlan, own: Array, out: Tensor, *, mutual: bool) -> None:
    """Blend ``out``, a copy of the images, with partners from ``source``; a mutual pair with each other, in place."""
    partner = plan.partners[:, 0]
    whole, box = np.ones(len(plan), bool), np.zeros((len(plan), 4), np.int32)
    pastes = own == 0
    box[pastes, 2:] = out.shape[2:]
    if plan.box is not None and plan.own_inside is not None:
        top, left, bottom, right = plan.box.T
        whole = (bottom <= top) | (right <= left) | (plan.own_inside == own)
        pastes = np.where(whole, pastes, (own == 1) & (plan.own_inside == 0))
        box = np.where(whole[:, None], box, plan.box)
    index = np.arange(len(plan))
    rows = np.flatnonzero(partner > index if mutual else partner != index)
    blend_whole(source, rows[(whole & ~pastes & (own != 1))[rows]], partner, own, out, mutual=mutual)
    paste_boxes(source, rows[pastes[rows]], partner, box, out, mutual=mutual)
    rest = rows[~(whole | pastes)[rows]]
    mix_by_reference(source, plan, rest, out, mutual=mutual, scale=None, bias=None)


def blend_whole(source: Tensor, rows: Array, partner: Array, own: Array, out: Tensor, *, mutual: bool) -> None:
    """Blend all pixels of ``rows`` of ``out`` with one weight each."""
    arithmetic = torch.float64 if out.dtype == torch.float64 else torch.float32
    chunks = _chunks(rows, out)
    scratch = torch.empty((len(chunks[0]), *out.shape[1:]), dtype=arithmetic) if chunks else out
    whole = torch.empty((2, *scratch.shape), dtype=torch.int16) if out.dtype == torch.uint8 else scratch
    for chunk in chunks:
        first, second = torch.from_numpy(chunk), torch.from_numpy(partner[chunk])
        image, other = _rows(out, first), _rows(source, second)
        step = scratch[: len(chunk)]
        weight = torch.from_numpy(1 - own[chunk]).view(-1, 1, 1, 1).to(arithmetic)
        if out.dtype == torch.uint8:  # a difference fits int16, and adding it modulo 256 is exact
            difference, subtrahend = whole[:, : len(chunk)]
            step.copy_(difference.copy_(other).sub_(subtrahend.copy_(image))).mul_(weight).round_()
            step = difference.copy_(step).to(torch.uint8)
        else:
            step.copy_(other).sub_(image).mul_(weight)
        image.add_(step)
        if len(chunk) > 1:
            out.index_copy_(0, first, image)
        if mutual:
            other.sub_(step)
            if len(chunk) > 1:
                out.index_copy_(0, second, other)


def paste_boxes(source: Tensor, rows: Array, partner: Array, box: Array, out: Tensor, *, mutual: bool) -> None:
    """Copy each partner's box into ``rows`` of ``out``; a mutual pair swaps boxes."""
    there, here = _arrays(source, out)
    for i, j, (top, left, bottom, right) in zip(rows.tolist(), partner[rows].tolist(), box[rows].tolist(), strict=True):
        mine, theirs = here[i, :, top:bottom, left:right], there[j, :, top:bottom, left:right]
        if mutual:
            kept = mine.copy()
            mine[...] = theirs
            theirs[...] = kept
        else:
            mine[...] = theirs


def join_pieces(source: Tensor, plan: MixPlan, corner: Array, shift: Array, out: Tensor) -> None:
    """Copy the four pieces of every image."""
    there, here = _arrays(source, out)
    height, width = out.shape[2:]
    sources = np.concatenate([np.arange(len(plan))[:, None], plan.partners], 1).tolist()
    corners = np.minimum(corner, (height, width)).tolist()
    for i, ((row, col), piece_sources, piece_shifts) in enumerate(zip(corners, sources, shift.tolist(), strict=True)):
        tops, lefts = ((0, row), (row, height)), ((0, col), (col, width))
        spans = [(rows, cols) for rows in tops for cols in lefts]
        for j, (down, across), ((top, bottom), (left, right)) in zip(piece_sources, piece_shifts, spans, strict=True):
            piece = there[j, :, top + down : bottom + down, left + across : right + across]
            here[i, :, top:bottom, left:right] = piece


def erase_boxes(boxes: Array, fill: Array, key: Array | None, out: Tensor) -> None:
    """Overwrite the boxes of every image with its fill, or with the noise of its key."""
    channels, height, width = out.shape[1:]
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    fills = torch.from_numpy(fill).repeat(1, 1, channels // fill.shape[2])[..., None, None]
    place = torch.arange(channels * height * width).view(channels, height, width)
    for i, n in np.argwhere(area > 0).tolist():
        top, left, bottom, right = boxes[i, n].tolist()
        patch = out[i, :, top:bottom, left:right]
        if key is not None and key[i]:
            where = place[:, top:bottom, left:right]
            patch.copy_(noise(where, torch.tensor(int(key[i])), integer=not out.dtype.is_floating_point))
        else:
            patch.copy_(fills[i, n])


def _chunks(rows: Array, images: Tensor) -> list[Array]:
    """``rows`` in runs whose images fit the cache."""
    length = max(CHUNK // max(images[:1].numel(), 1), 1)
    return [rows[start : start + length] for start in range(0, len(rows), length)]


def _rows(images: Tensor, rows: Tensor) -> Tensor:
    """The images ``rows``: a view if it is one, else a copy."""
    return images.narrow(0, int(rows[0]), 1) if len(rows) == 1 else images.index_select(0, rows)


def _arrays(source: Tensor, out: Tensor) -> tuple[Array, Array]:
    """The same memory as NumPy arrays, whose slices cost little; as integers where only bits are copied."""
    if source.dtype == out.dtype:  # NumPy has no bfloat16
        same_bits = _SAME_BITS[out.element_size()]
        source, out = source.view(same_bits), out.view(same_bits)
    return source.numpy(), out.numpy()
