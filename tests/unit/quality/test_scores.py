"""Scores with the real small model: what is judged by whom, and what is never embedded twice."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata import progress
from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.layout import Stage, Step
from vlmdata.models.starter_multilingual import NAME as MULTILINGUAL
from vlmdata.quality import embeddings
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.embeddings import column_vectors, vector_column
from vlmdata.quality.judges import judges
from vlmdata.quality.pictures import opened
from vlmdata.quality.scores import cosine, score_shard

STARTER = QualityConfig(model="starter", pretrained=None, accept_above=0.3, reject_below=0.1, device="cpu")
SAME_WITH_OTHER_BOUNDS = LanguageModel(model=MULTILINGUAL, accept_above=-0.9, reject_below=-0.95)


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


def test_a_score_says_which_weights_gave_it(scored: Any) -> None:
    from vlmdata.measure.encoder import load_encoder

    weights = {row["language"]: row["weights"] for row in scored.rows(Step.SCORES, "scores")}
    assert weights["en"] == load_encoder("starter", None, "cpu").weights and weights["ja"] is None


def test_embeddings_are_kept_as_lists_of_one_size_of_float16(captioned: Any, tmp_path: Path) -> None:
    """In memory, and in the file's own Parquet schema: of pictures, of mirrored ones and of captions."""
    import pyarrow.parquet as pq

    from vlmdata.measure.encoder import load_encoder

    encoder = load_encoder("starter", None, "cpu")
    dataset, [shard, *_] = captioned.dataset, captioned.each(score_shard, STARTER).shards
    judge = judges(STARTER).default
    pictured, mirrored = embeddings.embed_both_ways(dataset, shard, judge, "cpu")
    assert pictured.tables == embeddings.embed_shard(dataset, shard, judge, "cpu").tables
    kept = [pictured.tables["images"], mirrored.tables["images"]]
    kept += [ref for name, ref in dataset.manifest(shard, Step.SCORES).tables.items() if name.startswith("texts/")]
    assert len(kept) == 3
    for ref in kept:
        column = dataset.table(ref)["embedding"]
        assert column.type == pa.list_(pa.float16(), encoder.dim) and len(column) > 0 and not column.null_count
        (file := tmp_path / "t.parquet").write_bytes(dataset.store.get(ref.path))
        assert pq.read_schema(file).field("embedding").type == pa.list_(pa.float16(), encoder.dim)
        vectors = np.array(column.to_pylist(), np.float32)
        assert vectors.shape == (len(column), encoder.dim)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=2e-3)
        assert np.array_equal(column_vectors(column), vectors)


