"""The seam behind which an export format lies: one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa
from typing_extensions import Buffer

from vlmdata.export.pixels import Picture

FOUND = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("captions", pa.int32(), metadata={"note": "how many"}),
        pa.field("file", pa.string(), metadata={"note": "below the format's folder: where the picture lies"}),
        pa.field("offset", pa.int64(), metadata={"note": "where in that file: byte, or row"}),
    ]
)
"""What reading a shard back finds, one row a sample, in the shard's order."""


class Found(NamedTuple):
    """A shard that was read back: n rows of `FOUND`, and their n pictures as they come, each a view."""

    rows: pa.Table
    pictures: Iterable[pa.Buffer]


class File(NamedTuple):
    """A file to be written; `path` is below the format's folder."""

    path: str
    data: Buffer


Read = Callable[[str], pa.Buffer]
"""Gives a file by its path below the format's folder; FileNotFoundError if there is none."""


class Format(Protocol):
    """What a module of this folder offers to be an export format.

    The names of its files are digits, but for an index: `names.is_ours` knows them by that.
    """

    def write(self, rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
        """The files of one shard of n samples, a function of the arguments to the byte.

        The last one stands for the shard: MANIFEST.json names it, and it is written last.
        """

    def read_back(self, path: str, read: Read) -> Found:
        """What a shard holds, by the file that stands for it. Raises whatever it likes on one that is damaged."""


@runtime_checkable
class WithFolder(Protocol):
    """A format that has files beside the one that stands for a shard."""

    def beside(self, data: pa.Buffer) -> dict[str, str]:
        """Their paths, and the sha256 of each, as the file that stands for the shard tells them."""


@runtime_checkable
class WithIndex(Protocol):
    """A format whose reader wants one file that tells of all shards."""

    INDEX: str

    def index(self, files: Sequence[Mapping[str, Any]], read: Read) -> Iterator[bytes]:
        """Its bytes, in parts, from the facts of the shards' files, with paths below the format's folder."""


@runtime_checkable
class WithExtra(Protocol):
    """A format that needs a package of its own."""

    PACKAGE: str
    MODULE: str
