"""What asking for one shard's captions in batches goes on with, from its first picture to its last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from vlmdata.captioning.batch_claims import Batch
from vlmdata.captioning.batch_records import BatchRecords
from vlmdata.captioning.batch_standing import Standing
from vlmdata.captioning.batches.base import BatchApi
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Endings, Manners, Subject
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.line import on_a_thread


@dataclass(frozen=True)
class Visit:
    """The API, the journal, the records of batches, and the pictures by their keys."""

    client: CaptionClient
    api: BatchApi
    http: httpx.AsyncClient
    journal: Journal
    records: BatchRecords
    manners: Manners
    endings: Endings
    subjects: Mapping[str, Subject]
    standing: Standing

    @property
    def address(self) -> str:
        """Where batches are handed in."""
        return self.client.endpoint.base_url

    @property
    def most(self) -> int:
        """Requests that an attempt may send."""
        return 1 + self.client.config.max_retries

    async def accept(self, batch: Batch, batch_id: str) -> None:
        """Put on record that the API has the batch."""
        await on_a_thread(self.records.accept, batch.token, batch_id, self.address)

    async def forget_pictures(self, batch: Batch) -> None:
        """The batch has its end: nobody follows its links any more."""
        await on_a_thread(self.manners.transport.of_batch(batch.token).forget_all)
