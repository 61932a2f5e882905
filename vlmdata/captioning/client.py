"""One request to a captioner over HTTP: what came back, or what went wrong, without our key in either."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import httpx

from vlmdata.captioning import line as lines
from vlmdata.captioning.backoff import retry_after_seconds
from vlmdata.captioning.endpoint import Endpoint
from vlmdata.captioning.provider import Answer, Fault, Provider
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, UserError

LARGEST_ANSWER = 1 << 20
"""Bytes; a caption's answer is a few thousand."""


class CaptionClient:
    """Asks one endpoint; every client of a process shares the endpoint's limits."""

    def __init__(self, endpoint: Endpoint, provider: Provider, config: CaptionConfig) -> None:
        self.endpoint = endpoint
        self.provider = provider
        self.config = config
        self._url = httpx.URL(endpoint.base_url + provider.path)
        self._headers = {**provider.headers(endpoint.key), "accept-encoding": "identity"}

    async def send(self, line: lines.Line, body: bytes) -> Answer | Fault:
        """Send one request; its answer, or why there is none. Never raises for what a server does."""
        try:
            async with asyncio.timeout(self.config.timeout_s):
                end = await self._exchange(line, body)
        except TimeoutError:
            return Fault("transient", None, f"no answer within {self.config.timeout_s:g} s (caption.timeout_s)")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            why = self.endpoint.mask(f"no connection: {error or 'timed out'}")
            return Fault("transient", None, why, "endpoint")
        except httpx.TransportError as error:
            line.health.reached = True
            why = self.endpoint.mask(f"the connection broke: {error or type(error).__name__}")
            return Fault("transient", None, why)
        if isinstance(end, Answer):
            return replace(end, text=self.endpoint.without_key(end.text))
        return replace(end, message=self.endpoint.mask(end.message))

    async def _exchange(self, line: lines.Line, body: bytes) -> Answer | Fault:
        with line.http() as http:
            async with http.stream("POST", self._url, content=body, headers=self._headers) as response:
                line.health.reached = True
                reply = await _read(response)
        if reply is None:
            return Fault("transient", response.status_code, "the answer is compressed or longer than 1 MiB")
        # Before a message is cut to its length: the cut could go through the key.
        end = self.provider.parse(response.status_code, self.endpoint.scrubbed(reply))
        if isinstance(end, Answer):
            return end
        wait = retry_after_seconds(response.headers.get("retry-after"), datetime.now(UTC))
        return replace(end, retry_after=wait)

    def error(self, trouble: lines.Trouble, fault: Fault) -> UserError | None:
        """What to tell the user; none if a rerun alone may mend it."""
        where = f"caption.base_url = {self.endpoint.base_url!r}"
        if trouble == "key_refused":
            variable = self.endpoint.key_variable
            return ConfigError(f"{where}: the key in {variable} is refused ({fault.status}: {fault.message})")
        if trouble == "never_there":
            return UserError(f"{where}: {fault.message}; is the server running, and the address right?")
        if trouble == "refuses_all":
            model = self.config.model
            return ConfigError(
                f"{where}, caption.model = {model!r}: every picture is refused ({fault.status}: {fault.message});"
                " check the address and the model's name"
            )
        return None


async def _read(response: httpx.Response) -> bytes | None:
    """The body; none if it is too long, or compressed, which was not asked for and hides its length."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return None
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > LARGEST_ANSWER:
            return None
        parts.append(part)
    return b"".join(parts)
