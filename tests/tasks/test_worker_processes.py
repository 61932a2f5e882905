"""Pools of which a process is killed: who is tried again, and when nobody is."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import task
from prefect.states import Completed, State

from flows.worker_processes import outcomes
from vlmdata.checkpoint import Shard

SHARDS = [Shard(f"{number:05d}", 1) for number in range(40)]


@task(retries=2)
def work(shard: Shard) -> Shard:
    return shard


@dataclass
class Future:
    state: State[Any] | None

    def wait(self) -> None:
        if self.state is None:
            raise BrokenExecutor


class Pool:
    """As a pool of processes is from outside: with one of `deadly` it breaks, and with it all that did not end."""

    def __init__(self, deadly: dict[str, int]) -> None:
        self.tries, self.renewed, self._deadly, self._broken = Counter[str](), 0, deadly, False

    def submit(self, _: Any, parameters: dict[str, Any]) -> Future:
        name = parameters["shard"].name
        if not self._broken:
            self.tries[name] += 1
            self._broken = self.tries[name] <= self._deadly.get(name, 0)
        return Future(None if self._broken else Completed(data=name))

    def __enter__(self) -> Pool:
        self._broken = False
        return self

    def __exit__(self, *_: object) -> None:
        self.renewed += 1


def ended(pool: Any, workers: int = 2) -> dict[str, bool]:
    """Whether each shard came to an end, by its name, each told once."""
    told = [(shard.name, state is not None) for shard, state in outcomes(pool, work, SHARDS, {}, workers)]
    assert sorted(name for name, _ in told) == [shard.name for shard in SHARDS]
    return dict(told)


NAMES = [shard.name for shard in SHARDS]


@given(st.dictionaries(st.sampled_from(NAMES[:-1]), st.integers(1, 5)), st.integers(0, 39))
def test_who_kills_its_process_too_often_is_lost_and_nobody_else(deadly: dict[str, int], first: int) -> None:
    """Also where all that were begun do so, one after another."""
    deadly |= dict.fromkeys(NAMES[:first], 9)
    lost = {name for name, done in ended(Pool(deadly)).items() if not done}
    # Alone twice, and once beside others unless one of them was quicker.
    assert {name for name, times in deadly.items() if times > 2} <= lost
    assert lost <= {name for name, times in deadly.items() if times > 1}


@pytest.mark.parametrize("lives", [0, 3], ids=["beside others", "alone"])
def test_where_a_process_lived_the_others_are_tried_whatever_becomes_of_the_last(lives: int) -> None:
    deadly = {NAMES[number] for number in range(6) if number != lives} | {NAMES[-1]}
    found = ended(Pool(dict.fromkeys(deadly, 99)))
    assert {name for name, done in found.items() if not done} == deadly


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_where_no_process_lives_the_others_are_not_tried(workers: int) -> None:
    pool = Pool({shard.name: 99 for shard in SHARDS})
    assert not any(ended(pool, workers).values())
    assert pool.renewed <= 1 + 2 * (2 * workers + 2)
