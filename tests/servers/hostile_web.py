"""A web server that breaks every promise of HTTP on purpose: raw TCP on a loopback address, a misdeed for each path.

No framework, since a framework would keep it honest. Honest answers are there too, for what they are compared with.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import math
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from io import BytesIO
from itertools import chain, repeat
from urllib.parse import parse_qsl

from PIL import Image

Headers = list[tuple[str, str]]

DRIP_S = 0.2
"""Between two bytes of what is slow."""
BOMB_BYTES = 1 << 30
"""What a bomb inflates to, after its picture."""
BLOCK = bytes(1 << 16)
EVIL_NAME = "../../evil.jpg"


@dataclass
class Seen:
    """One request, as the server saw it."""

    path: str
    """As it was sent, with its query."""
    method: str
    headers: dict[str, str]
    """By lower-case name; what was said twice is joined by a comma."""
    start: float
    """`time.monotonic()` when the whole request was read."""
    connection: int
    """Which connection it came by, counted from 1."""
    end: float = math.inf
    """When the server was done with it; infinity until then, which may be just after its last byte was read."""


@dataclass
class HostileWeb:
    """What is served where, and what was asked. All of it may be changed while the server runs."""

    host: str
    port: int
    robots: tuple[int, bytes] | None = None
    """Status and body of `/robots.txt`; a redirect's `Location` goes to `headers`."""
    tdmrep: tuple[int, bytes] | None = None
    """Status and body of `/.well-known/tdmrep.json`."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """JPEGs by path as it is sent; they go before every other behaviour."""
    headers: dict[str, Headers] = field(default_factory=dict)
    """More response headers by path without query; they replace what the server would say under the same name."""
    requests: list[Seen] = field(default_factory=list)
    most_at_once: int = 0
    """Requests that were being answered at one moment."""
    connections: int = 0
    at_once: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """How often each flaky path has failed."""

    def url(self, path: str) -> str:
        """Where a path is found."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{path}"


@contextmanager
def hostile_web(host: str = "127.0.0.2", port: int = 0) -> Iterator[HostileWeb]:
    """A running server, by default at a free port; with the block, every connection and the thread end."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Bound here, so that a taken address is the caller's error, and the port is known.
    listener = socket.create_server((host, port), family=family)
    web = HostileWeb(host, listener.getsockname()[1])
    stop: Future[None] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(web, listener, stop)), name="hostile web")
    thread.start()
    try:
        yield web
    finally:
        stop.set_result(None)
        thread.join()


@lru_cache(maxsize=4096)
def picture(number: int) -> bytes:
    """A JPEG of 128 by 128 pixels, always the same for a number, and unlike that of any other."""
    mosaic = Image.frombytes("RGB", (8, 8), random.Random(number).randbytes(8 * 8 * 3))
    sink = BytesIO()
    mosaic.resize((128, 128), Image.Resampling.BICUBIC).save(sink, "JPEG")
    return sink.getvalue()


# Connections


async def _serve(web: HostileWeb, listener: socket.socket, stop: Future[None]) -> None:
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        web.connections += 1
        task = asyncio.create_task(_converse(web, web.connections, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # Not in the task: one that is cancelled before its first step would leave its socket open.
        task.add_done_callback(lambda _: writer.transport.abort())

    server = await asyncio.start_server(connected, sock=listener, backlog=1024)
    await asyncio.wrap_future(stop)
    # The end of `asyncio.run` cancels the tasks.
    server.close()


async def _converse(
    web: HostileWeb, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(ConnectionError):
        while await _exchange(web, connection, reader, writer):
            pass
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _exchange(
    web: HostileWeb, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Answer one request; whether the connection stays open."""
    try:
        seen, stays = _parsed(await reader.readuntil(b"\r\n\r\n"), connection)
    except asyncio.IncompleteReadError:
        return False
    except (asyncio.LimitOverrunError, ValueError):
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return False
    web.requests.append(seen)
    web.at_once += 1
    web.most_at_once = max(web.most_at_once, web.at_once)
    try:
        request = Request(web, seen, reader, writer, stays)
        await _answer(request)
        return request.stays
    finally:
        web.at_once -= 1
        seen.end = time.monotonic()


