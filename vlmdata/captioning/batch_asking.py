"""Captions for many pictures by a provider's batch API: one submission, an answer within a day, half the price.

Each request is written down with the batch's token before the batch is
submitted, and the batch's id right after. A run that finds such requests open
takes the batch up where it is: it is never submitted twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from vlmdata import layout
from vlmdata.captioning import line as lines
from vlmdata.captioning.asking import encoded, on_a_thread
from vlmdata.captioning.batches.base import BatchApi, BatchTrouble
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Attempt, Endings, Manners, Round, Subject
from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.journal.grants import Finished, Granted, OverBudget, Wish, unsent
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.pictures import Picture, UnsendablePicture
from vlmdata.captioning.provider import Answer, Fault
from vlmdata.checkpoint import Dataset
from vlmdata.errors import UserError

LONGEST_BATCH_S = 26 * 3600.0
"""Both APIs end a batch within 24 hours."""
_LONGEST_POLL_S = 60.0
_PATIENCE = 20
"""Polls in a row that may fail before the batch is left to the next run."""


@dataclass
class _Batch:
    """Requests that were written down under one token."""

    token: str
    grants: dict[str, Granted] = field(default_factory=dict)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    sent: dict[str, tuple[int, ...]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    size: int = 0

    def custom_id(self, key: str) -> str:
        """Begins with the token, as a batch is told by it."""
        return f"{self.token}-{key}"


async def caption_in_batches(
    client: CaptionClient,
    api: BatchApi,
    journal: Journal,
    dataset: Dataset,
    subjects: Sequence[Subject],
    manners: Manners,
) -> Round:
    """One attempt a picture, in order; what an earlier run submitted is fetched, not asked for again."""
    line = lines.process().line(client.endpoint.base_url, client.config)
    with line.http() as http:
        attempts, error = await _BatchVisit(client, api, journal, dataset, http, manners).all(subjects)
    return Round([attempts[subject.key] for subject in subjects], error)


class _BatchVisit:
    """One shard's batches on their way."""

    def __init__(
        self,
        client: CaptionClient,
        api: BatchApi,
        journal: Journal,
        dataset: Dataset,
        http: httpx.AsyncClient,
        manners: Manners,
    ) -> None:
        self._client, self._api, self._journal, self._dataset = client, api, journal, dataset
        self._http, self._manners = http, manners
        self._endings = Endings(client.config, manners.prompt)
        self._most = 1 + client.config.max_retries
        self._attempts: dict[str, Attempt] = {}
        self._subjects: dict[str, Subject] = {}

    async def all(self, subjects: Sequence[Subject]) -> tuple[dict[str, Attempt], UserError | None]:
        """The attempt of each key; an error if nothing is gained by going on."""
        self._subjects = {subject.key: subject for subject in subjects}
        error: UserError | None = None
        try:
            await self._take_up(await self._journal.find(self._subjects))
            while left := [subject for key, subject in self._subjects.items() if self._wants(key)]:
                await self._ask(left)
        except BatchTrouble as trouble:
            error = self._client.error("key_refused", trouble.fault) if trouble.fault.blame == "key" else None
            self._leave(str(trouble))
        return self._attempts, error

    def _wants(self, key: str) -> bool:
        """Not asked about yet, or a request failed that another may mend."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return True
        again = attempt.failure == "transient" and attempt.at is not None and attempt.sent is not None
        return again and 0 < attempt.requests < self._most

    def _leave(self, why: str) -> None:
        for key in self._subjects:
            self._attempts.setdefault(key, Attempt.not_asked(key, "transient", f"not asked: {why}"))

    async def _take_up(self, known: Mapping[str, Entry]) -> None:
        """Batches that an earlier run left under way, this one's pictures in them."""
        found: dict[str, _Batch] = {}
        for key, entry in known.items():
            for request, claim in entry.open.items():
                if claim.batch is not None:
                    batch = found.setdefault(claim.batch, _Batch(claim.batch))
                    batch.grants[key] = Granted(entry.attempt, request, claim.until)
        for batch in found.values():
            batch_id = await self._recorded(batch.token) or await self._api.find(self._http, batch.token)
            if batch_id is None:
                await self._give_back(batch)
            else:
                await self._fetch(batch, batch_id)

    async def _ask(self, subjects: Sequence[Subject]) -> None:
        """As many as fit into one batch, from the journal's grant to the last answer."""
        batch = _Batch(uuid4().hex[:16])
        try:
            for subject in subjects:
                if len(batch.bodies) >= self._api.limits.requests or not await self._put_in(batch, subject):
                    break
            if batch.bodies:
                await self._fetch(batch, await self._submitted(batch))
        finally:
            for picture in batch.pictures:
                await on_a_thread(self._manners.transport.forget, picture)

    async def _put_in(self, batch: _Batch, subject: Subject) -> bool:
        """Add a picture's request, if it may be sent; False if the batch is full."""
        try:
            body, picture = await on_a_thread(encoded, self._client, self._manners.transport, subject)
        except UnsendablePicture as error:
            self._end(Attempt.not_asked(subject.key, "permanent", str(error)))
            return True
        batch.pictures.append(picture)
        size = len(body) + self._api.limits.envelope
        if batch.bodies and batch.size + size > self._api.limits.bytes:
            return False
        reserve = self._endings.reserve(subject.question)
        grant = await self._journal.claim(Wish(subject.key, reserve, LONGEST_BATCH_S, self._most, batch.token))
        if isinstance(grant, Granted):
            batch.grants[subject.key] = grant
            batch.bodies.append((batch.custom_id(subject.key), body))
            batch.sent[subject.key] = self._endings.sent(subject.question, picture)
            batch.size += size
        elif isinstance(grant, Finished):
            self._end(Attempt.of(subject.key, grant.entry))
        elif isinstance(grant, OverBudget):
            self._end(Attempt.not_asked(subject.key, "budget", self._endings.over(grant.account)))
        else:
            self._end(
                Attempt.not_asked(subject.key, "transient", "not asked: another run is asking about this picture")
            )
        return True

    async def _submitted(self, batch: _Batch) -> str:
        """The API's id of the batch, on record. Where nobody knows whether it arrived, the API is asked."""
        for tried in range(1, self._most + 1):
            try:
                batch_id = await self._api.submit(self._http, batch.bodies, batch.token)
                break
            except BatchTrouble as trouble:
                found = await self._found(batch, trouble)
                if found is not None:
                    batch_id = found
                    break
                if not trouble.fault.worth_retrying or tried == self._most:
                    await self._give_back(batch)
                    raise
                await asyncio.sleep(self._manners.waits.backoff.pause(tried, trouble.fault.retry_after))
        batch.bodies.clear()
        await on_a_thread(self._record_id, batch.token, batch_id)
        return batch_id

    async def _found(self, batch: _Batch, trouble: BatchTrouble) -> str | None:
        """The batch after all, where the answer to its submission was lost."""
        status = trouble.fault.status
        if status is not None and status != 408 and status < 500:
            return None
        return await self._api.find(self._http, batch.token, size=len(batch.grants))

    async def _fetch(self, batch: _Batch, batch_id: str) -> None:
        """Wait for the batch's end, and write down what became of each request."""
        start = time.monotonic()
        fault = await self._ended(batch_id)
        if fault is None:
            async with aclosing(self._api.results(self._http, batch_id)) as results:
                async for custom_id, end in results:
                    key = custom_id.removeprefix(f"{batch.token}-")
                    if key in batch.grants and key in self._subjects:
                        await self._settle(batch, key, end, time.monotonic() - start)
        why = fault or Fault("transient", None, f"batch {batch_id} holds no answer")
        for key in list(batch.grants):
            await self._settle(batch, key, why, time.monotonic() - start)

    async def _ended(self, batch_id: str) -> Fault | None:
        """Wait; the fault of the batch as a whole, if it has one."""
        pause, troubles = self._manners.waits.poll_s, 0
        while True:
            try:
                state = await self._api.poll(self._http, batch_id)
                troubles = 0
                if state.ended:
                    return state.fault
            except BatchTrouble as trouble:
                troubles += 1
                if not trouble.fault.worth_retrying or troubles >= _PATIENCE:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_S)

    async def _settle(self, batch: _Batch, key: str, end: Answer | Fault, seconds: float) -> None:
        subject, grant = self._subjects[key], batch.grants.pop(key)
        cleaned = self._endings.cleaned(end, subject.question)
        sent = batch.sent.get(key, ())
        record = self._endings.record(subject, grant, cleaned, seconds, sent, batch=True)
        await self._journal.settle(record)
        self._end(Attempt.ended(record, grant.request))

    async def _give_back(self, batch: _Batch) -> None:
        """Requests that were written down and never submitted."""
        await asyncio.gather(*(self._journal.settle(unsent(key, grant)) for key, grant in batch.grants.items()))
        batch.grants.clear()

    def _end(self, attempt: Attempt) -> None:
        if attempt.key not in self._attempts:
            self._manners.done(self._journal.account)
        self._attempts[attempt.key] = attempt

    def _record_id(self, token: str, batch_id: str) -> None:
        path = layout.journal_batch(self._dataset.name, token)
        self._dataset.store.create(path, json.dumps({"batch": batch_id}).encode())

    async def _recorded(self, token: str) -> str | None:
        def read() -> str | None:
            try:
                raw = json.loads(self._dataset.store.get(layout.journal_batch(self._dataset.name, token)))
            except FileNotFoundError:
                return None
            return str(raw["batch"])

        return await on_a_thread(read)
