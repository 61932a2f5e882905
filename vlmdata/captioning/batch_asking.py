"""Captions for many pictures by a provider's batch API: one submission, an answer within a day, half the price.

Each request is written down with its batch's token before the batch is handed
in, and the batch's id right after. Whoever finds such requests open, in this
run or a later one, on this machine or another, takes the batch up where it is:
it is never handed in twice, and nobody waits for the one who did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache

from vlmdata.captioning import line as lines
from vlmdata.captioning.batch_claims import LONGEST_BATCH_S, Batch, under_way
from vlmdata.captioning.batch_fetching import give_back, take_up
from vlmdata.captioning.batch_records import BatchRecords
from vlmdata.captioning.batch_sending import hand_in, may_have_arrived, pack
from vlmdata.captioning.batch_standing import Standing
from vlmdata.captioning.batch_visit import Visit
from vlmdata.captioning.batches.base import BatchApi, BatchTrouble
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Endings, Manners, Round, Subject
from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.journal.journal import Journal
from vlmdata.checkpoint import Dataset
from vlmdata.event_loop import together

__all__ = ["LONGEST_BATCH_S", "caption_in_batches"]


async def caption_in_batches(
    client: CaptionClient,
    api: BatchApi,
    journal: Journal,
    dataset: Dataset,
    subjects: Sequence[Subject],
    manners: Manners,
) -> Round:
    """One attempt a picture, in order; what an earlier run handed in is fetched, not asked for again."""
    standing = Standing(client, manners.waits, lambda: manners.done(journal.account))
    with lines.process().line(client.endpoint.base_url, client.config).http() as http:
        visit = Visit(
            client=client,
            api=api,
            http=http,
            journal=journal,
            records=BatchRecords(dataset),
            manners=manners,
            endings=Endings(client.config, manners.prompt),
            subjects={subject.key: subject for subject in subjects},
            standing=standing,
        )
        while left := await _left(visit):
            await asyncio.sleep(standing.pause)
            await _once(visit, left)
    entries = await journal.find(visit.subjects)
    standing.tell(visit.subjects)
    attempts = [standing.attempt(subject.key, entries.get(subject.key)) for subject in subjects]
    return Round(attempts, standing.error)


async def _left(visit: Visit) -> dict[str, Entry]:
    """Pictures that are still to be asked about or under way, and what the journal knows of them now."""
    keys = [key for key in visit.subjects if not visit.standing.is_aside(key)]
    known = await visit.journal.find(keys)
    entries = {key: known.get(key, Entry()) for key in keys}
    return {key: entry for key, entry in entries.items() if _wants(visit, key, entry)}


def _wants(visit: Visit, key: str, entry: Entry) -> bool:
    if entry.closed:
        return False
    if any(claim.batch for claim in entry.open.values()):
        return True
    others = any(claim.until > time.time() for claim in entry.open.values())
    return key not in visit.standing.final and (others or entry.requests < visit.most)


async def _once(visit: Visit, left: Mapping[str, Entry]) -> None:
    """Take up what is under way and hand in the rest, to the end of all these batches."""
    visit.standing.begin_anew()
    batches = under_way(left)
    taken = {key for batch in batches for key in batch.grants}
    async with together() as group:
        for batch in batches:
            group.create_task(take_up(visit, batch))
        await _ask(visit, [visit.subjects[key] for key in left if key not in taken], group)
    if not visit.standing.moved:
        # What was settled for less than was set aside makes room; nothing was.
        visit.standing.set_aside(visit.standing.over, "budget")


async def _ask(visit: Visit, subjects: Sequence[Subject], group: asyncio.TaskGroup) -> None:
    """Hand in as many batches as it takes, one at a time for all shards of the process: this bounds memory."""
    standing = visit.standing
    while subjects and standing.halted is None:
        async with _one_at_a_time(asyncio.get_running_loop()):
            batch = Batch.new()
            taken = await pack(visit, batch, subjects)
            handed_in = await hand_in(visit, batch)
        group.create_task(_see_through(visit, batch, handed_in))
        subjects = subjects[taken:]
    if standing.halted is not None:
        standing.set_aside({subject.key: f"not asked: {standing.halted}" for subject in subjects}, "transient")


async def _see_through(visit: Visit, batch: Batch, handed_in: str | BatchTrouble | None) -> None:
    """From handing in to the end."""
    if isinstance(handed_in, BatchTrouble):
        visit.standing.refused(handed_in.fault)
        if may_have_arrived(handed_in.fault):
            await take_up(visit, batch)
        else:
            await give_back(visit, batch)
    elif handed_in is not None:
        await take_up(visit, batch, handed_in)
    else:
        await visit.forget_pictures(batch)


@lru_cache(maxsize=1)
def _one_at_a_time(loop: asyncio.AbstractEventLoop) -> asyncio.Lock:
    return asyncio.Lock()
