"""What a config asks of a run's figures, of languages and of retrieval."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.gate import check_run
from expectations.rule import Rule
from expectations.verdict import recorded
from expectations.whole_run import rules
from vlmdata import schema
from vlmdata.config import GatesConfig
from vlmdata.errors import ConfigError, GateFailed
from vlmdata.health.counting import OTHERS
from vlmdata.health.health import DISTRIBUTIONS, JUDGED, SCORES, STAGES, Health
from vlmdata.health.lengths import LENGTHS
from vlmdata.health.measure import measure_health
from vlmdata.quality.recall import Recall
from vlmdata.quality.retrieval import Retrieval
from vlmdata.runs import existing_run, start_run


def health_of(languages: dict[str | None, int] | None = None, **figures: float | None) -> Health:
    rows = [{"what": "language", "value": tag, "count": count} for tag, count in (languages or {}).items()]
    return Health(
        dataset="x",
        run=1,
        stage="03_quality_checked",
        figures={"images": 10, "mean_score": 0.3, "captions_truncated": 0, **figures},
        distributions=pa.Table.from_pylist(rows, schema=DISTRIBUTIONS),
        lengths=LENGTHS.empty_table(),
        scores=SCORES.empty_table(),
        judged=JUDGED.empty_table(),
        stages=STAGES.empty_table(),
    )


def retrieval_of(r10: float, n: int = 500) -> Retrieval:
    both = {way: Recall(n, r10, r10, r10, ((0.0, 1.0),) * 3) for way in ("image_to_text", "text_to_image")}
    return Retrieval("passed", (500,), 10, 1 - r10, 0.2, both, both, {}, schema.RETRIEVAL.empty_table())


def made(said: dict[str, Any], health: Health, retrieval: Retrieval | None = None) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules(GatesConfig.model_validate(said), health, retrieval)}


def test_without_a_word_in_the_config_a_run_is_asked_for_images_alone() -> None:
    assert list(made({}, health_of())) == ["not_empty"]


@pytest.fixture(scope="module")
def healthy(story: Any) -> Health:
    return measure_health(existing_run(story.dataset))


def judged(tiny: Any, story: Any, health: Health, said: dict[str, Any], retrieval: Retrieval | None = None) -> Any:
    config = story.config.model_copy(update={"gates": GatesConfig.model_validate(said)})
    run = start_run(tiny({}, {}).dataset, config)
    return run, lambda: check_run(run, config, health, retrieval)


def test_a_health_figure_out_of_bounds_stops_or_warns(tiny: Any, story: Any, healthy: Health) -> None:
    bound = {"at_least": healthy.figures["mean_score"] + 0.1}
    run, check = judged(tiny, story, healthy, {"health": {"mean_score": bound}})
    with pytest.raises(GateFailed, match=r"run: health.mean_score: expect_health_figure_to_be_between\("):
        check()
    assert [verdict.rule for verdict in recorded(run) if not verdict.held] == ["health.mean_score"]
    lenient = {"health": {"mean_score": {**bound, "severity": "warn"}, "images": {"at_least": 1}}}
    [said] = judged(tiny, story, healthy, lenient)[1]()
    assert said.startswith("run: health.mean_score") and "mean_score at least" in said and "saw 0." in said


def test_every_figure_of_health_can_be_bound(tiny: Any, story: Any, healthy: Health) -> None:
    known = {name: {"at_least": value, "at_most": value} for name, value in healthy.figures.items()}
    run, check = judged(tiny, story, healthy, {"health": known})
    assert check() == []
    assert {verdict.rule for verdict in recorded(run)} == {"not_empty", *(f"health.{name}" for name in known)}


def test_a_figure_that_health_does_not_have_is_refused(tiny: Any, story: Any, healthy: Health) -> None:
    with pytest.raises(ConfigError, match=r"'mean_scores'; did you mean mean_score") as error:
        judged(tiny, story, healthy, {"health": {"mean_scores": {"at_least": 0}}})[1]()
    assert "\n" not in str(error.value)


def test_a_figure_that_could_not_be_told_does_not_pass(tiny: Any, story: Any) -> None:
    _, check = judged(tiny, story, health_of(mean_score=None), {"health": {"mean_score": {"at_most": 1}}})
    with pytest.raises(GateFailed, match="mean_score at most 1; saw nothing"):
        check()


def test_a_run_that_kept_nothing_does_not_pass(tiny: Any, story: Any) -> None:
    with pytest.raises(GateFailed, match="run: not_empty"):
        judged(tiny, story, health_of(images=0), {})[1]()


@given(st.dictionaries(st.sampled_from(["en", "zh", "und", "fr"]), st.integers(0, 50)), st.sampled_from(["en", "ZH"]))
def test_the_share_of_a_language_is_of_all_captions(counts: dict[str | None, int], tag: str) -> None:
    rule = made({"languages": {tag: {"at_least": 0.5}}}, health_of(counts))[f"languages.{tag}"]
    total = sum(counts.values())
    assert rule.figure.value == (counts.get(tag.lower(), 0) / total if total else None)
    assert (rule.figure.of, rule.at_least, rule.expectation) == (total, 0.5, "ExpectLanguageShareToBeBetween")


def test_a_language_that_may_be_among_the_others_has_no_share() -> None:
    said = {"languages": {"en": {"at_most": 1}, "yo": {"at_most": 1}}}
    found = made(said, health_of({"en": 5, OTHERS: 5}))
    assert (found["languages.en"].figure.value, found["languages.yo"].figure.value) == (0.5, None)


@pytest.mark.parametrize(("r10", "n", "outcome"), [(0.95, 500, "held"), (0.85, 500, "stops"), (0.85, 99, "warns")])
def test_recall_at_10(tiny: Any, story: Any, r10: float, n: int, outcome: str) -> None:
    said = {"recall_at_10": {"at_least": 0.9}}
    _, check = judged(tiny, story, health_of(), said, retrieval_of(r10, n))
    if outcome == "stops":
        with pytest.raises(GateFailed, match=r"recall_at_10: expect_recall_at10_to_be_between\(.*gallery=500"):
            check()
        return
    warnings = check()
    assert len(warnings) == (outcome == "warns")
    assert all("saw 85.0% of 99 images" in warning for warning in warnings)


def test_recall_is_not_asked_about_where_nobody_measured_it() -> None:
    assert "recall_at_10" not in made({"recall_at_10": {"at_least": 1}}, health_of())
