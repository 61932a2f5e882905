"""How much of what: held against counting by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.export.selection.quotas import below_top, deciles, lost_by_weight, over_cap

SCORES = st.lists(st.one_of(st.floats(-1, 1, width=32), st.just(float("nan"))), max_size=40)


@settings(max_examples=200, deadline=None)
@given(SCORES, st.floats(0.01, 1))
def test_the_best_share_is_kept_and_equals_share_a_fate(values: list[float], fraction: float) -> None:
    scores = np.array(values, np.float64)
    lost, bound = below_top(scores, fraction)
    known = scores[~np.isnan(scores)]
    assert not lost[np.isnan(scores)].any()
    if len(known):
        kept = scores[~lost & ~np.isnan(scores)]
        assert len(kept) >= max(1, round(fraction * len(known)))
        assert (kept > bound).sum() < max(1, round(fraction * len(known)))
        assert kept.min() == bound
        assert (scores[lost] < bound).all()


@settings(max_examples=200, deadline=None)
@given(SCORES)
def test_a_decile_holds_at_most_a_tenth_and_equals_stay_together(values: list[float]) -> None:
    scores = np.array(values, np.float64)
    found = deciles(scores).to_pylist()
    assert [one is None for one in found] == np.isnan(scores).tolist()
    known = [(score, int(tenth)) for score, tenth in zip(values, found, strict=True) if tenth]
    assert all((a > b) <= (ta >= tb) and (a == b) <= (ta == tb) for a, ta in known for b, tb in known)
    if len(set(scores[~np.isnan(scores)].tolist())) == len(known):
        assert max(Counter(tenth for _, tenth in known).values(), default=0) <= -(-len(known) // 10)


def test_weights_draw_their_share_of_a_group() -> None:
    draws = (np.arange(1_000) + 0.5) / 1_000
    groups = pa.array(["a", "b", "c", None] * 250)
    lost, weight = lost_by_weight(groups, {"a": 0.5, "b": 0.0, "*": 0.9}, draws)
    kept = Counter(name for name, gone in zip(groups.to_pylist(), lost.tolist(), strict=True) if not gone)
    assert kept == {"a": 125, "c": 225, None: 225}
    assert set(weight.tolist()) == {0.5, 0.0, 0.9}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 5)), max_size=40))
def test_a_cap_keeps_the_best_of_a_group(rows: list[tuple[str, int]]) -> None:
    groups = pa.array([name for name, _ in rows], pa.string())
    scores = np.array([score for _, score in rows], np.float64)
    draws = np.random.default_rng(len(rows)).random(len(rows))
    over, cap = over_cap(groups, {"a": 2, "*": 3}, scores, draws)
    for name, most in (("a", 2), ("b", 3), ("c", 3)):
        mine = [at for at, (group, _) in enumerate(rows) if group == name]
        assert {cap[at] for at in mine} <= {most}
        best = sorted(mine, key=lambda at: (-scores[at], draws[at]))
        assert [at for at in best if not over[at]] == best[:most]


def test_without_a_cap_nobody_is_over_it() -> None:
    over, cap = over_cap(pa.array(["a", "b"]), {"a": 1}, np.zeros(2), np.zeros(2))
    assert not over.any()
    assert cap.tolist() == [1, np.inf]
