"""Exact search for near-duplicates among 64-bit perceptual hashes, and the choice of which of them stay.

The search is block permutation (Manku, Jain, Das Sarma, "Detecting near-duplicates for web crawling", WWW
2007, section 3): cut the 64 bits into radius + m blocks; two hashes within the radius differ in at most
`radius` blocks, so they agree on at least m whole ones. One table for each choice of m blocks, bucketed by
their bits, therefore brings every such pair together at least once: recall is 1, and each meeting is checked,
so nothing else comes out.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import ceil, comb, log1p, log2

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Vectors = npt.NDArray[np.float16]

HASH_BITS = 64
MAX_RADIUS = 16
# Each thread has tables and findings of its own, some 16 bytes a hash: more threads would cost more memory
# than all else together.
_MAX_THREADS = 8
# Runs this short are compared pair by pair; tables cost more than they spare.
_SHORT_RUN = 1024
# Five blocks in common would take thousands of tables.
_MOST_AGREEING = 4
# Costs in units of one comparison (0.1 ns where they were measured): to file one hash, to visit a bucket.
_COST_OF_HASH = 50
_COST_OF_BUCKET = 25
_WORTH_A_THREAD = 5_000_000


@dataclass(frozen=True, slots=True)
class Decision:
    """Which of n samples stay, and for each other one which sample it duplicates.

    Attributes:
        kept: bool (n,).
        duplicate_of: int64 (n,), index of the kept sample that a dropped one is within the radius of; -1 for
            kept samples and for duplicates of published ones.
        duplicate_of_published: int64 (n,), index into `against` of the published sample it is within the
            radius of, else -1.
        distance: int16 (n,), Hamming distance in bits to the sample named; -1 for kept samples.
    """

    kept: npt.NDArray[np.bool_]
    duplicate_of: Positions
    duplicate_of_published: Positions
    distance: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Looks:
    """Embeddings of the same pictures: what looks unlike is no duplicate, however close the hashes are.

    Attributes:
        vectors: float16 (n, d), of each hash; NaN looks like nothing.
        against: float16 (m, d), of each published one.
        at_least: the smallest cosine of duplicates, above 0 and up to 1.
    """

    vectors: Vectors
    against: Vectors
    at_least: float


def keep_best(
    hashes: Hashes, rank: Positions, radius: int, *, against: Hashes | None = None, looks: Looks | None = None
) -> Decision:
    """Keep the best of all samples that are near-duplicates of one another.

    Published samples (`against`) always stay, and what is within the radius of one is dropped. Of the others,
    taken from best to worst, each stays unless one that already stays is within the radius; so no two kept
    ones are within it, and nothing is dropped for the sake of a sample that is itself dropped. A dropped
    sample names the nearest published one within the radius (ties: the first in `against`); if there is none,
    the nearest kept one that outranks it (ties: the better ranked). Equal hashes share one verdict, that of
    the best ranked among them.

    Where there are `looks`, two are duplicates if they look alike, too; then equal hashes are judged one by one.

    Pairs are never listed, so memory is linear (some 100 bytes a hash and 16 for each thread)
    however large a cluster is.

    Args:
        hashes: uint64 (n,).
        rank: int64 (n,), lower is better, no two equal. The result depends on ranks only, not on the order of
            rows.
        radius: largest Hamming distance of duplicates, 0 to 16 bits.
        against: uint64 (m,), hashes of samples already published.
        looks: embeddings of all of them; none given: hashes decide alone.

    Raises:
        ValueError: hashes are not uint64 vectors, ranks or embeddings do not fit them, ranks repeat, or the
            radius or the cosine is out of range.
    """
    hashes = _checked("hashes", hashes)
    against = _checked("against", hashes[:0] if against is None else against)
    _check_radius(radius)
    _check_rank(rank, len(hashes))
    if looks is not None:
        _check_looks(looks, len(hashes), len(against))
    best, group = _collapse(hashes, rank) if looks is None else _one_by_one(rank)
    distinct = hashes[best]
    seen = None if looks is None else _Seen.of(looks, best)
    published = _nearest_earlier(against, distinct, radius, seen.of_published() if seen else None)
    undecided = np.flatnonzero(~_is_found(published))
    nearest = _nobody(len(undecided))
    _decide(distinct[undecided], nearest, 0, len(undecided), radius, seen.among(undecided) if seen else None)
    return _decision(best, group, published, undecided, nearest)


def close_to_another(hashes: Hashes, radius: int, *, against: Hashes | None = None) -> tuple[Flags, Flags]:
    """Which hashes have another one within the radius: who must be looked at before `keep_best` is given looks.

    Args:
        hashes: uint64 (n,).
        radius: largest Hamming distance, 0 to 16 bits.
        against: uint64 (m,).

    Returns:
        bool (n,), one of the other hashes or of `against` is within the radius; and bool (m,), one of `hashes`
        is within the radius of it.

    Raises:
        ValueError: hashes are not uint64 vectors, or the radius is out of range.
    """
    hashes = _checked("hashes", hashes)
    against = _checked("against", hashes[:0] if against is None else against)
    _check_radius(radius)
    distinct, group, count = np.unique(hashes, return_inverse=True, return_counts=True)
    others, group_of_other = np.unique(against, return_inverse=True)
    close, other_close = count > 1, np.zeros(len(others), dtype=np.bool_)
    _mark(distinct, distinct, radius, close, close)
    _mark(distinct, others, radius, close, other_close)
    return close[group], other_close[group_of_other]


def nearest_within(hashes: Hashes, radius: int, *, against: Hashes) -> tuple[Positions, npt.NDArray[np.int16]]:
    """For each hash the nearest one of `against` within the radius (ties: the first); memory is linear.

    Args:
        hashes: uint64 (n,).
        radius: largest Hamming distance, 0 to 16 bits.
        against: uint64 (m,).

    Returns:
        Positions in `against`, int64 (n,), and distances, int16 (n,); both -1 where none is within the radius.

    Raises:
        ValueError: hashes are not uint64 vectors, or the radius is out of range.
    """
    hashes, against = _checked("hashes", hashes), _checked("against", against)
    _check_radius(radius)
    return _unpack(_nearest_earlier(against, hashes, radius, None))


def pairs_within(
    hashes: Hashes, radius: int, *, against: Hashes | None = None, limit: int = 10_000_000
) -> tuple[Positions, Positions, npt.NDArray[np.int16]]:
    """List all pairs of hashes within the radius, each once.

    Collapse equal hashes first: k of them make k (k - 1) / 2 pairs. To choose what stays, use `keep_best`,
    which lists no pairs.

    Args:
        hashes: uint64 (n,).
        radius: largest Hamming distance, 0 to 16 bits.
        against: uint64 (m,); pairs are then sought between `hashes` and these, not within either.
        limit: the most pairs to return; 10 million take some 400 MB at their peak.

    Returns:
        (i, j, distance), int64, int64 and int16, in order of i and j. Without `against` both index `hashes`
        and i < j; with it, j indexes `against`.

    Raises:
        ValueError: hashes are not uint64 vectors, the radius is out of range, or there are more pairs than
            the limit.
    """
    from vlmdata.filtering.hamming_kernels import POSITION_BITS

    hashes = _checked("hashes", hashes)
    others = hashes if against is None else _checked("against", against)
    _check_radius(radius)
    pairs, distances = _all_pairs(hashes, others, radius, against is None, limit)
    if len(pairs) > limit:
        raise ValueError(f"pairs: more than {limit} within {radius} bits; collapse equal hashes, or use keep_best")
    order = np.argsort(pairs)
    pairs = pairs[order]
    first = (pairs >> np.uint64(POSITION_BITS)).astype(np.int64)
    second = (pairs & np.uint64(2**POSITION_BITS - 1)).astype(np.int64)
    return first, second, distances[order].astype(np.int16)


def expected_chance_drops(n: int, radius: int) -> float:
    """How many of n unrelated pictures `keep_best` will likely drop because their hashes are close by chance.

    The model: bits are set where a coefficient lies above the median of the 64, so 32 are; the first, the
    mean brightness, always is. So a hash of an unrelated picture is a uniform choice of 31 of 63 bits, and
    the distance of two is 2 (31 - overlap), the overlap being hypergeometric. A sample is dropped unless all
    those kept before it are farther away; with p the chance for one pair, about ln(1 + p n) / p of n samples
    stay. Real photographs are not uniform: this is the least to expect.

    Args:
        n: number of samples, 0 or more.
        radius: Hamming distance in bits, 0 to 16.

    Raises:
        ValueError: n is negative or the radius is out of range.
    """
    _check_radius(radius)
    if n < 0:
        raise ValueError(f"n: {n}; expected 0 or more")
    free, set_bits = 63, 31
    close = sum(comb(set_bits, moved) * comb(free - set_bits, moved) for moved in range(radius // 2 + 1))
    p = close / comb(free, set_bits)
    # The i-th sample is dropped with p i / (1 + p i), summed here by the midpoint rule.
    return max(0.0, n - (log1p(p * (n - 0.5)) - log1p(-p * 0.5)) / p)


def _checked(name: str, hashes: Hashes) -> Hashes:
    """The hashes, copied if strided or read-only (as from Arrow): numba would compile anew for them."""
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise ValueError(f"{name}: {hashes.dtype} of shape {hashes.shape}; expected a vector of uint64")
    if len(hashes) >= 2**32:
        raise ValueError(f"{name}: {len(hashes)} hashes; expected fewer than 2**32")
    return np.require(hashes, requirements=["C", "W"])


def _check_radius(radius: int) -> None:
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius: {radius}; expected 0 to {MAX_RADIUS} bits")


def _check_rank(rank: Positions, count: int) -> None:
    if rank.dtype != np.int64 or rank.shape != (count,):
        raise ValueError(f"rank: {rank.dtype} of shape {rank.shape}; expected int64 of shape ({count},)")
    ordered = np.sort(rank)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise ValueError(f"rank: {repeated[0]} is given twice; expected no two equal")


def _check_looks(looks: Looks, count: int, published: int) -> None:
    if not 0 < looks.at_least <= 1:
        raise ValueError(f"looks: cosine {looks.at_least}; expected above 0 and up to 1")
    for name, vectors, rows in (("vectors", looks.vectors, count), ("against", looks.against, published)):
        if vectors.dtype != np.float16 or vectors.ndim != 2 or len(vectors) != rows:
            raise ValueError(f"looks: {name}: {vectors.dtype} of shape {vectors.shape}; expected float16 ({rows}, d)")


# What the kernels are told of embeddings: see `hamming_kernels._look_alike`.
_Told = tuple[npt.NDArray[np.uint16], npt.NDArray[np.float64], npt.NDArray[np.float64], float, Positions, Positions]


@dataclass(frozen=True, slots=True)
class _Seen:
    """All embeddings in one array, and where those of the published and of the others are, best first."""

    bits: npt.NDArray[np.uint16]
    squares: npt.NDArray[np.float64]
    half: npt.NDArray[np.float64]
    bound: float
    published: Positions
    others: Positions

    @classmethod
    def of(cls, looks: Looks, best: Positions) -> _Seen:
        from vlmdata.filtering.hamming_kernels import sum_squares

        bits = np.concatenate([looks.against, looks.vectors]).view(np.uint16)
        half = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
        published = np.arange(len(looks.against))
        return cls(bits, sum_squares(bits, half), half, looks.at_least**2, published, len(published) + best)

    def of_published(self) -> _Told:
        """For positions among the published, and among the others."""
        return self.bits, self.squares, self.half, self.bound, self.published, self.others

    def among(self, positions: Positions) -> _Told:
        """For positions among some of the others."""
        rows = self.others[positions]
        return self.bits, self.squares, self.half, self.bound, rows, rows


def _cut(told: _Told | None, earlier: Positions | slice, later: slice) -> _Told | None:
    """The same of some of the positions."""
    return told and (*told[:4], told[4][earlier], told[5][later])


def _one_by_one(rank: Positions) -> tuple[Positions, Positions]:
    """What `_collapse` gives where every sample is a group of its own."""
    best = np.argsort(rank)
    group = np.empty_like(best)
    group[best] = np.arange(len(best))
    return best, group


def _collapse(hashes: Hashes, rank: Positions) -> tuple[Positions, Positions]:
    """The best-ranked sample of each distinct hash, best first, and every sample's place among those."""
    order = np.lexsort((rank, hashes))
    starts_group = np.ones(len(hashes), dtype=np.bool_)
    starts_group[1:] = hashes[order[1:]] != hashes[order[:-1]]
    best = order[starts_group]
    by_rank = np.argsort(rank[best])
    place = np.empty_like(by_rank)
    place[by_rank] = np.arange(len(best))
    group = np.empty_like(order)
    group[order] = place[np.cumsum(starts_group) - 1]
    return best[by_rank], group


