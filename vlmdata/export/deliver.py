"""One shard in one format: its files are written, and read back from the store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.errors import BrokenInvariant, StoreError
from vlmdata.export.format import File, Found
from vlmdata.export.formats import FORMATS
from vlmdata.export.names import folder as folder_of
from vlmdata.export.names import shard_of
from vlmdata.export.pixels import Picture
from vlmdata.schema import filled
from vlmdata.store import Store

PLACES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("file", pa.string(), metadata={"note": "below the export's folder: where the picture lies"}),
        pa.field("offset", pa.int64(), metadata={"note": "where in that file: byte, or row"}),
    ]
)
"""Where each sample lies in each format."""

_WRITERS = 8
"""Small files on their way to the store at a time."""


def deliver(
    store: Store, prefix: str, name: str, shard: str, rows: pa.Table, pictures: Sequence[Picture]
) -> tuple[dict[str, Any], pa.Table]:
    """Write one shard in one format and read it back; the facts of its file, and its rows of `PLACES`.

    Args:
        prefix: The export's, in the store.
        name: The format.
        rows: n rows of `rows.ROWS`.
        pictures: Theirs.

    Raises:
        StoreError: the store does not give back what was written.
        BrokenInvariant: what is read is not what was to be written.
    """
    split, number = shard_of(shard)
    *beside, own = FORMATS[name].write(rows, pictures, number)
    below = folder_of(name, split)
    folder = f"{prefix}/{below}"
    digest = _put(store, folder, beside, own)
    data = store.view(f"{folder}/{own.path}")
    if sha256(data).hexdigest() != digest:
        where = store.locate(f"{folder}/{own.path}")
        raise StoreError(f"{where}: holds other bytes than were written; delete it and run again")
    found = FORMATS[name].read_back(own.path, lambda path: data if path == own.path else store.view(f"{folder}/{path}"))
    _compare(f"{below}/{own.path}", found, rows, pictures)
    facts = {
        "path": f"{below}/{own.path}",
        "format": name,
        "bytes": data.size,
        "sha256": digest,
        "samples": found.rows.num_rows,
        "captions": pc.sum(found.rows["captions"]).as_py(),
    }
    if split:
        facts["split"] = split
    if beside:
        facts["beside"] = {"files": len(beside), "bytes": sum(memoryview(file.data).nbytes for file in beside)}
    where = pc.binary_join_element_wise(pa.scalar(below), found.rows["file"], "/")
    ids, offsets = found.rows["id"], found.rows["offset"]
    return facts, filled(PLACES, found.rows.num_rows, id=ids, format=name, file=where, offset=offsets)


def _put(store: Store, folder: str, beside: Sequence[File], own: File) -> str:
    """Write all files, that which stands for the shard last; returns its sha256."""
    if beside:
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(lambda file: store.put(f"{folder}/{file.path}", file.data), beside))
    store.put(f"{folder}/{own.path}", own.data)
    return sha256(own.data).hexdigest()


def _compare(file: str, found: Found, rows: pa.Table, pictures: Sequence[Picture]) -> None:
    """Raise BrokenInvariant unless every sample was read back as it was written."""
    written = {
        "id": rows["id"].to_pylist(),
        "captions": pc.list_value_length(rows["captions"]).to_pylist(),
    }
    for column, values in written.items():
        if found.rows[column].to_pylist() != values:
            raise BrokenInvariant(f"export {file}: column {column!r} reads back other than it was written")
    for row, (read, picture) in enumerate(zip_longest(found.pictures, pictures)):
        # Bytes against bytes: faster than a digest, and all that one could tell.
        if read is None or picture is None or not read.equals(pa.py_buffer(picture.data)):
            raise BrokenInvariant(f"export {file}: picture {row} reads back other than it was written")
