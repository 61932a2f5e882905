"""The tile that a perceptual hash is taken from: Pillow's bits in less than half of Pillow's time.

Pillow shrinks with weights of 22 bits after the point, and rounds each of two
passes to 8 bits (`Resample.c`). Sums of these are exact in float64 in any
order, so a matrix product gives the same; a kernel of whole numbers
(`tile_kernel`) does so in less than half the time again. Pillow and numpy
alone: the decoder process runs it by path.
"""

from __future__ import annotations

import ctypes
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
_Spans = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]
Tile = Callable[[Image.Image], bytes]
_Kernel = Callable[[npt.NDArray[np.uint32], _Spans, _Spans], npt.NDArray[np.uint8]]


def faster(plain: Tile, kernel: _Kernel | None = None) -> Tile:
    """Give `plain`'s tiles faster, if this Pillow's are the ones expected; if not, `plain` itself.

    `plain` turns an RGB picture grey and shrinks it to 32 × 32 with Pillow's
    Lanczos filter. Small pictures are left to it, and so are tall ones:
    versions of Pillow differ in which of the two passes comes first there.
    With `tile_kernel.shrink` as the kernel, pictures that lie in one piece of
    memory go through that.
    """

    def tile(image: Image.Image) -> bytes:
        width, height = image.size
        small = min(width, height) < 2 * SIDE
        tall = height - SIDE > 2 * (width - SIDE)
        if small or tall or width > _AT_ONCE:
            return plain(image)
        whole = None if kernel is None else _arrow_array(image)
        if kernel is None or whole is None:
            return _tile(image, scratch)
        return kernel(_pixels(whole, width, height), _spans(width), _spans(height)).tobytes()

    # Kept from picture to picture: fresh memory costs as much as what is done with it.
    scratch = np.empty(_AT_ONCE)
    return tile if all(tile(image) == plain(image) for image in _samples()) else plain


def _arrow_array(image: Image.Image) -> Any:
    """The capsule through which Arrow reads a picture where it lies, which is as long as the capsule is kept."""
    try:
        return image.__arrow_c_array__()[1]
    except ValueError:
        # More than one block of Pillow's (16 MB).
        return None


def _pixels(capsule: Any, width: int, height: int) -> npt.NDArray[np.uint32]:
    """Four bytes a pixel (height, width): a list of fixed length has one child, whose second buffer holds values."""
    array = _ArrowArray.from_address(_pointer_in(capsule, b"arrow_array"))
    values = (ctypes.c_uint32 * (width * height)).from_address(array.children[0].contents.buffers[1])
    return np.ctypeslib.as_array(values).reshape(height, width)


class _ArrowArray(ctypes.Structure):
    """The head of a `struct ArrowArray` (https://arrow.apache.org/docs/format/CDataInterface.html)."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]
_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


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


@lru_cache(maxsize=128)
def _spans(length: int) -> _Spans:
    """What the kernel needs: first pixel of each column, the one after its last, and weights as whole numbers."""
    starts, weights = _weights(length)
    ends = np.minimum(starts + weights.shape[1], length)
    return starts, ends, np.rint(weights * _FRACTION).astype(np.int32)


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
