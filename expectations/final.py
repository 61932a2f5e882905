"""04_final: each sample is written once, and no two splits share a picture, as far as hashes tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import each, joined, some_of
from expectations.rule import Rule, breaking, none_may
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.export.names import shard_of
from vlmdata.filtering.near_duplicates import nearest_within
from vlmdata.layout import Step
from vlmdata.schema import CHECKED

SAMPLES = some_of(CHECKED, "id")
CAPTIONS = pa.schema([])
_HASHED = some_of(CHECKED, "id", "phash")
_PLAN = (Step.EXPORT_PLAN, "plan", ["checked"])


def rules(samples: pa.Table, captions: pa.Table, config: BuildConfig) -> list[Rule]:
    """The rules of the stage, beside those of every stage."""
    return []


def split_rules(
    dataset: Dataset, shards: Sequence[Shard], written: Sequence[pa.Table], config: BuildConfig
) -> list[Rule]:
    """The rule of splits, where hashes alone keep them apart: each pair across two splits is compared.

    Args:
        written: `SAMPLES` of each shard.
    """
    by = config.export.split_by
    if not config.export.splits or by.max_distance is None or by.confirm is not None:
        return []
    rows = _hashed(dataset, shards, written)
    other = across(rows["split"], rows["phash"], by.max_distance)
    twins = pc.take(rows["id"], pa.array(other, mask=other < 0))
    figure = breaking(rows["id"], pc.is_null(twins), twins)
    asked = f"no two exported pictures of different splits have hashes within {by.max_distance} bits"
    return [none_may("no_split_leaks", asked, "samples_like_one_of_another_split", figure)]


def across(split: pa.ChunkedArray, hashes: pa.ChunkedArray, radius: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each row one of another split whose hash is within the radius, int64 (n,); -1: there is none.

    Of two such rows only one may be told of: that of the smaller split.
    """
    told = split.combine_chunks().dictionary_encode()
    names, number = told.dictionary.to_pylist(), told.indices.to_numpy()
    known, values = pc.is_valid(hashes).to_numpy(), pc.fill_null(hashes, 0).to_numpy().astype(np.uint64)
    found, sizes = np.full(len(number), -1, np.int64), np.bincount(number, minlength=len(names))
    for one in sorted(range(len(names)), key=lambda at: (sizes[at], names[at]))[:-1]:
        ours, others = (np.flatnonzero(known & mask) for mask in (number == one, number != one))
        at, _ = nearest_within(values[ours], radius, against=values[others])
        found[ours[at >= 0]] = others[at[at >= 0]]
    return found


def _hashed(dataset: Dataset, shards: Sequence[Shard], written: Sequence[pa.Table]) -> pa.Table:
    """Id, hash and split of what is exported: the hashes are those of 03."""
    own = [(shard, ids) for shard, ids in zip(shards, written, strict=True) if ids.num_rows]
    splits = [pa.repeat(pa.scalar(shard_of(shard.name)[0]), ids.num_rows) for shard, ids in own]
    # Each shard names few, row after row: they are told apart where they are read.
    named = each(dataset, lambda shard: pc.unique(dataset.read(shard, *_PLAN)["checked"]), [shard for shard, _ in own])
    paths = pc.unique(pa.chunked_array(named, pa.string())).to_pylist()
    checked = each(
        dataset, lambda path: dataset.table(dataset.manifest_at(path).tables["samples"], _HASHED.names), paths
    )
    hashed, kept = joined(checked, _HASHED), joined([ids for _, ids in own], SAMPLES)
    phash = hashed["phash"].take(pc.index_in(kept["id"], value_set=hashed["id"]))
    return pa.table({"id": kept["id"], "phash": phash, "split": pa.chunked_array(splits, pa.string())})
