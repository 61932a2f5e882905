"""Captions from a server with a latency, against what the latency alone allows; and what the journal costs."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.builds import Row

CAPTIONS = 2_000
CONCURRENCY = 64
SHARD, AT_ONCE = 250, 2
LATENCY_S, SPREAD_S = 0.2, 0.1
_ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "A photograph of a quiet street at noon."}}],
    "usage": {"prompt_tokens": 900, "completion_tokens": 9},
}


def run() -> list[Row]:
    """(name, ratio, bound, remark) of the stage's time over the ideal, its memory, and the journal alone."""
    ideal = CAPTIONS * LATENCY_S / CONCURRENCY
    with tempfile.TemporaryDirectory() as folder, _server() as url:
        small = _stage(Path(folder) / "small", url, CAPTIONS // 4)
        whole = _stage(Path(folder) / "whole", url, CAPTIONS)
    alone = _journal_alone()
    remark = f"{CAPTIONS} captions, {CONCURRENCY} at once, {LATENCY_S:g} s ± {SPREAD_S:g} s each, after a first few"
    return [
        (
            "captions / ideal",
            whole["seconds"] / ideal,
            "<= 1.25",
            f"{whole['seconds']:.2f} s of {ideal:.2f} s; {remark}",
        ),
        (
            f"captions, memory of {CAPTIONS:,} / of {CAPTIONS // 4:,}",
            whole["memory_mb"] / small["memory_mb"],
            "<= 1.1",
            f"{whole['memory_mb']:.0f} against {small['memory_mb']:.0f} MB",
        ),
        ("journal alone, µs a caption", alone * 1e6, "", "written down before and after, 64 at once, fsync included"),
    ]


def _stage(folder: Path, url: str, number: int) -> dict[str, float]:
    """Stage 02 in a process of its own: seconds from its first read to its manifest, and peak memory."""
    folder.mkdir()
    arguments = [sys.executable, "-m", "benchmarks.bench_captions", "stage", str(folder), url, str(number)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def _one_stage(folder: Path, url: str, number: int) -> None:
    from vlmdata.captioning.shards import caption_shard
    from vlmdata.checkpoint import Counts, Dataset, Result, Shard, run_once
    from vlmdata.config import CaptionConfig
    from vlmdata.layout import Step
    from vlmdata.schema import CAPTIONS as CAPTION_COLUMNS
    from vlmdata.schema import FILTERED, IMAGES, filled

    dataset = Dataset(str(folder / "store"), "bench")

    def shard_of(numbers: range) -> Shard:
        pictures = [_picture(one) for one in numbers]
        ids = [f"{one:032x}" for one in numbers]
        counts = Counts(came=len(ids), kept=len(ids))
        images = {"images": pa.table([pa.array(ids), pa.array(pictures, pa.large_binary())], schema=IMAGES)}
        shard = run_once(dataset, Shard("00000", len(ids)), Step.RAW, ids, {}, lambda _: Result(images, counts))
        contents = [sha256(picture).hexdigest() for picture in pictures]
        columns = {"id": pa.array(ids), "key": pa.array(ids), "sha256": pa.array(contents)}
        samples = filled(FILTERED, len(ids), **columns, width=256, height=256)
        tables = {"samples": samples, "captions": CAPTION_COLUMNS.empty_table()}
        return run_once(dataset, shard, Step.FILTERED, ids, {}, lambda _: Result(tables, counts))

    config = CaptionConfig(base_url=url, model="m", concurrency=CONCURRENCY)
    # What a process imports and connects to once is not a caption's cost.
    caption_shard(dataset, shard_of(range(number, number + CONCURRENCY)), config)
    shards = [shard_of(range(first, first + SHARD)) for first in range(0, number, SHARD)]
    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda shard: caption_shard(dataset, shard, config), shards))
    seconds = time.perf_counter() - start
    if sum(dataset.manifest(shard, Step.CAPTIONED).samples.kept for shard in done) != number:
        raise RuntimeError("not every picture was captioned")
    print(json.dumps({"seconds": seconds, "memory_mb": _peak_mb()}))


def _peak_mb() -> float:
    """This program's own peak: `ru_maxrss` would be that of the one that started it, if it was larger."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def _picture(number: int) -> bytes:
    """A small JPEG that differs from all others."""
    from io import BytesIO

    from PIL import Image

    sink = BytesIO()
    Image.effect_noise((256, 256), 20).convert("RGB").save(sink, "JPEG", quality=60, comment=None)
    return sink.getvalue() + number.to_bytes(4, "big")


def _journal_alone() -> float:
    """Seconds a caption to write down its request and its answer, as many at once as the client has."""
    from vlmdata.captioning.journal.grants import Granted, Limits, Wish, unsent
    from vlmdata.captioning.journal.journal import Journal
    from vlmdata.captioning.journal.log import Log
    from vlmdata.store import LocalStore

    async def one(journal: Journal, room: asyncio.Semaphore, number: int) -> None:
        async with room:
            grant = await journal.claim(Wish(f"{number:032x}", 1000, 60.0, 4))
            if isinstance(grant, Granted):
                end = unsent(f"{number:032x}", grant)
                await journal.settle(replace(end, unsent=False, text="A photograph of a quiet street at noon."))

    async def all_of_them(folder: str) -> float:
        journal, room = Journal(Log(LocalStore(folder), "bench"), Limits()), asyncio.Semaphore(CONCURRENCY)
        start = time.perf_counter()
        await asyncio.gather(*(one(journal, room, number) for number in range(CAPTIONS)))
        return (time.perf_counter() - start) / CAPTIONS

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(all_of_them(folder))


@contextmanager
def _server() -> Iterator[str]:
    """The server in a process of its own: its CPU is not the client's."""
    command = [sys.executable, "-m", "benchmarks.bench_captions", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"{process.stdout.readline().strip()}/v1" if process.stdout else ""
        finally:
            process.terminate()


class _Answers(asyncio.Protocol):
    """HTTP/1.1 with nothing to spare: what is measured is the client, and the two share the machine."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._read = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._read += data
        while self._left or b"\r\n\r\n" in self._read:
            if not self._left:
                head, _, self._read = self._read.partition(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                self._left = int(length.partition(b":")[2])
            if len(self._read) < self._left:
                return
            self._read, self._left = self._read[self._left :], 0
            wait = random.uniform(LATENCY_S - SPREAD_S, LATENCY_S + SPREAD_S)
            asyncio.get_running_loop().call_later(wait, self._transport.write, _REPLY)


_BODY = json.dumps(_ANSWER).encode()
_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve())
    else:
        _one_stage(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
