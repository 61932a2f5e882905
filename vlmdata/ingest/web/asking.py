"""One request: sent, checked, and read as far as it may be read."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from vlmdata.config import NetworkConfig
from vlmdata.ingest.web.addresses import Addresses, VettingResolver
from vlmdata.ingest.web.trouble import Trouble, of_error, of_status

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DNS_TTL_S = 300
_KEEP_OPEN_S = 15
_READ_AHEAD = 1 << 18
_GZIP = 32 + zlib.MAX_WBITS
"""Zlib or gzip, as the data says."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent; `location` if it sent us elsewhere."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Most:
    """How many bytes of a body, decoded, are taken; of a longer one none, or those."""

    bytes: int
    cut: bool = False


Check = Callable[[int, Mapping[str, str]], None]
"""Looks at an answer's status and headers before its body is read; raises Trouble."""


def new_session(config: NetworkConfig, addresses: Addresses) -> aiohttp.ClientSession:
    """Connections that go to allowed addresses alone. No cookies, no proxy, no decoding behind our back."""
    connector = aiohttp.TCPConnector(
        limit=0,  # the turns are ours
        resolver=VettingResolver(addresses),
        socket_factory=addresses.socket,
        ttl_dns_cache=_DNS_TTL_S,
        keepalive_timeout=_KEEP_OPEN_S,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": config.user_agent, "Accept": "image/*,*/*;q=0.8", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=config.connect_timeout_s, sock_read=config.first_byte_timeout_s
        ),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_READ_AHEAD,
    )


async def ask(session: aiohttp.ClientSession, url: URL, most: Most, check: Check) -> Answer:
    """GET one address; a redirect is told, not followed.

    Args:
        session: from `new_session`.
        url: http or https.
        most: how large the body may be.
        check: may refuse the answer before its body is read.

    Raises:
        Trouble: no answer, one that `check` refuses, or a body that is too large or broken.
    """
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status in REDIRECTS:
                return Answer(str(url), response.status, response.headers, location=_location(response))
            check(response.status, response.headers)
            return Answer(str(url), response.status, response.headers, await _body(response, most))
    except (aiohttp.ClientError, OSError) as error:
        raise of_error(error) from error


def require_ok(status: int, headers: Mapping[str, str]) -> None:
    """A check: nothing but 200 brings a picture."""
    if status != 200:
        raise of_status(status, headers.get("Retry-After"))


def _location(response: aiohttp.ClientResponse) -> str:
    where = response.headers.get("Location", "")
    if not where:
        raise Trouble("permanent", "bad_redirect", "a redirect to nowhere", response.status)
    return where


async def _body(response: aiohttp.ClientResponse, most: Most) -> bytes:
    length = response.content_length
    if length is not None and length > most.bytes and not most.cut:
        raise _too_large(f"{length} bytes", most, response.status)
    parts, size = [], 0
    async for part in _decoded(response, most):
        size += len(part)
        parts.append(part)
        if size > most.bytes:
            if most.cut:
                return b"".join(parts)[: most.bytes]
            raise _too_large("more", most, response.status)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(size: str, most: Most, status: int) -> Trouble:
    return Trouble("permanent", "too_large", f"{size} where network.max_bytes allows {most.bytes}", status)


async def _decoded(response: aiohttp.ClientResponse, most: Most) -> AsyncIterator[bytes]:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in {"identity", ""}:
        async for part in response.content.iter_any():
            yield part
        return
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise Trouble("permanent", "unsupported_encoding", f"content encoding {encoding!r}", response.status)
    inflate = zlib.decompressobj(_GZIP)
    try:
        async for part in response.content.iter_any():
            # One byte over the bound is enough to see that there is too much.
            yield inflate.decompress(part, most.bytes + 1)
            if inflate.unconsumed_tail:
                raise _too_large("more", most, response.status)
    except zlib.error as error:
        raise Trouble("permanent", "bad_http", f"content encoding {encoding}: {error}", response.status) from error
    if not inflate.eof:
        raise Trouble("transient", "connection_lost", "the encoded body ends early", response.status)
