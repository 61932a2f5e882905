"""Signs that a picture is not to be used for training: in an answer's headers, a page's head, a picture's metadata.

Which words of X-Robots-Tag count is the practice of the field (img2dataset):
`noai`, `noimageai`, `noindex` and `noimageindex`; and `none`, which means `noindex`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vlmdata.ingest.web.robots import product

_NO = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_TAKES_VALUE = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
_HEAD_BYTES = 1 << 16

_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
"""Stands at the start of all XMP, its wrapper left out or not; and a long needle is soon found to be missing."""
_RDF_END = b"</rdf:RDF>"

# Possessive throughout: what strangers write is read in one pass. No parser, so that nothing can be made to expand.
_RESERVATION = re.compile(rb"""[:-]reserv[a-z_]*+["']?+\s*+(?:=\s*+["']|>)\s*+1\s*+["'<]""", re.IGNORECASE)
_META = re.compile(rb"<meta\b([^<>]*+)", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"""(?<![\w-])([\w-]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"']++))""")


def reserved_by_headers(headers: Mapping[str, str], user_agent: str) -> str | None:
    """`x_robots_tag` or `tdm_reservation` if the headers of an answer reserve it, else None."""
    if any(_says_no(value, product(user_agent)) for value in _all(headers, "X-Robots-Tag")):
        return "x_robots_tag"
    if any(_is_one(value) for value in _all(headers, "tdm-reservation")):
        return "tdm_reservation"
    return None


def _is_one(value: str) -> bool:
    return any(part.strip() == "1" for part in value.split(","))


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
        head = head.strip().lower()
        # A name is one word: `25 Jun 2030 15:00:00 GMT` is the rest of a date that had a comma.
        if colon and head not in _TAKES_VALUE and not re.search(r"\s", head):
            ours = head == "*" or product(head) == name.lower()
            part = rest
        if ours and part.strip().lower() in _NO:
            return True
    return False


def reserved_by_metadata(data: bytes) -> str | None:
    """`tdm_reservation` if the XMP of a picture (the PLUS vocabulary, or TDMRep's) prohibits mining, else None.

    A prohibition with constraints or for some uses alone (`DMI-PROHIBITED-AIMLTRAINING` and the like) is one, too.
    """
    for packet in _packets(data):
        if b"DMI-PROHIBITED" in packet or (b"tdm" in packet and _RESERVATION.search(packet)):
            return "tdm_reservation"
    return None


def _packets(data: bytes) -> Iterator[bytes]:
    start = data.find(_RDF)
    while start >= 0:
        end = data.find(_RDF_END, start)
        end = len(data) if end < 0 else end
        yield data[start:end]
        start = data.find(_RDF, end)


def reserved_by_page(html: bytes) -> str | None:
    """`x_robots_tag` or `tdm_reservation` if a page's `<meta>` reserves it, else None."""
    said = [_attributes(tag) for tag in _META.findall(html[:_HEAD_BYTES])]
    if any(_says_no(meta.get("content", ""), "") for meta in said if meta.get("name") == "robots"):
        return "x_robots_tag"
    if any(_is_one(meta.get("content", "")) for meta in said if meta.get("name") == "tdm-reservation"):
        return "tdm_reservation"
    return None


def _attributes(tag: bytes) -> dict[str, str]:
    """Names and values, in lower case."""
    found = _ATTRIBUTE.findall(tag.lower())
    return {_text(name): _text(b"".join(values)).strip() for name, *values in found}


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
