"""Perceptual hashes in batch, against imagehash one picture at a time, over the same decoded photographs."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

import imagehash
import numpy as np
import numpy.typing as npt
import scipy.fftpack  # type: ignore[import-untyped, unused-ignore]
from PIL import Image

from benchmarks.photos import photos
from vlmdata.measure.grey_tile import faster
from vlmdata.measure.phash import TILE_SIDE, phash_tiles, tile

Row = tuple[str, float, str, str]

ROUNDS = 3
# A thousand decoded photographs would take 750 MB.
BATCH = 100

# What the decoder takes tiles with.
_quick_tile = faster(tile)


def run() -> list[Row]:
    """(name, ratio, bound, remark) of the whole hash, the transform alone, and the share of equal hashes."""
    files = photos(n=1000, side=500)
    seconds = np.zeros(4)
    equal = 0
    for start in range(0, len(files), BATCH):
        images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files[start : start + BATCH]]
        tiles = _tiles(images)
        seconds += (
            _fastest(partial(_one_by_one, images)),
            _fastest(partial(_in_batch, images)),
            _fastest(partial(_transform_one_by_one, tiles)),
            _fastest(partial(phash_tiles, tiles)),
        )
        equal += int(np.count_nonzero(_in_batch(images) == _one_by_one(images)))
    whole_slow, whole, transform_slow, transform = seconds.tolist()
    rate = f"{len(files) / whole:.0f} decoded images/s on one core"
    return [
        ("pHash in batch / imagehash", whole_slow / whole, ">= 1.25", rate),
        (
            "pHash, DCT and bits alone / as imagehash",
            transform_slow / transform,
            ">= 5",
            f"{len(files)} tiles",
        ),
        ("pHash, share equal to imagehash", equal / len(files), "= 1", "all 64 bits"),
    ]


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds: other work on the machine only ever adds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - start)
    return min(rounds)


def _in_batch(images: list[Image.Image]) -> npt.NDArray[np.uint64]:
    return phash_tiles(_tiles(images))


def _tiles(images: list[Image.Image]) -> npt.NDArray[np.uint8]:
    pixels = np.frombuffer(b"".join(_quick_tile(image) for image in images), dtype=np.uint8)
    return pixels.reshape(-1, TILE_SIDE, TILE_SIDE)


def _one_by_one(images: list[Image.Image]) -> npt.NDArray[np.uint64]:
    return np.array([int(str(imagehash.phash(image)), 16) for image in images], dtype=np.uint64)


def _transform_one_by_one(tiles: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.bool_]]:
    """What `imagehash.phash` does once it has a tile."""
    low = (scipy.fftpack.dct(scipy.fftpack.dct(pixels, axis=0), axis=1)[:8, :8] for pixels in tiles)
    return [corner > np.median(corner) for corner in low]


def main() -> None:
    """Print the table."""
    for name, ratio, bound, remark in run():
        print(f"{name:60} {ratio:8.2f}  {bound:8} {remark}")


if __name__ == "__main__":
    main()
