"""Names that an export's files have; a manifest that names others is not believed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

CARD, CROISSANT, MANIFEST = "README.md", "croissant.json", "MANIFEST.json"

_SPLIT = r"(?:[a-z][a-z0-9_]{0,31}/)?"
_FILE = re.compile(rf"{_SPLIT}(?:[a-z]+/(?:[a-z]+/|_[a-z]+/)?[0-9]+\.[a-z]+|[a-z]+/[a-z]+\.json)")
_PICTURE = re.compile(rf"({_SPLIT}[a-z]+/images/[0-9]+)/[0-9a-f]{{32}}\.(?:jpg|png|webp)")
_ABOUT = re.compile(r"README\.md|croissant\.json")
_PLOTS = {f"plots/{name}.svg" for name in ("shorter_side", "aspect_ratio", "caption_length", "languages", "scores")}
_EXPORT = re.compile(r"[0-9a-f]{32}")


def is_ours(path: str) -> bool:
    """Whether a file of an export can have that path below its folder: it leads nowhere else."""
    return bool(is_plot(path) or _ABOUT.fullmatch(path) or _FILE.fullmatch(path))


def folder(format_: str, split: str | None) -> str:
    """Where the files of a format lie, below the export's folder; each split has its own."""
    return f"{split}/{format_}" if split else format_


def shard_of(name: str) -> tuple[str | None, str]:
    """The split of an export's shard, by its name, and its number there: `train-00000` or `00000`."""
    split, _, number = name.rpartition("-")
    return split or None, number


def shard_name(split: str | None, number: int) -> str:
    """What `shard_of` takes apart."""
    return f"{split}-{number:05d}" if split else f"{number:05d}"


def pictures_beside(file: Mapping[str, Any]) -> str:
    """The folder of the pictures that belong to a shard, by the file that stands for it, as MANIFEST.json lists it."""
    number = str(file["path"]).rpartition("/")[2].partition(".")[0]
    return f"{folder(file['format'], file.get('split'))}/images/{number}"


def folder_of_picture(path: str) -> str | None:
    """The folder of a picture that lies in one of its own; None: that is none."""
    known = _PICTURE.fullmatch(path)
    return known[1] if known else None


def is_plot(path: str) -> bool:
    """Whether it is a picture of the card's: there are some only where somebody could draw them."""
    return path in _PLOTS


def is_export(key: str) -> bool:
    """Whether an export can have that name."""
    return bool(_EXPORT.fullmatch(key))


def missing(files: Iterable[Mapping[str, Any]], there: Collection[str]) -> str | None:
    """The first of an export's files that is not there, or that lacks files beside it; None: all are there.

    Args:
        files: As MANIFEST.json lists them.
        there: Paths below the export's folder.
    """
    pictures = Counter(folder_of_picture(path) for path in there)
    for file in files:
        beside = file.get("beside", {}).get("files", 0)
        if file["path"] not in there or (beside and pictures[pictures_beside(file)] < beside):
            return str(file["path"])
    return None
