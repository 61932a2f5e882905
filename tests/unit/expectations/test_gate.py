"""Gates say which rule broke and where, stop or warn as they are told, and write down what they found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from expectations.gate import check_stage
from expectations.severities import RULES
from expectations.verdict import recorded
from vlmdata.checkpoint import Counts, Result, publish, step_key
from vlmdata.config import FilterConfig, GatesConfig
from vlmdata.errors import ConfigError, GateFailed
from vlmdata.layout import Stage, Step
from vlmdata.runs import existing_run, start_run


@pytest.fixture(scope="module")
def reports(story: Any) -> dict[Stage, Any]:
    run = existing_run(story.dataset)
    return {stage: run.stage(stage) for stage in Stage}


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(GateFailed) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def stricter(story: Any, **severities: Any) -> Any:
    """A config under whose bound every picture is too small."""
    gates = GatesConfig(severities=severities)
    return story.config.model_copy(update={"filter": FilterConfig(min_side=48 + 1), "gates": gates})


def test_a_good_run_passes_every_gate_and_every_rule_is_judged(tiny: Any, story: Any, reports: Any) -> None:
    run = start_run(tiny({}, {}).dataset, story.config)
    for stage in Stage:
        assert check_stage(story.dataset, reports[stage].shards, stage, story.config, run) == []
    every = recorded(run)
    assert all(verdict.held and verdict.severity == "stop" for verdict in every)
    # There are no splits here.
    assert {verdict.rule for verdict in every} == set(RULES) - {"no_split_leaks"}
    assert {verdict.suite for verdict in every if verdict.rule == "not_empty"} == {stage.value for stage in Stage}


def test_a_picture_under_the_bound_is_named(story: Any, reports: dict[Stage, Any]) -> None:
    shards = reports[Stage.FILTERED].shards
    message = refused(lambda: check_stage(story.dataset, shards, Stage.FILTERED, stricter(story)))
    kept = story.dataset.read(shards[0], Step.FILTERED, "samples")["id"].to_pylist()
    assert message.startswith("01_filtered: min_side: expect_column_max_to_be_between(samples_with_shorter_side_below")
    assert "the shorter side is at least 49 px; saw 48" in message
    assert kept[0] in message


def test_what_warns_does_not_stop_and_is_said_and_written_down(tiny: Any, story: Any, reports: Any) -> None:
    run, shards = start_run(tiny({}, {}).dataset, story.config), reports[Stage.FILTERED].shards
    [said] = check_stage(story.dataset, shards, Stage.FILTERED, stricter(story, min_side="warn"), run)
    assert "min_side" in said and "did not hold" in said and "\n" not in said
    [broken] = [verdict for verdict in recorded(run) if not verdict.held]
    assert (broken.rule, broken.severity, broken.sentence) == ("min_side", "warn", said)


def test_what_stops_is_written_down_as_well(tiny: Any, story: Any, reports: Any) -> None:
    run, shards = start_run(tiny({}, {}).dataset, story.config), reports[Stage.FILTERED].shards
    message = refused(lambda: check_stage(story.dataset, shards, Stage.FILTERED, stricter(story), run))
    [broken] = [verdict for verdict in recorded(run) if not verdict.held]
    assert (broken.severity, broken.sentence) == ("stop", message)


def test_several_that_stop_are_counted(story: Any, reports: dict[Stage, Any]) -> None:
    shard = next(s for s in reports[Stage.FILTERED].shards if len(story.dataset.read(s, Step.FILTERED, "samples")))
    message = refused(lambda: check_stage(story.dataset, [shard, shard], Stage.FILTERED, stricter(story)))
    assert "unique_ids" in message and message.endswith("; 2 more of its rules did not hold")


def test_alike_pictures_are_named(story: Any, reports: dict[Stage, Any]) -> None:
    shard = next(s for s in reports[Stage.FILTERED].shards if len(story.dataset.read(s, Step.FILTERED, "samples")))
    samples = story.dataset.read(shard, Step.FILTERED, "samples").slice(0, 1)
    other = samples.set_column(0, samples.schema.field(0), pa.array(["f" * 32]))
    twice = published(story, shard, Step.FILTERED, {"samples": pa.concat_tables([samples, other])}, 2)
    lenient = story.config.model_copy(update={"gates": GatesConfig(severities={"nothing_lost": "warn"})})
    message = refused(lambda: check_stage(story.dataset, [twice], Stage.FILTERED, lenient))
    assert "expect_no_two_hashes_within(samples_like_an_earlier_one, " in message and "radius=8" in message
    assert "f" * 32 in message


def test_one_id_twice_is_named(story: Any, reports: dict[Stage, Any]) -> None:
    shard = reports[Stage.RAW].shards[0]
    message = refused(lambda: check_stage(story.dataset, [shard, shard], Stage.RAW, story.config))
    assert "unique_ids" in message and "2 times" in message
    assert any(one in message for one in story.dataset.read(shard, Step.RAW, "samples")["id"].to_pylist())


def test_a_score_that_is_not_above_the_bound_is_named(story: Any, reports: dict[Stage, Any]) -> None:
    quality = story.config.quality.model_copy(update={"accept_above": 0.4})
    higher = story.config.model_copy(update={"quality": quality})
    message = refused(lambda: check_stage(story.dataset, reports[Stage.CHECKED].shards, Stage.CHECKED, higher))
    assert "above_accept_bound" in message and "saw 0.3" in message


@pytest.mark.parametrize("stage", list(Stage))
def test_a_stage_of_which_nothing_is_left(story: Any, reports: dict[Stage, Any], stage: Stage) -> None:
    shard = reports[stage].shards[0]
    tables = story.dataset.manifest(shard, Step(stage.value)).tables
    empty = {name: story.dataset.table(ref).slice(0, 0) for name, ref in tables.items()}
    nothing = published(story, shard, Step(stage.value), empty, 0)
    message = refused(lambda: check_stage(story.dataset, [nothing], stage, story.config))
    assert "not_empty" in message and "did not hold: something is left; saw 0" in message


@pytest.mark.parametrize("stage", list(Stage))
def test_a_stage_of_no_shards_does_not_pass(story: Any, stage: Stage) -> None:
    assert "not_empty" in refused(lambda: check_stage(story.dataset, [], stage, story.config))


def test_a_rule_that_is_not_there_is_refused_before_anything_is_judged(story: Any) -> None:
    gates = GatesConfig(severities={"min_sides": "warn"})
    with pytest.raises(ConfigError, match=r"'min_sides'; did you mean min_side"):
        check_stage(story.dataset, [], Stage.RAW, story.config.model_copy(update={"gates": gates}))


def published(story: Any, shard: Any, step: Step, tables: dict[str, pa.Table], kept: int) -> Any:
    key = step_key(step, [f"{name} {table.num_rows} {shard.name}" for name, table in tables.items()], "made by a test")
    result = Result(tables, Counts(came=kept, kept=kept))
    return shard.at(step, publish(story.dataset, shard.name, step, key, result))
