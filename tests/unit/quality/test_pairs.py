"""The report per pair of languages, with the real small model, against counting the same tables by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.measure.test_encoder import save_tiny
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.layout import Step
from vlmdata.measure.encoder import load_encoder
from vlmdata.models.calibration import auc
from vlmdata.models.source import model_identity
from vlmdata.models.starter_multilingual import NAME as MULTILINGUAL
from vlmdata.quality import pairs as module
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.calibrating import calibrate_dataset
from vlmdata.quality.drawing import places
from vlmdata.quality.embeddings import column_vectors
from vlmdata.quality.matching import Matched, unit
from vlmdata.quality.pairs import CAPTION_CAPTION, IMAGE_CAPTION, OUTCOMES, PAIRS, measure_pairs
from vlmdata.quality.scores import score_shard

N = 24
BOUNDS: dict[str, Any] = {"accept_above": 0.05, "reject_below": -0.02}
MANY = LanguageModel(model=MULTILINGUAL, **BOUNDS)
ONE_MODEL = QualityConfig(model=MULTILINGUAL, pretrained=None, device="cpu", languages={"de": MANY}, **BOUNDS)
TWO_MODELS = ONE_MODEL.model_copy(update={"model": "starter"})
THINGS = "cat dog house tree car boat fish bird moon star cup hat key shoe ball book door bell leaf ring".split()
GERMAN = "Katze Hund Haus Baum Auto Boot Fisch Vogel Mond Stern Tasse Hut Messer Schuh Ball Buch Tor Glocke".split()


def said(number: int) -> list[Any]:
    english: list[Any] = [f"a {THINGS[number % 20]} {number}", {"text": f"number {number}", "lang": "en"}]
    german = [{"text": f"{GERMAN[number % 18]} {number}", "lang": "de"}] if number < 22 else []
    japanese = [{"text": f"図{number}", "lang": "ja"}] if number < 5 else []
    return [*english, *german, *japanese]


def labelled(number: int) -> list[Any]:
    """Captions that all declare their language, so that the source language takes none of them in."""
    german = [{"text": f"{GERMAN[number % 18]} {number}", "lang": "de"}] if number < 22 else []
    english, french = f"a {THINGS[number % 20]} {number}", f"le chat {number}"
    return [{"text": english, "lang": "en"}, {"text": french, "lang": "fr"}, *german]


@pytest.fixture(scope="module")
def make(pictures: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    def checked(shard_size: int, captions: Callable[[int], list[Any]] = said, config: QualityConfig = ONE_MODEL) -> Any:
        files = {f"{seed}.png": pictures.png(seed) for seed in range(N)}
        texts = {f"{seed}.png": captions(seed) for seed in range(N)}
        made = tiny_in(tmp_path_factory.mktemp("pairs"), files, texts, shard_size=shard_size)
        captioned = made.ingested().filtered().captioned()
        return captioned.each(score_shard, config).each(judge_shard, config)

    return checked


@pytest.fixture(scope="module")
def checked(make: Callable[..., Any]) -> Any:
    return make(9)


def measured(checked: Any, config: QualityConfig = ONE_MODEL) -> dict[tuple[str, str], dict[str, Any]]:
    table = measure_pairs(checked.dataset, checked.shards, config)
    assert table.schema == PAIRS
    return {(row["pair"], row["language"]): row for row in table.to_pylist()}


def text_vectors(checked: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for shard in checked.shards:
        table = checked.dataset.read(shard, Step.SCORES, "texts/0")
        found.update(zip(table["caption_id"].to_pylist(), unit(column_vectors(table["embedding"])), strict=True))
    return found


def first_captions(checked: Any) -> dict[tuple[str, str], str]:
    """By image and language, the caption that stands for the others."""
    first: dict[tuple[str, str], str] = {}
    for one in sorted(checked.rows(Step.SCORES, "scores"), key=lambda one: one["caption_id"]):
        first.setdefault((one["id"], one["language"]), one["caption_id"])
    return first


def embedded(model: str, texts: Sequence[str]) -> Any:
    """As a checkpoint holds them."""
    return unit(load_encoder(model, device="cpu").texts(texts).astype(np.float16).astype(np.float32))


def compared(checked: Any, language: str, source: str, model: str) -> Matched:
    """The captions of images that have both, embedded from their words alone, in the order of drawing."""
    captions = checked.rows(Step.CAPTIONED, "captions")
    words = {row["caption_id"]: row["text"] for row in captions}
    first = first_captions(checked)
    images = [one for one, tag in first if tag == language and (one, source) in first]
    images = [image for _, image in sorted(zip(places(images).to_pylist(), images, strict=True))]
    left, right = ([words[first[image, tag]] for image in images] for tag in (language, source))
    says = [frozenset(row["text"] for row in captions if row["id"] == image) for image in images]
    return Matched(embedded(model, left), embedded(model, right), right, says)


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
    first = first_captions(checked)
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
    report = calibrate_dataset(checked.dataset, checked.shards, ONE_MODEL, "en")
    assert row["drawn"] == report.bands.n == N
    assert round(row["auc"], 4) == report.bands.auc


def test_the_auc_of_captions_is_near_that_of_every_wrong_pair(checked: Any) -> None:
    row, vectors = measured(checked)[CAPTION_CAPTION, "de"], text_vectors(checked)
    first = first_captions(checked)
    images = [one for one, language in first if language == "de"]
    german, english = (np.stack([vectors[first[one, tag]] for one in images]) for tag in ("de", "en"))
    cosines = (german @ english.T).astype(np.float32)
    wrong = cosines[~np.eye(len(images), dtype=bool)]
    assert row["auc"] == pytest.approx(auc(np.diagonal(cosines), wrong), abs=0.1)


def test_the_judge_of_a_language_compares_its_captions_with_those_that_another_model_judged(
    make: Callable[..., Any],
) -> None:
    checked = make(9, config=TWO_MODELS)
    rows = measured(checked, TWO_MODELS)
    row, expected = rows[CAPTION_CAPTION, "de"], compared(checked, "de", "en", MULTILINGUAL)
    assert rows[IMAGE_CAPTION, "en"]["model"] == model_identity("starter")
    assert row["model"] == rows[IMAGE_CAPTION, "de"]["model"] == model_identity(MULTILINGUAL)
    cosines = np.einsum("nd,nd->n", expected.left, expected.right)
    assert row["n"] == row["drawn"] == len(cosines) == 22
    assert row["mean"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert row["auc"] == pytest.approx(auc(*expected.scores()), abs=1e-9)
    # What it says would not be said of other captions.
    assert row["auc"] > 0.6 and row["mean"] != pytest.approx(np.mean(expected.left @ expected.right.T), abs=0.01)
    assert measured(make(N, config=TWO_MODELS), TWO_MODELS) == rows


def test_what_the_same_model_judged_is_not_embedded_again(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "load_encoder")
    assert (CAPTION_CAPTION, "de") in measured(checked)


def test_a_judge_that_does_not_know_the_source_language_compares_nothing(make: Callable[..., Any]) -> None:
    english = {"en": LanguageModel(model="starter")}
    config = ONE_MODEL.model_copy(update={"unlabelled_language": "de", "languages": english})
    rows = measured(make(N, labelled, config), config)
    assert rows[IMAGE_CAPTION, "de"]["drawn"] == 22 and rows[IMAGE_CAPTION, "en"]["drawn"] == N
    assert [language for pair, language in rows if pair == CAPTION_CAPTION] == ["fr"]


def test_a_source_language_that_nobody_judges_is_read_by_a_judge_that_knows_it(make: Callable[..., Any]) -> None:
    config = TWO_MODELS.model_copy(update={"unlabelled_language": "de", "languages": {"fr": MANY}})
    two = make(N, labelled, config)
    rows, expected = measured(two, config), compared(two, "fr", "de", MULTILINGUAL)
    row = rows[CAPTION_CAPTION, "fr"]
    assert rows[IMAGE_CAPTION, "de"]["model"] is None and (CAPTION_CAPTION, "en") not in rows
    assert (row["source_language"], row["n"]) == ("de", 22)
    assert row["mean"] == pytest.approx(np.einsum("nd,nd->n", expected.left, expected.right).mean(), abs=1e-6)


def test_a_model_that_the_config_gives_the_source_language_reads_it_though_it_does_not_list_it(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    small = str(save_tiny(tmp_path / "small"))
    chosen = {tag: LanguageModel(model=small, **BOUNDS) for tag in ("de", "fr")}
    config = ONE_MODEL.model_copy(update={"model": small, "unlabelled_language": "de", "languages": chosen})
    rows = measured(make(N, labelled, config), config)
    assert [rows[CAPTION_CAPTION, language]["n"] for language in ("en", "fr")] == [22, 22]


def with_failures(dataset: Dataset, shard: Shard) -> Shard:
    """The shard as if no score had come of its first picture and of the second one's captions in English."""
    scores = dataset.read(shard, Step.SCORES, "scores")
    ids = sorted(scores["id"].unique().to_pylist())
    rows = scores.to_pylist()
    for row in rows:
        if row["score"] is not None and (row["id"] == ids[0] or (row["id"] == ids[1] and row["language"] == "en")):
            row["score"] = float("nan")
    tables = {"scores": pa.Table.from_pylist(rows, schema=scores.schema)}
    tables["texts/0"] = dataset.read(shard, Step.SCORES, "texts/0")
    counts = Counts(came=len(rows), kept=len(rows))
    key = step_key(Step.SCORES, [shard.name], ["with failures"])
    return shard.at(Step.SCORES, publish(dataset, shard.name, Step.SCORES, key, Result(tables, captions=counts)))


