"""Hugging Face style parquet: an image column of structs of bytes and path, or of bytes.

Captions are a column of strings, of lists of strings, or of lists of text and
lang. A sample's key is its `key`, `id` or `__key__`, else the image's path, else
`<file>#<row>`. Pictures are read a few at a time, so that a row group of any
size fits.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.config import ParquetSource
from vlmdata.errors import SourceError
from vlmdata.ingest.captions import caption_row
from vlmdata.ingest.files import File, Tree, archive_tree, find_archives, reason
from vlmdata.schema import LISTING

_SUFFIXES = (".parquet",)
_CAPTIONS = ("captions", "caption", "text")
_KEYS = ("key", "id", "__key__")
_SAID = ("lang", "language", "license", "LICENSE", "url", "URL")
_TEXT_ROWS = 4_096
_PICTURE_ROWS = 32
_BUFFER = 4 << 20
_LARGEST = 2**31
"""Bytes of one value, at most: its length is an int32. A stranger's metadata may claim any."""


def fingerprint(source: ParquetSource) -> list[str]:
    """Name, size and time of every file."""
    files = find_archives(source.path, _SUFFIXES)
    return [f"{file.name} {file.version}" for file in files]


def list_rows(source: ParquetSource) -> pa.Table:
    """Every row of every file, sorted by key. A row without bytes is listed as missing.

    Raises:
        SourceError: no file, no row with a picture, a damaged file, or a column that is
            not there or not as expected.
    """
    tree, files = archive_tree(source.path, _SUFFIXES), find_archives(source.path, _SUFFIXES)
    batches = [batch for file in files for batch in _list_file(tree, file, source)]
    listing = pa.Table.from_batches(batches, schema=LISTING)
    if not listing.filter(pc.invert(listing["missing"])).num_rows:
        none = f"none of its {listing.num_rows} rows holds bytes in {source.image_column!r}"
        raise SourceError(f"source.path = {source.path!r}: {none}; expected the pictures themselves, not paths alone")
    return listing.sort_by([("key", "ascending"), ("location", "ascending"), ("offset", "ascending")])


def read_rows(source: ParquetSource, rows: pa.Table) -> tuple[list[bytes | None], list[str | None]]:
    """Bytes of each listed row; None and the reason where a file is gone, changed or cannot be read."""
    tree = archive_tree(source.path, _SUFFIXES)
    found: list[bytes | None] = [None] * rows.num_rows
    reasons: list[str | None] = [None] * rows.num_rows
    members = [int(member) for member in rows["member"].to_pylist()]
    by_file: dict[tuple[str, str], dict[int, int]] = {}
    for at, (name, version) in enumerate(zip(rows["location"].to_pylist(), rows["version"].to_pylist(), strict=True)):
        by_file.setdefault((name, version), {})[members[at]] = at
    for (name, version), wanted in by_file.items():
        try:
            for row, data in _read_file(tree, name, version, source.image_column, sorted(wanted)):
                found[wanted[row]] = data
        except (OSError, pa.ArrowException) as error:
            why = reason(error)
            reasons = [why if at in wanted.values() and found[at] is None else reasons[at] for at in range(len(found))]
    return found, reasons


def places(rows: pa.Table) -> list[str]:
    """`file.parquet#row` of each row, counted from 0."""
    pairs = zip(rows["location"].to_pylist(), rows["member"].to_pylist(), strict=True)
    return [f"{name}#{row}" for name, row in pairs]


@contextmanager
def _opened(tree: Tree, name: str) -> Iterator[pq.ParquetFile]:
    # A buffered, unread-ahead file: else a whole row group's pictures are in memory at once.
    with tree.open(name) as file:
        yield pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


def _list_file(tree: Tree, file: File, source: ParquetSource) -> list[pa.RecordBatch]:
    try:
        with _opened(tree, file.name) as table:
            columns = _columns(table.schema_arrow, file.name, source)
            return list(_batches(table, file, columns))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{file.name}: not a whole parquet file: {reason(error)}; make or download it again"
        ) from error


class _Columns:
    """Which columns of a file mean what; paths are those of parquet leaves."""

    def __init__(self, bytes_: str, path: str | None, caption: str | None, key: str | None, said: list[str]) -> None:
        self.bytes, self.path, self.caption, self.key, self.said = bytes_, path, caption, key, said

    def texts(self) -> list[str]:
        """What is read to list a file: everything but the pictures."""
        return [name for name in (self.path, self.caption, self.key, *self.said) if name]


def _columns(schema: pa.Schema, name: str, source: ParquetSource) -> _Columns:
    image = source.image_column
    _need(image in schema.names, schema, name, f"image_column = {image!r}")
    leaf, path = _image_leaves(schema.field(image), schema, name)
    caption = source.caption_column
    _need(caption is None or caption in schema.names, schema, name, f"caption_column = {caption!r}")
    caption = caption or next((column for column in _CAPTIONS if column in schema.names), None)
    key = next((column for column in _KEYS if column in schema.names), None)
    return _Columns(leaf, path, caption, key, [column for column in _SAID if column in schema.names])


def _need(there: bool, schema: pa.Schema, name: str, setting: str) -> None:
    if not there:
        raise SourceError(f"{name}: source.{setting} is not one of its columns: {', '.join(schema.names)}")


