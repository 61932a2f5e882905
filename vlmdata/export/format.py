"""The seam behind which an export format lies: one module a format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from vlmdata.export.pixels import Picture

FOUND = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), metadata={"note": "of the exported picture's bytes"}),
        pa.field("captions", pa.int32(), metadata={"note": "how many"}),
        pa.field("offset", pa.int64(), metadata={"note": "where in the file the picture lies: byte, or row"}),
    ]
)
"""What reading a file back finds, one row a sample, in the file's order."""


class Format(Protocol):
    """What a module of this folder offers to be an export format."""

    EXTENSION: str

    def write(self, rows: pa.Table, pictures: Sequence[Picture]) -> bytes:
        """One file of n samples, a function of its arguments to the byte."""

    def read_back(self, data: bytes) -> pa.Table:
        """What a file holds, as `FOUND`."""
