"""00_raw of a listing that says less is found under the new listing's name: nothing is read or downloaded again."""

from __future__ import annotations

import json
from collections.abc import Mapping

from vlmdata import layout
from vlmdata.checkpoint import Dataset, step_key
from vlmdata.errors import ConfigError
from vlmdata.ingest.shards import read_settings
from vlmdata.layout import Step
from vlmdata.runs import Run, config_of


def name_anew(dataset: Dataset, listings: Mapping[str, str]) -> None:
    """Put the manifest of 00_raw under the name that follows from the listing's new digest, too."""
    for settings in _settings(dataset):
        for before, now in listings.items():
            done = dataset.latest(Step.RAW, step_key(Step.RAW, [before], settings))
            if done is None:
                continue
            key = step_key(Step.RAW, [now], settings)
            manifest = dataset.manifest_at(done).model_copy(update={"key": key, "generation": 0})
            path = layout.manifest_path(dataset.name, Step.RAW, key, 0)
            dataset.store.create(path, manifest.model_dump_json(by_alias=True, indent=1).encode())


def _settings(dataset: Dataset) -> list[dict[str, object]]:
    """How pictures were ever read."""
    found: dict[str, dict[str, object]] = {}
    for name in dataset.store.children(layout.runs_prefix(dataset.name)):
        try:
            settings = read_settings(config_of(Run(dataset, int(name))))
        except ConfigError:
            # Another version of this software wrote it; its pictures are read again.
            continue
        found[json.dumps(settings, sort_keys=True)] = settings
    return list(found.values())
