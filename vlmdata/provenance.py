"""Where pictures come from, as coarse as people speak of it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

PROVENANCE = ["url", "source"]
"""Columns of samples that it is read from."""

_HOST = r"^(?:[A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@]*@)?(?P<name>[^/?#:@]+)"
_FOLDER = r"^(?P<name>[^/]+)/"
_HERE = "."


def came_from(samples: pa.Table) -> pa.ChunkedArray:
    """The host of each picture's address; else the first folder or archive below the source's root: n strings."""
    host = pc.utf8_lower(_named(samples["url"], _HOST))
    return pc.coalesce(host, _named(samples["source"], _FOLDER), _HERE)


def _named(texts: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.struct_field(pc.extract_regex(texts, pattern), "name")
