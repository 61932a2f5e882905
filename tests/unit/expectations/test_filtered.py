"""No two kept pictures alike: every pair of a set that fits, and a sample of a larger one against all of it."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations import filtered

RADIUS = 8


def alike(hashes: list[int]) -> list[str | None]:
    ids = [str(row) for row in range(len(hashes))]
    rows = pa.table({"id": ids, "phash": pa.array(hashes, pa.uint64())})
    found: list[str | None] = filtered._alike(rows, RADIUS).to_pylist()
    return found


def within(one: int, other: int) -> bool:
    return (one ^ other).bit_count() <= RADIUS


BITS = st.sets(st.integers(0, 63), max_size=6).map(lambda bits: sum(1 << bit for bit in bits))


@given(st.lists(BITS, max_size=30))
def test_a_row_is_named_only_by_one_that_it_is_like_and_no_pair_is_passed_over(hashes: list[int]) -> None:
    found = alike(hashes)
    for row, other in enumerate(found):
        assert other is None or (int(other) != row and within(hashes[row], hashes[int(other)]))
    assert any(found) == any(within(*pair) for pair in itertools.combinations(hashes, 2))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (0, 41), (41, 42)])
def test_parts_find_their_own_pairs_and_the_sample_finds_all_of_its_own(
    monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    monkeypatch.setattr(filtered, "_LOOKED_AT", 10)
    monkeypatch.setattr(filtered, "_AT_ONCE", 15)
    hashes = np.random.default_rng(7).integers(0, 2**63, 50, np.uint64).tolist()
    assert alike(hashes) == [None] * 50
    hashes[second] = hashes[first] ^ 0b11
    assert {row for row, other in enumerate(alike(hashes)) if other} <= {first, second}
    assert any(alike(hashes))
