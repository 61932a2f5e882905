"""Which published versions have a sample, and as what: tables that versions share are looked into once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard, TableRef
from vlmdata.layout import Step
from vlmdata.lineage.lookup import holds
from vlmdata.versions.version import numbers, read_version

_AT_ONCE = 16
_DECIDING = (Step.RAW, Step.FILTERED, Step.CAPTIONED, Step.CHECKED)

Fate = dict[str, Any]


def appearances(dataset: Dataset, sample: str, home: str) -> list[dict[str, Any]]:
    """`{"from", "to", "outcome", "stage", "code"}` for each run of versions in which the same became of it.

    `stage` and `code` tell where and why it stopped; of one that was kept there is neither.

    Args:
        dataset: Whose versions.
        sample: An id.
        home: The shard that it lies in somewhere; most versions have it there, too.
    """
    search = _Search(dataset, sample)
    fates = [(number, search.fate(read_version(dataset, number).shards, home)) for number in numbers(dataset)]
    told = []
    # Numbers are without gaps, so what follows in the list follows in time.
    for fate, group in groupby(fates, key=lambda pair: pair[1]):
        if fate is not None:
            found = [number for number, _ in group]
            told.append({"from": found[0], "to": found[-1], **fate})
    return told


class _Search:
    def __init__(self, dataset: Dataset, sample: str) -> None:
        self._dataset, self._sample = dataset, sample
        self._known: dict[str, bool] = {}

    def fate(self, shards: Sequence[Shard], home: str) -> Fate | None:
        """What became of it in a version; None: it is not in it."""
        shard = self._shard(shards, home)
        if shard is None:
            return None
        for step in _DECIDING:
            reject = self._reject(shard, step)
            if reject:
                return {"outcome": reject["outcome"], "stage": step.value, "code": reject["code"]}
        return {"outcome": "kept"}

    def _shard(self, shards: Sequence[Shard], home: str) -> Shard | None:
        """At home first; growth keeps a row in its shard, another cut does not."""
        here = [shard for shard in shards if shard.name == home]
        if here and self._in(here[0]):
            return here[0]
        rest = [shard for shard in shards if shard.name != home]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return next((shard for shard, hit in zip(rest, pool.map(self._in, rest), strict=True) if hit), None)

    def _in(self, shard: Shard) -> bool:
        path = shard.manifests[Step.RAW.value]
        if path not in self._known:
            tables = self._dataset.manifest_at(path).tables
            self._known[path] = any(self._holds(tables.get(name)) for name in ("samples", "rejects"))
        return self._known[path]

    def _holds(self, ref: TableRef | None) -> bool:
        return holds(self._dataset, ref, self._sample)

    def _reject(self, shard: Shard, step: Step) -> dict[str, Any] | None:
        rejects = self._dataset.manifest(shard, step).tables["rejects"]
        if not rejects.rows:
            return None
        rows = self._dataset.table(rejects, ["id", "outcome", "code"])
        found: list[dict[str, Any]] = rows.filter(pc.equal(rows["id"], pa.scalar(self._sample))).to_pylist()
        return found[0] if found else None
