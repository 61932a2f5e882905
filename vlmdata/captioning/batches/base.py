"""What a caller and a batch API say to each other: many requests at once, answers within a day, half the price."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vlmdata.captioning.provider import Answer, Fault
from vlmdata.errors import VlmdataError

if TYPE_CHECKING:
    import httpx

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Anthropic's rule; OpenAI documents none, and keeps to this one too."""


Results = AsyncGenerator[tuple[str, Answer | Fault], None]
"""Custom_id and end of each request; whoever stops before the end closes it (`contextlib.aclosing`)."""


class BatchTrouble(VlmdataError):
    """A batch API did not do what it was asked: it refused, it broke, or nobody answered.

    Whether a `submit` was carried out is not known where `fault.status` is
    null, 408 or 500 and above (a gateway's time-out): ask `find` before
    submitting again, or it may be paid twice.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True)
class BatchLimits:
    """The largest batch that an API takes."""

    requests: int
    bytes: int
    envelope: int
    """Bytes that one request may need in a batch, over those of its body."""


@dataclass(frozen=True)
class BatchState:
    """How far a batch is.

    `fault` is why the batch as a whole gave nothing: it has ended, has no
    results, and of its requests none has an answer any more.
    """

    ended: bool
    requests: int
    succeeded: int = 0
    failed: int = 0
    fault: Fault | None = None


class BatchApi(Protocol):
    """One batch API. Every method raises `BatchTrouble`, and nothing here asks twice: pauses are the caller's."""

    @property
    def limits(self) -> BatchLimits:
        """What one batch may hold."""

    async def submit(self, http: httpx.AsyncClient, requests: Sequence[tuple[str, bytes]], token: str) -> str:
        """Hand in (custom_id, body as the provider gives it); returns the API's id of the batch.

        `token` marks this submission, so that `find` can tell it; no token is
        the beginning of another, and every custom_id begins with it.

        Raises:
            ValueError: a custom_id or the token breaks these rules, or the batch its limits.
        """

    async def find(
        self, http: httpx.AsyncClient, token: str, *, size: int | None = None, known: Collection[str] = ()
    ) -> str | None:
        """The batch that was submitted with this token before a crash lost its id; null if there is none.

        `size` is its number of requests and `known` are batches whose tokens
        are on record: they rule others out where an API shows no tokens.

        Raises:
            BatchTrouble: also where it cannot be told yet; asking later can tell.
        """

    async def poll(self, http: httpx.AsyncClient, batch_id: str) -> BatchState:
        """How far the batch is."""

    def results(self, http: httpx.AsyncClient, batch_id: str) -> Results:
        """Each request's end, in any order, read line by line and never held whole.

        What expired or was cancelled is a transient fault. A custom_id may be
        missing (the caller knows what it asked for), unknown, or come twice.
        Interrupted, it starts from the beginning again.

        Raises:
            BatchTrouble: also for a batch that has not ended.
        """


def check_requests(requests: Sequence[tuple[str, bytes]], token: str, limits: BatchLimits) -> None:
    """See to it that a batch can be submitted, and found again.

    Raises:
        ValueError: it cannot.
    """
    ids = {custom_id for custom_id, _ in requests}
    if not 1 <= len(requests) <= limits.requests:
        raise ValueError(f"a batch of {len(requests)} requests: expected 1 to {limits.requests}")
    if len(ids) < len(requests):
        raise ValueError(f"{len(requests) - len(ids)} custom_ids are not unique")
    if not CUSTOM_ID.fullmatch(token):
        raise ValueError(f"token {token!r}: expected {CUSTOM_ID.pattern}")
    odd = next((each for each in ids if not (CUSTOM_ID.fullmatch(each) and each.startswith(token))), None)
    if odd is not None:
        raise ValueError(f"custom_id {odd!r}: expected {CUSTOM_ID.pattern}, beginning with the token {token!r}")
    size = sum(len(body) + limits.envelope for _, body in requests)
    if size > limits.bytes:
        raise ValueError(f"a batch of {size} bytes: expected {limits.bytes} at most")
