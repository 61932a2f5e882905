"""Anthropic's Messages API.

https://docs.anthropic.com/en/api/messages, /errors and /handling-stop-reasons
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass, replace
from typing import Any

from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.provider import Answer, Fault, Question
from vlmdata.captioning.replies import (
    error_fault,
    error_message,
    json_object,
    malformed,
    one_line,
    text_of,
    token_count,
)

VERSION = "2023-06-01"
STATUS_OF_ERROR = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# Both come as a plain 400, as if the request were wrong; their words alone tell.
_BLOCKED = "blocked by content filtering policy"
_OUT_OF_CREDIT = "credit balance is too low"
_INPUT_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(frozen=True)
class Anthropic:
    """`POST {base_url}/messages` with the picture as base64, or as a URL if it has one."""

    path: str = "/messages"

    def headers(self, key: str | None) -> dict[str, str]:
        """The API's version, and `x-api-key` if there is a key."""
        headers = {"content-type": "application/json", "accept": "application/json", "anthropic-version": VERSION}
        return headers if key is None else {**headers, "x-api-key": key}

    def body(self, picture: Picture, question: Question) -> bytes:
        """One user message: the picture, then the prompt, which is the order that Anthropic advises."""
        content = [{"type": "image", "source": _source(picture)}, {"type": "text", "text": question.prompt}]
        request = {
            "model": question.model,
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "messages": [{"role": "user", "content": content}],
        }
        return json.dumps(request, ensure_ascii=False).encode()

    def parse(self, status: int, body: bytes) -> Answer | Fault:
        """The message's text blocks, joined and stripped, or why there are none."""
        reply = json_object(body)
        if status >= 300:
            return _error(status, reply, body)
        if reply is None:
            return malformed(status, "the answer is not a JSON object")
        if reply.get("type") == "error" or reply.get("error"):
            return _error_inside(status, reply)
        return _answer(status, reply)


def _source(picture: Picture) -> dict[str, str]:
    if picture.url is not None:
        return {"type": "url", "url": picture.url}
    return {"type": "base64", "media_type": picture.media_type, "data": b64encode(picture.data).decode()}


def _answer(status: int, reply: dict[str, Any]) -> Answer | Fault:
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    end = _said(status, reply)
    return replace(end, input_tokens=_input_tokens(counts), output_tokens=token_count(counts.get("output_tokens")))


def _said(status: int, reply: dict[str, Any]) -> Answer | Fault:
    if reply.get("stop_reason") == "refusal":
        details = reply.get("stop_details")
        why = details.get("explanation") if isinstance(details, dict) else None
        return Fault("refused", status, one_line(why or "the model refused"))
    text = text_of(reply.get("content"))
    return Answer(text, status) if text else malformed(status, "the answer is empty")


def _input_tokens(usage: dict[str, Any]) -> int | None:
    """What was read from a cache or put there is input too; the API counts it apart."""
    counts = [token_count(usage.get(name)) for name in _INPUT_TOKENS]
    return None if counts[0] is None else token_count(sum(count or 0 for count in counts))


def _error_inside(status: int, reply: dict[str, Any]) -> Fault:
    """An error that comes without a status of its own: a batch's, or a gateway's under 200."""
    error = reply.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    if isinstance(kind, str) and kind in STATUS_OF_ERROR:
        return _error(STATUS_OF_ERROR[kind], reply, b"")
    return malformed(status, f"an error under status {status}: {error_message(reply, b'')}")


def _error(status: int, reply: dict[str, Any] | None, body: bytes) -> Fault:
    fault = error_fault(status, reply, body)
    said = fault.message.lower()
    if status == 400 and _BLOCKED in said:
        return replace(fault, failure="refused")
    if status == 402 or (status == 400 and _OUT_OF_CREDIT in said):
        return replace(fault, failure="transient", blame="key")
    return fault
