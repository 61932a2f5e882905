"""The card tells what is so, and what strangers wrote stays text."""

from __future__ import annotations

from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
import yaml

from vlmdata.config import LanguageModel, PixelsConfig, QualityConfig
from vlmdata.export.card import CardFacts, card
from vlmdata.export.card_facts import card_facts
from vlmdata.export.card_head import configs, hub_licence, languages, size_category
from vlmdata.export.card_judged import retrieval_section
from vlmdata.export.card_pixels import FATES
from vlmdata.export.pixels import Change, Picture
from vlmdata.export.rows import ROWS
from vlmdata.export.tallies import PASSED_THROUGH, added_up, tally
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import save
from vlmdata.models.calibration import Calibration
from vlmdata.models.source import model_identity
from vlmdata.runs import existing_run
from vlmdata.schema import filled

A_PICTURE = Picture(b"", "jpg", 1, 1)
MANIFEST: dict[str, Any] = {
    "dataset": "stamps",
    "export": "ab12",
    "samples": 1200,
    "captions": 2400,
    "settings": {"formats": ["parquet"]},
    "files": [{"path": "parquet/00000.parquet", "format": "parquet", "samples": 1200, "bytes": 5_000_000}],
}


def rows_of(origin: str, model: str | None, license_: str | None = "CC0-1.0") -> pa.Table:
    caption = {"text": "x", "lang": "en", "origin": origin, "score": 0.3, "model": model}
    captions = pa.array([[caption]], ROWS.field("captions").type)
    return filled(ROWS, 1, id="1", key="k", sha256="s", license=license_, captions=captions)


@pytest.mark.parametrize(("verdict", "said"), [("too few to tell", True), ("passed", False)])
def test_that_too_few_were_looked_at_comes_before_the_figures(verdict: str, said: bool) -> None:
    told = retrieval_section({"verdict": verdict, "sentence": "retrieval: 1 of 2", "exports": {}, "scored": {}})
    assert told.startswith("## Retrieval\n\n**Too few to tell.** retrieval: 1 of 2.") == said


def test_tallies_of_shards_add_up() -> None:
    total = added_up([tally(rows_of("source", "ViT-B-32")), tally(rows_of("duplicate:99", "ViT-B-32", None))])
    assert total["license"] == Counter({"CC0-1.0": 1, None: 1})
    assert total["origin"] == Counter({"source": 1, "duplicate": 1})
    assert total["model"] == Counter({"ViT-B-32": 2})
    assert not total.get("starter")


def test_no_rows_make_no_tallies() -> None:
    assert tally(rows_of("source", None).slice(0, 0)).num_rows == 0


def test_the_card_says_when_the_starter_judged_itself() -> None:
    circular = card(MANIFEST, added_up([tally(rows_of("model:starter", "starter@ab12"))]), {})
    assert "1 captions were written by the starter model and judged by the starter model" in circular
    for origin, model in (
        ("model:starter", "ViT-B-32"),
        ("source", "starter@ab12"),
        ("model:gpt", "starter"),
    ):
        assert "Circular" not in card(MANIFEST, added_up([tally(rows_of(origin, model))]), {})


def test_the_card_tells_counts_funnel_thresholds_and_limits() -> None:
    facts: CardFacts = {
        "stages": {
            "01_filtered": {
                "in": 3000,
                "kept": 2500,
                "rejected": 500,
                "held": 0,
                "failed": 0,
                "rejection_rate": 1 / 6,
                "mean_score": 0.312,
                "reasons": {"too_small": 500},
            }
        },
        "thresholds": [{"language": "zh", "model": "xlm-roberta", "accept_above": 0.28, "reject_below": 0.2}],
        "captioner": "vision-1",
    }
    text = card(MANIFEST, {"license": Counter({"GPL-2.0-only": 7, None: 2})}, facts)
    assert "1,200 pictures with 2,400 captions" in text
    assert "| 01_filtered | 3,000 | 2,500 | 500 | 0 | 0 | 16.7 | 0.312 |" in text
    assert "| 01_filtered | too_small | 500 |" in text
    assert "| zh | xlm-roberta | 0.28 | 0.2 |" in text
    assert "| `GPL-2.0-only` | 7 |" in text and "| not stated | 2 |" in text
    assert "`vision-1`" in text and "## Known limits" in text


def test_hostile_text_stays_text() -> None:
    hostile = "`<script>alert(1)</script>|\n# Title [x](http://y)"
    text = card(MANIFEST, {"license": Counter({hostile: 1})}, {})
    (line,) = [line for line in text.splitlines() if "script" in line]
    assert line.startswith("| `'<script>alert(1)</script>\\| # Title") and line.endswith("` | 1 |")
    named = card({**MANIFEST, "dataset": "<b>x</b>"}, {}, {})
    assert "<b>" not in named


