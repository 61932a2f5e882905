"""Stage 01 for one shard: facts and decisions become what stays and why the rest does not."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Result, Shard, run_once
from vlmdata.config import DedupConfig, FilterConfig
from vlmdata.filtering.captions import captions_rejected, judge_captions
from vlmdata.filtering.decide import judge, with_names
from vlmdata.filtering.duplicates import digests, dropped_and_gained
from vlmdata.filtering.rules import rules
from vlmdata.layout import Step
from vlmdata.opt_out import NOBODY, OptOut
from vlmdata.progress import advance
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, FACTS, FILTERED, REJECTS, SAMPLES, filled


def filter_shard(
    dataset: Dataset, shard: Shard, filtering: FilterConfig, dedup: DedupConfig, opt_out: OptOut = NOBODY
) -> Shard:
    """Decide a shard: tables `samples` (`schema.FILTERED`), `captions`, `rejects`, `caption_rejects`."""
    reads = [
        dataset.digest(shard, Step.RAW, "samples", SAMPLES.names),
        dataset.digest(shard, Step.RAW, "captions", CAPTIONS.names),
        dataset.digest(shard, Step.FACTS, "facts", FACTS.names),
        *digests(dataset, shard),
    ]
    settings = {"filter": filtering.settings(), "dedup": dedup.settings(), **opt_out.settings()}
    return run_once(
        dataset, shard, Step.FILTERED, reads, settings, lambda _: _work(dataset, shard, filtering, dedup, opt_out)
    )


def _work(dataset: Dataset, shard: Shard, filtering: FilterConfig, dedup: DedupConfig, opt_out: OptOut) -> Result:
    samples = dataset.read(shard, Step.RAW, "samples")
    captions = dataset.read(shard, Step.RAW, "captions")
    facts = dataset.read(shard, Step.FACTS, "facts")
    dropped, gained = dropped_and_gained(dataset, shard)

    passes, rejects = judge(samples["key"], with_names(facts, samples), rules(filtering, dedup, opt_out))
    stays = pc.and_not(passes, pc.is_in(facts["id"], value_set=dropped["id"]).combine_chunks())
    rejects = pa.concat_tables([rejects, _duplicates(samples, dropped, dedup)])
    kept = _with_facts(samples, facts).filter(stays)

    gone = dropped.filter(dropped["gives"])["id"]
    own = captions.filter(pc.invert(pc.is_in(captions["id"], value_set=gone)))
    candidates = _in_order_of(pa.concat_tables([own, gained]), samples["id"])
    lost = rejects.filter(pc.invert(pc.is_in(rejects["id"], value_set=gone)))
    kept_captions, caption_rejects = _captions(candidates, kept["id"], lost, filtering)

    advance(Step.FILTERED, samples.num_rows)
    return Result(
        {"samples": kept, "captions": kept_captions, "rejects": rejects, "caption_rejects": caption_rejects},
        samples=Counts.of(kept.num_rows, rejects["outcome"], came=samples.num_rows),
        captions=Counts.of(kept_captions.num_rows, caption_rejects["outcome"], came=candidates.num_rows),
    )


def _duplicates(samples: pa.Table, dropped: pa.Table, dedup: DedupConfig) -> pa.Table:
    keys = samples["key"].take(pc.index_in(dropped["id"], value_set=samples["id"]))
    return filled(
        REJECTS,
        dropped.num_rows,
        id=dropped["id"],
        key=keys,
        outcome="rejected",
        code="near_duplicate",
        value=dropped["distance"],
        bound=float(dedup.max_distance),
        related=dropped["duplicate_of"],
        retryable=False,
    )


def _with_facts(samples: pa.Table, facts: pa.Table) -> pa.Table:
    columns = [samples[name] if name in SAMPLES.names else facts[name] for name in FILTERED.names]
    return pa.table(columns, schema=FILTERED)


def _in_order_of(captions: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """Captions in the order of their samples, a sample's own before those it gained."""
    place = pc.index_in(captions["id"], value_set=ids)
    rows = pa.table({"place": place, "row": pa.array(range(captions.num_rows), pa.int64())})
    return captions.take(pc.sort_indices(rows, sort_keys=[("place", "ascending"), ("row", "ascending")]))


def _captions(
    candidates: pa.Table, kept_ids: pa.ChunkedArray, lost: pa.Table, filtering: FilterConfig
) -> tuple[pa.Table, pa.Table]:
    """Captions of kept pictures are judged; those of the others share their picture's fate."""
    with_picture = pc.is_in(candidates["id"], value_set=kept_ids)
    kept, rejects = judge_captions(candidates.filter(with_picture), filtering.max_caption_chars)
    parts = [rejects]
    for outcome in ("rejected", "failed"):
        ids = lost.filter(pc.equal(lost["outcome"], outcome))["id"]
        mask = pc.is_in(candidates["id"], value_set=ids)
        parts.append(captions_rejected(candidates, mask, f"sample_{outcome}", outcome=outcome))
    return kept, pa.concat_tables(parts) if parts else CAPTION_REJECTS.empty_table()
