"""WebDataset tars: per sample `<id>.jpg|png|webp`, `<id>.json` and `<id>.txt`.

The bytes follow from the rows alone: members in the order of the rows, no
clock, owner or path of this machine (POSIX.1-1988 ustar headers).
https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from vlmdata.export.format import FOUND
from vlmdata.export.pixels import Picture

EXTENSION = "tar"

_TEXT_COLUMNS = ["id", "key", "sha256", "url", "license", "source"]


def write(rows: pa.Table, pictures: Sequence[Picture]) -> bytes:
    """One tar of n samples: `rows` (n rows of `rows.ROWS`) and their pictures."""
    parts: list[bytes] = []
    for row, picture in zip(rows.to_pylist(), pictures, strict=True):
        for suffix, data in _members(row, picture):
            parts += _member(f"{row['id']}.{suffix}", data)
    return b"".join([*parts, b"\0" * (2 * tarfile.BLOCKSIZE)])


def read_back(data: bytes) -> pa.Table:
    """What a tar holds, as `format.FOUND`; the offset is that of the picture's first byte."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            sample, _, suffix = member.name.partition(".")
            body = memoryview(data)[member.offset_data : member.offset_data + member.size]
            row = found.setdefault(sample, {"id": sample, "captions": 0})
            if suffix == "json":
                row["captions"] = len(json.loads(bytes(body))["captions"])
            elif suffix != "txt":
                row.update(sha256=sha256(body).hexdigest(), offset=member.offset_data)
    return pa.Table.from_pylist(list(found.values()), schema=FOUND)


def _members(row: dict[str, Any], picture: Picture) -> Iterator[tuple[str, bytes]]:
    yield picture.extension, picture.data
    yield "json", _provenance(row, picture)
    if row["caption"] is not None:
        yield "txt", row["caption"].encode()


def _provenance(row: dict[str, Any], picture: Picture) -> bytes:
    """`sha256` is that of the source's bytes, `width` and `height` those of the picture beside it."""
    story = {
        **{name: row[name] for name in _TEXT_COLUMNS},
        "extra": None if row["extra"] is None else json.loads(row["extra"]),
        "width": picture.width,
        "height": picture.height,
        "phash": None if row["phash"] is None else f"{row['phash']:016x}",
        "captions": [{**caption, "score": _shortest(caption["score"])} for caption in row["captions"]],
    }
    return json.dumps(story, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _shortest(score: float | None) -> float | None:
    """The number that has the fewest digits of those that are this float32."""
    return None if score is None else float(str(np.float32(score)))


def _member(name: str, data: bytes) -> list[bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(data), 0o644
    padding = -len(data) % tarfile.BLOCKSIZE
    return [header.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * padding]
