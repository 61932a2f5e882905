"""The inner loops of a tile, compiled by numba: grey and shrunk in one pass over the pixels.

Importing it costs half a second and 400 MB of addresses, so a decoder does so
only once it has seen many pictures. Whole numbers of 32 bits throughout, as in
Pillow's `Convert.c` and `Resample.c`: any order gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_BYTE = np.uint32(255)
_HALF = np.int32(1 << 21)


@njit(inline="always")
def _grey(pixel: Any) -> Any:
    """Luma (ITU-R 601-2) of one pixel, as `image.convert("L")` rounds it; red is the lowest byte."""
    red = np.uint32((pixel & _BYTE) * np.uint32(19595))
    green = np.uint32(((pixel >> np.uint32(8)) & _BYTE) * np.uint32(38470))
    blue = np.uint32(((pixel >> np.uint32(16)) & _BYTE) * np.uint32(7471))
    return np.int32(np.uint32(red + green + blue + np.uint32(1 << 15)) >> np.uint32(16))


@njit(inline="always")
def _shrunk(part: Any, weights: Any) -> Any:
    """One byte of a pass: the weighted sum, with 22 bits after the point, rounded and clipped."""
    total = _HALF
    for k in range(len(part)):
        total = np.int32(total + np.int32(part[k] * weights[k]))
    return min(max(total >> 22, 0), 255)


@njit(cache=True)
def shrink(pixels: Any, across: Any, down: Any) -> Any:
    """The 32 × 32 tile, uint8, of RGB pixels.

    Args:
        pixels: uint32 (height, width), as Pillow keeps them: red lowest, the highest byte is not read.
        across: of each column of the tile, the first pixel of a row that it needs and the one after its last,
            both int64 (32,), and their weights, int32 (32, most pixels), with 22 bits after the point.
        down: the same of each row of the tile.
    """
    grey = np.empty(pixels.shape[1], np.int32)
    # Column by column, so that the second pass reads it as it lies.
    columns = np.empty((len(across[0]), pixels.shape[0]), np.int32)
    for row in range(pixels.shape[0]):
        line = pixels[row]
        for x in range(len(line)):
            grey[x] = _grey(line[x])
        for column in range(len(columns)):
            part = grey[across[0][column] : across[1][column]]
            columns[column, row] = _shrunk(part, across[2][column])
    tile = np.empty((len(down[0]), len(columns)), np.uint8)
    for row in range(len(tile)):
        for column in range(len(columns)):
            part = columns[column][down[0][row] : down[1][row]]
            tile[row, column] = _shrunk(part, down[2][row])
    return tile
