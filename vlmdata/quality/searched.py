"""Would-be exports, drawn into galleries and searched: ids of all, texts and embeddings of the drawn alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import QualityConfig
from vlmdata.layout import Step
from vlmdata.provenance import PROVENANCE, came_from
from vlmdata.quality.embeddings import caption_vectors, image_vectors, text_tables
from vlmdata.quality.judges import Judge, Judges
from vlmdata.quality.matching import unit
from vlmdata.quality.recall import Ranks, galleries, ranks
from vlmdata.schema import RETRIEVAL, filled

Vectors = npt.NDArray[np.float32]


def searched(dataset: Dataset, shards: Sequence[Shard], bench: Judges, config: QualityConfig, step: Step) -> pa.Table:
    """Rows of `schema.RETRIEVAL` for the images of a step's captions that were drawn into a gallery."""
    pairs = _pairs(dataset, shards, step)
    parts = [RETRIEVAL.empty_table()]
    for identity, search in sorted(bench.search(config.retrieval).items()):
        mine = pairs.filter(pc.equal(pairs["model"], identity))
        drawn = list(galleries(mine["id"].to_pylist(), search.gallery, search.galleries))
        if drawn:
            rows = _worded(dataset, shards, step, mine.take(pa.array(np.concatenate(drawn))))
            parts += _ranked_galleries(rows, drawn, *_vectors(dataset, shards, search.judge, rows, config.device))
    return pa.concat_tables(parts)


def _ranked_galleries(
    rows: pa.Table, drawn: Sequence[npt.NDArray[np.int64]], images: Vectors, texts: Vectors
) -> Iterator[pa.Table]:
    start = 0
    for gallery in drawn:
        stop = start + len(gallery)
        part = rows.slice(start, len(gallery))
        yield _ranked(part, *ranks(images[start:stop], texts[start:stop], part["text"].to_pylist()))
        start = stop


def _ranked(rows: pa.Table, to_text: Ranks, to_image: Ranks) -> pa.Table:
    columns = {name: rows[name] for name in rows.column_names}
    size = pa.repeat(pa.scalar(rows.num_rows, pa.int64()), rows.num_rows)
    found = {"gallery": size, "to_text": pa.array(to_text), "to_image": pa.array(to_image)}
    return filled(RETRIEVAL, rows.num_rows, **columns, **found)


def _pairs(dataset: Dataset, shards: Sequence[Shard], step: Step) -> pa.Table:
    """One scored caption of each image: the one with the smallest id, which nothing about it decides.

    Ids and names only, as there is a row for each image of the set.
    """
    parts = [_pairs_of(dataset, shard, step) for shard in shards]
    return pa.concat_tables(parts).combine_chunks() if parts else _PAIRS.empty_table()


_PAIRS = pa.schema([(name, pa.string()) for name in ("id", "caption_id", "model", "shard")])


def _pairs_of(dataset: Dataset, shard: Shard, step: Step) -> pa.Table:
    kept = dataset.read(shard, step, "captions", ["caption_id"])["caption_id"]
    scores = dataset.read(shard, Step.SCORES, "scores", ["id", "caption_id", "score", "model"])
    scored = pc.and_(pc.is_valid(scores["score"]), pc.is_finite(pc.fill_null(scores["score"], 0.0)))
    rows = scores.filter(pc.and_(scored, pc.is_in(scores["caption_id"], value_set=kept)))
    rows = rows.sort_by([("id", "ascending"), ("caption_id", "ascending")])
    ids = rows["id"].to_numpy(zero_copy_only=False)
    first = np.concatenate([[True], ids[1:] != ids[:-1]]) if len(ids) else np.zeros(0, bool)
    rows = rows.filter(pa.array(first))
    columns = [rows["id"], rows["caption_id"], rows["model"], pa.repeat(pa.scalar(shard.name), rows.num_rows)]
    return pa.table(columns, schema=_PAIRS)


def _worded(dataset: Dataset, shards: Sequence[Shard], step: Step, rows: pa.Table) -> pa.Table:
    """The drawn rows with their images' source and their captions' text, origin, language and score."""
    parts = []
    for shard in shards:
        mine = rows.filter(pc.equal(rows["shard"], shard.name))
        if mine.num_rows:
            captions = dataset.read(shard, step, "captions", ["caption_id", "text", "origin"])
            scores = dataset.read(shard, Step.SCORES, "scores", ["caption_id", "score", "language"])
            mine = mine.append_column(
                "source", _source(dataset.read(shard, step, "samples", ["id", *PROVENANCE]), mine)
            )
            parts.append(_joined(_joined(mine, captions), scores))
    found = pa.concat_tables(parts)
    found = found.set_column(found.column_names.index("origin"), "origin", _origin(found["origin"]))
    return found.take(pc.index_in(rows["id"], value_set=found["id"]))


def _source(samples: pa.Table, rows: pa.Table) -> pa.ChunkedArray:
    return came_from(samples.take(pc.index_in(rows["id"], value_set=samples["id"])))


def _joined(rows: pa.Table, more: pa.Table) -> pa.Table:
    at = pc.index_in(rows["caption_id"], value_set=more["caption_id"])
    for name in more.column_names:
        if name != "caption_id":
            rows = rows.append_column(name, more[name].take(at))
    return rows


def _origin(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Who wrote it; which duplicate a caption came from makes no group."""
    return pc.if_else(pc.starts_with(column, "duplicate:"), "duplicate", column)


def _vectors(
    dataset: Dataset, shards: Sequence[Shard], judge: Judge, rows: pa.Table, device: str
) -> tuple[Vectors, Vectors]:
    """Image and text embeddings of the drawn rows, unit length: only theirs stay in memory."""
    images: dict[str, Vectors] = {}
    texts: dict[str, Vectors] = {}
    for shard in shards:
        mine = rows.filter(pc.equal(rows["shard"], shard.name))
        if mine.num_rows:
            ids = mine["id"].to_pylist()
            seen = image_vectors(dataset, shard, judge, mine["id"], device)
            spoken = caption_vectors(text_tables(dataset, shard), mine["caption_id"], shard)
            images.update(zip(ids, unit(seen), strict=True))
            texts.update(zip(ids, unit(spoken), strict=True))
    order = rows["id"].to_pylist()
    return np.stack([images[one] for one in order]), np.stack([texts[one] for one in order])
