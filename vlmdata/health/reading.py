"""What health looks at, shard after shard: a few columns of each checkpoint, as the values that are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.export.mix import word_counts
from vlmdata.health.buckets import SIDES, score_bin, shape
from vlmdata.layout import Stage, Step
from vlmdata.measure.language import UNDETERMINED
from vlmdata.provenance import PROVENANCE, came_from
from vlmdata.schema import MADE

IMAGES = pa.schema(
    [("size", pa.int8()), ("aspect_ratio", pa.int8()), ("license", pa.string()), ("source", pa.string())]
)
"""Pictures: their buckets, null before they are measured, their licence as the source states it, and the source."""

LENGTH_UNITS = ("words", "characters", "tokens")

CAPTIONS = pa.schema(
    [("language", pa.string()), ("origin", pa.string()), *((unit, pa.int32()) for unit in LENGTH_UNITS)]
)
"""Captions: language, who wrote them, and lengths; tokens are null where no model read it."""

SCORED = pa.schema(
    [
        ("model", pa.string()),
        ("language", pa.string()),
        ("bin", pa.int64()),
        ("billionths", pa.int64()),
        ("truncated", pa.bool_()),
    ]
)
"""Captions that were judged: bin of the score and the score itself, both null where there is none."""

_READ_AT_ONCE = 8
_LONGEST_VALUE = 200
"""Characters of a licence or language that are told apart; they are strangers' words."""


def images(dataset: Dataset, stage: Stage, shards: Iterable[Shard]) -> Iterator[pa.Table]:
    """What a stage kept: a table of `IMAGES` a shard."""
    return ahead(lambda shard: _images(dataset, stage, shard), shards)


def captions(dataset: Dataset, stage: Stage, shards: Iterable[Shard]) -> Iterator[pa.Table]:
    """What a stage kept: a table of `CAPTIONS` a shard."""
    return ahead(lambda shard: _captions(dataset, stage, shard), shards)


def scored(dataset: Dataset, shards: Iterable[Shard]) -> Iterator[pa.Table]:
    """What came to be judged, whatever its band: a table of `SCORED` a shard."""
    return ahead(lambda shard: _scored(dataset, shard), shards)


def ahead(read: Callable[[Shard], pa.Table], shards: Iterable[Shard]) -> Iterator[pa.Table]:
    """A few shards are read while one is counted, and no more than a few are in memory."""
    waiting: deque[Future[pa.Table]] = deque()
    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="health") as pool:
        for shard in shards:
            waiting.append(pool.submit(read, shard))
            if len(waiting) >= _READ_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _images(dataset: Dataset, stage: Stage, shard: Shard) -> pa.Table:
    measured = stage is not Stage.RAW
    wanted = ["width", "height"] if measured else []
    rows = dataset.read(shard, Step(stage.value), "samples", [*wanted, "license", *PROVENANCE])
    size = aspect = pa.nulls(rows.num_rows, pa.int8())
    if measured:
        width, height = rows["width"].to_numpy(), rows["height"].to_numpy()
        size, aspect = pa.array(SIDES.of(np.minimum(width, height))), pa.array(shape(width, height))
    return pa.table([size, aspect, _short(rows["license"]), _short(came_from(rows))], schema=IMAGES)


def _captions(dataset: Dataset, stage: Stage, shard: Shard) -> pa.Table:
    wanted = ["language", "tokens"] if stage is Stage.CHECKED else ["lang"]
    rows = dataset.read(shard, Step(stage.value), "captions", [*wanted, "origin", "text"])
    texts = rows["text"]
    tokens = rows["tokens"] if stage is Stage.CHECKED else pa.nulls(rows.num_rows)
    lengths = [column.cast(pa.int32()) for column in (word_counts(texts), pc.utf8_length(texts), tokens)]
    return pa.table([_primary(rows[wanted[0]]), _written_by(rows["origin"]), *lengths], schema=CAPTIONS)


def _scored(dataset: Dataset, shard: Shard) -> pa.Table:
    rows = dataset.read(shard, Step.SCORES, "scores", ["model", "language", "score", "truncated"])
    score = rows["score"].to_numpy().astype(np.float32)
    none = ~np.isfinite(score)
    known = np.where(none, np.float32(0), score)
    return pa.table(
        [
            rows["model"],
            _primary(rows["language"]),
            pa.array(score_bin(known), mask=none),
            pa.array(np.rint(known.astype(np.float64) * 1e9).astype(np.int64), mask=none),
            rows["truncated"],
        ],
        schema=SCORED,
    )


def _primary(tags: pa.ChunkedArray) -> pa.Array:
    """The primary subtag, as the judges take it; `und` where none is declared."""
    tag, rows = _distinct(tags)
    primary = pc.utf8_lower(pc.replace_substring_regex(tag, "(?s)-.*", ""))
    return pc.fill_null(primary.take(rows), UNDETERMINED)


def _written_by(origins: pa.ChunkedArray) -> pa.Array:
    """`original`, however it came here, or `model:<name>`, whatever it was asked."""
    origin, rows = _distinct(origins)
    model = pc.replace_substring_regex(origin, r"(?s)\|.*", "")
    return pc.if_else(pc.starts_with(model, MADE), model, "original").take(rows)


def _distinct(texts: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """The distinct values, cut short, and which of them each row has: so that few are looked at."""
    encoded = pc.dictionary_encode(texts.combine_chunks())
    return _short(encoded.dictionary), encoded.indices


def _short(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(texts, 0, _LONGEST_VALUE)
