"""Stage 02 for one shard: which pictures are asked for, and what they go on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.captioning.answers import OPEN_FAILURES, Answers, ask
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.endpoint import check_caption_config
from vlmdata.captioning.questions import Asker, askers, settings_of
from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import CaptionConfig
from vlmdata.layout import Step
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, FILTERED, REJECTS, caption_table, filled

__all__ = ["caption_shard", "check_caption_config"]


def caption_shard(dataset: Dataset, shard: Shard, config: CaptionConfig, waits: Waits | None = None) -> Shard:
    """Caption what the policy names: tables `samples`, `captions`, `rejects`, `caption_rejects`, `attempts`.

    Samples are rows of `schema.FILTERED`, captions of `schema.CAPTIONS`, a
    sample's originals first, then one in each language asked for. A sample that ends without any caption is rejected
    (`no_caption`, not asked for) or failed (`caption_transient`,
    `caption_permanent`, `caption_refused`, `caption_budget`); one that has
    originals is kept. Transient and budget failures stay open: a rerun asks for
    those that have a request left.

    Raises:
        ConfigError: a caption is wanted and address, model or key are missing or refused.
        UserError: nobody answers at the address.
    """
    wanted = wanted_pictures(dataset, shard, config)
    asked_by = askers(config)
    said = ask(dataset, shard, wanted, asked_by, waits or Waits()) if wanted.num_rows else Answers.none()

    def work(_: Manifest | None) -> Result:
        return _put_together(dataset, shard, said, asked_by)

    reads = [
        dataset.digest(shard, Step.FILTERED, "samples", FILTERED.names),
        dataset.digest(shard, Step.FILTERED, "captions", CAPTIONS.names),
        *said.digests,
    ]
    return run_once(dataset, shard, Step.CAPTIONED, reads, _settings(asked_by, wanted), work)


_IDENTITY = ["id", "sha256", "width", "height"]


def wanted_pictures(dataset: Dataset, shard: Shard, config: CaptionConfig) -> pa.Table:
    """The pictures of a shard of 01_filtered that the policy names: id, sha256, width, height."""
    identities = dataset.read(shard, Step.FILTERED, "samples", _IDENTITY)
    captioned = dataset.read(shard, Step.FILTERED, "captions", ["id"])["id"]
    if config.policy == "all":
        return identities
    if config.policy == "none":
        return identities.slice(0, 0)
    return identities.filter(pc.invert(pc.is_in(identities["id"], value_set=captioned)))


def _settings(asked_by: Sequence[Asker], wanted: pa.Table) -> dict[str, Any]:
    """What marks new captions; how they were asked for is in the key of the answers."""
    policy: dict[str, Any] = {"policy": asked_by[0].config.policy}
    return {**policy, "ask": settings_of(asked_by)} if wanted.num_rows else policy


def _put_together(dataset: Dataset, shard: Shard, said: Answers, asked_by: Sequence[Asker]) -> Result:
    samples = dataset.read(shard, Step.FILTERED, "samples")
    originals = dataset.read(shard, Step.FILTERED, "captions")
    captions = in_order_of(pa.concat_tables([originals, *new_captions(said, samples, asked_by)]), samples["id"])
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
        open=said.open,
        facts={**spent(said.attempts), "questions": [asker.settings() for asker in asked_by] if asked else []},
    )


def new_captions(said: Answers, samples: pa.Table, asked_by: Sequence[Asker]) -> list[pa.Table]:
    """Answers as rows of `schema.CAPTIONS`, a table for each who asked."""
    told = said.of_each(len(asked_by))
    return [_as_captions(answers, samples, asker) for answers, asker in zip(told, asked_by, strict=True)]


def _as_captions(answers: pa.Table, samples: pa.Table, asker: Asker) -> pa.Table:
    rows = samples.take(pc.index_in(answers["id"], value_set=samples["id"]))
    sides = pc.min_element_wise(rows["width"], rows["height"]).to_pylist()
    origins = [asker.origin(asker.is_small(side)) for side in sides]
    languages: list[str | None] = [asker.language] * len(origins)
    return caption_table(answers["id"].to_pylist(), answers["text"].to_pylist(), languages, origins)


def in_order_of(captions: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """Captions in the order of their samples; within one, as they came: the originals, then the new."""
    place = pc.index_in(captions["id"], value_set=ids)
    rows = pa.table({"place": place, "row": pa.array(range(captions.num_rows), pa.int64())})
    return captions.take(pc.sort_indices(rows, sort_keys=[("place", "ascending"), ("row", "ascending")]))


def _rejects(samples: pa.Table, attempts: pa.Table) -> pa.Table:
    """Samples without a caption: those whose asking failed, and those that were not asked for."""
    # Of failures in several languages the first that a rerun may mend speaks for the sample.
    mendable = pc.is_in(attempts["failure"], value_set=pa.array(OPEN_FAILURES))
    attempts = pa.concat_tables([attempts.filter(mendable), attempts.filter(pc.invert(mendable))])
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
        retryable=pc.fill_null(pc.is_in(failure, value_set=pa.array(OPEN_FAILURES)), False),
    )


def spent(attempts: pa.Table) -> dict[str, float]:
    """What this shard's captions took, as far as the API reports it."""
    totals = {name: pc.sum(attempts[name]).as_py() or 0 for name in ("requests", "input_tokens", "output_tokens")}
    return {"asked": attempts.num_rows, **totals, "cost": pc.sum(attempts["cost"]).as_py() or 0.0}
