"""Every request that was ever sent under a key, from the journal's log: what the book adds up is one attempt."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vlmdata import layout
from vlmdata.captioning.journal.records import Ask, End, Record, decode
from vlmdata.checkpoint import Dataset

_AT_ONCE = 16
_SEGMENTS = 64
"""Read at a time, the newest first."""


@dataclass(frozen=True)
class Request:
    """A request as it was written down, and how it ended; without an end its answer was never recorded."""

    ask: Ask
    end: End | None


def requests_of(dataset: Dataset, keys: Collection[str]) -> dict[str, list[Request]]:
    """By key, in the order in which they were sent; those that never left this machine are left out.

    The log is read backwards until the first request of every key is found.

    Raises:
        StoreError: a segment is damaged.
    """
    records: dict[str, list[Record]] = {key: [] for key in keys}
    missing = set(keys)
    for segment in _backwards(dataset, keys) if keys else ():
        for record in reversed(segment):
            if record.key in records:
                records[record.key].append(record)
                if isinstance(record, Ask) and (record.attempt, record.request) == (1, 1):
                    missing.discard(record.key)
        if not missing:
            break
    return {key: _paired(list(reversed(found))) for key, found in records.items()}


def _backwards(dataset: Dataset, keys: Collection[str]) -> Iterator[list[Record]]:
    store, wanted = dataset.store, [key.encode() for key in keys]
    paths = [path for path in store.list(f"{layout.journal(dataset.name)}/log") if path.endswith(".jsonl")]

    def read(path: str) -> list[Record]:
        lines = [line for line in store.get(path).splitlines(keepends=True) if any(key in line for key in wanted)]
        return decode(b"".join(lines), store.locate(path))

    paths.sort(reverse=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(paths), _SEGMENTS):
            yield from pool.map(read, paths[start : start + _SEGMENTS])


def _paired(records: list[Record]) -> list[Request]:
    sent: dict[tuple[int, int], Request] = {}
    for record in records:
        if isinstance(record, Ask):
            sent[record.attempt, record.request] = Request(record, None)
        elif isinstance(record, End):
            place = record.attempt, record.request
            if record.unsent:
                sent.pop(place, None)
            elif place in sent and sent[place].end is None:
                sent[place] = Request(sent[place].ask, record)
    return [sent[place] for place in sorted(sent)]
