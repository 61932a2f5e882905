import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.filtering import near_duplicates
from vlmdata.filtering.near_duplicates import MAX_RADIUS, expected_chance_drops, keep_best, pairs_within

radii = st.integers(0, MAX_RADIUS)


def flip(hashes, bits, rng):
    """Flip up to so many bits of each hash."""
    flipped = hashes.copy()
    for _ in range(bits):
        flipped ^= np.uint64(1) << rng.integers(0, 64, len(hashes)).astype(np.uint64)
    return flipped


def planted(seed, count, spread=8):
    """A third alone, a third in clusters, a third equal to one of the others."""
    rng = np.random.default_rng(seed)
    alone = rng.integers(0, 2**64, count // 3 + 1, dtype=np.uint64)
    clustered = flip(rng.choice(alone[: len(alone) // 8 + 1], count // 3 + 1), spread, rng)
    equal = rng.choice(np.concatenate([alone, clustered]), count // 3 + 1)
    return rng.permutation(np.concatenate([alone, clustered, equal]))[:count]


def distances(left, right):
    return np.bitwise_count(left[:, None] ^ right[None, :]).astype(np.int16)


def keep_best_slowly(hashes, rank, radius, against):
    """The same decision from its definition."""
    verdicts, kept = {}, []
    for sample in sorted(range(len(hashes)), key=lambda each: rank[each]):
        twin = next((other for other in verdicts if hashes[other] == hashes[sample]), None)
        to_published = [(int(hash_ ^ hashes[sample]).bit_count(), place) for place, hash_ in enumerate(against)]
        to_kept = [
            (int(hashes[other] ^ hashes[sample]).bit_count(), rank[other], other)
            for other in kept
            if twin is None or rank[other] <= rank[twin]
        ]
        if to_published and min(to_published)[0] <= radius:
            verdicts[sample] = (False, -1, min(to_published)[1], min(to_published)[0])
        elif to_kept and min(to_kept)[0] <= radius:
            verdicts[sample] = (False, min(to_kept)[2], -1, min(to_kept)[0])
        else:
            verdicts[sample] = (True, -1, -1, -1)
            kept.append(sample)
    return [verdicts[sample] for sample in range(len(hashes))]


def rows(decision):
    columns = (decision.kept, decision.duplicate_of, decision.duplicate_of_published, decision.distance)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 150), radii)
def test_pairs_are_those_of_brute_force(seed, count, radius):
    hashes = planted(seed, count, spread=MAX_RADIUS)
    within = distances(hashes, hashes)
    i, j = np.nonzero(np.triu(within <= radius, k=1))
    found = pairs_within(hashes, radius)
    assert [column.tolist() for column in found] == [i.tolist(), j.tolist(), within[i, j].tolist()]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 90), st.integers(0, 90), radii)
def test_pairs_against_others_are_those_of_brute_force(seed, count, others, radius):
    both = planted(seed, count + others, spread=MAX_RADIUS)
    hashes, against = both[:count], both[count:]
    within = distances(hashes, against)
    i, j = np.nonzero(within <= radius)
    found = pairs_within(hashes, radius, against=against)
    assert [column.tolist() for column in found] == [i.tolist(), j.tolist(), within[i, j].tolist()]


@pytest.mark.parametrize(
    ("radius", "agreeing"),
    [(radius, agreeing) for radius in (0, 3, 8, 16) for agreeing in range(5) if radius + agreeing],
)
def test_every_choice_of_blocks_finds_all_pairs_and_nothing_else(monkeypatch, radius, agreeing):
    hashes = planted(radius, 600, spread=radius + 2)
    within = distances(hashes, hashes)
    i, j = np.nonzero(np.triu(within <= radius, k=1))
    masks = near_duplicates._masks(radius + agreeing, agreeing)
    monkeypatch.setattr(near_duplicates, "_plan", lambda *_: (masks, 10, min(2, len(masks))))
    found = pairs_within(hashes, radius)
    assert len(i) > 100
    assert [column.tolist() for column in found] == [i.tolist(), j.tolist(), within[i, j].tolist()]


def test_recall_is_one_and_nothing_is_extra_on_20_000_hashes():
    hashes = np.unique(planted(7, 33_000, spread=9))[:20_000]
    expected = []
    for start in range(0, len(hashes), 1000):
        within = distances(hashes[start : start + 1000], hashes)
        i, j = np.nonzero(within <= 8)
        expected += [(a + start, b, within[a, b]) for a, b in zip(i, j, strict=True) if a + start < b]
    assert len(hashes) == 20_000
    assert len(expected) > len(hashes) // 10
    assert list(zip(*(column.tolist() for column in pairs_within(hashes, 8)), strict=True)) == expected


def test_more_pairs_than_the_limit_are_refused_and_as_many_are_not():
    hashes = np.full(100, 5, dtype=np.uint64)
    assert len(pairs_within(hashes, 8, limit=4950)[0]) == 4950
    with pytest.raises(ValueError, match="more than 4949 within 8 bits"):
        pairs_within(hashes, 8, limit=4949)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 90), st.integers(0, 30), radii)
