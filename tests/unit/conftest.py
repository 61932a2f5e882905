"""Pictures that differ, tiny sources, and datasets taken through the real stages without a model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import settings
from PIL import Image

from tests.unit.growing import growing
from tests.unit.small_disk import small_disk
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.pool import Terms
from vlmdata.filtering.shards import filter_shard
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Stage, Step
from vlmdata.measure.facts import measure_shard
from vlmdata.quality.bands import judge_shard
from vlmdata.runs import IN_PART, StageReport, report, start_run
from vlmdata.schema import SCORES, filled

__all__ = ["growing", "small_disk"]

MIN_SIDE = 40

# A first example imports libraries, and other work may share the machine.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


def picture(seed: int, width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """Coarse noise: every seed has a hash of its own, which survives scaling and JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """A picture as a file's bytes."""
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def png(seed: int, width: int = 64, height: int = 48) -> bytes:
    """A PNG of `picture`."""
    return encode(picture(seed, width, height))


class Make:
    """The makers above, for tests."""

    min_side = MIN_SIDE
    picture = staticmethod(picture)
    encode = staticmethod(encode)
    png = staticmethod(png)


@pytest.fixture(scope="session")
def pictures() -> type[Make]:
    """Makers of pictures."""
    return Make


def write_source(folder: Path, files: Mapping[str, bytes], captions: Mapping[str, Sequence[Any]] | None = None) -> None:
    """A folder of pictures, and `captions.jsonl` beside it if there are captions."""
    for name, data in files.items():
        target = folder / "pictures" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    if captions is not None:
        rows = [{"file": name, "captions": list(said)} for name, said in captions.items()]
        (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def config_for(folder: Path, **sections: Any) -> BuildConfig:
    """A config for what `write_source` wrote; no captioner, and pictures may be small."""
    captions = folder / "captions.jsonl"
    base: dict[str, Any] = {
        "dataset": "tiny",
        "store": str(folder / "store"),
        "source": {"path": str(folder / "pictures"), "kind": "folder"},
        "filter": {"min_side": MIN_SIDE, "workers": 2},
        "caption": {"policy": "none"},
        "export": {"formats": ["webdataset"]},
    }
    if captions.exists():
        base["source"]["captions"] = str(captions)
    return parse_config({name: _merged(base.get(name), value) for name, value in {**base, **sections}.items()})


def _merged(below: Any, value: Any) -> Any:
    return {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value


@dataclass
class Tiny:
    """A dataset and its shards, as far as they have come."""

    dataset: Dataset
    config: BuildConfig
    shards: list[Shard] = field(default_factory=list)

    def each(self, step: Callable[..., Shard], *settings: Any) -> Tiny:
        """The same with a step of every shard done."""
        return Tiny(self.dataset, self.config, [step(self.dataset, shard, *settings) for shard in self.shards])

    def ingested(self) -> Tiny:
        """00_raw."""
        listed = Tiny(self.dataset, self.config, list_source(self.dataset, self.config))
        return listed.each(ingest_shard, self.config)

    def filtered(self) -> Tiny:
        """01_filtered."""
        measured = self.each(measure_shard, self.config.filter)
        found = find_duplicates(self.dataset, measured.shards, Terms(self.config.filter, self.config.dedup))
        return Tiny(self.dataset, self.config, found).each(filter_shard, self.config.filter, self.config.dedup)

    def captioned(self) -> Tiny:
        """02_captioned, by what the source says alone."""
        return self.each(caption_shard, self.config.caption)

    def judged(self, scores: Mapping[str, float | None]) -> Tiny:
        """03_quality_checked, with given scores by text; others score 0.5."""
        return self.each(given_scores, scores).each(judge_shard, self.config.quality)

    def exported(self) -> Tiny:
        """04_final."""
        planned = plan_export(self.dataset, self.shards, self.config.export)
        return Tiny(self.dataset, self.config, planned).each(export_shard, self.config.export)

    def report(self, stage: Stage) -> StageReport:
        """The accounts of a stage."""
        return report(self.dataset, stage, self.shards)

    def rows(self, step: Step, table: str) -> list[dict[str, Any]]:
        """The rows of one table, over all shards."""
        parts = [self.dataset.read(shard, step, table) for shard in self.shards]
        found: list[dict[str, Any]] = pa.concat_tables(parts).to_pylist()
        return found


_CONTEXT = 77
"""Tokens that the model reads."""


def given_scores(dataset: Dataset, shard: Shard, scores: Mapping[str, float | None]) -> Shard:
    """The checkpoint that a model would leave."""
    captions = dataset.read(shard, Step.CAPTIONED, "captions")
    values = [scores.get(text, 0.5) for text in captions["text"].to_pylist()]
    known = {"score": pa.array(values, pa.float32()), "language": captions["lang"].fill_null("en")}
    known["tokens"] = pa.array([2 * len(text) for text in captions["text"].to_pylist()], pa.int32())
    known["truncated"] = pc.greater(known["tokens"], _CONTEXT)
    table = filled(SCORES, len(values), id=captions["id"], caption_id=captions["caption_id"], model="given", **known)
    counts = Counts(came=len(values), kept=len(values))
    key = step_key(Step.SCORES, captions["caption_id"].to_pylist(), [str(value) for value in values])
    return shard.at(
        Step.SCORES, publish(dataset, shard.name, Step.SCORES, key, Result({"scores": table}, captions=counts))
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Tiny]:
    """Make a source of files and captions, and an empty dataset for it."""

    def make(files: Mapping[str, bytes], captions: Mapping[str, Sequence[Any]] | None = None, **sections: Any) -> Tiny:
        return make_tiny(tmp_path, files, captions, **sections)

    return make


def make_tiny(
    folder: Path, files: Mapping[str, bytes], captions: Mapping[str, Sequence[Any]] | None = None, **sections: Any
) -> Tiny:
    """See `tiny`; for tests that make many, each in a folder of its own."""
    write_source(folder, files, captions)
    config = config_for(folder, **sections)
    return Tiny(Dataset(config.store, config.dataset), config)


@pytest.fixture(scope="session")
def tiny_in() -> Callable[..., Tiny]:
    """`make_tiny`, whose first argument is the folder."""
    return make_tiny


@dataclass(frozen=True)
class Story:
    """A whole run in which every fate occurs."""

    dataset: Dataset
    config: BuildConfig
    outcome: str


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Good, held, rejected, tiny, broken, duplicate, uncaptioned and missing samples, all five stages, recorded."""
    folder = tmp_path_factory.mktemp("story")
    files = {
        "good.png": png(1),
        "also.png": png(2),
        "held.png": png(3),
        "wrong.png": png(4),
        "small.png": png(5, 20, 20),
        "broken.png": png(6)[:-40],
        "twin.png": encode(picture(1, 48, 40)),
        "silent.png": png(7),
    }
    captions: dict[str, Sequence[Any]] = {
        "good.png": [{"text": "good", "lang": "en"}, "  ", "so so"],
        "also.png": ["fine"],
        "held.png": ["hm"],
        "wrong.png": ["not it"],
        "small.png": ["little"],
        "twin.png": ["of the twin"],
        "gone.png": ["nowhere"],
    }
    start = make_tiny(folder, files, captions, shard_size=3)
    run = start_run(start.dataset, start.config)
    built = start.ingested()
    run.stage_done(built.report(Stage.RAW))
    built = built.filtered()
    run.stage_done(built.report(Stage.FILTERED))
    built = built.captioned()
    run.stage_done(built.report(Stage.CAPTIONED))
    built = built.judged({"good": 0.4, "fine": 0.3, "of the twin": 0.6, "so so": 0.25, "hm": 0.25, "not it": 0.1})
    run.stage_done(built.report(Stage.CHECKED))
    built = built.exported()
    run.stage_done(built.report(Stage.FINAL))
    run.finish(IN_PART, "for the test", to=Stage.FINAL.value)
    return Story(start.dataset, start.config, IN_PART)
