"""The end of an export: what tells of it, MANIFEST.json, and a copy where the config asks for one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Manifest, Shard
from vlmdata.config import ExportConfig
from vlmdata.errors import BuildIncomplete, StoreError
from vlmdata.export.about import CROISSANT, about
from vlmdata.export.card import CardFacts
from vlmdata.export.copy import MANIFEST, copy_export
from vlmdata.export.croissant import croissant
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
    put last: an export without one was interrupted. That of an increment names
    the files that it adds, and under `earlier` those of earlier exports that go
    with them; a copy has them all. The card also tells `facts` of the run that
    first finished this export.

    Raises:
        BuildIncomplete: shards of the export are missing.
        StoreError: a file that was written is no longer in the store.
        UserError: `config.path` holds something else than an export of this dataset.
    """
    done = [dataset.manifest(shard, Step.FINAL) for shard in shards]
    by_export = _by_export(done)
    key = next(reversed(by_export), None) or export_key(b"", config)
    prefix = layout.export_prefix(dataset.name, key)
    finished = dataset.store.exists(f"{prefix}/{MANIFEST}")
    if not finished:
        _require_all(by_export.get(key, []))
    _all_there(dataset, by_export)
    whole = _manifest(dataset.name, key, config, done)
    tallies = added_up(dataset.table(one.tables["tallies"]) for one in done)
    said = about(whole, tallies, facts)
    if not finished:
        own = _own_manifest(dataset.name, key, config, by_export)
        # An increment's folder holds its own files alone, and croissant.json is about what lies beside it.
        for name, data in {**said, CROISSANT: croissant(own, tallies)}.items():
            dataset.store.create(f"{prefix}/{name}", data)
        dataset.store.create(f"{prefix}/{MANIFEST}", _json({**own, "about": list(said)}))
    if config.path is None:
        return prefix
    if len(by_export) <= 1:
        said = {name: _stored(dataset.store, f"{prefix}/{name}", data) for name, data in said.items()}
    manifest = _json({**whole, "about": list(said)})
    copied = copy_export(dataset.store, _places(dataset, by_export), manifest, said, config.path)
    return copied.removeprefix(f"{dataset.store.url.rstrip('/')}/")


def _stored(store: Store, path: str, otherwise: bytes) -> bytes:
    """What the run that first finished the export put there; of an export that had no such file, what is made now."""
    return store.get(path) if store.exists(path) else otherwise


def locate_export(store: Store, place: str) -> str:
    """The folder or URL of what `finish_export` returned; a place that is absolute stays what it is."""
    return place if "://" in place or place.startswith("/") else store.locate(place)


ByExport = dict[str, list[Manifest]]
"""Shards by the export that wrote them, oldest first: several, if increments were exported."""


def _by_export(done: Sequence[Manifest]) -> ByExport:
    found: ByExport = {}
    for one in sorted(done, key=lambda one: int(one.facts["increment"])):
        found.setdefault(str(one.facts["export"]), []).append(one)
    return found


def _require_all(done: Sequence[Manifest]) -> None:
    """Raise BuildIncomplete unless these are all shards of their export."""
    if done and len(done) < (expected := done[0].facts["shards"]):
        raise BuildIncomplete(f"export: {len(done)} of {expected} shards are written; run again for the rest")


def _own_manifest(name: str, key: str, config: ExportConfig, by_export: ByExport) -> dict[str, Any]:
    """What the newest export wrote, and which files of earlier ones go with it."""
    own = _manifest(name, key, config, by_export.get(key, []))
    earlier = [{"export": other, **file} for other, done in by_export.items() if other != key for file in _files(done)]
    return {**own, "earlier": sorted(earlier, key=lambda file: str(file["path"]))} if earlier else own


def _manifest(name: str, key: str, config: ExportConfig, done: Sequence[Manifest]) -> dict[str, Any]:
    """No clock, cost or attempt: the same content gives the same bytes."""
    files = _files(done)
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


def _files(done: Sequence[Manifest]) -> list[dict[str, Any]]:
    return sorted((file for one in done for file in one.facts["files"]), key=lambda file: str(file["path"]))


def _places(dataset: Dataset, by_export: ByExport) -> dict[str, str]:
    """Where each file lies in the store, by its path in the set."""
    return {
        str(file["path"]): f"{layout.export_prefix(dataset.name, key)}/{file['path']}"
        for key, done in by_export.items()
        for file in _files(done)
    }


def _json(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _all_there(dataset: Dataset, by_export: ByExport) -> None:
    there = {path for key in by_export for path in dataset.store.list(layout.export_prefix(dataset.name, key))}
    for path in _places(dataset, by_export).values():
        if path not in there:
            where = dataset.store.locate(path)
            raise StoreError(f"{where}: is gone; delete the checkpoints of 04_final and run again")
