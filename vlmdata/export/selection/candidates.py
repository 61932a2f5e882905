"""What stage 03 lets through, as a selection sees it: a row a sample, in the order of its shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import Dimension, QualityConfig
from vlmdata.export.selection.kin import Blocks, Flags, Hashes, Vectors
from vlmdata.export.selection.quotas import deciles
from vlmdata.health.buckets import SIDES
from vlmdata.layout import Step
from vlmdata.measure.language import primary
from vlmdata.provenance import PROVENANCE, came_from
from vlmdata.quality.embeddings import caption_vectors, image_vectors, text_tables
from vlmdata.quality.judges import judges
from vlmdata.quality.matching import unit

SAMPLE_COLUMNS = ["id", "key", "phash", "width", "height", "best_score", *PROVENANCE]
CAPTION_COLUMNS = ["id", "language", "score", "text"]
"""What a selection reads of `schema.CHECKED` and `schema.JUDGED_CAPTIONS`."""

_ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("key", pa.string()),
        ("phash", pa.uint64()),
        ("side", pa.int32()),
        ("best_score", pa.float32()),
        ("source", pa.string()),
        ("language", pa.string()),
    ]
)


@dataclass(frozen=True)
class Candidates:
    """n samples.

    Attributes:
        rows: n rows of id, key, phash, side (shorter, px), best_score, source and language.
        shards: where they lie.
        counts: how many in each.
    """

    dataset: Dataset
    rows: pa.Table
    shards: Sequence[Shard]
    counts: Sequence[int]

    @property
    def ids(self) -> pa.Array:
        """string (n,)."""
        return self.rows["id"].combine_chunks()

    @property
    def hashes(self) -> Hashes:
        """uint64 (n,); 0 where none is known."""
        hashes: Hashes = pc.fill_null(self.rows["phash"], 0).to_numpy().astype(np.uint64)
        return hashes

    @property
    def hashed(self) -> Flags:
        """bool (n,): whose hash is known."""
        flags: Flags = pc.is_valid(self.rows["phash"]).to_numpy()
        return flags

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Best CLIPScore, float64 (n,); NaN: none."""
        scores: npt.NDArray[np.float64] = self.rows["best_score"].to_numpy().astype(np.float64)
        return scores

    def group(self, dimension: Dimension) -> pa.Array:
        """The name of each one's group, string (n,)."""
        if dimension == "size":
            return pa.array(SIDES.labels).take(pa.array(SIDES.of(self.rows["side"].to_numpy())))
        if dimension == "score_decile":
            return deciles(self.scores)
        return self.rows[dimension].combine_chunks()

    def looks(self, quality: QualityConfig) -> list[tuple[int, Callable[[], Vectors]]]:
        """How many samples each shard has, and what reads their embeddings by the default judge, (k, dim)."""
        judge, starts = judges(quality).default, np.cumsum([0, *self.counts])
        return [
            (
                count,
                partial(image_vectors, self.dataset, shard, judge, self.rows["id"].slice(start, count), quality.device),
            )
            for shard, start, count in zip(self.shards, starts.tolist(), self.counts, strict=False)
        ]

    def captions(self) -> tuple[npt.NDArray[np.int64], pa.ChunkedArray]:
        """All their captions: whose each is, int64 (m,), and its words."""
        tables = [self.dataset.read(shard, Step.CHECKED, "captions", ["id", "text"]) for shard in self.shards]
        rows = pa.concat_tables(tables)
        return pc.index_in(rows["id"], value_set=self.ids).to_numpy().astype(np.int64), rows["text"]

    def caption_looks(self) -> list[tuple[npt.NDArray[np.int64], Blocks]]:
        """For each model that judged captions: whose each of them is, int64 (m,), and what reads their embeddings."""
        owners: dict[str, list[npt.NDArray[np.int64]]] = {}
        blocks: dict[str, list[tuple[int, Callable[[], Vectors]]]] = {}
        for shard in self.shards:
            kept = self.dataset.read(shard, Step.CHECKED, "captions", ["id", "caption_id", "model", "score"])
            kept = kept.filter(pc.fill_null(pc.is_finite(kept["score"]), False))
            for model in sorted(pc.unique(kept["model"]).to_pylist()):
                own = kept.filter(pc.equal(kept["model"], model))
                at = pc.index_in(own["id"], value_set=self.ids).to_numpy().astype(np.int64)
                owners.setdefault(model, []).append(at)
                read = partial(_spoken, self.dataset, shard, own["caption_id"])
                blocks.setdefault(model, []).append((own.num_rows, read))
        return [(np.concatenate(owners[model]), blocks[model]) for model in sorted(owners)]


def _spoken(dataset: Dataset, shard: Shard, caption_ids: pa.ChunkedArray) -> Vectors:
    return unit(caption_vectors(text_tables(dataset, shard), caption_ids, shard))


def candidates(dataset: Dataset, shards: Sequence[Shard]) -> Candidates:
    """All samples that 03 lets through; some 150 bytes each."""
    parts = [_described(dataset, shard) for shard in shards]
    rows = pa.concat_tables([_ROWS.empty_table(), *parts]).combine_chunks()
    return Candidates(dataset, rows, shards, [part.num_rows for part in parts])


def reads_of(dataset: Dataset, shards: Sequence[Shard]) -> list[str]:
    """What a key says of the columns that are read."""
    tables = {"samples": SAMPLE_COLUMNS, "captions": CAPTION_COLUMNS}
    return [
        dataset.digest(shard, Step.CHECKED, table, columns) for shard in shards for table, columns in tables.items()
    ]


def _described(dataset: Dataset, shard: Shard) -> pa.Table:
    samples = dataset.read(shard, Step.CHECKED, "samples", SAMPLE_COLUMNS)
    captions = dataset.read(shard, Step.CHECKED, "captions", ["id", "language", "score"])
    captions = captions.append_column("at", pa.array(np.arange(captions.num_rows)))
    # The best by score; ties: the first; a score that is not there comes last.
    best = captions.sort_by([("score", "descending"), ("at", "ascending")])
    language = best["language"].take(pc.index_in(samples["id"], value_set=best["id"]))
    side = pc.min_element_wise(samples["width"], samples["height"])
    columns = [samples["id"], samples["key"], samples["phash"], side, samples["best_score"], came_from(samples)]
    return pa.table([*columns, _primary(language)], schema=_ROWS)


def _primary(tags: pa.ChunkedArray) -> pa.Array:
    encoded = pc.dictionary_encode(tags.combine_chunks())
    names = pa.array([primary(tag) for tag in encoded.dictionary.to_pylist()], pa.string())
    return names.take(encoded.indices)
