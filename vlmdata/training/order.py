"""Which sample is read when, by whom: pure functions of the seed, so that nothing has to be remembered.

An epoch's order: the shards in a drawn order, cut into windows of
`shuffle_buffer` samples, each window shuffled. Windows keep reading within few
shards. A batch belongs to all devices; each reads its own part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

# So that draws for different ends never fall together.
_SHARDS, _WINDOW, _SAMPLE, _STEP = range(4)


def epoch_rows(shards: Sequence[Rows], seed: int, epoch: int, buffer: int, start: int = 0) -> Iterator[Rows]:
    """The rows of an epoch in order, in windows; from the one that holds position `start` on.

    Args:
        shards: Rows of each shard.
    """
    order = [shards[number] for number in np.random.default_rng([_SHARDS, seed, epoch]).permutation(len(shards))]
    ends = np.cumsum([len(rows) for rows in order])
    total = int(ends[-1]) if len(ends) else 0
    for number, first in enumerate(range(0, total, buffer)):
        last = min(first + buffer, total)
        if last <= start:
            continue
        window = _between(order, ends, first, last)
        yield np.random.default_rng([_WINDOW, seed, epoch, number]).permutation(window)


def _between(order: Sequence[Rows], ends: npt.NDArray[np.int64], first: int, last: int) -> Rows:
    parts = []
    for at in range(int(np.searchsorted(ends, first, "right")), len(order)):
        begin = int(ends[at]) - len(order[at])
        if begin >= last:
            break
        parts.append(order[at][max(0, first - begin) : last - begin])
    return np.concatenate(parts)


def batches(shards: Sequence[Rows], seed: int, epoch: int, buffer: int, size: int, start: int = 0) -> Iterator[Rows]:
    """The whole batches of an epoch, from number `start` on; what is left over at its end is not read in it."""
    skip = start * size % buffer
    left = np.empty(0, np.int64)
    for window in epoch_rows(shards, seed, epoch, buffer, start * size):
        left = np.concatenate([left, window[skip:]])
        skip = 0
        whole = len(left) // size * size
        yield from left[:whole].reshape(-1, size)
        left = left[whole:]


def part_of(batch: Rows, rank: int, devices: int) -> Rows:
    """The part of a batch that a device reads."""
    part: Rows = batch.reshape(devices, -1)[rank]
    return part


def sample_draw(seed: int, epoch: int, row: int) -> np.random.Generator:
    """What decides caption and crop of a sample in an epoch, whoever reads it."""
    return np.random.default_rng([_SAMPLE, seed, epoch, row])


def step_seed(seed: int, step: int, rank: int) -> int:
    """What torch is seeded with before a step, so that a resumed run draws as an unbroken one."""
    return int(np.random.SeedSequence([_STEP, seed, step, rank]).generate_state(1, np.uint64)[0])
