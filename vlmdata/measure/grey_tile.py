"""The tile that a perceptual hash is taken from: Pillow's bits in less than half of Pillow's time.

Pillow shrinks with weights of 22 bits after the point, and rounds each of two
passes to 8 bits (`Resample.c`). Sums of these are exact in float64 in any
order, so a matrix product gives the same. Pillow and numpy
alone: the decoder process runs it by path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32
_FRACTION = 1 << 22
_LOBES = 3
_BAND = 8
"""Columns of the tile that are summed at once: each needs a part of the row only."""
_AT_ONCE = 1 << 18
"""Pixels summed at once."""
_Floats = npt.NDArray[np.float64]
_Tile = Callable[[Image.Image], bytes]


def faster(plain: _Tile) -> _Tile:
    """Give `plain`'s tiles faster, if this Pillow's are the ones expected; if not, `plain` itself.

    `plain` turns an RGB picture grey and shrinks it to 32 × 32 with Pillow's
    Lanczos filter. Small pictures are left to it, and so are tall ones:
    versions of Pillow differ in which of the two passes comes first there.
    """

    def tile(image: Image.Image) -> bytes:
        width, height = image.size
        small = min(width, height) < 2 * SIDE
        tall = height - SIDE > 2 * (width - SIDE)
        return plain(image) if small or tall or width > _AT_ONCE else _tile(image, scratch)

    # Kept from picture to picture: fresh memory costs as much as what is done with it.
    scratch = np.empty(_AT_ONCE)
    return tile if all(tile(image) == plain(image) for image in _samples()) else plain


def _samples() -> Iterator[Image.Image]:
    """Noise in the shapes of photographs."""
    rng = np.random.default_rng(0)
    for height, width in ((120, 180), (160, 120), (64, 300)):
        yield Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def _tile(image: Image.Image, scratch: _Floats) -> bytes:
    across = _shrunk(np.asarray(image.convert("L")), scratch)
    return _shrunk(across.T, scratch).T.astype(np.uint8).tobytes()


def _shrunk(pixels: npt.NDArray[Any], scratch: _Floats) -> _Floats:
    """Rows of any length (n, length) to rows of the tile's (n, 32): whole numbers from 0 to 255."""
    length = pixels.shape[1]
    sums = np.empty((len(pixels), SIDE))
    height = max(1, _AT_ONCE // length)
    for top in range(0, len(pixels), height):
        part = pixels[top : top + height]
        rows = scratch[: part.size].reshape(part.shape)
        np.copyto(rows, part)
        for left, (start, weights) in zip(range(0, SIDE, _BAND), _bands(length), strict=True):
            found = sums[top : top + height, left : left + _BAND]
            np.matmul(rows[:, start : start + len(weights)], weights, out=found)
    sums += 0.5
    np.floor(sums, out=sums)
    return np.clip(sums, 0, 255, out=sums)


@lru_cache(maxsize=128)
def _bands(length: int) -> list[tuple[int, _Floats]]:
    """For each band of columns, where in a row the pixels begin that it needs, and their weights (pixels, 8)."""
    starts, weights = _weights(length)
    bands = []
    for left in range(0, SIDE, _BAND):
        offsets = starts[left : left + _BAND] - starts[left]
        band = np.zeros((offsets[-1] + weights.shape[1], _BAND))
        for column, offset in enumerate(offsets):
            band[offset : offset + weights.shape[1], column] = weights[left + column]
        bands.append((int(starts[left]), band[: length - starts[left]]))
    return bands


def _weights(length: int) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Lanczos weights of a row, as Pillow rounds them: first pixel of each column, and weights (32, pixels)."""
    scale = length / SIDE
    reach = _LOBES * scale
    centres = (np.arange(SIDE) + 0.5) * scale
    starts = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((centres + reach + 0.5).astype(np.int64), length)
    pixels = starts[:, None] + np.arange((ends - starts).max())
    x = (pixels - centres[:, None] + 0.5) / scale
    inside = (x >= -_LOBES) & (x < _LOBES) & (pixels < ends[:, None])
    kernel = np.where(inside, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return starts, np.trunc(kernel * _FRACTION + np.copysign(0.5, kernel)) / _FRACTION
