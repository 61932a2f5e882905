"""Health of real runs: one in which every fate occurs, one that stopped early, one of nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vlmdata.checkpoint import Dataset, Result, Shard, publish, step_key
from vlmdata.config import QualityConfig
from vlmdata.errors import StoreError
from vlmdata.health.health import Health
from vlmdata.health.histogram import score_histogram
from vlmdata.health.measure import measure_health
from vlmdata.health.render import as_lines, as_markdown
from vlmdata.layout import Stage, Step
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.scores import score_shard
from vlmdata.runs import Run, existing_run, start_run
from vlmdata.status import describe_run


@pytest.fixture(scope="module")
def health(story: Any) -> Health:
    return measure_health(existing_run(story.dataset))


def built(tiny: Any, to: Stage, scores: dict[str, float | None] | None = None) -> Run:
    """A run of the real stages up to one of them."""
    run = start_run(tiny.dataset, tiny.config)
    steps = {
        Stage.RAW: lambda done: done.ingested(),
        Stage.FILTERED: lambda done: done.filtered(),
        Stage.CAPTIONED: lambda done: done.captioned(),
        Stage.CHECKED: lambda done: done.judged(scores or {}),
    }
    for stage, step in steps.items():
        tiny = step(tiny)
        run.stage_done(tiny.report(stage))
        if stage is to:
            break
    return run


def test_what_03_kept_is_counted(health: Health) -> None:
    """Two pictures: `good` with the caption of its twin, and `also`."""
    assert (health.stage, health.run) == (Stage.CHECKED, 1)
    assert health.figures["images"] == 2
    assert health.distribution("size")["<224"] == 2
    assert sum(health.distribution("size").values()) == 2
    assert health.distribution("aspect_ratio")["wide 5:4-3:2"] == 2
    assert health.distribution("license") == {None: 2}
    assert health.distribution("language") == {"en": 3}
    assert health.distribution("origin") == {"original": 3}
    assert health.figures["captions_an_image"] == 1.5
    assert health.figures["duplicates_removed"] == 1


def test_every_score_is_in_the_histogram(health: Health) -> None:
    assert {(row["low"], row["count"]) for row in health.scores.to_pylist()} == {
        (0.1, 1), (0.24, 2), (0.3, 1), (0.4, 1), (0.6, 1)
    }  # fmt: skip
    [judged] = health.judged.to_pylist()
    assert (judged["language"], judged["model"], judged["count"], judged["scored"]) == ("en", "given", 6, 6)
    assert judged["mean_score"] == pytest.approx(np.mean([0.4, 0.3, 0.6, 0.25, 0.25, 0.1]), abs=1e-7)


def test_lengths_are_those_of_the_captions(health: Health) -> None:
    """`good`, `of the twin`, `fine`."""
    found = {(row["unit"], row["language"]): row for row in health.lengths.to_pylist()}
    for unit, values in {"words": [1, 3, 1], "characters": [4, 11, 4]}.items():
        expected = np.percentile(values, [5, 50, 95]).tolist()
        for language in (None, "en"):
            row = found[unit, language]
            assert [row["p5"], row["median"], row["p95"]] == expected
    assert health.distribution("words") == {"1": 2, "2-3": 1}
    assert found["tokens", None]["median"] == 2 * 4


def test_stages_are_as_the_status_tells_them(story: Any, health: Health) -> None:
    told = describe_run(existing_run(story.dataset))["stages"]
    for row in health.stages.to_pylist():
        assert all(told[row["stage"]][name] == value for name, value in row.items() if name != "stage")


def test_it_is_the_same_each_time_and_survives_json(story: Any, health: Health) -> None:
    text = json.dumps(health.as_json(), allow_nan=False)
    assert text == json.dumps(measure_health(existing_run(story.dataset)).as_json())
    assert Health.from_json(json.loads(text)) == health


def test_a_record_of_another_version_is_not_read(health: Health) -> None:
    assert Health.from_json({**health.as_json(), "version": 0}) is None


def test_a_run_that_reached_nothing(story: Any, tmp_path: Path) -> None:
    health = measure_health(start_run(Dataset(str(tmp_path), "set"), story.config))
    assert (health.stage, health.figures["images"], health.figures["captions_an_image"]) == (Stage.RAW, 0, None)
    assert {name: health.tables()[name].num_rows for name in ("distributions", "lengths", "scores", "judged")} == {
        "distributions": 0, "lengths": 0, "scores": 0, "judged": 0
    }  # fmt: skip
    shown(health)


def shown(health: Health) -> None:
    """Nothing in it is NaN, and every way to look at it works."""
    assert Health.from_json(json.loads(json.dumps(health.as_json(), allow_nan=False))) == health
    assert as_lines(health)[0] in as_markdown(health)
    assert score_histogram(health).startswith(b"\x89PNG")


@pytest.mark.parametrize("stage", [Stage.RAW, Stage.FILTERED, Stage.CAPTIONED])
def test_a_run_that_ends_before_scores(tiny: Callable[..., Any], pictures: Any, stage: Stage) -> None:
    source = {"a.png": pictures.png(1), "b.png": pictures.png(2, 48, 64)}
    said = {"a.png": ["一只猫在屋顶上", {"text": "chat", "lang": "fr-CA"}], "b.png": ["a cat"]}
    health = measure_health(built(tiny(source, said), stage))
    assert (health.stage, health.figures["images"], health.figures["captions"]) == (stage, 2, 3)
    assert health.distribution("language") == {"und": 2, "fr": 1}
    sizes = health.distribution("aspect_ratio")
    assert {name: n for name, n in sizes.items() if n} == (
        {} if stage is Stage.RAW else {"wide 5:4-3:2": 1, "tall 5:4-3:2": 1}
    )
    longest = [row["p95"] for row in health.lengths.to_pylist() if (row["unit"], row["language"]) == ("words", "und")]
    assert longest == [np.percentile([7, 2], 95)]
    shown(health)


@pytest.mark.parametrize("stage", list(Stage)[:4])
def test_pictures_are_counted_by_the_folder_that_they_lie_in(
    tiny: Callable[..., Any], pictures: Any, stage: Stage
) -> None:
    """Of what the stage kept, over all its shards, the fullest first; what lies in none is told as the root."""
    names = ["stock/cats/a.png", "stock/cats/b.png", "stock/c.png", "own/a.png", "own/b.png", "here.png"]
    source = {name: pictures.png(seed) for seed, name in enumerate(names)}
    source["own/b.png"] = pictures.png(9, 20, 20)
    started = tiny(source, {name: [name] for name in source}, shard_size=2)
    health = measure_health(built(started, stage, {"stock/c.png": 0.1}))
    own, stock = 2 if stage is Stage.RAW else 1, 2 if stage is Stage.CHECKED else 3
    assert next(iter(health.distribution("source").items())) == ("stock", stock)
    assert health.distribution("source") == {"stock": stock, "own": own, ".": 1}
    shown(health)


def test_pictures_with_an_address_are_counted_by_its_host(tiny: Callable[..., Any], pictures: Any) -> None:
    """As the stages leave them, with the addresses that a list of links would have given."""
    hosts = ["Stock.example.org", "stock.example.org:8080", "me@own.example"]
    started = tiny({f"{number}.png": pictures.png(number) for number in range(4)}, shard_size=2).ingested()
    run = start_run(started.dataset, started.config)
    run.stage_done(started.each(with_addresses, hosts).report(Stage.RAW))
    assert measure_health(run).distribution("source") == {"stock.example.org": 2, "own.example": 1, ".": 1}


def with_addresses(dataset: Dataset, shard: Shard, hosts: Sequence[str]) -> Shard:
    """The shard as if each host had given its picture of that number."""
    before = dataset.manifest(shard, Step.RAW)
    samples = dataset.read(shard, Step.RAW, "samples")
    given = dict(
        zip([f"{number}.png" for number in range(4)], [f"https://{host}/a.png" for host in hosts], strict=False)
    )
    urls = pa.array([given.get(key) for key in samples["key"].to_pylist()], pa.string())
    tables = {name: dataset.read(shard, Step.RAW, name) for name in before.tables}
    tables["samples"] = samples.set_column(samples.column_names.index("url"), "url", urls)
    result = Result(tables, samples=before.samples, captions=before.captions)
    key = step_key(Step.RAW, [shard.name], "with addresses")
    return shard.at(Step.RAW, publish(dataset, shard.name, Step.RAW, key, result))


def test_lengths_in_tokens_are_numpys_of_what_the_models_tokenizer_makes(
    tiny: Callable[..., Any], pictures: Any
) -> None:
    """Scored by the model that ships; one caption is longer than it reads, of which one token more is told."""
    from vlmdata.models.load import load_parts
    from vlmdata.models.source import resolve

    model = QualityConfig(model="starter-multilingual", pretrained=None, accept_above=-1, reject_below=-1, device="cpu")
    said: dict[str, list[Any]] = {
        f"{number}.png": [
            {"text": f"a cat {'and a dog ' * number}", "lang": "en"},
            {"text": f"Katze {number}, {'Donaudampfschifffahrt ' * (number % 3)}", "lang": "de"},
        ]
        for number in range(9)
    }
    said["0.png"].append({"text": "a cat " * 300, "lang": "en"})
    started = tiny({name: pictures.png(seed) for seed, name in enumerate(said)}, said, shard_size=4)
    scored = started.ingested().filtered().captioned().each(score_shard, model).each(judge_shard, model)
    run = start_run(scored.dataset, scored.config)
    run.stage_done(scored.report(Stage.CHECKED))
    tokenizer = load_parts(resolve("starter-multilingual")).tokenizer
    room = 2_000
    padding = int(np.asarray(tokenizer([""], room))[0, -1])
    lengths: dict[str | None, list[int]] = {None: [], "en": [], "de": []}
    for caption in (one for captions in said.values() for one in captions):
        used = int(np.count_nonzero(np.asarray(tokenizer([caption["text"]], room)) != padding))
        for language in (None, caption["lang"]):
            lengths[language].append(min(used, tokenizer.context_length + 1))
    found = {row["language"]: row for row in measure_health(run).lengths.to_pylist() if row["unit"] == "tokens"}
    assert set(found) == set(lengths) and len(set(lengths["en"])) > 5
    for language, counts in lengths.items():
        told = found[language]
        assert told["count"] == len(counts)
        assert [told["p5"], told["median"], told["p95"]] == np.percentile(counts, [5, 50, 95]).tolist()


def test_captions_without_a_score(tiny: Callable[..., Any], pictures: Any) -> None:
    source, said = {"a.png": pictures.png(1)}, {"a.png": ["none", "nan"]}
    health = measure_health(built(tiny(source, said), Stage.CHECKED, {"none": None, "nan": float("nan")}))
    assert (health.figures["images"], health.figures["captions_scored"], health.figures["captions_not_scored"]) == (
        0,
        0,
        2,
    )
    assert [row["mean_score"] for row in health.judged.to_pylist()] == [None]
    shown(health)


def test_captions_that_their_model_cut_are_counted(tiny: Callable[..., Any], pictures: Any) -> None:
    """Of all that 03 looked at, whether it kept them or not."""
    source = {"a.png": pictures.png(1), "b.png": pictures.png(2, 48, 64)}
    said = {"a.png": ["short", "x" * 40, "y" * 50], "b.png": ["z" * 60, "w" * 20]}
    health = measure_health(built(tiny(source, said), Stage.CHECKED, {"z" * 60: -1.0}))
    assert (health.figures["captions_truncated"], health.figures["captions"]) == (3, 4)
    assert any(line.split() == ["captions", "truncated", "3"] for line in as_lines(health))


def test_a_lost_checkpoint_is_said_in_one_line(tiny: Callable[..., Any], pictures: Any) -> None:
    run = built(tiny({"a.png": pictures.png(1)}, {"a.png": ["a"]}), Stage.FILTERED)
    [shard] = run.stage(Stage.FILTERED).shards  # type: ignore[union-attr]
    run.dataset.store.delete(run.dataset.manifest(shard, Step.FILTERED).tables["captions"].path)
    with pytest.raises(StoreError, match="is gone"):
        measure_health(run)
