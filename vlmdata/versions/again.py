"""A version exported again: from its checkpoints, so with or without the files that were made then."""

from __future__ import annotations

import json

from vlmdata.checkpoint import Dataset
from vlmdata.config import BuildConfig
from vlmdata.config_reading import with_overrides
from vlmdata.errors import ConfigError
from vlmdata.export.card_facts import card_facts
from vlmdata.export.finish import finish_export, locate_export
from vlmdata.export.formats import check_formats
from vlmdata.export.plan import plan_export
from vlmdata.export.selection.select import select
from vlmdata.export.shards import export_shard
from vlmdata.here import each_here
from vlmdata.layout import Step
from vlmdata.runs import Run, config_of
from vlmdata.versions.version import read_version, selections


def export_again(dataset: Dataset, number: int, to: str, overrides: list[str]) -> tuple[str, int]:
    """Copy a version to a folder or s3:// URL; returns where, and how many samples.

    Args:
        overrides: `export.…=value`: another form of the same samples.

    Raises:
        ConfigError: no such version, an override of something else than the export, or a format's package is missing.
        UserError: the folder holds something else.
    """
    version = read_version(dataset, number)
    run = Run(dataset, version.run)
    config = _config(run, to, overrides)
    check_formats(config.export.formats)
    selected = select(dataset, version.shards, config, selections(dataset, version.parent))
    planned = plan_export(dataset, selected, config.export, version.exported)
    made = each_here(Step.FINAL, planned, lambda shard: export_shard(dataset, shard, config.export))
    place = finish_export(dataset, made, config.export, card_facts(run, config))
    return locate_export(dataset.store, place), sum(dataset.manifest(shard, Step.FINAL).samples.kept for shard in made)


def _config(run: Run, to: str, overrides: list[str]) -> BuildConfig:
    """What the version was built with, less where it went."""
    built = config_of(run)
    other = with_overrides(built, [*overrides, f"export.path={json.dumps(to)}"])
    if other.model_copy(update={"export": built.export}) != built:
        raise ConfigError(
            f"--set {' '.join(overrides)}: would change what the version holds; expected keys of the export, such as "
            "export.samples_per_shard=500; for another outcome: vlmdata build"
        )
    return other
