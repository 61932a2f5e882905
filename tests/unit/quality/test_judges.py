"""Who judges which language, with whose bounds, and what is said about bounds that are somebody else's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmdata.config import LanguageModel, QualityConfig, RetrievalConfig
from vlmdata.errors import ConfigError
from vlmdata.models.calibration import LAION_ACCEPT, Calibration
from vlmdata.models.source import model_identity
from vlmdata.quality import judges as module
from vlmdata.quality.judges import judges, uncalibrated

CLIP = "ViT-B-32:openai"


@pytest.fixture(autouse=True)
def nothing_was_said_yet() -> Iterator[None]:
    module._warn_once.cache_clear()
    yield
    module._warn_once.cache_clear()


MANY: dict[str, Any] = {"model": "xlm-roberta-base-ViT-B-32", "pretrained": "laion5b_s13b_b90k"}
"""It knows a hundred languages."""


def calibration(path: Path, model: str = CLIP, language: str = "en", accept: float = 0.31, **more: Any) -> str:
    Calibration(model, language, accept, 0.11, 0.9, 500, f"measured on {language}", **more).save(path)
    return str(path)


def local_model(folder: Path, languages: str = '["en", "de", "fr"]') -> str:
    folder.mkdir()
    (folder / "open_clip_model.safetensors").write_bytes(b"w")
    (folder / "open_clip_config.json").write_text(f'{{"model_cfg": {{}}, "languages": {languages}}}')
    return str(folder)


def test_a_named_calibration_decides_the_bounds_that_are_auto(tmp_path: Path) -> None:
    file = calibration(tmp_path / "c.json")
    both = judges(QualityConfig(calibration=file)).default
    assert (both.accept_above, both.reject_below) == (np.float32(0.31), np.float32(0.11))
    assert both.note == "measured on en"
    one = judges(QualityConfig(calibration=file, reject_below=0.2)).default
    assert (one.accept_above, one.reject_below) == (np.float32(0.31), np.float32(0.2))
    assert one.note == "measured on en; reject_below as the config gives it"


def test_a_calibration_that_changed_is_read_again(tmp_path: Path) -> None:
    config = QualityConfig(calibration=calibration(tmp_path / "c.json"))
    before = judges(config).default
    calibration(tmp_path / "c.json", accept=0.5)
    assert judges(config).default.settings() != before.settings()


def test_a_calibration_of_another_model_or_language_is_refused(tmp_path: Path) -> None:
    other_model = calibration(tmp_path / "m.json", model="ViT-B-16:openai")
    with pytest.raises(ConfigError, match="is for ViT-B-16:openai, the model is ViT-B-32:openai"):
        judges(QualityConfig(calibration=other_model))
    german = calibration(tmp_path / "en.json", language="de")
    with pytest.raises(ConfigError, match=r"quality.calibration: .*en.json was made for captions in de"):
        judges(QualityConfig(calibration=german))
    chinese = LanguageModel(**MANY, calibration=calibration(tmp_path / "de.json", model_identity(**MANY), "de"))
    with pytest.raises(ConfigError, match=r"quality.languages.zh.calibration: .* in zh; name one .*--language zh"):
        judges(QualityConfig(languages={"zh": chinese}))
    with pytest.raises(ConfigError, match="No such file"):
        judges(QualityConfig(calibration=str(tmp_path / "nowhere.json"), accept_above=0.3, reject_below=0.2))


def test_a_languages_own_calibration_is_its_alone(tmp_path: Path) -> None:
    german = calibration(tmp_path / "de.json", model_identity(**MANY), language="de")
    choice = LanguageModel(**MANY, calibration=german)
    bench = judges(QualityConfig(languages={"de-AT": choice}))
    assert bench.default.accept_above == np.float32(LAION_ACCEPT)
    german_judge = bench.of("de")
    assert german_judge is not None and german_judge.accept_above == np.float32(0.31)


def test_whoever_is_about_to_calibrate_needs_no_calibration(tmp_path: Path) -> None:
    choice = LanguageModel(**MANY, calibration=str(tmp_path / "none.json"))
    config = QualityConfig(calibration=str(tmp_path / "neither.json"), languages={"de": choice})
    bench = judges(uncalibrated(config))
    assert bench.default.identity == CLIP and bench.of("de") is not None


def test_a_model_brings_bounds_for_each_language_that_it_was_measured_in(tmp_path: Path) -> None:
    model = local_model(tmp_path / "m")
    identity = model_identity(model)
    for language, accept in (("en", 0.3), ("de", 0.4), ("zh", 0.5)):
        calibration(tmp_path / "m" / f"calibration.{language}.json", identity, language, accept)
    bench = judges(QualityConfig(model=model, pretrained=None))
    found = {tag: judge.accept_above if (judge := bench.of(tag)) else None for tag in ("en", "de", "fr", "zh")}
    assert found == {"en": np.float32(0.3), "de": np.float32(0.4), "fr": np.float32(0.3), "zh": None}
    own = judges(QualityConfig(model=model, pretrained=None, accept_above=0.7, reject_below=0.2))
    assert own.default.accept_above == np.float32(0.7) and not own.special and own.of("de") == own.default
    named = calibration(tmp_path / "own.json", identity, accept=0.6)
    mixed = judges(QualityConfig(model=model, pretrained=None, calibration=named))
    assert (mixed.default.accept_above, mixed.special["de"].accept_above) == (np.float32(0.6), np.float32(0.4))


def test_tags_are_compared_as_captions_are_told(tmp_path: Path) -> None:
    clip = LanguageModel(**MANY, accept_above=0.5, reject_below=0.4)
    bench = judges(QualityConfig(languages={"nb-NO": clip}, unlabelled_language="EN-gb"))
    assert bench.of("no") is not None and bench.unlabelled == "en"
    with pytest.raises(ConfigError, match="one model a language"):
        judges(QualityConfig(languages={"nb": clip, "nn": clip}))


def test_the_default_model_is_not_held_to_a_language_that_it_does_not_know() -> None:
    clip = LanguageModel(**MANY, accept_above=0.5, reject_below=0.4)
    bench = judges(QualityConfig(languages={"zh": clip}, unlabelled_language="zh"))
    assert bench.default.language == "en" and "nothing was measured" not in bench.default.note


@pytest.mark.parametrize("tag", ["zh", "zh-Hans", "de"])
def test_an_english_model_judges_no_other_language(tag: str) -> None:
    clip = LanguageModel(model="ViT-B-32", pretrained="openai", accept_above=0.5, reject_below=0.4)
    with pytest.raises(ConfigError, match=rf"quality.languages.{tag}: ViT-B-32 knows en, not {tag[:2]}; name a model"):
        judges(QualityConfig(languages={tag: clip}))
    assert judges(QualityConfig(languages={"en-GB": clip})).of("en") is not None


@pytest.mark.parametrize(
    ("model", "known", "tag"), [("starter", "en", "zh"), ("starter-multilingual", "ar, .*, zh", "ja")]
)
def test_a_model_that_ships_judges_no_language_that_it_does_not_list(model: str, known: str, tag: str) -> None:
    choice = LanguageModel(model=model, accept_above=0.5, reject_below=0.4)
    line = rf"^quality.languages.{tag}: {model} knows {known}, not {tag}; name a model"
    with pytest.raises(ConfigError, match=line) as told:
        judges(QualityConfig(languages={tag: choice}))
    assert "\n" not in str(told.value)
    # Not even to find its bounds.
    with pytest.raises(ConfigError, match=line):
        judges(uncalibrated(QualityConfig(languages={tag: choice})))
    assert judges(QualityConfig(languages={"en": choice})).special["en"].model == model


def test_of_a_folder_the_configs_word_counts(tmp_path: Path) -> None:
    choice = LanguageModel(model=local_model(tmp_path / "m"), accept_above=0.5, reject_below=0.4)
    judge = judges(QualityConfig(languages={"zh": choice})).of("zh")
    assert judge is not None and "zh" not in judge.languages


def test_a_gallery_no_larger_than_top_k_says_nothing(tmp_path: Path) -> None:
    bench = judges(QualityConfig(calibration=calibration(tmp_path / "c.json", gallery=100)))
    [search] = bench.search(RetrievalConfig(top_k=100)).values()
    assert search.gallery == 1_000
    with pytest.raises(ValueError, match="expected a gallery above top_k"):
        RetrievalConfig(gallery=10, top_k=10)


def test_borrowed_bounds_are_said_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.WARNING, logger="vlmdata")
    judges(QualityConfig())
    judges(QualityConfig(calibration=calibration(tmp_path / "c.json")))
    judges(QualityConfig(model="ViT-B-16", accept_above=0.3, reject_below=0.2))
    assert not caplog.records
    for _ in range(2):
        judges(QualityConfig(model="ViT-B-16"))
    [record] = caplog.records
    assert record.name == "vlmdata" and "LAION" in record.message and "ViT-B-16:openai" in record.message


def test_bounds_of_another_language_are_said_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.WARNING, logger="vlmdata")
    model = local_model(tmp_path / "m")
    calibration(tmp_path / "m" / "calibration.json", model_identity(model))
    bench = judges(QualityConfig(model=model, pretrained=None))
    for language in ("en", "de", "de", "zh"):
        bench.of(language)
    [record] = caplog.records
    assert "captions in de" in record.message and "vlmdata calibrate --language de" in record.message


def test_galleries_are_no_larger_than_the_model_can_be_trusted_with(tmp_path: Path) -> None:
    bench = judges(QualityConfig(calibration=calibration(tmp_path / "c.json", gallery=100)))
    [search] = bench.search(RetrievalConfig()).values()
    assert (search.gallery, search.galleries, search.max_miss_rate) == (100, 50, 0.2)
    [search] = bench.search(RetrievalConfig(gallery=50, galleries=2)).values()
    assert (search.gallery, search.galleries) == (50, 2)
    [search] = judges(QualityConfig()).search(RetrievalConfig()).values()
    assert (search.gallery, search.galleries) == (1_000, 5)


def test_a_bound_of_a_calibration_is_wider_and_never_narrower_than_the_configs(tmp_path: Path) -> None:
    bench = judges(QualityConfig(calibration=calibration(tmp_path / "c.json", gallery=20, max_miss_rate=0.3)))
    [search] = bench.search(RetrievalConfig()).values()
    assert (search.gallery, search.max_miss_rate) == (20, 0.3)
    [search] = bench.search(RetrievalConfig(max_miss_rate=0.5)).values()
    assert search.max_miss_rate == 0.5


def test_a_model_of_several_languages_is_as_careful_as_it_must_be_in_one() -> None:
    chosen = LanguageModel(model="starter-multilingual")
    bench = judges(QualityConfig(model="starter", pretrained=None, languages={"de": chosen, "zh": chosen}))
    found = bench.search(RetrievalConfig())
    judge = bench.special["de"]
    measured = [bench.special[tag].trusted.gallery or 1_000 for tag in ("de", "zh")]
    assert set(found) == {bench.default.identity, judge.identity} and found[judge.identity].gallery == min(measured)
