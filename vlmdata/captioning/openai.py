"""OpenAI's chat completions, which vLLM, SGLang, Ollama, LiteLLM and OpenRouter speak too.

https://platform.openai.com/docs/api-reference/chat
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
    is_refusal,
    json_object,
    malformed,
    one_line,
    text_of,
    token_count,
)


@dataclass(frozen=True)
class OpenAI:
    """`POST {base_url}/chat/completions` with the picture as a data URL."""

    path: str = "/chat/completions"

    def headers(self, key: str | None) -> dict[str, str]:
        """A bearer token, if there is a key."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        return headers if key is None else {**headers, "authorization": f"Bearer {key}"}

    def body(self, picture: Picture, question: Question) -> bytes:
        """One user message: the prompt, then the picture."""
        content = [
            {"type": "text", "text": question.prompt},
            {"type": "image_url", "image_url": {"url": picture.url or data_url(picture)}},
        ]
        request = {
            "model": question.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
        }
        return json.dumps(request, ensure_ascii=False).encode()

    def parse(self, status: int, body: bytes) -> Answer | Fault:
        """The first choice's text, stripped, or why there is none."""
        reply = json_object(body)
        if status >= 300:
            return error_fault(status, reply, body)
        if reply is None:
            return malformed(status, "the answer is not a JSON object")
        if reply.get("error"):
            return _error_inside(status, reply)
        return _answer(status, reply)


def data_url(picture: Picture) -> str:
    """The picture as an RFC 2397 URL."""
    return f"data:{picture.media_type};base64,{b64encode(picture.data).decode()}"


def _answer(status: int, reply: dict[str, Any]) -> Answer | Fault:
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    used = token_count(counts.get("prompt_tokens")), token_count(counts.get("completion_tokens"))
    end = _said(status, _first_choice(reply))
    return replace(end, input_tokens=used[0], output_tokens=used[1])


def _said(status: int, choice: dict[str, Any]) -> Answer | Fault:
    message = choice.get("message")
    if not isinstance(message, dict):
        return malformed(status, "the answer holds no message")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Fault("refused", status, one_line(message.get("refusal") or "stopped by the content filter"))
    text = text_of(message.get("content"))
    return Answer(text, status) if text else malformed(status, "the answer is empty")


def _first_choice(reply: dict[str, Any]) -> dict[str, Any]:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _error_inside(status: int, reply: dict[str, Any]) -> Fault:
    """Gateways send their upstream's error under 200, its status as `error.code` if they know it."""
    error = reply["error"]
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) is int and 400 <= code < 600:
        return error_fault(code, reply, b"")
    if is_refusal(error):
        return Fault("refused", status, error_message(reply, b""))
    return malformed(status, f"an error under status {status}: {error_message(reply, b'')}")
