"""The retrieval check over sets whose embeddings are given: what decides, what only is told, and who is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.conftest import Tiny
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import QualityConfig, RetrievalConfig
from vlmdata.errors import NeedsCleaning
from vlmdata.layout import Step
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.embeddings import TEXTS, embedding_settings, vector_column
from vlmdata.quality.judges import judges
from vlmdata.quality.pictures import one_pass
from vlmdata.quality.retrieval import Retrieval, _bound, measure_retrieval
from vlmdata.quality.worst_page import worst_page
from vlmdata.schema import RETRIEVAL, SCORES, filled

Vector = Sequence[float]
SHARD_SIZE = 50
BOUNDS = {"accept_above": 0.28, "reject_below": 0.2}


def embedded(
    dataset: Dataset,
    shard: Shard,
    quality: QualityConfig,
    images: Mapping[str, Vector],
    texts: Mapping[str, Vector],
    scores: Mapping[str, float],
) -> Shard:
    """The checkpoints that models would leave which embed pictures by key, and captions by text, so."""
    bench = judges(quality)
    samples = dataset.read(shard, Step.CAPTIONED, "samples", ["id", "key"])
    captions = dataset.read(shard, Step.CAPTIONED, "captions")
    seen = vector_column(np.array([images[key] for key in samples["key"].to_pylist()], np.float32))
    told = Result(
        {"images": samples.select(["id"]).append_column("embedding", seen)},
        samples=Counts(came=samples.num_rows, kept=samples.num_rows),
    )
    languages = captions["lang"].fill_null("en").to_pylist()
    by = [bench.of(language) for language in languages]
    rows = filled(
        SCORES,
        captions.num_rows,
        id=captions["id"],
        caption_id=captions["caption_id"],
        score=pa.array([scores.get(text, 0.5) for text in captions["text"].to_pylist()], pa.float32()),
        model=pa.array([judge.identity for judge in by]),
        language=pa.array(languages),
    )
    tables = {"scores": rows}
    for number, judge in enumerate(dict.fromkeys(by)):
        wanted = {"seen": (Step.EMBEDDINGS, embedding_settings(judge, quality.device))}
        one_pass(dataset, shard, wanted, lambda _: {"seen": told})
        own = captions.filter(pa.array([one is judge for one in by]))
        spoken = vector_column(np.array([texts[text] for text in own["text"].to_pylist()], np.float32))
        tables[f"{TEXTS}{number}"] = own.select(["caption_id"]).append_column("embedding", spoken)
    everyone = Counts(came=captions.num_rows, kept=captions.num_rows)
    key = step_key(Step.SCORES, [shard.name], "given")
    return shard.at(Step.SCORES, publish(dataset, shard.name, Step.SCORES, key, Result(tables, captions=everyone)))


@pytest.fixture
def checked(
    tiny: Callable[..., Tiny], pictures: Any, tiny_model: Callable[[], str]
) -> Callable[..., tuple[Tiny, Retrieval]]:
    """A set through 03 and the check: captions of pictures by key, and what models say of both."""

    def make(
        captions: Mapping[str, Sequence[Any]],
        images: Mapping[str, Vector],
        texts: Mapping[str, Vector],
        scores: Mapping[str, float] | None = None,
        **quality: Any,
    ) -> tuple[Tiny, Retrieval]:
        files = {key: pictures.png(seed) for seed, key in enumerate(captions)}
        own = {"model": tiny_model(), "pretrained": None, "device": "cpu", **BOUNDS, **quality}
        start = tiny(files, captions, shard_size=SHARD_SIZE, quality=own, dedup={"max_distance": 0})
        built = start.ingested().filtered().captioned()
        built = built.each(embedded, built.config.quality, images, texts, scores or {})
        built = built.each(judge_shard, built.config.quality)
        return built, measure_retrieval(built.dataset, built.shards, built.config.quality)

    return make


@pytest.fixture
def tiny_model(tmp_path: Any) -> Callable[[], str]:
    """A model's folder that nobody has calibrated, so that nothing makes its gallery smaller."""
    from tests.unit.measure.test_encoder import save_tiny

    return lambda: str(save_tiny(tmp_path / "model", languages=["en"]))


