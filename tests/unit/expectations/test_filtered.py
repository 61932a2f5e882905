"""Sizes above the bound, and no two kept pictures alike: against every pair, one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations import filtered
from expectations.rule import Rule
from vlmdata.config_reading import parse_config

RADIUS = 8
BITS = st.sets(st.integers(0, 63), max_size=6).map(lambda bits: sum(1 << bit for bit in bits))


def alike(hashes: list[int]) -> list[int]:
    found: list[int] = filtered.alike(np.array(hashes, np.uint64), RADIUS).tolist()
    return found


def within(one: int, other: int) -> bool:
    return (one ^ other).bit_count() <= RADIUS


def judged(rows: list[dict[str, Any]], min_side: int = 224) -> dict[str, Rule]:
    config = parse_config({"dataset": "x", "source": {"kind": "folder", "path": "p"}, "filter": {"min_side": min_side}})
    samples = pa.Table.from_pylist(rows, schema=filtered.SAMPLES)
    return {rule.name: rule for rule in filtered.rules(samples, filtered.CAPTIONS.empty_table(), config)}


@given(st.lists(BITS, max_size=30))
def test_every_row_that_is_like_an_earlier_one_is_found_and_named_by_one(hashes: list[int]) -> None:
    found = alike(hashes)
    for row, other in enumerate(found):
        earlier = [before for before in range(row) if within(hashes[row], hashes[before])]
        assert other in earlier if earlier else other == -1


@given(hashes=st.lists(BITS, max_size=30))
def test_of_too_many_pairs_to_list_none_is_passed_over(hashes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filtered, "_MOST_PAIRS", 3)
        found = alike(hashes)
    for row, other in enumerate(found):
        assert other == -1 or (other < row and within(hashes[row], hashes[other]))
    kept = [hashes[row] for row, other in enumerate(found) if other == -1]
    pairs = sum(within(*pair) for pair in itertools.combinations(hashes, 2))
    assert any(other >= 0 for other in found) == (pairs > 0)
    assert pairs <= 3 or not any(within(*pair) for pair in itertools.combinations(kept, 2))


@given(st.lists(st.tuples(st.none() | st.integers(1, 400), st.none() | st.integers(1, 400)), max_size=20))
def test_pictures_under_the_bound_and_those_that_were_not_measured_are_counted(sides: list[tuple[Any, Any]]) -> None:
    rows = [{"id": str(n), "width": width, "height": height, "phash": n} for n, (width, height) in enumerate(sides)]
    figure = judged(rows)["min_side"].figure
    small = [str(n) for n, pair in enumerate(sides) if None in pair or min(pair) < 224]
    assert (figure.value, figure.of, list(figure.ids)) == (len(small), len(sides), small[:5])


def test_a_twin_is_named_and_so_is_a_picture_without_a_hash() -> None:
    far = np.random.default_rng(5).integers(0, 2**64, 3, np.uint64).tolist()
    hashes = [far[0], far[1], far[0] ^ 0b1011, None, None, far[2]]
    rows = [
        {"id": name, "width": 300, "height": 300, "phash": phash} for name, phash in zip("abcdef", hashes, strict=True)
    ]
    figure = judged(rows)["no_near_duplicates"].figure
    assert (figure.value, figure.ids, figure.seen) == (3, ("c", "d", "e"), ("a", "nothing", "nothing"))
    assert judged([row for row in rows if row["id"] in "abf"])["no_near_duplicates"].figure.value == 0
