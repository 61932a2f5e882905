"""An export copied to where a trainer reads it: verified, resumable, careful of what is there.

The folder's MANIFEST.json is there first, saying `"complete": false` and which
files are ours; it is made true last. An earlier export of the same dataset is
replaced, what it alone had is removed; nothing else is touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from vlmdata.errors import StoreError, UserError
from vlmdata.store import Store, open_store

CARD, MANIFEST = "README.md", "MANIFEST.json"
_OURS = re.compile(r"[a-z]+/[0-9]+\.[a-z]+|README\.md|croissant\.json|plots/[a-z0-9_-]+\.svg")
"""Names that an export's files have; a manifest that names others is not believed."""


def copy_export(store: Store, places: Mapping[str, str], manifest: bytes, about: Mapping[str, bytes], path: str) -> str:
    """Copy a finished export to a folder or s3:// URL; returns where.

    Files that are there already with the same bytes are left alone.

    Args:
        store: Holds it.
        places: Where each file lies in the store, by its path in the export.
        manifest: Its MANIFEST.json.
        about: README.md and what else tells of the export, by path in it.
        path: Where it goes.

    Raises:
        UserError: the folder holds another dataset's export, or files that are no export's.
        StoreError: the folder cannot be written, or gives back other bytes.
    """
    target = open_store(path, "export.path")
    target.check(create=False)
    final = json.loads(manifest)
    digests = {file["path"]: file["sha256"] for file in final["files"]}
    names = {*digests, *about}
    if _read(target, MANIFEST) == manifest and all(target.exists(name) for name in names):
        return target.url
    before = _earlier_names(target, path, final["dataset"], names)
    target.replace(MANIFEST, _unfinished(final, before | names))
    for name, digest in digests.items():
        _copy(store, places[name], target, name, digest)
    for name, data in about.items():
        target.replace(name, data)
    for name in sorted(before - names):
        target.delete(name)
    target.replace(MANIFEST, manifest)
    return target.url


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
    beside = old.get("about")
    listed = {str(file["path"]) for file in old["files"]}.union(map(str, beside if isinstance(beside, list) else ()))
    return {name for name in listed if _OURS.fullmatch(name)}


def _parsed(data: bytes) -> dict[str, Any] | None:
    """A manifest as written by us, or None."""
    try:
        manifest = json.loads(data)
    except ValueError:
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        return None
    sound = all(isinstance(file, dict) and "path" in file for file in manifest["files"])
    return manifest if sound and "export" in manifest else None


def _unfinished(final: dict[str, Any], names: set[str]) -> bytes:
    started = {**final, "complete": False, "files": [{"path": name} for name in sorted(names)]}
    return (json.dumps(started, indent=1, sort_keys=True) + "\n").encode()


def _copy(store: Store, source: str, target: Store, name: str, digest: str) -> None:
    if target.exists(name) and _digest(target.get(name)) == digest:
        return
    target.replace(name, store.get(source))
    if _digest(target.get(name)) != digest:
        raise StoreError(f"{target.locate(name)}: is not what was exported; its disk or {source} is damaged")


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def _read(target: Store, name: str) -> bytes | None:
    return target.get(name) if target.exists(name) else None
