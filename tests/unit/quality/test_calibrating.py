"""Bounds from a set's own captions, with the real small model: what is drawn, what is embedded, what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmdata import progress
from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Step
from vlmdata.models.calibration import Calibration
from vlmdata.models.source import model_identity
from vlmdata.models.starter_multilingual import NAME as MULTILINGUAL
from vlmdata.quality.calibrating import Report, calibrate_dataset
from vlmdata.quality.judges import judges
from vlmdata.quality.scores import score_shard

N = 26
GERMAN = {"de": LanguageModel(model=MULTILINGUAL)}
ONE_MODEL = QualityConfig(model=MULTILINGUAL, pretrained=None, device="cpu", languages=GERMAN)
THINGS = "cat dog house tree car boat fish bird moon star cup hat key shoe ball book door bell leaf ring"


def said(number: int) -> list[Any]:
    """Four are of no use: no English at all, contradicted, an empty word, a German who says nothing of it."""
    thing = f"{THINGS.split()[number % 20]} {number}"
    english: list[Any] = [{"text": f"a {thing} on a table", "lang": "en"}, {"text": f"the {thing}", "lang": "en-GB"}]
    contradicted = {"text": "Das ist ein ziemlich langer deutscher Satz über ein Bild.", "lang": "en"}
    german = {"text": f"Bild {number}", "lang": "de"}
    return {0: [german], 1: [contradicted], 2: [contradicted, german], 3: [{"text": "図", "lang": "ja"}]}.get(
        number, [*english, german]
    )


@pytest.fixture(scope="module")
def make(pictures: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    def captioned(shard_size: int, captions: Callable[[int], list[Any]] = said, n: int = N) -> Any:
        files = {f"{seed}.png": pictures.png(seed) for seed in range(n)}
        texts = {f"{seed}.png": captions(seed) for seed in range(n)}
        folder = tmp_path_factory.mktemp("calibrating")
        return tiny_in(folder, files, texts, shard_size=shard_size).ingested().filtered().captioned()

    return captioned


@pytest.fixture(scope="module")
def captioned(make: Callable[..., Any]) -> Any:
    return make(10)


def found(captioned: Any, language: str = "en", **options: Any) -> Report:
    config = options.pop("config", ONE_MODEL)
    return calibrate_dataset(captioned.dataset, captioned.shards, config, language, **options)


class Ear(progress.Listener):
    def __init__(self) -> None:
        self.embedded = 0

    def advance(self, step: Step, samples: int) -> None:
        self.embedded += samples if step is Step.SCORES else 0


def test_captions_of_the_language_alone_are_measured_and_one_an_image(captioned: Any) -> None:
    english, german = found(captioned), found(captioned, "de-CH")
    assert (english.bands.n, english.lost) == (N - 4, 0)
    # 1 and 3 have no German caption; what is declared English and is not is no German caption either.
    assert german.bands.n == N - 2 and german.calibration.language == "de"
    assert english.calibration.model == model_identity(MULTILINGUAL)


def test_nothing_is_embedded_twice_and_stage_03_uses_it(make: Callable[..., Any]) -> None:
    captioned, ear = make(13), Ear()
    with progress.listening(ear):
        first = found(captioned)
        assert ear.embedded == N
        assert found(captioned) == first
        captioned.each(score_shard, ONE_MODEL)
    assert ear.embedded == N


def test_how_shards_are_cut_changes_nothing(make: Callable[..., Any], captioned: Any) -> None:
    assert found(make(4), sample=20) == found(captioned, sample=20)
    assert found(captioned, sample=20).bands.n == 20


def test_what_is_measured_is_what_stage_03_scores(captioned: Any) -> None:
    scores = captioned.each(score_shard, ONE_MODEL).rows(Step.SCORES, "scores")
    first: dict[str, Any] = {}
    for row in sorted(scores, key=lambda row: row["caption_id"]):
        if row["language"] == "en" and not row["contradicted"]:
            first.setdefault(row["id"], np.float32(row["score"]))
    report = found(captioned)
    values = np.array(list(first.values()))
    assert len(values) == report.bands.n
    for one in report.calibration.thresholds:
        quantile = float(np.quantile(values, 1 - one.keep, method="lower"))
        assert one.threshold == pytest.approx(quantile, abs=1.1e-4) and one.threshold <= quantile + 1e-6
    assert report.bands.matched_rejected == (values < np.float32(report.bands.reject_below)).mean().round(4)


def test_the_file_is_one_that_a_config_names(captioned: Any, tmp_path: Path) -> None:
    report = found(captioned, keep=0.8)
    report.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == report.calibration
    config = ONE_MODEL.model_copy(update={"calibration": str(tmp_path / "calibration.json")})
    judge = judges(config).default
    assert judge.accept_above == np.float32(report.bands.accept_above)
    assert judge.reject_below == np.float32(report.bands.reject_below)
    assert [one.keep for one in report.bands.thresholds] == [0.8, 0.9, 0.95, 0.99]


def test_a_calibration_that_is_yet_to_be_made_is_no_trouble(captioned: Any, tmp_path: Path) -> None:
    config = ONE_MODEL.model_copy(update={"calibration": str(tmp_path / "not-yet.json")})
    assert found(captioned, config=config) == found(captioned)


def test_a_report_is_told_and_is_json(captioned: Any) -> None:
    report = found(captioned)
    record = json.loads(json.dumps(report.record(), allow_nan=False))
    assert record["auc"] == report.bands.auc and len(record["roc"]) == len(report.bands.roc) and record["shuffled"] > 0
    lines = "\n".join(report.lines())
    assert f"{report.bands.n} pairs" in lines and "reject_below" in lines and "accept_above" in lines


@pytest.mark.parametrize(
    ("language", "options", "line"),
    [
        ("ja", {}, "known to none of the config's models.*ja: {model"),
        ("en", {"keep": 0}, "keep = 0; expected a share"),
        ("en", {"keep": 1.5}, "keep = 1.5"),
        ("en", {"sample": 19}, "sample = 19; expected 20"),
    ],
)
def test_what_cannot_be_done_is_one_line(captioned: Any, language: str, options: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as told:
        found(captioned, language, **options)
    assert "\n" not in str(told.value)


def test_a_set_with_no_or_few_captions_in_the_language_is_told(make: Callable[..., Any]) -> None:
    few = make(4, lambda number: [{"text": f"one {number}", "lang": "en"}], n=5)
    with pytest.raises(ConfigError, match="5 images with a caption in en make"):
        found(few)
    with pytest.raises(ConfigError, match="no source caption of tiny is in de"):
        found(few, "de")
    same = make(30, lambda number: ["one and the same caption"], n=21)
    with pytest.raises(ConfigError, match="21 images with a caption in en make 0 wrong pairs"):
        found(same)


def test_of_a_large_set_the_drawn_pictures_alone_are_embedded(make: Callable[..., Any]) -> None:
    captioned, ear = make(100, lambda number: [f"a {THINGS.split()[number % 20]}, number {number}"], n=60), Ear()
    with progress.listening(ear):
        few = found(captioned, sample=20)
        assert ear.embedded == 20
        captioned.each(score_shard, ONE_MODEL)
    assert found(captioned, sample=20) == few
