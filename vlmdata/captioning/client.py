"""Asks for captions: bounded concurrency, at most three retries a picture, and no picture lost.

A picture ends as exactly one `Attempt`. When nothing is gained by asking on
(the key is refused, nobody answers), the rest end as failures that a rerun
redoes, and the batch says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx

from vlmdata.captioning import line as lines
from vlmdata.captioning.backoff import Backoff, retry_after_seconds
from vlmdata.captioning.endpoint import Endpoint
from vlmdata.captioning.pictures import UnsendablePicture, for_sending
from vlmdata.captioning.provider import Answer, Failure, Fault, Provider
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, UserError

LARGEST_ANSWER = 1 << 20
"""Bytes; a caption's answer is a few thousand."""

Load = Callable[[], bytes]
"""Gives a picture's original bytes when its turn has come."""

_log = logging.getLogger("vlmdata")


@dataclass(frozen=True)
class Attempt:
    """How one picture ended: a text, or a failure and its last message."""

    text: str | None
    failure: Failure | None
    http_status: int | None
    requests: int
    message: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    @classmethod
    def of(cls, end: Answer | Fault, requests: int) -> Attempt:
        """From the last thing that was heard."""
        if isinstance(end, Answer):
            return cls(end.text, None, end.status, requests, None, end.input_tokens, end.output_tokens)
        return cls(None, end.failure, end.status, requests, end.message)


@dataclass(frozen=True)
class Batch:
    """One attempt a picture, in order, and what the user should put right before asking on."""

    attempts: list[Attempt]
    error: UserError | None = None


class CaptionClient:
    """Asks one endpoint; every client of a process shares the endpoint's limits."""

    def __init__(
        self, endpoint: Endpoint, provider: Provider, config: CaptionConfig, backoff: Backoff | None = None
    ) -> None:
        self._endpoint = endpoint
        self._provider = provider
        self._config = config
        self._backoff = backoff or Backoff()
        self._url = endpoint.base_url + provider.path
        self._headers = {**provider.headers(endpoint.key), "accept-encoding": "identity"}

    def caption_all(self, pictures: Sequence[Load], done: Callable[[], None] = lambda: None) -> Batch:
        """Ask for a caption of each picture; blocks. `done` is called, on another thread, as each ends."""
        return lines.run(self._round(pictures, done))

    async def _round(self, pictures: Sequence[Load], done: Callable[[], None]) -> Batch:
        line = lines.process().line(self._endpoint.base_url, self._config.concurrency)
        visit = _Visit(self, line, done)
        with line.round():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(visit.picture(load)) for load in pictures]
            return Batch([task.result() for task in tasks], visit.verdict())

    async def ask(self, line: lines.Line, body: bytes) -> tuple[Answer | Fault, int]:
        """How it ended, and after how many requests: one, and the retries."""
        end: Answer | Fault = _unasked(line)
        for sent in range(1 + self._config.max_retries):
            if sent and isinstance(end, Fault):
                await line.sleep(self._backoff.pause(sent, end.retry_after))
            async with line.slots:
                if line.halted.is_set():
                    return (end if sent else _unasked(line)), sent
                end = await self._request(line, body)
            if isinstance(end, Answer) or not end.worth_retrying:
                return end, sent + 1
        return end, 1 + self._config.max_retries

    async def _request(self, line: lines.Line, body: bytes) -> Answer | Fault:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                end = await self._exchange(line, body)
        except TimeoutError:
            return Fault("transient", None, f"no answer within {self._config.timeout_s:g} s (caption.timeout_s)")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            why = self._endpoint.mask(f"no connection: {error or 'timed out'}")
            return Fault("transient", None, why, "endpoint")
        except httpx.TransportError as error:
            line.health.reached = True
            why = self._endpoint.mask(f"the connection broke: {error or type(error).__name__}")
            return Fault("transient", None, why)
        if isinstance(end, Answer):
            return replace(end, text=self._endpoint.without_key(end.text))
        return replace(end, message=self._endpoint.mask(end.message))

    async def _exchange(self, line: lines.Line, body: bytes) -> Answer | Fault:
        async with line.http.stream("POST", self._url, content=body, headers=self._headers) as response:
            line.health.reached = True
            reply = await _read(response)
        if reply is None:
            return Fault("transient", response.status_code, "the answer is compressed or longer than 1 MiB")
        end = self._provider.parse(response.status_code, reply)
        if isinstance(end, Answer):
            return end
        wait = retry_after_seconds(response.headers.get("retry-after"), datetime.now(UTC))
        return replace(end, retry_after=wait)

    def error(self, trouble: lines.Trouble, fault: Fault) -> UserError | None:
        """What to tell the user; none if a rerun alone may mend it."""
        where = f"caption.base_url = {self._endpoint.base_url!r}"
        if trouble == "key_refused":
            variable = self._endpoint.key_variable
            return ConfigError(f"{where}: the key in {variable} is refused ({fault.status}: {fault.message})")
        if trouble == "never_there":
            return UserError(f"{where}: {fault.message}; is the server running, and the address right?")
        if trouble == "refuses_all":
            model = self._config.model
            return ConfigError(
                f"{where}, caption.model = {model!r}: every picture is refused ({fault.status}: {fault.message});"
                " check the address and the model's name"
            )
        return None

    def encode(self, load: Load) -> bytes:
        """The request's body; runs on a thread of its own."""
        return self._provider.body(for_sending(load(), self._config.max_side), self._config)


class _Visit:
    """One batch on its way: keeps what the verdict rests on."""

    def __init__(self, client: CaptionClient, line: lines.Line, done: Callable[[], None]) -> None:
        self._client = client
        self._line = line
        self._done = done
        self._ends: list[Answer | Fault] = []

    async def picture(self, load: Load) -> Attempt:
        """One picture from its bytes to its end."""
        async with self._line.room:
            end, requests = await self._ask(load)
        self._ends.append(end)
        if requests and not self._line.halted.is_set():
            self._note(end)
        self._done()
        return Attempt.of(end, requests)

    async def _ask(self, load: Load) -> tuple[Answer | Fault, int]:
        if self._line.halted.is_set():
            return _unasked(self._line), 0
        threads = lines.process().encoders
        try:
            body = await asyncio.get_running_loop().run_in_executor(threads, self._client.encode, load)
        except UnsendablePicture as error:
            return Fault("permanent", None, str(error)), 0
        return await self._client.ask(self._line, body)

    def _note(self, end: Answer | Fault) -> None:
        trouble = self._line.health.note(end)
        if trouble and isinstance(end, Fault):
            error = self._client.error(trouble, end)
            reason = str(error) if error else f"the server stopped answering ({end.message})"
            self._line.halt(reason, error)
            _log.debug("captioning halted: %s", reason)

    def verdict(self) -> UserError | None:
        """The error that halted the line, or that of an address that no picture was right for."""
        if self._line.halted.is_set():
            return self._line.halt_error
        last = self._ends[-1] if self._ends else None
        wrong = all(isinstance(end, Fault) and end.blame == "endpoint" and end.status for end in self._ends)
        if wrong and isinstance(last, Fault) and not self._line.health.answered:
            return self._client.error("refuses_all", last)
        return None


def _unasked(line: lines.Line) -> Fault:
    return Fault("transient", None, f"not asked: {line.halt_reason}")


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
