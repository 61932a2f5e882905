"""The sample of images, and what counts as a wrong caption, against doing it by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.quality.drawing import Draw, one_each, places
from vlmdata.quality.matching import Matched, said_of, unit
from vlmdata.quality.recall import SAME_MEANING

ids = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), unique=True, max_size=40)


def placed(some: list[str]) -> pa.Table:
    return pa.table({"id": pa.array(some, pa.string()), "place": places(some)})


@given(ids, st.integers(1, 20), st.randoms(), st.integers(1, 10))
def test_the_same_are_drawn_however_they_come(some: list[str], most: int, random: Any, cut: int) -> None:
    place = dict(zip(some, places(some).to_pylist(), strict=True))
    expected = sorted(some, key=lambda one: (place[one], one))[:most]
    random.shuffle(some)
    draw = Draw(most)
    for start in range(0, len(some), cut):
        draw.offer(placed(some[start : start + cut]))
    rows = draw.rows()
    assert ([] if rows is None else rows["id"].to_pylist()) == expected
    assert len(draw) == len(expected)


@given(ids, st.integers(1, 20))
def test_whoever_may_not_be_taken_is_not(some: list[str], most: int) -> None:
    draw = Draw(most)
    draw.offer(placed(some[: len(some) // 2]))
    late = placed(some[len(some) // 2 :])
    chance = late.filter(draw.may_take(late["place"]))["id"].to_pylist()
    draw.offer(late)
    rows = draw.rows()
    drawn = set() if rows is None else set(rows["id"].to_pylist())
    assert drawn & set(late["id"].to_pylist()) <= set(chance)


def test_places_are_spread_evenly() -> None:
    # What a quarter of the range holds, of 4,000: five standard deviations about 1,000.
    drawn = np.asarray(places([f"{number:032x}" for number in range(4_000)]))
    assert abs(np.count_nonzero(drawn < 2**62) - 1_000) < 5 * 28


rows = st.lists(st.tuples(*[st.sampled_from("abc")] * 2, st.text("01234567", max_size=3)), max_size=30)


@given(rows)
def test_one_caption_is_taken_for_each_image_and_language(some: list[tuple[str, str, str]]) -> None:
    names = ("id", "language", "caption_id")
    table = pa.table({name: pa.array([row[i] for row in some], pa.string()) for i, name in enumerate(names)})
    smallest: dict[tuple[str, str], str] = {}
    for one, language, caption in some:
        smallest[one, language] = min(caption, smallest.get((one, language), caption))
    found = one_each(table, "id", "language").to_pylist()
    assert {(row["id"], row["language"]): row["caption_id"] for row in found} == smallest
    assert len(found) == len(smallest)


WORDS = ("A cat.", "a CAT", "a dog", "two dogs", "a bird", "the sea")


@given(st.data())
def test_a_caption_that_says_what_the_image_shows_is_no_wrong_one(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 7))
    wording = data.draw(st.lists(st.sampled_from(WORDS), min_size=n, max_size=n))
    others = data.draw(st.lists(st.sets(st.sampled_from(("a cat", "a dog", "the sea"))), min_size=n, max_size=n))
    captions = [(str(i), text) for i in range(n) for text in (wording[i], *others[i])]
    table = pa.table({"id": [one for one, _ in captions], "text": [text for _, text in captions]})
    vectors = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=(2, n, 3)).astype(np.float32)
    left, right = unit(vectors[0]), unit(vectors[1])
    said = said_of(table, [str(i) for i in range(n)])
    matched, shuffled = Matched(vectors[0], vectors[1], wording, said).scores(rounds=n)

    def plain(text: str) -> str:
        return text.lower().strip(".")

    expected = [
        left[i] @ right[j]
        for i in range(n)
        for j in range(n)
        if i != j
        and plain(wording[j]) not in {plain(wording[i]), *map(plain, others[i])}
        and right[i] @ right[j] < SAME_MEANING
    ]
    np.testing.assert_allclose(sorted(matched), sorted((left * right).sum(axis=1)), atol=1e-6)
    np.testing.assert_allclose(sorted(shuffled), sorted(expected), atol=1e-6)
