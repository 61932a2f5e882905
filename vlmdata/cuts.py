"""Cut a long list into parts that fit in memory: a bound on rows, and one on bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def cuts(sizes: npt.NDArray[np.int64], most_rows: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive parts of at most `most_rows` rows and `most_bytes` bytes.

    A row that is larger than `most_bytes` is a part of its own.

    Args:
        sizes: bytes of each row, int64 (n,).
        most_rows: 1 or more.
        most_bytes: 1 or more.
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        fits = int(np.searchsorted(ends, before + most_bytes, side="right"))
        stop = min(start + most_rows, max(fits, start + 1))
        yield start, stop
        start = stop
