"""An export copied to where a trainer reads it: verified, resumable, careful of what is there.

The folder's MANIFEST.json is there first, saying `"complete": false` and which
files are ours; it is made true last. An earlier export of the same dataset is
replaced, what it alone had is removed; nothing else is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pyarrow as pa

from vlmdata.errors import StoreError, UserError
from vlmdata.export.formats import beside
from vlmdata.export.indexes import Index
from vlmdata.export.names import MANIFEST, folder, folder_of_picture, is_ours, is_plot
from vlmdata.store import Store, open_store

_AT_ONCE = 4
"""Files on their way at a time; each may be in memory."""


@dataclass(frozen=True)
class Original:
    """A finished export, as it is to be copied.

    `places` tells where each shard's file lies in the store, by its path in the export;
    `about` is README.md and what else tells of it.
    """

    store: Store
    places: Mapping[str, str]
    manifest: bytes
    about: Mapping[str, bytes]
    indexes: Sequence[Index]

    def files(self, told: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Where each file lies in the store, and its sha256, by its path in the export; a shard's own comes last."""
        found = {}
        for file in told["files"]:
            place = self.places[file["path"]]
            folder = place.removesuffix(f"/{file['path']}")
            for path, digest in beside(self.store, folder, file).items():
                found[path] = f"{folder}/{path}", digest
            found[file["path"]] = place, file["sha256"]
        return found


def copy_export(original: Original, path: str, begins: Callable[[str], None]) -> str:
    """Copy a finished export to a folder or s3:// URL; returns where.

    Files that are there already with the same bytes are left alone: a store
    that keeps digests is asked, from another the file is read.

    Args:
        original: The export.
        path: Where it goes.
        begins: Is told the place before the first byte goes there.

    Raises:
        UserError: the folder holds another dataset's export, or files that are no export's.
        StoreError: the folder cannot be written, or gives back other bytes.
    """
    target = open_store(path, "export.path")
    target.check(create=False)
    final = json.loads(original.manifest)
    files = original.files(final)
    names = {*files, *(one.path for one in original.indexes), *original.about}
    whole = _read(target, MANIFEST) == original.manifest and names <= _there(target, final)
    before = set() if whole else _earlier_names(target, path, final["dataset"], names)
    begins(target.url)
    if whole:
        return target.url
    target.replace(MANIFEST, _unfinished(final, before | names))
    _send(target, original.store, files)
    for one in original.indexes:
        if not _has(target, one.path, one.sha256):
            _put(target, one.path, one.sha256, one.data, "the disk of temporary files")
    for name, data in original.about.items():
        target.replace(name, data)
    for name in sorted(before - names):
        target.delete(name)
    target.replace(MANIFEST, original.manifest)
    return target.url


def _send(target: Store, store: Store, files: Mapping[str, tuple[str, str]]) -> None:
    """Copy what is not there yet, a few at a time; the first that fails ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sent = [pool.submit(_copy, target, name, digest, store, place) for name, (place, digest) in files.items()]
        try:
            for one in sent:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _there(target: Store, manifest: Mapping[str, Any]) -> set[str]:
    folders = {folder(file["format"], file.get("split")) for file in manifest["files"]}
    found = {path for below in folders for path in target.list(below)}
    return found | {name for name in manifest["about"] if target.exists(name)}


def _earlier_names(target: Store, path: str, dataset: str, names: Iterable[str]) -> set[str]:
    """Files of an earlier export of this dataset that the folder holds."""
    found = _read(target, MANIFEST)
    if found is None:
        strange = next((name for name in names if target.exists(name)), None)
        if strange:
            raise UserError(f"export.path = {path!r}: has a {strange} that no export put there; name another folder")
        return set()
    old = _parsed(found)
    if old is None or old.get("dataset") != dataset:
        whose = f"the export of {old.get('dataset')!r}" if old else f"a {MANIFEST} that is no export's"
        raise UserError(f"export.path = {path!r}: holds {whose}, not of {dataset!r}; name another folder")
    about = old.get("about")
    listed = {str(file["path"]) for file in [*old["files"], *old.get("indexes", ())]}
    listed |= set(map(str, about if isinstance(about, list) else ()))
    listed = {name for name in listed if is_ours(name)}
    listed |= {name for name in target.list("plots") if is_plot(name)}
    return listed | _pictures_of(target, listed)


def _pictures_of(target: Store, listed: set[str]) -> set[str]:
    """Pictures that lie in folders of their own, of the shards that are listed."""
    shards = {tuple(name.removesuffix(".json").split("/shards/")) for name in listed if "/shards/" in name}
    found = {path for name, shard in shards for path in target.list(f"{name}/images/{shard}")}
    return {path for path in found if folder_of_picture(path)}


def _parsed(data: bytes) -> dict[str, Any] | None:
    """A manifest as written by us, or None."""
    try:
        manifest = json.loads(data)
    except ValueError:
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        return None
    listed = [*manifest["files"], *manifest.get("indexes", ())]
    sound = all(isinstance(file, dict) and "path" in file for file in listed)
    return manifest if sound and "export" in manifest else None


def _unfinished(final: dict[str, Any], names: set[str]) -> bytes:
    listed = [{"path": name} for name in sorted(names) if not folder_of_picture(name) and not is_plot(name)]
    started = {**final, "complete": False, "files": listed, "indexes": []}
    return (json.dumps(started, indent=1, sort_keys=True) + "\n").encode()


def _copy(target: Store, name: str, digest: str, store: Store, place: str) -> None:
    if not _has(target, name, digest):
        with store.held(place) as data:
            _put(target, name, digest, data, store.locate(place))


def _put(target: Store, name: str, digest: str, data: pa.Buffer, source: str) -> None:
    target.replace(name, data, sha256=digest)
    with target.held(name) as written:
        if sha256(written).hexdigest() != digest:
            raise StoreError(f"{target.locate(name)}: is not what was exported; its disk or {source} is damaged")


def _has(target: Store, name: str, digest: str) -> bool:
    """Whether it holds these bytes already."""
    if not target.exists(name):
        return False
    told = target.digest(name)
    if told:
        return told == digest
    with target.held(name) as data:
        return sha256(data).hexdigest() == digest


def _read(target: Store, name: str) -> bytes | None:
    return target.get(name) if target.exists(name) else None