def test_a_long_list_is_cut_and_the_rest_is_counted() -> None:
    text = card(MANIFEST, {"license": Counter({f"L{number:03d}": 2 for number in range(50)})}, {})
    assert "| 20 others | 40 |" in text and "L049" not in text


def test_the_card_tells_what_happened_to_pixels() -> None:
    changes: list[tuple[Change, ...]] = [(), (), ("turned", "resized"), ("converted", "resized", "padded")]
    pictures = [Picture(b"", "jpg", 1, 1, one) for one in changes]
    counted = added_up([tally(rows_of("source", None), pictures)])
    text = card(MANIFEST, counted, {})
    assert "in sRGB, without a colour profile" in text
    for said, count in {
        "none: the source's own compressed stream": 2,
        "turned upright": 1,
        "colours converted to sRGB": 1,
        "scaled down": 2,
        "put into a square": 1,
    }.items():
        assert f"| {said} | {count} |" in text
    assert "laid on white, as it was transparent" not in text
    assert "## Pictures" not in card(MANIFEST, {}, {})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (PixelsConfig(mode="resize", side=512), "No longest side is over 512 px (lanczos); none was enlarged. Each is"),
        (
            PixelsConfig(mode="pad", side=336, position="top-left", color="#000000", interpolation="box"),
            "Each is 336 px square: scaled down if it is larger (box), never enlarged, top-left on #000000. Each is",
        ),
        (PixelsConfig(formats=("webp", "jpg"), encode_as="jpg"), "Each is jpg or webp; jpg if it was encoded anew."),
    ],
)
def test_the_card_tells_what_was_asked_of_pixels(asked: PixelsConfig, said: str) -> None:
    settings = {**MANIFEST["settings"], "pixels": asked.settings()}
    text = card({**MANIFEST, "settings": settings}, added_up([tally(rows_of("source", None), [A_PICTURE])]), {})
    assert said in text


def test_every_change_has_words_on_the_card() -> None:
    assert set(FATES) == {PASSED_THROUGH, *get_args(Change)}


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("GPL-2.0-or-later", "gpl-2.0"),
        ("CC-BY-SA 4.0", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-nc/2.0/", "cc-by-nc-2.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("all rights reserved", "other"),
        ("x: [y]\n---\nz", "other"),
        (None, "unknown"),
        (" ", "unknown"),
    ],
)
def test_licences_are_told_by_the_names_that_hubs_know(stated: str | None, told: str) -> None:
    assert hub_licence(stated) == told


@pytest.mark.parametrize(
    ("samples", "told"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (999_999, "100K<n<1M"), (10**7, "10M<n<100M"), (10**12, "n>1T")],
)
def test_sizes_are_those_that_hubs_know(samples: int, told: str) -> None:
    assert size_category(samples) == told


def test_languages_are_codes() -> None:
    assert languages({"zh-Hant-TW": 1, "EN_us": 1, None: 3, "klingon": 1, "de": 2, "": 1}) == ["de", "en", "zh"]


def test_the_head_is_yaml_whatever_strangers_wrote() -> None:
    hostile = {"license": Counter({"a: b\n---\n# x": 1}), "language": Counter({"no": 1, "x: y\n---": 1})}
    told = yaml.safe_load(card(MANIFEST, hostile, {}).split("---\n")[1])
    assert (told["license"], told["language"]) == ("other", ["no"])


def test_hubs_are_told_of_the_files_of_one_format() -> None:
    files = [
        {"format": name, "path": f"{name}/00000.{end}"} for name, end in (("webdataset", "tar"), ("parquet", "parquet"))
    ]
    assert [one["data_files"][0]["path"] for one in configs(files)] == ["parquet/*.parquet"]
    assert [one["data_files"][0]["path"] for one in configs(files[:1])] == ["webdataset/*.tar"]
    assert configs([]) == [] == configs([{"format": "unheard-of", "path": "x/0.y"}])


def limits(tallies: Any, facts: CardFacts) -> str:
    return card(MANIFEST, tallies, facts).partition("## Known limits")[2].partition("\n## ")[0]


