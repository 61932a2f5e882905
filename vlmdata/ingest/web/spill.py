"""Bodies on disk, in the order in which they came: a shard of large pictures need not fit into memory."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import IO, NamedTuple

from vlmdata.scratch import temporary_file_errors

_TOGETHER, _BEHIND = 1 << 19, 1 << 21
"""Bytes that are written at a time, in a thread, so that who asks the web need not wait for a disk; and bytes that
may wait for one that is slow."""
_MOST_PARTS = 1024
"""Of one write; what Linux and BSD take (IOV_MAX)."""


class Place(NamedTuple):
    """Where a body lies."""

    offset: int
    size: int


class Spill:
    """A file that bodies are appended to. Added and settled on the event loop's thread, read on any other."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0
        self._waiting: list[bytes] = []
        self._begin = 0
        """Where the first of those that wait will lie."""
        self._writing = threading.Lock()

    async def add(self, body: bytes) -> Place:
        """Take in a body.

        Raises:
            StoreError: the disk is full.
        """
        place = Place(self._end, len(body))
        self._end += len(body)
        self._waiting.append(body)
        waiting = self._end - self._begin
        if waiting >= _BEHIND:
            # Nothing more is asked for until it is written: memory is not to make up for the disk.
            self._write(*self._taken())
        elif waiting >= _TOGETHER and not self._writing.locked():
            await self.settle()
        return place

    async def settle(self) -> None:
        """Write all that waits; bodies can be read from then on.

        Raises:
            StoreError: the disk is full.
        """
        await asyncio.to_thread(self._write, *self._taken())

    def read(self, place: Place) -> bytes:
        """A body that was settled."""
        return os.pread(self._file.fileno(), place.size, place.offset)

    def close(self) -> None:
        """Once what is being written is: its thread goes on where nobody waits any more, and the number of a file
        that is closed is soon another file's."""
        with self._writing:
            self._file.close()

    def _taken(self) -> tuple[list[bytes], int]:
        taken = self._waiting, self._begin
        self._waiting, self._begin = [], self._end
        return taken

    def _write(self, bodies: Sequence[bytes], offset: int) -> None:
        with self._writing, temporary_file_errors():
            while bodies and not self._file.closed:
                written = os.pwritev(self._file.fileno(), bodies[:_MOST_PARTS], offset)
                bodies, offset = _less(bodies, written), offset + written


def _less(bodies: Sequence[bytes], written: int) -> Sequence[bytes]:
    """What is left of them when so many bytes are written."""
    whole = 0
    while whole < len(bodies) and len(bodies[whole]) <= written:
        written -= len(bodies[whole])
        whole += 1
    return [bodies[whole][written:], *bodies[whole + 1 :]] if written else bodies[whole:]


@contextmanager
def spill() -> Iterator[Spill]:
    """One in a file without a name, which is gone afterwards, or with the process.

    Raises:
        StoreError: the disk is full, or there is no place for temporary files.
    """
    with temporary_file_errors():
        kept = Spill(tempfile.TemporaryFile(prefix="vlmdata-", buffering=0))  # noqa: SIM115 - closed with it
    with closing(kept):
        yield kept
