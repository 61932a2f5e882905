"""Reading what an API replied, whatever it is: words, counts, and which kind of failure an error is."""

from __future__ import annotations

import json
import re
from typing import Any

from vlmdata.captioning.provider import Blame, Failure, Fault

RETRIED = frozenset({408, 409, 429})
# 402: the account behind the key has run out.
KEY_REFUSED = frozenset({401, 402, 403})
# No picture makes an address or a model's name wrong.
WRONG_ADDRESS = frozenset({404, 405})
REFUSAL_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
# LiteLLM without a database, of any key but the one it was started with.
KEY_UNKNOWN_TYPES = frozenset({"no_db_connection"})
# OpenAI, vLLM and Ollama say 404 of a model that they do not have; LiteLLM and OpenRouter 400, in words.
_WRONG_MODEL = re.compile(r"(?i)\binvalid model\b|\bnot a valid model\b|\bunknown model\b")
_LONGEST_MESSAGE = 300


def json_object(body: bytes) -> dict[str, Any] | None:
    """The reply as an object; None if it is not one."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def text_of(content: Any) -> str:
    """Content is a string or a list of parts; half of a surrogate pair is no text and cannot be stored."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    text = "".join(piece for piece in texts if isinstance(piece, str)).strip()
    return "" if any("\ud800" <= letter <= "\udfff" for letter in text) else text


def token_count(count: Any) -> int | None:
    """A count of tokens, if it is one that a column holds."""
    return count if type(count) is int and 0 <= count < 2**63 else None


def malformed(status: int, message: str) -> Fault:
    """An answer that is none: asked again."""
    return Fault("transient", status, message)


def error_fault(status: int, reply: dict[str, Any] | None, body: bytes) -> Fault:
    """What an error reply says, by its status and its words."""
    message = error_message(reply, body) or f"HTTP status {status}"
    if is_refusal((reply or {}).get("error")):
        return Fault("refused", status, message)
    failure, blame = _judge(status, _type_of((reply or {}).get("error")), message)
    return Fault(failure, status, message, blame)


def _judge(status: int, type_: str, message: str) -> tuple[Failure, Blame]:
    if status in KEY_REFUSED or type_ in KEY_UNKNOWN_TYPES:
        return "transient", "key"
    if status in RETRIED or status >= 500:
        return "transient", "picture"
    everywhere = status < 400 or status in WRONG_ADDRESS or bool(_WRONG_MODEL.search(message))
    return "permanent", "endpoint" if everywhere else "picture"


def _type_of(error: Any) -> str:
    return str(error.get("type")) if isinstance(error, dict) else ""


def is_refusal(error: Any) -> bool:
    """Whether an error refuses this picture: Azure and OpenRouter do it with one (400, 403) rather than a message."""
    if not isinstance(error, dict):
        return False
    metadata = error.get("metadata")
    flagged = isinstance(metadata, dict) and bool(metadata.get("reasons"))
    return flagged or str(error.get("code")) in REFUSAL_CODES


def error_message(reply: dict[str, Any] | None, body: bytes) -> str:
    """The error's own words, on one line and not too many."""
    error = (reply or {}).get("error", reply)
    said = error.get("message") if isinstance(error, dict) else error
    return one_line(said if isinstance(said, str) else body[: 4 * _LONGEST_MESSAGE].decode("utf-8", "replace"))


def one_line(text: Any) -> str:
    """Text of a stranger as a message of ours."""
    # A lone surrogate would make the ledger unwritable.
    words = " ".join(str(text).encode("utf-8", "replace").decode().split())
    return words if len(words) <= _LONGEST_MESSAGE else words[: _LONGEST_MESSAGE - 1] + "…"
