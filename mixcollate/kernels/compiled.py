"""The blends of ``host`` as loops compiled by Numba, if it is installed: a pair is read once and written once.

Images are rows ``[elements]`` of uint8 or float32. Blending in place and into other memory are separate functions,
because the compiler vectorises only loops in which it knows whether input and output are the same.
"""

import numba
import numpy as np

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # made from the environment
    raise ImportError("NUMBA_DISABLE_JIT leaves these loops to Python, which takes a thousand times as long as NumPy")


@numba.njit(cache=True, nogil=True)
def blend_pair(image, other, mixed, swapped, weight, mutual):
    """``mixed = image + weight * (other - image)``; if mutual, ``swapped = other - weight * (other - image)``, too."""
    for k in range(mixed.size):
        change = _change(image[k], other[k], weight, mixed)
        mixed[k] = np.float32(image[k]) + change
        if mutual:
            swapped[k] = np.float32(other[k]) - change


@numba.njit(cache=True, nogil=True)
def blend_rows(out, source, rows, partners, weights, mutual):
    """Blend ``rows`` of ``out [B, elements]`` in place; partners are in ``source``, which is ``out`` if mutual."""
    for n in range(len(rows)):
        image, other, weight = out[rows[n]], source[partners[n]], weights[n]
        for k in range(image.size):
            change = _change(image[k], other[k], weight, image)
            image[k] += change
            if mutual:
                other[k] -= change


@numba.njit(cache=True, nogil=True)
def blend_apart(images, out, partners, outside, inside, boxes, planes, width, scale, bias):
    """``out`` from ``images``, both ``[B, elements]``: every image blended with its partner, and normalised.

    An image consists of ``planes`` with lines of ``width`` elements, the unit of ``boxes [B, 4]``. A share of 1 or 0
    copies. ``scale`` and ``bias`` have one number per plane, or are empty.
    """
    for i in range(len(out)):
        image, other, mixed = images[i], images[partners[i]], out[i]
        alone = partners[i] == i
        beside, within = (np.float32(1), np.float32(1)) if alone else (outside[i], inside[i])
        size = mixed.size // planes
        _blend_all(image, other, mixed, beside)
        if within != beside:
            _blend_box(image, other, mixed, boxes[i], planes, width, within)
        for plane in range(scale.size):
            factor, shift, values = scale[plane], bias[plane], mixed[plane * size : (plane + 1) * size]
            for k in range(values.size):
                values[k] = values[k] * factor + shift


@numba.njit(cache=True, nogil=True)
def _blend_all(image, other, mixed, own):
    if own == 1:
        for k in range(mixed.size):
            mixed[k] = image[k]
    elif own == 0:
        for k in range(mixed.size):
            mixed[k] = other[k]
    else:
        weight = np.float32(1) - own
        for k in range(mixed.size):
            mixed[k] = np.float32(image[k]) + _change(image[k], other[k], weight, mixed)


@numba.njit(cache=True, nogil=True)
def _blend_box(image, other, mixed, box, planes, width, own):
    """:func:`_blend_all` in a box of every plane. Its loops are inlined: a call costs more than the line it blends."""
    top, left, bottom, right = box
    size, weight = mixed.size // planes, np.float32(1) - own
    for plane in range(planes):
        for line in range(plane * size + top * width, plane * size + bottom * width, width):
            if own == 0:
                for k in range(line + left, line + right):
                    mixed[k] = other[k]
            elif own == 1:
                for k in range(line + left, line + right):
                    mixed[k] = image[k]
            else:
                for k in range(line + left, line + right):
                    mixed[k] = np.float32(image[k]) + _change(image[k], other[k], weight, mixed)


@numba.njit(cache=True, nogil=True)
def _change(image, other, weight, array):
    """``weight * (other - image)`` in float32; rounded half to even if ``array`` is uint8."""
    change = weight * (np.float32(other) - np.float32(image))
    return np.rint(change) if array.itemsize == 1 else change
