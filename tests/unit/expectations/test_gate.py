"""Gates say which rule broke and where; and a suite that checks nothing does not pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from expectations.gate import check_stage, validate
from vlmdata.checkpoint import Counts, Result, publish, step_key
from vlmdata.config import FilterConfig
from vlmdata.errors import BrokenInvariant, GateFailed
from vlmdata.layout import Stage, Step
from vlmdata.runs import existing_run


@pytest.fixture(scope="module")
def reports(story: Any) -> dict[Stage, Any]:
    run = existing_run(story.dataset)
    return {stage: run.stage(stage) for stage in Stage}


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(GateFailed) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_good_run_passes_every_gate(story: Any, reports: dict[Stage, Any], stage: Stage) -> None:
    assert check_stage(story.dataset, reports[stage].shards, stage, story.config) >= 6


def test_a_picture_under_the_bound_is_named(story: Any, reports: dict[Stage, Any]) -> None:
    stricter = story.config.model_copy(update={"filter": FilterConfig(min_side=48 + 1)})
    message = refused(lambda: check_stage(story.dataset, reports[Stage.FILTERED].shards, Stage.FILTERED, stricter))
    kept = story.dataset.read(reports[Stage.FILTERED].shards[0], Step.FILTERED, "samples")["id"].to_pylist()
    assert "01_filtered samples: expect_column_values_to_be_between(shorter_side, min_value=49" in message
    assert kept[0] in message


def test_alike_pictures_are_named(story: Any, reports: dict[Stage, Any]) -> None:
    shard = next(s for s in reports[Stage.FILTERED].shards if len(story.dataset.read(s, Step.FILTERED, "samples")))
    samples = story.dataset.read(shard, Step.FILTERED, "samples").slice(0, 1)
    other = samples.set_column(0, samples.schema.field(0), pa.array(["f" * 32]))
    twice = _published(story, shard, Step.FILTERED, {"samples": pa.concat_tables([samples, other])}, 2)
    message = refused(lambda: check_stage(story.dataset, [twice], Stage.FILTERED, story.config))
    assert "expect_column_values_to_be_null(alike)" in message
    assert "f" * 32 in message


def test_one_id_twice_is_named(story: Any, reports: dict[Stage, Any]) -> None:
    shard = reports[Stage.RAW].shards[0]
    message = refused(lambda: check_stage(story.dataset, [shard, shard], Stage.RAW, story.config))
    assert "copies" in message
    assert story.dataset.read(shard, Step.RAW, "samples")["id"][0].as_py() in message


def test_a_score_that_is_not_above_the_bound_is_named(story: Any, reports: dict[Stage, Any]) -> None:
    quality = story.config.quality.model_copy(update={"accept_above": 0.4})
    stricter = story.config.model_copy(update={"quality": quality})
    message = refused(lambda: check_stage(story.dataset, reports[Stage.CHECKED].shards, Stage.CHECKED, stricter))
    assert "expect_column_values_to_be_between(margin" in message


@pytest.mark.parametrize("stage", list(Stage))
def test_a_stage_of_which_nothing_is_left(story: Any, reports: dict[Stage, Any], stage: Stage) -> None:
    shard = reports[stage].shards[0]
    tables = story.dataset.manifest(shard, Step(stage.value)).tables
    empty = {name: story.dataset.table(ref).slice(0, 0) for name, ref in tables.items()}
    nothing = _published(story, shard, Step(stage.value), empty, 0)
    message = refused(lambda: check_stage(story.dataset, [nothing], stage, story.config))
    assert "did not hold: saw 0" in message


def test_an_expectation_of_a_column_that_is_not_there_does_not_pass() -> None:
    from great_expectations import expectations as gxe

    rows = pa.table({"id": ["a"]})
    with pytest.raises((GateFailed, BrokenInvariant)):
        validate("x", rows, [gxe.ExpectColumnValuesToNotBeNull(column="nothing")])


def test_fewer_than_written_are_a_defect() -> None:
    from great_expectations import expectations as gxe

    unknown = {"type": "expect_what_nobody_wrote", "kwargs": {}}
    with pytest.raises(BrokenInvariant, match="1 of 2 expectations"):
        validate("x", pa.table({"id": ["a"]}), [gxe.ExpectTableRowCountToBeBetween(min_value=1), unknown])


def _published(story: Any, shard: Any, step: Step, tables: dict[str, pa.Table], kept: int) -> Any:
    key = step_key(step, [f"{name} {table.num_rows} {shard.name}" for name, table in tables.items()], "made by a test")
    result = Result(tables, Counts(came=kept, kept=kept))
    return shard.at(step, publish(story.dataset, shard.name, step, key, result))
