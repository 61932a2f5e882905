"""HTTP as batch APIs need it: streamed bodies, JSON replies, pages, JSON lines. What goes wrong is `BatchTrouble`."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from vlmdata.captioning.backoff import retry_after_seconds
from vlmdata.captioning.batches.base import BatchTrouble
from vlmdata.captioning.endpoint import Endpoint
from vlmdata.captioning.provider import Answer, Fault, Provider
from vlmdata.captioning.replies import json_object

LARGEST_REPLY = 16 << 20
"""Bytes; a page of a hundred batches is a few hundred thousand."""
LARGEST_LINE = 1 << 20
"""Bytes; a caption's result is a few thousand."""
PAGE = 100

Parts = Callable[[], Iterable[bytes]]
"""Gives a body's parts, as often as it is called."""

_CONNECT_TIMEOUT_S = 10.0
_ID = re.compile(r"[\w=:;.-]*\w[\w=:;.-]*", re.ASCII)
_log = logging.getLogger("vlmdata")


@dataclass(frozen=True)
class Wire:
    """One endpoint, its dialect of errors, and the longest silence, in seconds, that is waited out."""

    endpoint: Endpoint
    provider: Provider
    timeout_s: float

    async def get(self, http: httpx.AsyncClient, path: str, **params: str) -> dict[str, Any]:
        """The JSON object at this path."""
        async with self._open(http, "GET", path, params=params) as response:
            return await self._object(response)

    async def post(self, http: httpx.AsyncClient, path: str, parts: Parts, content_type: str) -> dict[str, Any]:
        """The JSON object that answers a body, which is sent in parts but with its length, as some servers insist."""
        headers = {"content-type": content_type, "content-length": str(sum(len(part) for part in parts()))}
        async with self._open(http, "POST", path, headers=headers, content=_each(parts())) as response:
            return await self._object(response)

    async def pages(self, http: httpx.AsyncClient, path: str, cursor: str) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of a paged list; `cursor` is the parameter that takes the last id of the page before."""
        params, seen = {"limit": str(PAGE)}, set()
        while True:
            page = await self.get(http, path, **params)
            found = page.get("data")
            items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
            for item in items:
                yield item
            last = items[-1].get("id") if items else None
            # A server that does not know the cursor gives the first page for ever.
            if not page.get("has_more") or not isinstance(last, str) or last in seen:
                return
            seen.add(last)
            params[cursor] = last

    async def objects(self, http: httpx.AsyncClient, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a file of lines; a line that is none is logged and left out."""
        accept = {"accept": "*/*"}
        async with (
            self._open(http, "GET", path, headers=accept) as response,
            aclosing(lines_of(response.aiter_raw())) as lines,
        ):
            async for line, whole in lines:
                found = json_object(line)
                if found is not None:
                    yield found
                elif not whole:
                    raise BatchTrouble(Fault("transient", response.status_code, "the file of results is cut off"))
                elif line.strip():
                    _log.warning("a batch's result cannot be read and is left out (%d bytes)", len(line))

    def masked(self, end: Answer | Fault) -> Answer | Fault:
        """The same without our key, should the server repeat it."""
        if isinstance(end, Answer):
            return replace(end, text=self.endpoint.without_key(end.text))
        return replace(end, message=self.endpoint.mask(end.message))

    def parsed(self, status: int, body: Any) -> Answer | Fault:
        """What the provider makes of an inner answer."""
        try:
            encoded = json.dumps(body).encode()
        except RecursionError:
            return Fault("transient", status, "the answer is nested too deeply")
        return self.masked(self.provider.parse(status, self.endpoint.scrubbed(encoded)))

    def trouble(self, fault: Fault) -> BatchTrouble:
        """The fault as an error, without our key."""
        return BatchTrouble(replace(fault, message=self.endpoint.mask(fault.message)))

    def id_of(self, reply: dict[str, Any]) -> str:
        """The id that the API gave to what was handed in.

        Raises:
            BatchTrouble: there is none, or none that can stand in a path.
        """
        found = reply.get("id")
        if not isinstance(found, str) or not _ID.fullmatch(found):
            raise self.malformed("the answer holds no usable id")
        return found

    def malformed(self, what: str) -> BatchTrouble:
        """A reply that is not what the API documents."""
        return self.trouble(Fault("transient", None, f"{self.endpoint.base_url}: {what}"))

    @asynccontextmanager
    async def _open(
        self, http: httpx.AsyncClient, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[httpx.Response]:
        """A response of status 200 to 299 that is not compressed, as that would hide its length."""
        all_headers = {**self.provider.headers(self.endpoint.key), "accept-encoding": "identity", **(headers or {})}
        timeout = httpx.Timeout(self.timeout_s, connect=_CONNECT_TIMEOUT_S)
        url = self.endpoint.base_url + path
        with self._troubles():
            async with http.stream(method, url, headers=all_headers, timeout=timeout, **more) as response:
                if response.status_code >= 300:
                    raise self.trouble(await self._refusal(response))
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise self.malformed("the answer is compressed")
                yield response

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self.trouble(Fault("transient", None, f"no whole answer within {self.timeout_s:g} s")) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            why = f"no connection: {error or 'timed out'}"
            raise self.trouble(Fault("transient", None, why, "endpoint")) from error
        except httpx.TransportError as error:
            why = f"the connection broke: {error or type(error).__name__}"
            raise self.trouble(Fault("transient", None, why)) from error

    async def _refusal(self, response: httpx.Response) -> Fault:
        reply = self.endpoint.scrubbed(await self._read(response) or b"")
        end = self.provider.parse(response.status_code, reply)
        wait = retry_after_seconds(response.headers.get("retry-after"), datetime.now(UTC))
        if isinstance(end, Fault):
            return replace(end, retry_after=wait)
        return Fault("transient", response.status_code, "an answer where an error was expected")

    async def _object(self, response: httpx.Response) -> dict[str, Any]:
        body = await self._read(response)
        found = None if body is None else json_object(body)
        if found is None:
            raise self.malformed("the answer is not a JSON object, or too long")
        return found

    async def _read(self, response: httpx.Response) -> bytes | None:
        body = bytearray()
        async with asyncio.timeout(self.timeout_s):
            async for part in response.aiter_raw():
                body += part
                if len(body) > LARGEST_REPLY:
                    return None
        return bytes(body)


def in_path(name: str) -> str:
    """An id as one segment of a path.

    Raises:
        ValueError: it is no id, and might lead elsewhere.
    """
    if not _ID.fullmatch(name):
        raise ValueError(f"{name!r} is no id of a batch or file")
    return quote(name, safe="")


def count(reply: Any, *names: str) -> int:
    """The sum of these counts; what is no count is 0."""
    found = [reply.get(name) for name in names] if isinstance(reply, dict) else []
    return sum(each for each in found if type(each) is int and each > 0)


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[bytes, bool], None]:
    """Lines, and whether their end was seen. Cut at \\n alone: httpx also cuts at U+2028, which JSON allows in texts.

    Of a line that is too long its beginning is given, which is no JSON.
    """
    line = bytearray()
    async for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line += end[: LARGEST_LINE - len(line)]
            yield bytes(line), True
            line.clear()
        line += rest[: LARGEST_LINE - len(line)]
    if line.strip():
        yield bytes(line), len(line) == LARGEST_LINE
