"""Pauses between requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.backoff import Backoff, retry_after_seconds

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@given(tried=st.integers(1, 60), first=st.floats(0, 5), longest=st.floats(0, 60))
def test_own_pauses_stay_within_their_bounds(tried: int, first: float, longest: float) -> None:
    pause = Backoff(first_s=first, longest_s=longest).pause(tried)
    assert 0 <= pause <= min(longest, first * 2 ** (tried - 1)) + 1e-9


def test_jitter_is_full() -> None:
    pauses = [Backoff(first_s=1, longest_s=100).pause(4) for _ in range(400)]
    assert min(pauses) < 2 < 6 < max(pauses) <= 8


@pytest.mark.parametrize("tried", range(1, 10))
def test_each_pause_may_be_twice_as_long_as_the_one_before_up_to_the_longest(tried: int) -> None:
    """Of 2,000 draws some come near to either bound, but for one run in ten to the fiftieth."""
    most = min(30.0, 0.5 * 2 ** (tried - 1))
    pauses = [Backoff(first_s=0.5, longest_s=30).pause(tried) for _ in range(2_000)]
    assert 0 <= min(pauses) < most / 16 and most * 15 / 16 < max(pauses) <= most


@given(asked=st.floats(-10, 1e6))
def test_a_servers_figure_is_a_lower_bound_up_to_the_cap(asked: float) -> None:
    backoff = Backoff()
    pause = backoff.pause(1, asked)
    assert min(max(asked, 0), backoff.longest_retry_after_s) <= pause
    assert pause <= backoff.longest_retry_after_s + backoff.first_s


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30.0),
        ("Sun Mar  1 12:00:30 2026", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("²", None),
    ],
)
def test_retry_after_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@given(seconds=st.integers(0, 10**6))
def test_dates_round_trip(seconds: int) -> None:
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_seconds(header, NOW) == seconds


@given(st.text(max_size=40))
def test_no_header_is_too_odd(header: str) -> None:
    seconds = retry_after_seconds(header, NOW)
    assert seconds is None or seconds >= 0
