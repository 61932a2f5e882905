"""Both batch APIs on loopback over real HTTP, with a script of faults for each step and an outcome for each request.

It reads uploads with the standard library and answers in the official
clients' terms (a test has them talk to it), so that it does not merely
mirror what it tests.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vlmdata.captioning.serving import running

Dialect = Literal["openai", "anthropic"]
MOMENT = 1_700_000_000
TIME = "2024-01-01T00:00:00Z"
ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error", 500: "api_error", 529: "overloaded_error",
}  # fmt: skip
REFUSED = "I will not describe this."


@dataclass
class Batch:
    """What was handed in, and how far it is."""

    id: str
    dialect: Dialect
    requests: dict[str, dict[str, Any]]
    created: dict[str, Any]
    polls_left: int
    ending: str = "completed"
    archived: bool = False

    @property
    def ended(self) -> bool:
        return self.polls_left <= 0


@dataclass
class BatchServer:
    """What to do to whom, and what was asked."""

    base_url: str = ""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By step (upload, create, list, poll, download): what happens at its first visits."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """By custom_id; `ok` where none is named."""
    number_of: Callable[[bytes], int] | None = None
    """Tells a picture by its bytes, where a test speaks of pictures and not of custom_ids."""
    fetch: Callable[[str], bytes] | None = None
    """How a picture is had that is sent as a link."""
    scripts: dict[int, list[str]] = field(default_factory=dict)
    """By picture: the outcomes of its first requests."""
    asked: Counter[int] = field(default_factory=Counter)
    """By picture: how often it was handed in."""
    numbers: dict[str, int] = field(default_factory=dict)
    """The picture of each custom_id."""
    polls: int = 0
    """How often a batch is still in progress when it is looked at."""
    ending: str = "completed"
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Why validation failed, where `ending` is `failed`."""
    endings: list[str] = field(default_factory=list)
    """Of the first batches; the others end as `ending` says."""
    page: int = 3
    raw: list[bytes] = field(default_factory=list)
    """Bytes that come before the results."""
    last: bytes = b""
    """Bytes that come after the results."""
    visits: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)

    def reset(self) -> None:
        """As new, at the same address."""
        self.__init__(base_url=self.base_url)  # type: ignore[misc]

    async def upload(self, request: Request) -> Response:
        form = _form(request.headers["content-type"], await request.body())
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"]
        created = {"id": name, "object": "file", "bytes": len(form["file"]), "created_at": MOMENT, "status": "uploaded"}
        return JSONResponse({**created, "filename": "requests.jsonl", "purpose": form["purpose"].decode()})

    async def create_openai(self, request: Request) -> Response:
        created = json.loads(await request.body())
        lines = [json.loads(line) for line in self.files[created["input_file_id"]].decode().split("\n") if line]
        wrong = [line for line in lines if line["url"] != created["endpoint"] or line["method"] != "POST"]
        if wrong or created["completion_window"] != "24h":
            return _refused("openai", 400, "mismatched url")
        return self._create("openai", {line["custom_id"]: line["body"] for line in lines}, created)

    async def create_anthropic(self, request: Request) -> Response:
        created = json.loads(await request.body())
        return self._create("anthropic", {each["custom_id"]: each["params"] for each in created["requests"]}, created)

    def _create(self, dialect: Dialect, requests: dict[str, dict[str, Any]], created: dict[str, Any]) -> Response:
        number = len(self.batches)
        name, ending = f"batch_{number}", self.endings[number] if number < len(self.endings) else self.ending
        self.batches[name] = Batch(name, dialect, requests, created, self.polls, ending)
        for custom_id, request in requests.items() if self.number_of and ending != "failed" else ():
            self._recognise(custom_id, request)
        return JSONResponse(self._shown(self.batches[name]))

    def _recognise(self, custom_id: str, request: dict[str, Any]) -> None:
        place = sent_picture(request)
        image = b64decode(place.partition(",")[2]) if place.startswith("data:") else self.fetch(place)  # type: ignore[misc]
        number = self.number_of(image)  # type: ignore[misc]
        script, turn = self.scripts.get(number, []), self.asked[number]
        self.asked[number] += 1
        self.numbers[custom_id] = number
        self.outcomes[custom_id] = script[turn] if turn < len(script) else "ok"

    async def list_batches(self, request: Request) -> Response:
        after = request.query_params.get("after") or request.query_params.get("after_id")
        newest_first = list(reversed(self.batches))
        rest = newest_first[newest_first.index(after) + 1 if after else 0 :]
        size = min(self.page, int(request.query_params["limit"])) if "limit" in request.query_params else self.page
        shown = [self._shown(self.batches[name]) for name in rest[:size]]
        ends = {"first_id": rest[0] if rest else None, "last_id": rest[:size][-1] if rest else None}
        return JSONResponse({"object": "list", "data": shown, "has_more": len(rest) > size, **ends})

    async def poll(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["id"])
        if batch is None:
            return _refused(_dialect(request), 404, "no such batch")
        shown = self._shown(batch)
        batch.polls_left -= 1
        return JSONResponse(shown)

    async def download(self, request: Request) -> Response:
        name, _, which = request.path_params["id"].removesuffix("-file").partition("-")
        batch = self.batches[name]
        return StreamingResponse(self._lines(batch, which or "results"), media_type="application/jsonl")

    def _shown(self, batch: Batch) -> dict[str, Any]:
        return self._shown_openai(batch) if batch.dialect == "openai" else self._shown_anthropic(batch)

    def _shown_openai(self, batch: Batch) -> dict[str, Any]:
        status = batch.ending if batch.ended else "in_progress"
        good = sum(1 for custom_id in batch.requests if self._place(custom_id) == "output")
        bad = sum(1 for custom_id in batch.requests if self._place(custom_id) == "error")
        ran = batch.ended and status != "failed"
        return {
            "id": batch.id, "object": "batch", "created_at": MOMENT, "status": status, **batch.created,
            "output_file_id": f"{batch.id}-output-file" if ran and good else None,
            "error_file_id": f"{batch.id}-error-file" if ran and bad else None,
            "errors": {"object": "list", "data": self.errors} if status == "failed" else None,
            "request_counts": {"total": len(batch.requests), "completed": good * ran, "failed": bad * ran},
        }  # fmt: skip

    def _shown_anthropic(self, batch: Batch) -> dict[str, Any]:
        kinds = Counter(_anthropic_kind(self.outcomes.get(custom_id, "ok")) for custom_id in batch.requests)
        names = ("succeeded", "errored", "canceled", "expired")
        counts = {name: kinds[name] if batch.ended else 0 for name in names}
        results = f"{self.base_url}/messages/batches/{batch.id}/results" if batch.ended and not batch.archived else None
        return {
            "id": batch.id, "type": "message_batch", "created_at": TIME, "expires_at": TIME,
            "processing_status": "ended" if batch.ended else "in_progress", "results_url": results,
            "archived_at": TIME if batch.archived else None, "cancel_initiated_at": None,
            "ended_at": TIME if batch.ended else None,
            "request_counts": {"processing": len(batch.requests) - sum(counts.values()), **counts},
        }  # fmt: skip

    def _place(self, custom_id: str) -> str:
        outcome = self.outcomes.get(custom_id, "ok")
        return "none" if outcome == "missing" else "error" if outcome.isdigit() or outcome in _NEVER_SENT else "output"

    def _says(self, custom_id: str) -> str:
        number = self.numbers.get(custom_id)
        return caption(custom_id) if number is None else picture_caption(number)

    async def _lines(self, batch: Batch, which: str) -> AsyncIterator[bytes]:
        for raw in self.raw:
            yield raw
        # In no order that was asked for, as the real ones.
        for custom_id in reversed(batch.requests):
            outcome = self.outcomes.get(custom_id, "ok")
            if outcome == "break":
                raise ConnectionResetError
            if outcome == "stall":
                await asyncio.sleep(3_600)
            if batch.dialect == "anthropic" and outcome != "missing":
                yield _line({"custom_id": custom_id, "result": _anthropic_result(outcome, self._says(custom_id))})
            elif batch.dialect == "openai" and self._place(custom_id) == which:
                yield _line(
                    {"id": f"req_{custom_id}", "custom_id": custom_id, **_openai_result(outcome, self._says(custom_id))}
                )
        yield self.last


