"""Each sample once, each accounted for, and what a stage kept is what comes into the next one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.gate import check_stage
from expectations.sets import repeated
from vlmdata.checkpoint import Counts, Result, publish, step_key
from vlmdata.config import GatesConfig
from vlmdata.errors import GateFailed
from vlmdata.layout import Stage, Step
from vlmdata.runs import existing_run


def shards_of(story: Any, stage: Stage) -> list[Any]:
    done = existing_run(story.dataset).stage(stage)
    assert done is not None
    return list(done.shards)


def forged(story: Any, shard: Any, step: Step, tables: dict[str, pa.Table], came: int) -> Any:
    """The shard with another checkpoint at a step, whose own account is right."""
    key = step_key(step, [shard.name, str(came)], "forged by a test")
    result = Result(tables, Counts(came=came, kept=came))
    return shard.at(step, publish(story.dataset, shard.name, step, key, result))


def one_more_or_less(story: Any, stage: Stage, more: int) -> tuple[list[Any], str]:
    """The shards of a stage, one of which claims more samples than it has; and its name."""
    shards, step = shards_of(story, stage), Step(stage.value)
    at = next(i for i, one in enumerate(shards) if story.dataset.manifest(one, step).samples.came > 1)
    real = story.dataset.manifest(shards[at], step)
    tables = {name: story.dataset.table(ref) for name, ref in real.tables.items()}
    shards[at] = forged(story, shards[at], step, tables, real.samples.came + more)
    return shards, shards[at].name


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("stage", list(Stage)[1:])
def test_samples_that_go_or_come_between_two_stages_are_seen(story: Any, stage: Stage, more: int) -> None:
    shards, name = one_more_or_less(story, stage, more)
    lenient = story.config.model_copy(update={"gates": GatesConfig(severities={"kept_written": "warn"})})
    with pytest.raises(GateFailed, match=r"nothing_lost: expect_in_to_equal_out") as error:
        check_stage(story.dataset, shards, stage, lenient)
    assert name in str(error.value)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_manifest_that_claims_more_than_is_there_is_seen(story: Any, stage: Stage) -> None:
    shards, name = one_more_or_less(story, stage, 1)
    with pytest.raises(GateFailed, match="kept_written") as error:
        check_stage(story.dataset, shards, stage, story.config)
    assert name in str(error.value)


def test_a_plan_whose_parts_name_different_cuts_of_the_same_samples_loses_none(story: Any) -> None:
    """Two runs that cut a source differently share one plan."""
    checked, [exported] = shards_of(story, Stage.CHECKED), shards_of(story, Stage.FINAL)
    everything = pa.concat_tables([story.dataset.read(one, Step.CHECKED, "samples") for one in checked])
    whole = forged(story, checked[0], Step.CHECKED, {"samples": everything}, everything.num_rows)
    plan = story.dataset.read(exported, Step.EXPORT_PLAN, "plan")
    paths = [*plan["checked"].to_pylist()[:-1], whole.manifests[Step.CHECKED]]
    mixed = plan.set_column(1, plan.schema.field("checked"), [paths])
    exported = forged(story, exported, Step.EXPORT_PLAN, {"plan": mixed}, plan.num_rows)
    assert check_stage(story.dataset, [exported], Stage.FINAL, story.config) == []


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=6), max_size=4))
def test_ids_that_stand_more_than_once_are_counted_and_named(shards: list[list[str]]) -> None:
    figure = repeated(pa.chunked_array([pa.array(ids, pa.string()) for ids in shards], pa.string()))
    times = Counter(one for ids in shards for one in ids)
    expected = {name: count for name, count in times.items() if count > 1}
    assert (figure.value, figure.of) == (len(expected), times.total())
    shown = dict(zip(figure.ids, figure.seen, strict=True))
    assert shown.items() <= {name: f"{count} times" for name, count in expected.items()}.items()
    assert len(shown) == min(5, len(expected))
