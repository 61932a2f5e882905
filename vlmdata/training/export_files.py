"""An export's tars, each as its MANIFEST says it is; or any folder or prefix of tars."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NoReturn

from vlmdata.errors import SourceError
from vlmdata.export.names import MANIFEST, is_export, is_ours
from vlmdata.ingest.files import archive_tree, find_archives
from vlmdata.store import LocalStore, Store, open_store
from vlmdata.training.tars import Tars


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
    """The tars of a set.

    Attributes:
        tars: in the order of the manifest.
        manifest: MANIFEST.json; None: this is no export of ours.
        digest: short sha256 of the manifest, or of names and sizes where there is none.
        bytes: what is in them, by their numbers in `tars`.
    """

    tars: list[Tar]
    manifest: dict[str, Any] | None
    digest: str
    bytes: Tars


def export_files(data: str) -> ExportFiles:
    """The tars at a folder, s3:// URL or glob; all are there, and as large as they should be.

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
    return ExportFiles(tars, manifest, sha256(raw).hexdigest()[:16], _there(tars, _places(store, tars)))


def verify(tar: Tar, path: Path, where: str) -> None:
    """Compare a file, which lies at `where`, with what its manifest says.

    Raises:
        SourceError: it is another one, or damaged.
    """
    if tar.sha256 is not None:
        with path.open("rb") as file:
            if file_digest(file, "sha256").hexdigest() != tar.sha256:
                _refuse(where, f"is not the file that {MANIFEST} names (sha256)")


def refuse_count(tar: Tar, where: str, found: int) -> None:
    """Raise SourceError unless a tar holds as many samples as its manifest says."""
    if tar.samples is not None and found != tar.samples:
        _refuse(where, f"holds {found:,} samples, {MANIFEST} says {tar.samples:,}")


def _refuse(where: str, why: str) -> NoReturn:
    raise SourceError(f"data: {where} {why}; export or copy the set again")


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


def _places(store: Store, tars: list[Tar]) -> Tars:
    if isinstance(store, LocalStore):
        # From the root on, for what an increment names beside it is not below its folder.
        return Tars("/", [str(store.root / tar.name).lstrip("/") for tar in tars])
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    names = [posixpath.normpath(posixpath.join(prefix, tar.name)) for tar in tars]
    for tar, name in zip(tars, names, strict=True):
        if name.startswith(".."):
            _refuse(store.locate(tar.name), f"is named by {MANIFEST} and not there")
    return Tars(f"s3://{bucket}", names)


def _there(tars: list[Tar], places: Tars) -> Tars:
    found = places.sizes_and_versions()
    versions = []
    for number, (tar, now) in enumerate(zip(tars, found, strict=True)):
        if now is None:
            _refuse(places.where(number), f"is named by {MANIFEST} and not there")
        size, version = now
        if tar.size is not None and size != tar.size:
            _refuse(places.where(number), f"has {size:,} bytes, {MANIFEST} says {tar.size:,}")
        versions.append(version)
    return replace(places, versions=versions)


def _without_manifest(data: str) -> ExportFiles:
    try:
        found = find_archives(data, (".tar",))
    except SourceError as error:
        raise SourceError(str(error).replace("source.path", "data", 1)) from error
    root = archive_tree(data, (".tar",)).root
    digest = sha256("".join(f"{tar.name} {tar.size}\n" for tar in found).encode()).hexdigest()[:16]
    tars = Tars(root, [tar.name for tar in found], [tar.version for tar in found])
    return ExportFiles([Tar(name) for name in tars.names], None, digest, tars)
