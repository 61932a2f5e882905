"""Pictures of evaluation sets among the samples: by hash, and by look where a list has embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vlmdata.config import Decontamination
from vlmdata.export.selection.benchmark_list import ROWS, BenchmarkList
from vlmdata.export.selection.kin import Blocks, Flags, Hashes, Positions, Vectors
from vlmdata.filtering.near_duplicates import nearest_within


@dataclass
class Found:
    """Whom each sample was found to be.

    Attributes:
        row: int64 (n,), position among the rows of all lists; -1: none of them.
        value: float64 (n,), Hamming distance or cosine.
        bound: float64 (n,), what that was held against.
    """

    row: Positions
    value: npt.NDArray[np.float64]
    bound: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Benchmarks:
    """All lists together."""

    lists: Sequence[BenchmarkList]

    @cached_property
    def rows(self) -> pa.Table:
        """`benchmark_list.ROWS` of all."""
        return pa.concat_tables([ROWS.empty_table(), *(one.rows for one in self.lists)]).combine_chunks()

    def has_looks(self) -> bool:
        """Whether a list has embeddings."""
        return any(one.vectors is not None for one in self.lists)

    def by_hash(self, hashes: Hashes, known: Flags, config: Decontamination) -> Found:
        """The nearest one within `max_distance` of each sample's hash (n), where that is known."""
        row, distance = np.full(len(hashes), -1, np.int64), np.full(len(hashes), np.nan)
        theirs = self.rows["phash"].to_numpy()
        row[known], bits = nearest_within(hashes[known], config.max_distance, against=theirs)
        distance[known] = bits
        return Found(row, distance, np.full(len(hashes), float(config.max_distance)))

    def by_look(self, found: Found, blocks: Blocks, at_least: float) -> None:
        """Add to what hashes found whoever looks like one of theirs; the most alike counts."""
        start = 0
        for _, read in blocks:
            vectors = read()
            row, most = np.full(len(vectors), -1, np.int64), np.full(len(vectors), at_least)
            for first, theirs in self._vectors():
                cosines = vectors @ theirs.T
                best = cosines.argmax(axis=1)
                here = cosines[np.arange(len(vectors)), best]
                # Not a number is no look.
                closer = (here > most) | ((row < 0) & (here >= at_least))
                row[closer], most[closer] = first + best[closer], here[closer]
            new = np.flatnonzero((row >= 0) & (found.row[start : start + len(vectors)] < 0))
            found.row[start + new], found.value[start + new] = row[new], most[new]
            found.bound[start + new] = at_least
            start += len(vectors)

    def _vectors(self) -> list[tuple[int, Vectors]]:
        starts = np.cumsum([0, *(one.rows.num_rows for one in self.lists)])
        return [
            (int(first), one.vectors.astype(np.float32))
            for first, one in zip(starts, self.lists, strict=False)
            if one.vectors is not None
        ]
