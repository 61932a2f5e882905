"""The mirrored picture: embedded once, beside the plain one, and what a score falls by is a mark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageOps

from vlmdata import progress
from vlmdata.config import QualityConfig
from vlmdata.layout import Stage, Step
from vlmdata.measure.encoder import load_encoder
from vlmdata.quality.bands import judge_shard, printed_text
from vlmdata.quality.embeddings import column_vectors, embed_both_ways, embed_shard
from vlmdata.quality.judges import judges
from vlmdata.quality.scores import score_shard
from vlmdata.schema import SCORES, filled

PLAIN = QualityConfig(model="starter", pretrained=None, accept_above=-1.0, reject_below=-1.0, device="cpu")
MARKED = PLAIN.model_copy(update={"printed_text_drop": 0.01})


class Ear(progress.Listener):
    def __init__(self) -> None:
        self.embedded = 0

    def advance(self, step: Step, samples: int) -> None:
        self.embedded += samples if step is Step.SCORES else 0


@pytest.fixture(scope="module")
def captioned(pictures: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    # Square and as large as the model sees them: mirroring before or after it makes them ready is the same.
    files = {f"{seed}.png": pictures.png(seed, 224, 224) for seed in range(3)}
    captions: dict[str, list[Any]] = {name: [f"picture {name}", {"text": "赤い四角", "lang": "ja"}] for name in files}
    return tiny_in(tmp_path_factory.mktemp("mirror"), files, captions, shard_size=3).ingested().filtered().captioned()


def vectors(captioned: Any, manifest: Any) -> np.ndarray:
    return column_vectors(captioned.dataset.table(manifest.tables["images"])["embedding"])


def test_the_mirrored_pictures_are_what_a_mirror_shows(captioned: Any) -> None:
    [shard] = captioned.shards
    judge = judges(PLAIN).default
    plain, mirrored = embed_both_ways(captioned.dataset, shard, judge, "cpu")
    encoder = load_encoder("starter", None, "cpu")
    for row, sample in enumerate(captioned.rows(Step.CAPTIONED, "samples")):
        with Image.open(f"{captioned.config.source.path}/{sample['key']}") as image:
            pair = [encoder.prepare(one) for one in (image.convert("RGB"), ImageOps.mirror(image.convert("RGB")))]
        expected = encoder.images(np.stack(pair))
        for manifest, vector in zip((plain, mirrored), expected, strict=True):
            np.testing.assert_allclose(vectors(captioned, manifest)[row], vector, atol=1e-3)
        assert not np.allclose(expected[0], expected[1], atol=1e-2)


def test_turning_it_on_embeds_the_mirrored_pictures_and_the_plain_ones_stay(
    pictures: Any, tiny: Callable[..., Any]
) -> None:
    files = {"1.png": pictures.png(1), "2.png": pictures.png(2)}
    built = tiny(files, {name: [name] for name in files}, shard_size=2).ingested().filtered().captioned()
    [shard], ear, judge = built.shards, Ear(), judges(PLAIN).default
    with progress.listening(ear):
        first = embed_shard(built.dataset, shard, judge, "cpu")
        plain, mirrored = embed_both_ways(built.dataset, shard, judge, "cpu")
        assert (ear.embedded, plain) == (4, first)
        assert (mirrored.step, mirrored.samples.kept) == (Step.MIRRORED, 2)
        assert embed_both_ways(built.dataset, shard, judge, "cpu") == (plain, mirrored)
        assert ear.embedded == 4


def test_scores_of_both_are_kept_and_a_moved_bound_embeds_nothing(captioned: Any) -> None:
    without = captioned.each(score_shard, PLAIN)
    scored = captioned.each(score_shard, MARKED)
    rows = scored.rows(Step.SCORES, "scores")
    assert {row["mirrored_score"] for row in without.rows(Step.SCORES, "scores")} == {None}
    assert [row["score"] for row in rows] == [row["score"] for row in without.rows(Step.SCORES, "scores")]
    assert [row["mirrored_score"] is None for row in rows] == [row["language"] == "ja" for row in rows]
    ear = Ear()
    with progress.listening(ear):
        moved = captioned.each(score_shard, MARKED.model_copy(update={"printed_text_drop": 0.5}))
    assert (moved.shards, ear.embedded) == (scored.shards, 0)


def test_a_mark_goes_on_with_its_caption_and_rejects_nothing(captioned: Any) -> None:
    scored = captioned.each(score_shard, MARKED)
    falls = [
        np.float32(row["score"]) - np.float32(row["mirrored_score"])
        for row in scored.rows(Step.SCORES, "scores")
        if row["score"] is not None
    ]
    drop = float(np.median(np.abs(falls)))
    kept = {}
    for bound in (None, drop):
        config = MARKED.model_copy(update={"printed_text_drop": bound})
        judged = captioned.each(score_shard, config).each(judge_shard, config)
        kept[bound] = judged.report(Stage.CHECKED).samples.kept
        [manifest] = [judged.dataset.manifest(shard, Step.CHECKED) for shard in judged.shards]
        marks = [row["printed_text"] for row in judged.rows(Step.CHECKED, "captions")]
        if bound is None:
            assert (marks, manifest.facts["printed_text"]) == ([None] * 3, 0)
        else:
            expected = [bool(fall > np.float32(drop)) for fall in falls]
            assert (marks, manifest.facts["printed_text"]) == (expected, sum(expected))
    assert kept == {None: 3, drop: 3}


@pytest.mark.parametrize(
    ("score", "mirrored", "marked"),
    [(0.3, 0.2, True), (0.25, 0.2, False), (0.2, 0.3, False), (float("nan"), 0.1, False), (None, None, None)],
)
def test_a_score_has_to_fall_by_more_than_the_bound(score: Any, mirrored: Any, marked: Any) -> None:
    table = filled(SCORES, 1, id="a", caption_id="b", language="en", score=score, mirrored_score=mirrored)
    assert printed_text(table, 0.06).to_pylist() == [marked]
    assert printed_text(table, None).to_pylist() == [None]


def test_the_bound_itself_is_no_mark() -> None:
    columns = {"score": pa.array([0.5], pa.float32()), "mirrored_score": pa.array([0.25], pa.float32())}
    table = filled(SCORES, 1, id="a", caption_id="b", language="en", **columns)
    assert printed_text(table, 0.25).to_pylist() == [False]
    assert printed_text(table, float(np.nextafter(np.float32(0.25), np.float32(0)))).to_pylist() == [True]
