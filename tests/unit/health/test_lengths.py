"""Percentiles from counts are NumPy's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.health.lengths import LENGTHS, lengths, percentiles

COUNTS = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 30)), min_size=1, max_size=40)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@given(COUNTS.filter(lambda pairs: any(count for _, count in pairs)), SHARES)
def test_percentiles_are_those_of_numpy(pairs: list[tuple[int, int]], shares: list[float]) -> None:
    values, counts = (np.array(column) for column in zip(*pairs, strict=True))
    whole = np.repeat(values, counts).astype(np.float64)
    assert percentiles(values, counts, shares) == np.quantile(whole, shares).tolist()


def test_all_then_each_language_the_most_frequent_first() -> None:
    columns = {"language": ["en", "en", "zh", "en"], "words": [3, 5, 9, None], "count": [1, 2, 4, 7]}
    found = lengths("words", pa.table(columns)).to_pylist()
    assert [(row["language"], row["count"], row["median"]) for row in found] == [
        (None, 7, 9),
        ("zh", 4, 9),
        ("en", 3, 5),
    ]


def test_lengths_that_nobody_counted() -> None:
    counted = pa.table({"language": ["en"], "tokens": pa.nulls(1, pa.int32()), "count": [3]})
    assert lengths("tokens", counted).equals(LENGTHS.empty_table())
