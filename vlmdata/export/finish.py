"""The end of an export: MANIFEST.json, README.md, and a copy where the config asks for one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Manifest, Shard
from vlmdata.config import ExportConfig
from vlmdata.errors import BuildIncomplete, StoreError
from vlmdata.export.card import CardFacts, card
from vlmdata.export.copy import CARD, MANIFEST, copy_export
from vlmdata.export.plan import export_key, export_settings
from vlmdata.export.tallies import added_up
from vlmdata.layout import Step
from vlmdata.store import Store


def finish_export(dataset: Dataset, shards: Sequence[Shard], config: ExportConfig, facts: CardFacts) -> str:
    """Describe an export whose shards are all written; returns its place.

    The place is a path relative to the dataset's store if the export lies in
    it, so that it holds wherever the store is moved or copied; `locate_export`
    finds it. Else it is a folder's absolute path, or a URL.

    MANIFEST.json follows from the exported content and settings alone, and is
    put last: an export without one was interrupted. The card also tells `facts`
    of the run that first finished this export.

    Raises:
        BuildIncomplete: shards of the export are missing.
        StoreError: a file that was written is no longer in the store.
        UserError: `config.path` holds something else than an export of this dataset.
    """
    done = [dataset.manifest(shard, Step.FINAL) for shard in shards]
    key = _key(done, config)
    prefix = layout.export_prefix(dataset.name, key)
    manifest = _manifest(dataset.name, key, config, done)
    _all_there(dataset, prefix, manifest)
    tallies = added_up(dataset.table(one.tables["tallies"]) for one in done)
    dataset.store.create(f"{prefix}/{CARD}", card(manifest, tallies, facts).encode())
    dataset.store.create(f"{prefix}/{MANIFEST}", _json(manifest))
    if config.path is None:
        return prefix
    copied, store = copy_export(dataset.store, prefix, config.path), f"{dataset.store.url.rstrip('/')}/"
    return copied.removeprefix(store)


def locate_export(store: Store, place: str) -> str:
    """The folder or URL of what `finish_export` returned; a place that is absolute stays what it is."""
    return place if "://" in place or place.startswith("/") else store.locate(place)


def _key(done: Sequence[Manifest], config: ExportConfig) -> str:
    """The export's name; raises BuildIncomplete unless all of its shards are done."""
    if not done:
        return export_key(b"", config)
    expected = done[0].facts["shards"]
    if len(done) != expected:
        raise BuildIncomplete(f"export: {len(done)} of {expected} shards are written; run again for the rest")
    return str(done[0].facts["export"])


def _manifest(name: str, key: str, config: ExportConfig, done: Sequence[Manifest]) -> dict[str, Any]:
    """No clock, cost or attempt: the same content gives the same bytes."""
    files = sorted((file for one in done for file in one.facts["files"]), key=lambda file: str(file["path"]))
    return {
        "dataset": name,
        "export": key,
        "complete": True,
        "settings": export_settings(config),
        "samples": sum(one.samples.kept for one in done),
        "captions": sum(one.captions.kept for one in done),
        "bytes": sum(file["bytes"] for file in files),
        "files": files,
    }


def _json(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _all_there(dataset: Dataset, prefix: str, manifest: dict[str, Any]) -> None:
    there = set(dataset.store.list(prefix))
    for file in manifest["files"]:
        if f"{prefix}/{file['path']}" not in there:
            where = dataset.store.locate(f"{prefix}/{file['path']}")
            raise StoreError(f"{where}: is gone; delete the checkpoints of 04_final and run again")