def _parsed(head: bytes, connection: int) -> tuple[Seen, bool]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    stays = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Seen(target, method, headers, time.monotonic(), connection), stays


@dataclass
class Request:
    """One request that is being answered."""

    web: HostileWeb
    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    stays: bool
    """Whether the connection outlives the answer."""

    @property
    def path(self) -> str:
        """Without the query."""
        return self.seen.path.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.seen.path.partition("?")[2], keep_blank_values=True))

    async def send(self, data: bytes) -> None:
        """Just these bytes; waits for a slow reader."""
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: Iterable[int]) -> None:
        """A byte at a time."""
        for byte in data:
            await self.send(bytes([byte]))
            await asyncio.sleep(DRIP_S)

    async def head(self, status: int, headers: Headers) -> None:
        """The status line and headers, with those that the test adds for this path."""
        added = self.web.headers.get(self.path, [])
        replaced = {name.lower() for name, _ in added}
        said = [header for header in headers if header[0].lower() not in replaced] + added
        if not self.stays:
            said.append(("Connection", "close"))
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in said)]
        await self.send("".join(f"{line}\r\n" for line in [*lines, ""]).encode())

    async def reply(
        self, status: int, body: bytes = b"", kind: str = "text/plain", more: Headers | None = None
    ) -> None:
        """A whole and honest answer."""
        bare = status < 200 or status in (204, 304)
        framing = [] if bare else [("Content-Type", kind), ("Content-Length", str(len(body)))]
        await self.head(status, framing + (more or []))
        await self.send(b"" if bare else body)

    async def show(self, body: bytes, more: Headers | None = None, kind: str = "image/jpeg") -> None:
        """A picture."""
        await self.reply(200, body, kind, _validators(body) + (more or []))

    async def begin(self, length: int | None) -> None:
        """The head of a picture whose body is another matter: of a length, or chunked."""
        framing = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        await self.head(200, [("Content-Type", "image/jpeg"), framing])


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unheard Of"


def _validators(body: bytes) -> Headers:
    digest = hashlib.sha256(body).hexdigest()[:16]
    return [("ETag", f'"{digest}"'), ("Last-Modified", formatdate(1_700_000_000, usegmt=True))]


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


# Behaviours

Behaviour = Callable[..., Awaitable[None]]
BEHAVIOURS: list[tuple[re.Pattern[str], Behaviour]] = []


async def _answer(request: Request) -> None:
    if request.seen.method != "GET":
        # A body that was sent along stays unread, and would be taken for the next request.
        request.stays = False
        await request.reply(405, more=[("Allow", "GET")])
    elif (body := request.web.pictures.get(request.path)) is not None:
        await request.show(body)
    else:
        await _behave(request)


async def _behave(request: Request) -> None:
    for pattern, behaviour in BEHAVIOURS:
        if match := pattern.fullmatch(request.path):
            await behaviour(request, *match.groups())
            return
    await request.reply(404, b"no such path\n")


def _at(pattern: str) -> Callable[[Behaviour], Behaviour]:
    def enter(behaviour: Behaviour) -> Behaviour:
        BEHAVIOURS.append((re.compile(pattern), behaviour))
        return behaviour

    return enter


@_at(r"/robots\.txt")
async def _robots(request: Request) -> None:
    status, body = request.web.robots or (404, b"")
    await request.reply(status, body)


@_at(r"/\.well-known/tdmrep\.json")
async def _tdmrep(request: Request) -> None:
    status, body = request.web.tdmrep or (404, b"")
    await request.reply(status, body, "application/json")


# Honest pictures, some of them late or wrapped


