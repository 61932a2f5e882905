"""Stage 02 for one shard: which pictures are asked for, and what they go on with."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.captioning.answers import Answers, ask
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.endpoint import check_caption_config
from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import CaptionConfig
from vlmdata.layout import Step
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, FILTERED, REJECTS, caption_table, filled

__all__ = ["caption_shard", "check_caption_config"]


def caption_shard(dataset: Dataset, shard: Shard, config: CaptionConfig, backoff: Backoff | None = None) -> Shard:
    """Caption what the policy names: tables `samples`, `captions`, `rejects`, `caption_rejects`, `attempts`.

    Samples are rows of `schema.FILTERED`, captions of `schema.CAPTIONS`, a
    sample's originals first. A sample that ends without any caption is rejected
    (`no_caption`, not asked for) or failed (`caption_transient`,
    `caption_permanent`, `caption_refused`); one that has originals is kept.
    Transient failures stay open, and a rerun asks for just those.

    Raises:
        ConfigError: a caption is wanted and address, model or key are missing or refused.
        UserError: nobody answers at the address.
    """
    identities = dataset.read(shard, Step.FILTERED, "samples", ["id", "sha256"])
    captioned = dataset.read(shard, Step.FILTERED, "captions", ["id"])["id"]
    wanted = _wanted(identities, captioned, config)
    said = ask(dataset, shard, wanted, config, backoff or Backoff()) if wanted.num_rows else Answers.none()

    def work(_: Manifest | None) -> Result:
        return _put_together(dataset, shard, said, config)

    reads = [
        dataset.digest(shard, Step.FILTERED, "samples", FILTERED.names),
        dataset.digest(shard, Step.FILTERED, "captions", CAPTIONS.names),
        *said.digests,
    ]
    return run_once(dataset, shard, Step.CAPTIONED, reads, _settings(config, wanted), work)


def _wanted(identities: pa.Table, captioned: pa.ChunkedArray, config: CaptionConfig) -> pa.Table:
    if config.policy == "all":
        return identities
    if config.policy == "none":
        return identities.slice(0, 0)
    return identities.filter(pc.invert(pc.is_in(identities["id"], value_set=captioned)))


def _settings(config: CaptionConfig, wanted: pa.Table) -> dict[str, str | None]:
    """What marks new captions; how they were asked for is in the key of the answers."""
    if not wanted.num_rows:
        return {"policy": config.policy}
    return {"policy": config.policy, "model": config.model, "language": config.language}


def _put_together(dataset: Dataset, shard: Shard, said: Answers, config: CaptionConfig) -> Result:
    samples = dataset.read(shard, Step.FILTERED, "samples")
    originals = dataset.read(shard, Step.FILTERED, "captions")
    captions = _in_order_of(pa.concat_tables([originals, _new_captions(said.answers, config)]), samples["id"])
    has_caption = pc.is_in(samples["id"], value_set=captions["id"])
    kept = samples.filter(has_caption)
    rejects = _rejects(samples.filter(pc.invert(has_caption)), said.attempts)
    asked, answered = said.attempts.num_rows, said.answers.num_rows
    return Result(
        {
            "samples": kept,
            "captions": captions,
            "rejects": rejects,
            "caption_rejects": CAPTION_REJECTS.empty_table(),
            "attempts": said.attempts,
        },
        samples=Counts.of(kept.num_rows, rejects["outcome"], came=samples.num_rows),
        captions=Counts(came=originals.num_rows + asked, kept=captions.num_rows, failed=asked - answered),
        open=len(said.transient),
        facts=_spent(said.attempts),
    )


def _new_captions(answers: pa.Table, config: CaptionConfig) -> pa.Table:
    n = answers.num_rows
    origin = f"model:{config.model}"
    return caption_table(answers["id"].to_pylist(), answers["text"].to_pylist(), [config.language] * n, [origin] * n)


def _in_order_of(captions: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """Captions in the order of their samples; within one, as they came: the originals, then the new."""
    place = pc.index_in(captions["id"], value_set=ids)
    rows = pa.table({"place": place, "row": pa.array(range(captions.num_rows), pa.int64())})
    return captions.take(pc.sort_indices(rows, sort_keys=[("place", "ascending"), ("row", "ascending")]))


def _rejects(samples: pa.Table, attempts: pa.Table) -> pa.Table:
    """Samples without a caption: those whose asking failed, and those that were not asked for."""
    rows = pc.index_in(samples["id"], value_set=attempts["id"])
    failure = attempts["failure"].take(rows)
    return filled(
        REJECTS,
        samples.num_rows,
        id=samples["id"],
        key=samples["key"],
        outcome=pc.if_else(pc.is_null(failure), "rejected", "failed"),
        code=pc.fill_null(pc.binary_join_element_wise("caption", failure, "_"), "no_caption"),
        detail=attempts["message"].take(rows),
        retryable=pc.fill_null(pc.equal(failure, "transient"), False),
    )


def _spent(attempts: pa.Table) -> dict[str, int]:
    """What this shard's asking took, as far as the API reports it."""
    totals = {name: pc.sum(attempts[name]).as_py() or 0 for name in ("requests", "input_tokens", "output_tokens")}
    return {"asked": attempts.num_rows, **totals}
