"""Bodies on disk, in the order in which they came: a shard of large pictures need not fit into memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from vlmdata.errors import StoreError


class Place(NamedTuple):
    """Where a body lies."""

    offset: int
    size: int


class Spill:
    """A file that bodies are appended to."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file.fileno()
        self._end = 0

    def add(self, body: bytes) -> Place:
        """Take in a body; by one thread at a time.

        Raises:
            StoreError: the disk is full.
        """
        place = Place(self._end, len(body))
        try:
            written = 0
            while written < len(body):
                written += os.pwrite(self._file, body[written:] if written else body, self._end + written)
        except OSError as error:
            where = tempfile.gettempdir()
            raise StoreError(f"{where}: {error.strerror}; free space, or set TMPDIR to a larger disk") from error
        self._end += len(body)
        return place

    def read(self, place: Place) -> bytes:
        """A body, by any thread."""
        return os.pread(self._file, place.size, place.offset)


@contextmanager
def spill() -> Iterator[Spill]:
    """One in a file without a name, which is gone afterwards, or with the process."""
    with tempfile.TemporaryFile(prefix="vlmdata-", buffering=0) as file:
        yield Spill(file)