@_at(r"/picture/(\d+)\.jpg")
async def _picture(request: Request, number: str) -> None:
    await request.show(picture(int(number)))


@_at(r"/slow/(\d+)/(\d+)\.jpg")
async def _slow(request: Request, milliseconds: str, number: str) -> None:
    await asyncio.sleep(int(milliseconds) / 1000)
    await request.show(picture(int(number)))


@_at(r"/flaky/(\d+)/(\d+)\.jpg")
async def _flaky(request: Request, times: str, number: str) -> None:
    if request.web.failures[request.path] < int(times):
        request.web.failures[request.path] += 1
        await request.reply(503, b"come back later\n")
    else:
        await request.show(picture(int(number)))


@_at(r"/chunked\.jpg")
async def _chunked(request: Request) -> None:
    body = picture(0)
    await request.begin(None)
    for start in range(0, len(body), 1000):
        await request.send(_chunk(body[start : start + 1000]))
    await request.send(_chunk(b""))


@_at(r"/no-length")
async def _no_length(request: Request) -> None:
    request.stays = False
    await request.head(200, [("Content-Type", "image/jpeg")])
    await request.send(picture(0))


@_at(r"/gzipped\.jpg")
async def _gzipped(request: Request) -> None:
    await request.show(gzip.compress(picture(0), mtime=0), [("Content-Encoding", "gzip")])


@_at(r"/noai\.jpg")
async def _noai(request: Request) -> None:
    await request.show(picture(0), [("X-Robots-Tag", "noai")])


@_at(r"/tdm\.jpg")
async def _tdm(request: Request) -> None:
    await request.show(picture(0), [("tdm-reservation", "1")])


@_at(r"/name/.+")
async def _name(request: Request) -> None:
    quoted = EVIL_NAME.replace("/", "%2F")
    disposition = f"attachment; filename=\"{EVIL_NAME}\"; filename*=UTF-8''{quoted}"
    await request.show(picture(0), [("Content-Disposition", disposition)])


# Answers that are not what they seem


@_at(r"/status/(\d{3})")
async def _status(request: Request, code: str) -> None:
    later = [("Retry-After", value) for name, value in request.query.items() if name == "retry-after"]
    await request.reply(int(code), f"status {code}\n".encode(), more=later)


@_at(r"/page\.jpg")
async def _page(request: Request) -> None:
    await request.reply(200, b"<!doctype html><html><body>Not a picture.</body></html>", "image/jpeg")


@_at(r"/error-page")
async def _error_page(request: Request) -> None:
    await request.reply(200, b"<!doctype html><title>404</title><h1>Gone fishing</h1>", "text/html; charset=utf-8")


@_at(r"/empty\.jpg")
async def _empty(request: Request) -> None:
    await request.show(b"")


@_at(r"/wrong-type\.jpg")
async def _wrong_type(request: Request) -> None:
    await request.show(picture(0), kind="application/octet-stream")


@_at(r"/gzip-bomb")
async def _gzip_bomb(request: Request) -> None:
    await request.show(await asyncio.to_thread(bomb), [("Content-Encoding", "gzip")])


@_at(r"/gzip-bomb-twice")
async def _gzip_bomb_twice(request: Request) -> None:
    await request.show(await asyncio.to_thread(double_bomb), [("Content-Encoding", "gzip, gzip")])


@cache
def bomb() -> bytes:
    """A gzip of some 1 MB, near the most that deflate allows: a picture, then `BOMB_BYTES` of zeros."""
    zeros = bytes(1 << 20)
    blocks = BOMB_BYTES // len(zeros)
    checksum = zlib.crc32(picture(0))
    for _ in range(blocks):
        checksum = zlib.crc32(zeros, checksum)
    size = len(picture(0)) + BOMB_BYTES
    start, end = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x03\x00" + struct.pack("<II", checksum, size % 2**32)
    return start + _deflated(picture(0)) + _deflated(zeros) * blocks + end


