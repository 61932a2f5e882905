"""A bad shard costs only itself, in a real flow on real task runners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow, task

from flows.engine import Engine, once
from tasks.job import SHARD, Job, named_failures
from tests.integration.prefect_server import PrefectServer, used_here
from vlmdata import progress
from vlmdata.checkpoint import Shard
from vlmdata.config_reading import parse_config
from vlmdata.errors import BuildIncomplete, ConfigError, SourceError, StoreError
from vlmdata.layout import Step

pytestmark = pytest.mark.integration
JOB = Job(parse_config({"dataset": "set", "source": {"kind": "folder", "path": "/p"}}), 1)
SHARDS = [Shard(f"{number:05d}", 10) for number in range(4)]


@pytest.fixture(autouse=True)
def _prefect(server: PrefectServer) -> Iterator[None]:
    with used_here(server.api):
        yield


@task
@named_failures
def mark(shard: Shard, job: Job) -> Shard:
    return shard.at(Step.RAW, f"done by {job.number}")


@task
def lose_odd(shard: Shard, job: Job) -> Shard:
    if int(shard.name) % 2:
        raise OSError("the disk is gone")
    return shard


@task
def lose_all(shard: Shard, job: Job) -> Shard:
    raise OSError("the disk is gone")


@task
@named_failures
def mistake(shard: Shard, job: Job) -> Shard:
    raise SourceError("one line")


def run(body: Any) -> Any:
    @flow
    def whole() -> Any:
        with Engine(JOB) as engine:
            return body(engine)

    return whole()


class Ear(progress.Listener):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def begin(self, step: Step, total: int) -> None:
        self.heard.append(("begin", total))

    def done(self, step: Step, samples: int) -> None:
        self.heard.append(("done", samples))

    def end(self, step: Step) -> None:
        self.heard.append("end")


def test_each_shard_in_order_and_progress_is_told() -> None:
    ear = Ear()
    with progress.listening(ear):
        found = run(lambda engine: engine.each(mark, SHARDS, Step.RAW))
    assert [shard.name for shard in found] == [shard.name for shard in SHARDS]
    assert {shard.manifests[Step.RAW] for shard in found} == {"done by 1"}
    assert ear.heard == [("begin", 40), *[("done", 10)] * 4, "end"]


def test_what_is_known_to_be_done_is_not_done_again() -> None:
    ear = Ear()
    known = [shard.at(Step.RAW, "done before") for shard in (SHARDS[2], SHARDS[0])]
    with progress.listening(ear):
        found = run(lambda engine: engine.each(mark, SHARDS, Step.RAW, known=known))
    assert [shard.name for shard in found] == [shard.name for shard in SHARDS]
    assert [shard.manifests[Step.RAW] for shard in found] == ["done before", "done by 1"] * 2
    assert ear.heard == [("begin", 40), ("done", 20), ("done", 10), ("done", 10), "end"]


def test_lost_shards_are_left_out_and_remembered() -> None:
    def body(engine: Engine) -> Any:
        found = engine.each(lose_odd, SHARDS, Step.RAW)
        with pytest.raises(BuildIncomplete, match="2 shards lost before it is cut") as error:
            engine.require_all("it is cut")
        return [shard.name for shard in found], str(error.value)

    names, message = run(body)
    assert names == ["00000", "00002"]
    assert "00001" in message
    assert "the disk is gone" in message


def test_with_all_shards_lost_there_is_no_going_on() -> None:
    with pytest.raises(BuildIncomplete, match="4 shards lost"):
        run(lambda engine: engine.each(lose_all, SHARDS, Step.RAW))


def test_a_mistake_of_the_person_stops_everything() -> None:
    with pytest.raises(SourceError, match="one line"):
        run(lambda engine: engine.each(mistake, SHARDS, Step.RAW))


@pytest.mark.parametrize("failure", [StoreError("the store is away"), OSError("the disk is gone")], ids=repr)
def test_what_failed_on_our_side_once_is_done_by_prefects_own_second_try(failure: Exception) -> None:
    tries: list[str] = []
    found = run(lambda engine: engine.each(failing_at_first(failure, tries), SHARDS[:2], Step.RAW))
    assert [shard.name for shard in found] == ["00000", "00001"]
    assert sorted(tries) == ["00000", "00000", "00001", "00001"]


def test_a_mistake_of_the_person_is_not_tried_again() -> None:
    tries: list[str] = []
    with pytest.raises(ConfigError, match="one line"):
        run(lambda engine: engine.each(failing_at_first(ConfigError("one line"), tries), SHARDS[:1], Step.RAW))
    assert tries == ["00000"]


def failing_at_first(failure: Exception, tries: list[str]) -> Any:
    """A task with the settings that every shard's has, but for its pauses, which fails at its first try of each."""

    @task(**{**SHARD, "retry_delay_seconds": 0})
    @named_failures
    def work(shard: Shard, job: Job) -> Shard:
        tries.append(shard.name)
        if tries.count(shard.name) == 1:
            raise failure
        return shard

    return work


def test_nothing_lost_nothing_said() -> None:
    assert run(lambda engine: engine.require_all("it is cut")) is None


def test_once_gives_the_result_or_the_error() -> None:
    @flow
    def whole() -> Any:
        return once(mark, SHARDS[0], JOB)

    assert whole().manifests[Step.RAW] == "done by 1"

    @flow
    def failing() -> Any:
        return once(mistake, SHARDS[0], JOB)

    with pytest.raises(SourceError, match="one line"):
        failing()
