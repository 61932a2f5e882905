"""Bodies on disk, in the order in which they came: a shard of large pictures need not fit into memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from vlmdata.scratch import temporary_file_errors


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
        with temporary_file_errors():
            written = 0
            while written < len(body):
                written += os.pwrite(self._file, body[written:] if written else body, self._end + written)
        self._end += len(body)
        return place

    def read(self, place: Place) -> bytes:
        """A body, by any thread."""
        return os.pread(self._file, place.size, place.offset)


@contextmanager
def spill() -> Iterator[Spill]:
    """One in a file without a name, which is gone afterwards, or with the process.

    Raises:
        StoreError: the disk is full, or there is no place for temporary files.
    """
    with temporary_file_errors():
        file = tempfile.TemporaryFile(prefix="vlmdata-", buffering=0)  # noqa: SIM115 - closed below
    with file:
        yield Spill(file)