def test_limits_follow_from_what_is_known() -> None:
    nothing = limits({}, {})
    tallies = {
        "model": Counter({None: 24, "m": 2_376}),
        "origin": Counter({"model:gpt|p@1:aa": 600, "source": 1_800}),
        "license": Counter({None: 12}),
    }
    thresholds: Any = [{"language": None, "model": "m@1", "found_for": "en", "borrowed": True, "note": "LAION's rule"}]
    facts: CardFacts = {
        "chance_drops": 41.6,
        "thresholds": thresholds,
        "stages": {"03_quality_checked": {"held": 5, "failed": 2}},
    }
    found = limits(tallies, facts)
    for sentence in (
        "24 (1.0%) of the exported captions are unverified",
        "600 (25.0%) of the captions were written by a model",
        "12 (1.0%) of the pictures come without a licence",
        "about 42 pictures were dropped as a near-duplicate",
        "The bounds of `m@1` are not its own: LAION's rule",
        "5 samples are held",
        "2 samples failed",
    ):
        assert sentence in found and sentence[-20:] not in nothing


def test_bounds_used_on_another_language_and_languages_nobody_knows_are_limits(story_health: Any) -> None:
    thresholds: Any = [{"language": None, "model": "given", "found_for": "de"}]
    found = limits({}, {"health": story_health, "thresholds": thresholds})
    assert "Bounds that were found on captions in `de` were used for `en` (6)." in found
    assert "Fewer than 100 captions were scored in `en` (6)" in found
    same: Any = [{"language": None, "model": "given", "found_for": "en"}]
    assert "were used for" not in limits({}, {"health": story_health, "thresholds": same})


LAION = "LAION's rule, found with OpenAI CLIP ViT-B/32 on English captions"
CLIP_16 = {"model": "ViT-B-16"}
MANY = LanguageModel(model="xlm-roberta-base-ViT-B-32", pretrained="laion5b_s13b_b90k")


def told_of_bounds(story: Any, **quality: Any) -> tuple[list[str], str]:
    """From a config to README.md: the limits about bounds, and the table of them."""
    config = story.config.model_copy(update={"quality": QualityConfig(**quality)})
    # Its health, if another test has saved some: languages that nobody speaks would be counted, and not shown.
    facts: CardFacts = {**card_facts(existing_run(story.dataset), config), "health": None}
    text = card(MANIFEST, {}, facts)
    sections = [text.partition(f"## {name}")[2].partition("\n## ")[0] for name in ("Known limits", "How captions were")]
    return [line for line in sections[0].splitlines() if "not its own" in line], sections[1]


@pytest.mark.parametrize(
    ("quality", "model", "language"),
    [
        (CLIP_16, "ViT-B-16:openai", "en"),
        ({**CLIP_16, "accept_above": 0.3}, "ViT-B-16:openai", "en"),
        ({"languages": {"zh": MANY}}, "xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k", "zh"),
        ({"pretrained": "laion2b_s34b_b79k"}, "ViT-B-32:laion2b_s34b_b79k", "en"),
    ],
)
def test_bounds_that_are_another_models_reach_the_card(story: Any, quality: Any, model: str, language: str) -> None:
    warned, table = told_of_bounds(story, **quality)
    [line] = warned
    assert line.startswith(f"- The bounds of `{model}` are not its own: ")
    assert f"applied to {model} in {language}, for which nothing was measured: calibrate it" in unescape(line)
    assert LAION in unescape(line)
    [row] = [row for row in table.splitlines() if f"| {model} |" in row]
    assert f"| {quality.get('accept_above', 0.28)} | 0.2 |" in row