def open_clip_by_hand(model: str, pretrained: str | None) -> tuple[Any, Any, Any]:
    """Model, transform and tokenizer as somebody without this library has them."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from vlmdata.models.load import load_parts
    from vlmdata.models.source import resolve

    if pretrained is None:
        parts = load_parts(resolve(model))
        return parts.model, image_transform_v2(PreprocessCfg(**parts.preprocess), is_train=False), parts.tokenizer
    net, _, transform = open_clip.create_model_and_transforms(model, pretrained=pretrained)
    return net.eval(), transform, open_clip.get_tokenizer(model)


@pytest.mark.parametrize("model", ["starter", "ViT-S-32-alt"])
def test_scores_are_those_of_open_clip_itself(
    model: str, pictures: Any, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    import open_clip
    import torch
    from PIL import Image

    weights = None
    if model != "starter":
        torch.manual_seed(0)
        torch.save(open_clip.create_model(model, load_weights=False).state_dict(), weights := tmp_path / "weights.pt")
    files = {f"{seed}.png": pictures.png(seed, 300, 260) for seed in range(5)}
    captions = {name: [f"a picture called {name}", "a dog " * seed + "and a cat"] for seed, name in enumerate(files)}
    pretrained = str(weights) if weights else None
    config = STARTER.model_copy(update={"model": model, "pretrained": pretrained})
    built = tiny(files, captions, shard_size=5).ingested().filtered().captioned().each(score_shard, config)
    found = {row["caption_id"]: row["score"] for row in built.rows(Step.SCORES, "scores")}
    keys = {row["id"]: row["key"] for row in built.rows(Step.CAPTIONED, "samples")}
    net, transform, tokenizer = open_clip_by_hand(model, pretrained)
    for row in built.rows(Step.CAPTIONED, "captions"):
        with Image.open(f"{built.config.source.path}/{keys[row['id']]}") as image, torch.inference_mode():
            one = net.encode_image(transform(image.convert("RGB"))[None], normalize=True)
            other = net.encode_text(tokenizer([row["text"]]), normalize=True)
        assert found[row["caption_id"]] == pytest.approx(float((one @ other.T).item()), abs=1e-4)


@pytest.fixture(scope="module")
def by_hand() -> tuple[Any, Any, Any]:
    return open_clip_by_hand("starter", None)


SIDES = st.integers(1, 300)
PAIRS = st.lists(st.tuples(SIDES, SIDES, st.sampled_from(["RGB", "L"]), st.text(max_size=400)), min_size=1, max_size=8)


@settings(max_examples=4, deadline=None)
@given(pairs=PAIRS)
def test_any_picture_and_any_text_score_as_open_clip_says(
    pairs: list[tuple[int, int, str, str]], by_hand: tuple[Any, Any, Any], pictures: Any
) -> None:
    import torch

    from vlmdata.measure.encoder import load_encoder

    net, transform, tokenizer = by_hand
    encoder = load_encoder("starter", None, "cpu")
    shown = [pictures.picture(seed, *sides, mode).convert("RGB") for seed, (*sides, mode, _) in enumerate(pairs)]
    texts = [text for *_, text in pairs]
    kept = [
        column_vectors(pa.chunked_array([vector_column(vectors)]))
        for vectors in (encoder.images(np.stack([encoder.prepare(each) for each in shown])), encoder.texts(texts))
    ]
    with torch.inference_mode():
        one = net.encode_image(torch.stack([transform(each) for each in shown]), normalize=True)
        other = net.encode_text(tokenizer(texts), normalize=True)
    np.testing.assert_allclose(cosine(*kept), (one * other).sum(1).numpy(), rtol=0, atol=1e-4)


def test_a_caption_over_the_context_is_counted(pictures: Any, tiny: Callable[..., Any]) -> None:
    captions = {"1.png": ["a cat", "a cat and a dog " * 200]}
    filtered = tiny({"1.png": pictures.png(1)}, captions, filter={"max_caption_chars": 9_999}).ingested().filtered()
    scored = filtered.captioned().each(score_shard, STARTER)
    [manifest] = [scored.dataset.manifest(shard, Step.SCORES) for shard in scored.shards]
    assert manifest.facts["truncated"] == 1
    assert [row["truncated"] for row in scored.rows(Step.SCORES, "scores")] == [False, True]


@pytest.mark.parametrize("mirrored", [None, 0.1], ids=["plain", "mirrored too"])
def test_a_picture_that_is_not_embedded_fails_alone(
    pictures: Any, tiny: Callable[..., Any], mirrored: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decoded in stage 01 and no longer does: its sample fails with a reason, and those of its batch are as ever."""
    files = {f"{seed}.png": pictures.png(seed) for seed in range(4)}
    built = tiny(files, {name: ["a red square", "noise"] for name in files}, shard_size=4)
    captioned = built.ingested().filtered().captioned()
    config = STARTER.model_copy(update={"accept_above": -1.0, "reject_below": -1.0, "printed_text_drop": mirrored})
    whole = captioned.each(score_shard, config).rows(Step.SCORES, "scores")
    shutil.rmtree(Path(built.config.store) / built.config.dataset / Stage.CHECKED)
    monkeypatch.setattr(embeddings, "opened", lambda data: None if data == files["2.png"] else opened(data))
    scored = captioned.each(score_shard, config)
    lost = next(row["id"] for row in captioned.rows(Step.CAPTIONED, "samples") if row["key"] == "2.png")
    rows = scored.rows(Step.SCORES, "scores")
    assert [math.isnan(row["score"]) for row in rows] == [row["id"] == lost for row in rows]
    assert [row for row in rows if row["id"] != lost] == [row for row in whole if row["id"] != lost]
    judged = scored.each(judge_shard, config)
    report = judged.report(Stage.CHECKED)
    assert (report.samples.kept, report.samples.failed, report.captions.kept, report.captions.failed) == (3, 1, 6, 2)
    assert (report.reasons, report.caption_reasons) == ({"not_embedded": 1}, {"not_embedded": 2})
    assert {row["key"] for row in judged.rows(Step.CHECKED, "samples")} == {"0.png", "1.png", "3.png"}


def test_one_model_may_judge_two_languages_with_bounds_of_their_own(captioned: Any) -> None:
    languages = {"de": SAME_WITH_OTHER_BOUNDS}
    config = STARTER.model_copy(update={"model": MULTILINGUAL, "languages": languages, "accept_above": 0.99})
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