def test_the_decision_is_that_of_its_definition(seed, count, published, radius):
    both = planted(seed, count + published, spread=min(MAX_RADIUS, radius + 4))
    hashes, against = both[:count], both[count:]
    rank = np.random.default_rng(seed).permutation(count) * 3 - 50
    decision = keep_best(hashes, rank, radius, against=against)
    assert rows(decision) == keep_best_slowly(hashes, rank, radius, against)


@pytest.mark.parametrize("short_run", [1, 7, 64])
def test_the_decision_does_not_depend_on_where_runs_are_cut(monkeypatch, short_run):
    hashes = planted(3, 2500, spread=9)
    rank = np.random.default_rng(4).permutation(len(hashes))
    whole = rows(keep_best(hashes, rank, 8, against=hashes[:50] ^ np.uint64(3)))
    monkeypatch.setattr(near_duplicates, "_SHORT_RUN", short_run)
    monkeypatch.setattr(near_duplicates, "_WORTH_A_THREAD", 1)
    assert rows(keep_best(hashes, rank, 8, against=hashes[:50] ^ np.uint64(3))) == whole


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), radii)
def test_the_decision_does_not_depend_on_the_order_of_rows(seed, radius):
    hashes, rng = planted(seed, 80), np.random.default_rng(seed)
    rank, order = rng.permutation(80), rng.permutation(80)
    straight, shuffled = keep_best(hashes, rank, radius), keep_best(hashes[order], rank[order], radius)
    assert shuffled.kept.tolist() == straight.kept[order].tolist()
    assert shuffled.distance.tolist() == straight.distance[order].tolist()
    named = np.where(shuffled.duplicate_of < 0, -1, order[shuffled.duplicate_of])
    assert named.tolist() == straight.duplicate_of[order].tolist()


def test_twenty_thousand_hashes_in_wide_clusters_are_decided_soundly():
    hashes = planted(11, 20_000, spread=14)
    rank = np.random.default_rng(12).permutation(len(hashes))
    decision = keep_best(hashes, rank, 8)
    dropped = np.flatnonzero(~decision.kept)
    named = decision.duplicate_of[dropped]
    assert len(dropped) > len(hashes) // 10
    assert len(pairs_within(hashes[decision.kept], 8)[0]) == 0
    assert decision.kept[named].all()
    assert (rank[named] < rank[dropped]).all()
    assert np.array_equal(np.bitwise_count(hashes[dropped] ^ hashes[named]), decision.distance[dropped])
    assert decision.distance[dropped].max() <= 8


def test_nothing_is_dropped_for_the_sake_of_a_dropped_one():
    chain = np.array([0, 0xFF, 0xFFFF], dtype=np.uint64)
    assert keep_best(chain, np.arange(3), 8).kept.tolist() == [True, False, True]


def test_published_samples_outrank_nearer_new_ones():
    hashes = np.array([0xFF00, 0xFF01], dtype=np.uint64)
    published = np.array([2**63, 0xFFFF], dtype=np.uint64)
    assert rows(keep_best(hashes, np.arange(2), 7)) == [(True, -1, -1, -1), (False, 0, -1, 1)]
    assert rows(keep_best(hashes, np.arange(2), 7, against=published)) == [
        (True, -1, -1, -1),
        (False, -1, 1, 7),
    ]


