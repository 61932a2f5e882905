"""Scores with the real small model: what is judged by whom, and what is never embedded twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmdata import progress
from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.layout import Stage, Step
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.scores import score_shard

STARTER = QualityConfig(model="starter", pretrained=None, accept_above=0.3, reject_below=0.1, device="cpu")
SAME_WITH_OTHER_BOUNDS = LanguageModel(model="starter", accept_above=-0.9, reject_below=-0.95)


@pytest.fixture(scope="module")
def captioned(pictures: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    files = {f"{seed}.png": pictures.png(seed) for seed in range(3)}
    captions: dict[str, list[Any]] = {
        "0.png": [{"text": "a red square", "lang": "en"}, {"text": "ein rotes Quadrat", "lang": "de"}],
        "1.png": ["noise", {"text": "a red square", "lang": "en-GB"}],
        "2.png": [{"text": "赤い四角", "lang": "ja"}],
    }
    return tiny_in(tmp_path_factory.mktemp("scores"), files, captions, shard_size=2).ingested().filtered().captioned()


@pytest.fixture(scope="module")
def scored(captioned: Any) -> Any:
    return captioned.each(score_shard, STARTER)


class Ear(progress.Listener):
    def __init__(self) -> None:
        self.embedded = 0

    def advance(self, step: Step, samples: int) -> None:
        self.embedded += samples if step is Step.SCORES else 0


def test_every_caption_has_one_row_in_the_captions_order(scored: Any) -> None:
    rows, captions = scored.rows(Step.SCORES, "scores"), scored.rows(Step.CAPTIONED, "captions")
    assert [row["caption_id"] for row in rows] == [row["caption_id"] for row in captions]
    assert [row["id"] for row in rows] == [row["id"] for row in captions]


def test_a_language_that_no_judge_knows_has_no_score(scored: Any) -> None:
    by_language = {row["language"]: row["score"] for row in scored.rows(Step.SCORES, "scores")}
    assert by_language["ja"] is None
    assert isinstance(by_language["en"], float)
    report = scored.each(judge_shard, STARTER).report(Stage.CHECKED)
    assert report.reasons["unverified_language"] == 1


def test_a_score_is_the_cosine_of_its_two_embeddings(scored: Any) -> None:
    from PIL import Image

    from vlmdata.measure.encoder import load_encoder

    encoder = load_encoder("starter", None, "cpu")
    [first, *_] = scored.rows(Step.SCORES, "scores")
    with Image.open(f"{scored.config.source.path}/0.png") as image:
        vector = encoder.images(encoder.prepare(image.convert("RGB"))[None])[0]
    text = scored.rows(Step.CAPTIONED, "captions")[0]["text"]
    assert first["score"] == pytest.approx(float(vector @ encoder.texts([text])[0]), abs=2e-3)
    assert (first["model"], first["precision"], first["preprocessing"]) == (
        encoder.identity,
        "fp32",
        encoder.preprocessing,
    )


def test_one_model_may_judge_two_languages_with_bounds_of_their_own(captioned: Any, scored: Any) -> None:
    config = STARTER.model_copy(update={"languages": {"de": SAME_WITH_OTHER_BOUNDS}, "accept_above": 0.99})
    judged = captioned.each(score_shard, config).each(judge_shard, config)
    report = judged.report(Stage.CHECKED)
    report.captions.check("captions")
    assert [row["lang"] for row in judged.rows(Step.CHECKED, "captions")] == ["de"]
    assert all(row["id"] for row in judged.rows(Step.SCORES, "scores"))


def test_a_moved_threshold_embeds_nothing(captioned: Any, scored: Any) -> None:
    ear = Ear()
    with progress.listening(ear):
        again = captioned.each(score_shard, STARTER.model_copy(update={"accept_above": 0.5, "reject_below": -0.5}))
    assert (ear.embedded, again.shards) == (0, scored.shards)


def test_a_new_caption_embeds_no_picture(scored: Any, tiny_in: Callable[..., Any]) -> None:
    folder = Path(scored.config.store).parent
    captions = {"0.png": ["another caption", {"text": "une image", "lang": "en"}], "1.png": ["and one more"]}
    changed = tiny_in(folder, {}, captions, shard_size=2).ingested().filtered().captioned()
    ear = Ear()
    with progress.listening(ear):
        again = changed.each(score_shard, STARTER)
    assert ear.embedded == 0
    assert [isinstance(row["score"], float) for row in again.rows(Step.SCORES, "scores")] == [True] * 3


def test_how_shards_are_cut_does_not_move_a_score(
    scored: Any, pictures: Any, tiny_in: Callable[..., Any], tmp_path: Any
) -> None:
    files = {f"{seed}.png": pictures.png(seed) for seed in range(3)}
    alone = tiny_in(tmp_path, files, {"1.png": ["noise"]}).ingested().filtered().captioned().each(score_shard, STARTER)
    [row] = alone.rows(Step.SCORES, "scores")
    same = next(
        r for r in scored.rows(Step.SCORES, "scores") if r["id"] == row["id"] and r["caption_id"] == row["caption_id"]
    )
    assert np.float32(row["score"]) == np.float32(same["score"])