def test_captions_that_failed_are_compared_with_nothing(make: Callable[..., Any]) -> None:
    captions = [{"text": "Katze", "lang": "de"}, {"text": "cat", "lang": "en"}]
    whole = make(N, lambda number: captions)
    failing = whole.each(with_failures).each(judge_shard, ONE_MODEL)
    rows = measured(failing)
    assert rows[CAPTION_CAPTION, "de"]["n"] == rows[CAPTION_CAPTION, "de"]["drawn"] == N - 2
    assert rows[IMAGE_CAPTION, "de"]["n"] == rows[IMAGE_CAPTION, "de"]["drawn"] == N - 1
    assert (rows[IMAGE_CAPTION, "de"]["failed"], rows[IMAGE_CAPTION, "en"]["failed"]) == (1, 2)
    assert rows[CAPTION_CAPTION, "de"]["mean"] == pytest.approx(measured(whole)[CAPTION_CAPTION, "de"]["mean"])


def test_a_vector_that_a_model_could_not_make_is_no_measurement() -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(30, 8)).astype(np.float32) for _ in range(2))
    broken = right.copy()
    broken[7] = np.nan
    words, says = [str(number) for number in range(30)], [frozenset[str]()] * 30
    sample = module._sample(Matched(left, broken, words, says))
    cosines = np.einsum("nd,nd->n", unit(left), unit(right))
    assert sample.drawn == 29 and sample.mean == pytest.approx(np.delete(cosines, 7).mean(), abs=1e-6)
    assert sample.auc is not None and np.isfinite(sample.auc)


def test_how_shards_are_cut_or_held_in_memory_changes_nothing(
    checked: Any, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(checked)
    assert measured(make(N)) == rows
    monkeypatch.setattr(module, "AT_ONCE", 1)
    assert measured(checked) == rows


def test_an_auc_rests_on_no_more_than_the_sample(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 21)
    rows = measured(checked)
    row = rows[IMAGE_CAPTION, "en"]
    assert row["drawn"] == 21 and row["n"] == 2 * N and row["auc"] is not None
    assert (rows[CAPTION_CAPTION, "de"]["drawn"], rows[CAPTION_CAPTION, "de"]["n"]) == (21, 22)
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
    assert measure_pairs(checked.dataset, [], ONE_MODEL).num_rows == 0
