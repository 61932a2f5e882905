"""Anthropic's Message Batches: the requests go up in one body, a file of results comes down.

https://docs.anthropic.com/en/docs/build-with-claude/batch-processing and /en/api/creating-message-batches
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx

from vlmdata.captioning.anthropic import Anthropic
from vlmdata.captioning.batches.base import BatchLimits, BatchState, BatchTrouble, Results, check_requests
from vlmdata.captioning.batches.wire import Parts, Wire, count, in_path
from vlmdata.captioning.endpoint import Endpoint
from vlmdata.captioning.provider import Answer, Fault

LIMITS = BatchLimits(requests=100_000, bytes=256_000_000, envelope=110)
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_PATH = "/messages/batches"


@dataclass(frozen=True)
class AnthropicBatches:
    """Batches of messages. A batch shows no mark of ours but the custom_ids, and these only in its results."""

    endpoint: Endpoint
    timeout_s: float = 600.0
    provider: Anthropic = field(default_factory=Anthropic)

    @property
    def limits(self) -> BatchLimits:
        """100,000 requests and 256 MB."""
        return LIMITS

    async def submit(self, http: httpx.AsyncClient, requests: Sequence[tuple[str, bytes]], token: str) -> str:
        """Create the batch; the API looks at the requests themselves only later, each by itself."""
        check_requests(requests, token, LIMITS)
        wire = self._wire()
        return wire.id_of(await wire.post(http, _PATH, batch_body(requests), "application/json"))

    async def find(
        self, http: httpx.AsyncClient, token: str, *, size: int | None = None, known: Collection[str] = ()
    ) -> str | None:
        """The ended batch whose results begin with a custom_id of this token.

        Whose a batch in progress is cannot be told. One that may be ours, as
        it is not `known` and not of another `size`, is `BatchTrouble` of a
        transient fault rather than null, as that would have it paid twice. It
        passes when the batch ends, within 24 hours. Results are kept for 29
        days; a batch older than that is not found.
        """
        wire, hidden = self._wire(), 0
        async with aclosing(wire.pages(http, _PATH, "after_id")) as batches:
            async for batch in batches:
                if batch.get("id") in known or size not in (None, count(batch.get("request_counts"), *COUNTS)):
                    continue
                if batch.get("processing_status") != "ended":
                    hidden += 1
                elif batch.get("results_url") and await self._is_marked(http, wire.id_of(batch), token):
                    return wire.id_of(batch)
        if hidden:
            message = f"{hidden} batches are in progress, and one may be {token!r}: asking later can tell"
            raise BatchTrouble(Fault("transient", None, message))
        return None

    async def poll(self, http: httpx.AsyncClient, batch_id: str) -> BatchState:
        """How far the batch is; that its results are no longer kept is its fault."""
        batch = await self._wire().get(http, f"{_PATH}/{in_path(batch_id)}")
        status, counts = batch.get("processing_status"), batch.get("request_counts")
        if not isinstance(status, str):
            raise self._wire().malformed(f"batch {batch_id} has no processing_status")
        gone = status == "ended" and not batch.get("results_url")
        return BatchState(
            ended=status == "ended",
            requests=count(counts, *COUNTS),
            succeeded=count(counts, "succeeded"),
            failed=count(counts, "errored", "canceled", "expired"),
            fault=Fault("transient", None, f"the results of batch {batch_id} are no longer kept") if gone else None,
        )

    async def results(self, http: httpx.AsyncClient, batch_id: str) -> Results:
        """The file of results, from our own base URL: `results_url` could send the key anywhere."""
        state = await self.poll(http, batch_id)
        if not state.ended:
            raise BatchTrouble(Fault("transient", None, f"batch {batch_id} has not ended"))
        if state.fault is not None:
            return
        async with aclosing(self._lines(http, batch_id)) as lines:
            async for line in lines:
                if isinstance(line.get("custom_id"), str):
                    yield line["custom_id"], self._end(line.get("result"))

    def _wire(self) -> Wire:
        return Wire(self.endpoint, self.provider, self.timeout_s)

    async def _lines(self, http: httpx.AsyncClient, batch_id: str) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self._wire().objects(http, f"{_PATH}/{in_path(batch_id)}/results")) as lines:
            async for line in lines:
                yield line

    async def _is_marked(self, http: httpx.AsyncClient, batch_id: str, token: str) -> bool:
        async with aclosing(self._lines(http, batch_id)) as lines:
            async for line in lines:
                return str(line.get("custom_id")).startswith(token)
        return False

    def _end(self, result: Any) -> Answer | Fault:
        kind = result.get("type") if isinstance(result, dict) else None
        if kind == "succeeded":
            return self._wire().parsed(200, result.get("message"))
        if kind == "errored":
            return self._wire().parsed(200, result.get("error"))
        why = {"expired": "the batch expired before this request", "canceled": "the batch was cancelled"}
        return Fault("transient", None, why.get(str(kind), "the batch holds no answer"))


def batch_body(requests: Sequence[tuple[str, bytes]]) -> Parts:
    """The request that creates a batch; the bodies are put in as they are, not parsed again."""

    def parts() -> Iterator[bytes]:
        separator = b'{"requests": ['
        for custom_id, body in requests:
            yield b"".join((separator, f'{{"custom_id": "{custom_id}", "params": '.encode(), body, b"}"))
            separator = b",\n"
        yield b"]}"

    return parts
