"""Tux Paint's stamps with their descriptions in many languages: they measure, and are never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ENGLISH = "en"
# The package's codes of what BCP 47 calls otherwise; of two varieties the one with more speakers.
TAGS = {"zh_CN": "zh", "nb": "no"}


@dataclass(frozen=True)
class Stamp:
    """A stamp's picture, and its descriptions by language tag."""

    picture: Path
    captions: dict[str, str]

    @cached_property
    def key(self) -> str:
        """Names a stamp by its content."""
        return hashlib.sha256(self.picture.read_bytes()).hexdigest()[:24]


def stamps(folder: Path) -> list[Stamp]:
    """Every stamp that has a picture and an English description."""
    found = []
    for text in sorted(folder.rglob("*.txt")):
        captions = descriptions(text.read_text(encoding="utf-8", errors="replace").splitlines())
        pictures = [text.with_suffix(suffix) for suffix in (".svg", ".png")]
        picture = next((path for path in pictures if path.is_file()), None)
        if picture and ENGLISH in captions:
            found.append(Stamp(picture, captions))
    return found


def descriptions(lines: list[str]) -> dict[str, str]:
    """By language: the first line is English, others look like `fr.utf8=...`; varieties (`pt_BR`) are left out."""
    told = dict(line.split(".utf8=", 1) for line in lines[1:] if ".utf8=" in line)
    if lines and "utf8=" not in lines[0]:
        told[ENGLISH] = lines[0]
    by_tag = {TAGS.get(code, code): text.strip() for code, text in told.items()}
    return {tag: text for tag, text in by_tag.items() if text and tag.isalpha()}


def gallery(found: Iterable[Stamp], pictures: dict[str, Path], language: str) -> list[tuple[str, list[str]]]:
    """A picture's key and its description, for each description of a language; each text and picture once."""
    described = {
        stamp.captions[language]: stamp.key
        for stamp in reversed([*found])
        if language in stamp.captions and stamp.key in pictures
    }
    return [(key, [text]) for text, key in described.items()]
