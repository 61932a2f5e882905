"""Near-duplicates that must look alike, too: what becomes of real copies, and of pictures that are close by chance.

The radius is 16 bits, where a thousand photographs have the chance collisions
that 8 bits have among hundreds of millions. `starter` looks; a better model
tells more apart.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.builds import Row
from benchmarks.photos import PHOTOGRAPHS, photos
from vlmdata.filtering.near_duplicates import Decision, Hashes, Looks, keep_best
from vlmdata.measure.encoder import load_encoder
from vlmdata.measure.phash import TILE_SIDE, phash_tiles, tile

PHOTOS = 1_000
RADIUS, WIDE = 8, 16
AT_LEAST = 0.7
"""Of `starter`. A cosine says nothing without its model: at 0.9 two copies in three would stay."""
COPY_SCALE, COPY_QUALITY = 0.5, 60


def run() -> list[Row]:
    """(name, value, bound, remark)."""
    originals = photos(PHOTOS)
    copies = [_copy(photo) for photo in originals]
    start = time.perf_counter()
    vectors = _embedded([*originals, *copies])
    seconds = time.perf_counter() - start
    hashes = _hashes([*originals, *copies])
    return [*_copies(hashes, vectors), *_by_chance(hashes[:PHOTOS], vectors[:PHOTOS], seconds)]


def _copies(hashes: Hashes, vectors: npt.NDArray[np.float16]) -> list[Row]:
    """Of copies within the radius of their original, how many are dropped for it."""
    near = np.flatnonzero(np.bitwise_count(hashes[:PHOTOS] ^ hashes[PHOTOS:]) <= RADIUS)
    dropped = 0
    for at in near:
        looks = Looks(vectors[[PHOTOS + at]], vectors[[at]], AT_LEAST)
        found = keep_best(hashes[[PHOTOS + at]], np.zeros(1, np.int64), RADIUS, against=hashes[[at]], looks=looks)
        dropped += int(found.duplicate_of_published[0] == 0)
    kept = np.quantile(_cosines(vectors[near], vectors[PHOTOS + near]), [0.01, 0.05, 0.5])
    told = (
        f"{dropped} of {len(near)}, half as large and at quality {COPY_QUALITY}; within {RADIUS} bits,"
        f" cosine {AT_LEAST}; 99 %, 95 % and 50 % of them have at least {', '.join(f'{cosine:.2f}' for cosine in kept)}"
    )
    return [("copies dropped, confirmed / by hash alone", dropped / len(near), ">= 0.98", told)]


def _cosines(one: npt.NDArray[np.float16], other: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    cosines: npt.NDArray[np.float32] = np.einsum("nd,nd->n", one.astype(np.float32), other.astype(np.float32))
    return cosines


def _by_chance(hashes: Hashes, vectors: npt.NDArray[np.float16], seconds: float) -> list[Row]:
    """Pictures that are dropped for a part of another photograph, with and without a look at them."""
    photograph = np.arange(len(hashes)) % len(PHOTOGRAPHS)
    rank = np.arange(len(hashes))
    alone = _unlike(keep_best(hashes, rank, WIDE), photograph)
    looks = Looks(vectors, vectors[:0], AT_LEAST)
    confirmed = _unlike(keep_best(hashes, rank, WIDE, looks=looks), photograph)
    told = (
        f"{confirmed} of {len(hashes)} against {alone} ({alone / len(hashes):.1%}) within {WIDE} bits;"
        f" {2 * PHOTOS / seconds:.0f} pictures/s are embedded"
    )
    return [("other photographs' parts dropped, confirmed / by hash alone", confirmed / max(alone, 1), "<= 0.1", told)]


def _unlike(found: Decision, photograph: npt.NDArray[np.int64]) -> int:
    """How many are dropped for a part of another photograph than theirs."""
    dropped = np.flatnonzero(found.duplicate_of >= 0)
    return int((photograph[dropped] != photograph[found.duplicate_of[dropped]]).sum())


def _copy(photo: bytes) -> bytes:
    with Image.open(io.BytesIO(photo)) as image:
        smaller = image.resize([round(side * COPY_SCALE) for side in image.size], Image.Resampling.BICUBIC)
    data = io.BytesIO()
    smaller.save(data, "JPEG", quality=COPY_QUALITY)
    return data.getvalue()


def _embedded(pictures: Sequence[bytes]) -> npt.NDArray[np.float16]:
    encoder = load_encoder("starter", None, "cpu")

    def load(data: bytes) -> npt.NDArray[np.float32]:
        with Image.open(io.BytesIO(data)) as image:
            return encoder.prepare(image.convert("RGB"))[None]

    return np.concatenate(list(encoder.pictures(pictures, load, 1)))[:, 0].astype(np.float16)


def _hashes(pictures: Sequence[bytes]) -> Hashes:
    tiles = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            tiles.append(tile(image.convert("RGB")))
    return phash_tiles(np.frombuffer(b"".join(tiles), np.uint8).reshape(-1, TILE_SIDE, TILE_SIDE))
