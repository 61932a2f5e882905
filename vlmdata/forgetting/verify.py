"""The proof: every object of the dataset is opened, and none holds what was forgotten.

Pictures are hashed, wherever they lie: in tables, in exported files, in what
was sent to a captioner. Rows are looked up by id. What is text is searched.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import StoreError
from vlmdata.export.formats import FORMATS
from vlmdata.forgetting.tombstones import FORGOTTEN, Tombstones, row_hashes
from vlmdata.forgetting.who import each
from vlmdata.schema import LISTING

_PICTURES = 256
"""Rows of pictures in memory at a time."""


@dataclass(frozen=True)
class Verified:
    """What was looked at: objects, their bytes, pictures that were hashed; and what was found all the same."""

    objects: int
    bytes: int
    pictures: int
    found: tuple[tuple[str, str], ...]
    """Path, and what is wrong with it."""


def verify(dataset: Dataset, tombstones: Tombstones) -> Verified:
    """Look for everything that was ever forgotten in every object of the dataset."""
    search = _Search(dataset, tombstones)
    kept_apart = f"{layout.forgotten_prefix(dataset.name)}/"
    paths = [path for path in dataset.store.list(f"{dataset.name}/") if not path.startswith(kept_apart)]
    seen = each(search.object, paths)
    return Verified(
        objects=len(paths),
        bytes=sum(size for size, _, _ in seen),
        pictures=sum(pictures for _, pictures, _ in seen),
        found=tuple((path, what) for path, (_, _, what) in zip(paths, seen, strict=True) if what),
    )


class _Search:
    def __init__(self, dataset: Dataset, tombstones: Tombstones) -> None:
        self._dataset, self._tombstones = dataset, tombstones
        self._ids = frozenset[str]().union(*(one.ids for one in tombstones.each))
        self._captions = frozenset[str]().union(*(one.captions for one in tombstones.each))
        self._rows = frozenset[str]().union(*(one.rows for one in tombstones.each))
        self._words = [name.encode() for name in (*self._ids, *self._captions)]

    def object(self, path: str) -> tuple[int, int, str]:
        """Its size, how many pictures it has, and what is wrong with it; nothing, if nothing is."""
        try:
            data = self._dataset.store.view(path)
        except FileNotFoundError:
            return 0, 0, ""
        if path.endswith(".parquet"):
            pictures, what = self._parquet(path, data)
        elif path.endswith(".tar"):
            pictures, what = self._tar(data)
        elif path.endswith((".mds", ".lance")):
            pictures, what = self._packed(path, data)
        else:
            pictures, what = 1, self._text(path, data)
        return data.size, pictures, what

    def _parquet(self, path: str, data: pa.Buffer) -> tuple[int, str]:
        try:
            file = pq.ParquetFile(pa.BufferReader(data))
        except pa.ArrowInvalid as error:
            where = self._dataset.store.locate(path)
            raise StoreError(f"{where}: is damaged, so nobody can tell what it holds; delete it") from error
        names = file.schema_arrow.names
        pictures = 0
        for batch in file.iter_batches(_PICTURES, columns=[name for name in names if name != "image"]):
            if what := self._rows_of(pa.Table.from_batches([batch])):
                return pictures, what
        if "image" in names:
            for batch in file.iter_batches(_PICTURES, columns=["image"]):
                hashed = list(_images(batch["image"]))
                pictures += len(hashed)
                if any(self._tombstones.has_bytes(digest) for digest in hashed):
                    return pictures, "a picture"
        return pictures, ""

    def _rows_of(self, rows: pa.Table) -> str:
        if rows.column_names == LISTING.names:
            return "a row of the source" if self._rows.intersection(row_hashes(rows)) else ""
        if "code" in rows.column_names:
            # 00_raw goes on counting them, by id.
            rows = rows.filter(pc.fill_null(pc.not_equal(rows["code"], FORGOTTEN), True))
        for name, values in (("id", self._ids), ("caption_id", self._captions)):
            if name in rows.column_names and _any_of(rows[name], values):
                return f"a row, by its {name}"
        if "origin" in rows.column_names and _any_of(rows["origin"], {f"duplicate:{id_}" for id_ in self._ids}):
            return "a caption that came from it"
        return ""

    def _tar(self, data: pa.Buffer) -> tuple[int, str]:
        pictures = 0
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member)
                content = file.read() if file else b""
                pictures += 1
                if self._tombstones.has_bytes(sha256(content).hexdigest()):
                    return pictures, "a picture"
                if member.name.endswith((".json", ".txt")) and any(word in content for word in self._words):
                    return pictures, "a sample's description"
        return pictures, ""

    def _packed(self, path: str, data: pa.Buffer) -> tuple[int, str]:
        """A shard whose texts may be compressed: its own format tells what it holds."""
        found = FORMATS[path.rpartition(".")[2]].read_back(path, lambda _: data)
        pictures = 0
        for picture in found.pictures:
            pictures += 1
            if self._tombstones.has_bytes(sha256(picture).hexdigest()):
                return pictures, "a picture"
        return pictures, "a row, by its id" if _any_of(found.rows["id"], self._ids) else ""

    def _text(self, path: str, data: pa.Buffer) -> str:
        content = data.to_pybytes()
        if self._tombstones.has_bytes(sha256(content).hexdigest()):
            return "a picture"
        # A manifest or a version holds names and numbers; ids stand in what runs recorded.
        return "its id" if any(word in content for word in self._words) else ""


def _any_of(column: pa.ChunkedArray, values: Collection[str]) -> bool:
    return bool(pc.any(pc.is_in(column, value_set=pa.array(sorted(values), pa.string()))).as_py())


def _images(column: pa.Array) -> Iterator[str]:
    values: Iterable[pa.Scalar] = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    return (sha256(value.as_buffer()).hexdigest() for value in values if value.is_valid)
