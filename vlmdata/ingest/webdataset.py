"""WebDataset tars, indexed without unpacking and then read by offset.

A sample is the members of one tar that share a name up to the first dot of its
last part, which is its key. Its picture is the member that ends as a picture
does (`x.jpg` before `x.mask.png`; with two such, each is a sample). Its captions
are those of its `.json` (img2dataset's, or an export of this library), else of
its `.txt`. Names in an archive name samples and are never used as paths.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import WebdatasetSource
from vlmdata.errors import SourceError
from vlmdata.ingest.captions import caption_row, text_captions
from vlmdata.ingest.files import File, Tree, archive_tree, find_archives, is_picture, reason
from vlmdata.schema import LISTING

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SIDECAR_LIMIT = 16 << 20
_CHANGED = "the tar has changed since it was listed"

Row = dict[str, Any]
Group = dict[str, tarfile.TarInfo]


def fingerprint(source: WebdatasetSource) -> list[str]:
    """Name, size and time of every tar."""
    tars = find_archives(source.path, _SUFFIXES)
    return [f"{tar.name} {tar.version}" for tar in tars]


def list_rows(source: WebdatasetSource) -> pa.Table:
    """Every sample of every tar, sorted by key; no picture is read.

    Raises:
        SourceError: no tar, no picture in any, or a tar that is compressed, cut short or damaged.
    """
    tree, tars = archive_tree(source.path, _SUFFIXES), find_archives(source.path, _SUFFIXES)
    batches = [pa.RecordBatch.from_pylist(_index(tree, tar), schema=LISTING) for tar in tars]
    listing = pa.Table.from_batches(batches, schema=LISTING)
    if not listing.filter(pc.invert(listing["missing"])).num_rows:
        none = f"no picture in its {len(tars)} tars"
        raise SourceError(f"source.path = {source.path!r}: {none}; expected members such as .jpg or .png")
    return listing.sort_by([("key", "ascending"), ("location", "ascending"), ("offset", "ascending")])


def read_rows(source: WebdatasetSource, rows: pa.Table) -> tuple[list[bytes | None], list[str | None]]:
    """Bytes of each listed picture; None and the reason where a tar is gone, changed or cannot be read."""
    tree = archive_tree(source.path, _SUFFIXES)
    found: list[bytes | None] = [None] * rows.num_rows
    reasons: list[str | None] = [None] * rows.num_rows
    spans = list(zip(*(rows[name].to_pylist() for name in ("location", "version", "offset", "size")), strict=True))
    by_tar: dict[tuple[str, str], list[int]] = {}
    for at, (location, version, _offset, _size) in enumerate(spans):
        by_tar.setdefault((location, version), []).append(at)
    for (location, version), positions in by_tar.items():
        try:
            parts = _parts(tree, location, version, [spans[at][2:] for at in positions])
        except OSError as error:
            for at in positions:
                reasons[at] = reason(error)
            continue
        for at, part in zip(positions, parts, strict=True):
            found[at] = part
    return found, reasons


def places(rows: pa.Table) -> list[str]:
    """`file.tar!member` of each row."""
    pairs = zip(rows["location"].to_pylist(), rows["member"].to_pylist(), strict=True)
    return [f"{tar}!{member}" for tar, member in pairs]


def _parts(tree: Tree, name: str, version: str, spans: list[tuple[int, int]]) -> list[bytes]:
    now = tree.stat(name)
    if now is None:
        raise FileNotFoundError(0, "the tar is gone", name)
    if now.version != version:
        raise OSError(0, _CHANGED, name)
    return tree.ranges(name, spans)


def _index(tree: Tree, tar: File) -> list[Row]:
    try:
        with tree.open(tar.name) as file:
            _refuse_compressed(file, tar.name)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                rows = [row for key, group in _groups(archive) for row in _sample(archive, tar, key, group)]
                _refuse_cut(file, archive.offset, tar)
    except (tarfile.TarError, ValueError, OSError, EOFError) as error:
        raise SourceError(f"{tar.name}: not a whole tar: {reason(error)}; make or download it again") from error
    return rows


def _refuse_compressed(file: IO[bytes], name: str) -> None:
    head = file.read(6)
    file.seek(0)
    for mark, compression in _COMPRESSED.items():
        if head.startswith(mark):
            raise SourceError(f"{name}: compressed with {compression}; decompress it, for samples are read by offset")


def _refuse_cut(file: IO[bytes], end: int, tar: File) -> None:
    """`tarfile` takes a damaged or missing header for the end; a whole tar ends in zeros (POSIX)."""
    file.seek(end)
    if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {tar.size} without an end mark")
    file.seek(end)
    at = end
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"unreadable after byte {at + len(block) - len(block.lstrip(bytes(1)))}")
        at += len(block)


def _groups(archive: tarfile.TarFile) -> Iterator[tuple[str, Group]]:
    """Members by key, in any order; a name that occurs again starts another sample."""
    groups: dict[str, list[Group]] = {}
    for member in archive:
        folder, slash, base = member.name.rpartition("/")
        key, dot, extension = base.partition(".")
        if not key or not dot or not _wanted(member, extension):
            continue
        same = groups.setdefault(f"{folder}{slash}{key}", [{}])
        if extension in same[-1]:
            same.append({})
        same[-1][extension] = member
    return ((key, group) for key, same in groups.items() for group in same)


def _wanted(member: tarfile.TarInfo, extension: str) -> bool:
    picture = is_picture(f"x.{extension}")
    if member.issparse() and picture:
        raise tarfile.ReadError(f"{member.name!r} is stored sparsely, which is not supported")
    return (picture and not member.isdir()) or (member.isreg() and extension.lower() in {"json", "txt"})


def _sample(archive: tarfile.TarFile, tar: File, key: str, group: Group) -> list[Row]:
    """The rows of one sample: its pictures, or its captions without any."""
    said = _sidecars(archive, tar, group)
    pictures = [ext for ext in group if ext.lower() not in {"json", "txt"}]
    plain = [ext for ext in pictures if "." not in ext] or pictures
    rows = [_row(tar, key, group[ext], said) for ext in plain]
    if rows or not said["captions"]:
        return rows
    return [{**_row(tar, key, next(iter(group.values())), said), "size": None, "offset": None, "missing": True}]


def _row(tar: File, key: str, member: tarfile.TarInfo, said: Row) -> Row:
    """A link is no picture: nothing in an archive is followed."""
    place = {"location": tar.name, "member": _text(member.name), "version": tar.version}
    span = {"offset": member.offset_data, "size": member.size}
    return {"key": _text(key), **place, **span, "missing": not member.isreg(), **said}


def _text(name: str) -> str:
    """Names that are not UTF-8 keep their bytes in sight; they are never looked up again."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sidecars(archive: tarfile.TarFile, tar: File, group: Group) -> Row:
    said: Row = {"captions": [], "license": None, "url": None}
    for extension, member in sorted(group.items()):
        if extension.lower() not in {"json", "txt"} or (extension.lower() == "txt" and said["captions"]):
            continue
        try:
            said.update(_sidecar(extension.lower(), _content(archive, member)))
        except ValueError as error:
            raise SourceError(f"{tar.name}!{_text(member.name)}: {_why(error)}") from None
    return said


def _sidecar(extension: str, data: bytes) -> Row:
    if extension == "txt":
        return {"captions": text_captions(data)}
    try:
        raw = json.loads(data)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    return caption_row(raw) if isinstance(raw, dict) else {}


def _why(error: ValueError) -> str:
    return f"not UTF-8 near byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _SIDECAR_LIMIT:
        raise ValueError(f"{member.size} bytes of captions for one picture; at most {_SIDECAR_LIMIT} are read")
    file = archive.extractfile(member)
    return file.read() if file else b""
