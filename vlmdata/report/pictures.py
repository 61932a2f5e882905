"""Thumbnails: small WebP pictures of what decoded whole in stage 01; what did not never meets a decoder here."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Step
from vlmdata.measure.pixels import upright_rgb

SIDE = 208
"""Longer side of a thumbnail, px: a card is half as wide on screens of two pixels a point."""
_QUALITIES = (62, 40, 20)
_LARGEST = 9_000
"""Bytes of one thumbnail."""
MIME = "image/webp"


def thumbnail(data: Any, side: int = SIDE) -> bytes | None:
    """A small WebP of a picture's bytes; None if it does not open, though it did in stage 01."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            # JPEGs are decoded at an eighth to a half of their size, as far as that is enough.
            image.draft("RGB", (side * 2, side * 2))
            small = upright_rgb(image)
            small.thumbnail((side, side), reducing_gap=2.0)
            return _encoded(small)
    except (OSError, ValueError, SyntaxError, MemoryError):
        return None


def _encoded(image: Image.Image) -> bytes:
    """With less quality rather than with more bytes."""
    for quality in _QUALITIES:
        sink = io.BytesIO()
        image.save(sink, "WEBP", quality=quality, method=2)
        if sink.tell() <= _LARGEST:
            break
    return sink.getvalue()


def thumbnails(
    dataset: Dataset, shards: Sequence[Shard], wanted: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, bytes]]:
    """Id and thumbnail of each picture that opens; shard after shard, a few at a time.

    Args:
        dataset: Where they lie.
        shards: With their checkpoint at 00.
        wanted: Ids by the name of the shard that holds them.
    """
    own = [shard for shard in shards if shard.name in wanted]
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1), thread_name_prefix="thumbnails") as pool:
        for made in pool.map(partial(_of_shard, dataset, wanted), own):
            yield from made


def _of_shard(dataset: Dataset, wanted: Mapping[str, Sequence[str]], shard: Shard) -> list[tuple[str, bytes]]:
    made = ((id_, thumbnail(data)) for id_, data in stored_pictures(dataset, shard, wanted[shard.name]))
    return [(id_, small) for id_, small in made if small is not None]


def stored_pictures(dataset: Dataset, shard: Shard, ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Id and original bytes; of the shard's file only the row groups that hold them are read."""
    table = dataset.manifest(shard, Step.RAW).tables["images"]
    with dataset.store.open(table.path) as opened, pq.ParquetFile(opened) as file:
        names = file.read(columns=["id"], use_threads=False)["id"]
        there = pc.is_in(names, value_set=pa.array(ids, pa.string())).to_numpy()
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if there[start:stop].any():
                rows = file.read_row_group(group, use_threads=False).filter(pa.array(there[start:stop]))
                for id_, cell in zip(rows["id"].to_pylist(), rows["image"], strict=True):
                    yield id_, cell.as_buffer()
            start = stop
