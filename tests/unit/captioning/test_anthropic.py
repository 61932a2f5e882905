"""The dialect: what is asked and what answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.anthropic import STATUS_OF_ERROR, VERSION, Anthropic
from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.provider import Answer, Fault, Question

API = Anthropic()
QUESTION = Question("m", "描述这张图片。", 5, 0.5)
KEYS = ["content", "text", "type", "error", "message", "usage", "input_tokens", "stop_reason", "stop_details"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["text", "error", "refusal", *STATUS_OF_ERROR]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)  # fmt: skip


def parse(status: int, reply: Any) -> Answer | Fault:
    return API.parse(status, reply if isinstance(reply, bytes) else json.dumps(reply).encode())


def said(*texts: str, **more: Any) -> dict[str, Any]:
    blocks = [{"type": "text", "text": text} for text in texts]
    return {"type": "message", "content": blocks, "stop_reason": "end_turn", **more}


def error(kind: str, message: str = "why") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"}


def content_of(picture: Picture) -> list[dict[str, Any]]:
    request = json.loads(API.body(picture, QUESTION))
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("m", 5, 0.5)
    (message,) = request["messages"]
    assert message["role"] == "user"
    content: list[dict[str, Any]] = message["content"]
    return content


def test_body_holds_picture_then_prompt() -> None:
    image, text = content_of(Picture(b"\xff\xd8", "image/jpeg", 2, 1))
    assert image["source"] == {"type": "base64", "media_type": "image/jpeg", "data": "/9g="}
    assert text == {"type": "text", "text": "描述这张图片。"}


def test_a_picture_with_a_url_is_sent_as_that() -> None:
    image, _ = content_of(Picture(b"\xff\xd8", "image/jpeg", 2, 1, url="https://s3.example.org/a?b=c"))
    assert image["source"] == {"type": "url", "url": "https://s3.example.org/a?b=c"}


def test_a_key_is_sent_only_if_there_is_one() -> None:
    assert API.headers("k")["x-api-key"] == "k" and "authorization" not in API.headers("k")
    assert "x-api-key" not in API.headers(None) and API.headers(None)["anthropic-version"] == VERSION


def test_text_blocks_are_joined_and_others_are_left_out() -> None:
    reply = said(" A ", "cat.\n")
    reply["content"].insert(0, {"type": "thinking", "thinking": "It has whiskers."})
    assert parse(200, reply) == Answer("A cat.", 200)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"input_tokens": 3, "output_tokens": 2}, (3, 2)),
        ({"input_tokens": 3, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100}, (113, None)),
        ({"input_tokens": 3, "cache_read_input_tokens": None, "output_tokens": -1}, (3, None)),
        ({"input_tokens": "3", "cache_read_input_tokens": 100, "output_tokens": True}, (None, None)),
        ({"input_tokens": 2**63 - 1, "cache_read_input_tokens": 1}, (None, None)),
        (None, (None, None)),
    ],
)
def test_cached_tokens_count_as_input(usage: Any, tokens: tuple[int | None, int | None]) -> None:
    assert parse(200, said("A.", usage=usage)) == Answer("A.", 200, *tokens)


def test_a_refusal_is_one_even_with_text_and_tells_what_it_cost() -> None:
    usage = {"input_tokens": 9, "output_tokens": 4}
    plain = parse(200, said("I", stop_reason="refusal", usage=usage))
    assert plain == Fault("refused", 200, "the model refused", input_tokens=9, output_tokens=4)
    told = parse(200, said(stop_reason="refusal", stop_details={"type": "refusal", "explanation": "No\nbio."}))
    assert told == Fault("refused", 200, "No bio.")


def test_an_output_that_was_blocked_is_a_refusal() -> None:
    fault = parse(400, error("invalid_request_error", "Output blocked by content filtering policy"))
    assert isinstance(fault, Fault) and (fault.failure, fault.blame) == ("refused", "picture")


@pytest.mark.parametrize(
    "reply", [b"", b"<html>", [], {}, said(), said(" \n"), {"content": None}, {"content": {"type": "text"}}]
)
def test_what_is_no_caption_is_asked_again(reply: Any) -> None:
    fault = parse(200, reply)
    assert isinstance(fault, Fault) and fault.failure == "transient" and fault.worth_retrying


CLASSES = {
    "invalid_request_error": ("permanent", "picture"), "request_too_large": ("permanent", "picture"),
    "not_found_error": ("permanent", "endpoint"), "authentication_error": ("transient", "key"),
    "permission_error": ("transient", "key"), "billing_error": ("transient", "key"),
    "rate_limit_error": ("transient", "picture"), "api_error": ("transient", "picture"),
    "timeout_error": ("transient", "picture"), "overloaded_error": ("transient", "picture"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATUS_OF_ERROR)
@pytest.mark.parametrize("as_status", [True, False])
def test_errors_count_the_same_with_a_status_and_without_one(kind: str, as_status: bool) -> None:
    status = STATUS_OF_ERROR[kind]
    fault = parse(status if as_status else 200, error(kind))
    assert fault == Fault(CLASSES[kind][0], status, "why", CLASSES[kind][1])  # type: ignore[arg-type]


def test_an_error_of_no_known_kind_under_200_may_pass() -> None:
    fault = parse(200, {"error": "upstream is tired"})
    assert isinstance(fault, Fault) and fault.failure == "transient" and "upstream is tired" in fault.message


def test_an_empty_account_stops_the_stage_and_fails_no_picture_for_good() -> None:
    message = "Your credit balance is too low to access the Anthropic API."
    fault = parse(400, error("invalid_request_error", message))
    assert fault == Fault("transient", 400, message, "key")


@given(status=st.integers(200, 599), reply=st.one_of(JSON, st.binary(max_size=60)))
def test_parse_never_raises(status: int, reply: Any) -> None:
    end = parse(status, reply)
    assert end.text.strip() == end.text != "" if isinstance(end, Answer) else end.message.encode() is not None
