"""Rules over columns: bounds are inclusive, the first no is the reason, and nothing is lost."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.config import DedupConfig, FilterConfig
from vlmdata.filtering.decide import judge
from vlmdata.filtering.rules import rules
from vlmdata.opt_out import NOBODY
from vlmdata.schema import FACTS, REJECTS

CODES = ["corrupt", "truncated", "too_many_pixels", "decode_timeout", "not_an_image"]


def fact(width: int | None = 300, height: int | None = 300, error: str | None = None, **more: Any) -> dict[str, Any]:
    return {"width": width, "height": height, "error": error, "retryable": error == "decode_timeout", **more}


def judged(*facts: dict[str, Any], **config: Any) -> tuple[list[bool], list[dict[str, Any]]]:
    rows = [{"id": f"id{number}", **row} for number, row in enumerate(facts)]
    table = pa.Table.from_pylist(rows, schema=FACTS)
    keys = pa.chunked_array([[f"key{number}" for number in range(len(rows))]], pa.string())
    passes, rejects = judge(keys, table, rules(FilterConfig(**config), DedupConfig(), NOBODY))
    assert rejects.schema == REJECTS
    return passes.to_pylist(), rejects.to_pylist()


@pytest.mark.parametrize(("width", "height", "passes"), [(224, 224, True), (223, 900, False), (900, 223, False)])
def test_the_shorter_side_counts_and_the_bound_itself_passes(width: int, height: int, passes: bool) -> None:
    found, rejects = judged(fact(width, height))
    assert found == [passes]
    assert [(r["code"], r["value"], r["bound"]) for r in rejects] == ([] if passes else [("too_small", 223, 224)])


@pytest.mark.parametrize(("width", "height", "passes"), [(600, 300, True), (300, 600, True), (300, 601, False)])
def test_the_aspect_ratio_has_no_direction(width: int, height: int, passes: bool) -> None:
    found, rejects = judged(fact(width, height), max_aspect_ratio=2)
    assert found == [passes]
    assert [(r["code"], r["bound"]) for r in rejects] == ([] if passes else [("aspect_ratio", 2)])
    assert judged(fact(width, height))[0] == [True]


def test_what_does_not_decode_has_the_decoders_reason_and_a_bound_only_where_there_is_a_value() -> None:
    bomb = fact(40_000, 40_000, "too_many_pixels")
    _, rejects = judged(bomb, fact(None, None, "corrupt", detail="words"), fact(None, None, "decode_timeout"))
    told = [(r["key"], r["outcome"], r["code"], r["value"], r["bound"], r["detail"], r["retryable"]) for r in rejects]
    assert told == [
        ("key0", "rejected", "too_many_pixels", 1.6e9, 1e8, None, False),
        ("key1", "rejected", "corrupt", None, None, "words", False),
        ("key2", "failed", "decode_timeout", None, None, None, True),
    ]


def test_the_first_rule_that_says_no_is_the_reason() -> None:
    _, rejects = judged(fact(10, 1_000, "truncated"), fact(10, 1_000), max_aspect_ratio=2)
    assert [r["code"] for r in rejects] == ["truncated", "too_small"]


def test_nothing_to_judge() -> None:
    assert judged() == ([], [])


sizes = st.none() | st.integers(1, 70_000)


@given(
    facts=st.lists(st.builds(fact, sizes, sizes, st.none() | st.sampled_from(CODES)), max_size=20),
    config=st.fixed_dictionaries({"min_side": st.integers(1, 500), "max_aspect_ratio": st.none() | st.floats(1, 50)}),
)
def test_every_row_passes_or_has_one_reason(facts: list[dict[str, Any]], config: dict[str, Any]) -> None:
    passes, rejects = judged(*facts, **config)
    lost = [f"id{number}" for number, passed in enumerate(passes) if not passed]
    assert sorted(r["id"] for r in rejects) == sorted(lost)
    assert all((r["outcome"] == "failed") == r["retryable"] for r in rejects)
