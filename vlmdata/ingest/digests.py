"""Digests that a list may give for its pictures, told apart by their length: those of img2dataset's `verify_hash`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

DIGESTS: dict[int, tuple[str, Callable[[bytes], Any]]] = {
    32: ("md5", lambda data: hashlib.md5(data, usedforsecurity=False)),
    64: ("sha256", hashlib.sha256),
    128: ("sha512", hashlib.sha512),
}
"""By the number of hex digits: its name, and what makes it."""


def mismatch(data: bytes, wanted: str) -> str | None:
    """What is to be said of bytes that are not what was asked for; None: they are."""
    name, make = DIGESTS[len(wanted)]
    found = make(data).hexdigest()
    return None if found == wanted else f"its {name} is {found}, not {wanted}"
