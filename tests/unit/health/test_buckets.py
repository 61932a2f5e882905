"""Borders belong to the bucket that begins there; shapes mirror; scores are binned as NumPy bins them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vlmdata.health.buckets import LENGTHS, SCORE_BORDERS, SHAPES, SIDES, bin_at, bin_low, score_bin, shape


@pytest.mark.parametrize(
    ("side", "label"),
    [
        (1, "<224"), (223, "<224"), (224, "224-255"), (255, "224-255"), (256, "256-383"), (383, "256-383"),
        (384, "384-511"), (511, "384-511"), (512, "512-767"), (767, "512-767"), (768, "768-1023"),
        (1023, "768-1023"), (1024, ">=1024"), (30_000, ">=1024"),
    ],
)  # fmt: skip
def test_sides(side: int, label: str) -> None:
    assert SIDES.labels[SIDES.of(np.array([side]))[0]] == label


@pytest.mark.parametrize(("length", "label"), [(0, "0"), (1, "1"), (2, "2-3"), (4, "4-7"), (1024, ">=1024")])
def test_lengths(length: int, label: str) -> None:
    assert LENGTHS.labels[LENGTHS.of(np.array([length]))[0]] == label


@pytest.mark.parametrize(
    ("width", "height", "label"),
    [
        (500, 500, "square <5:4"), (499, 400, "square <5:4"), (500, 400, "wide 5:4-3:2"), (640, 480, "wide 5:4-3:2"),
        (300, 200, "wide 3:2-2:1"), (400, 200, "wide 2:1-3:1"), (599, 200, "wide 2:1-3:1"), (600, 200, "wide >=3:1"),
        (200, 600, "tall >=3:1"), (200, 300, "tall 3:2-2:1"), (400, 500, "tall 5:4-3:2"),
    ],
)  # fmt: skip
def test_shapes(width: int, height: int, label: str) -> None:
    assert SHAPES[shape(np.array([width]), np.array([height]))[0]] == label


SIDE = st.integers(1, 2**31 - 1)


@given(SIDE, SIDE)
def test_a_turned_picture_has_the_mirrored_shape(width: int, height: int) -> None:
    one, other = (int(shape(np.array([w], np.int32), np.array([h], np.int32))[0])
                  for w, h in ((width, height), (height, width)))  # fmt: skip
    assert one + other == len(SHAPES) - 1


@given(arrays(np.float32, st.integers(0, 50), elements=st.floats(-1, 1, width=32)))
def test_scores_are_binned_as_numpy_does(scores: np.ndarray) -> None:
    expected, _ = np.histogram(scores, SCORE_BORDERS)
    assert np.bincount(score_bin(scores), minlength=len(expected)).tolist() == expected.tolist()


def test_a_score_on_a_border_begins_a_bin() -> None:
    lows = np.arange(0, 98, 2) / 100
    assert [bin_low(place) for place in score_bin(lows.astype(np.float32))] == lows.tolist()
    assert [bin_at(bin_low(place)) for place in range(100)] == list(range(100))


def test_a_cosine_may_pass_one_by_its_last_bits() -> None:
    one = np.float32(1)
    assert score_bin(np.array([np.nextafter(one, np.float32(2)), -np.nextafter(one, np.float32(2))])).tolist() == [
        99,
        0,
    ]
