"""A sample of the images of a set, in memory that does not grow with the set."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def places(ids: Sequence[str], seed: int = 0) -> pa.Array:
    """Where each image stands in the order of drawing: uint64 (n,), by its id and the seed alone.

    Hashed once more, as what stays of duplicates is decided by the id itself.
    """
    drawn = (sha256(f"{seed} {one}".encode()).digest()[:8] for one in ids)
    return pa.array(np.frombuffer(b"".join(drawn), ">u8").astype(np.uint64))


class Draw:
    """At most `most` rows, those that come first: the same however shards are cut, and in whichever order they come.

    Rows have a column `place`, as `places` gives it, and `id`: one row an image.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: pa.Table | None = None

    def may_take(self, place: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which rows would be drawn, if no others came: bool (n,)."""
        if len(self) < self._most or self._rows is None:
            return pc.is_valid(place)
        return pc.less_equal(place, self._rows["place"][-1])

    def offer(self, rows: pa.Table) -> None:
        """Let rows take part."""
        rows = rows.filter(self.may_take(rows["place"]))
        if rows.num_rows:
            both = rows if self._rows is None else pa.concat_tables([self._rows, rows])
            # Taken, not sliced: a slice would keep all that was ever offered.
            order = pc.sort_indices(both, [("place", "ascending"), ("id", "ascending")])[: self._most]
            self._rows = both.take(order).combine_chunks()

    def rows(self) -> pa.Table | None:
        """What was drawn, in the order of drawing; None if nothing was offered."""
        return self._rows

    def __len__(self) -> int:
        return 0 if self._rows is None else int(self._rows.num_rows)


def one_each(rows: pa.Table, *by: str) -> pa.Table:
    """Of the rows that share the columns `by`, the one with the smallest `caption_id`: nothing about it decides."""
    rows = rows.sort_by([(name, "ascending") for name in (*by, "caption_id")])
    if not rows.num_rows:
        return rows
    codes = [pc.dictionary_encode(rows[name].combine_chunks()).indices.to_numpy() for name in by]
    changes = np.any([code[1:] != code[:-1] for code in codes], axis=0)
    return rows.filter(pa.array(np.concatenate([[True], changes])))
