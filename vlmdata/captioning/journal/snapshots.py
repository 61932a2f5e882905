"""What the log up to a segment adds up to: the account, what is under way, and tables of what is settled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vlmdata import layout
from vlmdata.captioning.journal.book import Account, Claim, Entry
from vlmdata.captioning.journal.records import End
from vlmdata.errors import StoreError
from vlmdata.store import Store


@dataclass(frozen=True)
class Snapshot:
    """The sum of segments 1 to `upto`."""

    upto: int = 0
    account: Account = field(default_factory=Account)
    open: Mapping[str, Entry] = field(default_factory=dict)
    tables: tuple[str, ...] = ()


def newest_snapshot(store: Store, dataset: str) -> Snapshot:
    """The newest one; an empty one if there is none.

    Raises:
        StoreError: it is damaged.
    """
    found = store.list(layout.journal_snapshots(dataset))
    if not found:
        return Snapshot()
    try:
        raw = json.loads(store.get(found[-1]))
        return Snapshot(
            upto=raw["upto"],
            account=Account(**raw["account"]),
            open={key: _entry(entry) for key, entry in raw["open"].items()},
            tables=tuple(raw["tables"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        where = store.locate(found[-1])
        raise StoreError(f"{where}: is damaged ({error}); delete it, and the journal is read from its log") from error


def write_snapshot(store: Store, dataset: str, snapshot: Snapshot) -> None:
    """Put it under its number; another writer's of the same number says the same."""
    raw = {
        "upto": snapshot.upto,
        "account": asdict(snapshot.account),
        "open": {key: asdict(entry) for key, entry in snapshot.open.items()},
        "tables": list(snapshot.tables),
    }
    store.create(layout.journal_snapshot(dataset, snapshot.upto), json.dumps(raw, sort_keys=True).encode())


def _entry(raw: Mapping[str, Any]) -> Entry:
    claims = {int(number): Claim(**claim) for number, claim in raw["open"].items()}
    end = End(**raw["end"]) if raw["end"] else None
    return Entry(raw["attempt"], raw["requests"], claims, end)
