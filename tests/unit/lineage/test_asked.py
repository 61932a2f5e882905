"""What a story tells of money: each request of each attempt counts, not the last alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.captioning.test_plan import PRICED
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import Ask, End, Open, Record
from vlmdata.captioning.money import cost, price_of
from vlmdata.captioning.questions import Asker
from vlmdata.captioning.shards import caption_shard
from vlmdata.explain import explain
from vlmdata.layout import Stage, Step
from vlmdata.lineage.terminal import print_story
from vlmdata.runs import start_run

Used = tuple[int | None, int | None]
"""Tokens in and out, as a server tells them."""


def request(built: Any, key: str, attempt: int, number: int, used: Used, failure: Any = None) -> list[Record]:
    """A request and its end, at the price that the config names."""
    price = price_of(built.config.caption)
    text, status = (None, 500) if failure == "transient" else (None if failure else "A caption.", 200)
    paid = cost(price, *used, batch=False)
    end = End(key, attempt, number, text, failure, failure == "refused", status, failure, *used, paid, 2.0, 0.0)
    return [Ask(key, attempt, number, 0.0, 400_000, "nobody"), end]


def test_what_all_requests_of_all_attempts_cost_is_told_as_one_sum(
    pictures: Any, tiny: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["often.png", "once.png", "untold.png"]
    filtered = tiny({name: pictures.png(n) for n, name in enumerate(names)}, caption=PRICED).ingested().filtered()
    contents = {row["key"]: row["sha256"] for row in filtered.rows(Step.FILTERED, "samples")}
    often, once, untold = Asker.of(filtered.config.caption).keys([contents[name] for name in names])
    said = [
        *request(filtered, often, 1, 1, (None, None), "transient"),
        *request(filtered, often, 1, 2, (90, 7), "refused"),
        Open(often, 2),
        *request(filtered, often, 2, 1, (30, 2)),
        *request(filtered, once, 1, 1, (90, 7)),
        *request(filtered, untold, 1, 1, (None, None)),
    ]
    Log(filtered.dataset.store, filtered.dataset.name).append(lambda _: said)
    run = start_run(filtered.dataset, filtered.config)
    run.stage_done(filtered.report(Stage.RAW))
    run.stage_done(filtered.report(Stage.FILTERED))
    run.stage_done(filtered.each(caption_shard, filtered.config.caption).report(Stage.CAPTIONED))
    found = [explain(filtered.dataset, name) for name in names]
    asked = [one for story in found for one in story["stages"][2]["facts"]["asked"]]
    # Dollars for a million tokens: 1 in, 10 out; what nobody told of is in no sum.
    last, whole = ([one.get(name) for one in asked] for name in ("cost", "cost_in_all"))
    assert last == [pytest.approx(50e-6), pytest.approx(160e-6), None]
    assert whole == [pytest.approx(210e-6), pytest.approx(160e-6), None]
    print_story(found[0])
    out = capsys.readouterr().out
    assert "captioned, attempt 2, 1 request, 30 + 2 tokens, at least $0.00021 in all\n" in out
    assert "HTTP 500, at most $0.0004, " in out
