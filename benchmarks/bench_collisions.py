"""How often unrelated pictures lie within the radius by chance: counted among random hashes, and expected."""

from __future__ import annotations

import time
from math import comb

import numpy as np

from benchmarks.bench_near_duplicates import RADIUS, Hashes
from benchmarks.builds import Row
from vlmdata.filtering.near_duplicates import expected_chance_drops, pairs_within

HASHES = 2_000_000
FREE_BITS, SET_BITS = 63, 31
TOLD = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)


def run() -> list[Row]:
    """(name, value, bound, remark): how far pairs that were found are off those that were expected."""
    hashes = random_hashes(HASHES, seed=1)
    start = time.perf_counter()
    found = len(pairs_within(hashes, RADIUS)[0])
    seconds = time.perf_counter() - start
    chance = _chance_of_a_pair()
    expected = chance * HASHES * (HASHES - 1) / 2
    shares = ", ".join(f"{n:,}: {expected_chance_drops(n, RADIUS) / n:.2%}" for n in TOLD)
    told = f"{found:,} pairs of {HASHES:,} hashes, {chance:.2e} a pair, {seconds:.0f} s; dropped by chance of {shares}"
    return [("pairs by chance, off what is expected", abs(found / expected - 1), "<= 0.1", told)]


def random_hashes(n: int, seed: int) -> Hashes:
    """What unrelated pictures have: the first bit, and 31 of the 63 others."""
    rng = np.random.default_rng(seed)
    hashes = np.ones(n, np.uint64)
    for start in range(0, n, 100_000):
        stop = min(n, start + 100_000)
        chosen = np.argpartition(rng.random((stop - start, FREE_BITS), np.float32), SET_BITS, axis=1)[:, :SET_BITS]
        bits = np.uint64(1) << (chosen.astype(np.uint64) + np.uint64(1))
        hashes[start:stop] |= np.bitwise_or.reduce(bits, axis=1)
    return hashes


def _chance_of_a_pair() -> float:
    close = sum(comb(SET_BITS, moved) * comb(FREE_BITS - SET_BITS, moved) for moved in range(RADIUS // 2 + 1))
    return close / comb(FREE_BITS, SET_BITS)
