"""Exact near-duplicate search among a million hashes, against faiss MultiHash, both on all processors."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmdata.filtering.near_duplicates import keep_best, pairs_within

Row = tuple[str, float, str, str]
Hashes = npt.NDArray[np.uint64]

COUNT = 1_000_000
RADIUS = 8
CHECKED = 50_000
SHARE_OF_QUERIES = 10
MEMORY_BOUND_MB = 500


def run() -> list[Row]:
    """(name, ratio, bound, remark) of the pairs, the decision, its peak memory, recall and precision."""
    # In a process of its own, and before this one has grown.
    peak_mb = _peak_of_a_decision_mb()
    hashes = million_hashes()
    distinct = np.unique(hashes)
    _compile()

    start = time.perf_counter()
    pairs = pairs_within(distinct, RADIUS)
    for_pairs = time.perf_counter() - start
    start = time.perf_counter()
    decision = keep_best(hashes, np.arange(len(hashes)), RADIUS)
    for_decision = time.perf_counter() - start
    queries = np.random.default_rng(1).choice(len(distinct), len(distinct) // SHARE_OF_QUERIES, replace=False)
    theirs, same = _faiss_seconds(distinct, queries, pairs)

    agreement = "same neighbours" if same else "NOT the same neighbours"
    recall, precision, checked = _recall_and_precision()
    return [
        (
            "near-duplicate pairs / faiss MultiHash 3x21",
            theirs / for_pairs,
            ">= 10",
            f"{for_pairs:.2f} s, faiss {theirs:.0f} s (a tenth of the queries, scaled), {agreement}",
        ),
        (
            "near-duplicate decision / faiss MultiHash 3x21",
            theirs / for_decision,
            ">= 10",
            f"{for_decision:.2f} s for {len(hashes)} hashes, {int(decision.kept.sum())} kept",
        ),
        (
            f"near-duplicate decision, peak memory / {MEMORY_BOUND_MB} MB",
            peak_mb / MEMORY_BOUND_MB,
            "<= 1",
            f"{peak_mb:.0f} MB, the whole process",
        ),
        ("near-duplicate recall against brute force", recall, "= 1", checked),
        ("near-duplicate precision against brute force", precision, "= 1", checked),
    ]


def million_hashes(count: int = COUNT, seed: int = 0) -> Hashes:
    """A tenth identical, a third in clusters of five within a few bits of their centre, the others alone."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    hashes[: count // 10] = hashes[0]
    clustered = slice(count // 10, count // 10 + count // 3)
    members = np.repeat(rng.integers(0, 2**64, count // 15 + 1, dtype=np.uint64), 5)[: count // 3]
    for _ in range(4):
        members ^= np.uint64(1) << rng.integers(0, 64, len(members)).astype(np.uint64)
    hashes[clustered] = members
    return rng.permutation(hashes)


def _compile() -> None:
    """Compile or load the inner loops; a run pays for it once, whatever its size."""
    few = million_hashes(3000)
    keep_best(few, np.arange(len(few)), RADIUS)
    pairs_within(np.unique(few), RADIUS)


def _faiss_seconds(distinct: Hashes, queries: npt.NDArray[np.int64], pairs: tuple[Any, ...]) -> tuple[float, bool]:
    """Seconds that faiss would take for all queries, and whether it finds as many neighbours of each."""
    import faiss  # type: ignore[import-untyped, unused-ignore]

    index = faiss.IndexBinaryMultiHash(64, 3, 21)
    index.nflip = 2
    start = time.perf_counter()
    index.add(_as_bytes(distinct))
    to_add = time.perf_counter() - start
    start = time.perf_counter()
    bounds, _, _ = index.range_search(_as_bytes(distinct[queries]), RADIUS + 1)
    to_search = time.perf_counter() - start
    ours = np.bincount(np.concatenate(pairs[:2]), minlength=len(distinct))[queries]
    themselves = 1
    same = np.array_equal(np.diff(bounds.astype(np.int64)) - themselves, ours)
    return to_add + to_search * len(distinct) / len(queries), same


def _recall_and_precision() -> tuple[float, float, str]:
    """Against faiss comparing every hash with every other."""
    import faiss

    some = np.unique(million_hashes(CHECKED * 2, seed=2))
    some = np.random.default_rng(3).permutation(some)[:CHECKED]
    index = faiss.IndexBinaryFlat(64)
    index.add(_as_bytes(some))
    # Its binary range_search takes what is strictly below the radius.
    bounds, _, found = index.range_search(_as_bytes(some), RADIUS + 1)
    ends = np.asarray(bounds, dtype=np.int64)
    i = np.repeat(np.arange(len(some)), ends[1:] - ends[:-1])
    expected = (i * len(some) + found)[i < found]
    ours_i, ours_j, _ = pairs_within(some, RADIUS)
    common = len(np.intersect1d(expected, ours_i * len(some) + ours_j))
    return common / len(expected), common / len(ours_i), f"{len(expected)} pairs of {len(some)} hashes"


def _as_bytes(hashes: Hashes) -> npt.NDArray[np.uint8]:
    return hashes.view(np.uint8).reshape(-1, 8)


def _peak_of_a_decision_mb() -> float:
    command = [sys.executable, "-m", "benchmarks.bench_near_duplicates", "peak"]
    root = Path(__file__).resolve().parents[1]
    return float(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)


def _decide_and_print_peak() -> None:
    hashes = million_hashes()
    keep_best(hashes, np.arange(len(hashes)), RADIUS)
    # Not ru_maxrss: that remembers the parent process.
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    """Print the table, or with `peak` only the peak memory of one decision in MB."""
    if sys.argv[1:] == ["peak"]:
        _decide_and_print_peak()
        return
    for name, ratio, bound, remark in run():
        print(f"{name:60} {ratio:8.2f}  {bound:8} {remark}")


if __name__ == "__main__":
    main()
