"""The journal without the words of captions that are forgotten; what they cost stays on record."""

from __future__ import annotations

import json
from collections.abc import Collection
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.forgetting.who import each


def scrub_journal(dataset: Dataset, keys: Collection[str]) -> int:
    """Empty the texts and messages of all that was asked under these keys; returns in how many objects.

    Requests, tokens and money are what they were, so that budgets hold.
    """
    if not keys:
        return 0
    tables = _tables(dataset, keys)
    texts = [path for path in dataset.store.list(layout.journal(dataset.name)) if path.endswith((".jsonl", ".json"))]
    changed = each(lambda path: _text(dataset, path, keys, tables), texts)
    for path in tables:
        dataset.store.delete(path)
    return sum(changed) + len(tables)


def _tables(dataset: Dataset, keys: Collection[str]) -> dict[str, str]:
    """Tables of settled records, written anew: the new path by the old one."""
    folder = layout.journal_tables(dataset.name)
    found = {}
    for path in dataset.store.list(folder):
        file = pq.ParquetFile(pa.BufferReader(dataset.store.view(path)))
        rows = file.read()
        theirs = pc.is_in(rows["key"], value_set=pa.array(sorted(keys), pa.string()))
        if not pc.any(theirs).as_py():
            continue
        for name in ("text", "message"):
            emptied = pc.if_else(pc.and_(theirs, pc.is_valid(rows[name])), "", rows[name])
            rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), emptied)
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="ZSTD", row_group_size=file.metadata.row_group(0).num_rows)
        data = sink.getvalue()
        found[path] = f"{folder}/{sha256(data).hexdigest()[:32]}.parquet"
        dataset.store.put(found[path], data)
    return found


def _text(dataset: Dataset, path: str, keys: Collection[str], tables: dict[str, str]) -> bool:
    """A segment of the log or a snapshot; whether it had to change."""
    lines = dataset.store.get(path).decode().split("\n")
    new = [_line(line, keys, tables) for line in lines]
    if new != lines:
        dataset.store.replace(path, "\n".join(new).encode())
    return new != lines


def _line(line: str, keys: Collection[str], tables: dict[str, str]) -> str:
    if not any(key in line for key in keys) and not any(path in line for path in tables):
        return line
    record: dict[str, Any] = json.loads(line)
    if "tables" in record:
        record["tables"] = [tables.get(path, path) for path in record["tables"]]
        for key, entry in record.get("open", {}).items():
            if key in keys and entry.get("end"):
                _empty(entry["end"])
        return json.dumps(record, sort_keys=True)
    if record.get("key") in keys:
        _empty(record)
    return json.dumps(record, ensure_ascii=False)


def _empty(record: dict[str, Any]) -> None:
    for name in ("text", "message"):
        if record.get(name) is not None:
            record[name] = ""
