"""What is written down of a batch beside its requests: that it is about to be handed in, and the API's name for it.

Whoever hands a batch in creates its first record before, and whoever wants to
give up a batch that nobody seems to hand in creates the same: one of them
wins, so no request is given back while it is being sent.

<dataset>/02_captioned/journal/batches/<token>-begun.json
<dataset>/02_captioned/journal/batches/<token>.json
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import StoreError

_BEGUN = "-begun"


@dataclass(frozen=True)
class Begun:
    """A batch may be handed in by now: how many requests (0: it is given up), when (Unix seconds), and where."""

    requests: int
    at: float
    where: str


@dataclass(frozen=True)
class Accepted:
    """The API's id of a batch, and the API's address."""

    batch: str
    where: str


Record = TypeVar("Record", Begun, Accepted)


class BatchRecords:
    """The records of one dataset's batches; every method blocks."""

    def __init__(self, dataset: Dataset) -> None:
        self._store = dataset.store
        self._dataset = dataset.name

    def begin(self, token: str, requests: int, where: str) -> bool:
        """Before a batch is handed in; False if somebody has given it up."""
        return self._create(f"{token}{_BEGUN}", Begun(requests, time.time(), where))

    def give_up(self, token: str) -> bool:
        """Nobody is to hand this batch in; False if somebody has begun."""
        return self._create(f"{token}{_BEGUN}", Begun(0, time.time(), ""))

    def begun(self, token: str) -> Begun | None:
        """What became of `begin` and `give_up`; null if neither was."""
        return self._read(f"{token}{_BEGUN}", Begun)

    def accept(self, token: str, batch_id: str, where: str) -> None:
        """The API has the batch. Of several that find that out, the first one counts."""
        self._create(token, Accepted(batch_id, where))

    def accepted(self, token: str) -> Accepted | None:
        """The batch's id, if it is on record."""
        return self._read(token, Accepted)

    def all_accepted(self) -> set[str]:
        """Every id on record."""
        folder = layout.journal_batch(self._dataset, "").rpartition("/")[0]
        names = [name.removesuffix(".json") for name in self._store.children(folder)]
        found = [self.accepted(name) for name in names if not name.endswith(_BEGUN)]
        return {one.batch for one in found if one is not None}

    def _create(self, name: str, record: Begun | Accepted) -> bool:
        data = json.dumps(asdict(record)).encode()
        # A put whose answer was lost is repeated by the client, and finds its own object.
        path = layout.journal_batch(self._dataset, name)
        return self._store.create(path, data) or self._store.get(path) == data

    def _read(self, name: str, kind: type[Record]) -> Record | None:
        path = layout.journal_batch(self._dataset, name)
        try:
            raw: dict[str, Any] = json.loads(self._store.get(path))
            return kind(**raw)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self._store.locate(path)}: is damaged ({error}); restore it from a backup of the store"
            ) from error
