"""The fast CPU implementation: large pairs one by one, small images in cache-sized chunks, pastes as copies.

What is rare is left to the reference. If Numba is installed, blends of uint8 and float32 are compiled loops.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixcollate.kernels import reference
from mixcollate.kernels.noise import noise_in_boxes
from mixcollate.kernels.pixels import Affine
from mixcollate.memory import Recycler
from mixcollate.plan import Array, MixPlan

CHUNK = 2**16  # elements whose several float32 scratch buffers fit into the second-level cache of a core
LARGE = 2**13  # elements: images of this size are worth a few calls each, smaller ones are gathered into chunks
LARGE_IN_NUMPY = {torch.uint8: 2**12, torch.float32: 2**11, torch.float64: 2**11}  # for blending: its calls cost less
ROUNDING = 1.5 * 2**23  # added to a float32 below 2**22 it rounds, half to even, and leaves the integer in the low bits
SHARED = 2**15  # elements: torch divides work on more of them between its threads

_SCRATCH = Recycler()  # memory for whole copies of a batch, which would mostly be spent on fresh pages

_NOTHING = np.empty((2, 0), np.float32)

_NUMPY_BLENDS = (torch.float32, torch.float64)
"""The dtypes that NumPy blends as it is: others are computed in float32."""

_SAME_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mix(images: Tensor, plan: MixPlan, out: Tensor, *, affine: Affine | None) -> None:
    """One pass over ``images [B, C, H, W]`` into ``out``, which may be ``images``; both on the CPU."""
    in_place = out.data_ptr() == images.data_ptr()
    few = images.numel() <= CHUNK  # so few that copying and then blending apart takes less time than blending in place
    order = _order(out) if few or not in_place else None
    if not _is_fast(images, out, affine):
        mix_slowly(images, plan, out, affine=affine)
    elif order is not None and _is_one_pass(images, plan, out, affine):
        blend_apart_compiled(_copied(images) if in_place else images, plan, out, order, affine)
        erase(plan, out)
    elif in_place and not (few and _blends_all_by_torch(plan, out)):
        overwritten = plan.mixes and not plan.mutual  # some images are read after they are written
        mix_lazily(_copied(images) if overwritten else out, LazyCopy([], out, affine), plan)
    else:
        source = _copied(images) if in_place else images
        replaced = plan.corner is not None  # pieces overwrite every pixel
        mix_lazily(out if plan.mutual else source, LazyCopy([] if replaced else source, out, affine), plan)


def mix_samples(samples: Sequence[Tensor], plan: MixPlan, out: Tensor, *, affine: Affine | None) -> None:
    """:func:`mix` of images ``[C, H, W]`` that are stacked along the way."""
    if _is_fast(samples[0], out, affine) and (plan.mutual or not plan.mixes):
        mix_lazily(out, LazyCopy(samples, out, affine), plan)
    else:
        stacked = _SCRATCH.empty((len(samples), *samples[0].shape), samples[0].dtype)
        mix(torch.stack(list(samples), out=stacked), plan, out, affine=affine)


def mix_slowly(images: Tensor, plan: MixPlan, out: Tensor, *, affine: Affine | None) -> None:
    """Any other dtypes: by way of float32, in which the reference computes too; float64 by the reference."""
    if torch.float64 in (images.dtype, out.dtype):
        reference.mix(images, plan, out, affine=affine)
    else:
        wide = _SCRATCH.empty_like(out, dtype=torch.float32)
        if images.dtype != torch.uint8:
            images = _copied(images, torch.float32)
        mix(images, plan, wide, affine=affine)
        out.copy_(wide)


def _is_fast(images: Tensor, out: Tensor, affine: Affine | None) -> bool:
    """Whether the functions below support these dtypes."""
    if out.dtype == torch.float32:
        return images.dtype in (torch.float32, torch.uint8)
    return out.dtype == images.dtype and affine is None


def _is_one_pass(images: Tensor, plan: MixPlan, out: Tensor, affine: Affine | None) -> bool:
    """Whether one compiled pass that reads every image twice is fastest: they fit the cache, or are also converted."""
    if plan.own_outside is None or not {"bitmap", "resized", "corner"}.isdisjoint(plan.parts):
        return False
    converts = images.dtype.itemsize < out.dtype.itemsize or affine is not None
    return (out.numel() < CHUNK * out.shape[0] or converts) and loops() is not None


def _blends_all_by_torch(plan: MixPlan, out: Tensor) -> bool:
    """Whether all pixels are blended, by torch in place, which takes twice the calls that blending apart takes."""
    return plan.own_outside is not None and plan.box is None and out.dtype in _NUMPY_BLENDS and not _is_for_numpy(out)


def _copied(images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A copy that nobody keeps, by default of the same dtype."""
    return _SCRATCH.empty_like(images, dtype=dtype).copy_(images)


