"""Rows of a list of addresses become pictures, and an account of how each was fetched."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa

from vlmdata.config import NetworkConfig
from vlmdata.ingest.digests import mismatch
from vlmdata.ingest.reading import Lost, Reading, slices
from vlmdata.ingest.web.download import Download, download_all
from vlmdata.ingest.web.reserved import reserved_by_metadata, reserved_by_page
from vlmdata.ingest.web.spill import Spill, spill
from vlmdata.opt_out import OptOut
from vlmdata.schema import FETCHES

_PAGE_BEGINS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")
_BEGINNING = 1024

_working = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Many shards wait for the web at once; of those that have waited, no more are read than there are processors."""


def fetch_rows(network: NetworkConfig, opt_out: OptOut, rows: pa.Table) -> Iterator[Reading]:
    """Bytes of each listed address, or why there are none; every one has a row of `schema.FETCHES`.

    All are asked for at once; what has come is then handed on, a few in one reading.

    Raises:
        StoreError: the disk is full.
    """
    look, wanted = _Look(network, opt_out), rows["sha256"].to_pylist()
    with spill() as bodies:
        downloads = download_all(network, rows["url"].to_pylist(), opt_out, bodies)
        with _working:
            for some in slices([each.body.size if each.body else 0 for each in downloads]):
                yield _reading(downloads[some], wanted[some], bodies, look)


def _reading(downloads: Sequence[Download], wanted: Sequence[str | None], spilled: Spill, look: _Look) -> Reading:
    bodies = [b"" if each.body is None else spilled.read(each.body) for each in downloads]
    digests = [
        None if each.body is None else sha256(body).hexdigest() for each, body in zip(downloads, bodies, strict=True)
    ]
    lost = [
        _lost(each) or look(body, digest or "", wish)
        for each, body, digest, wish in zip(downloads, bodies, digests, wanted, strict=True)
    ]
    pictures = [why or body for body, why in zip(bodies, lost, strict=True)]
    return Reading(pictures, digests, _account(downloads, digests, lost))


class _Look:
    """What is asked of bytes that have arrived."""

    def __init__(self, network: NetworkConfig, opt_out: OptOut) -> None:
        self._obey, self._opt_out = network.obey_headers, opt_out

    def __call__(self, data: bytes, digest: str, wanted: str | None) -> Lost | None:
        if self._opt_out.refuses_digest(digest):
            return Lost("opted_out", "the opt-out list names its sha256", "rejected")
        if wanted and wanted != digest and (why := mismatch(data, wanted)):
            return Lost("hash_mismatch", why, "failed")
        if not data:
            return Lost("empty", "the answer has no bytes", "failed")
        if data[:_BEGINNING].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE_BEGINS):
            return self._page(data)
        if self._obey and (code := reserved_by_metadata(data)):
            return Lost(code, "the picture's own metadata reserves it", "rejected")
        return None

    def _page(self, data: bytes) -> Lost:
        if self._obey and (code := reserved_by_page(data)):
            return Lost(code, "a web page that reserves itself", "rejected")
        return Lost("web_page", "a web page, not a picture", "failed")


def _lost(download: Download) -> Lost | None:
    trouble = download.trouble
    if trouble is None:
        return None
    if trouble.kind == "refused":
        return Lost(trouble.code, trouble.detail, "rejected")
    return Lost(trouble.code, trouble.detail, "failed", trouble.kind == "transient")


def _account(downloads: Sequence[Download], digests: Sequence[str | None], lost: Sequence[Lost | None]) -> pa.Table:
    told = zip(downloads, digests, lost, strict=True)
    return pa.Table.from_pylist([_row(*each) for each in told], schema=FETCHES)


def _row(download: Download, digest: str | None, lost: Lost | None) -> dict[str, Any]:
    headers = download.headers or {}
    return {
        "url": download.url,
        "outcome": lost.outcome if lost else "kept",
        "code": lost and lost.code,
        "detail": lost and lost.detail,
        "retryable": bool(lost and lost.retryable),
        "http_status": download.http_status,
        "attempts": download.attempts,
        "final_url": download.final_url,
        "etag": _text(headers.get("ETag")),
        "last_modified": _text(headers.get("Last-Modified")),
        "content_type": _text(headers.get("Content-Type")),
        "bytes": download.body and download.body.size,
        "sha256": digest,
        "seconds": download.seconds,
        "time": download.time,
    }


_LONGEST_HEADER = 500


def _text(header: str | None) -> str | None:
    """As a server sent it, less what is no text (aiohttp keeps stray bytes as surrogates)."""
    return header and header[:_LONGEST_HEADER].encode(errors="replace").decode()
