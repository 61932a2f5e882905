"""Captions for many pictures by a provider's batch API: one submission, an answer within a day, half the price.

Each request is written down with its batch's token before the batch is handed
in, and the batch's id right after. Whoever finds such requests open, in this
run or a later one, on this machine or another, takes the batch up where it is:
it is never handed in twice, and nobody waits for the one who did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import TypeVar

import httpx

from vlmdata.captioning import line as lines
from vlmdata.captioning.asking import encoded, on_a_thread
from vlmdata.captioning.batch_claims import LONGEST_BATCH_S, Batch, in_hand, under_way
from vlmdata.captioning.batch_records import BatchRecords, Begun
from vlmdata.captioning.batches.base import BatchApi, BatchState, BatchTrouble
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Attempt, Endings, Manners, Round, Subject
from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.journal.grants import Finished, Granted, OverBudget, UnderWay, Wish, unsent
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.journal.records import End
from vlmdata.captioning.money import BATCH_FACTOR
from vlmdata.captioning.pictures import UnsendablePicture, for_sending
from vlmdata.captioning.provider import Answer, Failure, Fault
from vlmdata.captioning.replies import WRONG_ADDRESS
from vlmdata.checkpoint import Dataset
from vlmdata.errors import ConfigError, UserError

__all__ = ["LONGEST_BATCH_S", "caption_in_batches"]

T = TypeVar("T")

_LONGEST_SUBMISSION_S = 1800.0
_LONGEST_PAUSE_S = 60.0
"""Between two looks at a batch."""
_LONGEST_REFUSED_S = 600.0
"""Between two batches, if the API does not take them now: its queue is full of others, which take their time."""
_FROM_CLAIM_TO_BEGIN_S = 60.0
"""What lies between is a few objects put."""
_PATIENCE = 20
"""Looks at a batch, or batches handed in, that may fail in a row before the rest is left to the next run."""
_TOGETHER = 16
"""Pictures that are encoded at once."""
_CHUNK = 256
"""Answers that are written down at once."""


@dataclass(frozen=True)
class _Whose:
    """The API's id of a batch; null if the API never got it."""

    batch_id: str | None


async def caption_in_batches(
    client: CaptionClient,
    api: BatchApi,
    journal: Journal,
    dataset: Dataset,
    subjects: Sequence[Subject],
    manners: Manners,
) -> Round:
    """One attempt a picture, in order; what an earlier run handed in is fetched, not asked for again."""
    line = lines.process().line(client.endpoint.base_url, client.config)
    with line.http() as http:
        return await _BatchVisit(client, api, journal, BatchRecords(dataset), http, manners).all(subjects)


