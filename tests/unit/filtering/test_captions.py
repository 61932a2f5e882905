"""A caption that cannot be used goes alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.filtering.captions import judge_captions
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, caption_table


def judged(*captions: tuple[str, str, str | None], max_chars: int = 10) -> tuple[list[str], list[dict[str, Any]]]:
    ids, texts, langs = (list(column) for column in zip(*captions, strict=True)) if captions else ([], [], [])
    table = caption_table(ids, texts, langs, [f"o{number}" for number in range(len(ids))])
    kept, rejects = judge_captions(table, max_chars)
    assert (kept.schema, rejects.schema) == (CAPTIONS, CAPTION_REJECTS)
    return kept["origin"].to_pylist(), rejects.to_pylist()


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0\u3000"])
def test_white_space_is_no_caption(text: str) -> None:
    kept, [reject] = judged(("a", text, None))
    assert (kept, reject["code"], reject["outcome"]) == ([], "empty_caption", "rejected")


def test_the_limit_counts_characters_and_is_allowed() -> None:
    kept, [reject] = judged(("a", " 犬犬犬犬犬犬犬犬犬犬 ", "ja"), ("a", "x" * 11, None))
    assert (kept, reject["code"], reject["value"], reject["bound"]) == (["o0"], "caption_too_long", 11, 10)


def test_the_same_words_of_one_picture_in_one_language_stay_once() -> None:
    kept, rejects = judged(
        ("a", "cat", "en"), ("a", " cat ", "en"), ("a", "cat", "fr"), ("a", "cat", None), ("b", "cat", "en")
    )
    assert kept == ["o0", "o2", "o3", "o4"]
    assert [(r["origin"], r["code"]) for r in rejects] == [("o1", "duplicate_caption")]


def test_no_captions() -> None:
    assert judged() == ([], [])


texts = st.sampled_from(["", "  ", "a", "b", " a", "long enough to be refused"])


@given(st.lists(st.tuples(st.sampled_from("xy"), texts, st.sampled_from([None, "en"])), max_size=12))
def test_every_caption_stays_or_has_one_reason(captions: list[tuple[str, str, str | None]]) -> None:
    kept, rejects = judged(*captions)
    assert sorted([*kept, *(r["origin"] for r in rejects)]) == sorted(f"o{n}" for n in range(len(captions)))
    assert kept == sorted(kept, key=lambda origin: int(origin[1:]))
    said = [(captions[int(o[1:])][0], captions[int(o[1:])][1].strip(), captions[int(o[1:])][2]) for o in kept]
    assert len(set(said)) == len(said)
