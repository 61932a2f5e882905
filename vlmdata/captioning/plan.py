"""What captioning will take, before anything is asked: pictures, requests, tokens, money, time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow.compute as pc

from vlmdata.captioning import line as lines
from vlmdata.captioning.journal.book import Account, Entry
from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.money import cost, most_input_tokens, price_of, worst_case
from vlmdata.captioning.questions import Asker, askers
from vlmdata.captioning.shards import wanted_pictures
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import CaptionConfig
from vlmdata.event_loop import run

_BYTES_A_TOKEN = 4
"""Of English prose; only estimates use it."""
_SECONDS_A_REQUEST = 2.0
"""Until an answer has been timed."""
_ANSWER_SHARE = 0.5
"""Of the longest answer allowed, until answers have been counted."""


@dataclass(frozen=True)
class CaptionPlan:
    """Pictures that want a caption, and counts of captions, one a picture and language; money is in dollars.

    Money is null without a price.
    """

    pictures: int = 0
    languages: int = 1
    answered: int = 0
    failed: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    cost_at_worst: float | None = None
    minutes: float = 0.0
    paid_requests: int = 0
    paid_cost: float | None = None
    max_cost: float | None = None
    max_requests: int | None = None

    @property
    def fits(self) -> bool:
        """Whether what is expected stays within the limits."""
        if not self.requests:
            return True
        few = self.max_requests is None or self.paid_requests + self.requests <= self.max_requests
        cheap = self.max_cost is None or (self.paid_cost or 0) + (self.cost or 0) <= self.max_cost
        return few and cheap

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "fits": self.fits}


def plan_captions(dataset: Dataset, shards: Sequence[Shard], config: CaptionConfig) -> CaptionPlan:
    """The plan for shards of 01_filtered: one request a picture and language that has no answer; nothing is asked.

    Raises:
        ConfigError: the prompt is not there, or does not know the language.
    """
    asked_by, price = askers(config), price_of(config)
    plan = CaptionPlan(languages=len(asked_by), max_cost=config.max_cost, max_requests=config.max_requests)
    worst = 0
    for asker, small, entries in _looked_up(dataset, shards, asked_by):
        left = [not entry.closed and entry.requests <= config.max_retries for entry in entries]
        to_ask = [flag for flag, asks in zip(small, left, strict=True) if asks]
        answered = sum(entry.answered for entry in entries)
        questions = [asker.question(flag) for flag in to_ask]
        plan = replace(
            plan,
            pictures=plan.pictures + (len(entries) if asker is asked_by[0] else 0),
            answered=plan.answered + answered,
            failed=plan.failed + len(entries) - answered - len(to_ask),
            requests=plan.requests + len(to_ask),
            input_tokens=plan.input_tokens
            + sum(_input_tokens(question.prompt, most_input_tokens(question, price)) for question in questions),
        )
        worst += sum(worst_case(question, price) for question in questions)
    return _priced(plan, asked_by[0], _account(dataset), worst)


def _looked_up(
    dataset: Dataset, shards: Sequence[Shard], asked_by: Sequence[Asker]
) -> Iterator[tuple[Asker, list[bool], list[Entry]]]:
    """For each shard and asker, whether each wanted picture is small, and what the journal knows of it."""

    async def look(keys: list[str]) -> list[Entry]:
        found = await (await lines.process().journal(dataset)).find(keys)
        return [found.get(key, Entry()) for key in keys]

    for shard in shards:
        wanted = wanted_pictures(dataset, shard, asked_by[0].config)
        sides, contents = (
            pc.min_element_wise(wanted["width"], wanted["height"]).to_pylist(),
            wanted["sha256"].to_pylist(),
        )
        for asker in asked_by:
            yield asker, [asker.is_small(side) for side in sides], run(look(asker.keys(contents)))


def _account(dataset: Dataset) -> Account:
    async def look() -> Account:
        return (await lines.process().journal(dataset)).account

    return run(look())


def _input_tokens(prompt: str, most: int) -> int:
    """The picture at its most, the words as prose."""
    size = len(prompt.encode())
    return most - size + size // _BYTES_A_TOKEN


def _priced(plan: CaptionPlan, asker: Asker, account: Account, worst: int) -> CaptionPlan:
    config, price = asker.config, price_of(asker.config)
    longest = asker.question(small=False).max_tokens
    each = account.output_tokens / account.answers if account.output_tokens and account.answers else None
    output = round(plan.requests * (each or longest * _ANSWER_SHARE))
    expected = cost(price, plan.input_tokens, output, batch=config.batch) if price else None
    return replace(
        plan,
        output_tokens=output,
        cost=None if expected is None else expected / NANO,
        cost_at_worst=worst / NANO if price else None,
        minutes=_minutes(plan.requests, plan.input_tokens + output, config, account),
        paid_requests=account.requests,
        paid_cost=account.spent / NANO if price else None,
    )


def _minutes(requests: int, tokens: int, config: CaptionConfig, account: Account) -> float:
    """The slowest of what the answers take and what the limits allow."""
    seconds = account.answer_seconds / account.answers if account.answers else _SECONDS_A_REQUEST
    bounds = [requests * seconds / config.concurrency / 60]
    if config.requests_per_minute:
        bounds.append(requests / config.requests_per_minute)
    if config.tokens_per_minute:
        bounds.append(tokens / config.tokens_per_minute)
    return round(max(bounds), 2)