class LazyCopy:
    """A copy of images into ``out``, one by one: each is copied just before it is mixed, and normalised just after,
    while it is in the cache. Small ones are copied, and normalised, all at once.

    Attributes:
        images: ``[B, C, H, W]``, or one tensor each; none, if ``out`` holds them already.
        out: ``[B, C, H, W]``, where they are mixed.
        small: whether they have fewer than ``LARGE`` elements each.
        uncopied: the numbers of those that are not in ``out`` yet.
        lines, affine: ``out`` and the numbers that normalise it, if it is normalised, as :func:`_in_lines` puts them.
        normalised: the numbers of those that are finished.
    """

    def __init__(self, images: Tensor | Sequence[Tensor], out: Tensor, affine: Affine | None) -> None:
        self.images, self.out = images, out
        self.small = out.numel() < LARGE * out.shape[0]
        self.uncopied = set(range(len(images)))
        self.lines, self.affine = out, affine
        if affine is not None:
            self.lines, self.affine = _in_lines(out, affine)
        self.normalised = set[int]()

    @functools.cached_property
    def rows(self) -> tuple[Tensor, ...]:
        """Views of the images in ``out``."""
        return self.out.unbind()

    def copy(self, *numbers: int) -> None:
        """Copy these images, unless that is done."""
        for number in numbers:
            if number in self.uncopied:
                self.uncopied.remove(number)
                self.rows[number].copy_(self.images[number])

    def copy_rest(self) -> None:
        """Copy all that are not copied yet."""
        if not self.uncopied:
            return
        if (images := self.take_all()) is not None:
            self.out.copy_(images)
        self.copy(*sorted(self.uncopied))

    def take(self, number: int) -> Tensor:
        """An image that is not copied yet, for a caller that mixes it while copying."""
        self.uncopied.remove(number)
        return self.images[number]

    def take_all(self) -> Tensor | None:
        """All images, if they are one tensor and none is copied yet, for a caller that mixes them while copying."""
        if not isinstance(self.images, Tensor) or len(self.uncopied) < self.out.shape[0]:
            return None
        self.uncopied.clear()
        return self.images

    def normalise(self, *numbers: int) -> None:
        """Normalise these images, which are neither read nor mixed any more."""
        if self.affine is not None and not self.small:  # small ones are normalised all at once, in finish
            self.normalised.update(numbers)
            for number in numbers:
                self.lines[number].mul_(self.affine.scale).add_(self.affine.bias)

    def finish(self) -> None:
        """Copy and normalise all that remain."""
        self.copy_rest()
        if self.affine is not None and not self.normalised:
            _normalise(self.lines, self.affine)
        elif self.affine is not None:
            self.normalise(*(set(range(len(self.out))) - self.normalised))


def _in_lines(images: Tensor, affine: Affine) -> tuple[Tensor, Affine]:
    """Images ``[B, C, H, W]`` and the numbers that normalise them, to be broadcast: if channels lie side by side, of
    whole lines ``[B, H, W * C]``, since torch is slow with as few numbers at a time as there are channels.
    """
    interleaved = images.movedim(1, 3)
    if interleaved.is_contiguous():
        return interleaved.flatten(2), Affine(*[one.repeat(images.shape[3]) for one in affine])
    return images, Affine(*[one[:, None, None] for one in affine])


def _normalise(lines: Tensor, affine: Affine) -> None:
    """Normalise images, arranged by :func:`_in_lines`, in place, as many at a time as fit the cache."""
    for chunk in torch.split(lines, torch.get_num_threads() * _images_in_chunk(lines)):
        chunk.mul_(affine.scale).add_(affine.bias)


def mix_lazily(source: Tensor, lazy: LazyCopy, plan: MixPlan) -> None:
    """Every rule of the plan, in order. Partners are read from ``source``, which is ``lazy.out`` if they are mutual."""
    if plan.corner is not None and plan.shift is not None:
        join_pieces(source, plan, plan.corner, plan.shift, lazy.out)
    if plan.own_outside is not None:
        blend(source, lazy, plan, plan.own_outside)
    lazy.finish()
    erase(plan, lazy.out)


