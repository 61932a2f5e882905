"""Lance: one dataset, a fragment a shard, with parquet's columns; `image` is the picture's bytes.

A shard's file lies under a name of ours, not a random one. The index is the
manifest that commits all of them as version 1. Lance writes a clock and a
random name into that; these fields are left out, which its readers allow, so
the same content gives the same bytes. https://lance.org/format/table
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.export import parquet
from vlmdata.export.format import FOUND, File, Found, Read
from vlmdata.export.pixels import Picture
from vlmdata.scratch import scratch

PACKAGE, MODULE = "pylance", "lance"

INDEX = "_versions/18446744073709551614.manifest"
"""Version 1: names count down from 2^64 - 1, so that the newest comes first."""

_FILE_VERSION = (2, 1)
_SCHEMA = pa.schema(
    [pa.field("image", pa.large_binary()), *[field for field in parquet.SCHEMA if field.name != "image"]]
)
_CHANGING = {7, 12, 21, 23}
"""Fields of `lance.table.Manifest`: timestamp, transaction_file, and two that say where transactions are inlined."""
_FOOTER = struct.Struct("<QHH4s")
_LENGTH = struct.Struct("<I")
_BATCH = 256


def write(rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
    """One fragment's file of n samples: `rows` (n rows of `rows.ROWS`) and their pictures."""
    from lance.file import LanceFileWriter

    with scratch() as folder:
        file = folder / "file.lance"
        with LanceFileWriter(str(file), _SCHEMA, version=".".join(map(str, _FILE_VERSION))) as writer:
            for group in parquet.groups(rows, pictures):
                writer.write_batch(_as_lance(group))
        return [File(f"data/{shard}.lance", file.read_bytes())]


def read_back(path: str, read: Read) -> Found:
    """What a file holds; the offset is the row."""
    from lance.file import LanceFileReader

    with scratch() as folder:
        (folder / "file.lance").write_bytes(read(path))
        told = LanceFileReader(str(folder / "file.lance"), columns=["id", "captions"]).read_all().to_table()
    rows = pa.table(
        [
            told["id"],
            pc.list_value_length(told["captions"]).cast(pa.int32()),
            pa.repeat(pa.scalar(path), told.num_rows),
            pa.array(range(told.num_rows), pa.int64()),
        ],
        schema=FOUND,
    )
    return Found(rows, _pictures(path, read))


def index(files: Sequence[Mapping[str, Any]], read: Read) -> Iterator[bytes]:
    """The manifest of version 1."""
    import lance

    with scratch() as folder:
        made = lance.LanceOperation.Overwrite(_SCHEMA, [_fragment(number, file) for number, file in enumerate(files)])
        lance.LanceDataset.commit(str(folder / "set"), made, enable_v2_manifest_paths=True)
        yield _without_what_changes((folder / "set" / INDEX).read_bytes())


def _as_lance(group: pa.Table) -> pa.RecordBatch:
    columns = [
        pc.struct_field(group["image"], "bytes").cast(pa.large_binary()) if name == "image" else group[name]
        for name in _SCHEMA.names
    ]
    [batch] = pa.table(columns, schema=_SCHEMA).combine_chunks().to_batches()
    return batch


def _pictures(path: str, read: Read) -> Iterator[pa.Buffer]:
    from lance.file import LanceFileReader

    with scratch() as folder:
        (folder / "file.lance").write_bytes(read(path))
        reader = LanceFileReader(str(folder / "file.lance"), columns=["image"])
        for batch in reader.read_all(batch_size=_BATCH).to_batches():
            yield from (picture.as_buffer() for picture in batch["image"])


def _fragment(number: int, file: Mapping[str, Any]) -> Any:
    from lance.fragment import DataFile, FragmentMetadata

    leaves = [place for place, is_leaf in enumerate(_fields(_SCHEMA)) if is_leaf]
    name, columns = PurePosixPath(file["path"]).name, list(range(len(leaves)))
    data = DataFile(name, leaves, columns, *_FILE_VERSION, file["bytes"])
    return FragmentMetadata(id=number, files=[data], physical_rows=file["samples"])


def _fields(fields: Any) -> Iterator[bool]:
    """Of each field, in the order in which Lance numbers them, whether it has a column of its own."""
    for field in fields:
        inner = [field.type.value_field] if pa.types.is_list(field.type) else []
        inner = list(field.type) if pa.types.is_struct(field.type) else inner
        yield not inner
        yield from _fields(inner)


def _without_what_changes(manifest: bytes) -> bytes:
    """A file of a manifest: perhaps a transaction, the manifest's length, itself as protobuf, and a footer."""
    at, major, minor, magic = _FOOTER.unpack(manifest[-_FOOTER.size :])
    [length] = _LENGTH.unpack_from(manifest, at)
    body = manifest[at + _LENGTH.size : at + _LENGTH.size + length]
    kept = b"".join(field for number, field in _protobuf(body) if number not in _CHANGING)
    return _LENGTH.pack(len(kept)) + kept + _FOOTER.pack(0, major, minor, magic)


def _protobuf(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each field. https://protobuf.dev/programming-guides/encoding"""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(message, at)
            at += size
        else:
            at = _varint(message, at)[1] if kind == 0 else at + {1: 8, 5: 4}[kind]
        yield tag >> 3, message[start:at]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if message[at - 1] < 128:
            return value, at
