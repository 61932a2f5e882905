"""Bounds found on the sample that ships, in two languages, and a set that is judged and reported with them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sample import STAMPS, config_of
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig, LanguageModel, QualityConfig
from vlmdata.config_reading import parse_config
from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.pool import Terms
from vlmdata.filtering.shards import filter_shard
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Step
from vlmdata.measure.facts import measure_shard
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.calibrating import calibrate_dataset
from vlmdata.quality.judges import judges
from vlmdata.quality.pairs import CAPTION_CAPTION, IMAGE_CAPTION, OUTCOMES, measure_pairs
from vlmdata.quality.scores import score_shard

pytestmark = pytest.mark.integration

SAMPLES = 60
LANGUAGES = ("en", "zh")
CHINESE = LanguageModel(model="starter-multilingual")
ONE_MODEL = QualityConfig(model=CHINESE.model, pretrained=None, languages={"zh": CHINESE})


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[Shard]]:
    """Pictures of the sample that have a caption in both languages, to stage 02."""
    folder = tmp_path_factory.mktemp("calibrate")
    rows = _in_both(STAMPS / "captions.jsonl")[:SAMPLES]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    raw = config_of(STAMPS, str(folder / "store"), filter={"min_side": 64}, shard_size=25)
    raw["source"]["captions"] = str(folder / "captions.jsonl")
    config = parse_config(raw)
    dataset = Dataset(config.store, config.dataset)
    return dataset, _captioned(dataset, config)


def _in_both(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    spoken = [{caption.get("lang") for caption in row.get("captions", [])} for row in rows]
    return [row for row, tags in zip(rows, spoken, strict=True) if tags >= set(LANGUAGES)]


def _captioned(dataset: Dataset, config: BuildConfig) -> list[Shard]:
    shards = [ingest_shard(dataset, shard, config) for shard in list_source(dataset, config)]
    shards = [measure_shard(dataset, shard, config.filter) for shard in shards]
    shards = find_duplicates(dataset, shards, Terms(config.filter, config.dedup))
    shards = [filter_shard(dataset, shard, config.filter, config.dedup) for shard in shards]
    return [caption_shard(dataset, shard, config.caption) for shard in shards]


def test_bounds_in_two_languages_judge_the_set_that_they_were_found_on(
    captioned: tuple[Dataset, list[Shard]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, shards = captioned
    reports = {language: calibrate_dataset(dataset, shards, ONE_MODEL, language) for language in LANGUAGES}
    files = {language: str(tmp_path / f"{language}.json") for language in LANGUAGES}
    for language, report in reports.items():
        report.save(Path(files[language]))
        assert report.bands.matched_rejected <= 0.05 and report.bands.shuffled_accepted <= 0.05
    # A model that reads a language tells its pictures apart.
    assert min(report.bands.auc for report in reports.values()) > 0.65

    chinese = CHINESE.model_copy(update={"calibration": files["zh"]})
    config = ONE_MODEL.model_copy(update={"calibration": files["en"], "languages": {"zh": chinese}})
    caplog.set_level(logging.WARNING, logger="vlmdata")
    bench = judges(config)
    assert not caplog.records and "by vlmdata calibrate" in bench.default.note
    checked = [judge_shard(dataset, score_shard(dataset, shard, config), config) for shard in shards]

    rows = {(row["pair"], row["language"]): row for row in measure_pairs(dataset, checked, config).to_pylist()}
    for language, report in reports.items():
        row = rows[IMAGE_CAPTION, language]
        assert row["drawn"] >= report.bands.n and row["auc"] == pytest.approx(report.bands.auc, abs=0.05)
        assert row["accepted"] > 0 and row["failed"] == 0
        assert row["rejected"] <= 0.05 * row["n"] + 1
    assert rows[CAPTION_CAPTION, "zh"]["n"] > SAMPLES // 2
    captions = sum(dataset.manifest(shard, Step.CAPTIONED).captions.kept for shard in checked)
    assert sum(row[name] for row in rows.values() for name in OUTCOMES if row[name]) == captions
