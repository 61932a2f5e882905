"""What a host's own files allow: robots.txt (RFC 9309) and tdmrep.json (the W3C's TDM Reservation Protocol)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from protego import Protego
from yarl import URL

_MOST_BYTES = 512 * 1024
"""RFC 9309 asks for at least 500 KiB."""
_MOST_RESERVATIONS = 10_000


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
    name = product(user_agent)
    rules = _parsed(body[:_MOST_BYTES])
    delay = rules.crawl_delay(name)
    return Robots(allows=lambda url: bool(rules.can_fetch(url, name)), delay_s=delay if delay and delay > 0 else None)


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8-sig", errors="replace").replace("\0", "\ufffd")
    return Protego.parse(text)


def _always(_: str) -> bool:
    return True


def _never(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Reservations:
    """Which addresses of a host are reserved from text and data mining; the first pattern that fits decides."""

    rules: tuple[tuple[re.Pattern[str], bool], ...] = ()

    def reserves(self, url: str) -> bool:
        """Whether mining an address of this host is reserved."""
        if not self.rules:
            return False
        path = URL(url).raw_path_qs
        return next((reserved for pattern, reserved in self.rules if pattern.match(path)), False)


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


def _rule(entry: dict[str, Any]) -> tuple[re.Pattern[str], bool]:
    return _pattern(entry["location"]), entry["tdm-reservation"] in (1, "1", True)


@lru_cache(maxsize=4096)
def _pattern(location: str) -> re.Pattern[str]:
    """`*` stands for anything, `$` for the end, as in robots.txt."""
    ends = location.endswith("$")
    # Neighbouring stars are one: else a stranger's pattern could take for ever.
    parts = [re.escape(part) for part in re.sub(r"\*+", "*", location.removesuffix("$")).split("*")]
    return re.compile(".*?".join(parts) + ("$" if ends else ""), re.DOTALL)
