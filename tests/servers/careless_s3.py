"""As much of S3 as a check of a store asks for, of a server that does not do what it is told: real HTTP on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_LISTING = (
    b"<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
)
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"


@dataclass
class CarelessS3:
    """Lists for anybody; writes for nobody, or over what is there whatever `If-None-Match` says."""

    may_write: bool
    objects: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def careless_s3(state: CarelessS3) -> Iterator[str]:
    """The server's address, for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, _LISTING)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not state.may_write:
                self._answer(403, _DENIED)
                return
            state.objects[self.path] = body
            self._answer(200, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test says what went wrong."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
