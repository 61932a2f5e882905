"""WebDataset tars: per sample `<id>.jpg|png|webp`, `<id>.json` and `<id>.txt`; `sizes.json` counts each tar's samples.

The bytes follow from the rows alone: members in the order of the rows, no
clock, owner or path of this machine (POSIX.1-1988 ustar headers).
https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vlmdata.export.format import FOUND, File, Found, Read
from vlmdata.export.pixels import Picture
from vlmdata.export.story import story

INDEX = "sizes.json"
"""Samples of each tar, by its name: open_clip's training reader takes the size of an epoch from it."""

_BLOCK = tarfile.BLOCKSIZE


def write(rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
    """One tar of n samples: `rows` (n rows of `rows.ROWS`) and their pictures."""
    parts: list[bytes] = []
    for row, picture in zip(rows.to_pylist(), pictures, strict=True):
        for suffix, data in _members(row, picture):
            parts += _member(f"{row['id']}.{suffix}", data)
    return [File(f"{shard}.tar", b"".join([*parts, b"\0" * (2 * _BLOCK)]))]


def read_back(path: str, read: Read) -> Found:
    """What a tar holds; the offset is that of the picture's first byte."""
    data = read(path)
    rows: dict[str, dict[str, Any]] = {}
    pictures = []
    for name, start, size in _listed(memoryview(data)):
        sample, _, suffix = name.partition(".")
        row = rows.setdefault(sample, {"id": sample, "captions": 0, "file": path})
        if suffix == "json":
            row["captions"] = len(json.loads(data[start : start + size].to_pybytes())["captions"])
        elif suffix != "txt":
            row["offset"] = start
            pictures.append(data[start : start + size])
    return Found(pa.Table.from_pylist(list(rows.values()), schema=FOUND), pictures)


def index(files: Sequence[Mapping[str, Any]], read: Read) -> Iterator[bytes]:
    """`sizes.json`."""
    yield json.dumps({file["path"]: file["samples"] for file in files}, indent=1, sort_keys=True).encode() + b"\n"


def _members(row: dict[str, Any], picture: Picture) -> Iterator[tuple[str, bytes]]:
    yield picture.extension, picture.data
    yield "json", story(row, picture)
    if row["caption"] is not None:
        yield "txt", row["caption"].encode()


def _member(name: str, data: bytes) -> list[bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(data), 0o644
    return [header.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * (-len(data) % _BLOCK)]


def _listed(data: memoryview) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each member. Plain files alone are ours; `tarfile` would copy what it looks at."""
    at = 0
    while any(header := bytes(data[at : at + _BLOCK])):
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        start = at + _BLOCK
        if member.type != tarfile.REGTYPE or start + member.size > len(data):
            raise tarfile.ReadError(f"{member.name!r} is no whole file")
        yield member.name, start, member.size
        at = start + member.size + -member.size % _BLOCK
