"""Names that an export's files have; a manifest that names others is not believed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

CARD, MANIFEST = "README.md", "MANIFEST.json"

_FILE = re.compile(r"[a-z]+/([a-z]+/|_[a-z]+/)?[0-9]+\.[a-z]+|[a-z]+/[a-z]+\.json")
_PICTURE = re.compile(r"[a-z]+/images/([0-9]+)/[0-9a-f]{32}\.(jpg|png|webp)")
_EXPORT = re.compile(r"[0-9a-f]{32}")


def is_ours(path: str) -> bool:
    """Whether a file of an export can have that path below its folder: it leads nowhere else."""
    return path == CARD or bool(_FILE.fullmatch(path))


def shard_of_picture(path: str) -> str | None:
    """The shard of a picture that lies in a folder of its own; None: that is none."""
    known = _PICTURE.fullmatch(path)
    return known[1] if known else None


def is_export(key: str) -> bool:
    """Whether an export can have that name."""
    return bool(_EXPORT.fullmatch(key))


def missing(files: Iterable[Mapping[str, Any]], there: Collection[str]) -> str | None:
    """The first of an export's files that is not there, or that lacks files beside it; None: all are there.

    Args:
        files: As MANIFEST.json lists them.
        there: Paths below the export's folder.
    """
    pictures = Counter(shard_of_picture(path) for path in there)
    for file in files:
        shard = file["path"].rpartition("/")[2].partition(".")[0]
        if file["path"] not in there or pictures[shard] < file.get("beside", {}).get("files", 0):
            return str(file["path"])
    return None
