"""openclipart's drawings, and what their makers say that they show."""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

HELD_OUT = 1_000
# Families of generated shapes and of playing cards: hundreds of drawings a caption.
LEFT_OUT = ("shapes/stars", "special/gradients", "special/patterns", "recreation/games/cards")
# Words of the library's own housekeeping; they say nothing of the picture.
NOISE_WORDS = (
    "hash externalsource unchecked clip_art clipart clip art theme icons icon unsorted various svg"
    " lemon_theme_icon action application special miscellany sign symbol shape collection format"
)
NOISE = frozenset(NOISE_WORDS.split())


@dataclass(frozen=True)
class Drawing:
    """A picture to render, and what its makers say it shows."""

    svg: str
    title: str
    keywords: tuple[str, ...]
    source: str
    part: str = "train"

    @property
    def key(self) -> str:
        """Names the rendered file: the drawing's content."""
        return hashlib.sha256(self.svg.encode()).hexdigest()[:24]

    @property
    def full(self) -> str:
        """Title and keywords in one line."""
        return ", ".join([self.title, *self.keywords])

    def captions(self) -> list[str]:
        """Ways to say it: shorter and longer, as a phrase and as a list."""
        listed = ", ".join(self.keywords) or self.title
        return [self.title, self.full, f"a drawing of {self.title}", listed]


def openclipart(folder: Path) -> list[Drawing]:
    """Every drawing with a name of its own, 1,000 of them marked as held out."""
    paths = [path for path in sorted(folder.rglob("*.svg")) if not path.is_symlink()]
    paths = [path for path in paths if not str(path.relative_to(folder)).startswith(LEFT_OUT)]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    titles = [_title(text) for text in texts]
    uses = Counter(titles)
    drawings = []
    for path, text, title in zip(paths, texts, titles, strict=True):
        where = path.relative_to(folder).parent.parts
        own = title if title and uses[title] <= 3 else words(path.stem)
        source = "openclipart-icons" if where[:1] == ("computer",) else "openclipart"
        drawings.append(Drawing(text, own, _keywords(text, where, own), source))
    return _hold_out([drawing for drawing in drawings if drawing.title])


def _title(svg: str) -> str:
    found = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", svg, re.DOTALL)
    return words(found.group(1)) if found else ""


def _keywords(svg: str, where: tuple[str, ...], title: str) -> tuple[str, ...]:
    listed = [words(word) for word in re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", svg, re.DOTALL)]
    listed = [word for word in listed if "(" not in word and word not in NOISE]
    named = [*listed, *(words(part) for part in reversed(where))]
    # "architetto francesco rollandin": who drew it stands among what it shows.
    makers = {words(name) for name in re.findall(r"<dc:title>([^<]+)</dc:title>", svg)}
    unfit = {"", title, *makers, *NOISE}
    return tuple(dict.fromkeys(word for word in named if word not in unfit and len(word.split()) <= 3))[:5]


def words(text: str) -> str:
    """A name as words: no markup, underscores, camel case, trailing numbers."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", text))
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    text = re.sub(r"[_\-./\\]+|\s+", " ", text).strip().lower()
    return re.sub(r"(\s*\d+)+$", "", text).strip()


def _hold_out(drawings: list[Drawing]) -> list[Drawing]:
    """Put whole titles aside, so that variants of one drawing are never on both sides."""
    titles = {drawing.title for drawing in drawings if drawing.source == "openclipart"}
    chosen = set(sorted(titles, key=lambda t: hashlib.sha256(t.encode()).hexdigest())[:HELD_OUT])
    seen: set[str] = set()
    marked = []
    for drawing in drawings:
        if drawing.title not in chosen:
            marked.append(drawing)
        elif drawing.title not in seen and drawing.source == "openclipart":
            seen.add(drawing.title)
            marked.append(replace(drawing, part="held out"))
    return marked