def _decision(best: Positions, group: Positions, published: Hashes, undecided: Positions, nearest: Hashes) -> Decision:
    """Spread the verdicts on distinct hashes over all samples."""
    twin, twin_distance = _unpack(nearest)
    of_sample = np.full(len(best), -1, dtype=np.int64)
    dropped = twin >= 0
    of_sample[undecided[dropped]] = best[undecided[twin[dropped]]]
    of_published, distance = _unpack(published)
    distance[undecided] = twin_distance

    duplicate_of, distance, of_published = of_sample[group], distance[group], of_published[group]
    kept = np.zeros(len(group), dtype=np.bool_)
    kept[best] = (distance == -1)[best]
    equal = ~kept & (distance == -1)
    duplicate_of[equal] = best[group[equal]]
    distance[equal] = 0
    return Decision(kept, duplicate_of, of_published, distance)


def _decide(hashes: Hashes, nearest: Hashes, first: int, last: int, radius: int, told: _Told | None) -> None:
    """Settle hashes[first:last], sorted from best to worst, in place.

    On entry `nearest` knows all neighbours kept before `first`. The better half is settled, then shown to the
    worse half at once, then that is settled: every hash meets all kept ones that outrank it, and dropped ones
    meet nobody.
    """
    from vlmdata.filtering.hamming_kernels import decide_in_order

    if last - first <= _SHORT_RUN:
        decide_in_order(hashes[first:last], first, np.uint64(radius), nearest[first:last], told)
        return
    middle = (first + last) // 2
    _decide(hashes, nearest, first, middle, radius, told)
    kept = first + np.flatnonzero(~_is_found(nearest[first:middle]))
    seen = _cut(told, kept, slice(middle, last))
    found = _nearest_earlier(hashes[kept], hashes[middle:last], radius, seen)
    np.minimum(nearest[middle:last], _rename(found, kept), out=nearest[middle:last])
    _decide(hashes, nearest, middle, last, radius, told)


