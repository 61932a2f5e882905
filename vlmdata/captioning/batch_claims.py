"""Requests that were written down for one batch, and who is about to hand them in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.journal.grants import Granted
from vlmdata.captioning.journal.writer import is_gone, this_writer

LONGEST_BATCH_S = 26 * 3600.0
"""Both APIs end a batch within 24 hours."""

in_hand: set[str] = set()
"""Tokens of the batches that this process is about to hand in."""


@dataclass
class Batch:
    """Requests under one token, those of one visit's pictures; `until` (Unix seconds) their answers are waited for."""

    token: str
    writer: str
    until: float
    grants: dict[str, Granted] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    sent: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def new(cls) -> Batch:
        """One of ours, empty."""
        return cls(uuid4().hex[:16], this_writer(), time.time() + LONGEST_BATCH_S)

    def custom_id(self, key: str) -> str:
        """Begins with the token, as a batch is told by it."""
        return f"{self.token}-{key}"

    @property
    def age_s(self) -> float:
        """Seconds since its requests were written down."""
        return time.time() - (self.until - LONGEST_BATCH_S)

    @property
    def is_orphan(self) -> bool:
        """Whoever wrote the requests down does nothing more about them; False where that cannot be known."""
        if self.writer == this_writer():
            return self.token not in in_hand
        return is_gone(self.writer)

    @property
    def is_over(self) -> bool:
        """Its time has passed, and its requests do not keep anybody from asking anew."""
        return time.time() > self.until

    def drop_what_ended(self, known: Mapping[str, Entry]) -> None:
        """Somebody else may have taken it up as well, and settled some of it."""
        self.grants = {key: grant for key, grant in self.grants.items() if self._is_open(known.get(key), grant)}

    def _is_open(self, entry: Entry | None, grant: Granted) -> bool:
        claim = entry.open.get(grant.request) if entry and entry.attempt == grant.attempt else None
        return claim is not None and claim.batch == self.token


def under_way(entries: Mapping[str, Entry]) -> list[Batch]:
    """Batches that hold an open request for one of these pictures."""
    found: dict[str, Batch] = {}
    for key, entry in entries.items():
        for request, claim in entry.open.items():
            if claim.batch is not None:
                batch = found.setdefault(claim.batch, Batch(claim.batch, claim.writer, claim.until))
                batch.grants[key] = Granted(entry.attempt, request, claim.until)
    return list(found.values())
