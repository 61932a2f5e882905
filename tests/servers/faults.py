"""A fault-injecting OpenAI-compatible caption server: real HTTP on loopback, a script of faults for each picture.

A picture is told by its colour, which survives whatever re-encoding the client
does; the n-th request for it gets the n-th fault of its script, then answers.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from typing import Any

from PIL import Image

from vlmdata.captioning.serving import running

Colour = tuple[int, int, int]
TRANSIENT = (
    "408", "409", "429", "429_seconds", "429_date", "500", "503", "reset", "truncated", "error_inside", "empty",
    "blank", "no_choices", "not_json", "huge",
)  # fmt: skip
PERMANENT = ("400", "422")
REFUSED = ("refusal", "content_filter", "400_content_filter")
CAPTIONED = ("ok", "no_usage", "odd_usage", "parts", "wrong_type")


def colour(number: int) -> Colour:
    """Distinct colours, far enough apart for JPEG."""
    return (number % 6 * 50, number // 6 % 6 * 50, number // 36 % 6 * 50)


def picture(number: int, side: int = 64) -> bytes:
    """A PNG of one colour."""
    sink = BytesIO()
    Image.new("RGB", (side, side), colour(number)).save(sink, "PNG")
    return sink.getvalue()


@dataclass
class FaultServer:
    """What to do to whom, and what was asked."""

    base_url: str = ""
    scripts: dict[int, list[str]] = field(default_factory=dict)
    requests: Counter[int] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    latency_s: float = 0.0
    """Of plain answers, where all take as long."""
    latencies: Iterator[float] | None = None
    """Seconds that one request after the other waits, such as `long_tailed`."""
    pause_s: float = 1.0
    """What `Retry-After` asks for; as a date whole seconds, and so none for less than half a second."""
    said: dict[int, list[str]] = field(default_factory=dict)
    """By picture: what its requests were answered with, `early` for one that came before it was due."""
    closed_until: dict[int, float] = field(default_factory=dict)
    """Moments before which a picture is sent away, for `Retry-After`."""

    def reset(self) -> None:
        """As new, at the same address."""
        self.__init__(base_url=self.base_url)  # type: ignore[misc]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._answer(scope, receive, send)
        finally:
            self.at_once -= 1

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        request = json.loads(await _body(receive))
        number = number_in(request)
        self.bodies.append(request)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        script = self.scripts.get(number, [])
        turn = self.requests[number]
        self.requests[number] += 1
        fault = script[turn] if turn < len(script) else "ok"
        early = time.time() < self.closed_until.get(number, 0) and not fault.startswith("429_")
        self.said.setdefault(number, []).append("early" if early else fault)
        if scope["path"] != "/v1/chat/completions":
            await _reply(send, 404, {"error": {"message": "no such path"}})
            return
        if fault in ("429_seconds", "429_date"):
            await _reply(send, 429, _error("slow down"), self._later(number, fault))
            return
        if early:
            await _reply(send, 429, _error("too early"))
            return
        await asyncio.sleep(next(self.latencies) if self.latencies else self.latency_s)
        await _fault(fault, number, receive, send, str(dict(scope["headers"]).get(b"authorization", b"").decode()))

    def _later(self, number: int, form: str) -> dict[str, str]:
        if form == "429_seconds":
            self.closed_until[number] = time.time() + self.pause_s
            return {"retry-after": f"{self.pause_s:g}"}
        # A date has whole seconds: the door opens at the one that is named.
        moment = (datetime.now(UTC) + timedelta(seconds=2 * self.pause_s)).replace(microsecond=0)
        self.closed_until[number] = moment.timestamp()
        return {"retry-after": format_datetime(moment, usegmt=True)}


@contextmanager
def fault_server() -> Iterator[FaultServer]:
    """A running server; `base_url` is what a config names."""
    server = FaultServer()
    with running(server) as address:
        server.base_url = f"{address}/v1"
        yield server


def caption(number: int) -> str:
    """What a picture is captioned with."""
    return f"A picture numbered {number}."


def number_in(request: dict[str, Any]) -> int:
    url = request["messages"][-1]["content"][-1]["image_url"]["url"]
    with Image.open(BytesIO(b64decode(url.partition(",")[2]))) as image:
        red, green, blue = (round(level / 50) for level in image.convert("RGB").getpixel((5, 5)))
    return red + 6 * green + 36 * blue


def _completion(content: Any, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return {"choices": [choice], "usage": {"prompt_tokens": 90, "completion_tokens": 7}, **more}


def _error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def long_tailed(seed: int, median_s: float, sigma: float = 1.0) -> Iterator[float]:
    """Latencies as real servers have them: log-normal, most near the median, a few many times as long."""
    draw = random.Random(seed)
    while True:
        yield draw.lognormvariate(math.log(median_s), sigma)


async def _fault(fault: str, number: int, receive: Any, send: Any, authorization: str) -> None:
    good = _completion(f"  {caption(number)}\n")
    if fault == "reset":
        await _start(send, 200, {"content-length": "1000"})
        await send({"type": "http.response.body", "body": b'{"choices": [', "more_body": True})
        raise ConnectionResetError
    if fault == "drip":
        await _start(send, 200, {})
        gone = asyncio.create_task(_until_gone(receive))
        while not gone.done():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.wait({gone}, timeout=0.05)
        return
    if fault == "hang":
        await _until_gone(receive)
        return
    refusal = _completion(None)
    refusal["choices"][0]["message"]["refusal"] = "I cannot describe this."
    filtered = _completion("")
    filtered["choices"][0]["finish_reason"] = "content_filter"
    replies: dict[str, tuple[int, Any]] = {
        "ok": (200, good),
        "no_usage": (200, {"choices": good["choices"]}),
        "odd_usage": (200, {**good, "usage": {"prompt_tokens": "many", "completion_tokens": -1}}),
        "parts": (200, _completion([{"type": "text", "text": caption(number)}])),
        "wrong_type": (200, good),
        "truncated": (200, json.dumps(good)[:-20].encode()),
        "error_inside": (200, _error("upstream is tired")),
        "empty": (200, _completion("")),
        "blank": (200, _completion(" \n ")),
        "no_choices": (200, {"choices": []}),
        "not_json": (200, b"<html>bad gateway</html>"),
        "huge": (200, b'{"choices": "' + b"x" * 2_000_000),
        "refusal": (200, refusal),
        "content_filter": (200, filtered),
        "400_content_filter": (400, _error("filtered", code="content_filter")),
        "echo_key": (400, _error(f"cannot use {authorization}")),
    }
    status, reply = replies[fault] if fault in replies else (int(fault), _error(f"injected {fault}"))
    await _reply(send, status, reply, {"content-type": "text/html"} if fault == "wrong_type" else {})


async def _reply(send: Any, status: int, reply: Any, headers: dict[str, str] | None = None) -> None:
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    await _start(send, status, {"content-type": "application/json", **(headers or {})})
    await send({"type": "http.response.body", "body": body})


async def _start(send: Any, status: int, headers: dict[str, str]) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
