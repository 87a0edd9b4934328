"""How kernels go through images: in tiles of vectors, in the memory orders that images and output have.

A program works on a tile of ``vectors`` x ``vec`` places of one image, or of both images of a pair, where ``vec``
places are 16 bytes of the output. A place is a pixel, of which a program handles several channels; from channels-last
to channels-last ("lines") a place is one element, in memory order. If images that are not pairs are mixed in place, a
tile holds a few vectors of every image, so that everything is read before anything is overwritten.

"planes" and "lines" are the two dense memory orders, where a vector is 16 contiguous bytes. Between the two, a place
would be read and written at different strides; for three channels ("interleaved") three whole vectors are read and
sorted in registers instead. Anything else is "strided": correct, but slow.
"""

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mixcollate.kernels.packed import EntryFormat

VECTORS = 128  # one per thread, in 4 warps
VECTORS_OF_ALL = 2048  # in a tile of all images: two per thread, in 32 warps
MOST_IMAGES = 1024  # in such a tile; the values of more would not fit into registers


class Tiling(NamedTuple):
    """What a kernel is specialised on, in addition to the plan's layout.

    Attributes:
        height, width, channels: of an image.
        group: channels per program; 1 in lines, where each place belongs to one channel.
        read: memory order of the images: ``"planes"`` (each channel dense), ``"lines"`` (dense channels-last),
            ``"interleaved"`` (lines of 3 channels, where places are pixels: read in whole vectors, and sorted in
            registers) or ``"strided"``.
        write: memory order of the output, likewise.
        unit, line: places of a pixel, which in lines are its channels, and of a row.
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
    unit: int
    line: int
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


# cached, one object per kind of batch, so a launch need not hash twenty fields
Tiling.__hash__ = object.__hash__  # type: ignore[method-assign]


def is_by_pixel(entry: EntryFormat, moved: int) -> bool:
    """Whether a plan computes so much for each pixel that its channels should share it.

    Sorting channels-last pixels in registers makes memory slower, the more bytes are ``moved`` for an element. Measured
    on an H200: it pays for grids and resizing, except of float32, and for pieces and cells of uint8 that stays uint8 or
    becomes half precision.
    """
    return bool((entry.grid or entry.resized) and moved < 8) or bool((entry.corner or entry.hidden) and moved <= 3)


def tiling_of(images: Tensor, out: Tensor, *, in_place: bool, normalise: bool, by_pixel: bool) -> Tiling:
    """The tiling of images into ``out``, of one image or pair at a time; ``by_pixel`` as :func:`is_by_pixel` says."""
    source, target = (images.stride(), images.dtype), (out.stride(), out.dtype)
    return _tiling_of(images.shape, source, target, in_place, normalise, by_pixel, VECTORS)


@functools.lru_cache(maxsize=256)
def _tiling_of(
    shape: tuple[int, ...], source: Any, target: Any, in_place: bool, normalise: bool, by_pixel: bool, vectors: int
) -> Tiling:
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
    unit = channels if write == "lines" else 1
    tiling = Tiling(
        height=height,
        width=width,
        channels=channels,
        group=1 if write == "lines" else 3 if channels % 3 == 0 else 2 if channels % 2 == 0 else 1,
        read=read,
        write=write,
        unit=unit,
        line=width * unit,
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
    vectors = min(vectors, _vectors_of_image(tiling))
    return _with_extent(tiling._replace(vectors=vectors, each=vectors))


@functools.lru_cache(maxsize=256)
def of_all_images(tiling: Tiling, batch: int, vectors: int) -> Tiling:
    """The same tiling with tiles that hold two or more vectors of every image."""
    images: int = triton.next_power_of_2(batch)
    each = max(min(vectors // images, _vectors_of_image(tiling)), 2)
    # Many vectors of one channel rather than few of three: longer contiguous runs make memory faster.
    return _with_extent(tiling._replace(vectors=each * images, batch=batch, each=each, group=1))


def _with_extent(tiling: Tiling) -> Tiling:
    """The same tiling with the number of programs and their warps."""
    groups = 1 if tiling.write == "lines" else tiling.channels // tiling.group
    most = 32 if tiling.batch else 4
    warps = max(min(tiling.vectors // 32, most) * 32 // _threads_in_a_warp(), 1)
    return tiling._replace(programs=tile_count(tiling) * groups, warps=warps)


def _places_of_image(tiling: Tiling) -> int:
    """Number of places in an image, or in one of its channels."""
    return tiling.height * tiling.line


def _vectors_of_image(tiling: Tiling) -> int:
    """Number of vectors that hold them, rounded up to a power of two."""
    count: int = triton.next_power_of_2(-(-_places_of_image(tiling) // tiling.vec))
    return count


def tile_count(tiling: Tiling) -> int:
    """Number of tiles that cover an image, or one of its channels."""
    return -(-_places_of_image(tiling) // (tiling.each * tiling.vec))


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


@functools.cache
def _threads_in_a_warp() -> int:
    """64 on some AMD GPUs, otherwise 32."""
    return 32 if torch.version.hip is None else int(torch.cuda.get_device_properties(0).warp_size)
