"""Search over all samples: what is asked for is found, and nothing that is asked becomes part of a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.report.ask import Asked, asked, is_id, search
from vlmdata.report.ledger import Ledger, ledger_of
from vlmdata.report.records import records
from vlmdata.runs import existing_run


@pytest.fixture(scope="module")
def ledger(story: Any) -> Iterator[Ledger]:
    with ledger_of(existing_run(story.dataset)) as found:
        yield found


def names(ledger: Ledger, **wanted: Any) -> set[str]:
    total, ids = search(ledger, Asked(**wanted), 100)
    assert total == len(ids)
    return {record["key"] for record in records(ledger, ids)}


def test_by_fate_stage_and_reason(ledger: Ledger) -> None:
    assert names(ledger, outcome="held") == {"held.png"}
    assert names(ledger, stage="00_raw") == {"gone.png"}
    assert names(ledger, reason="too_small") == {"small.png"}
    assert names(ledger, stage="01_filtered", reason="misaligned") == set()


def test_by_the_reason_of_one_of_its_captions(ledger: Ledger) -> None:
    assert names(ledger, reason="empty_caption") == {"good.png"}
    assert names(ledger, reason="borderline") == {"good.png", "held.png"}


def test_by_words_names_and_ids_in_any_case(ledger: Ledger) -> None:
    [id_] = [row["id"] for row in ledger.rows("SELECT id FROM samples WHERE key = 'wrong.png'")]
    assert names(ledger, q="NOT IT") == names(ledger, q="Wrong.") == names(ledger, q=id_[3:20]) == {"wrong.png"}
    assert names(ledger, q="of the twin") == {"good.png", "twin.png"}


def test_each_word_is_to_be_there_in_whatever_order(ledger: Ledger) -> None:
    assert names(ledger, q="  twin \t the") == names(ledger, q="TWIN of twin") == {"good.png", "twin.png"}
    assert names(ledger, q="it wrong.png") == {"wrong.png"}, "one in a caption, one in the name"
    assert names(ledger, q="twin nowhere") == names(ledger, q="twinthe") == set()
    assert names(ledger, q="   ") == names(ledger)


def test_by_score_and_language(ledger: Ledger) -> None:
    assert names(ledger, low=0.26, high=0.35) == {"also.png"}
    assert names(ledger, low=0.61) == set()
    assert names(ledger, language="en") >= {"good.png", "also.png", "held.png", "wrong.png"}


def test_pages_follow_each_other(ledger: Ledger) -> None:
    total, every = search(ledger, Asked(), 100)
    seen: list[str] = []
    while page := search(ledger, Asked(after=seen[-1] if seen else None), 2)[1]:
        seen += page
    assert seen == every == sorted(every) and len(seen) == total


@given(q=st.text(min_size=1, max_size=60), reason=st.text(max_size=20), low=st.text(max_size=8))
def test_whatever_is_asked_is_answered(ledger: Ledger, q: str, reason: str, low: str) -> None:
    q, reason = (text.encode("utf-8", "replace").decode() for text in (q, reason))
    total, ids = search(ledger, asked({"q": q, "reason": reason, "min": low}), 5)
    assert len(ids) <= total


def test_what_makes_no_sense_is_not_asked() -> None:
    assert asked({"min": "nan", "max": "inf", "after": "", "q": "", "other": "x"}) == Asked()
    assert asked({"after": "' OR true"}) == Asked() != asked({"after": "00ff"})
    assert len(asked({"q": "x" * 5_000}).q or "") == 200


def test_an_id_is_a_few_plain_letters() -> None:
    assert is_id("0" * 32) and not any(map(is_id, ("", "../x", "a b", "a" * 65, "ä", "a\n")))