def test_a_cluster_too_large_to_list_its_pairs_is_decided():
    rng = np.random.default_rng(5)
    ball = flip(np.full(60_000, rng.integers(0, 2**64, dtype=np.uint64)), 4, rng)
    same = np.full(100_000, rng.integers(0, 2**64, dtype=np.uint64))
    hashes = np.concatenate([ball, same])
    decision = keep_best(hashes, np.arange(len(hashes)), 8)
    assert np.flatnonzero(decision.kept).tolist() == [0, len(ball)]
    assert set(decision.duplicate_of[1 : len(ball)].tolist()) == {0}


def test_two_threads_may_search_at_once():
    hashes = np.unique(planted(6, 30_000))
    alone = pairs_within(hashes, 8)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: pairs_within(hashes, 8), range(4)):
            assert all(np.array_equal(one, other) for one, other in zip(found, alone, strict=True))


def test_hashes_may_be_strided_and_read_only():
    hashes = planted(8, 300)
    hashes.flags.writeable = False
    rank = np.arange(150)
    assert rows(keep_best(hashes[::2], rank, 8)) == rows(keep_best(hashes[::2].copy(), rank, 8))


@pytest.mark.parametrize(
    ("hashes", "rank", "radius", "message"),
    [
        (np.zeros(2, np.int64), np.arange(2), 8, "hashes: int64"),
        (np.zeros((2, 1), np.uint64), np.arange(2), 8, "expected a vector"),
        (np.zeros(2, np.uint64), np.arange(3), 8, r"expected int64 of shape \(2,\)"),
        (np.zeros(2, np.uint64), np.arange(2.0), 8, "rank: float64"),
        (np.zeros(2, np.uint64), np.array([4, 4]), 8, "rank: 4 is given twice"),
        (np.zeros(2, np.uint64), np.arange(2), 17, "radius: 17; expected 0 to 16"),
        (np.zeros(2, np.uint64), np.arange(2), -1, "radius: -1"),
    ],
)
def test_what_cannot_be_decided_is_refused(hashes, rank, radius, message):
    with pytest.raises(ValueError, match=message):
        keep_best(hashes, rank, radius)


def test_chance_is_that_of_drawing_31_of_63_bits():
    assert expected_chance_drops(2, 8) == pytest.approx(1.3e-9, rel=0.05)
    assert expected_chance_drops(100_000_000, 8) / 100_000_000 == pytest.approx(0.06, abs=0.005)
    assert expected_chance_drops(0, 8) == expected_chance_drops(1, 8) == 0


def test_chance_drops_agree_with_random_hashes():
    rng = np.random.default_rng(9)
    bits = np.argsort(rng.random((20_000, 63)), axis=1) < 31
    padded = np.concatenate([np.ones((len(bits), 1), dtype=bool), bits], axis=1)
    hashes = np.packbits(padded, axis=1).view(">u8").reshape(-1).astype(np.uint64)
    dropped = len(hashes) - keep_best(hashes, np.arange(len(hashes)), 14).kept.sum()
    expected = expected_chance_drops(len(hashes), 14)
    assert expected > 100
    assert abs(dropped - expected) < 5 * expected**0.5


@settings(deadline=None)
@given(st.integers(0, 10**9), radii)
def test_a_wider_radius_or_one_more_sample_never_drops_fewer(n, radius):
    drops = expected_chance_drops(n, radius)
    assert 0 <= drops <= n
    assert expected_chance_drops(n + 1000, radius) >= drops
    assert radius == MAX_RADIUS or expected_chance_drops(n, radius + 1) >= drops * (1 - 1e-6) - 1e-6


def test_blocks_cover_all_bits_once():
    for blocks in range(1, 21):
        masks = [int(mask) for mask in near_duplicates._masks(blocks, 1)]
        assert sum(masks) == 2**64 - 1
        assert all(left & right == 0 for left, right in combinations(masks, 2))


def test_importing_the_rule_loads_no_compiler():
    code = "import sys, vlmdata.filtering.near_duplicates; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
