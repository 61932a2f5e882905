"""A web server that costs as little as can be: photographs over loopback, some of them missing, some of them late.

`python -m benchmarks.photo_server FOLDER` serves `/<number>.jpg` from the files of
a folder, in turn; it prints its port. `/missing/…` is 404, `/slow/…` waits.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

SLOW_S = 1.0
_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nnot here"


class _Connection(asyncio.Protocol):
    answers: list[bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head, self.waiting = self.waiting[:end], self.waiting[end + 4 :]
            self._answer(head.split(b" ", 2)[1])

    def _answer(self, path: bytes) -> None:
        _, *folders, name = path.split(b"/")
        number = name.partition(b".")[0]
        if folders == [b"missing"] or not number.isdigit():
            self.transport.write(_MISSING)
            return
        answer = self.answers[int(number) % len(self.answers)]
        if folders == [b"slow"]:
            asyncio.get_running_loop().call_later(SLOW_S, self.transport.write, answer)
        else:
            self.transport.write(answer)


async def _serve(folder: Path) -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    pictures = [path.read_bytes() for path in sorted(folder.iterdir())]
    _Connection.answers = [head.format(len(picture)).encode() + picture for picture in pictures]
    server = await asyncio.get_running_loop().create_server(_Connection, "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
