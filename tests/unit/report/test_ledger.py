"""The ledger: every sample and every caption once, with the fate that the accounts say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from vlmdata.explain import explain
from vlmdata.layout import Stage
from vlmdata.report.ledger import Ledger, ledger_of
from vlmdata.report.records import records
from vlmdata.runs import existing_run


@pytest.fixture(scope="module")
def ledger(story: Any) -> Iterator[Ledger]:
    with ledger_of(existing_run(story.dataset)) as found:
        yield found


def test_every_sample_is_there_once_and_ended_where_the_accounts_say(story: Any, ledger: Ledger) -> None:
    run = existing_run(story.dataset)
    ended = Counter((row["stage"], row["outcome"]) for row in ledger.rows("SELECT stage, outcome FROM samples"))
    for stage in Stage:
        report = run.stage(stage)
        assert report is not None
        for outcome in ("rejected", "held", "failed"):
            assert ended[stage.value, outcome] == getattr(report.samples, outcome), (stage, outcome)
    final = run.stage(Stage.FINAL)
    assert final is not None and ended[Stage.FINAL.value, "kept"] == final.samples.kept > 0
    assert ledger.value("SELECT count(*) = count(DISTINCT id) FROM samples")
    raw = run.stage(Stage.RAW)
    assert raw is not None and sum(ended.values()) == raw.samples.came


def test_every_caption_is_there_once(story: Any, ledger: Ledger) -> None:
    run = existing_run(story.dataset)
    checked = run.stage(Stage.CHECKED)
    assert checked is not None
    kept = ledger.value("SELECT count(*) FROM captions WHERE outcome = 'kept'")
    assert kept == checked.captions.kept
    codes = Counter(row["code"] for row in ledger.rows("SELECT code FROM captions WHERE outcome <> 'kept'"))
    told = Counter[str]()
    for stage in (Stage.RAW, Stage.FILTERED, Stage.CAPTIONED, Stage.CHECKED):
        report = run.stage(stage)
        assert report is not None
        told.update(report.caption_reasons)
    assert codes == told
    assert ledger.value("SELECT count(*) = count(DISTINCT caption_id) FROM captions")


def test_a_record_says_what_explain_says(story: Any, ledger: Ledger) -> None:
    for row in ledger.rows("SELECT id, key FROM samples ORDER BY id"):
        [record] = records(ledger, [row["id"]])
        last = explain(story.dataset, row["id"])["stages"][-1]
        assert (record["stage"], record["outcome"]) == (last["stage"], last["outcome"]), row["key"]
        reason = last["facts"].get("reason", last["facts"])
        for name in ("code", "related"):
            assert record.get(name) == reason.get(name), (row["key"], name)
        for name in ("value", "bound"):
            assert (name in record) == (name in reason), (row["key"], name)
            assert record.get(name, 0) == pytest.approx(reason.get(name, 0), rel=1e-6), (row["key"], name)


def test_a_near_duplicate_has_the_captions_that_it_gave_away(ledger: Ledger) -> None:
    [twin] = ledger.rows("SELECT id, related FROM samples WHERE code = 'near_duplicate'")
    record, keeper = records(ledger, [twin["id"], twin["related"]])
    assert {caption["caption_id"] for caption in record["captions"]} <= {
        caption["caption_id"] for caption in keeper["captions"]
    }
    assert len(record["captions"]) >= 1


def test_records_come_in_the_order_of_their_ids_and_unknown_ones_are_left_out(ledger: Ledger) -> None:
    ids = [row["id"] for row in ledger.rows("SELECT id FROM samples ORDER BY key")]
    asked = [ids[3], "no such id", ids[0]]
    assert [record["id"] for record in records(ledger, asked)] == [ids[3], ids[0]]


def test_a_run_that_stopped_early_is_told_as_far_as_it_came(tiny: Any, pictures: Any) -> None:
    from vlmdata.runs import start_run

    start = tiny({"a.png": pictures.png(1), "b.png": pictures.png(2, 20, 20)}, {"a.png": ["one"], "b.png": ["two"]})
    run = start_run(start.dataset, start.config)
    built = start.ingested()
    run.stage_done(built.report(Stage.RAW))
    for stage, outcomes in ((Stage.RAW, {"kept": 2}), (Stage.FILTERED, {"kept": 1, "rejected": 1})):
        if stage is Stage.FILTERED:
            built = built.filtered()
            run.stage_done(built.report(stage))
        with ledger_of(run) as found:
            told = Counter(row["outcome"] for row in found.rows("SELECT outcome FROM samples"))
            assert told == outcomes
            assert found.value("SELECT count(*) FROM captions") == 2