def _nearest_earlier(earlier: Hashes, later: Hashes, radius: int, told: _Told | None) -> Hashes:
    """For each later hash its nearest earlier one within the radius (ties: the first)."""
    from vlmdata.filtering.hamming_kernels import nearest_earlier

    if len(earlier) == 0 or len(later) == 0:
        return _nobody(len(later))
    masks, bucket_bits, threads = _plan(radius, len(earlier), len(later))

    def search(part: Hashes) -> Hashes:
        nearest = _nobody(len(later))
        nearest_earlier(earlier, later, np.uint64(radius), part, bucket_bits, nearest, told)
        return nearest

    if threads == 1:
        return search(masks)
    with ThreadPoolExecutor(threads) as pool:
        merged = _nobody(len(later))
        for nearest in pool.map(search, np.array_split(masks, threads)):
            np.minimum(merged, nearest, out=merged)
        return merged


def _mark(first: Hashes, second: Hashes, radius: int, first_close: Flags, second_close: Flags) -> None:
    """Mark on both sides who is close to one of the other side; both may be the same, of distinct hashes."""
    from vlmdata.filtering.hamming_kernels import mark_close

    if len(first) == 0 or len(second) == 0:
        return
    masks, bucket_bits, threads = _plan(radius, len(first), len(second))

    def search(part: Hashes) -> None:
        mark_close(first, second, first is second, np.uint64(radius), part, bucket_bits, first_close, second_close)

    with ThreadPoolExecutor(threads) as pool:
        # Marks are only ever set, so that threads may share them.
        list(pool.map(search, np.array_split(masks, threads)))