def erase(plan: MixPlan, out: Tensor) -> None:
    """Every erasing rule of the plan, in order."""
    if plan.erase_box is not None and plan.fill is not None:
        erase_boxes(plan.erase_box, plan.fill, plan.noise, out)
    if plan.grid is not None:
        erase_masks(plan, np.flatnonzero(plan.grid[:, 0]), on_grid, out)
    if plan.hidden is not None:
        erase_masks(plan, np.flatnonzero(plan.hidden.any((1, 2))), in_hidden_cell, out)


def blend(source: Tensor, lazy: LazyCopy, plan: MixPlan, own: Array) -> None:
    """Blend images, copied on the way, with partners from ``source``; a mutual pair with each other, in place."""
    out, mutual = lazy.out, plan.mutual
    partner, index = plan.partners[:, 0], np.arange(len(plan))
    changed = partner != index
    if plan.resized is not None:  # an image can be pasted into itself, resized
        changed |= plan.resized > 0
    kinds, box = sort_by_rule(plan, own, out.shape[2:])
    if lazy.small:
        blends = kinds["blend"] & changed
        if 2 * np.count_nonzero(blends) >= len(plan) and (images := lazy.take_all()) is not None:
            blend_apart(images, partner, own, blends, out)
            changed &= ~blends
            if not changed.any():
                return
        lazy.copy_rest()
    (rows,) = (changed & (partner >= index) if mutual else changed).nonzero()
    chosen = {name: some for name, rule in kinds.items() if (some := rows[rule[rows]]).size}
    if "blend" in chosen:
        blend_whole(source, lazy, chosen["blend"], partner, own, mutual=mutual)
    if "paste" in chosen:
        paste_boxes(source, lazy, chosen["paste"], plan, box, mutual=mutual)
    lazy.copy_rest()
    if "select" in chosen:
        paste_bitmaps(source, chosen["select"], plan, box, out)
    if "resize" in chosen:
        paste_resized(source, chosen["resize"], plan, box, out, mutual=mutual)
    if "rest" in chosen:
        blend_by_reference(source, plan, chosen["rest"], out, mutual=mutual)


def sort_by_rule(plan: MixPlan, own: Array, size: Sequence[int]) -> tuple[dict[str, Array], Array]:
    """The images ``[B]`` bool that each rule applies to (unchanged ones to none), and the boxes ``[B, 4]``."""
    pastes, keeps = own == 0, own == 1
    if plan.box is None or plan.own_inside is None:
        partly, box = np.zeros(len(plan), bool), np.empty((len(plan), 4), np.int32)
        box[:] = (0, 0, *size)
        kinds = {"blend": ~(pastes | keeps), "paste": pastes}
    else:
        top, left, bottom, right = plan.box.T
        partly, box = (bottom > top) & (right > left) & (plan.own_inside != own), plan.box
        if not partly.all():
            box = np.where(partly[:, None], box, (0, 0, *size))
        cuts = keeps & (plan.own_inside == 0)  # nothing outside, everything inside
        kinds = {"blend": ~(partly | pastes | keeps), "paste": np.where(partly, cuts, pastes), "rest": partly & ~cuts}
    if plan.bitmap is not None:
        kinds["select"] = kinds["paste"] & partly
        kinds["paste"] = kinds["paste"] & ~partly
    if plan.resized is not None:
        resized = plan.resized > 0
        shown = kinds["paste"] & partly & resized
        kinds = {name: rule & ~resized for name, rule in kinds.items()}
        kinds["rest"] = kinds.get("rest", False) | (resized & ~shown & ~(keeps & ~partly))
        kinds["resize"] = shown
    return kinds, box


def blend_by_reference(source: Tensor, plan: MixPlan, rows: Array, out: Tensor, *, mutual: bool) -> None:
    """Mix ``rows`` by the reference, a chunk at a time; both images of a mutual pair are read before one is written."""
    plan = replace(plan, fill=None)  # erasing follows later
    partner = plan.partners[:, 0] if mutual else np.arange(len(plan))
    for chunk in _chunks(rows, out):
        both = np.union1d(chunk, partner[chunk])
        values = reference.mix_rows(source, plan, both, affine=None, dtype=out.dtype)
        out.index_copy_(0, torch.from_numpy(both), values)


