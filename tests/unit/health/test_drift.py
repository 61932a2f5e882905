"""What moved: the index by its formula, chance held apart from change, scores of one model only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.errors import ConfigError
from vlmdata.health.drift import Moved, drift, psi, psi_by_chance
from vlmdata.health.health import DISTRIBUTIONS, JUDGED, SCORES, STAGES, Health
from vlmdata.health.lengths import LENGTHS


def healthy(distributions: Mapping[str, Mapping[str | None, int]], **fields: Any) -> Health:
    rows = [{"what": w, "value": v, "count": n} for w, counts in distributions.items() for v, n in counts.items()]
    empty = {"lengths": LENGTHS, "scores": SCORES, "judged": JUDGED, "stages": STAGES}
    return Health(
        **{
            "dataset": "set",
            "run": 1,
            "stage": "03_quality_checked",
            "figures": {},
            "distributions": pa.Table.from_pylist(rows, schema=DISTRIBUTIONS),
            **{name: schema.empty_table() for name, schema in empty.items()},
            **fields,
        }
    )


def scored(model: str, counts: Mapping[float, int]) -> pa.Table:
    rows = [{"model": model, "language": "en", "low": low, "high": low + 0.02, "count": n} for low, n in counts.items()]
    return pa.Table.from_pylist(rows, schema=SCORES)


PAIRS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=30)


@given(PAIRS.filter(lambda pairs: any(a for a, _ in pairs) and any(b for _, b in pairs)))
def test_the_index_is_finite_never_negative_and_the_same_both_ways(pairs: list[tuple[int, int]]) -> None:
    before, now = np.array(pairs, np.float64).T
    assert 0 <= psi(before, now) < np.inf
    assert psi(before, now) == pytest.approx(psi(now, before))
    assert psi(before, before) == 0


def test_the_index_by_hand() -> None:
    """Shares of 0.2 and 0.8 against 0.6 and 0.4, of so many that half a one more is nothing."""
    expected = 0.4 * np.log(0.6 / 0.2) - 0.4 * np.log(0.4 / 0.8)
    assert psi(np.array([2e9, 8e9]), np.array([6e9, 4e9])) == pytest.approx(expected, rel=1e-6)


def test_what_chance_does_is_as_often_as_it_says() -> None:
    draw = np.random.default_rng(4)
    shares = np.full(10, 0.1)
    pairs = [(draw.multinomial(2_000, shares), draw.multinomial(3_000, shares)) for _ in range(2_000)]
    over = [psi(a.astype(float), b.astype(float)) > psi_by_chance(a, b, 0.05) for a, b in pairs]
    assert np.mean(over) == pytest.approx(0.05, abs=0.015)


def test_the_value_that_moved_most() -> None:
    sizes = {"<224": 500, "224-255": 500}
    before = healthy({"size": sizes, "language": {"en": 800, "fr": 200}})
    now = healthy({"size": sizes, "language": {"en": 500, "fr": 100, "zh": 400}})
    first, second = drift(before, now)
    assert (first.name, first.value, first.before, first.now, first.over) == ("language", "zh", 0, 0.4, True)
    assert (second.name, second.psi, second.over) == ("size", 0, False)


def test_few_images_that_differ_by_chance_are_no_drift() -> None:
    before, now = (
        healthy({"size": dict(zip("abcdef", counts, strict=True))})
        for counts in ((3, 1, 0, 2, 0, 1), (1, 2, 2, 1, 1, 0))
    )
    [moved] = drift(before, now)
    assert moved.psi is not None
    assert moved.psi > 0.2
    assert not moved.over


def test_the_bound_is_what_it_is_held_against() -> None:
    before, now = healthy({"origin": {"a": 5_000, "b": 5_000}}), healthy({"origin": {"a": 6_000, "b": 4_000}})
    index = drift(before, now)[0].psi
    assert index is not None
    assert [drift(before, now, bound)[0].over for bound in (index * 0.99, index, 0.2)] == [True, False, False]


def test_nothing_against_something_cannot_be_told() -> None:
    [moved] = drift(healthy({"origin": {"a": 5}}), healthy({}))
    assert moved == Moved("origin", None, None, None, False)


def test_scores_are_compared_where_one_model_gave_them() -> None:
    high, low = scored("one", {0.3: 1_000}), scored("one", {0.2: 1_000})
    [moved] = drift(healthy({}, scores=high), healthy({}, scores=low))
    assert (moved.name, moved.over) == ("score of en", True)
    other = healthy({}, scores=scored("other", {0.2: 1_000}), figures={"mean_score": 0.2})
    assert drift(healthy({}, scores=high, figures={"mean_score": 0.3}), other) == []


def test_the_outcomes_of_a_stage_are_compared() -> None:
    def kept(number: int) -> Health:
        counts = {"in": 1_000, "kept": number, "rejected": 1_000 - number, "held": 0, "failed": 0}
        return healthy({}, stages=pa.Table.from_pylist([{"stage": "01_filtered", **counts}], schema=STAGES))

    [moved] = drift(kept(900), kept(300))
    assert (moved.name, moved.over) == ("outcome of 01_filtered", True)


def test_figures_that_changed() -> None:
    before, now = healthy({}, figures={"images": 3, "captions": 5}), healthy({}, figures={"images": 4, "captions": 5})
    assert drift(before, now) == [Moved("images", 3, 4, None, False)]


def test_runs_that_reached_different_stages() -> None:
    with pytest.raises(ConfigError, match="same stage"):
        drift(healthy({}), replace(healthy({}), stage="01_filtered"))
