"""What is written down of how a request ended: whether it is over, and what it cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.endings import Attempt, Endings, Subject
from vlmdata.captioning.journal.book import Account, Book, Claim, Entry
from vlmdata.captioning.journal.grants import Granted
from vlmdata.captioning.journal.records import NANO, Ask, End
from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.prompts import load_prompt
from vlmdata.captioning.provider import Answer, Fault, Question
from vlmdata.config import CaptionConfig

PRICED = CaptionConfig.model_validate(
    {"model": "m", "prices": {"m": {"input": 2.0, "output": 3.0}}, "max_cost": 1.5, "max_requests": 7}
)
QUESTION = Question("m", "What is it?", 20, 0.0)
SUBJECT = Subject("ab" * 16, lambda: b"", QUESTION)
GRANT = Granted(2, 3, 1e12)
MICRO = NANO // 1_000_000
TEXT = "A red bus stands in front of a house."


def endings(config: CaptionConfig = PRICED) -> Endings:
    return Endings(config, load_prompt("alt-text"))


def record(end: Answer | Fault, **more: Any) -> End:
    return endings().record(SUBJECT, GRANT, end, 0.25, (64, 48, 999, 80), **more)


def test_an_answer_is_written_with_what_it_used() -> None:
    end = record(Answer(TEXT, 200, 90, 7))
    assert (end.key, end.attempt, end.request, end.text, end.failure) == (SUBJECT.key, 2, 3, TEXT, None)
    assert (end.input_tokens, end.output_tokens, end.cost) == (90, 7, (90 * 2 + 7 * 3) * MICRO)
    assert (end.final, end.unsent, end.sent, end.seconds) == (False, False, (64, 48, 999, 80), 0.25)


def test_a_batch_costs_half() -> None:
    whole, half = record(Answer(TEXT, 200, 90, 8)).cost, record(Answer(TEXT, 200, 90, 8), batch=True).cost
    assert whole == 2 * (half or 0)


@pytest.mark.parametrize(
    ("end", "cost"),
    [
        (Fault("transient", 500, "tired"), 0),
        (Fault("permanent", 400, "bad"), 0),
        (Fault("transient", 401, "who?", "key"), 0),
        (Fault("transient", None, "no connection", "endpoint"), 0),
        (Fault("refused", 200, "I will not", "picture", None, 90, 7), (90 * 2 + 7 * 3) * MICRO),
        (Fault("transient", 200, "the answer is empty"), None),
        (Fault("transient", None, "the connection broke"), None),
        (Fault("transient", 301, "moved"), None),
        (Answer(TEXT, 200), None),
        (Answer(TEXT, 200, 90), None),
    ],
)
def test_an_error_is_free_and_what_nobody_counted_may_have_cost_all(end: Answer | Fault, cost: int | None) -> None:
    assert record(end).cost == cost


@pytest.mark.parametrize(
    ("end", "final"),
    [
        (Fault("permanent", 400, "bad"), True),
        (Fault("refused", 200, "I will not"), True),
        (Fault("permanent", 404, "no such model", "endpoint"), False),
        (Fault("transient", 500, "tired"), False),
        (Fault("transient", 401, "who?", "key"), False),
        (Answer(TEXT, 200), False),
    ],
)
def test_only_what_is_wrong_with_the_picture_closes_its_attempt(end: Answer | Fault, final: bool) -> None:
    assert record(end).final is final


STATUSES = st.none() | st.sampled_from([200, 301, 400, 401, 404, 429, 500])
TOKENS = st.none() | st.integers(0, 400)
FAULTS = st.builds(
    Fault,
    st.sampled_from(["transient", "permanent", "refused"]),
    STATUSES,
    st.text(max_size=5),
    st.sampled_from(["picture", "endpoint", "key"]),
    st.none(),
    TOKENS,
    st.none() | st.integers(0, QUESTION.max_tokens),
)


@given(FAULTS | st.builds(Answer, st.just(TEXT), st.just(200), TOKENS, st.none() | st.integers(0, QUESTION.max_tokens)))
def test_what_is_settled_is_never_more_than_what_was_set_aside(end: Answer | Fault) -> None:
    judge, book = endings(), Book()
    reserve = judge.reserve(QUESTION)
    book.apply(Ask(SUBJECT.key, 1, 1, 1e12, reserve, "me"))
    book.apply(judge.record(SUBJECT, Granted(1, 1, 1e12), end, 0.1, None))
    assert book.account.reserved == 0 <= book.account.settled <= reserve
    attempt = Attempt.of(SUBJECT.key, book.entry(SUBJECT.key))
    assert (attempt.text is None) != (attempt.failure is None), "one or the other"


def test_what_is_no_caption_keeps_what_it_cost() -> None:
    fault = endings().cleaned(Answer("I'm sorry, but I can't help with that.", 200, 90, 7), QUESTION)
    assert isinstance(fault, Fault)
    assert (fault.failure, fault.status, fault.input_tokens, fault.output_tokens) == ("refused", 200, 90, 7)
    answer = endings().cleaned(Answer(f"**{TEXT}**", 200, 90, 7), QUESTION)
    assert answer == Answer(TEXT, 200, 90, 7)
    broken = Fault("transient", 500, "tired")
    assert endings().cleaned(broken, QUESTION) is broken


def test_a_request_that_nobody_ended_is_lost_and_says_what_helps() -> None:
    attempt = Attempt.of(SUBJECT.key, Entry(1, 4, {4: Claim(1.0, 5, "me")}))
    assert (attempt.failure, attempt.requests, attempt.text) == ("transient", 4, None)
    assert attempt.message and "vlmdata retry" in attempt.message


def test_what_is_not_asked_keeps_what_was_sent_before() -> None:
    attempt = Attempt.not_asked(SUBJECT.key, "budget", "not asked: it is spent", Entry(2, 3))
    assert (attempt.attempt, attempt.requests, attempt.sent) == (2, 3, None)
    assert (Attempt.not_asked(SUBJECT.key, "budget", "no").attempt, attempt.failure) == (1, "budget")


def test_over_the_limit_says_which_limit_and_what_is_spent() -> None:
    said = endings().over(Account(requests=6, settled=NANO, reserved=NANO // 4))
    for part in ("6 requests", "$1.2500", "caption.max_cost = 1.5", "caption.max_requests = 7"):
        assert part in said
    assert "max_cost" not in endings(PRICED.model_copy(update={"max_cost": None})).over(Account())


def test_what_was_sent_is_recorded_as_size_and_most_tokens() -> None:
    sent = endings().sent(QUESTION, Picture(b"12345", "image/png", 64, 48))
    assert sent[:3] == (64, 48, 5)
    assert endings().tokens(QUESTION) == sent[3] + QUESTION.max_tokens
