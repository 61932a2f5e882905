"""The report per pair of languages, with the real small model, against counting the same tables by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.layout import Step
from vlmdata.models.calibration import auc
from vlmdata.quality import pairs as module
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.calibrating import calibrate_dataset
from vlmdata.quality.embeddings import column_vectors
from vlmdata.quality.matching import unit
from vlmdata.quality.pairs import CAPTION_CAPTION, IMAGE_CAPTION, OUTCOMES, PAIRS, measure_pairs
from vlmdata.quality.scores import score_shard

N = 24
BOUNDS: dict[str, Any] = {"accept_above": 0.05, "reject_below": -0.02}
STARTER = QualityConfig(
    model="starter",
    pretrained=None,
    device="cpu",
    languages={"de": LanguageModel(model="starter", **BOUNDS)},
    **BOUNDS,
)
THINGS = "cat dog house tree car boat fish bird moon star cup hat key shoe ball book door bell leaf ring".split()
GERMAN = "Katze Hund Haus Baum Auto Boot Fisch Vogel Mond Stern Tasse Hut Messer Schuh Ball Buch Tor Glocke".split()


def said(number: int) -> list[Any]:
    english: list[Any] = [f"a {THINGS[number % 20]} {number}", {"text": f"number {number}", "lang": "en"}]
    german = [{"text": f"{GERMAN[number % 18]} {number}", "lang": "de"}] if number < 22 else []
    japanese = [{"text": f"図{number}", "lang": "ja"}] if number < 5 else []
    return [*english, *german, *japanese]


@pytest.fixture(scope="module")
def make(pictures: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    def checked(shard_size: int, captions: Callable[[int], list[Any]] = said) -> Any:
        files = {f"{seed}.png": pictures.png(seed) for seed in range(N)}
        texts = {f"{seed}.png": captions(seed) for seed in range(N)}
        made = tiny_in(tmp_path_factory.mktemp("pairs"), files, texts, shard_size=shard_size)
        captioned = made.ingested().filtered().captioned()
        return captioned.each(score_shard, STARTER).each(judge_shard, STARTER)

    return checked


@pytest.fixture(scope="module")
def checked(make: Callable[..., Any]) -> Any:
    return make(9)


def measured(checked: Any, config: QualityConfig = STARTER) -> dict[tuple[str, str], dict[str, Any]]:
    table = measure_pairs(checked.dataset, checked.shards, config)
    assert table.schema == PAIRS
    return {(row["pair"], row["language"]): row for row in table.to_pylist()}


def text_vectors(checked: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for shard in checked.shards:
        table = checked.dataset.read(shard, Step.SCORES, "texts/0")
        found.update(zip(table["caption_id"].to_pylist(), unit(column_vectors(table["embedding"])), strict=True))
    return found


def test_counts_and_means_are_those_of_the_tables(checked: Any) -> None:
    rows = measured(checked)
    scores = checked.rows(Step.SCORES, "scores")
    outcomes = {row["caption_id"]: row["outcome"] for row in checked.rows(Step.CHECKED, "caption_rejects")}
    outcomes |= {row["caption_id"]: "accepted" for row in checked.rows(Step.CHECKED, "captions")}
    for language in ("en", "de", "ja"):
        row = rows[IMAGE_CAPTION, language]
        mine = [one for one in scores if one["language"] == language]
        known = [one["score"] for one in mine if one["score"] is not None]
        assert row["n"] == len(known)
        assert row["mean"] == (pytest.approx(np.mean(known), abs=1e-8) if known else None)
        told = [outcomes[one["caption_id"]] for one in mine]
        assert {name: row[name] for name in OUTCOMES} == {name: told.count(name) for name in OUTCOMES}
    assert len({rows[IMAGE_CAPTION, "en"][name] for name in OUTCOMES}) > 2


def test_a_language_that_nobody_judges_is_there_without_a_score(checked: Any) -> None:
    row = measured(checked)[IMAGE_CAPTION, "ja"]
    assert (row["n"], row["mean"], row["auc"], row["drawn"], row["model"], row["held"]) == (0, None, None, 0, None, 5)


def test_captions_in_two_languages_of_one_image_are_compared(checked: Any) -> None:
    rows = measured(checked)
    assert (CAPTION_CAPTION, "en") not in rows and (CAPTION_CAPTION, "ja") not in rows
    row, vectors = rows[CAPTION_CAPTION, "de"], text_vectors(checked)
    first: dict[tuple[str, str], str] = {}
    for one in sorted(checked.rows(Step.SCORES, "scores"), key=lambda one: one["caption_id"]):
        first.setdefault((one["id"], one["language"]), one["caption_id"])
    cosines = [
        float(vectors[caption] @ vectors[first[one, "en"]])
        for (one, language), caption in first.items()
        if language == "de"
    ]
    assert row["n"] == row["drawn"] == len(cosines) == 22
    assert row["mean"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert row["source_language"] == "en" and [row[name] for name in OUTCOMES] == [None] * 4


def test_the_auc_is_what_a_calibration_of_the_same_captions_finds(checked: Any) -> None:
    row = measured(checked)[IMAGE_CAPTION, "en"]
    report = calibrate_dataset(checked.dataset, checked.shards, STARTER, "en")
    assert row["drawn"] == report.bands.n == N
    assert round(row["auc"], 4) == report.bands.auc


def test_the_auc_of_captions_is_near_that_of_every_wrong_pair(checked: Any) -> None:
    row, vectors = measured(checked)[CAPTION_CAPTION, "de"], text_vectors(checked)
    first: dict[tuple[str, str], str] = {}
    for one in sorted(checked.rows(Step.SCORES, "scores"), key=lambda one: one["caption_id"]):
        first.setdefault((one["id"], one["language"]), one["caption_id"])
    images = [one for one, language in first if language == "de"]
    german, english = (np.stack([vectors[first[one, tag]] for one in images]) for tag in ("de", "en"))
    cosines = (german @ english.T).astype(np.float32)
    wrong = cosines[~np.eye(len(images), dtype=bool)]
    assert row["auc"] == pytest.approx(auc(np.diagonal(cosines), wrong), abs=0.1)


def test_how_shards_are_cut_or_held_in_memory_changes_nothing(
    checked: Any, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(checked)
    assert measured(make(N)) == rows
    monkeypatch.setattr(module, "AT_ONCE", 1)
    assert measured(checked) == rows


def test_an_auc_rests_on_no_more_than_the_sample(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 21)
    row = measured(checked)[IMAGE_CAPTION, "en"]
    assert row["drawn"] == 21 and row["n"] == 2 * N and row["auc"] is not None
    monkeypatch.setattr(module, "SAMPLE", 19)
    assert measured(checked)[IMAGE_CAPTION, "en"]["auc"] is None


def test_a_set_where_nothing_was_scored_is_reported(make: Callable[..., Any]) -> None:
    rows = measured(make(9, lambda number: [{"text": f"図{number}", "lang": "ja"}]))
    assert list(rows) == [(IMAGE_CAPTION, "ja")] and rows[IMAGE_CAPTION, "ja"]["held"] == N


def test_scores_of_a_model_that_is_not_at_hand_are_counted(tiny: Callable[..., Any], pictures: Any) -> None:
    files = {f"{seed}.png": pictures.png(seed) for seed in range(3)}
    told = {"0.png": ["a", {"text": "b", "lang": "de"}], "1.png": ["c"], "2.png": ["d"]}
    judged = tiny(files, told).ingested().filtered().captioned().judged({"a": 0.4, "c": 0.1})
    rows = measured(judged, judged.config.quality)
    assert (rows[IMAGE_CAPTION, "en"]["n"], rows[IMAGE_CAPTION, "en"]["auc"]) == (3, None)
    assert rows[IMAGE_CAPTION, "en"]["model"] == "given"


def test_no_shard_is_no_row(checked: Any) -> None:
    assert measure_pairs(checked.dataset, [], STARTER).num_rows == 0
