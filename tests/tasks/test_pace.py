"""The figures of Prefect's limits: enough, and never more than the config says."""

from __future__ import annotations

import pickle
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.job import Job
from tasks.pace import PrefectLimits, limits_of, parts, prepare, shared_limits
from vlmdata.captioning.pace import FRESH_S
from vlmdata.config import CaptionConfig
from vlmdata.config_reading import parse_config


def job(**caption: int) -> Job:
    raw = {"dataset": "set", "store": "/store", "source": {"kind": "folder", "path": "/p"}, "caption": caption}
    return Job(parse_config(raw), 1)


def test_without_a_server_nothing_is_shared() -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        assert prepare(job()) is None
        assert shared_limits(job()) is None


def test_shared_limits_travel_and_name_a_pace() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        limits = shared_limits(job(tokens_per_minute=5))
    assert limits == PrefectLimits("set", requests=False, tokens=True)
    assert {limits: 1}[pickle.loads(pickle.dumps(limits))] == 1


def test_limits_are_named_after_the_dataset() -> None:
    captions, processes = limits_of("set", CaptionConfig(concurrency=7))
    assert (captions.name, captions.slots, captions.decay) == ("vlmdata-set-captions", 7, None)
    assert processes.name == "vlmdata-set-processes"
    every = limits_of("set", CaptionConfig(requests_per_minute=1, tokens_per_minute=1))
    assert [limit.name for limit in every][2:] == ["vlmdata-set-requests", "vlmdata-set-tokens"]


def started(burst: float, decay: float, one: float) -> int:
    """Starts of `one` slot within a half-open minute and what was kept from before, by a greedy user of the bucket."""
    left, at, number = burst, 0.0, 0
    while True:
        if left < one - 1e-9:
            at, left = at + (one - left) / decay, one
        if at >= 60 + FRESH_S - 1e-6:
            return number
        left, number = left - one, number + 1


@given(st.integers(1, 5_000))
def test_no_minute_has_more_requests_than_the_config_says_and_not_much_fewer(requests: int) -> None:
    limit = limits_of("set", CaptionConfig(requests_per_minute=requests))[2]
    assert limit.decay is not None and limit.slots % 1_000 == 0
    assert 0.93 * requests - 1 <= started(limit.slots, limit.decay, 1_000) <= requests
    assert limit.decay * 60 / 1_000 >= 0.9 * requests - 1


@given(st.integers(1, 5_000))
def test_nor_more_tokens(tokens: int) -> None:
    limit = limits_of("set", CaptionConfig(tokens_per_minute=tokens))[2]
    assert limit.decay is not None
    assert 0.93 * tokens - 1 <= started(limit.slots, limit.decay, 1) <= tokens


@given(st.integers(-3, 1_000))
def test_parts_add_up_and_are_powers_of_two(slots: int) -> None:
    sizes = parts(slots)
    assert sum(sizes) == max(0, slots) and len(sizes) <= 2 * max(1, slots).bit_length()
    assert all(size & (size - 1) == 0 for size in sizes) and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("slots", range(1, 24))
def test_any_fewer_are_a_sum_of_parts(slots: int) -> None:
    sizes = parts(slots)
    sums = {sum(chosen) for number in range(len(sizes) + 1) for chosen in combinations(sizes, number)}
    assert sums == set(range(slots + 1))
