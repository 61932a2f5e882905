"""Held samples come back: those between the bands are captioned once more, and both captions go on to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.captioning.answers import Answers, ask
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.questions import Asker, askers, settings_of
from vlmdata.captioning.shards import in_order_of, new_captions, spent
from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import CaptionConfig
from vlmdata.layout import Stage, Step
from vlmdata.runs import StageReport, report
from vlmdata.schema import CAPTIONS, FILTERED


def times_again(config: CaptionConfig) -> int:
    """How often held samples are captioned anew: never without a captioner, or a policy that lets it be asked."""
    asks = config.base_url is not None and config.model is not None and config.policy != "none"
    return config.recaption_held if asks else 0


def caption_held(dataset: Dataset, shard: Shard, config: CaptionConfig, take: int, waits: Waits | None = None) -> Shard:
    """A judged shard with one more caption for each sample that is held as borderline; itself if there is none.

    One more in each language that is asked for.

    Tables as `caption_shard` leaves them; the captions asked for before stay.
    A sample whose asking fails stays as it was; if a rerun may mend that, it is open.

    Args:
        take: 1 for the first time that samples come back, 2 for the second, ...

    Raises:
        ConfigError: address, model or key are missing or refused.
        UserError: nobody answers at the address.
    """
    wanted = _held(dataset, shard)
    if not wanted.num_rows:
        return shard
    asked_by = askers(config, take)
    said = ask(dataset, shard, wanted, asked_by, waits or Waits())

    def work(_: Manifest | None) -> Result:
        return _added(dataset, shard, said, asked_by)

    reads = [
        dataset.digest(shard, Step.CAPTIONED, "samples", FILTERED.names),
        dataset.digest(shard, Step.CAPTIONED, "captions", CAPTIONS.names),
        *said.digests,
    ]
    return run_once(dataset, shard, Step.CAPTIONED, reads, {"again": settings_of(asked_by)}, work)


def _held(dataset: Dataset, shard: Shard) -> pa.Table:
    rejects = dataset.read(shard, Step.CHECKED, "rejects", ["id", "outcome", "code"])
    borderline = pc.and_(pc.equal(rejects["outcome"], "held"), pc.equal(rejects["code"], "borderline"))
    samples = dataset.read(shard, Step.CAPTIONED, "samples", ["id", "sha256", "width", "height"])
    return samples.filter(pc.is_in(samples["id"], value_set=rejects["id"].filter(borderline)))


def _added(dataset: Dataset, shard: Shard, said: Answers, asked_by: Sequence[Asker]) -> Result:
    before = dataset.manifest(shard, Step.CAPTIONED)
    tables = {name: dataset.table(before.tables[name]) for name in before.tables}
    captions = pa.concat_tables([tables["captions"], *new_captions(said, tables["samples"], asked_by)])
    asked, answered = said.attempts.num_rows, said.answers.num_rows
    tables["captions"] = in_order_of(captions, tables["samples"]["id"])
    tables["attempts"] = pa.concat_tables([tables["attempts"], said.attempts])
    return Result(
        tables,
        samples=before.samples,
        captions=before.captions + Counts(came=asked, kept=answered, failed=asked - answered),
        open=before.open + said.open,
        facts={
            **spent(tables["attempts"]),
            "asked_again": asked,
            "questions": [*before.facts.get("questions", []), *(asker.settings() for asker in asked_by)],
        },
    )


def recounted(dataset: Dataset, captioned: StageReport, judged: Sequence[Shard]) -> StageReport:
    """02_captioned with what was asked for its held samples later, which came after its accounts were closed."""
    names = {shard.name: shard.manifests[Step.CAPTIONED] for shard in captioned.shards}
    if all(names.get(shard.name) == shard.manifests[Step.CAPTIONED] for shard in judged):
        return captioned
    later = {shard.name: shard for shard in judged}
    whole = report(dataset, Stage.CAPTIONED, [later.get(shard.name, shard) for shard in captioned.shards])
    return replace(captioned, captions=whole.captions, open=whole.open)