def test_bounds_of_a_config_that_were_found_on_another_language_reach_the_card(story: Any, tmp_path: Path) -> None:
    """The run's captions are English, and its judge was calibrated on German ones alone."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_model.safetensors").write_bytes(b"w")
    (folder / "open_clip_config.json").write_text('{"model_cfg": {}, "languages": ["en", "de"]}')
    german = Calibration(model_identity(str(folder)), "de", 0.31, 0.11, 0.9, 500, "measured on de")
    german.save(tmp_path / "de.json")
    run = existing_run(story.dataset)
    save(run, measure_health(run))
    quality = {"model": str(folder), "pretrained": None, "calibration": str(tmp_path / "de.json")}
    said = "Bounds that were found on captions in `de` were used for `en` (6)."
    config = story.config.model_copy(update={"quality": QualityConfig(**quality, unlabelled_language="de")})
    assert said in card(MANIFEST, {}, card_facts(run, config))
    given = story.config.model_copy(update={"quality": QualityConfig(accept_above=0.3, reject_below=0.2)})
    assert "were used for" not in card(MANIFEST, {}, card_facts(run, given))


@pytest.mark.parametrize(
    "quality",
    [
        {},
        {"model": "ViT-B-32", "pretrained": "openai"},
        {**CLIP_16, "accept_above": 0.3, "reject_below": 0.2},
        {"model": "starter", "pretrained": None},
    ],
)
def test_of_bounds_that_are_a_models_own_or_given_no_card_warns(story: Any, quality: Any) -> None:
    warned, table = told_of_bounds(story, **quality)
    assert warned == [] and "| every other |" in table
    assert "nothing was measured" not in table


@pytest.fixture
def story_health(story: Any) -> Any:
    return measure_health(existing_run(story.dataset))


def test_health_is_told_in_tables_and_where_there_are_plots_in_pictures(story_health: Any) -> None:
    text = card(MANIFEST, {}, {"health": story_health})
    section = text.partition("## Health")[2].partition("\n## ")[0]
    assert "### Shorter side" in section and "### Length of captions" in section and "run 1" not in section
    assert "![" not in section
    assert "![score bins](plots/score_bins.svg)" in card(MANIFEST, {}, {"plots": {"score_bins": "<svg/>"}})


def told_of_selection(tallies: Any = None, **settings: Any) -> str:
    """The card, from its section on selection on, up to that on languages."""
    text = card({**MANIFEST, "settings": {**MANIFEST["settings"], **settings}}, tallies or {}, {})
    return text.partition("## Selection")[2].partition("\n## ")[0]


def test_the_card_tells_what_was_selected_and_what_it_cost() -> None:
    asked = {
        "top_fraction": 0.3,
        "weights": {"source": {"stock.example.org": 0.2, "*": 1}, "score_decile": {"1": 0}},
        "caps": {"language": {"en": 100_000}},
    }
    cost = Counter({"below_top": 70_000, "weight": 1_234, "cap": 56, "split_conflict": 7})
    benchmarks = Counter({"<b>coco</b>": 12, "flickr30k": 3})
    assert told_of_selection({"not_selected": cost, "contaminated": benchmarks}, select=asked).strip().splitlines() == [
        "- The best 30 % by CLIPScore: 70,000 are left out.",
        "- Weights by score decile: `1` 0.",
        "- Weights by source: `*` 1, `stock.example.org` 0.2.",
        "- 1,234 are left out for weights.",
        "- Caps by language: `en` 100,000.",
        "- 56 are left out for caps.",
        "- 12 are pictures of the evaluation set &#60;b&#62;coco&#60;/b&#62;, and are left out.",
        "- 3 are pictures of the evaluation set flickr30k, and are left out.",
        "- 7 are close to pictures of two splits, and are held.",
    ]
    assert "## Selection" not in card(MANIFEST, {}, {})
    assert told_of_selection({}, select={"caps": {"size": {"*": 5}}}).strip().splitlines() == [
        "- Caps by size: `*` 5.",
        "- 0 are left out for caps.",
    ]


SPLIT_FILES = [
    {"path": f"{split}/{name}/0.x", "format": name, "split": split, "samples": count, "bytes": 1}
    for name in ("parquet", "webdataset")
    for split, count in (("train", 1_000), ("train", 80), ("test", 20))
]


@pytest.mark.parametrize(
    ("by", "shared"),
    [
        ({}, "pHashes within 14 bits, or embeddings with a cosine of 0.95 or more"),
        (
            {"max_distance": 8, "confirm": 0.8, "cosine": None, "captions": True},
            "pHashes within 8 bits and embeddings with a cosine of 0.8 or more, or a caption in common",
        ),
        (
            {"max_distance": None, "cosine": 0.9, "caption_cosine": 0.95},
            "embeddings with a cosine of 0.9 or more, or captions whose embeddings have a cosine of 0.95 or more",
        ),
    ],
)
def test_the_card_tells_of_splits_and_what_no_two_share(by: Any, shared: str) -> None:
    settings = {"formats": ["parquet", "webdataset"], "splits": {"train": 0.98, "test": 0.02}, "split_by": by}
    text = card({**MANIFEST, "settings": settings, "files": SPLIT_FILES}, {}, {})
    section = text.partition("## Splits")[2].partition("\n## ")[0]
    assert f"No two pictures of different splits have {shared}." in section
    assert "| train | 1,080 | 98 |" in section and "| test | 20 | 2 |" in section
    alone = {**settings, "split_by": {"max_distance": None, "cosine": None}}
    assert "Pictures were drawn one by one." in card({**MANIFEST, "settings": alone, "files": SPLIT_FILES}, {}, {})
    assert "## Splits" not in card(MANIFEST, {}, {})


def test_prompts_are_told_word_for_word_behind_a_fence_that_holds() -> None:
    words = "Say:\n```\n## not a heading\n```"
    text = card(MANIFEST, {}, {"prompts": [{"identity": "mine@1:ab", "text": words}]})
    assert f"````text\n{words}\n````" in text
