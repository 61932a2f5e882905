"""A drop of ten thousand pictures against five million published hashes, against faiss comparing all with all."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from benchmarks.bench_near_duplicates import RADIUS, Hashes, million_hashes
from benchmarks.builds import ROOT, Row
from vlmdata.filtering.near_duplicates import Decision, keep_best

PUBLISHED, DROPPED = 5_000_000, 10_000
BITS_APART = 4
CHECKED = 1_000
MEMORY_BOUND_MB = 500


def run() -> list[Row]:
    """(name, value, bound, remark) of the decision's speed, its exactness and its memory above the hashes."""
    grown_mb = _grown_mb()
    published, drop = _hashes()
    _decide(published[:3_000], drop[:3_000])
    start = time.perf_counter()
    decision = _decide(published, drop)
    seconds = time.perf_counter() - start
    theirs, same = _compare_all(published, drop, decision)
    told = f"{seconds:.2f} s, faiss {theirs:.0f} s, {int((~decision.kept).sum())} of {DROPPED} dropped"
    return [
        (
            "drop against an index / faiss flat",
            theirs / seconds,
            ">= 10",
            told,
        ),
        ("drop against an index, exact", same, "= 1", f"nearest published within {RADIUS} bits, {CHECKED} checked"),
        (
            f"drop against an index, memory / {MEMORY_BOUND_MB} MB",
            grown_mb / MEMORY_BOUND_MB,
            "<= 1",
            f"{grown_mb:.0f} MB above {PUBLISHED * 8 / 1e6:.0f} MB of hashes",
        ),
    ]


def _hashes() -> tuple[Hashes, Hashes]:
    """Published ones as a set has them, and a drop of which half are published ones with a few bits turned."""
    published = np.concatenate([million_hashes(seed=seed) for seed in range(PUBLISHED // 1_000_000)])
    rng = np.random.default_rng(9)
    drop = rng.integers(0, 2**64, DROPPED, np.uint64)
    known = rng.choice(published, DROPPED // 2)
    for _ in range(BITS_APART):
        known ^= np.uint64(1) << rng.integers(0, 64, len(known)).astype(np.uint64)
    drop[: len(known)] = known
    return published, rng.permutation(drop)


def _decide(published: Hashes, drop: Hashes) -> Decision:
    return keep_best(drop, np.arange(len(drop)), RADIUS, against=published)


def _compare_all(published: Hashes, drop: Hashes, decision: Decision) -> tuple[float, bool]:
    """Seconds that faiss would take for the whole drop; whether what it finds near is what was found near."""
    import faiss  # type: ignore[import-untyped, unused-ignore]

    index = faiss.IndexBinaryFlat(64)
    index.add(published.view(np.uint8).reshape(-1, 8))
    start = time.perf_counter()
    distances, _ = index.search(drop[:CHECKED].view(np.uint8).reshape(-1, 8), 1)
    seconds = (time.perf_counter() - start) * len(drop) / CHECKED
    nearest = distances[:, 0].astype(np.int16)
    near = nearest <= RADIUS
    by_index = decision.duplicate_of_published[:CHECKED] >= 0
    return seconds, bool(
        np.array_equal(near, by_index) and np.array_equal(nearest[near], decision.distance[:CHECKED][near])
    )


def _grown_mb() -> float:
    """Peak memory of a fresh process above what it had with the hashes in it and the loops compiled."""
    command = [sys.executable, "-m", "benchmarks.bench_drop"]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def _print_grown_mb() -> None:
    published, drop = _hashes()
    _decide(published[:3_000], drop[:3_000])
    before = status_mb("VmRSS")
    # What making the hashes took at its peak is forgotten.
    with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")
    _decide(published, drop)
    print(status_mb("VmHWM") - before)


def status_mb(what: str) -> float:
    """A line of this process's status (proc(5)), such as VmHWM, its peak."""
    with open("/proc/self/status", encoding="ascii") as status:
        return int(status.read().split(f"{what}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    _print_grown_mb()
