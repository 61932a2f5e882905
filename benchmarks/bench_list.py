"""A list of a million addresses of which every row is done: how long it takes to see that there is nothing to do.

Nothing is downloaded: in the place of the web stands a function that gives each address a few bytes of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_drop import status_mb
from benchmarks.builds import Row, parsed, seconds_of
from vlmdata.config import NetworkConfig
from vlmdata.ingest.reading import Reading, slices
from vlmdata.opt_out import OptOut
from vlmdata.schema import FETCHES, filled

ROWS, SHARD_SIZE = 1_000_000, 1_000
BOUND_S = 10.0
MORE_ROWS, MOST_ROWS, MEMORY_BOUND = 2_000_000, 4_000_000, 1.1


def run() -> list[Row]:
    """(name, seconds, bound, remark): of the list as it was, of one that has grown by a row, and of the command."""
    with tempfile.TemporaryDirectory(prefix="vlmdata-bench-") as name:
        peaks = [_peak_of_listing(Path(name) / str(rows), rows) for rows in (MORE_ROWS, MOST_ROWS)]
        folder = Path(name)
        _write_list(folder, ROWS)
        config = _write_config(folder)
        ingesting, _ = seconds_of("-m", "benchmarks.bench_list", "ingest", str(config))
        seen = _in_a_process("look", config)
        build = ("-c", "from vlmdata.cli import app; app()", "build", str(config), "--to", "00_raw")
        first, _ = seconds_of(*build)
        again, told_again = seconds_of(*build)
        _write_list(folder, ROWS + 1)
        grown = _in_a_process("look", config)
    if (seen["done"], grown["done"], grown["shards"]) != (seen["shards"], seen["shards"], seen["shards"] + 1):
        raise RuntimeError(f"not what was to be measured: {seen}, then {grown}")
    if "nothing has changed since" not in told_again:
        raise RuntimeError(f"the second build did something: {told_again}")
    what = f"{ROWS:,} rows in {seen['shards']:.0f} shards, all done"
    told = f"{what}; ingesting them took {ingesting:.0f} s"
    return [
        ("a list that is done: listing and looking, s", seen["seconds"], f"<= {BOUND_S:g}", told),
        ("a list that is done: the command, s", again, f"<= {BOUND_S:g}", "build --to 00_raw, as it was built before"),
        ("the same by a first run, s", first, "", "Prefect, a task a shard and gates included"),
        (
            "a list that grew by a row: listing and looking, s",
            grown["seconds"],
            "",
            "read as a whole; its new row is left",
        ),
        (
            f"listing {MOST_ROWS:,} rows / {MORE_ROWS:,}: memory",
            peaks[1] / peaks[0],
            f"<= {MEMORY_BOUND:g}",
            f"{peaks[1]:,.0f} and {peaks[0]:,.0f} MB at their peaks",
        ),
    ]


def _peak_of_listing(folder: Path, rows: int) -> float:
    """MB that a process which reads and cuts a list holds at most."""
    folder.mkdir()
    _write_list(folder, rows)
    return _in_a_process("list", _write_config(folder))["peak_mb"]


def _write_list(folder: Path, rows: int) -> None:
    """Addresses and captions of which no two are alike."""
    numbers = np.arange(rows)
    urls = pa.array(
        [f"https://photos-{n % 997}.example/{n * 2_654_435_761 % 2**32:08x}/{n}.jpg" for n in numbers.tolist()]
    )
    captions = pa.array([f"a photograph, number {n} of many, with a caption of usual length" for n in numbers.tolist()])
    pq.write_table(pa.table({"url": urls, "caption": captions, "license": ["CC0"] * rows}), folder / "list.parquet")


def _write_config(folder: Path) -> Path:
    source = {"kind": "urls", "path": "./list.parquet", "license_column": "license"}
    config = {
        "dataset": "list",
        "store": "./store",
        "source": source,
        "shard_size": SHARD_SIZE,
        "caption": {"policy": "none"},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps({**config, "quality": {"model": "starter", "pretrained": None}}), encoding="utf-8")
    return path


def _in_a_process(how: str, config: Path) -> dict[str, float]:
    _, said = seconds_of("-m", "benchmarks.bench_list", how, str(config))
    found: dict[str, float] = json.loads(said)
    return found


def _look(path: Path) -> dict[str, float]:
    """What a build does before it knows that there is nothing to do, by a process that knows nothing yet."""
    from vlmdata.checkpoint import Dataset
    from vlmdata.ingest.listing import list_source
    from vlmdata.ingest.shards import find_ingested

    config = parsed(path)
    dataset = Dataset(config.store, config.dataset)
    start = time.perf_counter()
    shards = list_source(dataset, config)
    done = find_ingested(dataset, shards, config)
    return {"seconds": time.perf_counter() - start, "shards": len(shards), "done": len(done)}


def _list(path: Path) -> dict[str, float]:
    from vlmdata.checkpoint import Dataset
    from vlmdata.ingest.listing import list_source

    config = parsed(path)
    list_source(Dataset(config.store, config.dataset), config)
    return {"peak_mb": status_mb("VmHWM")}


def _ingest(path: Path) -> None:
    """00_raw as downloads would leave it."""
    from vlmdata.checkpoint import Dataset
    from vlmdata.here import each_here
    from vlmdata.ingest.listing import list_source
    from vlmdata.ingest.shards import ingest_shard
    from vlmdata.ingest.web import fetching
    from vlmdata.layout import Step

    fetching.fetch_rows = _made_up
    config = parsed(path)
    dataset = Dataset(config.store, config.dataset)
    each_here(Step.RAW, list_source(dataset, config), lambda shard: ingest_shard(dataset, shard, config))


def _made_up(network: NetworkConfig, opt_out: OptOut, rows: pa.Table) -> Iterator[Reading]:
    """In the place of `fetch_rows`."""
    for some in slices([0] * rows.num_rows):
        urls = rows["url"][some]
        bodies = [url.encode() for url in urls.to_pylist()]
        digests = [sha256(body).hexdigest() for body in bodies]
        told = {"outcome": "kept", "retryable": False, "http_status": 200, "attempts": 1, "content_type": "image/jpeg"}
        sizes, seconds = (
            pa.array([len(body) for body in bodies], pa.int64()),
            pa.array([0.1] * len(bodies), pa.float32()),
        )
        digest = pa.array(digests)
        fetches = filled(
            FETCHES, len(bodies), url=urls, final_url=urls, bytes=sizes, sha256=digest, seconds=seconds, **told
        )
        yield Reading(bodies, digests, fetches)


if __name__ == "__main__":
    how, config_file = sys.argv[1], Path(sys.argv[2])
    if how == "ingest":
        _ingest(config_file)
    else:
        print(json.dumps({"look": _look, "list": _list}[how](config_file)))
