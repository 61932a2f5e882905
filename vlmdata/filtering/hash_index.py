"""The hash index that lasts: every candidate of a published version, and what was decided of it.

Its segments are tables that never change. A shard's rows lie in the segment
that is its home; what other segments hold of it counts no more. A new segment
takes in the ones before it that are not twice its size, so that their number
grows with the logarithm of the set, and each row is written that often.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from vlmdata.checkpoint import Dataset, TableRef, put_table
from vlmdata.layout import Step
from vlmdata.schema import DUPLICATES, FACTS, ID

INDEX = pa.schema(
    [
        ID,
        FACTS.field("phash"),
        pa.field("pixels", pa.int64(), metadata={"note": "width x height, upright"}),
        pa.field("shard", pa.string(), metadata={"note": "where it lies"}),
        pa.field("published", pa.bool_(), metadata={"note": "it is in the version"}),
        *[DUPLICATES.field(name).with_nullable(True) for name in ("duplicate_of", "distance", "gives")],
    ]
)
"""One row a picture that passes the rules; `duplicate_of` is null for those that stay."""

_MERGED_BELOW = 2
"""A segment is merged with the one after it unless it has more than so many times its rows."""


class Home(BaseModel):
    """Where a shard's rows are: the number of a segment, and how many there are."""

    model_config = ConfigDict(frozen=True)

    segment: int
    rows: int


class HashIndex(BaseModel):
    """Segments, oldest first, and which one is the home of each shard."""

    model_config = ConfigDict(frozen=True)

    segments: tuple[TableRef, ...] = ()
    homes: dict[str, Home] = {}

    def read(self, dataset: Dataset) -> pa.Table:
        """All rows that count (`INDEX`), in no order that says anything."""
        parts = [self.segment(dataset, number) for number in range(len(self.segments))]
        return pa.concat_tables([INDEX.empty_table(), *parts])

    def segment(self, dataset: Dataset, number: int) -> pa.Table:
        """The rows of one segment that count."""
        rows = dataset.table(self.segments[number], INDEX.names)
        at_home = [name for name, home in self.homes.items() if home.segment == number]
        whole = sum(self.homes[name].rows for name in at_home) == rows.num_rows
        return rows if whole else rows_of(rows, at_home)

    def updated(self, dataset: Dataset, rows: pa.Table, changed: Collection[str], shards: Sequence[str]) -> HashIndex:
        """The index of `shards`, with `rows` (`INDEX`) instead of what it has of the `changed` ones."""
        homes = {name: self.homes[name] for name in shards if name in self.homes and name not in set(changed)}
        if not rows.num_rows:
            return HashIndex(segments=self.segments, homes=homes)._without_empty()
        added = {name: Home(segment=len(self.segments), rows=count) for name, count in _count(rows).items()}
        left = HashIndex(segments=self.segments, homes=homes)
        return left._merged(dataset, rows, added)._without_empty()

    def _merged(self, dataset: Dataset, rows: pa.Table, added: dict[str, Home]) -> HashIndex:
        """Take the last segments in as long as they are small beside what is new."""
        kept, living = len(self.segments), self._living()
        total = rows.num_rows
        while kept and living[kept - 1] <= _MERGED_BELOW * total:
            kept -= 1
            total += living[kept]
        merged = [self.segment(dataset, number) for number in range(kept, len(self.segments))]
        table = pa.concat_tables([*merged, rows]).combine_chunks()
        segments = (*self.segments[:kept], put_table(dataset, Step.DUPLICATES, table))
        homes = {
            name: home.model_copy(update={"segment": min(home.segment, kept)}) for name, home in self.homes.items()
        }
        homes |= {name: home.model_copy(update={"segment": kept}) for name, home in added.items()}
        return HashIndex(segments=segments, homes=homes)

    def _living(self) -> list[int]:
        living = [0] * len(self.segments)
        for home in self.homes.values():
            living[home.segment] += home.rows
        return living

    def _without_empty(self) -> HashIndex:
        stay = [number for number, rows in enumerate(self._living()) if rows]
        renumbered = {number: place for place, number in enumerate(stay)}
        homes = {
            name: home.model_copy(update={"segment": renumbered[home.segment]})
            for name, home in self.homes.items()
            if home.rows
        }
        return HashIndex(segments=tuple(self.segments[number] for number in stay), homes=homes)


def rows_of(rows: pa.Table, shards: Sequence[str]) -> pa.Table:
    """Those that lie in one of the shards."""
    return rows.filter(pc.is_in(rows["shard"], value_set=pa.array(shards, pa.string())))


def _count(rows: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(rows["shard"])
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