def keys(count: int) -> list[str]:
    return [f"{number:04d}.png" for number in range(count)]


def found_and_missed(count: int, missed: int, dim: int | None = None) -> tuple[dict[str, Vector], dict[str, Vector]]:
    """Pictures and captions that lie where nothing else does; the captions of the last so many are elsewhere."""
    axes = np.eye(dim or 2 * count, dtype=np.float32)
    images = {key: axes[number] for number, key in enumerate(keys(count))}
    texts = {key: axes[number + (count if number >= count - missed else 0)] for number, key in enumerate(keys(count))}
    return images, texts


def own_names(count: int) -> dict[str, list[Any]]:
    return {key: [key] for key in keys(count)}


@pytest.mark.parametrize(("missed", "verdict"), [(19, "passed"), (20, "needs cleaning")])
def test_a_fifth_of_the_images_is_enough(checked: Callable[..., Any], missed: int, verdict: str) -> None:
    _, found = checked(own_names(100), *found_and_missed(100, missed))
    assert (found.verdict, found.miss_rate, found.galleries) == (verdict, missed / 100, (100,))
    if verdict == "passed":
        found.require_clean()
    else:
        with pytest.raises(NeedsCleaning, match=r"20\.0% of 100 images .* the bound is 20%; worst: source "):
            found.require_clean()


def test_below_a_hundred_nothing_is_told(checked: Callable[..., Any]) -> None:
    _, found = checked(own_names(99), *found_and_missed(99, 99))
    assert (found.verdict, found.miss_rate) == ("too few to tell", 1.0)
    found.require_clean()


def test_a_gallery_of_a_thousand_is_searched_and_who_is_left_over_is_not(checked: Callable[..., Any]) -> None:
    images, texts = found_and_missed(1_050, 0, dim=1_050)
    _, found = checked(own_names(1_050), images, texts)
    assert found.galleries == (1_000,) and found.exports["image_to_text"].n == 1_000
    assert (found.verdict, found.exports["image_to_text"].r1, found.drawn.num_rows) == ("passed", 1.0, 1_000)


def test_galleries_are_of_one_size_and_each_image_is_in_one(checked: Callable[..., Any]) -> None:
    images, texts = found_and_missed(110, 0)
    _, found = checked(own_names(110), images, texts, retrieval={"gallery": 30, "galleries": 5})
    assert found.galleries == (30,) and found.exports["image_to_text"].n == 90
    assert len(set(found.drawn["id"].to_pylist())) == 90


def test_captions_of_one_image_never_count_against_each_other(checked: Callable[..., Any]) -> None:
    images, _ = found_and_missed(100, 0)
    said = {key: [f"{key} {way}" for way in ("one", "two", "three")] for key in keys(100)}
    texts = {text: images[key] for key, own in said.items() for text in own}
    _, found = checked(said, images, texts)
    assert found.exports["image_to_text"].n == 100, "an image is asked for once, whatever is said of it"
    assert (found.exports["image_to_text"].r1, found.exports["text_to_image"].r1) == (1.0, 1.0)
    assert found.scored == found.exports


def test_words_that_many_images_share_are_right_for_each_of_them(checked: Callable[..., Any]) -> None:
    images, texts = found_and_missed(100, 0)
    shared = {key: ["A card." if number < 40 else key] for number, key in enumerate(keys(100))}
    texts = {**texts, "A card.": images[keys(1)[0]]}
    _, found = checked(shared, images, texts)
    # As near as all that is not theirs: of the 61 wordings, only the 60 others count.
    assert sorted(found.drawn["to_text"].to_pylist())[-39:] == [61] * 39


