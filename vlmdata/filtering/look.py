"""Pictures whose hashes are close are looked at before one of them goes: their embeddings, checkpoints of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard, run_once
from vlmdata.config import BuildConfig
from vlmdata.filtering.verdicts import Seen
from vlmdata.layout import Step
from vlmdata.quality.embeddings import embed_some, embedding_settings
from vlmdata.quality.judges import Judge, judges


@dataclass(frozen=True)
class Look:
    """By which model pictures are looked at, and the smallest cosine of duplicates."""

    judge: Judge
    device: str
    at_least: float

    @classmethod
    def of(cls, config: BuildConfig) -> Look | None:
        """As the config says; None: hashes decide alone.

        Raises:
            ConfigError: the model is not there.
        """
        if config.dedup.confirm is None:
            return None
        return cls(judges(config.quality).default, config.quality.device, config.dedup.confirm)

    def settings(self) -> dict[str, str]:
        """The model's content, and the precision that it computes with."""
        return embedding_settings(self.judge, self.device)


def to_look_at(dataset: Dataset, shard: Shard) -> bool:
    """Whether some of a shard's pictures, which are close to others, were not embedded yet."""
    close = dataset.manifest(shard, Step.CLOSE)
    return f"close/{shard.name}" in close.tables and Step.LOOKS not in shard.manifests


def look_at(dataset: Dataset, shard: Shard, look: Look) -> Shard:
    """Embed those of a shard's pictures that are close to others: table `images` (id, embedding).

    What was embedded for the version before, in stage 01 or 03, is taken over.
    """
    close = dataset.manifest(shard, Step.CLOSE)
    table = close.tables[f"close/{shard.name}"]
    before = Shard(shard.name, shard.rows, close.facts["before"].get(shard.name, {}))
    return run_once(
        dataset,
        shard,
        Step.LOOKS,
        [table.digest(["id"])],
        look.settings(),
        lambda _: embed_some(dataset, shard, look.judge, look.device, dataset.table(table)["id"], before),
    )


def looks_of(dataset: Dataset, shards: Sequence[Shard]) -> pa.Table:
    """All embeddings (id, embedding float16) that these shards have."""
    there = [shard for shard in shards if Step.LOOKS in shard.manifests]
    if not there:
        return pa.table({"id": pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float16(), 1))})
    return pa.concat_tables([dataset.read(shard, Step.LOOKS, "images") for shard in there])


def looked_at(dataset: Dataset, shards: Sequence[Shard]) -> list[Shard]:
    """Those that hold pictures which are close to others now; none where nobody looks."""
    if Step.CLOSE not in shards[0].manifests:
        return []
    now = set(dataset.manifest(shards[0], Step.CLOSE).facts["now"])
    return [shard for shard in shards if shard.name in now]


def seen_of(dataset: Dataset, shards: Sequence[Shard], ids: pa.Array, look: Look) -> Seen:
    """What was seen of the pictures that are close to others now."""
    there = looked_at(dataset, shards)
    if not there:
        return Seen(np.full(len(ids), -1, np.int64), np.empty((0, 1), np.float16), look.at_least)
    looks = looks_of(dataset, there)
    row = pc.fill_null(pc.index_in(ids, value_set=looks["id"]), -1).to_numpy().astype(np.int64)
    return Seen(row, half_vectors(looks["embedding"]), look.at_least)


def half_vectors(column: pa.ChunkedArray) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    """A column of fixed-size lists of float16 as it is: (n, d)."""
    whole = pa.concat_arrays(column.chunks)
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float16]] = (
        whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), whole.type.list_size)
    )
    return vectors
