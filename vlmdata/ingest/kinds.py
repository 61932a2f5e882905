"""What a kind of source does, and which kinds of files there are.

Adding a kind takes a module with these functions, and a line in `KINDS`.
"""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from vlmdata.ingest import folder, parquet, webdataset


class SourceKind(Protocol):
    """What a kind of source does."""

    def fingerprint(self, source: Any) -> list[str] | None:
        """What the listing follows from, at the price of a stat; None if listing is as cheap."""

    def list_rows(self, source: Any) -> pa.Table:
        """Every sample, with the columns of `LISTING`, sorted by key; opens no picture."""

    def read_rows(self, source: Any, rows: pa.Table) -> tuple[list[bytes | None], list[str | None]]:
        """Bytes of listed samples; None and a reason for what cannot be read."""

    def places(self, rows: pa.Table) -> list[str]:
        """Where each sample lies below the source's root, for people."""


KINDS: dict[str, SourceKind] = {"folder": folder, "webdataset": webdataset, "parquet": parquet}
