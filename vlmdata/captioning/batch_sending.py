"""A batch, from pictures to its handing in: packed, written down, begun, submitted, and its id put on record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import ceil

from vlmdata.captioning.asking import encoded
from vlmdata.captioning.batch_claims import LONGEST_BATCH_S, Batch, in_hand
from vlmdata.captioning.batch_visit import Visit
from vlmdata.captioning.batches.base import BatchTrouble
from vlmdata.captioning.endings import Subject
from vlmdata.captioning.journal.grants import Finished, Granted, OverBudget, UnderWay, Wish
from vlmdata.captioning.line import on_a_thread
from vlmdata.captioning.money import BATCH_FACTOR
from vlmdata.captioning.pictures import UnsendablePicture
from vlmdata.captioning.provider import Fault

LONGEST_SUBMISSION_S = 1800.0
_TOGETHER = 16
"""Pictures that are encoded at once."""


async def pack(visit: Visit, batch: Batch, subjects: Sequence[Subject]) -> int:
    """Encode as many pictures as a batch holds; returns how many subjects that settles."""
    limits, size = visit.api.limits, 0
    for first in range(0, len(subjects), _TOGETHER):
        some = subjects[first : first + _TOGETHER]
        packed = await asyncio.gather(*(_encoded(visit, batch.token, subject) for subject in some))
        for place, (subject, body) in enumerate(zip(some, packed, strict=True), first):
            if body is None:
                continue
            size += len(body[0]) + limits.envelope
            if batch.bodies and (size > limits.bytes or len(batch.bodies) == limits.requests):
                return place
            batch.bodies[subject.key], batch.sent[subject.key] = body
    return len(subjects)


async def hand_in(visit: Visit, batch: Batch) -> str | BatchTrouble | None:
    """Claim the requests and hand them in: the API's id of the batch; None if nothing was to be handed in."""
    in_hand.add(batch.token)
    try:
        await _claim(visit, batch)
        if not batch.grants or not await _begin(visit, batch):
            return None
        requests = [(batch.custom_id(key), batch.bodies[key]) for key in batch.grants]
        async with asyncio.timeout(LONGEST_SUBMISSION_S):
            batch_id = await visit.api.submit(visit.http, requests, batch.token)
        await visit.accept(batch, batch_id)
        return batch_id
    except TimeoutError:
        return BatchTrouble(Fault("transient", None, f"not handed in within {LONGEST_SUBMISSION_S:g} s"))
    except BatchTrouble as trouble:
        return trouble
    finally:
        batch.bodies.clear()
        in_hand.discard(batch.token)


def may_have_arrived(fault: Fault) -> bool:
    """Whether the batch may have been handed in after all: `BatchTrouble` says when."""
    return not fault.unsent and (fault.status is None or fault.status == 408 or fault.status >= 500)


async def _encoded(visit: Visit, token: str, subject: Subject) -> tuple[bytes, tuple[int, ...]] | None:
    """A picture's request and what of the picture is in it; None, and so it ends, if it cannot be sent."""
    transport = visit.manners.transport.of_batch(token)
    try:
        body, picture = await on_a_thread(encoded, visit.client, transport, subject)
    except UnsendablePicture as error:
        visit.standing.set_aside({subject.key: str(error)}, "permanent")
        return None
    return body, visit.endings.sent(subject.question, picture)


async def _claim(visit: Visit, batch: Batch) -> None:
    """Write the requests down, those that may be sent."""
    grants = await asyncio.gather(*(visit.journal.claim(_wish(visit, batch, key)) for key in batch.bodies))
    for key, grant in zip(batch.bodies, grants, strict=True):
        if isinstance(grant, Granted):
            batch.grants[key] = grant
        elif isinstance(grant, Finished):
            visit.standing.final.add(key)
        elif isinstance(grant, OverBudget):
            visit.standing.over[key] = visit.endings.over(grant.account)
        elif isinstance(grant, UnderWay):
            visit.standing.pause = visit.manners.waits.poll_s


def _wish(visit: Visit, batch: Batch, key: str) -> Wish:
    reserve = ceil(visit.endings.reserve(visit.subjects[key].question) * BATCH_FACTOR)
    return Wish(key, reserve, LONGEST_BATCH_S, visit.most, batch.token)


async def _begin(visit: Visit, batch: Batch) -> bool:
    return await on_a_thread(visit.records.begin, batch.token, len(batch.grants), visit.address)
