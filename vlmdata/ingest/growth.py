"""The cut that lasts: which shard each row of a growing source lies in, from one listing to the next.

The watermark is a chain of generations in the store, each the shards of one
listing. A row that was there stays in its shard; one that is new, or that is
another picture under an old name, goes into a new one; a shard that lost a row
is listed anew, and the others are what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, publish, step_key
from vlmdata.layout import Step

SHARDS = pa.schema([("name", pa.string()), ("rows", pa.int64()), ("manifest", pa.string())])
_ROW = ("key", "location", "member", "offset", "size", "version")
"""What makes a row of a source this one, whatever is said of it."""
_AT_ONCE = 16

Cut = Callable[[Sequence[Shard]], list[Shard]]
"""Given the shards of the last listing, those of this one."""


def keep_cut(dataset: Dataset, settings: dict[str, Any], cut: Cut, seen: str = "") -> list[Shard]:
    """Cut a listing on top of the last one, and remember how; if another run was first, on top of that one's.

    Args:
        settings: Which source it is, and how it is cut.
        seen: Names what the listing follows from; if the last one followed from the same, it is not cut again.
    """
    key = step_key(Step.LISTING, [], {"cut": settings})
    while True:
        path = dataset.latest(Step.LISTING, key)
        before = dataset.manifest_at(path) if path else None
        known = _shards(dataset, before)
        if before and seen and before.facts.get("seen") == seen:
            return known
        now = cut(known)
        if before and now == known and not seen:
            return known
        made = publish(dataset, "all", Step.LISTING, key, _result(now, seen), before)
        if _shards(dataset, dataset.manifest_at(made)) == now:
            return now


def _result(shards: Sequence[Shard], seen: str) -> Result:
    manifests = [shard.manifests[Step.LISTING.value] for shard in shards]
    table = pa.table([[shard.name for shard in shards], [shard.rows for shard in shards], manifests], schema=SHARDS)
    rows = sum(shard.rows for shard in shards)
    return Result({"shards": table}, Counts(came=rows, kept=rows), facts={"seen": seen})


def _shards(dataset: Dataset, generation: Manifest | None) -> list[Shard]:
    rows = dataset.table(generation.tables["shards"]).to_pylist() if generation else []
    return [Shard(row["name"], row["rows"]).at(Step.LISTING, row["manifest"]) for row in rows]


def first_free(known: Sequence[Shard]) -> int:
    """The number of the next new shard."""
    return 1 + max((int(shard.name) for shard in known), default=-1)


def owners(dataset: Dataset, known: Sequence[Shard], listing: pa.Table) -> npt.NDArray[np.int64]:
    """For each row of a listing the position of the known shard that it lies in; -1: it is new."""
    if not known:
        return np.full(listing.num_rows, -1, np.int64)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        parts = list(pool.map(lambda shard: identities(dataset.read(shard, Step.LISTING, "listing", _ROW)), known))
    owner = np.repeat(np.arange(len(known)), [len(part) for part in parts])
    at = pc.fill_null(pc.index_in(identities(listing), value_set=pa.concat_arrays(parts)), -1).to_numpy()
    return np.where(at < 0, -1, owner[at])


def identities(listing: pa.Table) -> pa.Array:
    """A name for each row that is the same as long as the row is the same picture: string (n,)."""
    columns = [pc.fill_null(listing[name].cast(pa.string()), "") for name in _ROW]
    joined = pc.binary_join_element_wise(*columns, "\0").combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined
