"""Two sets of emoji, and the names that Unicode gives them in many languages."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starter.drawings import Drawing, words

EMOJI_SETS = {"@iconify-json/noto": "1.2.9", "@iconify-json/fluent-emoji-flat": "1.2.6"}
SKIN_TONE = re.compile(r"skin-tone|-(medium-)?(light|dark)$|-medium$")
HELD_OUT_EMOJI = 400
KEYWORDS = 4


@dataclass(frozen=True)
class IconSet:
    """Drawings by icon name, and the characters that they draw."""

    drawings: dict[str, Drawing]
    characters: dict[str, str]

    def drawn(self) -> Iterator[tuple[str, Drawing]]:
        """Characters with their drawings."""
        for character, name in self.characters.items():
            if name in self.drawings:
                yield character, self.drawings[name]


def fetch_emoji(work: Path) -> list[IconSet]:
    """The emoji sets, out of npm's packages."""
    folder = work / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    return [read_icon_set(_package(folder, name, version)) for name, version in EMOJI_SETS.items()]


def _package(folder: Path, name: str, version: str) -> Path:
    archive = folder / f"{name.strip('@').replace('/', '-')}-{version}.tgz"
    if not archive.is_file():
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
    return archive


def read_icon_set(archive: Path) -> IconSet:
    """The emoji of an iconify set by name, without skin tones (five times the same name)."""
    icons, characters = (_json(archive, f"package/{name}.json") for name in ("icons", "chars"))
    width, height = icons.get("width", 16), icons.get("height", 16)
    drawings = {}
    for name, icon in sorted(icons["icons"].items()):
        if SKIN_TONE.search(name) or "keycap" in name or len(name) < 2:
            continue
        box = f"0 0 {icon.get('width', width)} {icon.get('height', height)}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
        drawings[name] = Drawing(svg, words(name), (), "emoji")
    return IconSet(drawings, {_character(code): name for code, name in sorted(characters.items())})


def _json(archive: Path, member: str) -> Any:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise SystemExit(f"{archive} holds no {member}")
        return json.load(file)


def _character(code: str) -> str:
    """The emoji of code points such as `1f9d1-200d-1f680`, without the selector that CLDR leaves out as well."""
    return "".join(chr(int(part, 16)) for part in code.split("-")).replace("\ufe0f", "")


@dataclass(frozen=True)
class Names:
    """An emoji's name and keywords in one language."""

    name: str
    keywords: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """Name and keywords in one line."""
        others = [word for word in self.keywords if word != self.name]
        return ", ".join([self.name, *others[:KEYWORDS]])


def names_in(cldr: Path, language: str) -> dict[str, Names]:
    """Unicode's names of emoji in a language by character, from CLDR's `annotations` folder."""
    names: dict[str, Names] = {}
    for annotation in Xml.parse(cldr / f"{language}.xml").getroot().iter("annotation"):
        character, text = annotation.get("cp", ""), (annotation.text or "").strip()
        known = names.get(character, Names(""))
        if annotation.get("type") == "tts":
            names[character] = replace(known, name=text)
        else:
            names[character] = replace(known, keywords=tuple(word.strip() for word in text.split("|")))
    return {character: known for character, known in names.items() if known.name}


def held_out(characters: set[str]) -> set[str]:
    """Emoji to measure on, in all sets alike."""
    by_hash = sorted(characters, key=lambda character: hashlib.sha256(character.encode()).hexdigest())
    return set(by_hash[:HELD_OUT_EMOJI])
