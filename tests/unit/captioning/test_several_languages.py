"""A caption in each of several languages; answers are in the journal already, so that nobody has to be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.captioning.test_plan import COST, PRICED, contents, write_down
from vlmdata.captioning.again import caption_held
from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.plan import plan_captions
from vlmdata.captioning.questions import Asker, askers
from vlmdata.captioning.shards import caption_shard
from vlmdata.config_reading import parse_config
from vlmdata.errors import ConfigError
from vlmdata.explain import explain
from vlmdata.export.card_facts import _prompts
from vlmdata.failures import failures, open_again
from vlmdata.layout import Stage, Step
from vlmdata.runs import COMPLETED, start_run

ENGLISH, GERMAN, AGAIN = "A picture of it.", "Ein Bild davon.", "Ein besseres Bild davon."


@pytest.fixture
def filtered(pictures: Any, tiny: Callable[..., Any]) -> Any:
    """Three pictures that want a caption in English and in German."""
    asked = {**PRICED, "language": ["en", "de"]}
    judges = {"languages": {"de": {"model": "starter-multilingual", "accept_above": 0.28, "reject_below": 0.2}}}
    made = tiny({f"{n}.png": pictures.png(n) for n in range(3)}, caption=asked, quality=judges)
    return made.ingested().filtered()


def said(filtered: Any, english: list[str], german: list[str]) -> Any:
    """The pictures captioned, with these ends of their questions; transient ones are out of requests."""
    for asker, ends in zip(askers(filtered.config.caption), (english, german), strict=True):
        write_down(filtered.dataset, asker, dict(zip(contents(filtered), ends, strict=True)))
    return filtered.each(caption_shard, filtered.config.caption)


def recorded(done: Any) -> None:
    run = start_run(done.dataset, done.config)
    for stage in (Stage.RAW, Stage.FILTERED, Stage.CAPTIONED):
        run.stage_done(done.report(stage))
    run.finish(COMPLETED, "", to=Stage.CAPTIONED.value)


def told(done: Any) -> list[tuple[str, str]]:
    return [(row["lang"], row["text"]) for row in done.rows(Step.CAPTIONED, "captions")]


def test_each_picture_gets_a_caption_in_each(filtered: Any) -> None:
    done = said(filtered, [ENGLISH] * 3, [GERMAN] * 3)
    assert told(done) == [("en", ENGLISH), ("de", GERMAN)] * 3
    assert len({row["caption_id"] for row in done.rows(Step.CAPTIONED, "captions")}) == 6
    report = done.report(Stage.CAPTIONED)
    assert (report.samples.came, report.samples.kept) == (3, 3)
    assert (report.captions.came, report.captions.kept) == (6, 6)
    recorded(done)
    stages = explain(done.dataset, done.rows(Step.FILTERED, "samples")[0]["id"])["stages"]
    [asked] = [stage["facts"]["asked"] for stage in stages if stage["stage"] == Stage.CAPTIONED]
    assert [one["language"] for one in asked] == ["en", "de"]


def test_what_failed_in_one_language_is_in_the_ledger_and_the_sample_goes_on(filtered: Any) -> None:
    done = said(filtered, [ENGLISH, ENGLISH, "permanent"], [GERMAN, "refused", "transient"])
    report = done.report(Stage.CAPTIONED)
    assert told(done) == [("en", ENGLISH), ("de", GERMAN), ("en", ENGLISH)]
    assert (report.samples.kept, report.samples.failed) == (2, 1)
    assert (report.captions.came, report.captions.kept, report.captions.failed) == (6, 3, 3)
    assert (report.reasons, report.open) == ({"caption_transient": 1}, 1), "a rerun may mend it in one language"
    recorded(done)
    ledger = {(row["language"], row["class"]): row["id"] for row in failures(done.dataset).to_pylist()}
    ids = [row["id"] for row in done.rows(Step.FILTERED, "samples")]
    assert ledger == {("de", "refused"): ids[1], ("en", "permanent"): ids[2], ("de", "transient"): ids[2]}

    assert open_again(done.dataset, ["refused"]) == 1
    german = Asker.of(done.config.caption, language="de")
    write_down(done.dataset, german, {contents(done)[1]: GERMAN}, attempt=2)
    after = filtered.each(caption_shard, done.config.caption)
    assert told(after) == [("en", ENGLISH), ("de", GERMAN)] * 2


def test_another_language_later_pays_for_that_alone(filtered: Any) -> None:
    english = filtered.config.caption.model_copy(update={"language": "en"})
    write_down(filtered.dataset, Asker.of(english), dict.fromkeys(contents(filtered), ENGLISH))
    alone = filtered.each(caption_shard, english)
    assert told(alone) == [("en", ENGLISH)] * 3
    plan = plan_captions(filtered.dataset, filtered.shards, filtered.config.caption)
    assert (plan.pictures, plan.languages, plan.answered, plan.requests) == (3, 2, 3, 3)
    assert plan.paid_cost == pytest.approx(3 * COST / NANO)
    german = plan_captions(filtered.dataset, filtered.shards, english.model_copy(update={"language": "de"}))
    assert (german.requests, german.cost, german.cost_at_worst) == (3, plan.cost, plan.cost_at_worst)
    assert told(said(filtered, [ENGLISH] * 3, [GERMAN] * 3)) == [("en", ENGLISH), ("de", GERMAN)] * 3


def test_each_language_keeps_the_better_of_its_captions(filtered: Any) -> None:
    config = filtered.config.caption
    done = said(filtered, [ENGLISH] * 3, [GERMAN] * 3)
    judged = done.judged({ENGLISH: 0.25, GERMAN: 0.25})
    for asker in askers(config, 1):
        write_down(done.dataset, asker, dict.fromkeys(contents(done), AGAIN if asker.language == "de" else ENGLISH))
    again = judged.each(caption_held, config, 1)
    assert told(again)[:4] == [("en", ENGLISH), ("de", GERMAN), ("en", ENGLISH), ("de", AGAIN)]
    better = again.judged({ENGLISH: 0.3, GERMAN: 0.35, AGAIN: 0.4})
    kept = [(row["lang"], row["text"]) for row in better.rows(Step.CHECKED, "captions")]
    assert sorted(kept) == sorted([("en", ENGLISH), ("de", AGAIN)] * 3)
    assert {row["code"] for row in better.rows(Step.CHECKED, "caption_rejects")} == {"outscored"}


@pytest.mark.parametrize("wrong", [[], ["en", "EN"], ["en", False], False, 3])
def test_languages_that_cannot_be_asked_for_are_one_line(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"caption.language = .*: expected a tag such as de") as caught:
        parse_config({"dataset": "d", "source": {"kind": "folder", "path": "p"}, "caption": {"language": wrong}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("same", [{"prompt": "What is it?"}, {"language": ("zh-TW", "zh-Hant")}])
def test_the_same_question_is_not_paid_for_twice(filtered: Any, same: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="asks the same in two of these") as caught:
        askers(filtered.config.caption.model_copy(update=same))
    assert "\n" not in str(caught.value)


def test_a_list_of_one_is_that_one(filtered: Any) -> None:
    one = filtered.config.caption.model_copy(update={"language": ("en",)})
    [asker] = askers(one)
    assert asker.settings() == Asker.of(one.model_copy(update={"language": "en"})).settings()


def test_the_card_tells_the_prompt_in_each(filtered: Any) -> None:
    config = filtered.config.caption
    told = {row["identity"]: row["text"] for row in _prompts(config)}
    name = Asker.of(config).prompt.identity
    small = f"for pictures below {config.low_resolution_below} px"
    assert list(told) == [f"{name}, en", f"{name}, en, {small}", f"{name}, de", f"{name}, de, {small}"]
    assert "English" in told[f"{name}, en"] and "German" in told[f"{name}, de, {small}"]
    alone = _prompts(config.model_copy(update={"language": "de"}))
    assert alone[0]["identity"] == name
