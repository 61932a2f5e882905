"""What captions will take, from the journal alone: nobody is asked here, for nobody is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import NANO, Ask, End, Record
from vlmdata.captioning.money import price_of, worst_case
from vlmdata.captioning.plan import CaptionPlan, plan_captions
from vlmdata.captioning.questions import Asker
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.here import filter_here
from vlmdata.layout import Step
from vlmdata.runs import last_run

CAPTIONER: dict[str, Any] = {"policy": "missing", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
PRICED = {**CAPTIONER, "prices": {"m": {"input": 1.0, "output": 10.0, "image_tokens": 1000}}}
COST = 160_000
"""Nanodollars of one answer."""


def write_down(dataset: Dataset, asker: Asker, ends: Mapping[str, str], attempt: int = 1) -> None:
    """Requests and their ends, by a picture's sha256: a caption's text, or `permanent`, `refused`, `transient`."""
    log = Log(dataset.store, dataset.name)
    for content, end in ends.items():
        [key] = asker.keys([content])
        records = _requests(key, end, attempt, 4 if end == "transient" else 1)
        log.append(lambda book, records=records: records)  # type: ignore[misc]


def _requests(key: str, end: str, attempt: int, requests: int) -> list[Record]:
    failure: Any = end if end in {"permanent", "refused", "transient"} else None
    records: list[Record] = []
    for request in range(1, requests + 1):
        records.append(Ask(key, attempt, request, 0.0, 2 * COST, "nobody", None))
        records.append(
            End(
                key,
                attempt,
                request,
                text=None if failure else end,
                failure=failure,
                final=failure in {"permanent", "refused"},
                status=500 if failure else 200,
                message=failure,
                input_tokens=None if failure else 90,
                output_tokens=None if failure else 7,
                cost=0 if failure else COST,
                seconds=2.0,
                at=0.0,
                sent=(64, 48, 1000, 1100),
            )
        )
    return records


def contents(built: Any) -> list[str]:
    return [row["sha256"] for row in built.rows(Step.FILTERED, "samples")]


def test_a_plan_of_nothing_asked_yet(pictures: Any, tiny: Callable[..., Any]) -> None:
    built = tiny({f"{n}.png": pictures.png(n) for n in range(5)}, {"0.png": ["words"]}, caption=PRICED)
    config: CaptionConfig = built.config.caption
    plan = plan_captions(built.dataset, filter_here(built.dataset, built.config), config)
    assert (plan.pictures, plan.requests, plan.answered, plan.failed) == (4, 4, 0, 0)
    worst = worst_case(Asker.of(config).question(small=True), price_of(config))
    assert plan.cost_at_worst == pytest.approx(4 * worst / NANO)
    assert plan.cost is not None and 0 < plan.cost < plan.cost_at_worst
    assert (plan.paid_requests, plan.paid_cost, plan.fits) == (0, 0.0, True)


def test_filtering_for_a_plan_is_a_build_s_own_and_leaves_no_run(pictures: Any, tiny: Callable[..., Any]) -> None:
    built = tiny({f"{n}.png": pictures.png(n) for n in range(5)}, shard_size=2, caption=CAPTIONER)
    shards = filter_here(built.dataset, built.config)
    assert last_run(built.dataset) is None
    assert shards == built.ingested().filtered().shards and len(shards) == 3


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.lists(st.sampled_from(["", "A caption.", "permanent", "refused", "transient"]), min_size=1, max_size=6))
def test_every_picture_is_answered_failed_or_asked(
    pictures: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, ends: list[str]
) -> None:
    files = {f"{n}.png": pictures.png(n) for n in range(len(ends))}
    built = tiny_in(tmp_path_factory.mktemp("plan"), files, caption=PRICED).ingested().filtered()
    asker = Asker.of(built.config.caption)
    said = dict(zip(contents(built), ends, strict=True))
    write_down(built.dataset, asker, {content: end for content, end in said.items() if end})
    plan = plan_captions(built.dataset, built.shards, asker.config)
    assert plan.pictures == plan.answered + plan.failed + plan.requests == len(ends)
    assert (plan.answered, plan.requests) == (ends.count("A caption."), ends.count(""))
    assert plan.paid_requests == sum({"": 0, "transient": 4}.get(end, 1) for end in ends)
    assert plan.paid_cost == pytest.approx(plan.answered * COST / NANO)


def test_answers_that_were_counted_make_the_estimate_theirs(pictures: Any, tiny: Callable[..., Any]) -> None:
    files = {f"{n}.png": pictures.png(n) for n in range(4)}
    built = tiny(files, caption={**PRICED, "concurrency": 1}).ingested().filtered()
    asker = Asker.of(built.config.caption)
    write_down(built.dataset, asker, {contents(built)[0]: "A caption."})
    plan = plan_captions(built.dataset, built.shards, asker.config)
    assert (plan.output_tokens, plan.minutes) == (3 * 7, pytest.approx(3 * 2.0 / 60))


def test_a_limit_a_minute_makes_it_longer(pictures: Any, tiny: Callable[..., Any]) -> None:
    built = tiny({f"{n}.png": pictures.png(n) for n in range(4)}, caption={**PRICED, "requests_per_minute": 1})
    plan = plan_captions(built.dataset, built.ingested().filtered().shards, built.config.caption)
    assert plan.minutes == 4


def test_without_a_price_money_is_unknown(pictures: Any, tiny: Callable[..., Any]) -> None:
    built = tiny({"a.png": pictures.png(1)}, caption=CAPTIONER).ingested().filtered()
    plan = plan_captions(built.dataset, built.shards, built.config.caption)
    assert (plan.requests, plan.cost, plan.cost_at_worst, plan.paid_cost, plan.fits) == (1, None, None, None, True)
    assert plan.as_dict()["fits"] is True


@pytest.mark.parametrize(
    ("given_", "fits"),
    [
        ({"requests": 3, "paid_requests": 2, "max_requests": 5}, True),
        ({"requests": 4, "paid_requests": 2, "max_requests": 5}, False),
        ({"requests": 1, "cost": 1.0, "paid_cost": 1.0, "max_cost": 2.0}, True),
        ({"requests": 1, "cost": 1.0, "paid_cost": 1.1, "max_cost": 2.0}, False),
        ({"requests": 0, "paid_requests": 9, "max_requests": 5}, True),
        ({"requests": 9}, True),
    ],
)
def test_whether_it_fits(given_: dict[str, Any], fits: bool) -> None:
    assert CaptionPlan(**given_).fits is fits