def _all_pairs(
    first: Hashes, second: Hashes, radius: int, same: bool, limit: int
) -> tuple[Hashes, npt.NDArray[np.uint8]]:
    """Pairs in no order, position in `first` above position in `second`, and their distances."""
    from vlmdata.filtering.hamming_kernels import emit_pairs

    if len(first) == 0 or len(second) == 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint8)
    masks, bucket_bits, threads = _plan(radius, len(first), len(second))

    def search(tables: tuple[int, int]) -> tuple[Hashes, npt.NDArray[np.uint8]]:
        found: tuple[Hashes, npt.NDArray[np.uint8]] = emit_pairs(
            first, second, same, np.uint64(radius), masks, tables, bucket_bits, limit
        )
        return found

    with ThreadPoolExecutor(threads) as pool:
        bounds = [len(masks) * part // threads for part in range(threads + 1)]
        pairs, distances = zip(*pool.map(search, pairwise(bounds)), strict=True)
    return np.concatenate(pairs), np.concatenate(distances)


def _plan(radius: int, first: int, second: int) -> tuple[Hashes, int, int]:
    """The cheapest tables for two sides of these lengths: masks, bits of a bucket's number, threads.

    To agree on more blocks takes more tables with emptier buckets; to agree on none, one bucket with
    everything.
    """
    plans = []
    for agreeing in range(0 if radius else 1, _MOST_AGREEING + 1):
        tables, key_bits = comb(radius + agreeing, agreeing), HASH_BITS * agreeing / (radius + agreeing)
        bucket_bits = max(1, min(ceil(key_bits) + 2, ceil(log2(first + second))))
        meetings = first * second / 2 ** min(key_bits, bucket_bits)
        cost = tables * (_COST_OF_HASH * (first + second) + _COST_OF_BUCKET * 2**bucket_bits + meetings)
        plans.append((cost, agreeing, bucket_bits))
    cost, agreeing, bucket_bits = min(plans)
    masks = _masks(radius + agreeing, agreeing)
    threads = min(len(masks), _MAX_THREADS, _processors(), 1 + int(cost / _WORTH_A_THREAD))
    return masks, bucket_bits, threads


def _masks(blocks: int, agreeing: int) -> Hashes:
    """One mask for each choice of blocks; the blocks are as equal as 64 bits allow."""
    edges = [HASH_BITS * block // blocks for block in range(blocks + 1)]
    each = [2**upper - 2**lower for lower, upper in pairwise(edges)]
    return np.array([sum(chosen) for chosen in combinations(each, agreeing)], dtype=np.uint64)


def _processors() -> int:
    """Processors that this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _nobody(count: int) -> Hashes:
    from vlmdata.filtering.hamming_kernels import NOBODY

    return np.full(count, NOBODY, dtype=np.uint64)


def _is_found(nearest: Hashes) -> npt.NDArray[np.bool_]:
    from vlmdata.filtering.hamming_kernels import NOBODY

    return np.asarray(nearest != NOBODY, dtype=np.bool_)


def _unpack(nearest: Hashes) -> tuple[Positions, npt.NDArray[np.int16]]:
    """Position and distance, both -1 where nobody was found."""
    from vlmdata.filtering.hamming_kernels import POSITION_BITS

    found = _is_found(nearest)
    position = np.where(found, nearest & np.uint64(2**POSITION_BITS - 1), 0).astype(np.int64)
    distance = np.where(found, nearest >> np.uint64(POSITION_BITS), 0).astype(np.int16)
    position[~found] = -1
    distance[~found] = -1
    return position, distance


def _rename(nearest: Hashes, names: Positions) -> Hashes:
    """Put names[position] in the place of each position found."""
    from vlmdata.filtering.hamming_kernels import POSITION_BITS

    low = np.uint64(2**POSITION_BITS - 1)
    renamed = nearest.copy()
    found = _is_found(nearest)
    renamed[found] = (nearest[found] & ~low) | names[nearest[found] & low].astype(np.uint64)
    return renamed
