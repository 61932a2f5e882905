"""The ledger: what failed, where, in which class; and what a retry opens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.captioning.test_plan import CAPTIONER, contents, write_down
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.questions import Asker
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset
from vlmdata.errors import ConfigError
from vlmdata.failures import CLASSES, failures, last_stage, may_be_mended, open_again
from vlmdata.layout import Stage, Step
from vlmdata.runs import COMPLETED, STOPPED, Run, start_run
from vlmdata.schema import FAILURES
from vlmdata.status import status

ENDS = ("A caption of it.", "permanent", "refused", "transient")


@pytest.fixture
def built(pictures: Any, tiny: Callable[..., Any]) -> Any:
    """One picture for each end of `ENDS`; the refused one has a caption of its own. Recorded as run 1, to 02."""
    files = {f"{n}.png": pictures.png(n) for n in range(len(ENDS))}
    ask = {**CAPTIONER, "policy": "all"}
    filtered = tiny(files, {"2.png": ["its own"]}, caption=ask, shard_size=3).ingested().filtered()
    by_key = {row["key"]: row["sha256"] for row in filtered.rows(Step.FILTERED, "samples")}
    write_down(
        filtered.dataset, Asker.of(filtered.config.caption), {by_key[f"{n}.png"]: end for n, end in enumerate(ENDS)}
    )
    return recorded(filtered)


def recorded(filtered: Any) -> Any:
    done = filtered.each(caption_shard, filtered.config.caption)
    run = start_run(done.dataset, done.config)
    run.stage_done(filtered.report(Stage.FILTERED))
    run.stage_done(done.report(Stage.CAPTIONED))
    run.finish(COMPLETED, "", to=Stage.CAPTIONED.value)
    return done


def classes(dataset: Dataset, *stages: Stage) -> list[str]:
    found: list[str] = failures(dataset, stages or tuple(Stage))["class"].to_pylist()
    return sorted(found)


def test_every_class_and_the_sample_that_went_on_with_its_own_caption(built: Any) -> None:
    ledger = failures(built.dataset)
    assert ledger.schema == FAILURES
    assert classes(built.dataset) == ["permanent", "refused", "transient"]
    requests = {row["class"]: row["attempts"] for row in ledger.to_pylist()}
    assert requests == {"permanent": 1, "refused": 1, "transient": 4}
    kept = {row["id"] for row in built.rows(Step.CAPTIONED, "samples")}
    [refused] = failures(built.dataset, classes=["refused"]).to_pylist()
    assert refused["id"] in kept and refused["code"] == "caption_refused"
    assert classes(built.dataset, Stage.FILTERED, Stage.CHECKED, Stage.FINAL) == []


def test_what_was_not_reached_is_as_it_was_before(built: Any) -> None:
    assert last_stage(built.dataset) is Stage.CAPTIONED
    killed = start_run(built.dataset, built.config)
    killed.stage_done(built.report(Stage.FILTERED))
    stopped = start_run(built.dataset, built.config)
    stopped.finish(STOPPED, "somebody stopped it")
    assert classes(built.dataset) == ["permanent", "refused", "transient"]
    assert last_stage(built.dataset) is Stage.CAPTIONED
    start_run(built.dataset, built.config).finish(COMPLETED, "", to=Stage.FILTERED.value)
    assert (classes(built.dataset), last_stage(built.dataset)) == ([], Stage.FILTERED)


def test_a_first_run_that_was_killed(built: Any, tmp_path: Any) -> None:
    dataset = Dataset(str(tmp_path / "other"), "set")
    with pytest.raises(ConfigError, match="no run of it"):
        failures(dataset)
    start_run(dataset, built.config)
    assert (classes(dataset), last_stage(dataset)) == ([], Stage.FINAL)


def attempts(dataset: Dataset, asker: Asker, wanted: list[str]) -> list[int]:
    log = Log(dataset.store, dataset.name)
    keys = asker.keys(wanted)
    log.load(keys)
    return [log.book.entries[key].attempt for key in keys]


def test_a_retry_opens_what_was_asked_for_and_only_once(built: Any) -> None:
    asker = Asker.of(built.config.caption)
    by_key = {row["key"]: row["sha256"] for row in built.rows(Step.FILTERED, "samples")}
    wanted = [by_key[f"{n}.png"] for n in range(len(ENDS))]
    assert open_again(built.dataset, ["refused", "budget"]) == 1
    assert attempts(built.dataset, asker, wanted) == [1, 1, 2, 1]
    assert open_again(built.dataset, list(CLASSES)) == 2, "the refused one is open already"
    assert attempts(built.dataset, asker, wanted) == [1, 2, 2, 2]
    assert open_again(built.dataset, list(CLASSES)) == 0

    write_down(built.dataset, asker, dict.fromkeys(wanted[1:], "refused"), attempt=2)
    done = recorded(built)
    assert classes(done.dataset) == ["refused"] * 3
    assert open_again(built.dataset, list(CLASSES)) == 3
    assert attempts(built.dataset, asker, wanted) == [1, 3, 3, 3]


def test_only_what_another_try_may_mend_is_tried(story: Any, built: Any) -> None:
    assert failures(story.dataset).num_rows == 0, "rejected is not failed"
    assert may_be_mended(failures(built.dataset)).num_rows == 3
    rows = [
        {"id": "a", "stage": stage, "class": class_, "code": "x"}
        for stage in ("01_filtered", "03_quality_checked", "04_final")
        for class_ in ("transient", "permanent")
    ]
    ledger = FAILURES.empty_table().from_pylist(rows, FAILURES)
    assert may_be_mended(ledger)["class"].to_pylist() == ["transient"] * 3


def test_a_picture_that_was_not_embedded_is_a_permanent_failure(pictures: Any, tiny: Callable[..., Any]) -> None:
    built = tiny({"a.png": pictures.png(1)}, {"a.png": ["words"]}).ingested().filtered().captioned()
    judged = built.judged({"words": float("nan")})
    run = start_run(judged.dataset, judged.config)
    run.stage_done(judged.report(Stage.CHECKED))
    [failed] = failures(judged.dataset).to_pylist()
    assert (failed["stage"], failed["class"], failed["code"]) == ("03_quality_checked", "permanent", "not_embedded")
    assert failed["attempts"] == 1 and 0 <= (datetime.now(UTC) - failed["time"]).total_seconds() < 600


def test_what_was_spent_is_in_the_status(built: Any) -> None:
    stages = status(built.dataset)["stages"]
    spent = stages["02_captioned"]["spent"]
    assert spent == {"requests": 7, "input_tokens": 90, "output_tokens": 7, "cost": pytest.approx(0.00016)}
    assert [name for name, row in stages.items() if "spent" in row] == ["02_captioned"]


@pytest.mark.parametrize(("prices", "cost"), [({}, None), ({"m": {"input": 0, "output": 0}}, 0.0)])
def test_no_price_no_cost(pictures: Any, tiny: Callable[..., Any], prices: dict[str, Any], cost: float | None) -> None:
    built = tiny({"a.png": pictures.png(1)}, caption={**CAPTIONER, "prices": prices})
    run: Run = start_run(built.dataset, built.config)
    assert status(run.dataset)["stages"]["02_captioned"]["spent"]["cost"] == cost
    assert contents(built.ingested().filtered())
