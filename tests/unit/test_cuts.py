"""Parts that fit in memory."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.cuts import cuts


@given(
    sizes=st.lists(st.integers(0, 50), max_size=60),
    most_rows=st.integers(1, 9),
    most_bytes=st.integers(1, 90),
)
def test_parts_cover_all_rows_and_keep_both_bounds(sizes: list[int], most_rows: int, most_bytes: int) -> None:
    parts = list(cuts(np.array(sizes, np.int64), most_rows, most_bytes))
    assert [row for start, stop in parts for row in range(start, stop)] == list(range(len(sizes)))
    for start, stop in parts:
        assert 1 <= stop - start <= most_rows
        assert sum(sizes[start:stop]) <= most_bytes or stop - start == 1


def test_a_part_is_as_large_as_the_bounds_allow() -> None:
    assert list(cuts(np.array([5, 5, 5, 5, 50, 1, 1], np.int64), 3, 10)) == [(0, 2), (2, 4), (4, 5), (5, 7)]