def towards_one(count: int, hubs: int) -> tuple[list[Vector], list[Vector]]:
    """Ones that find theirs first each, and others which all look for the same `hubs` before theirs."""
    axes = np.eye(count + 1)
    leaning = [0.05 if number < hubs else 0.999 for number in range(count)]
    ones = [own * axes[number] + np.sqrt(1 - own**2) * axes[-1] for number, own in enumerate(leaning)]
    others = [0.6 * axes[number] + 0.8 * axes[-1] for number in range(count)]
    return ones, others


@pytest.mark.parametrize("decides", [True, False])
def test_images_that_look_for_texts_decide_and_texts_that_look_for_images_are_told(
    checked: Callable[..., Any], decides: bool
) -> None:
    ones, others = towards_one(100, hubs=15)
    images, texts = (others, ones) if decides else (ones, others)
    names = keys(100)
    _, found = checked(own_names(100), dict(zip(names, images, strict=True)), dict(zip(names, texts, strict=True)))
    there, back = found.exports["image_to_text"].r10, found.exports["text_to_image"].r10
    assert (there, back) == ((0.15, 1.0) if decides else (1.0, 0.15))
    assert found.verdict == ("needs cleaning" if decides else "passed")


def test_what_would_be_exported_decides_and_all_that_was_scored_is_told_beside_it(
    checked: Callable[..., Any],
) -> None:
    images, texts = found_and_missed(130, 30)
    rejected = dict.fromkeys(keys(130)[100:], 0.1)
    _, found = checked(own_names(130), images, texts, rejected)
    assert (found.verdict, found.exports["image_to_text"].n, found.exports["image_to_text"].r10) == ("passed", 100, 1.0)
    assert found.scored["image_to_text"].n == 130
    assert found.scored["image_to_text"].r10 == pytest.approx(100 / 130)


def test_the_worst_shard_language_and_source_are_named_and_their_words_are_shown_as_text(
    checked: Callable[..., Any],
) -> None:
    french = {"languages": {"fr": {"model": "starter-multilingual", **BOUNDS}}}
    names = [*(f"good/{n:03d}.png" for n in range(60)), *(f"<b onclick=x>/{n:03d}.png" for n in range(60))]
    axes = np.eye(300)
    images = {key: axes[number] for number, key in enumerate(names)}
    bad = {key for number, key in enumerate(names) if number >= 60 and number % 2}
    said = {key: f"<script>alert({number})</script>" if key in bad else key for number, key in enumerate(names)}
    texts = {said[key]: axes[number + (150 if key in bad else 0)] for number, key in enumerate(names)}
    captions = {key: [{"text": text, "lang": "fr" if key in bad else "en"}] for key, text in said.items()}
    built, found = checked(captions, images, texts, **french)
    shards = {row["name"]: row["miss_rate"] for row in found.groups["shard"]}
    assert found.groups["source"][0]["name"] == "<b onclick=x>"
    assert [row["name"] for row in found.groups["language"]] == ["fr", "en"]
    assert (found.groups["language"][0]["miss_rate"], found.groups["language"][1]["miss_rate"]) == (1.0, 0.0)
    assert next(iter(shards)) == max(shards, key=shards.__getitem__) and len(shards) == 3
    assert {row["id"] for row in found.worst.slice(0, len(bad)).to_pylist()} == {
        row["id"] for row in built.rows(Step.CHECKED, "samples") if row["key"] in bad
    }
    page = worst_page(built.dataset, built.shards, found).decode()
    assert "&lt;script&gt;alert(" in page and "&lt;b onclick=x&gt;" in page
    assert "<script" not in page and "<b " not in page
    assert page.count("data:image/jpeg;base64,") == 50