@contextmanager
def batch_server() -> Iterator[BatchServer]:
    """A running server; `base_url` is what a config names."""
    server = BatchServer()
    with running(_app(server)) as address:
        server.base_url = f"{address}/v1"
        yield server


def caption(custom_id: str) -> str:
    """What a request is answered with; the separators are legal in JSON and part no lines."""
    return f"A picture for {custom_id}\u2028of two\u0085lines."


def picture_caption(number: int) -> str:
    """What a picture is captioned with, where pictures are told."""
    return f"A picture numbered {number}."


def sent_picture(request: dict[str, Any]) -> str:
    """The picture in a request of either dialect: a data URL, or the link."""
    parts = request["messages"][-1]["content"]
    if any(part["type"] == "image_url" for part in parts):
        return str(next(part["image_url"]["url"] for part in parts if part["type"] == "image_url"))
    source = next(part["source"] for part in parts if part["type"] == "image")
    return str(source.get("url") or f"data:{source['media_type']};base64,{source['data']}")


def _app(server: BatchServer) -> Starlette:
    routes: list[tuple[str, str, str, Any]] = [
        ("POST", "/v1/files", "upload", server.upload),
        ("GET", "/v1/files/{id}/content", "download", server.download),
        ("POST", "/v1/batches", "create", server.create_openai),
        ("GET", "/v1/batches", "list", server.list_batches),
        ("GET", "/v1/batches/{id}", "poll", server.poll),
        ("POST", "/v1/messages/batches", "create", server.create_anthropic),
        ("GET", "/v1/messages/batches", "list", server.list_batches),
        ("GET", "/v1/messages/batches/{id}", "poll", server.poll),
        ("GET", "/v1/messages/batches/{id}/results", "download", server.download),
    ]
    return Starlette(routes=[Route(path, _step(server, step, do), methods=[how]) for how, path, step, do in routes])


