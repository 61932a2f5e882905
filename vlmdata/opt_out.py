"""The opt-out list: what is to be left alone, whoever lists it.

A text file, one entry a line: a domain (it and all below it), an address,
`sha256:` and 64 hex digits, or `phash:` and 16; `#` begins a comment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from yarl import URL

from vlmdata.errors import ConfigError

_COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
"""A # within a word begins an address's fragment."""
_PLAIN = re.compile(r"https?://[a-z0-9]+(?:\.[a-z0-9]+)+(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+(?:\?[A-Za-z0-9_.~=&-]+)?")
"""An address that is in its normal form already, as most are; the others take ten times as long."""
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True)
class OptOut:
    """Who and what is to be left alone.

    Attributes:
        phashes: uint64 (n,), sorted.
        digest: of all entries, whatever their order.
    """

    domains: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    sha256s: frozenset[str] = frozenset()
    phashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64), compare=False)
    digest: str = ""

    @staticmethod
    def read(path: str | None) -> OptOut:
        """The list in a file; None: nobody is on it.

        Raises:
            ConfigError: the file is not there, or a line of it is none of the four.
        """
        if path is None:
            return NOBODY
        try:
            stat = os.stat(path)
            return _read(path, stat.st_mtime_ns, stat.st_size)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"opt_out = {path!r}: {why}; name a text file of one entry a line") from error

    def __bool__(self) -> bool:
        return bool(self.digest)

    def settings(self) -> dict[str, Any]:
        """What a checkpoint's key says of it: nothing, if there is nothing."""
        return {"opt_out": self.digest} if self else {}

    def refuses_url(self, url: str) -> bool:
        """Whether an address, its domain or one above that is on the list."""
        if not self.domains and not self.urls:
            return False
        try:
            parsed = URL(url)
        except ValueError:
            return False
        if not parsed.raw_host:
            return False
        return (bool(self.urls) and _normal(parsed) in self.urls) or self._refuses_host(
            (parsed.raw_host or "").rstrip(".")
        )

    def _refuses_host(self, host: str) -> bool:
        while host:
            if host in self.domains:
                return True
            host = host.partition(".")[2]
        return False

    def refuses_digest(self, digest: str) -> bool:
        """Whether a picture's sha256, in hex, is on the list."""
        return digest in self.sha256s


NOBODY = OptOut()


@lru_cache(maxsize=2)
def _read(path: str, _mtime: int, _size: int) -> OptOut:
    with open(path, encoding="utf-8-sig") as file:
        return _of(path, enumerate(file, start=1))


def _of(path: str, lines: Iterable[tuple[int, str]]) -> OptOut:
    found: dict[str, set[str]] = {"domain": set(), "url": set(), "sha256": set(), "phash": set()}
    for number, line in lines:
        entry = _COMMENT.sub("", line).strip()
        if not entry:
            continue
        kind, value = _entry(entry)
        if not kind:
            raise ConfigError(
                f"{path} line {number}: {entry[:80]!r} is neither a domain, an address, sha256: and 64 hex digits,"
                " nor phash: and 16"
            )
        found[kind].add(value)
    hashes = np.array(sorted(int(value, 16) for value in found["phash"]), dtype=np.uint64)
    everything = "\n".join(f"{kind}:{value}" for kind in sorted(found) for value in sorted(found[kind]))
    digest = sha256(everything.encode()).hexdigest()[:32] if everything else ""
    return OptOut(frozenset(found["domain"]), frozenset(found["url"]), frozenset(found["sha256"]), hashes, digest)


def _entry(text: str) -> tuple[str, str]:
    """Kind and normal form of an entry; no kind: it is none."""
    name, _, rest = text.partition(":")
    name = name.lower()
    if _PLAIN.fullmatch(text):
        return "url", text
    if _DOMAIN.fullmatch(text):
        return "domain", text
    if name in {"sha256", "phash"}:
        length = {"sha256": 64, "phash": 16}[name]
        return (name, rest.lower()) if re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", rest) else ("", "")
    try:
        if name in {"http", "https"}:
            url = URL(text)
            return ("url", _normal(url)) if url.host and not re.search(r"\s", text) else ("", "")
        host = "" if re.search(r"[/@:?#\s]", text) else (URL(f"http://{text}").raw_host or "").rstrip(".")
    except ValueError:
        return "", ""
    return ("domain", host) if _DOMAIN.fullmatch(host) else ("", "")


def _normal(url: URL) -> str:
    """What is asked of a server: no fragment, no user, and a path."""
    return f"{url.scheme}://{url.host_port_subcomponent}{url.raw_path_qs}"
