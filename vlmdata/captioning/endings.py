"""How a picture's asking ends, and how that is written down, whichever way it was asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.hygiene import clean
from vlmdata.captioning.journal.book import Account, Entry
from vlmdata.captioning.journal.grants import Granted
from vlmdata.captioning.journal.records import NANO, End
from vlmdata.captioning.links import InTheRequest
from vlmdata.captioning.money import cost, most_input_tokens, price_of, worst_case
from vlmdata.captioning.pace import Shared
from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.prompts import Prompt
from vlmdata.captioning.provider import Answer, Failure, Fault, Question
from vlmdata.config import CaptionConfig
from vlmdata.errors import UserError

Load = Callable[[], bytes]
"""Gives a picture's original bytes when its turn has come."""


@dataclass(frozen=True)
class Subject:
    """A picture, what is asked about it, and the journal's name for the two."""

    key: str
    load: Load
    question: Question


@dataclass(frozen=True)
class Attempt:
    """How one picture ended: a text, or a failure and its last message. Money in nanodollars."""

    key: str
    text: str | None
    failure: Failure | None
    http_status: int | None
    attempt: int
    requests: int
    message: str | None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: int | None = None
    at: float | None = None
    sent: tuple[int, ...] | None = None

    @classmethod
    def of(cls, key: str, entry: Entry) -> Attempt:
        """From what the journal holds of a key whose attempt is over."""
        end = entry.end
        if end is None:
            lost = "a run was killed while it asked, and no request is left; `vlmdata retry` asks again"
            return cls(key, None, "transient", None, entry.attempt, entry.requests, lost)
        return cls.ended(end, entry.requests)

    @classmethod
    def ended(cls, end: End, requests: int) -> Attempt:
        """From its last request."""
        return cls(
            key=end.key,
            text=end.text,
            failure=end.failure,
            http_status=end.status,
            attempt=end.attempt,
            requests=requests,
            message=end.message,
            input_tokens=end.input_tokens,
            output_tokens=end.output_tokens,
            cost=end.cost,
            at=end.at,
            sent=None if end.sent is None else tuple(end.sent),
        )

    @classmethod
    def not_asked(cls, key: str, failure: Failure, why: str, entry: Entry | None = None) -> Attempt:
        """Nothing was sent now."""
        entry = entry or Entry()
        return cls(key, None, failure, None, entry.attempt, entry.requests, why, at=time.time())


@dataclass(frozen=True)
class Round:
    """One attempt a picture, in order, and what the user should put right before asking on."""

    attempts: list[Attempt]
    error: UserError | None = None


@dataclass(frozen=True)
class Waits:
    """How long is waited: between two requests for one picture, and between two looks at a batch.

    `shared` are limits that hold over other processes, too.
    """

    backoff: Backoff = field(default_factory=Backoff)
    poll_s: float = 5.0
    shared: Shared | None = None


@dataclass(frozen=True)
class Manners:
    """How answers are read, how long is waited, and how pictures travel; `done` hears of each picture's end."""

    prompt: Prompt
    waits: Waits = field(default_factory=Waits)
    transport: InTheRequest = field(default_factory=InTheRequest)
    done: Callable[[Account], None] = lambda account: None


class Endings:
    """From what was heard to what is written down, under one config."""

    def __init__(self, config: CaptionConfig, prompt: Prompt) -> None:
        self._config = config
        self._prompt = prompt
        self._price = price_of(config)

    def reserve(self, question: Question) -> int:
        """The most that one request can cost, nanodollars."""
        return worst_case(question, self._price)

    def tokens(self, question: Question) -> int:
        """The most tokens that one request can count as, input and output."""
        return most_input_tokens(question, self._price) + question.max_tokens

    def sent(self, question: Question, picture: Picture) -> tuple[int, ...]:
        """What of a picture is in its request: width, height, bytes, and the most input tokens."""
        return (picture.width, picture.height, len(picture.data), most_input_tokens(question, self._price))

    def cleaned(self, end: Answer | Fault, question: Question) -> Answer | Fault:
        """A caption as it will be kept, or why the answer is none."""
        if isinstance(end, Fault):
            return end
        text = clean(end.text, self._prompt, question.language)
        if isinstance(text, Fault):
            return Fault(text.failure, end.status, text.message, "picture", None, end.input_tokens, end.output_tokens)
        return Answer(text, end.status, end.input_tokens, end.output_tokens)

    def record(
        self,
        subject: Subject,
        grant: Granted,
        end: Answer | Fault,
        seconds: float,
        sent: tuple[int, ...] | None,
        *,
        batch: str | None = None,
    ) -> End:
        """The journal's record of how a request ended, in the batch of this token if it was in one."""
        fault, now = end if isinstance(end, Fault) else None, round(time.time(), 3)
        return End(
            key=subject.key,
            attempt=grant.attempt,
            request=grant.request,
            text=end.text if isinstance(end, Answer) else None,
            failure=fault.failure if fault else None,
            final=fault is not None and fault.failure in {"permanent", "refused"} and fault.blame == "picture",
            status=end.status,
            message=fault.message if fault else None,
            input_tokens=end.input_tokens,
            output_tokens=end.output_tokens,
            cost=self._cost(end, batch is not None),
            seconds=round(seconds, 3),
            at=now,
            sent=sent,
            batch=batch,
            not_before=_not_before(fault, now),
        )

    def _cost(self, end: Answer | Fault, batch: bool) -> int | None:
        """An error costs nothing; an answer that is cut short or says no usage may have cost all that was reserved."""
        free = isinstance(end, Fault) and (end.blame == "endpoint" or (end.status or 0) >= 400)
        return 0 if free else cost(self._price, end.input_tokens, end.output_tokens, batch=batch)

    def over(self, account: Account) -> str:
        """Why a picture is not asked about any more."""
        spent = f"{account.requests} requests and at most ${account.spent / NANO:.4f} are spent or set aside"
        limits = {"max_cost": self._config.max_cost, "max_requests": self._config.max_requests}
        named = " or ".join(f"caption.{name} = {limit}" for name, limit in limits.items() if limit is not None)
        return f"not asked: {spent}, and the next could pass {named}; give more to go on"


def _not_before(fault: Fault | None, now: float) -> float | None:
    """When whoever asks for the picture next may do so, be it another process."""
    if fault is None or not fault.retry_after:
        return None
    return now + min(fault.retry_after, Backoff.longest_retry_after_s)
