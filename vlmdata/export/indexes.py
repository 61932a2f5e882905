"""Files of an export that tell of all its shards: made from those shards' facts, so that anybody makes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlmdata.export.format import WithIndex
from vlmdata.export.formats import FORMATS
from vlmdata.export.scratch import scratch


@dataclass(frozen=True)
class Index:
    """One such file; its bytes lie on a disk."""

    path: str
    format: str
    sha256: str
    data: pa.Buffer

    @property
    def facts(self) -> dict[str, Any]:
        """As MANIFEST.json has them."""
        return {"path": self.path, "format": self.format, "bytes": self.data.size, "sha256": self.sha256}


def index_paths(formats: Sequence[str]) -> list[str]:
    """Where they lie below the export's folder."""
    known = ((name, FORMATS[name]) for name in formats)
    return [f"{name}/{format_.INDEX}" for name, format_ in known if isinstance(format_, WithIndex)]


@contextmanager
def indexes(
    formats: Sequence[str], files: Sequence[Mapping[str, Any]], read: Callable[[str], pa.Buffer]
) -> Iterator[list[Index]]:
    """The indexes over these files, for as long as the block runs.

    Args:
        formats: Of which formats.
        files: Facts of the shards' files, in the order of their paths.
        read: Gives any of these files by its path below the export's folder.
    """
    with scratch() as folder:
        made = []
        for name in formats:
            if isinstance(format_ := FORMATS[name], WithIndex):
                made.append(_made(name, format_, files, read, folder / name))
        yield made


def _made(
    name: str, format_: WithIndex, files: Sequence[Mapping[str, Any]], read: Callable[[str], pa.Buffer], place: Path
) -> Index:
    own = [{**file, "path": file["path"].partition("/")[2]} for file in files if file["format"] == name]
    digest = sha256()
    with place.open("wb") as out:
        for part in format_.index(own, lambda path: read(f"{name}/{path}")):
            digest.update(part)
            out.write(part)
    with pa.memory_map(str(place)) as mapped:
        return Index(f"{name}/{format_.INDEX}", name, digest.hexdigest(), mapped.read_buffer())
