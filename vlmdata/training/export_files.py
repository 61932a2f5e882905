"""An export's tars as files of this machine, each as its MANIFEST says it is; or any folder of tars."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from vlmdata.errors import SourceError
from vlmdata.export.names import MANIFEST, is_export, is_ours
from vlmdata.ingest.files import archive_tree, find_archives
from vlmdata.store import LocalStore, Store, open_store


@dataclass(frozen=True)
class Tar:
    """One tar.

    Attributes:
        name: as the manifest has it, or the file's.
        split: of an export with splits, else None.
        sha256: hex digest that its bytes must have; None: nobody says.
        size: bytes it must have, likewise.
        samples: samples it must hold, likewise.
    """

    name: str
    split: str | None = None
    sha256: str | None = None
    size: int | None = None
    samples: int | None = None


@dataclass(frozen=True)
class ExportFiles:
    """The tars of a set, and how to have one here.

    Attributes:
        tars: in the order of the manifest.
        manifest: MANIFEST.json; None: this is no export of ours.
        digest: short sha256 of the manifest, or of names and sizes where there is none.
    """

    tars: list[Tar]
    manifest: dict[str, Any] | None
    digest: str
    here: Callable[[Tar], Path]


def export_files(data: str, cache: Path) -> ExportFiles:
    """The tars at a folder, s3:// URL or glob; those of a remote store are fetched into `cache`, once.

    Raises:
        SourceError: there are none, the export is not complete, or its manifest is no manifest.
    """
    store = open_store(data, "data")
    try:
        raw = store.get(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return _without_manifest(data)
    manifest = _parsed(raw, store)
    tars = list(_tars(manifest, store))
    if not tars:
        raise SourceError(f"data: {store.url} has no webdataset tars; export it with formats: [webdataset]")
    return ExportFiles(tars, manifest, sha256(raw).hexdigest()[:16], lambda tar: _here(store, tar, cache))


def verify(tar: Tar, path: Path) -> None:
    """Compare a file with what its manifest says.

    Raises:
        SourceError: it is another one, or damaged.
    """
    if tar.size is not None and path.stat().st_size != tar.size:
        _refuse(path, f"has {path.stat().st_size:,} bytes, {MANIFEST} says {tar.size:,}")
    if tar.sha256 is not None:
        with path.open("rb") as file:
            if file_digest(file, "sha256").hexdigest() != tar.sha256:
                _refuse(path, f"is not the file that {MANIFEST} names (sha256)")


def refuse_count(tar: Tar, path: Path, found: int) -> None:
    """Raise SourceError unless a tar holds as many samples as its manifest says."""
    if tar.samples is not None and found != tar.samples:
        _refuse(path, f"holds {found:,} samples, {MANIFEST} says {tar.samples:,}")


def _refuse(path: Path, why: str) -> None:
    raise SourceError(f"data: {path} {why}; export or copy the set again")


def _parsed(raw: bytes, store: Store) -> dict[str, Any]:
    where = store.locate(MANIFEST)
    try:
        manifest = json.loads(raw)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        raise SourceError(f"data: {where} is no export's manifest; give the folder of an export, or of tars alone")
    if manifest.get("complete") is not True:
        raise SourceError(f"data: {where} says that the export is not complete; run the build or export again")
    return manifest


def _tars(manifest: dict[str, Any], store: Store) -> Iterator[Tar]:
    for file in [*manifest.get("earlier", []), *manifest["files"]]:
        if not isinstance(file, dict) or file.get("format") != "webdataset":
            continue
        name, other = str(file.get("path")), file.get("export")
        # Names from a manifest go into paths: those of an export, and no others.
        if not is_ours(name) or not (other is None or is_export(str(other))):
            raise SourceError(f"data: {store.locate(MANIFEST)} names {name!r}, which is no file of an export")
        # An increment leaves the files of earlier exports where they are: beside its own folder.
        place = name if other is None or store.exists(name) else f"../{other}/{name}"
        yield Tar(place, file.get("split"), str(file["sha256"]), int(file["bytes"]), int(file["samples"]))


def _here(store: Store, tar: Tar, cache: Path) -> Path:
    if isinstance(store, LocalStore):
        path = store.root / tar.name
        if not path.is_file():
            _refuse(path, f"is named by {MANIFEST} and not there")
        return path
    path = cache / f"{tar.sha256}.tar"
    if not path.is_file():
        try:
            data = store.get(os.path.normpath(tar.name)) if ".." not in tar.name else _beside(store, tar)
        except FileNotFoundError:
            raise SourceError(f"data: {store.locate(tar.name)} is gone; export or copy the set again") from None
        LocalStore(str(cache), "out").replace(path.name, data)
    return path


def _beside(store: Store, tar: Tar) -> bytes:
    parent = open_store(store.url.rstrip("/").rpartition("/")[0], "data")
    return parent.get(tar.name.removeprefix("../"))


def _without_manifest(data: str) -> ExportFiles:
    if data.startswith("s3://"):
        raise SourceError(
            f"data = {data!r}: no {MANIFEST} there; tars that are no export of ours are read from a folder"
        )
    try:
        found = find_archives(data, (".tar",))
    except SourceError as error:
        raise SourceError(str(error).replace("source.path", "data", 1)) from error
    root = Path(archive_tree(data, (".tar",)).root)
    digest = sha256("".join(f"{tar.name} {tar.size}\n" for tar in found).encode()).hexdigest()[:16]
    places = {tar.name: root / tar.name for tar in found}
    return ExportFiles([Tar(name) for name in places], None, digest, lambda tar: places[tar.name])