@cache
def double_bomb() -> bytes:
    """The bomb, zipped once more: a few KB."""
    return gzip.compress(bomb(), mtime=0)


def _deflated(data: bytes) -> bytes:
    """A piece of a deflate stream that refers to nothing before it, so that it may be repeated."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeezer.compress(data) + squeezer.flush(zlib.Z_FULL_FLUSH)


# Redirects


async def _redirect(request: Request, *location: str) -> None:
    await request.reply(302, more=[("Location", each) for each in location])


@_at(r"/loop")
async def _loop(request: Request) -> None:
    await _redirect(request, "/loop")


@_at(r"/hops/(\d+)")
async def _hops(request: Request, left: str) -> None:
    if int(left):
        await _redirect(request, f"/hops/{int(left) - 1}")
    else:
        await request.show(picture(0))


@_at(r"/to")
async def _to(request: Request) -> None:
    await _redirect(request, request.query.get("url", ""))


@_at(r"/to-relative")
async def _to_relative(request: Request) -> None:
    await _redirect(request, "picture/1.jpg")


@_at(r"/to-nowhere")
async def _to_nowhere(request: Request) -> None:
    await _redirect(request)


@_at(r"/to-file")
async def _to_file(request: Request) -> None:
    await _redirect(request, "file:///etc/passwd")


# Answers without an end; all that look like a picture begin as one, so that no look at the first bytes saves the client


@_at(r"/slow-head")
async def _slow_head(request: Request) -> None:
    await request.drip(chain(b"HTTP/1.1 200 OK\r\nX-Slow: ", repeat(ord("x"))))


@_at(r"/slow-body")
async def _slow_body(request: Request) -> None:
    await request.begin(10**9)
    await request.drip(chain(picture(0), repeat(0)))


@_at(r"/silent")
async def _silent(request: Request) -> None:
    request.stays = False
    await request.reader.read()


@_at(r"/endless")
async def _endless(request: Request) -> None:
    await request.begin(None)
    for block in chain([picture(0)], repeat(BLOCK)):
        await request.send(_chunk(block))


@_at(r"/endless-length")
async def _endless_length(request: Request) -> None:
    await request.begin(10**12)
    for block in chain([picture(0)], repeat(BLOCK)):
        await request.send(block)


# Broken HTTP


@_at(r"/short")
async def _short(request: Request) -> None:
    request.stays = False
    body = picture(0)
    await request.begin(len(body))
    await request.send(body[: len(body) // 2])


@_at(r"/long")
async def _long(request: Request) -> None:
    # The connection stays: what follows the length is there to be taken for the next answer.
    body = picture(0)
    await request.begin(len(body) // 2)
    await request.send(body)


@_at(r"/reset")
async def _reset(request: Request) -> None:
    body = picture(0)
    await request.begin(len(body))
    await request.send(body[: len(body) // 2])
    # For the client to be in the middle of the body.
    await asyncio.sleep(0.05)
    _hang_up(request)


@_at(r"/reset-before")
async def _reset_before(request: Request) -> None:
    _hang_up(request)


def _hang_up(request: Request) -> None:
    """With RST, where a plain close sends FIN."""
    request.stays = False
    request.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.writer.transport.abort()


@_at(r"/bad-chunk")
async def _bad_chunk(request: Request) -> None:
    request.stays = False
    await request.begin(None)
    await request.send(_chunk(picture(0)[:1000]) + b"no number\r\n" + picture(0)[1000:])


@_at(r"/bad-status")
async def _bad_status(request: Request) -> None:
    request.stays = False
    await request.send(b"I speak no HTTP\r\n\r\n")


@_at(r"/huge-headers")
async def _huge_headers(request: Request) -> None:
    await request.show(picture(0), [(f"X-Padding-{number}", "x" * 1000) for number in range(1050)])


@_at(r"/nul-header")
async def _nul_header(request: Request) -> None:
    await request.show(picture(0), [("X-Nul", "a\0b")])
