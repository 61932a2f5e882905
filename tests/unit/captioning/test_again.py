"""Held samples come back; answers are in the journal already, so that nobody has to be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.captioning.test_plan import CAPTIONER, contents, write_down
from vlmdata.captioning.again import caption_held, recounted, times_again
from vlmdata.captioning.questions import Asker
from vlmdata.captioning.shards import caption_shard
from vlmdata.config import CaptionConfig
from vlmdata.layout import Stage, Step
from vlmdata.runs import report
from vlmdata.schema import AGAIN

FIRST, SECOND = "A first caption of it.", "Another caption of it."


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({}, 1),
        ({"recaption_held": 3}, 3),
        ({"recaption_held": 0}, 0),
        ({"policy": "none"}, 0),
        ({"policy": "all"}, 1),
        ({"base_url": None}, 0),
        ({"model": None}, 0),
    ],
)
def test_how_often(changes: dict[str, Any], times: int) -> None:
    assert times_again(CaptionConfig.model_validate({**CAPTIONER, **changes})) == times


@pytest.fixture
def built(pictures: Any, tiny: Callable[..., Any]) -> Any:
    """Three samples with a model's first caption each."""
    filtered = tiny({f"{n}.png": pictures.png(n) for n in range(3)}, caption=CAPTIONER).ingested().filtered()
    first = {content: f"{FIRST[:-1]} {place}" for place, content in enumerate(contents(filtered))}
    write_down(filtered.dataset, Asker.of(filtered.config.caption), first)
    return filtered.each(caption_shard, filtered.config.caption)


def texts(built: Any) -> list[str]:
    return [row["text"] for row in built.rows(Step.CAPTIONED, "captions")]


def test_only_what_is_held_is_asked_for_and_both_captions_stay(built: Any) -> None:
    first = texts(built)
    judged = built.judged({first[0]: 0.25, first[1]: 0.5, first[2]: 0.1})
    config = built.config.caption
    write_down(built.dataset, Asker.of(config, 1), {contents(built)[0]: SECOND})
    again = judged.each(caption_held, config, 1)
    assert texts(again) == [first[0], SECOND, *first[1:]]
    captions = again.rows(Step.CAPTIONED, "captions")
    assert [AGAIN in row["origin"] for row in captions] == [False, True, False, False]
    assert [row["attempt"] for row in again.rows(Step.CAPTIONED, "attempts")] == [1, 1, 1, 1]

    better = again.judged({first[0]: 0.25, SECOND: 0.4, first[1]: 0.5, first[2]: 0.1})
    kept = {row["text"]: row["score"] for row in better.rows(Step.CHECKED, "captions")}
    assert set(kept) == {SECOND, first[1]}
    rejects = {row["text"]: row["code"] for row in better.rows(Step.CHECKED, "caption_rejects")}
    assert rejects == {first[0]: "borderline", first[2]: "misaligned"}
    assert better.each(caption_held, config, 2).shards == better.shards, "nothing is held any more"


def test_an_asking_that_failed_leaves_the_sample_as_it_was(built: Any) -> None:
    judged = built.judged(dict.fromkeys(texts(built), 0.25))
    held = contents(built)
    write_down(
        built.dataset,
        Asker.of(built.config.caption, 1),
        {held[0]: "refused", held[1]: "transient", held[2]: SECOND},
    )
    again = judged.each(caption_held, built.config.caption, 1)
    assert len(texts(again)) == 4
    captioned, judged_again = built.report(Stage.CAPTIONED), again.judged({SECOND: 0.4})
    whole = recounted(built.dataset, captioned, judged_again.shards)
    assert (captioned.captions.came, captioned.open) == (3, 0)
    assert (whole.captions.came, whole.captions.kept, whole.captions.failed, whole.open) == (6, 4, 2, 1)
    assert (whole.samples, whole.reasons) == (captioned.samples, captioned.reasons)
    whole.captions.check("captions")


def test_what_was_not_asked_anew_is_not_counted_anew(built: Any) -> None:
    captioned, judged = built.report(Stage.CAPTIONED), built.judged({})
    assert recounted(built.dataset, captioned, judged.shards) is captioned
    assert recounted(built.dataset, captioned, []) is captioned
    assert report(built.dataset, Stage.CAPTIONED, judged.shards).captions == captioned.captions
