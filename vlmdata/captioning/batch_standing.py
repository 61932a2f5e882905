"""How a shard's batches stand: which pictures nothing more is asked about, and whether it makes sense to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Attempt, Waits
from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.provider import Failure, Fault
from vlmdata.captioning.replies import WRONG_ADDRESS
from vlmdata.errors import ConfigError, UserError

PATIENCE = 20
"""Looks at a batch, or batches handed in, that may fail in a row before the rest is left to the next run."""
_LONGEST_REFUSED_S = 600.0
"""Between two batches, if the API does not take them now: its queue is full of others, which take their time."""


class Standing:
    """What is known of a visit beyond the journal. Touched by the event loop's thread alone.

    Attributes:
        over: pictures that the budget had no room for, and why.
        final: pictures whose last answer another request would get again.
        moved: whether anything was settled since `begin_anew`.
        pause: seconds until it makes sense to hand in more.
        halted: why nothing more is handed in, if so.
        error: what the user has to put right, if anything.
    """

    def __init__(self, client: CaptionClient, waits: Waits, told: Callable[[], None]) -> None:
        self._client, self._waits, self._tell_one = client, waits, told
        self._aside: dict[str, tuple[Failure, str]] = {}
        self._told: set[str] = set()
        self._refusals = 0
        self.over: dict[str, str] = {}
        self.final: set[str] = set()
        self.moved = False
        self.pause = 0.0
        self.halted: str | None = None
        self.error: UserError | None = None

    def begin_anew(self) -> None:
        """Another round of looking at what is left."""
        self.moved, self.pause = False, 0.0
        self.over.clear()

    def is_aside(self, key: str) -> bool:
        """Nothing more is asked about it, for a reason that is not in the journal."""
        return key in self._aside

    def set_aside(self, why: Mapping[str, str], failure: Failure) -> None:
        """Ask no more about these in this run."""
        self._aside.update({key: (failure, words) for key, words in why.items()})
        self.tell(why)

    def attempt(self, key: str, entry: Entry | None) -> Attempt:
        """How a picture's attempt ended."""
        if key in self._aside and not (entry and entry.closed):
            return Attempt.not_asked(key, *self._aside[key], entry)
        return Attempt.of(key, entry or Entry())

    def tell(self, keys: Iterable[str]) -> None:
        """Let the user know of pictures that have their end, each once."""
        for key in set(keys) - self._told:
            self._told.add(key)
            self._tell_one()

    def taken(self) -> None:
        """The API takes batches, and sees them through."""
        self._refusals = 0

    def refused(self, fault: Fault) -> None:
        """The API did not take a batch: hand in another one later, unless nothing is gained by that."""
        self._refusals += 1
        nobody_there = fault.blame == "endpoint" and fault.status is None
        most = 1 + self._client.config.max_retries if nobody_there else PATIENCE
        if not fault.worth_retrying or self._refusals >= most:
            self._halt(fault.message, self._error_of(fault))
            return
        self.moved = True
        tried = self._refusals
        longer = 0.0 if nobody_there else min(self._waits.poll_s * 2 ** (tried - 1), _LONGEST_REFUSED_S)
        self.pause = max(self.pause, self._waits.backoff.pause(tried, fault.retry_after) + longer)

    def lost_sight(self, keys: Iterable[str], fault: Fault) -> None:
        """A batch that cannot be looked at now is the next run's."""
        error = self._error_of(fault) if fault.failure == "transient" else None
        if error is not None:
            self._halt(fault.message, error)
        why = f"its batch is under way, and cannot be looked at now: {fault.message}; a rerun fetches it"
        self.set_aside(dict.fromkeys(keys, why), "transient")

    def _halt(self, why: str, error: UserError | None) -> None:
        self.halted = self.halted or why
        self.error = self.error or error

    def _error_of(self, fault: Fault) -> UserError | None:
        client = self._client
        where = f"caption.base_url = {client.endpoint.base_url!r}"
        if fault.status in WRONG_ADDRESS:
            said = f"it has no batch API ({fault.status}: {fault.message})"
            return ConfigError(f"{where}: {said}; set caption.batch: false, or check the address")
        if fault.status is None and not fault.worth_retrying:
            return ConfigError(f"{where}, caption.model = {client.config.model!r}: {fault.message}")
        if fault.blame == "key":
            return client.error("key_refused", fault)
        if fault.failure == "permanent":
            return client.error("refuses_all", fault)
        return client.error("never_there", fault) if fault.unsent else None
