"""OpenAI's chat completions, which vLLM, SGLang, Ollama, LiteLLM and OpenRouter speak too.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.provider import Answer, Blame, Failure, Fault, Question

RETRIED = frozenset({408, 409, 429})
KEY_REFUSED = frozenset({401, 403})
# No picture makes an address or a model's name wrong.
WRONG_ADDRESS = frozenset({404, 405})
REFUSAL_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_LONGEST_MESSAGE = 300


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
        reply = _object(body)
        if status >= 300:
            return _error(status, reply, body)
        if reply is None:
            return _malformed(status, "the answer is not a JSON object")
        if reply.get("error"):
            return _error_inside(status, reply)
        return _answer(status, reply)


def data_url(picture: Picture) -> str:
    """The picture as an RFC 2397 URL."""
    return f"data:{picture.media_type};base64,{b64encode(picture.data).decode()}"


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def _answer(status: int, reply: dict[str, Any]) -> Answer | Fault:
    choice = _first_choice(reply)
    message = choice.get("message")
    if not isinstance(message, dict):
        return _malformed(status, "the answer holds no message")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Fault("refused", status, _one_line(message.get("refusal") or "stopped by the content filter"))
    text = _text(message.get("content"))
    if not text:
        return _malformed(status, "the answer is empty")
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Answer(text, status, _tokens(counts.get("prompt_tokens")), _tokens(counts.get("completion_tokens")))


def _first_choice(reply: dict[str, Any]) -> dict[str, Any]:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _text(content: Any) -> str:
    """Content is a string or a list of parts; half of a surrogate pair is no text and cannot be stored."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    text = "".join(piece for piece in texts if isinstance(piece, str)).strip()
    return "" if any("\ud800" <= letter <= "\udfff" for letter in text) else text


def _tokens(count: Any) -> int | None:
    return count if type(count) is int and 0 <= count < 2**63 else None


def _malformed(status: int, message: str) -> Fault:
    return Fault("transient", status, message)


def _error_inside(status: int, reply: dict[str, Any]) -> Fault:
    """Gateways send their upstream's error under 200, its status as `error.code` if they know it."""
    error = reply["error"]
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) is int and 400 <= code < 600:
        return _error(code, reply, b"")
    if _is_refusal(error):
        return Fault("refused", status, _message(reply, b""))
    return _malformed(status, f"an error under status {status}: {_message(reply, b'')}")


def _error(status: int, reply: dict[str, Any] | None, body: bytes) -> Fault:
    message = _message(reply, body) or f"HTTP status {status}"
    if _is_refusal((reply or {}).get("error")):
        return Fault("refused", status, message)
    failure, blame = _judge(status)
    return Fault(failure, status, message, blame)


def _judge(status: int) -> tuple[Failure, Blame]:
    if status in KEY_REFUSED:
        return "transient", "key"
    if status in RETRIED or status >= 500:
        return "transient", "picture"
    return "permanent", "endpoint" if status < 400 or status in WRONG_ADDRESS else "picture"


def _is_refusal(error: Any) -> bool:
    """Azure and OpenRouter refuse a picture with an error (400, 403) rather than a message."""
    if not isinstance(error, dict):
        return False
    metadata = error.get("metadata")
    flagged = isinstance(metadata, dict) and bool(metadata.get("reasons"))
    return flagged or str(error.get("code")) in REFUSAL_CODES


def _message(reply: dict[str, Any] | None, body: bytes) -> str:
    error = (reply or {}).get("error", reply)
    said = error.get("message") if isinstance(error, dict) else error
    return _one_line(said if isinstance(said, str) else body[: 4 * _LONGEST_MESSAGE].decode("utf-8", "replace"))


def _one_line(text: Any) -> str:
    # A lone surrogate would make the ledger unwritable.
    words = " ".join(str(text).encode("utf-8", "replace").decode().split())
    return words if len(words) <= _LONGEST_MESSAGE else words[: _LONGEST_MESSAGE - 1] + "…"