class _BatchVisit:
    """One shard's batches on their way."""

    def __init__(
        self,
        client: CaptionClient,
        api: BatchApi,
        journal: Journal,
        records: BatchRecords,
        http: httpx.AsyncClient,
        manners: Manners,
    ) -> None:
        self._client, self._api, self._journal, self._records = client, api, journal, records
        self._http, self._manners = http, manners
        self._endings = Endings(client.config, manners.prompt)
        self._most = 1 + client.config.max_retries
        self._subjects: dict[str, Subject] = {}
        # Why nothing more is asked about a picture, where that is not in the journal.
        self._aside: dict[str, tuple[Failure, str]] = {}
        self._over: dict[str, str] = {}
        # Pictures whose last answer another request would get again.
        self._final: set[str] = set()
        self._told: set[str] = set()
        self._moved = False
        self._refusals = 0
        self._pause = 0.0
        self._halted: str | None = None
        self._error: UserError | None = None

    async def all(self, subjects: Sequence[Subject]) -> Round:
        """The attempt of each picture; an error if nothing is gained by going on."""
        self._subjects = {subject.key: subject for subject in subjects}
        while left := await self._left():
            await asyncio.sleep(self._pause)
            await self._once(left)
        entries = await self._journal.find(self._subjects)
        self._tell(self._subjects)
        return Round([self._attempt(subject.key, entries.get(subject.key)) for subject in subjects], self._error)

    def _attempt(self, key: str, entry: Entry | None) -> Attempt:
        if key in self._aside and not (entry and entry.closed):
            return Attempt.not_asked(key, *self._aside[key], entry)
        return Attempt.of(key, entry or Entry())

    async def _left(self) -> dict[str, Entry]:
        """Pictures that are still to be asked about or under way, and what the journal knows of them now."""
        keys = [key for key in self._subjects if key not in self._aside]
        known = await self._journal.find(keys)
        entries = {key: known.get(key, Entry()) for key in keys}
        return {key: entry for key, entry in entries.items() if self._wants(key, entry)}

    def _wants(self, key: str, entry: Entry) -> bool:
        if entry.closed:
            return False
        if any(claim.batch for claim in entry.open.values()):
            return True
        others = any(claim.until > time.time() for claim in entry.open.values())
        return key not in self._final and (others or entry.requests < self._most)

    async def _once(self, left: Mapping[str, Entry]) -> None:
        """Take up what is under way and hand in the rest, to the end of all these batches."""
        self._moved, self._pause = False, 0.0
        self._over.clear()
        batches = under_way(left)
        taken = {key for batch in batches for key in batch.grants}
        async with _together() as group:
            for batch in batches:
                group.create_task(self._take_up(batch))
            await self._ask([self._subjects[key] for key in left if key not in taken], group)
        if not self._moved:
            # What was settled for less than was set aside makes room; nothing was.
            self._set_aside(self._over, "budget")

    async def _ask(self, subjects: Sequence[Subject], group: asyncio.TaskGroup) -> None:
        """Hand in as many batches as it takes, one at a time for all shards of the process: this bounds memory."""
        while subjects and self._halted is None:
            async with _one_at_a_time(asyncio.get_running_loop()):
                batch = Batch.new()
                taken = await self._pack(batch, subjects)
                handed_in = await self._hand_in(batch)
            group.create_task(self._see_through(batch, handed_in))
            subjects = subjects[taken:]
        if self._halted is not None:
            self._set_aside({subject.key: f"not asked: {self._halted}" for subject in subjects}, "transient")

    async def _pack(self, batch: Batch, subjects: Sequence[Subject]) -> int:
        """Encode as many pictures as a batch holds; returns how many subjects that settles."""
        limits, size = self._api.limits, 0
        for first in range(0, len(subjects), _TOGETHER):
            some = subjects[first : first + _TOGETHER]
            packed = await asyncio.gather(*(self._encoded(batch.token, subject) for subject in some))
            for place, (subject, body) in enumerate(zip(some, packed, strict=True), first):
                if body is None:
                    continue
                size += len(body[0]) + limits.envelope
                if batch.bodies and (size > limits.bytes or len(batch.bodies) == limits.requests):
                    return place
                batch.bodies[subject.key], batch.sent[subject.key] = body
        return len(subjects)

    async def _encoded(self, token: str, subject: Subject) -> tuple[bytes, tuple[int, ...]] | None:
        """A picture's request and what of the picture is in it; None, and so it ends, if it cannot be sent."""
        transport = self._manners.transport.of_batch(token)
        try:
            body, picture = await on_a_thread(encoded, self._client, transport, subject)
        except UnsendablePicture as error:
            self._set_aside({subject.key: str(error)}, "permanent")
            return None
        return body, self._endings.sent(subject.question, picture)

    async def _hand_in(self, batch: Batch) -> str | BatchTrouble | None:
        """Claim the requests and hand them in: the API's id of the batch; None if nothing was to be handed in."""
        in_hand.add(batch.token)
        try:
            await self._claim(batch)
            if not batch.grants or not await self._begin(batch):
                return None
            requests = [(batch.custom_id(key), batch.bodies[key]) for key in batch.grants]
            async with asyncio.timeout(_LONGEST_SUBMISSION_S):
                batch_id = await self._api.submit(self._http, requests, batch.token)
            await self._accept(batch, batch_id)
            return batch_id
        except TimeoutError:
            return BatchTrouble(Fault("transient", None, f"not handed in within {_LONGEST_SUBMISSION_S:g} s"))
        except BatchTrouble as trouble:
            return trouble
        finally:
            batch.bodies.clear()
            in_hand.discard(batch.token)

    async def _claim(self, batch: Batch) -> None:
        """Write the requests down, those that may be sent."""
        grants = await asyncio.gather(*(self._journal.claim(self._wish(batch, key)) for key in batch.bodies))
        for key, grant in zip(batch.bodies, grants, strict=True):
            if isinstance(grant, Granted):
                batch.grants[key] = grant
            elif isinstance(grant, Finished):
                self._final.add(key)
            elif isinstance(grant, OverBudget):
                self._over[key] = self._endings.over(grant.account)
            elif isinstance(grant, UnderWay):
                self._pause = self._manners.waits.poll_s

    def _wish(self, batch: Batch, key: str) -> Wish:
        reserve = ceil(self._endings.reserve(self._subjects[key].question) * BATCH_FACTOR)
        return Wish(key, reserve, LONGEST_BATCH_S, self._most, batch.token)

    async def _see_through(self, batch: Batch, handed_in: str | BatchTrouble | None) -> None:
        """From handing in to the end."""
        if isinstance(handed_in, BatchTrouble):
            self._refused(handed_in.fault)
            if _is_unclear(handed_in.fault):
                await self._take_up(batch)
            else:
                await self._give_back(batch)
        elif handed_in is not None:
            await self._take_up(batch, handed_in)
        else:
            await self._forget_pictures(batch)

    async def _take_up(self, batch: Batch, batch_id: str | None = None) -> None:
        """See a batch that somebody may have handed in to its end, and write down what became of each request."""
        try:
            whose = _Whose(batch_id) if batch_id else await self._patiently(lambda: self._find(batch))
            if whose.batch_id is None:
                await self._give_back(batch)
            else:
                await self._fetch(batch, whose.batch_id)
        except BatchTrouble as trouble:
            await self._leave(batch, trouble.fault)

    async def _find(self, batch: Batch) -> _Whose | None:
        """The API's id of the batch, if there is one; None if that cannot be told yet."""
        accepted = await on_a_thread(self._records.accepted, batch.token)
        if accepted is not None:
            self._check_address(accepted.where)
            return _Whose(accepted.batch)
        batch.drop_what_ended(await self._journal.find(batch.grants))
        begun = await on_a_thread(self._records.begun, batch.token)
        if not batch.grants or (begun is None and await self._given_up(batch)):
            return _Whose(None)
        return None if begun is None else await self._sought(batch, begun)

    async def _given_up(self, batch: Batch) -> bool:
        """Nobody has begun to hand it in. It is given up if nobody seems to be about to."""
        late = batch.age_s > _FROM_CLAIM_TO_BEGIN_S
        return (batch.is_orphan or late) and await on_a_thread(self._records.give_up, batch.token)

    async def _sought(self, batch: Batch, begun: Begun) -> _Whose | None:
        """Somebody has begun to hand it in; whether it arrived, the API has to say."""
        if not begun.requests:
            return _Whose(None)
        self._check_address(begun.where)
        known = await on_a_thread(self._records.all_accepted)
        found = await self._api.find(self._http, batch.token, size=begun.requests, known=known)
        if found is not None:
            await self._accept(batch, found)
            return _Whose(found)
        # What a dead process sent may be on its way for a moment; a living one sends for as long as it takes.
        longest = self._manners.waits.poll_s if batch.is_orphan else _LONGEST_SUBMISSION_S
        return _Whose(None) if time.time() > begun.at + longest else None

    def _check_address(self, where: str) -> None:
        here = self._client.endpoint.base_url
        if where != here:
            why = f"it was handed in at {where}, and caption.base_url is {here}; set that back to fetch it"
            raise BatchTrouble(Fault("permanent", None, why))

    async def _fetch(self, batch: Batch, batch_id: str) -> None:
        """Wait for the batch's end, and write down what became of each request."""
        start = time.monotonic()
        state = await self._patiently(lambda: self._ended(batch_id))
        if state.fault is not None and not state.succeeded + state.failed:
            self._refused(state.fault)
            await self._give_back(batch)
            return
        share = (time.monotonic() - start) / max(1, state.requests)
        if state.fault is None:
            await self._patiently(lambda: self._take_results(batch, batch_id, share))
        self._refusals = 0
        lost = state.fault or Fault("transient", None, f"batch {batch_id} holds no answer")
        await self._settle(batch, dict.fromkeys(batch.grants, lost), share)
        await self._forget_pictures(batch)

    async def _ended(self, batch_id: str) -> BatchState | None:
        state = await self._api.poll(self._http, batch_id)
        return state if state.ended else None

    async def _take_results(self, batch: Batch, batch_id: str, share: float) -> bool:
        """Write down each request's end; what is written down is passed over when it comes again."""
        ends: dict[str, Answer | Fault] = {}
        keys = {batch.custom_id(key): key for key in batch.grants}
        try:
            async with aclosing(self._api.results(self._http, batch_id)) as results:
                async for custom_id, end in results:
                    key = keys.pop(custom_id, None)
                    if key is not None:
                        ends[key] = _of_the_batch(end)
                    if len(ends) == _CHUNK:
                        await self._settle(batch, ends, share)
                        ends = {}
        finally:
            await self._settle(batch, ends, share)
        return True

    async def _settle(self, batch: Batch, ends: Mapping[str, Answer | Fault], seconds: float) -> None:
        records = await asyncio.gather(*(self._record(batch, key, end, seconds) for key, end in ends.items()))
        await asyncio.gather(*(self._journal.settle(record) for record in records))
        self._moved = self._moved or bool(records)
        for record in records:
            del batch.grants[record.key]
        self._tell(record.key for record in records if record.text is not None or record.key in self._final)

    async def _record(self, batch: Batch, key: str, end: Answer | Fault, seconds: float) -> End:
        subject = self._subjects[key]
        if isinstance(end, Fault) and not end.worth_retrying:
            self._final.add(key)
        cleaned = await on_a_thread(self._endings.cleaned, end, subject.question)
        sent = batch.sent.get(key) or await on_a_thread(self._sent, subject)
        return self._endings.record(subject, batch.grants[key], cleaned, seconds, sent, batch=True)

    def _sent(self, subject: Subject) -> tuple[int, ...]:
        """What of a picture is in a request that an earlier run made."""
        return self._endings.sent(subject.question, for_sending(subject.load(), self._client.config.max_side))

    async def _give_back(self, batch: Batch) -> None:
        """Requests that were written down, and that no model ever saw."""
        batch.drop_what_ended(await self._journal.find(batch.grants))
        await asyncio.gather(*(self._journal.settle(unsent(key, grant)) for key, grant in batch.grants.items()))
        batch.grants.clear()
        await self._forget_pictures(batch)

    async def _leave(self, batch: Batch, fault: Fault) -> None:
        """The batch is the next run's, unless its time has passed: what it costs stays spent then, and it is lost."""
        error = self._error_of(fault) if fault.failure == "transient" else None
        if error is not None:
            self._halt(fault.message, error)
        if fault.failure == "permanent" and batch.is_over:
            lost = Fault("transient", None, f"the batch is lost: {fault.message}")
            await self._settle(batch, dict.fromkeys(batch.grants, lost), 0.0)
            return
        why = f"its batch is under way, and cannot be looked at now: {fault.message}; a rerun fetches it"
        self._set_aside(dict.fromkeys(batch.grants, why), "transient")

    def _refused(self, fault: Fault) -> None:
        """The API did not take a batch: hand in another one later, unless nothing is gained by that."""
        self._refusals += 1
        nobody_there = fault.blame == "endpoint" and fault.status is None
        if not fault.worth_retrying or self._refusals >= (self._most if nobody_there else _PATIENCE):
            self._halt(fault.message, self._error_of(fault))
            return
        self._moved = True
        waits, tried = self._manners.waits, self._refusals
        longer = 0.0 if nobody_there else min(waits.poll_s * 2 ** (tried - 1), _LONGEST_REFUSED_S)
        self._pause = max(self._pause, waits.backoff.pause(tried, fault.retry_after) + longer)

    def _error_of(self, fault: Fault) -> UserError | None:
        """What the user has to put right, if anything."""
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

    def _halt(self, why: str, error: UserError | None) -> None:
        self._halted = self._halted or why
        self._error = self._error or error

    def _set_aside(self, why: Mapping[str, str], failure: Failure) -> None:
        self._aside.update({key: (failure, words) for key, words in why.items()})
        self._tell(why)

    def _tell(self, keys: Iterable[str]) -> None:
        """Let the user know of pictures that have their end."""
        for key in set(keys) - self._told:
            self._told.add(key)
            self._manners.done(self._journal.account)

    async def _begin(self, batch: Batch) -> bool:
        where = self._client.endpoint.base_url
        return await on_a_thread(self._records.begin, batch.token, len(batch.grants), where)

    async def _accept(self, batch: Batch, batch_id: str) -> None:
        await on_a_thread(self._records.accept, batch.token, batch_id, self._client.endpoint.base_url)

    async def _forget_pictures(self, batch: Batch) -> None:
        await on_a_thread(self._manners.transport.of_batch(batch.token).forget_all)

    async def _patiently(self, look: Callable[[], Awaitable[T | None]]) -> T:
        """Look until there is something to see.

        Raises:
            BatchTrouble: it is no use, or it has been for too many times.
        """
        pause, troubles, waits = self._manners.waits.poll_s, 0, self._manners.waits
        while True:
            wait = pause
            try:
                found = await look()
                troubles = 0
                if found is not None:
                    return found
            except BatchTrouble as trouble:
                troubles += 1
                if not trouble.fault.worth_retrying or troubles >= _PATIENCE:
                    raise
                wait += waits.backoff.pause(troubles, trouble.fault.retry_after)
            await asyncio.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _of_the_batch(end: Answer | Fault) -> Answer | Fault:
    """A request that expired or was cancelled with its batch reached no model: it is not the picture's, and is free."""
    return replace(end, blame="endpoint") if isinstance(end, Fault) and end.status is None else end


def _is_unclear(fault: Fault) -> bool:
    """Whether the batch may have been handed in after all: `BatchTrouble` says when."""
    return not fault.unsent and (fault.status is None or fault.status == 408 or fault.status >= 500)


@lru_cache(maxsize=1)
def _one_at_a_time(loop: asyncio.AbstractEventLoop) -> asyncio.Lock:
    return asyncio.Lock()


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that are ended by the first error of one, which is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
