"""The ROC curve, its area and the thresholds on it, against counting one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vlmdata.models.roc import DECIMALS, MOST_POINTS, auc, kept, roc, rounded

cosines = st.floats(-1, 1, width=32)
# Few distinct values, so that ties are common.
tied = st.sampled_from([np.float32(x) for x in (-0.5, 0.1, 0.2, 0.28, 0.3)])
scores = st.integers(1, 120).flatmap(lambda n: arrays(np.float32, n, elements=cosines | tied))


def share_from(values: np.ndarray, threshold: float) -> float:
    return sum(1 for value in values if value >= np.float32(threshold)) / len(values)


@given(scores, scores)
def test_every_point_of_the_curve_is_what_counting_gives(matched: np.ndarray, shuffled: np.ndarray) -> None:
    points = roc(matched, shuffled)
    for point in points:
        assert point.matched == pytest.approx(share_from(matched, point.threshold), abs=10**-DECIMALS)
        assert point.shuffled == pytest.approx(share_from(shuffled, point.threshold), abs=10**-DECIMALS)
    assert (points[-1].matched, points[-1].shuffled) == (1, 1)
    thresholds = [point.threshold for point in points]
    assert thresholds == sorted(set(thresholds), reverse=True)
    assert thresholds[0] == max(matched.max(), shuffled.max())


@given(scores, scores)
def test_the_area_under_the_whole_curve_is_the_auc(matched: np.ndarray, shuffled: np.ndarray) -> None:
    points = roc(matched, shuffled, most=1_000)
    right, wrong = np.array([(0.0, 0.0), *((p.matched, p.shuffled) for p in points)]).T
    assert np.trapezoid(right, wrong) == pytest.approx(auc(matched, shuffled), abs=5 * 10**-DECIMALS)


def test_a_long_curve_is_thinned_evenly() -> None:
    draw = np.random.default_rng(0)
    matched, shuffled = (draw.normal(mean, 0.1, 4_000).astype(np.float32) for mean in (0.3, 0.1))
    points = roc(matched, shuffled)
    assert len(points) == MOST_POINTS
    way = np.array([0.0, *(point.matched + point.shuffled for point in points)])
    assert np.diff(way).max() < 3 * 2 / MOST_POINTS


@given(scores, scores, st.floats(0.01, 1))
def test_a_threshold_keeps_what_it_promises(matched: np.ndarray, shuffled: np.ndarray, keep: float) -> None:
    found = kept(matched, shuffled, keep)
    quantile = float(np.quantile(matched, 1 - keep, method="lower"))
    assert found.threshold == math.floor(quantile * 10**DECIMALS) / 10**DECIMALS
    assert share_from(matched, found.threshold) >= keep
    assert found.matched == pytest.approx(share_from(matched, found.threshold), abs=10**-DECIMALS)
    assert found.shuffled == pytest.approx(share_from(shuffled, found.threshold), abs=10**-DECIMALS)


@given(cosines)
def test_a_rounded_threshold_lies_on_its_side(value: float) -> None:
    down, up = rounded(value, math.floor), rounded(value, math.ceil)
    assert np.float32(down) <= np.float32(value) <= np.float32(up)
    assert up - down <= 1.0001 * 10**-DECIMALS
