"""Signs that a picture is not to be used for training: in an answer's headers, a page's head, a picture's metadata.

Which words of X-Robots-Tag count is the practice of the field (img2dataset):
`noai`, `noimageai`, `noindex` and `noimageindex`; and `none`, which means `noindex`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Any

from vlmdata.ingest.web.robots import product

_NO = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_TAKES_VALUE = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
_HEAD_BYTES = 1 << 16

_XMP_START, _XMP_END = b"<x:xmpmeta", b"</x:xmpmeta>"
_RESERVATION = re.compile(rb"""reserv(?:e|ation)\s*(?:=\s*["']|>)\s*1\s*(?:["']|<)""", re.IGNORECASE)


def reserved_by_headers(headers: Mapping[str, str], user_agent: str) -> str | None:
    """`x_robots_tag` or `tdm_reservation` if the headers of an answer reserve it, else None."""
    if any(_says_no(value, product(user_agent)) for value in _all(headers, "X-Robots-Tag")):
        return "x_robots_tag"
    if any(value.strip() == "1" for value in _all(headers, "tdm-reservation")):
        return "tdm_reservation"
    return None


def _all(headers: Any, name: str) -> Iterable[str]:
    if hasattr(headers, "getall"):
        values: Iterable[str] = headers.getall(name, ())
        return values
    return [value for key, value in headers.items() if key.lower() == name.lower()]


def _says_no(value: str, name: str) -> bool:
    """A robot's name before a colon holds for the words after it, up to the next one."""
    ours = True
    for part in value.split(","):
        head, colon, rest = part.strip().partition(":")
        if colon and head.strip().lower() not in _TAKES_VALUE:
            ours = head.strip().lower() == name.lower()
            part = rest
        if ours and part.strip().lower() in _NO:
            return True
    return False


def reserved_by_metadata(data: bytes) -> str | None:
    """`tdm_reservation` if the XMP of a picture (the PLUS vocabulary, or TDMRep's) prohibits mining, else None."""
    start = data.find(_XMP_START)
    if start < 0:
        return None
    end = data.find(_XMP_END, start)
    packet = data[start:] if end < 0 else data[start:end]
    if b"DMI-PROHIBITED" in packet or (b"tdm" in packet and _RESERVATION.search(packet)):
        return "tdm_reservation"
    return None


def reserved_by_page(html: bytes) -> str | None:
    """`x_robots_tag` or `tdm_reservation` if a page's `<meta>` reserves it, else None."""
    head = _Head()
    head.feed(html[:_HEAD_BYTES].decode("utf-8", errors="replace"))
    if any(_says_no(content, "") for content in head.said.get("robots", ())):
        return "x_robots_tag"
    if any(content.strip() == "1" for content in head.said.get("tdm-reservation", ())):
        return "tdm_reservation"
    return None


class _Head(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "meta" and (name := (given.get("name") or "").strip().lower()):
            self.said.setdefault(name, []).append(given.get("content") or "")
