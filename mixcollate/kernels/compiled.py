"""The blends of ``host`` as loops that Numba compiles, where it is installed: a pair is read once and written once.

Images are rows ``[elements]`` of uint8 or float32. What is written to another place than it is read from, and what is
not, are two functions, because a compiler that cannot tell the two apart works one element at a time.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def blend_pair(image, other, mixed, swapped, weight, mutual):
    """``mixed = image + weight * (other - image)``; if they are mutual, ``swapped`` is ``other`` less the same."""
    for k in range(mixed.size):
        change = _change(image[k], other[k], weight, mixed)
        mixed[k] = np.float32(image[k]) + change
        if mutual:
            swapped[k] = np.float32(other[k]) - change


@numba.njit(cache=True, nogil=True)
def blend_rows(out, source, rows, partners, weights, mutual):
    """The same in place for ``rows`` of ``out [B, elements]``; partners are in ``source``, if mutual ``out`` itself."""
    for n in range(len(rows)):
        image, other, weight = out[rows[n]], source[partners[n]], weights[n]
        for k in range(image.size):
            change = _change(image[k], other[k], weight, image)
            image[k] += change
            if mutual:
                other[k] -= change


@numba.njit(cache=True, nogil=True)
def blend_apart(images, out, partners, weights):
    """``out`` from ``images [B, elements]``; a weight of 0 copies."""
    for i in range(len(out)):
        image, other, mixed, weight = images[i], images[partners[i]], out[i], weights[i]
        if weight == 0:
            mixed[:] = image
        else:
            for k in range(image.size):
                mixed[k] = np.float32(image[k]) + _change(image[k], other[k], weight, mixed)


@numba.njit(cache=True, nogil=True)
def _change(image, other, weight, array):
    """In float32; for an ``array`` of bytes rounded half to even."""
    change = weight * (np.float32(other) - np.float32(image))
    return np.rint(change) if array.itemsize == 1 else change