def _step(server: BatchServer, step: str, do: Any) -> Any:
    async def visit(request: Request) -> Response:
        script, turn = server.faults.get(step, []), server.visits[step]
        server.visits[step] += 1
        server.headers.append(dict(request.headers))
        return await _faulty(script[turn] if turn < len(script) else "ok", do, request)

    return visit


async def _faulty(fault: str, do: Any, request: Request) -> Response:
    key = request.headers.get("authorization") or request.headers.get("x-api-key") or ""
    if fault == "ok":
        return await do(request)  # type: ignore[no-any-return]
    if fault == "lost":
        await do(request)
        return _cut()
    if fault == "reset":
        return _cut()
    if fault == "mute":
        await do(request)
    if fault in ("hang", "mute"):
        return StreamingResponse(_drip(request), media_type="application/json")
    if fault == "redirect":
        return Response(status_code=307, headers={"location": "/elsewhere"})
    if fault.isdigit():
        wait = {"retry-after": "7"} if fault == "429" else {}
        return _refused(_dialect(request), int(fault), f"injected {fault} for {key}", wait)
    bodies = {
        "not_json": b"<html>",
        "list": b"[]",
        "no_id": b"{}",
        "odd_id": b'{"id": ".."}',
        "huge": b"[" * (20 << 20),
    }
    headers = {"content-encoding": "gzip"} if fault == "compressed" else {}
    return Response(bodies.get(fault, b"{}"), headers=headers)


async def _drip(request: Request) -> AsyncIterator[bytes]:
    while not await request.is_disconnected():
        yield b" "
        await asyncio.sleep(0.02)


def _cut() -> Response:
    async def half() -> AsyncIterator[bytes]:
        yield b"{"
        raise ConnectionResetError

    return StreamingResponse(half(), headers={"content-length": "1000"})


def _dialect(request: Request) -> Dialect:
    return "anthropic" if "anthropic-version" in request.headers else "openai"


def _refused(dialect: Dialect, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(_error_body(dialect, status, message), status, headers)


def _error_body(dialect: Dialect, status: int, message: str) -> dict[str, Any]:
    kind = ERROR_TYPES.get(status, "api_error")
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error} if dialect == "anthropic" else {"error": {**error, "code": None}}


_NEVER_SENT = {"expired": "batch_expired", "cancelled": "batch_cancelled", "timeout": "request_timeout"}


def _openai_result(outcome: str, text: str) -> dict[str, Any]:
    if outcome in _NEVER_SENT:
        return {"response": None, "error": {"code": _NEVER_SENT[outcome], "message": f"never sent: {outcome}"}}
    status = int(outcome) if outcome.isdigit() else 200
    body = _error_body("openai", status, f"injected {outcome}") if status >= 300 else _completion(outcome, text)
    return {"response": {"status_code": status, "request_id": "r", "body": body}, "error": None}


def _completion(outcome: str, text: str) -> dict[str, Any]:
    said = {"refusal": (None, REFUSED), "empty": ("", None)}.get(outcome, (text, None))
    message = {"role": "assistant", "content": said[0], "refusal": said[1]}
    return {
        "id": "c", "object": "chat.completion", "created": MOMENT, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97},
    }  # fmt: skip


def _anthropic_kind(outcome: str) -> str:
    kinds = {"expired": "expired", "cancelled": "canceled"}
    return "errored" if outcome.isdigit() else kinds.get(outcome, "succeeded")


def _anthropic_result(outcome: str, text: str) -> dict[str, Any]:
    kind = _anthropic_kind(outcome)
    if kind == "errored":
        return {"type": kind, "error": _error_body("anthropic", int(outcome), f"injected {outcome}")}
    if kind != "succeeded":
        return {"type": kind}
    blocks = {"refusal": [], "empty": [{"type": "text", "text": ""}]}
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
        "content": blocks.get(outcome, [{"type": "text", "text": text, "citations": None}]),
        "stop_reason": "refusal" if outcome == "refusal" else "end_turn",
        "usage": {"input_tokens": 80, "cache_read_input_tokens": 10, "output_tokens": 7},
    }  # fmt: skip
    return {"type": kind, "message": message}


def _line(found: dict[str, Any]) -> bytes:
    return json.dumps(found, ensure_ascii=False).encode() + b"\n"


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    message = message_from_bytes(f"content-type: {content_type}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    if not isinstance(parts, list):
        raise ValueError("no form")
    return {
        str(part.get_param("name", header="content-disposition")): bytes(part.get_payload(decode=True))  # type: ignore[union-attr, arg-type]
        for part in parts
    }
