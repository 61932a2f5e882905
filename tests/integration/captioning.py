"""Shards as stage 01 leaves them, to be captioned by the tests' servers, and what became of their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO

import pyarrow as pa
from PIL import Image

from tests.servers.faults import PERMANENT, REFUSED, TRANSIENT, FaultServer, colour
from vlmdata.captioning import line as lines
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.journal.grants import Limits
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, run_once
from vlmdata.config import CaptionConfig
from vlmdata.event_loop import run
from vlmdata.layout import Step
from vlmdata.schema import FILTERED, IMAGES, caption_table, filled

HASTY = Waits(Backoff(first_s=0.002, longest_s=0.01))
PRICE = {"input": 1.0, "output": 10.0, "image_tokens": 1000}
"""Dollars for a million tokens."""
USED = (90 * PRICE["input"] + 7 * PRICE["output"]) / 1e6
"""Dollars that the fault server says an answer took."""
QUICK = [fault for fault in (*TRANSIENT, *PERMANENT, *REFUSED, "ok") if not fault.startswith("429_")]

Size = tuple[int, int]


def make_shard(
    dataset: Dataset,
    numbers: range,
    captioned: frozenset[int] = frozenset(),
    license_: str = "CC0",
    sizes: Mapping[int, Size] | None = None,
    pictures: Mapping[int, bytes] | None = None,
) -> Shard:
    """A shard as stage 01 leaves it; `captioned` samples have two original captions.

    A picture that `pictures` has not is drawn in its colour, in the size that `sizes` says in px, or 64 x 64.
    """
    all_sizes = [(sizes or {}).get(number, (64, 64)) for number in numbers]
    drawings = [drawn(number, size) for number, size in zip(numbers, all_sizes, strict=True)]
    images = [(pictures or {}).get(number, drawing) for number, drawing in zip(numbers, drawings, strict=True)]
    ids = [f"{number:032x}" for number in numbers]
    shas = [sha256(image).hexdigest() for image in images]
    samples = filled(
        FILTERED,
        len(ids),
        id=pa.array(ids),
        key=pa.array(ids),
        sha256=pa.array(shas),
        license=license_,
        format="PNG",
        width=pa.array([width for width, _ in all_sizes]),
        height=pa.array([height for _, height in all_sizes]),
    )
    owners = [id_ for id_, number in zip(ids, numbers, strict=True) if number in captioned for _ in range(2)]
    texts = [f"original {place}" for place in range(len(owners))]
    captions = caption_table(owners, texts, ["fr"] * len(owners), ["source"] * len(owners))
    n = Counts(came=len(ids), kept=len(ids))
    shard = Shard(f"{numbers.start:05d}", len(ids))
    tables = {"images": pa.table([pa.array(ids), pa.array(images, pa.large_binary())], schema=IMAGES)}
    shard = run_once(dataset, shard, Step.RAW, [license_, *shas], {}, lambda _: Result(tables, n))
    filtered = {"samples": samples, "captions": captions}
    reads = [license_, *shas, *owners]
    counts = Counts(came=len(owners), kept=len(owners))
    return run_once(dataset, shard, Step.FILTERED, reads, {}, lambda _: Result(filtered, n, counts))


def drawn(number: int, size: Size) -> bytes:
    """A picture of any size in px, width first."""
    sink = BytesIO()
    Image.new("RGB", size, colour(number)).save(sink, "PNG")
    return sink.getvalue()


def config(server: FaultServer, **changes: object) -> CaptionConfig:
    """Asks that server, eight pictures at a time."""
    return CaptionConfig.model_validate({"base_url": server.base_url, "model": "m", "concurrency": 8, **changes})


def outcomes(dataset: Dataset, shard: Shard) -> dict[int, tuple[str, str | None, int]]:
    """Of each picture by its number: outcome, class of failure, requests."""
    rows = dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()
    return {int(row["id"], 16): (row["outcome"], row["failure"], row["requests"]) for row in rows}


def open_attempts(dataset: Dataset, shard: Shard) -> int:
    """What `vlmdata retry` does for a shard's failures."""
    rows = dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()

    async def open_them() -> int:
        journal = await lines.process().journal(dataset, Limits())
        return await journal.open_attempts(row["key"] for row in rows if row["failure"])

    return run(open_them())
