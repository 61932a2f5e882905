"""The proof: every object of the store is opened, and none holds what was forgotten.

Pictures are hashed, wherever they lie: in tables, in exported files, in what
was sent to a captioner, in other datasets. In the dataset itself rows are
looked up by id, and what is text is searched.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

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
    """Path of an object of the dataset, and what is wrong with it."""
    elsewhere: tuple[tuple[str, tuple[str, ...]], ...]
    """Path of an object of the store that is not the dataset's, and the sha256 of what it holds of the forgotten."""


def verify(dataset: Dataset, tombstones: Tombstones) -> Verified:
    """Look for everything that was ever forgotten in every object of the store.

    Raises:
        StoreError: an object is damaged, so that nobody can tell.
    """
    search = _Search(dataset, tombstones)
    paths = [path for path in dataset.store.list("") if not _is_tombstone(path)]
    seen = each(search.object, paths)
    told = list(zip(paths, seen, strict=True))
    return Verified(
        objects=len(paths),
        bytes=sum(one.size for one in seen),
        pictures=sum(one.pictures for one in seen),
        found=tuple((path, one.what) for path, one in told if one.what),
        elsewhere=tuple((path, one.held) for path, one in told if one.held and not search.owns(path)),
    )


def _is_tombstone(path: str) -> bool:
    """Of whichever dataset: hashes only."""
    return path.startswith(f"{layout.forgotten_prefix(path.partition('/')[0])}/")


class _Seen(NamedTuple):
    """What an object is: its size, how many pictures it has, forgotten ones among them, and what is wrong with it."""

    size: int
    pictures: int
    held: tuple[str, ...]
    what: str


class _Search:
    def __init__(self, dataset: Dataset, tombstones: Tombstones) -> None:
        self._dataset, self._tombstones = dataset, tombstones
        self._ids = frozenset[str]().union(*(one.ids for one in tombstones.each))
        self._captions = frozenset[str]().union(*(one.captions for one in tombstones.each))
        self._rows = frozenset[str]().union(*(one.rows for one in tombstones.each))
        self._words = [name.encode() for name in (*self._ids, *self._captions)]

    def owns(self, path: str) -> bool:
        """Whether an object is the dataset's own: of others, pictures alone are looked at."""
        return path.startswith(f"{self._dataset.name}/")

    def object(self, path: str) -> _Seen:
        """What there is to be said of an object; nothing, if it is gone."""
        try:
            data = self._dataset.store.view(path)
        except FileNotFoundError:
            return _Seen(0, 0, (), "")
        try:
            digests, what = self._read(path, data)
        except (pa.ArrowInvalid, tarfile.TarError) as error:
            where = self._dataset.store.locate(path)
            raise StoreError(f"{where}: is damaged, so nobody can tell what it holds; delete it") from error
        # What was sent to a captioner was made smaller, and is known by what it was made of.
        digests += filter(None, [layout.original_of_sent(path)])
        held = {digest for digest in digests if self._tombstones.has_bytes(digest)}
        if not self.owns(path):
            what = ""
        elif held:
            what = "a picture"
        return _Seen(data.size, len(digests), tuple(sorted(held)), what)

    def _read(self, path: str, data: pa.Buffer) -> tuple[list[str], str]:
        """Digests of an object's pictures, and what else is wrong with it if it is the dataset's."""
        if path.endswith(".parquet"):
            return self._parquet(path, data)
        if path.endswith(".tar"):
            return self._tar(data)
        if path.endswith((".mds", ".lance")) and f"/{layout.Stage.FINAL}/" in path:
            return self._packed(path, data)
        return self._text(data)

    def _parquet(self, path: str, data: pa.Buffer) -> tuple[list[str], str]:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        what = self._rows_of_file(file) if self.owns(path) else ""
        digests: list[str] = []
        if "image" in names:
            for batch in file.iter_batches(_PICTURES, columns=["image"]):
                digests += _images(batch["image"])
        return digests, what

    def _rows_of_file(self, file: pq.ParquetFile) -> str:
        columns = [name for name in file.schema_arrow.names if name != "image"]
        batches = file.iter_batches(_PICTURES, columns=columns)
        return next((what for batch in batches if (what := self._rows_of(pa.Table.from_batches([batch])))), "")

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

    def _tar(self, data: pa.Buffer) -> tuple[list[str], str]:
        digests, what = [], ""
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member)
                content = file.read() if file else b""
                digests.append(sha256(content).hexdigest())
                if member.name.endswith((".json", ".txt")) and any(word in content for word in self._words):
                    what = "a sample's description"
        return digests, what

    def _packed(self, path: str, data: pa.Buffer) -> tuple[list[str], str]:
        """A shard whose texts may be compressed: its own format tells what it holds."""
        found = FORMATS[path.rpartition(".")[2]].read_back(path, lambda _: data)
        digests = [sha256(picture).hexdigest() for picture in found.pictures]
        return digests, "a row, by its id" if _any_of(found.rows["id"], self._ids) else ""

    def _text(self, data: pa.Buffer) -> tuple[list[str], str]:
        content = data.to_pybytes()
        # A manifest or a version holds names and numbers; ids stand in what runs recorded.
        what = "its id" if any(word in content for word in self._words) else ""
        return [sha256(content).hexdigest()], what


def _any_of(column: pa.ChunkedArray, values: Collection[str]) -> bool:
    return bool(pc.any(pc.is_in(column, value_set=pa.array(sorted(values), pa.string()))).as_py())


def _images(column: pa.Array) -> Iterator[str]:
    values: Iterable[pa.Scalar] = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    return (sha256(value.as_buffer()).hexdigest() for value in values if value.is_valid)
