"""When asking on makes no sense."""

from __future__ import annotations

from vlmdata.captioning.line import Health
from vlmdata.captioning.provider import Answer, Fault

ANSWER = Answer("A cat.", 200)
BUSY = Fault("transient", 503, "busy")
ABSENT = Fault("transient", None, "no connection", "endpoint")
BAD = Fault("permanent", 400, "bad")


def test_nobody_there_is_seen_at_once_unless_somebody_was() -> None:
    assert Health(3).note(ABSENT) == "never_there"
    health = Health(3)
    health.reached = True
    assert [health.note(ABSENT) for _ in range(3)] == [None, None, "gone"]


def test_a_refused_key_is_seen_at_once() -> None:
    assert Health(3).note(Fault("transient", 401, "no", "key")) == "key_refused"


def test_an_answer_or_a_refusal_restores_patience() -> None:
    health = Health(2)
    for restoring in (ANSWER, Fault("refused", 200, "no")):
        assert health.note(BUSY) is None
        assert health.note(restoring) is None
    assert [health.note(BUSY), health.note(BUSY)] == [None, "gone"]


def test_bad_requests_count_only_while_nothing_was_answered() -> None:
    health = Health(2)
    assert [health.note(BAD), health.note(BAD)] == [None, "refuses_all"]
    health.note(ANSWER)
    assert [health.note(BAD) for _ in range(5)] == [None] * 5


def test_a_new_round_is_given_new_patience() -> None:
    health = Health(2)
    health.note(BUSY)
    health.forgive()
    assert health.note(BUSY) is None
