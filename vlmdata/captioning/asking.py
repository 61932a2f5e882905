"""Captions for many pictures: each is asked for until it has its end, and every end is durable before it counts.

A picture ends as exactly one `Attempt`. When nothing is gained by asking on
(the key is refused, nobody answers, the budget is spent), the rest end as
failures that a rerun redoes, and the round says why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from vlmdata.captioning import line as lines
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Attempt, Endings, Manners, Round, Subject
from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.journal.grants import Finished, Granted, OverBudget, UnderWay, Wish, unsent
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.links import InTheRequest
from vlmdata.captioning.pace import Turn
from vlmdata.captioning.pictures import Picture, UnsendablePicture, for_sending
from vlmdata.captioning.provider import Answer, Fault
from vlmdata.errors import UserError
from vlmdata.event_loop import together
from vlmdata.measure.language import identify

TOO_MANY = 429
_IN_A_BATCH = "not asked: it is in a batch that another run submitted; caption.batch: true fetches that"

WAIT_FOR_A_TURN_S = 60.0
"""How long a request that is written down may wait before it is sent; after that it is written down anew."""

_log = logging.getLogger("vlmdata")


async def caption_all(client: CaptionClient, journal: Journal, subjects: Sequence[Subject], manners: Manners) -> Round:
    """Ask for a caption of each picture; runs on the process's loop. `done` is called as each ends."""
    line = lines.process().line(client.endpoint.base_url, client.config, manners.waits.shared)
    known = await journal.find({subject.key for subject in subjects})
    # What reads answers is loaded beside the first requests, not between two of them.
    loading = asyncio.get_running_loop().run_in_executor(lines.process().encoders, identify, [""])
    visit = _Visit(client, journal, line, manners)
    async with line.round():
        async with together() as group:
            pictures = [group.create_task(visit.picture(subject, known.get(subject.key))) for subject in subjects]
        await loading
        return Round([picture.result() for picture in pictures], visit.verdict())


