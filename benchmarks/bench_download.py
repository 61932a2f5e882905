"""Stage 00 of a list of addresses against img2dataset: the same list, the same server, the same pictures out.

20,000 addresses of photographs over loopback; 2 % of them are not there, 1 % come
a second late, from another host. Both are whole processes, in turn, the
better of two runs each, until what they stored is on the disk: a checkpoint is
synced before it counts, a tar of img2dataset is not. img2dataset stores the bytes as they came
(`resize_mode=no`, `disable_all_reencoding`), with as many processes as there are
cores. What each stored is read back and compared by sha256.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.builds import ROOT, Row
from benchmarks.photos import photo_files

ADDRESSES = 20_000
PHOTOS, SIDE = 1_000, 800
MISSING_EVERY, SLOW_EVERY = 50, 100
ROUNDS = 2
PEER = ROOT / ".venv-img2dataset" / "bin" / "img2dataset"
_THREADS = 32
_EVERY_S = 0.02

_OURS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from vlmdata.checkpoint import Dataset
from vlmdata.config_reading import load_config
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import AT_ONCE, ingest_shard
config = load_config(sys.argv[1])
dataset = Dataset(config.store, config.dataset)
with ThreadPoolExecutor(AT_ONCE) as pool:
    list(pool.map(lambda shard: ingest_shard(dataset, shard, config), list_source(dataset, config)))
"""
_BARE = """
import asyncio, sys, aiohttp, pyarrow.parquet as pq
urls = pq.read_table(sys.argv[1])["url"].to_pylist()
async def main():
    turns = asyncio.Semaphore(64)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:
        async def one(url):
            async with turns, session.get(url) as response:
                return len(await response.read())
        await asyncio.gather(*(one(url) for url in urls))
asyncio.run(main())
"""


def run() -> list[Row]:
    """(name, ratio, bound, remark); SystemExit if the peer is not installed."""
    if not PEER.is_file():
        raise SystemExit("img2dataset is not installed; `make bench` does it")
    with tempfile.TemporaryDirectory() as folder, _server() as port:
        root = Path(folder)
        urls = _write_list(root / "list.parquet", port)
        ours, theirs, bare = [], [], []
        for number in range(ROUNDS):
            bare.append(_measured([sys.executable, "-c", _BARE, str(root / "list.parquet")], root))
            ours.append(_measured(_our_command(root, f"ours{number}"), root))
            theirs.append(_measured(_their_command(root, f"theirs{number}"), root))
        mine, others = _our_pictures(root / "ours0"), _their_pictures(root / "theirs0")
        return [*_rows(urls, min(ours), min(theirs), min(bare), mine, others), _accounted(urls, root / "ours0")]


def _rows(urls: list[str], ours: Any, theirs: Any, bare: Any, mine: Counter[str], others: Counter[str]) -> list[Row]:
    n = len(urls)
    missing = sum("/missing/" in url for url in urls)
    said = f"{n / ours[0]:.0f} images/s, img2dataset {n / theirs[0]:.0f}/s, a bare aiohttp loop {n / bare[0]:.0f}/s"
    alike = f"{sum(mine.values())} pictures, img2dataset {sum(others.values())}; {missing} of {n} are not there"
    return [
        ("download / img2dataset", theirs[0] / ours[0], ">= 2", said),
        ("download / bare aiohttp loop that stores nothing", bare[0] / ours[0], "", ""),
        ("download, memory / img2dataset", ours[1] / theirs[1], "<= 1", f"{ours[1] >> 20} and {theirs[1] >> 20} MB"),
        ("download, pictures with the same bytes", (mine & others).total() / (n - missing), "= 1", alike),
    ]


def _accounted(urls: list[str], store: Path) -> Row:
    """How many addresses have the outcome that they should have, each once."""
    tables = (store / "bench" / "00_raw" / "data").rglob("*.parquet")
    fetches = [pq.read_table(path) for path in tables if "http_status" in pq.read_schema(path).names]
    found = pa.concat_tables([table.select(["url", "outcome", "http_status"]) for table in fetches])
    told = dict(zip(found["url"].to_pylist(), found.drop(["url"]).to_pylist(), strict=True))
    kept, gone = {"outcome": "kept", "http_status": 200}, {"outcome": "failed", "http_status": 404}
    right = sum(told.get(url) == (gone if "/missing/" in url else kept) for url in urls)
    said = f"{found.num_rows:,} rows: {Counter(found['http_status'].to_pylist())}"
    return ("download, addresses accounted for", right / max(len(urls), found.num_rows), "= 1", said)


@contextmanager
def _server() -> Iterator[int]:
    files = photo_files(PHOTOS, SIDE)
    command = [sys.executable, "-m", "benchmarks.photo_server", str(files[0].parent)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()


def _write_list(path: Path, port: int) -> list[str]:
    urls = []
    for number in range(ADDRESSES):
        host, folder = "127.0.0.2", ""
        if number % MISSING_EVERY == 7:
            folder = "missing/"
        elif number % SLOW_EVERY == 11:
            host, folder = "127.0.0.3", "slow/"
        urls.append(f"http://{host}:{port}/{folder}{number}.jpg")
    captions = [f"photograph {number}" for number in range(ADDRESSES)]
    pq.write_table(pa.table({"url": urls, "caption": captions}), path)
    return urls


def _our_command(root: Path, name: str) -> list[str]:
    config = {
        "dataset": "bench",
        "store": str(root / name),
        "source": {"kind": "urls", "path": str(root / "list.parquet")},
        "network": {"allow_networks": ["127.0.0.0/8"], "per_host": 64},
    }
    path = root / f"{name}.yaml"
    path.write_text(json.dumps(config))
    return [sys.executable, "-c", _OURS, str(path)]


def _their_command(root: Path, name: str) -> list[str]:
    options = {
        "url_list": root / "list.parquet",
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "output_folder": root / name,
        "processes_count": os.cpu_count(),
        "thread_count": _THREADS,
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "number_sample_per_shard": 1000,
        "compute_hash": "sha256",
        "enable_wandb": False,
    }
    return [str(PEER), *(f"--{key}={value}" for key, value in options.items())]


def _measured(command: list[str], root: Path) -> tuple[float, int]:
    """Seconds, and the largest sum of what is resident in the process and its children, shared pages once."""
    peak = 0
    os.sync()
    with (root / "said").open("w+b") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(_EVERY_S):
                peak = max(peak, _resident(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        os.sync()
        seconds = time.perf_counter() - begun
        ended.set()
        watcher.join()
        if code:
            said.seek(0)
            raise RuntimeError(f"{command[0]} ended {code}: {said.read()[-800:].decode(errors='replace')}")
    return seconds, peak


def _resident(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        return sum(each.memory_full_info().pss for each in [root, *root.children(recursive=True)])
    except psutil.Error:
        return 0


def _our_pictures(store: Path) -> Counter[str]:
    tables = (store / "bench" / "00_raw" / "data").rglob("*.parquet")
    return Counter(
        sha256(data.as_buffer()).hexdigest()
        for path in tables
        if "image" in pq.read_schema(path).names
        for data in pq.read_table(path, columns=["image"])["image"]
    )


def _their_pictures(folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    file = tar.extractfile(member)
                    assert file
                    found[sha256(file.read()).hexdigest()] += 1
    return found
