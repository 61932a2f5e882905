"""What runs left beside their records: pages with thumbnails, and the rows that they were made of."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.forgetting.who import each

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

    text = [path for path in dataset.store.list(layout.runs_prefix(dataset.name)) if path.endswith((".json", ".html"))]
    return sum(each(scrub, text))


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
