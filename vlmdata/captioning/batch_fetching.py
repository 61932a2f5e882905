"""A batch that somebody may have handed in, seen to its end: found, waited for, and what became of each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from vlmdata.captioning.batch_claims import Batch
from vlmdata.captioning.batch_records import Begun
from vlmdata.captioning.batch_sending import LONGEST_SUBMISSION_S
from vlmdata.captioning.batch_standing import PATIENCE
from vlmdata.captioning.batch_visit import Visit
from vlmdata.captioning.batches.base import BatchState, BatchTrouble
from vlmdata.captioning.endings import Subject
from vlmdata.captioning.journal.grants import unsent
from vlmdata.captioning.journal.records import End
from vlmdata.captioning.line import on_a_thread
from vlmdata.captioning.pictures import for_sending
from vlmdata.captioning.provider import Answer, Fault

T = TypeVar("T")

_LONGEST_PAUSE_S = 60.0
"""Between two looks at a batch."""
_FROM_CLAIM_TO_BEGIN_S = 60.0
"""What lies between is a few objects put."""
_CHUNK = 256
"""Answers that are written down at once."""


@dataclass(frozen=True)
class _Whose:
    """The API's id of a batch; null if the API never got it."""

    batch_id: str | None


async def take_up(visit: Visit, batch: Batch, batch_id: str | None = None) -> None:
    """See it to its end and write down what became of each request; where that cannot be, the next run does."""
    try:
        whose = _Whose(batch_id) if batch_id else await _patiently(visit, lambda: _find(visit, batch))
        if whose.batch_id is None:
            await give_back(visit, batch)
        else:
            await _fetch(visit, batch, whose.batch_id)
    except BatchTrouble as trouble:
        await _leave(visit, batch, trouble.fault)


async def give_back(visit: Visit, batch: Batch) -> None:
    """Requests that were written down, and that no model ever saw."""
    batch.drop_what_ended(await visit.journal.find(batch.grants))
    ends = [unsent(key, grant, batch.token) for key, grant in batch.grants.items()]
    await asyncio.gather(*(visit.journal.settle(end) for end in ends))
    batch.grants.clear()
    await visit.forget_pictures(batch)


async def _find(visit: Visit, batch: Batch) -> _Whose | None:
    """The API's id of the batch, if there is one; None if that cannot be told yet."""
    accepted = await on_a_thread(visit.records.accepted, batch.token)
    if accepted is not None:
        _check_address(visit, accepted.where)
        return _Whose(accepted.batch)
    batch.drop_what_ended(await visit.journal.find(batch.grants))
    begun = await on_a_thread(visit.records.begun, batch.token)
    if not batch.grants or (begun is None and await _given_up(visit, batch)):
        return _Whose(None)
    return None if begun is None else await _sought(visit, batch, begun)


async def _given_up(visit: Visit, batch: Batch) -> bool:
    """Nobody has begun to hand it in. It is given up if nobody seems to be about to."""
    late = batch.age_s > _FROM_CLAIM_TO_BEGIN_S
    return (batch.is_orphan or late) and await on_a_thread(visit.records.give_up, batch.token)


async def _sought(visit: Visit, batch: Batch, begun: Begun) -> _Whose | None:
    """Somebody has begun to hand it in; whether it arrived, the API has to say."""
    if not begun.requests:
        return _Whose(None)
    _check_address(visit, begun.where)
    known = await on_a_thread(visit.records.all_accepted)
    found = await visit.api.find(visit.http, batch.token, size=begun.requests, known=known)
    if found is not None:
        await visit.accept(batch, found)
        return _Whose(found)
    # What a dead process sent may be on its way for a moment; a living one sends for as long as it takes.
    longest = visit.manners.waits.poll_s if batch.is_orphan else LONGEST_SUBMISSION_S
    return _Whose(None) if time.time() > begun.at + longest else None


def _check_address(visit: Visit, where: str) -> None:
    if where != visit.address:
        why = f"it was handed in at {where}, and caption.base_url is {visit.address}; set that back to fetch it"
        raise BatchTrouble(Fault("permanent", None, why))


