"""The dialect: what is asked and what answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.provider import Answer, Fault
from vlmdata.config import CaptionConfig

API = OpenAI()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "error", "code", "usage", "refusal", "text", "type"]), inner
    ),
    max_leaves=12,
)  # fmt: skip


def parse(status: int, reply: Any) -> Answer | Fault:
    return API.parse(status, reply if isinstance(reply, bytes) else json.dumps(reply).encode())


def said(content: Any, **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": "stop"}]}


def test_body_holds_prompt_picture_and_limits() -> None:
    picture = Picture(b"\xff\xd8", "image/jpeg", 2, 1)
    config = CaptionConfig(model="m", prompt="描述这张图片。", max_tokens=5, temperature=0.5)
    body = json.loads(API.body(picture, config))
    assert body == {
        "model": "m",
        "max_tokens": 5,
        "temperature": 0.5,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "描述这张图片。"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9g="}},
                ],
            }
        ],
    }


def test_a_key_is_sent_only_if_there_is_one() -> None:
    assert API.headers("k")["authorization"] == "Bearer k"
    assert "authorization" not in API.headers(None)


@pytest.mark.parametrize("content", [" A cat.\n", [{"type": "text", "text": "A "}, {"type": "text", "text": "cat."}]])
def test_an_answer_is_stripped(content: Any) -> None:
    assert parse(200, said(content)) == Answer("A cat.", 200)


def test_usage_is_taken_if_it_is_sound() -> None:
    good = {**said("A."), "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    odd = {**said("A."), "usage": {"prompt_tokens": True, "completion_tokens": 2.5}}
    assert parse(200, good) == Answer("A.", 200, 3, 2)
    assert parse(200, odd) == Answer("A.", 200, None, None)


@pytest.mark.parametrize(
    ("status", "failure", "blame", "again"),
    [
        (301, "permanent", "endpoint", False),
        (400, "permanent", "picture", False),
        (401, "transient", "key", False),
        (403, "transient", "key", False),
        (404, "permanent", "endpoint", False),
        (408, "transient", "picture", True),
        (409, "transient", "picture", True),
        (413, "permanent", "picture", False),
        (429, "transient", "picture", True),
        (500, "transient", "picture", True),
        (529, "transient", "picture", True),
    ],
)
def test_statuses(status: int, failure: str, blame: str, again: bool) -> None:
    fault = parse(status, {"error": {"message": "two\nlines"}})
    assert isinstance(fault, Fault)
    assert (fault.failure, fault.blame, fault.worth_retrying) == (failure, blame, again)
    assert (fault.status, fault.message) == (status, "two lines")


@pytest.mark.parametrize(
    "reply",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, {}, said(""), said("  "), said(None), said("half \ud83d"), said(7)],
)
def test_what_is_no_answer_is_asked_for_again(reply: Any) -> None:
    fault = parse(200, reply)
    assert isinstance(fault, Fault) and fault.worth_retrying


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (200, said(None, refusal="I can't.")),
        (200, {"choices": [{"message": {"content": "A c"}, "finish_reason": "content_filter"}]}),
        (400, {"error": {"message": "no", "code": "content_filter"}}),
        (400, {"error": {"message": "no", "code": "content_policy_violation"}}),
        (403, {"error": {"message": "flagged", "code": 403, "metadata": {"reasons": ["violence"]}}}),
    ],
)
def test_refusals(status: int, reply: Any) -> None:
    fault = parse(status, reply)
    assert isinstance(fault, Fault) and fault.failure == "refused" and not fault.worth_retrying


@pytest.mark.parametrize(("code", "failure"), [(429, "transient"), (400, "permanent"), ("x", "transient")])
def test_an_error_under_status_200_counts_as_what_it_says(code: Any, failure: str) -> None:
    fault = parse(200, {"error": {"message": "upstream", "code": code}})
    assert isinstance(fault, Fault) and fault.failure == failure and "upstream" in fault.message


def test_messages_are_short_and_storable() -> None:
    fault = parse(500, {"error": {"message": "\udc00 x" * 1000}})
    assert isinstance(fault, Fault) and len(fault.message) <= 300 and fault.message.encode()


@given(status=st.integers(200, 599), reply=st.one_of(JSON, st.binary(max_size=60)))
def test_parse_never_raises(status: int, reply: Any) -> None:
    end = parse(status, reply)
    assert end.text.strip() == end.text != "" if isinstance(end, Answer) else end.message.encode() is not None
