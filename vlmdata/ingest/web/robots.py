"""What a host's own files allow: robots.txt (RFC 9309) and tdmrep.json (the W3C's TDM Reservation Protocol)."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from protego import Protego
from yarl import URL

_MOST_BYTES = 512 * 1024
"""RFC 9309 asks for at least 500 KiB."""
_MOST_RESERVATIONS = 10_000
_PARSED = 4096
"""Files that are kept parsed, which takes ten times the room of their text; the others are parsed again when asked."""

# Possessive throughout: a stranger's file of half a million blanks is read in one pass.
_AGENT = re.compile(
    r"^([ \t]*+user[ -]?+agent(?=[ \t:])[ \t]*+:?+[ \t]*+)([^\s/#]++)([^\n]*+)", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Robots:
    """A host's robots.txt, as far as it concerns us.

    Attributes:
        allows: whether an address of this host may be asked.
        delay_s: the Crawl-delay, if it names one.
        unknown: there was no answer to go by, so nothing may be asked for now.
    """

    allows: Callable[[str], bool]
    delay_s: float | None = None
    unknown: bool = False


def product(user_agent: str) -> str:
    """The word by which robots.txt knows a robot: `some-robot/2.0 (+https://example.org)` is `some-robot`."""
    return re.split(r"[/\s]", user_agent.strip(), maxsplit=1)[0]


def read_robots(status: int | None, body: bytes, user_agent: str) -> Robots:
    """Robots.txt by the status that it came with; None: there was no answer.

    Without such a file (4xx) all is allowed; while a server cannot say (5xx, 429,
    silence) nothing is. Whatever the file holds is read as far as it makes sense.
    """
    if status is not None and 400 <= status < 500 and status != 429:
        return Robots(allows=_always)
    if status is None or not 200 <= status < 300:
        return Robots(allows=_never, unknown=True)
    name, rules = product(user_agent), _cut(body)
    delay = _parsed(rules, name).crawl_delay(name)
    return Robots(
        allows=lambda url: bool(_parsed(rules, name).can_fetch(url, name)),
        delay_s=delay if delay and delay > 0 else None,
    )


def _cut(body: bytes) -> bytes:
    """What is read of a file; half a line could allow more than the whole one does."""
    return body if len(body) <= _MOST_BYTES else body[:_MOST_BYTES].rpartition(b"\n")[0]


@lru_cache(maxsize=_PARSED)
def _parsed(body: bytes, name: str) -> Any:
    wide = body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = body.decode("utf-16" if wide else "utf-8-sig", errors="replace").replace("\0", "\ufffd")
    return Protego.parse(_naming(name.lower(), text.replace("\r", "\n")))


def _naming(name: str, text: str) -> str:
    """Groups name us by our whole word, whatever version follows it; to Protego, `some` names `some-robot`, too."""

    def agent(line: re.Match[str]) -> str:
        start, word, rest = line.groups()
        if word.lower() == name:
            return start + word
        return f"{start}{name}-{word}{rest}" if word.lower() in name else line[0]

    return _AGENT.sub(agent, text)


def _always(_: str) -> bool:
    return True


def _never(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Location:
    """A pattern of paths: `*` stands for anything, `$` for the end, as in robots.txt.

    Attributes:
        parts: what stands between the stars, percent-decoded.
        whole: the pattern covers the path to its end.
    """

    parts: tuple[str, ...]
    whole: bool

    @staticmethod
    def of(pattern: str) -> Location:
        """Read a pattern; no regular expression comes of it, for a stranger's could take for ever."""
        parts = re.sub(r"\*+", "*", pattern.removesuffix("$")).split("*")
        return Location(tuple(unquote(part) for part in parts), pattern.endswith("$"))

    def covers(self, path: str) -> bool:
        """Whether a path, percent-decoded, is one of those."""
        first, *rest = self.parts
        if not rest:
            return path == first if self.whole else path.startswith(first)
        if not path.startswith(first):
            return False
        place = len(first)
        for part in rest[:-1]:
            found = path.find(part, place)
            if found < 0:
                return False
            place = found + len(part)
        return path[place:].endswith(rest[-1]) if self.whole else rest[-1] in path[place:]


@dataclass(frozen=True, slots=True)
class Reservations:
    """Which addresses of a host are reserved from text and data mining; the first pattern that fits decides."""

    rules: tuple[tuple[Location, bool], ...] = ()

    def reserves(self, url: str) -> bool:
        """Whether mining an address of this host is reserved."""
        if not self.rules:
            return False
        path = unquote(URL(url).raw_path_qs)
        return next((reserved for location, reserved in self.rules if location.covers(path)), False)


def read_tdmrep(status: int | None, body: bytes) -> Reservations:
    """`/.well-known/tdmrep.json`; absent or broken, it reserves nothing. https://www.w3.org/community/reports/tdmrep/"""
    if status != 200:
        return Reservations()
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        return Reservations()
    entries = entries if isinstance(entries, list) else [entries]
    return Reservations(tuple(_rule(entry) for entry in entries[:_MOST_RESERVATIONS] if _is_rule(entry)))


def _is_rule(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("location"), str) and "tdm-reservation" in entry


def _rule(entry: dict[str, Any]) -> tuple[Location, bool]:
    # The text "1" is an error to the protocol, and yet it says what is wanted.
    return Location.of(entry["location"]), entry["tdm-reservation"] in (1, "1")