class _Visit:
    """One round on its way: keeps what the verdict rests on."""

    def __init__(self, client: CaptionClient, journal: Journal, line: lines.Line, manners: Manners) -> None:
        self._client = client
        self._journal = journal
        self._line = line
        self._manners = manners
        self._endings = Endings(client.config, manners.prompt)
        self._most = 1 + client.config.max_retries
        self._ends: list[Answer | Fault] = []

    async def picture(self, subject: Subject, entry: Entry | None) -> Attempt:
        """One picture, from what is known of it to its end."""
        if entry is not None and entry.closed:
            attempt = Attempt.of(subject.key, entry)
        else:
            async with self._line.room:
                attempt = await self._ask(subject, entry)
        self._manners.done(self._journal.account)
        return attempt

    async def _ask(self, subject: Subject, entry: Entry | None) -> Attempt:
        if self._line.halted.is_set():
            return self._halted(subject, entry)
        try:
            body, picture = await self._encoded(subject)
        except UnsendablePicture as error:
            return Attempt.not_asked(subject.key, "permanent", str(error), entry)
        try:
            return await self._until_its_end(subject, entry, body, self._endings.sent(subject.question, picture))
        finally:
            if picture.url is not None:
                await lines.on_a_thread(self._manners.transport.forget, picture)

    async def _until_its_end(
        self, subject: Subject, entry: Entry | None, body: bytes, sent: tuple[int, ...]
    ) -> Attempt:
        """One request after the other, each granted by the journal and settled in it."""
        reserve = self._endings.reserve(subject.question)
        patience = self._client.config.timeout_s + WAIT_FOR_A_TURN_S
        wish = Wish(subject.key, reserve, patience, self._most)
        last: Attempt | None = None
        tried = 0
        while True:
            grant = await self._journal.claim(wish)
            if isinstance(grant, Finished):
                return Attempt.of(subject.key, grant.entry)
            if isinstance(grant, UnderWay):
                return Attempt.not_asked(subject.key, "transient", _IN_A_BATCH, entry)
            if isinstance(grant, OverBudget):
                so_far = Entry(last.attempt, last.requests) if last else entry
                return Attempt.not_asked(subject.key, "budget", self._endings.over(grant.account), so_far)
            sent_now = await self._send(subject, grant, body, sent)
            if sent_now is None and self._line.halted.is_set():
                return last or self._halted(subject, entry)
            if sent_now is None:
                continue
            tried += 1
            end, last = sent_now
            if not await self._again(end, max(tried, grant.request)):
                return last

    async def _settled(
        self, subject: Subject, grant: Granted, end: Answer | Fault, seconds: float, sent: tuple[int, ...]
    ) -> Attempt:
        """How the attempt stands after a request, once that is durable."""
        if isinstance(end, Fault) and end.unsent:
            await self._journal.settle(unsent(subject.key, grant))
            return Attempt.not_asked(subject.key, end.failure, end.message, Entry(grant.attempt, grant.request - 1))
        record = self._endings.record(subject, grant, end, seconds, sent)
        await self._journal.settle(record)
        return Attempt.ended(record, grant.request)

    async def _encoded(self, subject: Subject) -> tuple[bytes, Picture]:
        """The request's body and the picture that is in it, or linked in it."""
        return await lines.on_a_thread(encoded, self._client, self._manners.transport, subject)

    async def _send(
        self, subject: Subject, grant: Granted, body: bytes, sent: tuple[int, ...]
    ) -> tuple[Answer | Fault, Attempt] | None:
        """A request's end and how the attempt stands then; None if it was not sent after all.

        The slot is held until the end is durable: so a crash repeats no more requests than there are slots.
        """
        begun = False
        try:
            async with self._line.pace.slot(self._endings.tokens(subject.question)) as turn:
                late = time.time() > grant.until - self._client.config.timeout_s
                if turn is not None and not late and not self._line.halted.is_set():
                    begun, start = True, time.monotonic()
                    end = await self._heard(subject, grant, body, sent)
                    _tell(turn, end)
                    end = self._endings.cleaned(end, subject.question)
                    return end, await self._settled(subject, grant, end, time.monotonic() - start, sent)
        finally:
            # Also when the run was stopped while this request waited for its turn.
            given_back = None if begun else self._journal.settle_later(unsent(subject.key, grant))
        if given_back is not None:
            await given_back
        return None

    async def _heard(self, subject: Subject, grant: Granted, body: bytes, sent: tuple[int, ...]) -> Answer | Fault:
        try:
            return await self._client.send(self._line, body)
        except asyncio.CancelledError:
            # Somebody stopped the run: what it was asking stays paid for, and is not waited for.
            stopped = Fault("transient", None, "the run was stopped while it asked")
            self._journal.settle_later(self._endings.record(subject, grant, stopped, 0.0, sent))
            raise

    async def _again(self, end: Answer | Fault, tried: int) -> bool:
        """Whether to ask once more; the pause before it is over then."""
        if isinstance(end, Fault) and end.worth_retrying and tried < self._most and not self._line.halted.is_set():
            await self._line.sleep(self._manners.waits.backoff.pause(tried, end.retry_after))
            return True
        self._ends.append(end)
        if not self._line.halted.is_set():
            self._note(end)
        return False

    def _note(self, end: Answer | Fault) -> None:
        trouble = self._line.health.note(end)
        if trouble and isinstance(end, Fault):
            error = self._client.error(trouble, end)
            reason = str(error) if error else f"the server stopped answering ({end.message})"
            self._line.halt(reason, error)
            _log.debug("captioning halted: %s", reason)

    def _halted(self, subject: Subject, entry: Entry | None) -> Attempt:
        return Attempt.not_asked(subject.key, "transient", f"not asked: {self._line.halt_reason}", entry)

    def verdict(self) -> UserError | None:
        """The error that halted the line, or that of an address that no picture was right for."""
        if self._line.halted.is_set():
            return self._line.halt_error
        last = self._ends[-1] if self._ends else None
        wrong = all(isinstance(end, Fault) and end.blame == "endpoint" and end.status for end in self._ends)
        if wrong and isinstance(last, Fault) and not self._line.health.answered:
            return self._client.error("refuses_all", last)
        return None


def _tell(turn: Turn, end: Answer | Fault) -> None:
    """Let the pace know how a request went."""
    if end.input_tokens is not None and end.output_tokens is not None:
        turn.settle(end.input_tokens + end.output_tokens)
    if isinstance(end, Fault) and end.status == TOO_MANY:
        turn.slowed(end.retry_after)
    elif end.status is not None:
        turn.went_well()


def encoded(client: CaptionClient, transport: InTheRequest, subject: Subject) -> tuple[bytes, Picture]:
    """A request's body, and the picture that is in it or linked in it.

    Raises:
        UnsendablePicture: the picture does not decode.
    """
    original = subject.load()
    picture = transport.carry(for_sending(original, client.config.max_side), original)
    return client.provider.body(picture, subject.question), picture
