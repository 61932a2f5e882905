"""A round of asking when the run is stopped, the store refuses or the money ends; HTTP itself is tested elsewhere."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import Buffer

from vlmdata.captioning import line as lines
from vlmdata.captioning.asking import caption_all
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Manners, Round, Subject, Waits
from vlmdata.captioning.endpoint import Endpoint
from vlmdata.captioning.journal.grants import Limits
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.prompts import load_prompt
from vlmdata.captioning.provider import Answer, Fault, Question
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, StoreError
from vlmdata.event_loop import run
from vlmdata.store import LocalStore

TEXT = "A red bus stands in front of a house."
QUESTION = Question("m", "What is it?", 20, 0.0)
ANSWER = Answer(TEXT, 200, 90, 7)
TIRED = Fault("transient", 500, "tired")
HASTY = Waits(Backoff(first_s=0.001, longest_s=0.002))

Send = Callable[[], Awaitable[Answer | Fault]]

_ports = itertools.count(1)


class Scripted(CaptionClient):
    """A client whose requests are answered here."""

    def __init__(self, send: Send, **changes: Any) -> None:
        config = CaptionConfig.model_validate(
            {"model": "m", "concurrency": 2, "prices": {"m": {"input": 1, "output": 1}}, **changes}
        )
        # An address of its own, as a line's health outlives a round.
        super().__init__(Endpoint(f"http://127.0.0.1:{next(_ports)}/v1", "NO_KEY"), OpenAI(), config)
        self._said = send
        self.sent = 0

    async def send(self, line: lines.Line, body: bytes) -> Answer | Fault:
        self.sent += 1
        return await self._said()


def saying(*ends: Answer | Fault) -> Send:
    """These in turn, the last for ever."""
    left = list(ends)

    async def say() -> Answer | Fault:
        return left.pop(0) if len(left) > 1 else left[0]

    return say


class Refusing(LocalStore):
    """A folder that takes no more once `full`."""

    full = False

    def create(self, path: str, data: Buffer) -> bool:
        if self.full:
            raise StoreError("store = 'here': the disk is full")
        return super().create(path, data)


@pytest.fixture
def store(tmp_path: Path) -> Refusing:
    return Refusing(str(tmp_path / "store"))


def journal_in(store: LocalStore, **limits: int) -> Journal:
    return Journal(Log(store, "set"), Limits(**limits))


def subjects(png: bytes, count: int) -> list[Subject]:
    return [Subject(f"{number:032x}", lambda: png, QUESTION) for number in range(count)]


@pytest.fixture
def png(pictures: Any) -> bytes:
    made: bytes = pictures.png(1)
    return made


def asked(client: CaptionClient, journal: Journal, wanted: list[Subject]) -> Round:
    return run(caption_all(client, journal, wanted, Manners(load_prompt("alt-text"), HASTY)))


def test_each_picture_ends_in_its_place_and_is_durable(store: Refusing, png: bytes) -> None:
    client = Scripted(saying(TIRED, ANSWER))
    done = asked(client, journal_in(store), subjects(png, 5))
    assert [attempt.key for attempt in done.attempts] == [subject.key for subject in subjects(png, 5)]
    assert {attempt.text for attempt in done.attempts} == {TEXT} and done.error is None
    assert sum(attempt.requests for attempt in done.attempts) == 6 == client.sent
    assert Log(store, "set").book.account.answers == 5


def test_the_same_question_twice_in_a_round_is_asked_once(store: Refusing, png: bytes) -> None:
    client = Scripted(saying(ANSWER))
    done = asked(client, journal_in(store), subjects(png, 2) * 3)
    assert client.sent == 2 and len(done.attempts) == 6


@pytest.mark.parametrize("retries", range(4))
def test_no_attempt_sends_a_fifth_request_however_often_it_is_run(store: Refusing, png: bytes, retries: int) -> None:
    client = Scripted(saying(TIRED), max_retries=retries)
    for _ in range(3):
        done = asked(client, journal_in(store), subjects(png, 1))
        assert (done.attempts[0].failure, done.attempts[0].requests) == ("transient", 1 + retries)
    assert client.sent == 1 + retries <= 4


def test_a_picture_that_does_not_decode_costs_nothing(store: Refusing, png: bytes) -> None:
    client = Scripted(saying(ANSWER))
    done = asked(client, journal_in(store), [*subjects(png, 1), Subject("f" * 32, lambda: b"no picture", QUESTION)])
    assert [attempt.failure for attempt in done.attempts] == [None, "permanent"]
    assert client.sent == 1 == Log(store, "set").book.account.requests


def test_what_was_sent_before_the_money_ended_is_counted(store: Refusing, png: bytes) -> None:
    done = asked(Scripted(saying(TIRED)), journal_in(store, requests=2), subjects(png, 1))
    assert (done.attempts[0].failure, done.attempts[0].requests) == ("budget", 2)


def test_what_nobody_heard_is_neither_counted_nor_paid_for(store: Refusing, png: bytes) -> None:
    absent = Fault("transient", None, "no connection", "endpoint")
    client = Scripted(saying(absent))
    done = asked(client, journal_in(store), subjects(png, 2))
    account = Log(store, "set").book.account
    assert {attempt.requests for attempt in done.attempts} == {0} and (account.requests, account.spent) == (0, 0)
    assert done.error is not None and "is the server running" in str(done.error)


def test_a_refused_key_stops_the_rest(store: Refusing, png: bytes) -> None:
    client = Scripted(saying(Fault("transient", 401, "who?", "key")))
    done = asked(client, journal_in(store), subjects(png, 30))
    assert isinstance(done.error, ConfigError) and "NO_KEY" in str(done.error)
    assert client.sent <= 2 and {attempt.failure for attempt in done.attempts} == {"transient"}
    assert Log(store, "set").book.account.reserved == 0


def test_a_store_that_refuses_is_one_line_and_not_a_group_of_errors(store: Refusing, png: bytes) -> None:
    async def fills() -> Answer | Fault:
        store.full = True
        return ANSWER

    with pytest.raises(StoreError, match="the disk is full"):
        asked(Scripted(fills), journal_in(store), subjects(png, 6))
    store.full = False
    client = Scripted(saying(ANSWER))
    # Requests that a live process has open are waited for; here they are of one that is gone.
    done = asked(client, _as_after_a_crash(store), subjects(png, 6))
    assert {attempt.text for attempt in done.attempts} == {TEXT}
    assert max(attempt.requests for attempt in done.attempts) <= 2


def _as_after_a_crash(store: LocalStore) -> Journal:
    """Whoever had requests open died: their claims are of a process that this machine does not run."""
    for path in store.list("set/02_captioned/journal/log"):
        said = store.get(path).replace(_this_process(), b"0:0")
        store.replace(path, said)
    return journal_in(store)


def _this_process() -> bytes:
    from vlmdata.captioning.journal.writer import this_writer

    return ":".join(this_writer().rsplit(":", 2)[1:]).encode()


async def stopped(round_: Awaitable[Round], when: Callable[[], bool]) -> None:
    """Ctrl-C in the middle."""
    task = asyncio.ensure_future(round_)
    async with asyncio.timeout(20):
        while not when():
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_stop_gives_back_what_waits_for_its_turn_and_pays_for_what_was_sent(store: Refusing, png: bytes) -> None:
    """Two are in flight, others have their grant and wait for a slot: the next round begins at once."""
    journal = journal_in(store)

    async def never() -> Answer | Fault:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    client = Scripted(never)
    manners = Manners(load_prompt("alt-text"), HASTY)
    wanted = subjects(png, 12)
    run(
        stopped(
            caption_all(client, journal, wanted, manners), lambda: client.sent == 2 and journal.account.requests == 4
        )
    )
    going_on = Scripted(saying(ANSWER))
    done = asked(going_on, journal, wanted)
    assert {attempt.text for attempt in done.attempts} == {TEXT}
    account = Log(store, "set").book.account
    assert account.requests == 12 + 2, "two were sent, and stay paid for"
    assert account.reserved == 0 and sum(attempt.requests for attempt in done.attempts) == 14


def test_a_stop_leaves_nothing_that_a_later_budget_would_wait_for(store: Refusing, png: bytes) -> None:
    journal = journal_in(store)

    async def never() -> Answer | Fault:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    client = Scripted(never)
    manners = Manners(load_prompt("alt-text"), HASTY)
    run(
        stopped(
            caption_all(client, journal, subjects(png, 9), manners),
            lambda: client.sent == 2 and journal.account.requests == 4,
        )
    )
    journal.limit(Limits(requests=3))
    done = asked(Scripted(saying(ANSWER)), journal, subjects(png, 9))
    assert sorted(attempt.failure or "" for attempt in done.attempts) == ["", *["budget"] * 8]