def _image_leaves(field: pa.Field, schema: pa.Schema, name: str) -> tuple[str, str | None]:
    if _is_binary(field.type):
        return field.name, None
    if pa.types.is_struct(field.type):
        parts = {part.name: part.type for part in field.type}
        if "bytes" in parts and _is_binary(parts["bytes"]):
            path = f"{field.name}.path" if "path" in parts and pa.types.is_string(parts["path"]) else None
            return f"{field.name}.bytes", path
    columns = ", ".join(f"{column.name}: {column.type}" for column in schema)
    raise SourceError(f"{name}: column {field.name!r} should be binary or a struct of bytes and path; it has {columns}")


def _is_binary(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _batches(table: pq.ParquetFile, file: File, columns: _Columns) -> Iterator[pa.RecordBatch]:
    first = 0
    for group in range(table.num_row_groups):
        absent = _absent(table, group, columns)
        size = _size(table, group, columns, present=len(absent) - int(absent.sum()))
        start = 0
        for texts in _texts(table, group, columns):
            stop = start + len(texts)
            rows = zip(range(start, stop), texts, absent[start:stop].tolist(), strict=True)
            yield pa.RecordBatch.from_pylist(
                [_row(file, first + at, at, row, columns, None if missing else size) for at, row, missing in rows],
                schema=LISTING,
            )
            start = stop
        first += len(absent)


def _texts(table: pq.ParquetFile, group: int, columns: _Columns) -> Iterator[list[dict[str, Any]]]:
    rows = table.metadata.row_group(group).num_rows
    names = columns.texts()
    if not names:
        yield [{} for _ in range(rows)]
        return
    for batch in table.iter_batches(batch_size=_TEXT_ROWS, row_groups=[group], columns=names):
        yield batch.to_pylist()


def _pictures(table: pq.ParquetFile, group: int, columns: _Columns) -> Any:
    """What the file says of a row group's pictures."""
    meta = table.metadata.row_group(group)
    leaves = (meta.column(index) for index in range(meta.num_columns))
    return next(leaf for leaf in leaves if leaf.path_in_schema == columns.bytes)


def _size(table: pq.ParquetFile, group: int, columns: _Columns, present: int) -> int:
    """Bytes of a picture of a row group, on average: without reading them nothing says more."""
    total = int(_pictures(table, group, columns).total_uncompressed_size)
    return min(max(-(-total // max(present, 1)), 0), _LARGEST)


def _absent(table: pq.ParquetFile, group: int, columns: _Columns) -> np.ndarray[Any, Any]:
    """Which rows of a row group have no bytes: by its statistics if these say none or all, else by a look."""
    meta = table.metadata.row_group(group)
    leaf = _pictures(table, group, columns)
    nulls = leaf.statistics.null_count if leaf.statistics and leaf.statistics.has_null_count else None
    if nulls in (0, meta.num_rows):
        return np.full(meta.num_rows, nulls != 0)
    look = [np.asarray(_leaf(batch).is_null()) for batch in _picture_batches(table, group, columns.bytes)]
    return np.concatenate(look) if look else np.zeros(0, dtype=bool)


def _picture_batches(table: pq.ParquetFile, group: int, leaf: str) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = table.iter_batches(
        batch_size=_PICTURE_ROWS, row_groups=[group], columns=[leaf], use_threads=False
    )
    return batches


def _leaf(batch: pa.RecordBatch) -> pa.Array:
    column = batch.column(0)
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _row(file: File, row: int, at: int, raw: dict[str, Any], columns: _Columns, size: int | None) -> dict[str, Any]:
    """One row of the listing; no size: there is no picture."""
    said = {name: raw.get(name) for name in columns.said}
    captions = raw.get(columns.caption) if columns.caption else None
    try:
        heard = caption_row({**said, "captions": captions})
    except ValueError as error:
        raise SourceError(
            f"{file.name} row {row}: {error}; expected text, a list of texts, or of text and lang"
        ) from None
    place = {"location": file.name, "member": str(row), "offset": at, "version": file.version}
    return {"key": _key(file, row, raw, columns), **place, "size": size, "missing": size is None, **heard}


def _key(file: File, row: int, raw: dict[str, Any], columns: _Columns) -> str:
    own = raw.get(columns.key) if columns.key else None
    if own is not None:
        return str(own)
    path = (raw.get(columns.path.rpartition(".")[0]) or {}).get("path") if columns.path else None
    return str(path) if path else f"{posixpath.splitext(file.name)[0]}#{row}"


def _read_file(
    tree: Tree, name: str, version: str, image: str, wanted: list[int]
) -> Iterator[tuple[int, bytes | None]]:
    now = tree.stat(name)
    if now is None:
        raise FileNotFoundError(0, "the file is gone", name)
    if now.version != version:
        raise OSError(0, "the file has changed since it was listed", name)
    rows = np.asarray(wanted)
    with _opened(tree, name) as table:
        leaf = image if _is_binary(table.schema_arrow.field(image).type) else f"{image}.bytes"
        first = 0
        for group in range(table.num_row_groups):
            end = first + table.metadata.row_group(group).num_rows
            yield from _read_group(table, group, leaf, first, rows[(rows >= first) & (rows < end)])
            first = end


def _read_group(
    table: pq.ParquetFile, group: int, leaf: str, first: int, rows: np.ndarray[Any, Any]
) -> Iterator[tuple[int, bytes | None]]:
    """The wanted rows of one row group, no further than the last of them."""
    if not len(rows):
        return
    for batch in _picture_batches(table, group, leaf):
        end = first + batch.num_rows
        here = rows[(rows >= first) & (rows < end)]
        yield from zip(here.tolist(), _leaf(batch).take(pa.array(here - first)).to_pylist(), strict=True)
        first = end
        if first > rows[-1]:
            return
