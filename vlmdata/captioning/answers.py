"""The part of stage 02 that costs money: what was asked of the captioner and what it said, a checkpoint of its own.

It depends on the pictures that want a caption and on what they are asked, and
on nothing else, so that a corrected licence or original caption asks nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.client import Attempt, Batch, CaptionClient, Load
from vlmdata.captioning.endpoint import endpoint_of
from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.provider import Provider
from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import CaptionConfig
from vlmdata.errors import UserError
from vlmdata.layout import Step
from vlmdata.progress import advance
from vlmdata.schema import ATTEMPTS, ID

PROVIDERS: dict[str, Provider] = {"openai": OpenAI()}

ANSWERS = pa.schema([ID, pa.field("text", pa.string(), nullable=False)])


@dataclass
class Answers:
    """What was asked for, in order; `failed` pictures have an attempt and no answer."""

    attempts: pa.Table
    answers: pa.Table
    digests: list[str] = field(default_factory=list)

    @classmethod
    def none(cls) -> Answers:
        """Nothing was asked."""
        return cls(ATTEMPTS.empty_table(), ANSWERS.empty_table())

    @property
    def transient(self) -> pa.ChunkedArray:
        """Ids of failures that a rerun may mend."""
        return self.attempts.filter(pc.equal(self.attempts["failure"], "transient"))["id"]


def ask(dataset: Dataset, shard: Shard, wanted: pa.Table, config: CaptionConfig, backoff: Backoff) -> Answers:
    """Answers for `wanted` (id, sha256): from the store, else asked for; transient failures are asked anew.

    Raises:
        ConfigError: no address, model or key, or the endpoint refuses the key.
        UserError: nobody answers at the address.
    """
    errors: list[UserError] = []

    def work(before: Manifest | None) -> Result:
        earlier = _read(dataset, before) if before else Answers.none()
        batch_ids = _still_wanted(wanted, earlier)
        batch = _ask_all(dataset, shard, batch_ids, config, backoff)
        if batch.error and not any(attempt.text for attempt in batch.attempts):
            raise batch.error
        errors.extend([batch.error] if batch.error else [])
        return _result(_merged(wanted["id"], earlier, batch_ids, batch.attempts))

    reads = [_digest(wanted)]
    done = run_once(dataset, shard, Step.ANSWERS, reads, _settings(config), work)
    if errors:
        # Only now: what was answered before the trouble is safe.
        raise errors[0]
    return _read(dataset, dataset.manifest(done, Step.ANSWERS))


def _settings(config: CaptionConfig) -> dict[str, object]:
    """What decides an answer; the policy decides who is asked for, which `reads` already says."""
    return {"ask": {name: value for name, value in config.settings().items() if name != "policy"}}


def _digest(wanted: pa.Table) -> str:
    from hashlib import sha256

    rows = zip(wanted["id"].to_pylist(), wanted["sha256"].to_pylist(), strict=True)
    return sha256("\n".join(f"{id_} {content}" for id_, content in rows).encode()).hexdigest()[:32]


def _read(dataset: Dataset, manifest: Manifest) -> Answers:
    attempts, answers = manifest.tables["attempts"], manifest.tables["answers"]
    digests = [attempts.digest(ATTEMPTS.names), answers.digest(ANSWERS.names)]
    return Answers(dataset.table(attempts), dataset.table(answers), digests)


def _still_wanted(wanted: pa.Table, earlier: Answers) -> pa.ChunkedArray:
    settled = pc.and_not(
        pc.is_in(wanted["id"], value_set=earlier.attempts["id"]), pc.is_in(wanted["id"], value_set=earlier.transient)
    )
    return wanted.filter(pc.invert(settled))["id"]


def _ask_all(dataset: Dataset, shard: Shard, ids: pa.ChunkedArray, config: CaptionConfig, backoff: Backoff) -> Batch:
    client = CaptionClient(endpoint_of(config, len(ids)), PROVIDERS[config.provider], config, backoff)
    return client.caption_all(_loaders(dataset, shard, ids), lambda: advance(Step.CAPTIONED, 1))


def _loaders(dataset: Dataset, shard: Shard, ids: pa.ChunkedArray) -> Sequence[Load]:
    """Bytes leave Arrow one picture at a time, when a request for it is built."""
    images = dataset.read(shard, Step.RAW, "images")
    places = pc.index_in(ids, value_set=images["id"]).to_pylist()
    column = images["image"]

    def loader(place: int) -> Callable[[], bytes]:
        return lambda: bytes(column[place].as_buffer())

    return [loader(place) for place in places]


def _merged(order: pa.ChunkedArray, earlier: Answers, ids: pa.ChunkedArray, attempts: Sequence[Attempt]) -> Answers:
    new = _tables(ids.to_pylist(), attempts)
    kept = pc.invert(pc.is_in(earlier.attempts["id"], value_set=ids))
    return Answers(
        _in_order(order, pa.concat_tables([earlier.attempts.filter(kept), new.attempts])),
        _in_order(order, pa.concat_tables([earlier.answers, new.answers])),
    )


def _in_order(order: pa.ChunkedArray, rows: pa.Table) -> pa.Table:
    return rows.take(pc.sort_indices(pc.index_in(rows["id"], value_set=order)))


def _tables(ids: list[str], attempts: Sequence[Attempt]) -> Answers:
    rows = [
        {
            "id": id_,
            "outcome": "failed" if attempt.failure else "captioned",
            "failure": attempt.failure,
            "http_status": attempt.http_status,
            "requests": attempt.requests,
            "message": attempt.message,
            "input_tokens": attempt.input_tokens,
            "output_tokens": attempt.output_tokens,
        }
        for id_, attempt in zip(ids, attempts, strict=True)
    ]
    texts = [{"id": id_, "text": a.text} for id_, a in zip(ids, attempts, strict=True) if a.text]
    return Answers(pa.Table.from_pylist(rows, ATTEMPTS), pa.Table.from_pylist(texts, ANSWERS))


def _result(answers: Answers) -> Result:
    asked, answered = answers.attempts.num_rows, answers.answers.num_rows
    counts = Counts(came=asked, kept=answered, failed=asked - answered)
    tables = {"attempts": answers.attempts, "answers": answers.answers}
    return Result(tables, counts, counts, open=len(answers.transient))
