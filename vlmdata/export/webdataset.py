"""WebDataset tars: per sample `<id>.jpg|png|webp`, `<id>.json` and `<id>.txt`; `sizes.json` counts each tar's samples.

The bytes follow from the rows alone: members in the order of the rows, no
clock, owner or path of this machine (POSIX.1-1988 ustar headers).
https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vlmdata.errors import BrokenInvariant
from vlmdata.export.format import FOUND, File, Found, Read
from vlmdata.export.pixels import Picture
from vlmdata.export.story import story

INDEX = "sizes.json"
"""Samples of each tar, by its name: open_clip's training reader takes the size of an epoch from it."""

_BLOCK = 512
_NAME, _SIZE, _CHECKSUM, _KIND = slice(0, 100), slice(124, 136), slice(148, 156), slice(156, 157)
"""Where a header has them; around them stand mode, owners and time, then owners' names and the like."""
_MODES, _TIME = b"0000644\0" + b"0000000\0" * 2, b"00000000000\0"
_REST = b"0".ljust(101, b"\0") + b"ustar\00000" + b"\0" * 247
_SUM_OF_REST = sum(_MODES + _TIME + _REST) + 8 * ord(" ")


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
    return [_header(name, len(data)), data, b"\0" * (-len(data) % _BLOCK)]


def _header(name: str, size: int) -> bytes:
    """What `tarfile.TarInfo.tobuf` makes of a plain file of mode 644; that takes a third of the export's time."""
    told = name.encode("ascii")
    digits = b"%011o\0" % size
    if len(told) > _NAME.stop or len(digits) > _SIZE.stop - _SIZE.start:
        raise BrokenInvariant(f"export: a tar cannot hold {size:,} bytes under the name {name!r}")
    checksum = _SUM_OF_REST + sum(told) + sum(digits)
    return told.ljust(_NAME.stop, b"\0") + _MODES + digits + _TIME + b"%06o\0 " % checksum + _REST


def _listed(data: memoryview) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each member. Plain files alone are ours; `tarfile` would copy what it looks at."""
    at = 0
    while any(header := bytes(data[at : at + _BLOCK])):
        name = header[_NAME].rstrip(b"\0").decode("ascii")
        size, start = int(header[_SIZE].rstrip(b"\0"), 8), at + _BLOCK
        if header[_KIND] != b"0" or start + size > len(data):
            raise ValueError(f"{name!r} is no whole file")
        if int(header[_CHECKSUM].rstrip(b"\0 "), 8) != sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" "):
            raise ValueError(f"the header of {name!r} is damaged")
        yield name, start, size
        at = start + size + -size % _BLOCK
