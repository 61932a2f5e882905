"""The inner loops of the near-duplicate search, compiled by numba; import this only where it is about to run.

They release the GIL and are run from plain threads. Numba's own `parallel=True` is not used: its default
threading layer ends the process when two threads enter it at once, as two tasks of one worker would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

# A neighbour found is one integer, distance above position: the smaller is the nearer, then the earlier.
POSITION_BITS = 32
NOBODY = np.uint64(2**64 - 1)

_POSITION_SHIFT = np.uint64(POSITION_BITS)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _emit_popcount(_typing: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


# The number of set bits of a uint64, one machine instruction.
_popcount: Any = intrinsic(_emit_popcount)


@njit(inline="always")
def _bucket(value: Any, mask: Any, shift: Any) -> Any:
    """Multiplicative hashing (Knuth, TAOCP 6.4) of the bits under the mask."""
    return ((value & mask) * _GOLDEN) >> shift


@njit(nogil=True, cache=True)
def _table(count: Any, bucket_bits: Any) -> Any:
    """Room for `count` hashes in buckets: (starts, values, positions)."""
    starts = np.empty((1 << bucket_bits) + 2, dtype=np.uint64)
    return starts, np.empty(count, dtype=np.uint64), np.empty(count, dtype=np.uint32)


@njit(nogil=True, cache=True)
def _fill(table: Any, hashes: Any, mask: Any, shift: Any) -> None:
    """Counting sort, stable: bucket b is values[starts[b]:starts[b + 1]], in the order of the input."""
    starts, values, positions = table
    one = np.uint64(1)
    starts[:] = 0
    for value in hashes:
        starts[_bucket(value, mask, shift) + np.uint64(2)] += one
    for bucket in range(2, len(starts)):
        starts[bucket] += starts[bucket - 1]
    for position in range(len(hashes)):
        bucket = _bucket(hashes[position], mask, shift) + one
        slot = starts[bucket]
        starts[bucket] = slot + one
        values[slot] = hashes[position]
        positions[slot] = position


@njit(nogil=True, cache=True)
def _any_within(value: Any, values: Any, start: Any, stop: Any, radius: Any) -> Any:
    """Whether any of values[start:stop] lies within the radius.

    No branch and unsigned bounds: only so does the compiler vectorise it (a signed index might count from the
    end, and is gathered), which makes it five times as fast. Almost all buckets hold no neighbour.
    """
    smallest = np.uint64(64)
    for slot in range(np.uint64(start), np.uint64(stop)):
        smallest = min(smallest, _popcount(value ^ values[slot]))
    return smallest <= radius


@njit(nogil=True, cache=True)
def nearest_earlier(
    earlier: Any, later: Any, radius: Any, masks: Any, bucket_bits: Any, nearest: Any, looks: Any
) -> None:
    """Lower `nearest` of each later hash to its nearest earlier one that agrees with it on a mask's bits.

    With `looks` (see `_look_alike`) only those count that look alike, too.
    """
    shift = np.uint64(64 - bucket_bits)
    left, right = _table(len(earlier), bucket_bits), _table(len(later), bucket_bits)
    for mask in masks:
        _fill(left, earlier, mask, shift)
        _fill(right, later, mask, shift)
        for bucket in range(1 << bucket_bits):
            start, stop = left[0][bucket], left[0][bucket + 1]
            if start == stop:
                continue
            for slot in range(right[0][bucket], right[0][bucket + 1]):
                if _any_within(right[1][slot], left[1], start, stop, radius):
                    place = right[2][slot]
                    found = _nearest(right[1][slot], left, start, stop, radius, looks, place)
                    nearest[place] = min(nearest[place], found)


@njit(nogil=True, cache=True)
def _nearest(value: Any, table: Any, start: Any, stop: Any, radius: Any, looks: Any, place: Any) -> Any:
    """The nearest of a bucket, of equals the earliest."""
    best = NOBODY
    for slot in range(start, stop):
        distance = _popcount(value ^ table[1][slot])
        found = (distance << _POSITION_SHIFT) | np.uint64(table[2][slot])
        if looks is None:
            best = min(best, found)
        elif found < best and distance <= radius and _look_alike(looks, table[2][slot], place):
            best = found
    return best


@njit(nogil=True, cache=True)
def _look_alike(looks: Any, earlier: Any, later: Any) -> Any:
    """Whether the cosine of two embeddings is large enough.

    `looks` is (bits, squares, half, bound, earlier_rows, later_rows): float16 embeddings as uint16 (n, d), the sums of
    their squares, the value of each of the 65,536 float16, the smallest cosine squared, and the embedding of each
    position on either side. One order of addition, so that every machine finds the same; squared, so that the
    embedding of a picture is its own equal whatever a root would round to.
    """
    bits, squares, half, bound, earlier_rows, later_rows = looks
    one, other = earlier_rows[earlier], later_rows[later]
    dot = 0.0
    for at in range(bits.shape[1]):
        dot += half[bits[one, at]] * half[bits[other, at]]
    return dot > 0.0 and dot * dot >= bound * (squares[one] * squares[other])


@njit(nogil=True, cache=True)
def sum_squares(bits: Any, half: Any) -> Any:
    """Of each embedding the sum of its squares, added in the order in which two of them are multiplied."""
    squares = np.zeros(len(bits))
    for row in range(len(bits)):
        for at in range(bits.shape[1]):
            squares[row] += half[bits[row, at]] * half[bits[row, at]]
    return squares


@njit(nogil=True, cache=True)
def decide_in_order(hashes: Any, first: Any, radius: Any, nearest: Any, looks: Any) -> None:
    """Greedy over a short run, best first: each is compared with those of the run that were kept before it.

    `first` is the position of the run's first hash among all; `nearest` already knows those kept before the
    run.
    """
    kept = _table(len(hashes), 0)
    count = np.uint64(0)
    for position in range(len(hashes)):
        value = hashes[position]
        if _any_within(value, kept[1], np.uint64(0), count, radius):
            found = _nearest(value, kept, np.uint64(0), count, radius, looks, first + position)
            nearest[position] = min(nearest[position], found)
        if nearest[position] == NOBODY:
            kept[1][count] = value
            kept[2][count] = first + position
            count += np.uint64(1)


@njit(nogil=True, cache=True)
def emit_pairs(
    first: Any, second: Any, same: Any, radius: Any, masks: Any, tables: Any, bucket_bits: Any, limit: Any
) -> Any:
    """All pairs within the radius that agree on one of the masks tables[0]..tables[1] and on none before it.

    The last condition lets every pair out of one table only. With `same`, both sides are one array and a pair
    comes once, the earlier position first. Stops at one pair above the limit.

    Returns:
        (pairs, distances): uint64, position in `first` above position in `second`, 32 bits each; and uint8.
    """
    shift = np.uint64(64 - bucket_bits)
    left = _table(len(first), bucket_bits)
    right = left if same else _table(len(second), bucket_bits)
    pairs, distances = np.empty(1024, dtype=np.uint64), np.empty(1024, dtype=np.uint8)
    count = 0
    for table in range(tables[0], tables[1]):
        _fill(left, first, masks[table], shift)
        if not same:
            _fill(right, second, masks[table], shift)
        for bucket in range(1 << bucket_bits):
            stop = right[0][bucket + 1]
            for slot in range(left[0][bucket], left[0][bucket + 1]):
                value = left[1][slot]
                start = slot + np.uint64(1) if same else right[0][bucket]
                if not _any_within(value, right[1], start, stop, radius):
                    continue
                for other in range(start, stop):
                    difference = value ^ right[1][other]
                    if _popcount(difference) > radius or not _agree_first(difference, masks, table):
                        continue
                    if count == len(pairs):
                        pairs = np.append(pairs, np.empty_like(pairs))
                        distances = np.append(distances, np.empty_like(distances))
                    pairs[count] = (np.uint64(left[2][slot]) << _POSITION_SHIFT) | np.uint64(right[2][other])
                    distances[count] = _popcount(difference)
                    count += 1
                    if count > limit:
                        return pairs[:count], distances[:count]
    return pairs[:count], distances[:count]


@njit(nogil=True, cache=True)
def mark_close(
    first: Any, second: Any, same: Any, radius: Any, masks: Any, bucket_bits: Any, first_close: Any, second_close: Any
) -> None:
    """Mark on both sides those that have one of the other side within the radius; with `same`, another of their own."""
    shift = np.uint64(64 - bucket_bits)
    left = _table(len(first), bucket_bits)
    right = left if same else _table(len(second), bucket_bits)
    for mask in masks:
        _fill(left, first, mask, shift)
        if not same:
            _fill(right, second, mask, shift)
        for bucket in range(1 << bucket_bits):
            stop = right[0][bucket + 1]
            for slot in range(left[0][bucket], left[0][bucket + 1]):
                value = left[1][slot]
                start = slot + np.uint64(1) if same else right[0][bucket]
                if not _any_within(value, right[1], start, stop, radius):
                    continue
                first_close[left[2][slot]] = True
                for other in range(start, stop):
                    if _popcount(value ^ right[1][other]) <= radius:
                        second_close[right[2][other]] = True


@njit(nogil=True, cache=True)
def _agree_first(difference: Any, masks: Any, table: Any) -> Any:
    """Whether two hashes agree on the bits of this table's mask, and on those of no earlier one."""
    if difference & masks[table]:
        return False
    for earlier in range(table):  # noqa: SIM110  numba compiles no generators
        if not difference & masks[earlier]:
            return False
    return True
