"""What is settled, as parquet sorted by key: found again with eight bytes of memory a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.journal.records import End
from vlmdata.errors import StoreError
from vlmdata.store import Store

_ROW_GROUP = 8_192
_LARGEST = 2_000_000
"""Rows of a table that is still merged with newer ones."""

SETTLED = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("requests", pa.int32(), nullable=False),
        pa.field("request", pa.int32(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("failure", pa.string()),
        pa.field("final", pa.bool_(), nullable=False),
        pa.field("status", pa.int32()),
        pa.field("message", pa.string()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("cost", pa.int64()),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("at", pa.float64(), nullable=False),
        pa.field("sent", pa.list_(pa.int64())),
        pa.field("batch", pa.string()),
    ]
)


class Tables:
    """Tables, oldest first; of a key that is in several the newest counts."""

    def __init__(self, store: Store, folder: str, paths: Sequence[str], known: Tables | None = None) -> None:
        self._store = store
        self._folder = folder
        self.paths = tuple(paths)
        indexes = known._indexes if known else {}
        self._indexes: dict[str, npt.NDArray[np.uint64]] = {path: indexes[path] for path in paths if path in indexes}

    def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The entries of those keys that are in a table."""
        found: dict[str, Entry] = {}
        left = list(keys)
        for path in reversed(self.paths):
            if not left:
                break
            here = self._find_in(path, left)
            found.update(here)
            left = [key for key in left if key not in here]
        return found

    def with_new(self, entries: Sequence[tuple[str, Entry]]) -> tuple[str, ...]:
        """Paths of the tables once these entries, which are newer, are in one as well."""
        if not entries:
            return self.paths
        table, older = _table(entries), list(self.paths)
        # Tables grow like the digits of a binary number: a row is rewritten a few times, never each time.
        while older and len(self._index(older[-1])) <= min(table.num_rows, _LARGEST):
            table = _merged(self._read(older.pop()), table)
        return (*older, self._write(table))

    def _find_in(self, path: str, keys: Sequence[str]) -> dict[str, Entry]:
        index, prefixes = self._index(path), _prefixes(keys)
        first, end = np.searchsorted(index, prefixes), np.searchsorted(index, prefixes, side="right")
        there = np.flatnonzero(first < end)
        if not len(there):
            return {}
        wanted = {keys[int(number)] for number in there}
        ends = zip(first[there] // _ROW_GROUP, (end[there] - 1) // _ROW_GROUP, strict=True)
        groups = sorted({group for one, last in ends for group in range(int(one), int(last) + 1)})
        rows = self._open(path).read_row_groups(groups)
        rows = rows.filter(pc.is_in(rows["key"], value_set=pa.array(sorted(wanted), pa.string())))
        return {row["key"]: _entry(row) for row in rows.to_pylist()}

    def _index(self, path: str) -> npt.NDArray[np.uint64]:
        """The first 64 bits of each key, in the table's order."""
        if path not in self._indexes:
            self._indexes[path] = _prefixes(self._open(path).read(columns=["key"])["key"].to_pylist())
        return self._indexes[path]

    def _read(self, path: str) -> pa.Table:
        return self._open(path).read()

    def _open(self, path: str) -> pq.ParquetFile:
        try:
            # Only what is asked for is read: a table may be far larger than that.
            return pq.ParquetFile(self._store.open(path), pre_buffer=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(
                f"{self._store.locate(path)}: is gone or damaged, and the journal rests on it;"
                " delete the journal's snapshots, and it is read from its log"
            ) from error

    def _write(self, table: pa.Table) -> str:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="ZSTD", row_group_size=_ROW_GROUP)
        data = sink.getvalue()
        path = f"{self._folder}/{sha256(data).hexdigest()[:32]}.parquet"
        self._store.put(path, data)
        self._indexes[path] = _prefixes(table["key"].to_pylist())
        return path


def _prefixes(keys: Sequence[str]) -> npt.NDArray[np.uint64]:
    joined = bytes.fromhex("".join(key[:16] for key in keys))
    return np.frombuffer(joined, ">u8").astype(np.uint64)


def _merged(older: pa.Table, newer: pa.Table) -> pa.Table:
    kept = older.filter(pc.invert(pc.is_in(older["key"], value_set=newer["key"])))
    return pa.concat_tables([kept, newer]).sort_by("key")


def _table(entries: Sequence[tuple[str, Entry]]) -> pa.Table:
    rows = [_row(key, entry) for key, entry in entries]
    return pa.Table.from_pylist(rows, SETTLED).sort_by("key")


def _row(key: str, entry: Entry) -> dict[str, Any]:
    if entry.end is None:
        raise ValueError(f"{key}: nothing is settled")
    said = {name: getattr(entry.end, name) for name in SETTLED.names if name not in {"key", "attempt", "requests"}}
    return {"key": key, "attempt": entry.attempt, "requests": entry.requests, **said}


def _entry(row: Mapping[str, Any]) -> Entry:
    end = End(**{name: row[name] for name in SETTLED.names if name != "requests"})
    return Entry(attempt=row["attempt"], requests=row["requests"], end=end)