async def _fetch(visit: Visit, batch: Batch, batch_id: str) -> None:
    """Wait for the batch's end, and write down what became of each request."""
    start = time.monotonic()
    state = await _patiently(visit, lambda: _ended(visit, batch_id))
    if state.fault is not None and not state.succeeded + state.failed:
        visit.standing.refused(state.fault)
        await give_back(visit, batch)
        return
    share = (time.monotonic() - start) / max(1, state.requests)
    if state.fault is None:
        await _patiently(visit, lambda: _take_results(visit, batch, batch_id, share))
    visit.standing.taken()
    lost = state.fault or Fault("transient", None, f"batch {batch_id} holds no answer")
    await _settle(visit, batch, dict.fromkeys(batch.grants, lost), share)
    await visit.forget_pictures(batch)


async def _ended(visit: Visit, batch_id: str) -> BatchState | None:
    state = await visit.api.poll(visit.http, batch_id)
    return state if state.ended else None


async def _take_results(visit: Visit, batch: Batch, batch_id: str, share: float) -> bool:
    """Write down each request's end; what is written down is passed over when it comes again."""
    ends: dict[str, Answer | Fault] = {}
    keys = {batch.custom_id(key): key for key in batch.grants}
    try:
        async with aclosing(visit.api.results(visit.http, batch_id)) as results:
            async for custom_id, end in results:
                key = keys.pop(custom_id, None)
                if key is not None:
                    ends[key] = _of_the_batch(end)
                if len(ends) == _CHUNK:
                    await _settle(visit, batch, ends, share)
                    ends = {}
    finally:
        await _settle(visit, batch, ends, share)
    return True


def _of_the_batch(end: Answer | Fault) -> Answer | Fault:
    """A request that expired or was cancelled with its batch reached no model: it is not the picture's, and is free."""
    return replace(end, blame="endpoint") if isinstance(end, Fault) and end.status is None else end


async def _settle(visit: Visit, batch: Batch, ends: Mapping[str, Answer | Fault], seconds: float) -> None:
    records = await asyncio.gather(*(_record(visit, batch, key, end, seconds) for key, end in ends.items()))
    await asyncio.gather(*(visit.journal.settle(record) for record in records))
    standing = visit.standing
    standing.moved = standing.moved or bool(records)
    for record in records:
        del batch.grants[record.key]
    standing.tell(record.key for record in records if record.text is not None or record.key in standing.final)


async def _record(visit: Visit, batch: Batch, key: str, end: Answer | Fault, seconds: float) -> End:
    subject, endings = visit.subjects[key], visit.endings
    if isinstance(end, Fault) and not end.worth_retrying:
        visit.standing.final.add(key)
    cleaned = await on_a_thread(endings.cleaned, end, subject.question)
    sent = batch.sent.get(key) or await on_a_thread(_sent, visit, subject)
    return endings.record(subject, batch.grants[key], cleaned, seconds, sent, batch=batch.token)


def _sent(visit: Visit, subject: Subject) -> tuple[int, ...]:
    """What of a picture is in a request that an earlier run made."""
    return visit.endings.sent(subject.question, for_sending(subject.load(), visit.client.config.max_side))


async def _leave(visit: Visit, batch: Batch, fault: Fault) -> None:
    """The batch is the next run's, unless its time has passed: what it costs stays spent then, and it is lost."""
    if fault.failure == "permanent" and batch.is_over:
        lost = Fault("transient", None, f"the batch is lost: {fault.message}")
        await _settle(visit, batch, dict.fromkeys(batch.grants, lost), 0.0)
    else:
        visit.standing.lost_sight(batch.grants, fault)


async def _patiently(visit: Visit, look: Callable[[], Awaitable[T | None]]) -> T:
    """Look until there is something to see.

    Raises:
        BatchTrouble: it is no use, or it has been for too many times.
    """
    waits, troubles = visit.manners.waits, 0
    pause = waits.poll_s
    while True:
        wait = pause
        try:
            found = await look()
            troubles = 0
            if found is not None:
                return found
        except BatchTrouble as trouble:
            troubles += 1
            if not trouble.fault.worth_retrying or troubles >= PATIENCE:
                raise
            wait += waits.backoff.pause(troubles, trouble.fault.retry_after)
        await asyncio.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
