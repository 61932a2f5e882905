"""Hugging Face parquet: `datasets.load_dataset("parquet", …)` opens it with a real Image feature.

Row groups are small, so that a reader that shuffles or shows a page fetches
little. https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.export.format import FOUND, File, Found, Read
from vlmdata.export.pixels import Picture
from vlmdata.export.rows import CAPTION

_ROW_GROUP = 100
_ROW_GROUP_BYTES = 256 << 20
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_STRING = {"dtype": "string", "_type": "Value"}
_FLOAT = {"dtype": "float32", "_type": "Value"}
_INTEGER = {"dtype": "int32", "_type": "Value"}
_TEXTS = ["id", "key", "sha256", "url", "license", "extra", "source"]
_FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    "caption": _STRING,
    # A list written so, not as {"_type": "List"}, is read by datasets before 4 as well.
    "captions": [
        {
            **dict.fromkeys(["text", "lang", "origin", "model"], _STRING),
            "score": _FLOAT,
            "printed_text": {"dtype": "bool", "_type": "Value"},
        }
    ],
    **dict.fromkeys(_TEXTS, _STRING),
    **dict.fromkeys(["width", "height"], _INTEGER),
    "phash": _STRING,
}
SCHEMA = pa.schema(
    [
        ("image", _IMAGE),
        ("caption", pa.string()),
        ("captions", pa.list_(CAPTION)),
        *[(name, pa.string()) for name in _TEXTS],
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("phash", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
"""Columns of the file; `width` and `height` are the exported picture's, `sha256` is that of the source's bytes."""


def write(rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
    """One parquet file of n samples: `rows` (n rows of `rows.ROWS`) and their pictures."""
    sink = io.BytesIO()
    texts = [name for name in SCHEMA.names if pa.types.is_string(SCHEMA.field(name).type)]
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression={**dict.fromkeys(_leaves(), "ZSTD"), "image.bytes": "NONE"},
        use_dictionary=texts,
        write_statistics=[name for name in _leaves() if not name.startswith("image.")],
    ) as writer:
        for group in groups(rows, pictures):
            writer.write_table(group)
    return [File(f"{shard}.parquet", sink.getbuffer())]


def read_back(path: str, read: Read) -> Found:
    """What a file holds; the offset is the row."""
    file = pq.ParquetFile(pa.BufferReader(read(path)))
    told = file.read(columns=["id", "captions"])
    rows = pa.table(
        [
            told["id"],
            pc.list_value_length(told["captions"]).cast(pa.int32()),
            pa.repeat(pa.scalar(path), told.num_rows),
            pa.array(range(told.num_rows), pa.int64()),
        ],
        schema=FOUND,
    )
    return Found(rows, _pictures(file))


def groups(rows: pa.Table, pictures: Sequence[Picture]) -> Iterator[pa.Table]:
    """Tables of `SCHEMA`, each of few rows, and well under Arrow's 2 GiB a column."""
    for start, stop in _row_groups(pictures):
        # In one chunk: where chunks end shows in the pages, and so in the bytes.
        yield _group(rows.slice(start, stop - start).combine_chunks(), pictures[start:stop])


def _leaves() -> list[str]:
    captions = [f"captions.list.element.{field.name}" for field in CAPTION]
    flat = [name for name in SCHEMA.names if name not in {"image", "captions"}]
    return ["image.bytes", "image.path", *captions, *flat]


def _row_groups(pictures: Sequence[Picture]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of rows."""
    start, size = 0, 0
    for index, picture in enumerate(pictures):
        if index > start and (index - start == _ROW_GROUP or size + len(picture.data) > _ROW_GROUP_BYTES):
            yield start, index
            start, size = index, 0
        size += len(picture.data)
    if len(pictures) > start:
        yield start, len(pictures)


def _group(rows: pa.Table, pictures: Sequence[Picture]) -> pa.Table:
    names = [f"{i}.{p.extension}" for i, p in zip(rows["id"].to_pylist(), pictures, strict=True)]
    columns = {
        **{name: rows[name] for name in ["caption", "captions", *_TEXTS]},
        "image": pa.StructArray.from_arrays(
            [pa.array([p.data for p in pictures], pa.binary()), pa.array(names, pa.string())],
            fields=list(_IMAGE),
        ),
        "width": pa.array([p.width for p in pictures], pa.int32()),
        "height": pa.array([p.height for p in pictures], pa.int32()),
        "phash": pa.array([None if v is None else f"{v:016x}" for v in rows["phash"].to_pylist()], pa.string()),
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _pictures(file: pq.ParquetFile) -> Iterator[pa.Buffer]:
    for index in range(file.num_row_groups):
        group = file.read_row_group(index, columns=["image.bytes"])
        yield from (picture.as_buffer() for picture in pc.struct_field(group["image"], "bytes"))
