"""Ranks and recall against a reference that nobody could get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.quality.recall import Recall, alike, galleries, plain, ranks, wilson


def unit(seed: int, n: int, dim: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 10_000), st.integers(1, 40), st.booleans())
def test_ranks_are_those_of_a_brute_force_reference(seed: int, n: int, repeat: bool) -> None:
    images, texts = unit(seed, n), unit(seed + 1, n)
    wording = [f"caption {row % 5 if repeat else row}" for row in range(n)]
    same = alike(texts, wording)
    to_text, to_image = ranks(images, texts, wording)
    scores = images @ texts.T
    for i in range(n):
        better = [j for j in range(n) if not same[i, j] and scores[i, j] >= scores[i, i]]
        assert to_text[i] == 1 + len(better)
        better = [j for j in range(n) if not same[j, i] and scores[j, i] >= scores[i, i]]
        assert to_image[i] == 1 + len(better)


def test_captions_that_say_the_same_do_not_count_against_each_other() -> None:
    images = unit(0, 3)
    texts = np.stack([images[1], images[1], images[2]])
    to_text, to_image = ranks(images, texts, ["A cat!", "a  CAT", "a dog"])
    assert to_text[1] == 1 and to_image[1] == 1
    assert to_text[0] <= 2


def test_a_perfect_set_is_found_at_once_and_a_shuffled_one_is_not() -> None:
    vectors = unit(3, 500, 64)
    words = [str(row) for row in range(500)]
    good, _ = ranks(vectors, vectors, words)
    bad, _ = ranks(vectors, np.roll(vectors, 1, axis=0), words)
    assert Recall.of(good).r1 == 1.0 and Recall.of(bad).r10 < 0.1


def test_equal_scores_count_against_the_right_answer() -> None:
    images = np.ones((4, 2), np.float32) / np.float32(np.sqrt(2))
    to_text, _ = ranks(images, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], ["a", "b", "c", "d"])
    assert to_text.tolist() == [3, 3, 3, 3]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
def test_galleries_are_disjoint_of_one_size_and_the_same_in_any_order(n: int, size: int, most: int, seed: int) -> None:
    ids = [f"id{row}" for row in range(n)]
    drawn = [[ids[row] for row in gallery] for gallery in galleries(ids, size, most, seed)]
    every = [one for gallery in drawn for one in gallery]
    assert len(every) == len(set(every)) == (min(n, most * size) // size * size if n >= size else n)
    assert all(len(gallery) == size for gallery in drawn) or len(drawn) == 1
    backwards = ids[::-1]
    assert drawn == [[backwards[row] for row in gallery] for gallery in galleries(backwards, size, most, seed)]


def test_recall_and_its_interval() -> None:
    found = Recall.of(np.array([1, 1, 5, 6, 10, 11, 50, 3, 2, 100]))
    assert (found.n, found.r1, found.r5, found.r10) == (10, 0.2, 0.5, 0.7)
    assert found.intervals[2] == pytest.approx((0.39677, 0.89221), abs=1e-4)
    assert found.intervals == (wilson(2, 10), wilson(5, 10), wilson(7, 10))
    assert wilson(0, 20)[0] == 0.0 and wilson(20, 20)[1] == pytest.approx(1.0)
    assert Recall.of(np.array([], np.int64)) == Recall(0, 0.0, 0.0, 0.0, ((0.0, 1.0),) * 3)


@pytest.mark.parametrize(("below", "rank"), [(-1e-5, 1), (1e-5, 2)])
def test_a_cosine_of_95_hundredths_is_where_captions_begin_to_say_the_same(below: float, rank: int) -> None:
    """Two captions and the picture of the first, which is nearer to the second."""
    cosine = 0.95 - below
    texts = np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]], np.float32)
    to_text, to_image = ranks(texts[[1, 0]], texts, ["a cat", "a dog"])
    assert to_text.tolist() == to_image.tolist() == [rank, rank]
    assert ranks(texts[[1, 0]], texts, ["a cat", "a dog"], None)[0].tolist() == [2, 2]
    assert ranks(texts[[1, 0]], texts, ["a cat", "A cat!"], None)[0].tolist() == [1, 1]


def test_words_alone() -> None:
    assert plain("  A  Cat—on a mat! ") == "a cat on a mat" and plain("ﬁne") == "fine"
