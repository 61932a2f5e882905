"""OpenAI's Batch API: a file of requests goes up, files of answers and of errors come down.

https://platform.openai.com/docs/guides/batch and /docs/api-reference/batch
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from vlmdata.captioning.batches.base import BatchLimits, BatchState, BatchTrouble, Results, check_requests
from vlmdata.captioning.batches.wire import Parts, Wire, count, in_path
from vlmdata.captioning.endpoint import Endpoint
from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.provider import Answer, Fault
from vlmdata.captioning.replies import error_message

LIMITS = BatchLimits(requests=50_000, bytes=200_000_000, envelope=160)
MARK = "vlmdata"
"""The key of a batch's metadata that holds our token."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
OUT_OF_MONEY = frozenset({"billing_hard_limit_reached", "insufficient_quota"})
WRONG_REQUESTS = frozenset({
    "invalid_json_line", "invalid_request", "invalid_url", "url_mismatch", "invalid_method", "model_not_found",
    "model_mismatch", "mismatched_model", "duplicate_custom_id", "missing_required_parameter", "empty_file",
    "too_many_tasks",
})  # fmt: skip
"""Reasons of a failed validation that the same requests meet again; others (a full queue) pass."""


@dataclass(frozen=True)
class OpenAIBatches:
    """Batches of chat completions. A batch's own metadata holds the token, so that `find` always knows."""

    endpoint: Endpoint
    timeout_s: float = 600.0
    provider: OpenAI = field(default_factory=OpenAI)

    @property
    def limits(self) -> BatchLimits:
        """50,000 requests and 200 MB."""
        return LIMITS

    async def submit(self, http: httpx.AsyncClient, requests: Sequence[tuple[str, bytes]], token: str) -> str:
        """Upload the file, create the batch. A crash between the two leaves a file that costs nothing."""
        check_requests(requests, token, LIMITS)
        wire, boundary = self._wire(), uuid4().hex
        form = f"multipart/form-data; boundary={boundary}"
        upload = await wire.post(http, "/files", self._form(requests, token, boundary), form)
        batch = {
            "input_file_id": wire.id_of(upload),
            "endpoint": self._url(),
            "completion_window": "24h",
            "metadata": {MARK: token},
        }
        body = json.dumps(batch).encode()
        return wire.id_of(await wire.post(http, "/batches", lambda: [body], "application/json"))

    async def find(
        self, http: httpx.AsyncClient, token: str, *, size: int | None = None, known: Collection[str] = ()
    ) -> str | None:
        """The latest batch whose metadata holds the token."""
        wire = self._wire()
        async with aclosing(wire.pages(http, "/batches", "after")) as batches:
            async for batch in batches:
                metadata = batch.get("metadata")
                if isinstance(metadata, dict) and metadata.get(MARK) == token:
                    return wire.id_of(batch)
        return None

    async def poll(self, http: httpx.AsyncClient, batch_id: str) -> BatchState:
        """How far the batch is; a failed validation is its fault."""
        return self._state(await self._batch(http, batch_id))

    async def results(self, http: httpx.AsyncClient, batch_id: str) -> Results:
        """The file of answers, then the file of errors; either may be absent."""
        batch, wire = await self._batch(http, batch_id), self._wire()
        if not self._state(batch).ended:
            raise BatchTrouble(Fault("transient", None, f"batch {batch_id} has not ended"))
        for name in ("output_file_id", "error_file_id"):
            if not isinstance(batch.get(name), str):
                continue
            async with aclosing(wire.objects(http, f"/files/{in_path(batch[name])}/content")) as lines:
                async for line in lines:
                    if isinstance(line.get("custom_id"), str):
                        yield line["custom_id"], self._end(line)

    def _wire(self) -> Wire:
        return Wire(self.endpoint, self.provider, self.timeout_s)

    def _url(self) -> str:
        """What the API calls its endpoint, whatever the base URL."""
        return f"/v1{self.provider.path}"

    def _form(self, requests: Sequence[tuple[str, bytes]], token: str, boundary: str) -> Parts:
        def parts() -> Iterator[bytes]:
            yield (
                f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
                f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{token}.jsonl"\r\n'
                "Content-Type: application/jsonl\r\n\r\n"
            ).encode()
            for custom_id, body in requests:
                yield request_line(custom_id, body, self._url())
            yield f"\r\n--{boundary}--\r\n".encode()

        return parts

    async def _batch(self, http: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
        batch = await self._wire().get(http, f"/batches/{in_path(batch_id)}")
        if not isinstance(batch.get("status"), str):
            raise self._wire().malformed(f"batch {batch_id} has no status")
        return batch

    def _state(self, batch: dict[str, Any]) -> BatchState:
        counts = batch.get("request_counts")
        failed = batch["status"] == "failed"
        return BatchState(
            ended=batch["status"] in ENDED,
            requests=count(counts, "total"),
            succeeded=count(counts, "completed"),
            failed=count(counts, "failed"),
            fault=self._why_failed(batch.get("errors")) if failed else None,
        )

    def _why_failed(self, errors: Any) -> Fault:
        listed = errors.get("data") if isinstance(errors, dict) else None
        first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
        code, line = first.get("code"), first.get("line")
        where = f" (line {line})" if type(line) is int else ""
        said = error_message({"error": first}, b"") or "no reason is given"
        message = self.endpoint.mask(f"the batch failed: {said}{where}")
        if code in OUT_OF_MONEY:
            return Fault("transient", None, message, "key")
        if code in WRONG_REQUESTS:
            return Fault("permanent", None, message, "endpoint")
        return Fault("transient", None, message)

    def _end(self, line: dict[str, Any]) -> Answer | Fault:
        """What the request got, or why it was never sent: expired, cancelled, timed out."""
        wire, response = self._wire(), line.get("response")
        status = response.get("status_code") if isinstance(response, dict) else None
        if isinstance(response, dict) and type(status) is int and 200 <= status < 600:
            return wire.parsed(status, response.get("body"))
        said = error_message({"error": line.get("error")}, b"") or "the batch holds no answer"
        return wire.masked(Fault("transient", None, said))


def request_line(custom_id: str, body: bytes, url: str) -> bytes:
    """One request as a line of the file; the body is put in as it is, not parsed again."""
    head = f'{{"custom_id": "{custom_id}", "method": "POST", "url": "{url}", "body": '
    return b"".join((head.encode(), body, b"}\n"))
