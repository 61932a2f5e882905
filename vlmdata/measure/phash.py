"""Perceptual hashes of many pictures at once, bit for bit those of `imagehash.phash`.

The hash is a fact about pixels: 8 x 8 low frequencies of a 32 x 32 greyscale tile, one bit each, set where
the coefficient lies above their median
(https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

TILE_SIDE = 32
HASH_SIDE = 8
# Coefficients take eight times the room of their tiles; those of a block this long stay in a core's cache.
_BLOCK = 64


def tile(image: Image) -> bytes:
    """Shrink one upright picture to the 32 x 32 greyscale tile that its hash is taken from.

    Args:
        image: an RGB picture, already turned upright and with transparency composited: both change the hash.

    Returns:
        1,024 bytes, row by row, one byte of luma (ITU-R 601-2) a pixel.
    """
    from PIL.Image import Resampling

    return image.convert("L").resize((TILE_SIDE, TILE_SIDE), Resampling.LANCZOS).tobytes()


def phash_tiles(tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Hash tiles, 64 bits each.

    Args:
        tiles: uint8 of shape (n, 32, 32), as `tile` makes them; n may be 0.

    Returns:
        uint64 of shape (n,). The first bit (the mean brightness) is the highest, so that `f"{value:016x}"`
        equals `str(imagehash.phash(image))`.

    Raises:
        ValueError: the tiles are not uint8 of shape (n, 32, 32).
    """
    if tiles.dtype != np.uint8 or tiles.ndim != 3 or tiles.shape[1:] != (TILE_SIDE, TILE_SIDE):
        raise ValueError(f"tiles: {tiles.dtype} of shape {tiles.shape}; expected uint8 of shape (n, 32, 32)")
    hashes = np.empty(len(tiles), dtype=np.uint64)
    for start in range(0, len(tiles), _BLOCK):
        block = slice(start, start + _BLOCK)
        hashes[block] = _pack_bits(_above_median(_low_frequencies(tiles[block])))
    return hashes


def _low_frequencies(tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The 8 x 8 corner of the unnormalised DCT-II, float64 of shape (n, 64).

    The same transform in the same order as imagehash, rather than a matrix product: on flat or symmetric
    pictures most coefficients are zero but for rounding, and there the last bit of each decides the hash.
    """
    from scipy.fft import dct  # type: ignore[import-untyped, unused-ignore]

    columns: Any = dct(tiles.astype(np.float64), axis=1)[:, :HASH_SIDE, :]
    corner = dct(columns, axis=2)[:, :, :HASH_SIDE]
    return np.asarray(corner, dtype=np.float64).reshape(len(tiles), HASH_SIDE * HASH_SIDE)


def _above_median(coefficients: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether each coefficient lies above its row's median, which is the mean of the middle two."""
    middle = coefficients.shape[1] // 2
    ordered = np.partition(coefficients, (middle - 1, middle), axis=1)
    median = (ordered[:, middle - 1] + ordered[:, middle]) / 2
    return coefficients > median[:, None]


def _pack_bits(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Rows of 64 bits as integers, the first bit the highest."""
    return np.packbits(bits, axis=1).view(">u8").reshape(-1).astype(np.uint64)
