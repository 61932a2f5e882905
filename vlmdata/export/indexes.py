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
from vlmdata.export.names import folder as folder_of
from vlmdata.scratch import scratch


@dataclass(frozen=True)
class Index:
    """One such file; its bytes lie on a disk."""

    path: str
    format: str
    split: str | None
    sha256: str
    data: pa.Buffer

    @property
    def facts(self) -> dict[str, Any]:
        """As MANIFEST.json has them."""
        told = {"path": self.path, "format": self.format, "bytes": self.data.size, "sha256": self.sha256}
        return {**told, "split": self.split} if self.split else told


def is_index(path: str) -> bool:
    """Whether a file of an export is one."""
    ends = (f"{name}/{format_.INDEX}" for name, format_ in FORMATS.items() if isinstance(format_, WithIndex))
    return any(path == end or path.endswith(f"/{end}") for end in ends)


@contextmanager
def indexes(
    formats: Sequence[str], files: Sequence[Mapping[str, Any]], read: Callable[[str], pa.Buffer]
) -> Iterator[list[Index]]:
    """The indexes over these files, one a format and split, for as long as the block runs.

    Args:
        formats: Of which formats.
        files: Facts of the shards' files, in the order of their paths.
        read: Gives any of these files by its path below the export's folder.
    """
    splits: list[str | None] = [*sorted({str(file["split"]) for file in files if file.get("split")})] or [None]
    with scratch() as folder:
        made: list[Index] = []
        for split in splits:
            own = [file for file in files if file.get("split") == split]
            for name in formats:
                if isinstance(format_ := FORMATS[name], WithIndex):
                    made.append(_made(name, split, format_, own, read, folder / f"{len(made)}"))
        yield made


def _made(
    name: str,
    split: str | None,
    format_: WithIndex,
    files: Sequence[Mapping[str, Any]],
    read: Callable[[str], pa.Buffer],
    place: Path,
) -> Index:
    below = folder_of(name, split)
    own = [{**file, "path": file["path"].removeprefix(f"{below}/")} for file in files if file["format"] == name]
    digest = sha256()
    with place.open("wb") as out:
        for part in format_.index(own, lambda path: read(f"{below}/{path}")):
            digest.update(part)
            out.write(part)
    with pa.memory_map(str(place)) as mapped:
        return Index(f"{below}/{format_.INDEX}", name, split, digest.hexdigest(), mapped.read_buffer())
