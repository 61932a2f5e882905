"""Splits: held against a plain search over all pairs, over random histories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.export.selection import kin as kinship
from vlmdata.export.selection.kin import NEW, Kin, by_caption, by_hash, by_look
from vlmdata.export.selection.splits import CONFLICT, assign

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
RADIUS = 2
HASH = st.integers(0, 2**10 - 1)
NIGHTS = st.lists(st.lists(HASH, max_size=12), min_size=1, max_size=4)


def related(hashes: Sequence[int], split: np.ndarray) -> Kin:
    kin = Kin(split, len(SHARES))
    # Folded every few relations: it must not show.
    kin.at_once = 3
    for one, other in by_hash(np.array(hashes, np.uint64), RADIUS, split == NEW):
        kin.relate(one, other)
    return kin


def split_of(hashes: Sequence[int], before: Sequence[int]) -> np.ndarray:
    split = np.array([*before, *[NEW] * (len(hashes) - len(before))], np.int8)
    draws = np.random.default_rng(len(hashes)).random(len(hashes))
    return assign(related(hashes, split), np.zeros(len(hashes), np.int64), draws, SHARES)


def close(one: int, other: int) -> bool:
    return (one ^ other).bit_count() <= RADIUS


@settings(max_examples=200, deadline=None)
@given(NIGHTS)
def test_no_two_splits_hold_pictures_that_are_close_and_nobody_changes(nights: list[list[int]]) -> None:
    hashes: list[int] = []
    split: list[int] = []
    for night in nights:
        # Who was held is asked about anew.
        stood = [NEW if one == CONFLICT else one for one in split]
        kept = [at for at, one in enumerate(stood) if one != NEW]
        order = [*kept, *[at for at in range(len(hashes)) if at not in kept]]
        hashes = [*[hashes[at] for at in order], *night]
        before = [stood[at] for at in kept]
        now = split_of(hashes, before)
        assert now[: len(before)].tolist() == before
        for at, one in enumerate(hashes):
            for to, other in enumerate(hashes[:at]):
                if close(one, other) and now[at] >= 0 and now[to] >= 0:
                    assert now[at] == now[to]
        split = now.tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(HASH, max_size=12), st.lists(HASH, min_size=1, max_size=8))
def test_who_is_held_belongs_to_a_group_that_touches_two_splits(old: list[int], new: list[int]) -> None:
    before = split_of(old, []).tolist()
    hashes = [*old, *new]
    now = split_of(hashes, before)
    groups = {at: {at} for at in range(len(old), len(hashes))}
    for one in groups:
        for other in groups:
            if close(hashes[one], hashes[other]):
                joined = groups[one] | groups[other]
                for member in joined:
                    groups[member] = joined
    for at, group in groups.items():
        touched = {before[to] for to in range(len(old)) for member in group if close(hashes[member], hashes[to])}
        assert (now[at] == CONFLICT) == (len(touched) > 1)
        if len(touched) == 1:
            assert now[at] == touched.pop()


def test_shares_are_met_in_every_stratum() -> None:
    count, rng = 10_000, np.random.default_rng(1)
    strata = rng.choice(4, count, p=[0.7, 0.2, 0.08, 0.02]).astype(np.int64)
    split = assign(Kin(np.full(count, NEW, np.int8), 3), strata, rng.random(count), SHARES)
    assert np.bincount(split).tolist() == pytest.approx([6_000, 2_000, 2_000], abs=2)
    for stratum in range(4):
        here = np.bincount(split[strata == stratum], minlength=3) / (strata == stratum).sum()
        assert here.tolist() == pytest.approx(list(SHARES.values()), abs=0.02)


def test_newcomers_make_up_for_a_split_that_has_too_few() -> None:
    split = np.concatenate([np.zeros(900, np.int8), np.full(1_100, NEW, np.int8)])
    draws = np.random.default_rng(2).random(2_000)
    now = assign(Kin(split, 3), np.zeros(2_000, np.int64), draws, SHARES)
    assert np.bincount(now).tolist() == pytest.approx([1_200, 400, 400], abs=2)


def test_a_group_that_would_fill_a_small_split_goes_where_most_go() -> None:
    kin = Kin(np.full(1_000, NEW, np.int8), 3)
    kin.relate(np.zeros(99, np.int64), np.arange(1, 100))
    now = assign(kin, np.zeros(1_000, np.int64), np.random.default_rng(3).random(1_000), SHARES)
    assert set(now[:100].tolist()) == {0}
    assert np.bincount(now).tolist() == pytest.approx([600, 200, 200], abs=2)


def test_the_split_does_not_follow_from_the_order_of_the_samples() -> None:
    count, rng = 500, np.random.default_rng(4)
    hashes = rng.integers(0, 2**12, count).astype(np.uint64)
    draws, strata = rng.random(count), rng.integers(0, 3, count)
    order = rng.permutation(count)

    def split(rows: np.ndarray) -> np.ndarray:
        return assign(related(hashes[rows].tolist(), np.full(count, NEW, np.int8)), strata[rows], draws[rows], SHARES)

    assert split(order).tolist() == split(np.arange(count))[order].tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(HASH, max_size=40), st.integers(0, 40), st.integers(1, 30))
def test_pairs_are_found_however_few_may_be_listed_at_once(hashes: list[int], known: int, limit: int) -> None:
    newcomer = np.arange(len(hashes)) >= known
    with pytest.MonkeyPatch.context() as patch:
        # With one hash on each side there is a pair at most.
        patch.setattr(kinship, "_MOST_PAIRS", limit)
        found = {
            frozenset(pair)
            for one, other in by_hash(np.array(hashes, np.uint64), RADIUS, newcomer)
            for pair in zip(one.tolist(), other.tolist(), strict=True)
        }
    pairs = {frozenset((at, to)) for at in range(len(hashes)) for to in range(at) if close(hashes[at], hashes[to])}
    assert found == {pair for pair in pairs if any(newcomer[at] for at in pair)}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 12))
def test_looks_are_compared_across_all_blocks(seed: int, sizes: list[int], at_once: int) -> None:
    rng, count = np.random.default_rng(seed), sum(sizes)
    vectors = rng.normal(size=(count, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(count) < 0.1] = np.nan
    newcomer = rng.random(count) < 0.6
    starts = np.cumsum([0, *sizes])
    blocks = [
        (size, lambda start=start, size=size: vectors[start : start + size])
        for start, size in zip(starts.tolist(), sizes, strict=False)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinship, "_NEWCOMERS_AT_ONCE", at_once)
        found = [
            frozenset(pair)
            for one, other in by_look(blocks, newcomer, 0.8, "cpu")
            for pair in zip(one.tolist(), other.tolist(), strict=True)
        ]
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    pairs = {
        frozenset((at, to))
        for at in range(count)
        for to in range(at)
        if exact[at, to] >= 0.8 and (newcomer[at] or newcomer[to])
    }
    assert set(found) == pairs
    assert len(found) == len(pairs), "each once"


def test_who_is_in_no_split_for_good_binds_nobody() -> None:
    kin = Kin(np.array([CONFLICT, NEW, 2], np.int8), 3)
    kin.relate(np.array([1, 0, 2]), np.array([0, 1, 0]))
    assert not kin.touches.any()


def test_captions_join_whoever_says_the_same() -> None:
    texts = ["A red kite!", "a  red kite", "…", "...", "A blue kite", "Ａ red kite"]
    owners = np.array([0, 1, 2, 3, 3, 4])
    kin = Kin(np.array([0, NEW, NEW, NEW, NEW], np.int8), 3)
    for one, other in by_caption(owners, pa.chunked_array([texts]), kin.split == NEW):
        kin.relate(one, other)
    groups = kin.groups()
    assert groups[1] == groups[4]
    assert len(set(groups.tolist())) == 4
    assert kin.touches[[1, 4], 0].any()
    assert not kin.touches[[2, 3]].any()
