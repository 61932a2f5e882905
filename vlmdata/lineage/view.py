"""Whose checkpoints are looked at: a run's, or those of a published version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage
from vlmdata.runs import Run, config_of
from vlmdata.versions.version import Version, read_version


@dataclass(frozen=True)
class View:
    """The shards of one run, stage by stage; those of a version, if it is asked for by its number.

    Attributes:
        run: Whose records tell the config and the retrieval check.
        version: What is published under its number; null: only the run is looked at.
    """

    run: Run
    version: Version | None = None

    @classmethod
    def of_run(cls, run: Run) -> View:
        """As a run left it, finished or not."""
        return cls(run)

    @classmethod
    def of_version(cls, dataset: Dataset, number: int) -> View:
        """As it was published.

        Raises:
            ConfigError: there is no such version.
        """
        version = read_version(dataset, number)
        return cls(Run(dataset, version.run), version)

    @property
    def dataset(self) -> Dataset:
        """Where it all lies."""
        return self.run.dataset

    @property
    def name(self) -> str:
        """What people call it."""
        return f"version {self.version.number}" if self.version else f"run {self.run.number}"

    @cached_property
    def config(self) -> BuildConfig | None:
        """What it was built with; null: another version of this software wrote it."""
        try:
            return config_of(self.run)
        except ConfigError:
            return None

    @cached_property
    def published(self) -> Version | None:
        """The version that this is, if it was published."""
        if self.version:
            return self.version
        number = (self.run.read("end") or {}).get("version")
        return read_version(self.dataset, number) if number else None

    @cached_property
    def _by_stage(self) -> dict[Stage, dict[str, Shard]]:
        if self.version:
            shards = {shard.name: shard for shard in self.version.shards}
            exported = {shard.name: shard for shard in self.version.exported}
            return {**dict.fromkeys(Stage, shards), Stage.FINAL: exported}
        reports = {stage: self.run.stage(stage) for stage in Stage}
        # Stage 03 hands on what was captioned anew for it.
        reports[Stage.CAPTIONED] = reports[Stage.CHECKED] or reports[Stage.CAPTIONED]
        return {stage: {s.name: s for s in report.shards} if report else {} for stage, report in reports.items()}

    def shards(self, stage: Stage) -> Sequence[Shard]:
        """Every shard as a stage left it; none if the stage was not reached."""
        return list(self._by_stage[stage].values())

    def shard(self, stage: Stage, name: str) -> Shard | None:
        """One shard as a stage left it."""
        return self._by_stage[stage].get(name)
