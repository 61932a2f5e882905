"""What a batch may hold."""

from __future__ import annotations

import pytest

from vlmdata.captioning.batches import BATCH_APIS
from vlmdata.captioning.batches.anthropic import batch_body
from vlmdata.captioning.batches.base import BatchLimits, check_requests
from vlmdata.captioning.batches.openai import request_line
from vlmdata.captioning.endpoint import Endpoint

LIMITS = BatchLimits(requests=3, bytes=100, envelope=10)


def test_a_batch_at_its_limits_is_taken() -> None:
    check_requests([("t-0", b"x" * 40), ("t-1", b"x" * 40)], "t", LIMITS)
    check_requests([("t" * 64, b"x")], "t" * 64, LIMITS)


@pytest.mark.parametrize(
    ("requests", "token", "reason"),
    [
        ([], "t", "expected 1 to 3"),
        ([(f"t-{number}", b"") for number in range(4)], "t", "4 requests"),
        ([("t-0", b""), ("t-0", b"")], "t", "1 custom_ids"),
        ([("u-0", b"")], "t", "u-0"),
        ([("t" * 65, b"")], "t", "{1,64}"),
        ([("t.0", b"")], "t", "t.0"),
        ([("t-0\n", b"")], "t", "t-0"),
        ([('t"', b"")], 't"', "token"),
        ([("t-0", b"")], "", "token"),
        ([("t-0", b"x" * 91)], "t", "101 bytes"),
    ],
)
def test_what_could_not_be_submitted_or_found_is_refused(
    requests: list[tuple[str, bytes]], token: str, reason: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check_requests(requests, token, LIMITS)
    assert reason in str(caught.value)


def test_a_batch_that_is_cut_by_the_limits_keeps_to_them() -> None:
    """The envelope is an upper bound, at the longest custom_id."""
    wide, body = "x" * 64, b'{"a": 1}'
    endpoint = Endpoint("http://127.0.0.1/v1", "KEY")
    line = request_line(wide, body, "/v1/chat/completions")
    assert len(line) <= len(body) + BATCH_APIS["openai"](endpoint).limits.envelope
    entries = b"".join(batch_body([(wide, body)] * 9)())
    assert len(entries) <= 9 * (len(body) + BATCH_APIS["anthropic"](endpoint).limits.envelope)
