"""A dataset that grows night by night, through the real stages without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.export.finish import finish_export
from vlmdata.export.plan import plan_export
from vlmdata.export.selection.select import select
from vlmdata.export.shards import export_shard
from vlmdata.filtering.close import find_close
from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.look import look_at, to_look_at
from vlmdata.filtering.pool import Terms
from vlmdata.filtering.shards import filter_shard
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Step
from vlmdata.measure.facts import measure_shard
from vlmdata.runs import Run, start_run
from vlmdata.versions.publish import publish
from vlmdata.versions.version import Version, newest_number, read_version, selections, version_under


@dataclass
class Growing:
    """The source's folder, and the dataset that is made of it."""

    folder: Path
    tiny: Any
    said: dict[str, list[str]] = field(default_factory=dict)

    @property
    def dataset(self) -> Dataset:
        """Where it is built."""
        found: Dataset = self.tiny.dataset
        return found

    @property
    def config(self) -> BuildConfig:
        """How it is built."""
        found: BuildConfig = self.tiny.config
        return found

    def add(self, files: dict[str, bytes]) -> None:
        """Pictures come, or are replaced; each has its name for a caption."""
        for name, data in files.items():
            (self.folder / "pictures" / name).write_bytes(data)
            self.said[name] = [name]
        self.write_captions()

    def remove(self, name: str) -> None:
        """A picture goes."""
        (self.folder / "pictures" / name).unlink()
        del self.said[name]
        self.write_captions()

    def write_captions(self) -> None:
        """All of them, in one file."""
        rows = [json.dumps({"file": name, "captions": said}) for name, said in sorted(self.said.items())]
        (self.folder / "captions.jsonl").write_text("\n".join(rows), encoding="utf-8")

    def decided(self) -> list[Shard]:
        """Near-duplicates of what is there now, on top of what is published."""
        terms = Terms.of(self.config)
        raw = [ingest_shard(self.dataset, shard, self.config) for shard in list_source(self.dataset, self.config)]
        measured = [measure_shard(self.dataset, shard, self.config.filter) for shard in raw]
        under = version_under(self.dataset, terms.digest, newest_number(self.dataset))
        standing = under.standing if under else None
        if terms.look:
            close = find_close(self.dataset, measured, terms, standing)
            measured = [
                look_at(self.dataset, shard, terms.look) if to_look_at(self.dataset, shard) else shard
                for shard in close
            ]
        return find_duplicates(self.dataset, measured, terms, standing)

    def filtered(self) -> list[Shard]:
        """01."""
        how = self.config.filter, self.config.dedup
        return [filter_shard(self.dataset, shard, *how) for shard in self.decided()]

    def begin(self) -> Run:
        """A run on top of what is published."""
        return start_run(self.dataset, self.config, newest_number(self.dataset))

    def publish(self, scores: dict[str, float] | None = None, run: Run | None = None) -> Version:
        """A night: build and publish; captions score 0.5 unless they are named."""
        run = run or self.begin()
        judged = type(self.tiny)(self.dataset, self.config, self.filtered()).captioned().judged(scores or {})
        before = read_version(self.dataset, run.base).exported if run.base else []
        selected = select(self.dataset, judged.shards, self.config, selections(self.dataset, run.base))
        planned = plan_export(self.dataset, selected, self.config.export, before)
        exported = [export_shard(self.dataset, shard, self.config.export) for shard in planned]
        place = finish_export(self.dataset, exported, self.config.export, {})
        return publish(run, run.base, judged.shards, exported, place)

    def near_duplicates(self, shards: list[Shard]) -> dict[str, str]:
        """Key of each near-duplicate, and of the one that it names."""
        keys = {row["id"]: row["key"] for row in self.rows(shards, Step.RAW, "samples")}
        rejects = self.rows(shards, Step.FILTERED, "rejects")
        return {row["key"]: keys[row["related"]] for row in rejects if row["code"] == "near_duplicate"}

    def captions(self, shards: list[Shard]) -> dict[str, list[str]]:
        """Captions that 01 keeps, by the key of their picture."""
        keys = {row["id"]: row["key"] for row in self.rows(shards, Step.FILTERED, "samples")}
        found: dict[str, list[str]] = {key: [] for key in keys.values()}
        for row in self.rows(shards, Step.FILTERED, "captions"):
            found[keys[row["id"]]].append(row["text"])
        return found

    def rows(self, shards: list[Shard], step: Step, table: str) -> list[dict[str, Any]]:
        """A table of all shards."""
        return [row for shard in shards for row in self.dataset.read(shard, step, table).to_pylist()]


@pytest.fixture
def growing(tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., Growing]:
    """A source of pictures, each with its name for a caption, two in a shard."""

    def make(files: dict[str, bytes], **sections: Any) -> Growing:
        said = {name: [name] for name in files}
        return Growing(tmp_path, tiny(files, said, **{"shard_size": 2, **sections}), said)

    return make