def blend_whole(source: Tensor, lazy: LazyCopy, rows: Array, partner: Array, own: Array, *, mutual: bool) -> None:
    """Blend all pixels of each of ``rows`` with one weight."""
    order = _order(lazy.out)
    if order is not None and loops() is not None:
        blend_compiled(source, lazy, rows, partner[rows], 1 - own[rows], order, mutual=mutual)
    elif _is_for_numpy(lazy.out):
        blend_in_numpy(source, lazy, rows, partner, own, mutual=mutual)
    elif lazy.small:
        blend_small(source, rows, partner, own, lazy.out, mutual=mutual)
    else:
        blend_large(source, lazy, rows, partner, own, mutual=mutual)


def _is_for_numpy(out: Tensor) -> bool:
    """Whether NumPy is fastest pair by pair: torch would give each image to one thread."""
    size = math.prod(out.shape[1:])
    one_thread = size <= SHARED or torch.get_num_threads() == 1
    return size >= LARGE_IN_NUMPY.get(out.dtype, math.inf) and one_thread


def blend_in_numpy(source: Tensor, lazy: LazyCopy, rows: Array, partner: Array, own: Array, *, mutual: bool) -> None:
    """:func:`blend_whole` in NumPy, pair by pair while copying: on one thread up to 1.7 times as fast as torch."""
    here, there = lazy.out.numpy(), source.numpy()
    rounds = here.dtype == np.uint8
    step = np.empty_like(here[0], dtype=np.float32 if rounds else None)
    change = np.empty_like(here[0]) if rounds else step
    while_copying = bool(lazy.uncopied) and lazy.images[0].dtype == lazy.out.dtype  # NumPy is slow to convert
    with np.errstate(all="ignore"):  # infinite pixels are the caller's choice, and tiny shares may become 0
        for i, j, weight in zip(rows.tolist(), partner[rows].tolist(), (1 - own[rows]).tolist(), strict=True):
            pair = (i, j) if mutual else (i,)
            image, other = here[i], there[j]
            if while_copying:
                image = lazy.take(i).numpy()
                other = lazy.take(j).numpy() if mutual else other
            else:
                lazy.copy(*pair)
            np.subtract(other, image, out=step, dtype=step.dtype)
            step *= weight
            if rounds:
                step += ROUNDING
                np.copyto(change, step.view(np.int32), casting="unsafe")  # modulo 256
            np.add(image, change, out=here[i])
            if mutual:
                np.subtract(other, change, out=there[j])
            lazy.normalise(*pair)


def blend_compiled(
    source: Tensor,
    lazy: LazyCopy,
    rows: Array,
    partners: Array,
    weights: Array,
    order: tuple[int, int, int],
    *,
    mutual: bool,
) -> None:
    """:func:`blend_whole` in compiled loops, which mix an image while they copy it."""
    lines = [one.numpy().transpose(0, *order).reshape(len(one), -1) for one in (lazy.out, source)]
    if not lazy.uncopied:
        loops().blend_rows(*lines, rows, partners, weights, mutual)
        return
    here, there = lines
    back = [axis - 1 for axis in order]
    for i, j, weight in zip(rows.tolist(), partners.tolist(), weights, strict=True):
        image = lazy.take(i).numpy().transpose(back).reshape(-1)  # a view, if it has the memory order of out
        other = lazy.take(j).numpy().transpose(back).reshape(-1) if mutual else there[j]
        loops().blend_pair(image, other, here[i], here[j], weight, mutual)
        lazy.normalise(*((i, j) if mutual else (i,)))


def blend_apart_compiled(
    images: Tensor, plan: MixPlan, out: Tensor, order: tuple[int, int, int], affine: Affine | None
) -> None:
    """All images of ``out`` in one compiled pass, with boxes and normalising; partners are read a second time."""
    axes, lines = (0, *order), (out.shape[0], -1)
    here, there = (one.numpy().transpose(axes).reshape(lines) for one in (out, images))
    planes, step = (out.shape[1], 1) if order == (1, 2, 3) else (1, out.shape[1])  # or interleaved channels
    inside, box = plan.own_inside, plan.box
    if inside is None or box is None:
        inside, box = plan.own_outside, np.zeros((len(plan), 4), np.int32)
    elif step > 1:
        box = box * np.array([1, step, 1, step], np.int32)
    scale, bias = (one.numpy() for one in affine) if affine is not None and step == 1 else _NOTHING
    partner = np.ascontiguousarray(plan.partners[:, 0])
    width = out.shape[3] * step
    loops().blend_apart(there, here, partner, plan.own_outside, inside, box, planes, width, scale, bias)
    if affine is not None and step > 1:
        _normalise(*_in_lines(out, affine))


