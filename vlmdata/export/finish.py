"""The end of an export: its indexes, what tells of it, MANIFEST.json, and a copy where the config asks for one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Manifest, Shard
from vlmdata.config import ExportConfig
from vlmdata.errors import BuildIncomplete, StoreError
from vlmdata.export.about import about
from vlmdata.export.card import CardFacts
from vlmdata.export.copy import Original, copy_export
from vlmdata.export.croissant import croissant
from vlmdata.export.indexes import Index, indexes
from vlmdata.export.left_out import without_left_out
from vlmdata.export.names import CROISSANT, MANIFEST, is_plot, missing
from vlmdata.export.plan import export_key, export_settings
from vlmdata.export.tallies import Tallies, added_up
from vlmdata.forgetting.outside import remember
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
    every = [dataset.manifest(shard, Step.FINAL) for shard in shards]
    done = without_left_out(every)
    by_export = _by_export(done)
    key = next(reversed(by_export), None) or export_key(b"", config)
    prefix = layout.export_prefix(dataset.name, key)
    finished = dataset.store.exists(f"{prefix}/{MANIFEST}")
    if not finished:
        _require_all(by_export.get(key, []))
    _all_there(dataset, by_export)
    tallies = added_up(dataset.table(one.tables["tallies"]) for one in every)
    if not finished:
        _describe(dataset, key, config, by_export, tallies, facts)
    if config.path is None:
        return prefix
    places = _places(dataset, by_export)
    with indexes(_formats(config), _files(done), lambda path: dataset.store.view(places[path])) as made:
        whole = _manifest(dataset.name, key, config, done, made)
        said = about(whole, tallies, facts)
        if len(by_export) <= 1:
            said = {name: _stored(dataset.store, f"{prefix}/{name}", data) for name, data in said.items()}
        original = Original(dataset.store, places, as_json({**whole, "about": lasting(said)}), said, made)
        copied = copy_export(original, config.path, lambda place: remember(dataset, place))
    return copied.removeprefix(f"{dataset.store.url.rstrip('/')}/")


def _describe(
    dataset: Dataset, key: str, config: ExportConfig, by_export: ByExport, tallies: Tallies, facts: CardFacts
) -> None:
    """Indexes, what tells of one export, and MANIFEST.json of what it wrote, the last of them last."""
    own, prefix = by_export.get(key, []), layout.export_prefix(dataset.name, key)
    everything = _manifest(dataset.name, key, config, [one for done in by_export.values() for one in done], [])
    with indexes(_formats(config), _files(own), lambda path: dataset.store.view(f"{prefix}/{path}")) as made:
        for one in made:
            dataset.store.replace(f"{prefix}/{one.path}", one.data)
        manifest = _manifest(dataset.name, key, config, own, made)
    # An increment's folder holds its own files alone, and croissant.json is about what lies beside it.
    said = {**about(everything, tallies, facts), CROISSANT: croissant(manifest, tallies)}
    for name, data in said.items():
        dataset.store.create(f"{prefix}/{name}", data)
    earlier = [{"export": other, **file} for other, done in by_export.items() if other != key for file in _files(done)]
    if earlier:
        manifest["earlier"] = sorted(earlier, key=lambda file: str(file["path"]))
    dataset.store.create(f"{prefix}/{MANIFEST}", as_json({**manifest, "about": lasting(said)}))


def lasting(said: Iterable[str]) -> list[str]:
    """What MANIFEST.json names: the same wherever it is written, so no plots."""
    return [name for name in said if not is_plot(name)]


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


def _manifest(
    name: str, key: str, config: ExportConfig, done: Sequence[Manifest], made: Sequence[Index]
) -> dict[str, Any]:
    """No clock, cost or attempt: the same content gives the same bytes."""
    return {
        "dataset": name,
        "export": key,
        "complete": True,
        "settings": export_settings(config),
        **contents(done, made),
    }


def contents(done: Sequence[Manifest], made: Sequence[Index]) -> dict[str, Any]:
    """What MANIFEST.json says that an export holds: its shards, the indexes over them, and what they add up to."""
    files, over_all = _files(done), [one.facts for one in made]
    sizes = [file["bytes"] + file.get("beside", {}).get("bytes", 0) for file in [*files, *over_all]]
    return {
        "samples": sum(one.samples.kept for one in done),
        "captions": sum(one.captions.kept for one in done),
        "bytes": sum(sizes),
        "files": files,
        "indexes": over_all,
    }


def _formats(config: ExportConfig) -> list[str]:
    return sorted(set(config.formats))


def _files(done: Sequence[Manifest]) -> list[dict[str, Any]]:
    return sorted((file for one in done for file in one.facts["files"]), key=lambda file: str(file["path"]))


def _places(dataset: Dataset, by_export: ByExport) -> dict[str, str]:
    """Where each file lies in the store, by its path in the set."""
    return {
        str(file["path"]): f"{layout.export_prefix(dataset.name, key)}/{file['path']}"
        for key, done in by_export.items()
        for file in _files(done)
    }


def as_json(manifest: dict[str, Any]) -> bytes:
    """The bytes of a MANIFEST.json."""
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _all_there(dataset: Dataset, by_export: ByExport) -> None:
    for key, done in by_export.items():
        prefix = layout.export_prefix(dataset.name, key)
        there = {path.removeprefix(f"{prefix}/") for path in dataset.store.list(prefix)}
        if lost := missing(_files(done), there):
            where = dataset.store.locate(f"{prefix}/{lost}")
            raise StoreError(f"{where}: is gone; delete the checkpoints of 04_final and run again")
