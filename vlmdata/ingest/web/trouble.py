"""Why a picture was not taken, in the words of the failure ledger."""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import Literal

import aiohttp

from vlmdata.ingest.web.addresses import ForbiddenAddress

Kind = Literal["transient", "permanent", "refused"]
"""May pass by itself; will not; or it is there and we leave it alone."""

_MAY_PASS = {408, 421, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529, 530}
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class Trouble(Exception):
    """One way in which a download ends without a picture.

    Args:
        kind: what is to be hoped for.
        code: stable reason code.
        detail: for people; holds nothing that a server could have meant for a terminal.
        status: of the HTTP answer, if one came.
        wait_s: how long the server asks us to stay away.
    """

    def __init__(
        self, kind: Kind, code: str, detail: str, status: int | None = None, wait_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.kind, self.code, self.status, self.wait_s = kind, code, status, wait_s
        self.detail = "".join(letter if letter.isprintable() else "?" for letter in detail)[:500]


def of_status(status: int, retry_after: str | None) -> Trouble:
    """What an answer that is neither a picture nor a redirect means."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "a status that HTTP does not know"
    kind: Kind = "transient" if status in _MAY_PASS else "permanent"
    wait = float(retry_after) if retry_after and retry_after.isdecimal() else None
    return Trouble(kind, f"http_{status}", f"the server answered {status} ({phrase})", status, wait)


def of_error(error: BaseException) -> Trouble:
    """What an error of the connection means; raises it again if it is none."""
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return _of_connecting(error)
    for kind, hope, code, words in _ERRORS:
        if isinstance(error, kind):
            return Trouble(hope, code, words or _words(error))
    raise error


_ERRORS: tuple[tuple[type[BaseException], Kind, str, str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "permanent", "certificate", ""),
    (aiohttp.ClientSSLError, "permanent", "tls", ""),
    (aiohttp.ConnectionTimeoutError, "transient", "connect_timeout", "no connection in time"),
    (aiohttp.InvalidURL, "refused", "malformed_url", "no address that can be asked"),
    (aiohttp.ClientResponseError, "permanent", "bad_http", ""),
    (TimeoutError, "transient", "timeout", "not a byte in time"),
    (aiohttp.ClientPayloadError, "transient", "connection_lost", "the answer ends before its end"),
    (aiohttp.ClientConnectionError, "transient", "connection_lost", "the server hung up"),
    (OSError, "transient", "connection_lost", ""),
)
"""The first that fits counts; without words of ours, those of the error."""


def _of_connecting(error: aiohttp.ClientConnectorError) -> Trouble:
    cause = error.os_error
    if isinstance(cause, ForbiddenAddress):
        return Trouble("refused", "forbidden_address", cause.strerror or "")
    if not isinstance(error, aiohttp.ClientConnectorDNSError):
        return Trouble("transient", "connect", f"{error.host}:{error.port}: {cause.strerror or _words(cause)}")
    known = isinstance(cause, socket.gaierror) and cause.errno not in _NO_SUCH_NAME
    detail = f"{error.host}: {cause.strerror or 'no such name'}"
    return Trouble("transient", "dns", detail) if known else Trouble("permanent", "unknown_host", detail)


def _words(error: BaseException) -> str:
    message = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return message.strip().split("\n")[0] or type(error).__name__
