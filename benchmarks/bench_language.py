"""Accuracy of the language identification on captions whose language is known: Tux Paint's stamps in many languages.

Nothing of ours was fitted to these captions; what py3langid was trained on we do not know.
A caption whose translator left it in English counts against the identification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.builds import Row
from vlmdata.measure.language import identify, knows, primary, same_language
from vlmdata.quality.languages import JUDGED_FROM, SURE

PACKAGE = "tuxpaint-stamps-default"
STAMPS = Path("/usr/share/tuxpaint/stamps")
MAJOR = ("en", "zh", "es", "ar", "hi", "pt", "ru", "ja", "de", "fr", "ko", "it", "tr", "pl", "vi", "th", "id", "nl")
"""Languages that the remarks tell of one by one."""
ENGLISH = "en"


@dataclass(frozen=True)
class Judged:
    """A caption that is long enough to be judged: its true language, and what was made of it."""

    language: str
    sure: bool
    right: bool


def run(folder: Path = STAMPS) -> list[Row]:
    """(name, share, bound, remark): right among captions that it is sure of, and how many those are."""
    judged = judge(sorted(set(labelled(folder))))
    sure = [one for one in judged if one.sure]
    long = f"of {len(judged):,} captions of {JUDGED_FROM} characters or more"
    return [
        ("language: right where sure", _share(sure, "right"), ">= 0.98", f"p >= {SURE}; {_told(sure, 'right')}"),
        ("language: sure", _share(judged, "sure"), "", f"{len(sure):,} {long}; {_told(judged, 'sure')}"),
        ("language: right, sure or not", _share(judged, "right"), "", _told(judged, "right")),
    ]


def judge(captions: list[tuple[str, str]]) -> list[Judged]:
    """What the identification says of (language, text) pairs, those left out that are too short or not to be known."""
    fit = [(tag, text) for tag, text in captions if len(text) >= JUDGED_FROM and knows(tag)]
    found = identify([text for _, text in fit])
    return [
        Judged(primary(tag), probability >= SURE, same_language(tag, seen))
        for (tag, _), (seen, probability) in zip(fit, found, strict=True)
    ]


def labelled(folder: Path) -> Iterator[tuple[str, str]]:
    """(BCP 47 tag, description) of every stamp: a first line in English, then such as `pt_BR.utf8=...`.

    Raises:
        SystemExit: there are no stamps; one line says what to install.
    """
    files = sorted(folder.rglob("*.txt"))
    if not files:
        raise SystemExit(f"benchmarks: no captions in {folder}; install Debian's package {PACKAGE}")
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines()):
            code, mark, text = line.partition(".utf8=")
            if mark and text.strip():
                yield code.partition("@")[0].replace("_", "-"), text.strip()
            elif number == 0 and line.strip():
                yield ENGLISH, line.strip()


def _share(judged: list[Judged], what: str) -> float:
    return sum(getattr(one, what) for one in judged) / len(judged) if judged else 0.0


def _told(judged: list[Judged], what: str) -> str:
    """Shares of the major languages, with how many captions each has."""
    counts = Counter(one.language for one in judged)
    own = {language: [one for one in judged if one.language == language] for language in MAJOR}
    return ", ".join(f"{tag} {_share(own[tag], what):.2f} of {counts[tag]:,}" for tag in MAJOR if counts[tag])