def test_a_check_that_stops_a_run_names_the_worst_source_shard_and_language_wherever_it_is_told(
    checked: Callable[..., Any],
) -> None:
    """In its message, in the run's record and on the page; all of one shard's captions in French belong elsewhere."""
    french = {"languages": {"fr": {"model": "starter-multilingual", **BOUNDS}}}
    names, bad = keys(150), set(keys(150)[SHARD_SIZE : 2 * SHARD_SIZE])
    axes = np.eye(300)
    images = {key: axes[number] for number, key in enumerate(names)}
    texts = {key: axes[number + (150 if key in bad else 0)] for number, key in enumerate(names)}
    captions = {key: [{"text": key, "lang": "fr" if key in bad else "en"}] for key in names}
    built, found = checked(captions, images, texts, **french)
    [worst] = [shard.name for shard in built.shards if keys_in(built, shard) == bad]
    with pytest.raises(NeedsCleaning) as stopped:
        found.require_clean()
    assert f"worst: source . (33%), origin source (33%), shard {worst} (100%), language fr (100%)" in str(stopped.value)
    groups = json.loads(json.dumps(found.record()))["groups"]
    told = {by: [(row["name"], row["images"], row["miss_rate"]) for row in rows] for by, rows in groups.items()}
    assert told["shard"][0] == (worst, SHARD_SIZE, 1.0)
    assert [share for _, _, share in told["shard"]] == [1.0, 0.0, 0.0]
    assert told["language"] == [("fr", 50, 1.0), ("en", 100, 0.0)]
    assert told["source"] == [(".", 150, pytest.approx(1 / 3))]
    page = worst_page(built.dataset, built.shards, found).decode()
    for by, name in (("shard", worst), ("language", "fr"), ("source", ".")):
        rows = page.partition(f"<h2>By {by}, the worst first</h2>")[2].partition("</table>")[0].split("<tr>")
        share = "33.3%" if by == "source" else "100.0%"
        assert rows[2].startswith(f"<td>{name}<td>") and rows[2].endswith(f"<td>{share}")


def keys_in(built: Tiny, shard: Shard) -> set[str]:
    """Of the samples that 03 kept of it."""
    return set(built.dataset.read(shard, Step.CHECKED, "samples")["key"].to_pylist())


def near_captions(count: int, cosine: float) -> tuple[dict[str, Vector], dict[str, Vector]]:
    """Pictures by two, whose captions lie at a cosine; each picture lies where the other one's caption is."""
    axes = np.eye(count)
    images, texts = dict[str, Vector](), dict[str, Vector]()
    for number in range(0, count, 2):
        one, other = keys(count)[number : number + 2]
        texts[one] = axes[number]
        texts[other] = cosine * axes[number] + np.sqrt(1 - cosine**2) * axes[number + 1]
        images[one], images[other] = texts[other], texts[one]
    return images, texts


@pytest.mark.parametrize(("cosine", "verdict", "first"), [(0.9502, "passed", 1.0), (0.9498, "needs cleaning", 0.0)])
def test_captions_at_a_cosine_of_95_hundredths_say_the_same_and_below_it_they_do_not(
    checked: Callable[..., Any], cosine: float, verdict: str, first: float
) -> None:
    """Whoever finds a caption that says what its own does has found it."""
    images, texts = near_captions(100, cosine)
    _, found = checked(own_names(100), images, texts, retrieval={"top_k": 1})
    assert (found.verdict, found.exports["image_to_text"].r1) == (verdict, first)
    assert found.exports["text_to_image"].r1 == first and found.exports["image_to_text"].r5 == 1.0


@pytest.mark.parametrize(("of_a", "of_b", "bound"), [(3, 1, 0.2), (1, 3, 0.325), (0, 2, 0.4), (0, 0, 0.2)])
def test_the_bound_of_several_models_is_the_mean_of_theirs_by_images(of_a: int, of_b: int, bound: float) -> None:
    asked = {"a": SimpleNamespace(max_miss_rate=0.1), "b": SimpleNamespace(max_miss_rate=0.4)}
    bench: Any = SimpleNamespace(search=lambda wanted: asked)
    rows = RETRIEVAL.empty_table() if not of_a + of_b else pa.table({"model": ["a"] * of_a + ["b"] * of_b})
    assert _bound(rows, bench, RetrievalConfig()) == pytest.approx(bound)
