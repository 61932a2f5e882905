"""What runs left beside their records: pages with thumbnails, and the rows that they were made of."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata import layout
from vlmdata.checkpoint import Dataset, encode_parquet
from vlmdata.forgetting.who import each
from vlmdata.quality.retrieval import RANKS_FILE

_GONE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Withdrawn</title>"
    "<p>This page showed something that has been withdrawn since. The next run makes another one.</p></html>"
)


def scrub_pages(dataset: Dataset, names: Collection[str]) -> int:
    """Take out what mentions any of these (ids of samples and captions); returns from how many objects.

    A page is replaced as a whole, for it may show what it does not name.
    """
    wanted = [name.encode() for name in names]

    def scrub(path: str) -> bool:
        data = dataset.store.get(path)
        if not any(name in data for name in wanted):
            return False
        left = _without(json.loads(data), set(names)) if path.endswith(".json") else _GONE.encode()
        dataset.store.replace(path, left)
        return True

    paths = dataset.store.list(layout.runs_prefix(dataset.name))
    text = [path for path in paths if path.endswith((".json", ".html"))]
    ranks = [path for path in paths if path.endswith(f"/{RANKS_FILE}")]
    return sum(each(scrub, text)) + sum(each(lambda path: _less_ranks(dataset, path, names), ranks))


def _less_ranks(dataset: Dataset, path: str, names: Collection[str]) -> bool:
    """The ranks of a retrieval check, less those of the pictures and captions that are named."""
    rows = pq.read_table(pa.BufferReader(dataset.store.get(path)))
    gone = pa.array(sorted(names), pa.string())
    theirs = pc.or_(pc.is_in(rows["id"], value_set=gone), pc.is_in(rows["caption_id"], value_set=gone))
    if not pc.any(theirs).as_py():
        return False
    dataset.store.replace(path, encode_parquet(rows.filter(pc.invert(theirs))))
    return True


def _without(content: Any, names: Collection[str]) -> bytes:
    return json.dumps(_less(content, names), indent=1, sort_keys=True).encode()


def _less(value: Any, names: Collection[str]) -> Any:
    """The value less the list items that mention any of the names."""
    if isinstance(value, list):
        return [_less(item, names) for item in value if not _mentions(item, names)]
    if isinstance(value, dict):
        return {key: _less(item, names) for key, item in value.items()}
    return "" if _mentions(value, names) else value


def _mentions(value: Any, names: Collection[str]) -> bool:
    if isinstance(value, dict):
        return any(not isinstance(item, list | dict) and _mentions(item, names) for item in value.values())
    return isinstance(value, str) and any(name in value for name in names)
