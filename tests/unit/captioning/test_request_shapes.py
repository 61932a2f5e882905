"""Requests and answers are held against the types of the official clients, which nobody here wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.messages.batch_create_params import BatchCreateParams
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter, ValidationError

from vlmdata.captioning.anthropic import Anthropic
from vlmdata.captioning.batches.anthropic import batch_body
from vlmdata.captioning.batches.openai import request_line
from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.provider import Answer, Fault, Question

QUESTION = Question("m", "What is “this”?\nSay it.", 50, 0.0)
TYPES: dict[str, tuple[OpenAI | Anthropic, Any]] = {
    "openai": (OpenAI(), CompletionCreateParamsNonStreaming),
    "anthropic": (Anthropic(), MessageCreateParamsNonStreaming),
}
PICTURES = [Picture(b"\x89PNG", kind, 1, 1) for kind in ("image/jpeg", "image/png", "image/webp")]
LINKED = Picture(b"\x89PNG", "image/png", 1, 1, url="https://s3.example.org/b/k?X-Amz-Signature=abc&X-Amz-Expires=900")


def known_to(official: Any, body: Any) -> Any:
    """What the official type makes of a body: it drops what it does not know, and raises on what is wrong."""
    # Its lazy iterators crash once the adapter is gone.
    adapter: TypeAdapter[Any] = TypeAdapter(official)
    return _plain(adapter.validate_python(body))


def _plain(found: Any) -> Any:
    """Without the iterators that validate only what is taken out of them."""
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    return found if found is None or isinstance(found, str | int | float) else [_plain(each) for each in found]


@pytest.mark.parametrize("picture", [*PICTURES, LINKED])
@pytest.mark.parametrize("name", TYPES)
def test_every_field_of_a_request_is_known(name: str, picture: Picture) -> None:
    provider, official = TYPES[name]
    body = json.loads(provider.body(picture, QUESTION))
    assert known_to(official, body) == body


@pytest.mark.parametrize("name", TYPES)
def test_the_check_sees_what_is_unknown_and_what_is_missing(name: str) -> None:
    provider, official = TYPES[name]
    body = json.loads(provider.body(PICTURES[0], QUESTION))
    assert known_to(official, {**body, "max_length": 3}) == body
    body["messages"][0]["content"][0].pop("type")
    with pytest.raises(ValidationError):
        known_to(official, body)


def test_every_field_of_a_batch_is_known_to_anthropic() -> None:
    bodies = [Anthropic().body(picture, QUESTION) for picture in (*PICTURES, LINKED)]
    batch = json.loads(b"".join(batch_body([(f"t-{number}", body) for number, body in enumerate(bodies)])()))
    assert known_to(BatchCreateParams, batch) == batch
    assert [each["params"] for each in batch["requests"]] == [json.loads(body) for body in bodies]


def test_a_line_of_a_batch_holds_the_request_as_it_is() -> None:
    body = OpenAI().body(LINKED, QUESTION)
    line = request_line("t-0", body, "/v1/chat/completions")
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line) == {
        "custom_id": "t-0", "method": "POST", "url": "/v1/chat/completions", "body": json.loads(body),
    }  # fmt: skip


def completion(message: dict[str, Any], finish_reason: str = "stop") -> bytes:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}}
    usage = {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return ChatCompletion.model_validate(whole).model_dump_json().encode()


def message(stop_reason: str, *texts: str, **more: Any) -> bytes:
    whole = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": stop_reason,
        "content": [{"type": "text", "text": text} for text in texts],
        "usage": {"input_tokens": 80, "cache_read_input_tokens": 10, "output_tokens": 7}, **more,
    }  # fmt: skip
    return Message.model_validate(whole).model_dump_json().encode()


def test_answers_as_the_official_models_write_them_are_read() -> None:
    assert OpenAI().parse(200, completion({"content": "A cat."})) == Answer("A cat.", 200, 90, 7)
    assert Anthropic().parse(200, message("end_turn", "A ", "cat.")) == Answer("A cat.", 200, 90, 7)


def test_refusals_as_the_official_models_write_them_are_read() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "No."}
    refusals = [
        OpenAI().parse(200, completion({"content": None, "refusal": "No."})),
        OpenAI().parse(200, completion({"content": ""}, "content_filter")),
        Anthropic().parse(200, message("refusal", stop_details=details)),
    ]
    assert [end.failure for end in refusals if isinstance(end, Fault)] == ["refused"] * 3
