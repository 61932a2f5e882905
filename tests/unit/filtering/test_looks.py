"""Two pictures are duplicates if they look alike, too: held against a plain search."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.filtering.near_duplicates import Looks, close_to_another, keep_best
from vlmdata.filtering.verdicts import Candidates, Seen, Verdicts, near_another, settle

RADIUS = 2
AT_LEAST = 0.9
SAMPLE = st.tuples(st.integers(0, 63), st.sampled_from([(1, 0), (1, 0.2), (0.6, 1), (0, 1), (-1, 0)]))
SAMPLES = st.lists(SAMPLE, max_size=40)
Sample = tuple[int, tuple[float, float]]


def vectors(samples: list[Sample]) -> np.ndarray:
    return np.array([look for _, look in samples], np.float16).reshape(-1, 2)


def hashes(samples: list[Sample]) -> np.ndarray:
    return np.array([hash_ for hash_, _ in samples], np.uint64)


def distance(one: Sample, other: Sample) -> int:
    return (one[0] ^ other[0]).bit_count()


def alike(one: Sample, other: Sample) -> bool:
    left, right = (np.array(look, np.float16).astype(float) for _, look in (one, other))
    cosine = left @ right / (np.linalg.norm(left) * np.linalg.norm(right))
    return distance(one, other) <= RADIUS and cosine >= AT_LEAST


@settings(max_examples=300, deadline=None)
@given(SAMPLES, SAMPLES)
def test_decides_as_a_plain_search_over_all_pairs_does(samples: list[Sample], published: list[Sample]) -> None:
    rank = np.arange(len(samples), dtype=np.int64)[::-1].copy()
    looks = Looks(vectors(samples), vectors(published), AT_LEAST)
    found = keep_best(hashes(samples), rank, RADIUS, against=hashes(published), looks=looks)
    kept: list[int] = []
    for at in np.argsort(rank).tolist():
        here = samples[at]
        near = [(distance(here, other), place) for place, other in enumerate(published) if alike(here, other)]
        better = [(distance(here, samples[other]), rank[other], other) for other in kept if alike(here, samples[other])]
        if near:
            assert (found.distance[at], found.duplicate_of_published[at]) == min(near)
        elif better:
            assert (found.distance[at], found.duplicate_of[at]) == (min(better)[0], min(better)[2])
        else:
            kept.append(at)
        assert found.kept[at] == (not near and not better)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_runs_that_are_shown_to_one_another_decide_the_same(seed: int) -> None:
    draw = np.random.default_rng(seed)
    looks = [(1, 0), (1, 0.2), (0.6, 1), (0, 1)]
    samples = [(int(draw.integers(2**14)), looks[draw.integers(4)]) for _ in range(2_500)]
    rank = draw.permutation(len(samples))
    found = keep_best(hashes(samples), rank, RADIUS, looks=Looks(vectors(samples), vectors([]), AT_LEAST))
    codes, seen = hashes(samples), vectors(samples).astype(float)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    kept: list[int] = []
    for at in np.argsort(rank):
        near = np.bitwise_count(codes[kept] ^ codes[at]) <= RADIUS
        if not (near & (seen[kept] @ seen[at] >= AT_LEAST)).any():
            kept.append(at)
    assert sorted(kept) == np.flatnonzero(found.kept).tolist()


@settings(max_examples=300, deadline=None)
@given(SAMPLES, SAMPLES)
def test_who_has_somebody_near_is_found(samples: list[Sample], published: list[Sample]) -> None:
    close, theirs = close_to_another(hashes(samples), RADIUS, against=hashes(published))
    for at, one in enumerate(samples):
        others = [*samples[:at], *samples[at + 1 :], *published]
        assert close[at] == any(distance(one, other) <= RADIUS for other in others)
    for at, one in enumerate(published):
        assert theirs[at] == any(distance(one, other) <= RADIUS for other in samples)


@settings(max_examples=300, deadline=None)
@given(SAMPLES, st.sets(st.integers(0, 39)))
def test_looking_at_those_that_have_somebody_near_is_enough(samples: list[Sample], published: set[int]) -> None:
    n = len(samples)
    nothing = Verdicts(np.full(n, -1, np.int64), np.full(n, -1, np.int16), np.zeros(n, bool))
    given_ = Candidates(
        ids=pa.array([f"{at:03d}" for at in range(n)], pa.string()),
        hashes=hashes(samples),
        pixels=np.ones(n, np.int64),
        published=np.isin(np.arange(n), sorted(published)),
        before=nothing,
    )
    near = near_another(given_, RADIUS)
    row = np.where(near, np.cumsum(near) - 1, -1)
    some = settle(given_, RADIUS, Seen(row, vectors(samples)[near], AT_LEAST))
    all_ = settle(given_, RADIUS, Seen(np.arange(n), vectors(samples), AT_LEAST))
    assert some.keeper.tolist() == all_.keeper.tolist()
    assert some.distance.tolist() == all_.distance.tolist()


def test_a_picture_is_its_own_equal_and_one_that_could_not_be_embedded_is_like_nobody() -> None:
    draw = np.random.default_rng(3).normal(size=(1, 512))
    same = np.repeat(draw / np.linalg.norm(draw), 2, axis=0).astype(np.float16)
    twins, rank, none = np.array([7, 7], np.uint64), np.array([0, 1]), np.empty((0, 512), np.float16)
    assert keep_best(twins, rank, 0, looks=Looks(same, none, 1.0)).kept.tolist() == [True, False]
    assert keep_best(twins, rank, 0, looks=Looks(same * np.float16("nan"), none, 0.1)).kept.all()


@pytest.mark.parametrize(("rows", "at_least"), [(1, 0.9), (2, 0.0), (2, 1.5)])
def test_looks_that_do_not_fit_are_refused(rows: int, at_least: float) -> None:
    looks = Looks(np.ones((rows, 3), np.float16), np.ones((0, 3), np.float16), at_least)
    with pytest.raises(ValueError, match="looks: "):
        keep_best(np.array([1, 2], np.uint64), np.array([0, 1]), 2, looks=looks)