def blend_apart(images: Tensor, partner: Array, own: Array, blends: Array, out: Tensor) -> None:
    """Copy ``images`` to ``out`` and blend those in ``blends`` along the way, in fewer passes than in place."""
    weight, threads, converts = (1 - own)[:, None, None, None], torch.get_num_threads(), images.dtype != out.dtype
    by_numpy = out.dtype in _NUMPY_BLENDS and (out.numel() <= CHUNK or (converts and threads == 1))
    blend_chunk = _blend_chunk_by_numpy if by_numpy else _blend_chunk_by_torch
    length = _images_in_chunk(out) * (1 if by_numpy else 2 * threads)
    for chunk in [slice(start, start + length) for start in range(0, len(partner), length)]:
        blend_chunk(images, chunk, partner[chunk], weight[chunk], out)
    (kept,) = (~blends).nonzero()
    if kept.size:
        _words(out)[kept] = _words(_gathered(images, kept).to(out.dtype))  # bit for bit, NaN too


def _blend_chunk_by_numpy(images: Tensor, chunk: slice, partner: Array, weight: Array, out: Tensor) -> None:
    """Blend the images of ``chunk`` with ``partner`` in half of torch's time, if there are few elements."""
    here, there = out.numpy()[chunk], images.numpy()
    if here.dtype == there.dtype and there.flags.c_contiguous:  # or take would copy all images each time
        there.take(partner, 0, out=here, mode="clip")  # without a buffer; bounds have been checked
    else:
        here[...] = there[partner]
    with np.errstate(all="ignore"):  # infinite pixels are the caller's choice, and tiny shares may become 0
        here -= there[chunk]
        here *= weight
        here += there[chunk]


def _blend_chunk_by_torch(images: Tensor, chunk: slice, partner: Array, weight: Array, out: Tensor) -> None:
    """:func:`_blend_chunk_by_numpy` with all of torch's threads instead."""
    out, images = _in_order(out, images)
    here, image = out[chunk], images[chunk]
    index, share = torch.from_numpy(partner), torch.from_numpy(weight)
    if out.dtype not in _NUMPY_BLENDS:
        torch.add(image, _step(image, images.index_select(0, index), share, _scratch(image)), out=here)
        return
    if images.dtype == out.dtype:
        torch.index_select(images, 0, index, out=here)
    else:
        here.copy_(images.index_select(0, index))
    here.sub_(image).mul_(share).add_(image)


def blend_small(source: Tensor, rows: Array, partner: Array, own: Array, out: Tensor, *, mutual: bool) -> None:
    """:func:`blend_whole` in torch for small images, gathered into chunks by NumPy in half of the time torch takes."""
    out, source = _in_order(out, source)
    here = _words(out)
    for chunk in _chunks(rows, out):
        image, other = _gathered(out, chunk), _gathered(source, partner[chunk])
        weight = torch.from_numpy(1 - own[chunk]).view(-1, 1, 1, 1)
        step = _step(image, other, weight, _scratch(image))
        here[chunk] = _words(image.add_(step))
        if mutual:
            here[partner[chunk]] = _words(other.sub_(step))


def blend_large(source: Tensor, lazy: LazyCopy, rows: Array, partner: Array, own: Array, *, mutual: bool) -> None:
    """:func:`blend_whole` in torch for large images, one pair at a time, since views cost less than copies."""
    out, source = _in_order(lazy.out, source)
    images, partners, scratch = out.unbind(), source.unbind(), _scratch(out[0])
    here: Any = out.numpy() if out.dtype == torch.uint8 else list(images)
    for i, j, weight in zip(rows.tolist(), partner[rows].tolist(), (1 - own[rows]).tolist(), strict=True):
        pair = (i, j) if mutual else (i,)
        lazy.copy(*pair)
        step = _step(images[i], partners[j], weight, scratch)
        change = step.numpy() if step.dtype == torch.uint8 else step  # on uint8 NumPy is faster than torch
        here[i] += change
        if mutual:
            here[j] -= change
        lazy.normalise(*pair)


