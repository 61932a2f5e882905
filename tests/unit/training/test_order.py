"""Who reads what: nothing twice, nothing lost, the same after a restart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.training.order import batches, epoch_rows, part_of, sample_draw, step_seed

SHARDS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def shards_of(sizes: list[int]) -> list[np.ndarray]:
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@given(sizes=SHARDS, seed=st.integers(0, 5), epoch=st.integers(0, 5), buffer=st.integers(1, 80))
def test_an_epoch_reads_every_sample_once(sizes: list[int], seed: int, epoch: int, buffer: int) -> None:
    rows = np.concatenate(list(epoch_rows(shards_of(sizes), seed, epoch, buffer)))
    assert sorted(rows) == list(range(sum(sizes)))


@given(
    sizes=SHARDS,
    devices=st.integers(1, 4),
    chunks=st.integers(1, 3),
    per_device=st.integers(1, 5),
    workers=st.integers(1, 3),
    buffer=st.integers(1, 80),
)
def test_devices_and_workers_share_an_epoch_with_neither_overlap_nor_loss(
    sizes: list[int], devices: int, chunks: int, per_device: int, workers: int, buffer: int
) -> None:
    size = devices * chunks * per_device
    read: list[int] = []
    for rank in range(devices):
        parts = [part_of(batch, rank, devices) for batch in batches(shards_of(sizes), 1, 2, buffer, size)]
        chunked = [chunk for part in parts for chunk in part.reshape(chunks, per_device)]
        # torch hands the lists of keys to its workers in turns.
        read += [int(row) for worker in range(workers) for chunk in chunked[worker::workers] for row in chunk]
    assert len(read) == len(set(read)) == sum(sizes) // size * size


@given(sizes=SHARDS, size=st.integers(1, 12), buffer=st.integers(1, 80), start=st.integers(0, 20))
def test_a_restart_reads_on_where_it_was(sizes: list[int], size: int, buffer: int, start: int) -> None:
    whole = list(batches(shards_of(sizes), 3, 1, buffer, size))
    rest = list(batches(shards_of(sizes), 3, 1, buffer, size, start))
    assert [list(batch) for batch in rest] == [list(batch) for batch in whole[start:]]


def test_an_epoch_keeps_to_few_shards_at_a_time() -> None:
    shards = shards_of([10] * 20)
    for window in epoch_rows(shards, 0, 0, 40):
        assert len(set(window // 10)) <= 5


def test_orders_differ_by_seed_and_by_epoch_and_by_nothing_else() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [int(row) for window in epoch_rows(shards_of([30, 30]), seed, epoch, 20) for row in window]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_draws_for_samples_and_steps_never_repeat() -> None:
    samples = {int(sample_draw(s, e, r).integers(2**62)) for s in range(3) for e in range(3) for r in range(3)}
    steps = {step_seed(s, n, r) for s in range(3) for n in range(3) for r in range(3)}
    assert (len(samples), len(steps)) == (27, 27)