@functools.cache
def loops() -> Any:
    """The module of loops that Numba compiles; ``None`` if Numba is not installed or does not work here."""
    try:
        from mixcollate.kernels import compiled  # the only import of Numba, made on first use
    except Exception:  # NumPy is too new for it, its libraries do not load, its cache cannot be written anywhere, ...
        return None
    return compiled


def _in_order(out: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The same memory with its axes in the order in which they lie in ``out``: then torch casts, and NumPy gathers,
    whole rows at a time.
    """
    if out.is_contiguous(memory_format=torch.channels_last):
        return out.permute(0, 2, 3, 1), images.permute(0, 2, 3, 1)
    return out, images


def _order(out: Tensor) -> tuple[int, int, int] | None:
    """The order of an image's axes in memory, if it is dense and of a dtype that the compiled loops support."""
    if out.dtype in (torch.uint8, torch.float32):
        for memory_format, order in ((torch.contiguous_format, (1, 2, 3)), (torch.channels_last, (2, 3, 1))):
            if out.is_contiguous(memory_format=memory_format):
                return order
    return None


def _step(image: Tensor, other: Tensor, weight: float | Tensor, scratch: list[Tensor]) -> Tensor:
    """``weight * (other - image)``; of uint8 rounded, modulo 256, so that adding is exact (differences fit int16)."""
    if image.dtype == torch.uint8:
        difference, subtrahend, product, step = scratch
        difference.copy_(other).sub_(subtrahend.copy_(image))
        product.copy_(difference).mul_(weight).round_()
        return step.copy_(difference.copy_(product))
    step = scratch[0]
    difference = torch.sub(other, image, out=step) if image.dtype == step.dtype else step.copy_(other).sub_(image)
    return difference.mul_(weight)


def _scratch(image: Tensor) -> list[Tensor]:
    """Memory for the steps of images like this one."""
    kinds = [torch.float64 if image.dtype == torch.float64 else torch.float32]
    if image.dtype == torch.uint8:
        kinds = [torch.int16, torch.int16, torch.float32, torch.uint8]
    return [torch.empty_like(image, dtype=kind) for kind in kinds]


def paste_boxes(source: Tensor, lazy: LazyCopy, rows: Array, plan: MixPlan, box: Array, *, mutual: bool) -> None:
    """Copy each partner's box into ``rows``; a mutual pair swaps boxes."""
    there, here = _arrays(source, lazy.out)
    for i, j, (top, left, bottom, right) in _pastes(rows, plan, box):
        pair = (i, j) if mutual else (i,)
        if not lazy.small:  # small ones have been copied, and are normalised, all at once
            lazy.copy(*pair)
        mine, theirs = here[i, :, top:bottom, left:right], there[j, :, top:bottom, left:right]
        if mutual:
            kept = mine.copy()
            mine[...] = theirs
            theirs[...] = kept
        else:
            mine[...] = theirs
        lazy.normalise(*pair)


def paste_bitmaps(source: Tensor, rows: Array, plan: MixPlan, box: Array, out: Tensor) -> None:
    """Copy the pixels of each partner's box whose bit is set into ``rows`` of ``out``."""
    here = _words(out)
    for i, j, (top, left, bottom, right) in _pastes(rows, plan, box):
        mask = np.unpackbits(_part(plan.bitmap)[i], axis=1, bitorder="little")[top:bottom, left:right]
        theirs = _words(source[j : j + 1].to(out.dtype))[0, :, top:bottom, left:right]
        copy_where(mask, theirs, here[i, :, top:bottom, left:right])


def paste_resized(source: Tensor, rows: Array, plan: MixPlan, box: Array, out: Tensor, *, mutual: bool) -> None:
    """Show the whole partner, resized, in the box of each of ``rows`` of ``out``; a mutual pair in each other's."""
    for i, j, (top, left, bottom, right) in _pastes(rows, plan, box):
        bilinear = _part(plan.resized)[i] == 2
        pairs = ((i, j), (j, i)) if mutual else ((i, j),)
        size = bottom - top, right - left
        shown = [resize(source[b], *size, bilinear=bilinear, dtype=out.dtype) for _, b in pairs]
        for (a, _), patch in zip(pairs, shown, strict=True):
            out[a, :, top:bottom, left:right] = patch


def resize(image: Tensor, height: int, width: int, *, bilinear: bool, dtype: torch.dtype) -> Tensor:
    """The whole image as ``[C, height, width]`` in ``dtype``, pixel centres aligned, as in the reference."""
    if not bilinear:
        rows, cols = _nearest(image.shape[1], height), _nearest(image.shape[2], width)
        return image[:, rows[:, None], cols].to(dtype)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    pixels = np.ascontiguousarray(image.to(arithmetic).numpy())  # take would copy any other each time
    above, below, down = _neighbours(image.shape[1], height, pixels.dtype)
    before, after, across = _neighbours(image.shape[2], width, pixels.dtype)

    def lines(rows: Array) -> Array:
        some = pixels.take(rows, 1)
        first, second = some.take(before, 2), some.take(after, 2)
        return _between(first, second, across)

    with np.errstate(all="ignore"):  # infinite pixels are the caller's choice
        resized = torch.from_numpy(_between(lines(above), lines(below), down[:, None]))
    return (resized if dtype.is_floating_point else resized.round_()).to(dtype)


def _between(first: Array, second: Array, weight: Array) -> Array:
    """``first + weight * (second - first)``, in the memory of the second."""
    second -= first
    second *= weight
    second += first
    return second


def _nearest(length: int, shown: int) -> Tensor:
    """The pixels on an axis of ``length`` nearest to the centres of ``shown`` pixels."""
    return torch.from_numpy((2 * np.arange(shown) + 1) * length // (2 * shown))


@functools.lru_cache(maxsize=512)  # a training run has as many sizes as its images have pixels along an axis
def _neighbours(length: int, shown: int, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """The pixels on an axis of ``length`` before and after the centre of each of ``shown`` pixels, and how far it is
    from the one before, in ``dtype``.
    """
    number = dtype.type
    scale = number(1) / number(shown) * number(length)  # rounded twice, as by torch in the reference
    position = np.clip((np.arange(shown, dtype=dtype) + number(0.5)) * scale - number(0.5), 0, length - 1)
    before = position.astype(np.int64)
    return before, np.minimum(before + 1, length - 1), position - before.astype(dtype)


def _pastes(rows: Array, plan: MixPlan, box: Array) -> Iterator[tuple[int, int, list[int]]]:
    """Each of ``rows``, its partner, and its box."""
    return zip(rows.tolist(), plan.partners[rows, 0].tolist(), box[rows].tolist(), strict=True)


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
    """Overwrite the boxes of every image with its fill, or with noise by its key."""
    here, fills = _words(out), _fills(fill, out)
    erased = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    noisy = erased & (key[:, None] != 0) if key is not None else np.zeros_like(erased)
    for i, n in np.argwhere(erased & ~noisy).tolist():
        top, left, bottom, right = boxes[i, n].tolist()
        here[i, :, top:bottom, left:right] = fills[i, n]
    for chunk in _chunks(np.argwhere(noisy), out):
        images, some = chunk[:, 0], boxes[chunk[:, 0], chunk[:, 1]]
        noise, start = _noise(out, some, _part(key)[images]), 0
        for i, (top, left, bottom, right) in zip(images.tolist(), some.tolist(), strict=True):
            pixels = here[i, :, top:bottom, left:right]
            pixels[...] = noise[start : start + pixels.size].reshape(pixels.shape)
            start += pixels.size


def erase_masks(plan: MixPlan, rows: Array, masked: Callable[[MixPlan, Array], Array], out: Tensor) -> None:
    """Overwrite the pixels of ``rows`` that ``masked`` selects with each image's first fill, or with noise."""
    here, fills = _words(out), _fills(_part(plan.fill), out)
    for chunk in _chunks(rows, out):
        chosen = fills[chunk, 0]
        if plan.noise is not None and plan.noise[chunk].any():
            keys, whole = plan.noise[chunk], np.tile([0, 0, *out.shape[2:]], (len(chunk), 1))
            noise = _noise(out, whole, keys).reshape(-1, *out.shape[1:])
            chosen = noise if keys.all() else np.where(keys[:, None, None, None] != 0, noise, chosen)
        first, end = chunk[0], chunk[-1] + 1
        place: Any = slice(first, end) if end - first == len(chunk) else chunk  # a slice is not copied
        words = here[place]
        copy_where(masked(plan, chunk)[:, None], chosen, words)
        if place is chunk:
            here[place] = words


def _fills(fill: Array, out: Tensor) -> Array:
    """``[B, N, C or 1, 1, 1]``: the fills of every image as words of ``out``; those of a frame for a whole video."""
    repeats = out.shape[1] // fill.shape[2] if fill.shape[2] > 1 else 1  # one number is broadcast to any channels
    return _words(torch.from_numpy(np.tile(fill, repeats)).to(out.dtype))[..., None, None]


def _noise(out: Tensor, boxes: Array, keys: Array) -> Array:
    """``[elements]``: the noise of all channels in each of ``boxes [N, 4]`` by its key, as words of ``out``."""
    values = noise_in_boxes(tuple(out.shape[1:]), boxes, keys, integer=not out.dtype.is_floating_point)
    return _words(torch.from_numpy(values).to(out.dtype))


def on_grid(plan: MixPlan, rows: Array) -> Array:
    """``[rows, H, W]`` bool: the pixels that the grid of each image erases."""
    grid, turn = _part(plan.grid)[rows], _part(plan.turn)[rows]
    # quotients of whole numbers up to 2**22 are never rounded to the next, and NumPy is slow to divide integers
    number = np.float32 if max(*plan.size, grid.max(), -grid.min()) < 2**20 else np.float64
    tile, hole, down, across, inverted = grid.T.astype(number)[..., None, None]
    cosine, sine = turn.T[..., None, None]
    row, col = (np.arange(length, dtype=np.float32) + np.float32(0.5 - length / 2) for length in plan.size)
    row, col = row[:, None], col[None]
    if sine.any():
        row, col = cosine * row - sine * col, sine * row + cosine * col
    else:  # upright: each axis by itself
        row, col = cosine * row, cosine * col
    in_hole = _in_hole(np.floor(row) + down, tile, hole) & _in_hole(np.floor(col) + across, tile, hole)
    erased: Array = in_hole != (inverted != 0)
    return erased


def _in_hole(position: Array, tile: Array, hole: Array) -> Array:
    """Whether ``position % tile < hole``; a division, a product and a difference are faster than NumPy's remainder."""
    return np.asarray(position - np.floor(position / tile) * tile < hole)


def in_hidden_cell(plan: MixPlan, rows: Array) -> Array:
    """``[rows, H, W]`` of 0 and 1: the pixels in cells whose bit is set."""
    masks = np.empty((len(rows), *plan.size), np.uint8)
    for i, mask in zip(rows.tolist(), masks, strict=True):
        side = int(_part(plan.cell)[i])
        down, across = (np.arange(length) // side for length in plan.size)
        cells = np.unpackbits(_part(plan.hidden)[i], axis=1, bitorder="little")
        cells.take(across, 1).take(down, 0, out=mask, mode="clip")  # without a buffer: they are within the cells
    return masks


def copy_where(mask: Array, chosen: Array, words: Array) -> None:
    """Copy ``chosen`` into ``words`` where ``mask`` is 1, as integers, in a tenth of the time of ``np.where``."""
    changes = words ^ chosen
    changes &= -mask.astype(words.dtype)
    words ^= changes


def _chunks(rows: Array, images: Tensor) -> list[Array]:
    """``rows`` in runs whose images fit into the cache."""
    length = _images_in_chunk(images)
    return [rows[start : start + length] for start in range(0, len(rows), length)]


def _images_in_chunk(images: Tensor) -> int:
    return max(CHUNK // max(math.prod(images.shape[1:]), 1), 1)


def _arrays(source: Tensor, out: Tensor) -> tuple[Array, Array]:
    """The same memory as NumPy arrays, which are cheap to slice; as integers if dtypes are equal."""
    if source.dtype == out.dtype:
        return _words(source), _words(out)
    return source.numpy(), out.numpy()


def _words(images: Tensor) -> Array:
    """The same memory as a NumPy array of integers (NumPy has no bfloat16)."""
    return images.view(_SAME_BITS[images.element_size()]).numpy()


def _gathered(images: Tensor, rows: Array) -> Tensor:
    """A copy of some images."""
    return torch.from_numpy(_words(images)[rows]).view(images.dtype)


def _part(part: Array | None) -> Array:
    """A part that is known to be present, which a type checker cannot see."""
    return np.asarray(part)
