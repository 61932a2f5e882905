"""What a shard's pictures were captioned with, a checkpoint of its own over the journal.

It depends on the pictures that want a caption and on what they are asked, and
on nothing else, so that a corrected licence or original caption asks nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.captioning import line as lines
from vlmdata.captioning.anthropic import Anthropic
from vlmdata.captioning.asking import WAIT_FOR_A_TURN_S, caption_all
from vlmdata.captioning.batch_asking import LONGEST_BATCH_S, caption_in_batches
from vlmdata.captioning.batches import BATCH_APIS
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Attempt, Load, Manners, Round, Subject, Waits
from vlmdata.captioning.endpoint import endpoint_of
from vlmdata.captioning.journal.book import Account
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.links import transport_for
from vlmdata.captioning.money import limits_of
from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.provider import Provider
from vlmdata.captioning.questions import Asker, settings_of
from vlmdata.captioning.watching import spent_so_far
from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import CaptionConfig
from vlmdata.errors import UserError
from vlmdata.event_loop import run
from vlmdata.layout import Step
from vlmdata.progress import advance, note
from vlmdata.schema import ATTEMPTS, ID

PROVIDERS: dict[str, Provider] = {"openai": OpenAI(), "anthropic": Anthropic()}

ANSWERS = pa.schema([ID, pa.field("text", pa.string(), nullable=False)])

OPEN_FAILURES = ("transient", "budget")
"""Classes that a rerun may mend."""


@dataclass
class Answers:
    """What was asked for: all pictures in order, once a language; what failed has an attempt and no answer."""

    attempts: pa.Table
    answers: pa.Table
    digests: list[str] = field(default_factory=list)

    @classmethod
    def none(cls) -> Answers:
        """Nothing was asked."""
        return cls(ATTEMPTS.empty_table(), ANSWERS.empty_table())

    @property
    def open(self) -> int:
        """Number of failures that a rerun may mend."""
        return int(pc.sum(pc.is_in(self.attempts["failure"], value_set=pa.array(OPEN_FAILURES))).as_py() or 0)

    def of_each(self, languages: int) -> list[pa.Table]:
        """The answers in each of so many languages."""
        pictures = self.attempts.num_rows // languages
        answered = pc.is_null(self.attempts["failure"])
        counts = [pc.sum(answered.slice(n * pictures, pictures)).as_py() or 0 for n in range(languages)]
        return [self.answers.slice(sum(counts[:n]), counts[n]) for n in range(languages)]


def ask(dataset: Dataset, shard: Shard, wanted: pa.Table, asked_by: Sequence[Asker], waits: Waits) -> Answers:
    """Answers for `wanted` (id, sha256, width, height), one for each who asks: from the store, else asked for.

    Who asks differs in the language alone.

    Raises:
        ConfigError: no address, model or key, or the endpoint refuses the key.
        UserError: nobody answers at the address.
    """
    errors: list[UserError] = []
    keys = [key for asker in asked_by for key in asker.keys(wanted["sha256"].to_pylist())]

    def work(_: Manifest | None) -> Result:
        done = _ask_all(dataset, shard, wanted, keys, asked_by, waits)
        if done.error and not any(attempt.text for attempt in done.attempts):
            raise done.error
        errors.extend([done.error] if done.error else [])
        return _result(_tables(wanted["id"].to_pylist() * len(asked_by), done.attempts))

    settings = {"ask": settings_of(asked_by), "again": _asked_again(dataset, keys)}
    done = run_once(dataset, shard, Step.ANSWERS, [_digest(wanted)], settings, work)
    if errors:
        # Only now: what was answered before the trouble is safe.
        raise errors[0]
    return _read(dataset, dataset.manifest(done, Step.ANSWERS))


def _digest(wanted: pa.Table) -> str:
    from hashlib import sha256

    rows = zip(wanted["id"].to_pylist(), wanted["sha256"].to_pylist(), strict=True)
    return sha256("\n".join(f"{id_} {content}" for id_, content in rows).encode()).hexdigest()[:32]


def _asked_again(dataset: Dataset, keys: Sequence[str]) -> dict[str, int]:
    """The attempt that each key is at, if it is not the first: another one is another checkpoint."""

    async def look() -> dict[str, int]:
        entries = await (await lines.process().journal(dataset)).find(keys)
        return {key: entry.attempt for key, entry in sorted(entries.items()) if entry.attempt > 1}

    return run(look())


def _read(dataset: Dataset, manifest: Manifest) -> Answers:
    attempts, answers = manifest.tables["attempts"], manifest.tables["answers"]
    digests = [attempts.digest(ATTEMPTS.names), answers.digest(ANSWERS.names)]
    return Answers(dataset.table(attempts), dataset.table(answers), digests)


def _ask_all(
    dataset: Dataset, shard: Shard, wanted: pa.Table, keys: Sequence[str], asked_by: Sequence[Asker], waits: Waits
) -> Round:
    config, prompt = asked_by[0].config, asked_by[0].prompt
    client = CaptionClient(endpoint_of(config, wanted.num_rows), PROVIDERS[config.provider], config)
    sides = pc.min_element_wise(wanted["width"], wanted["height"]).to_pylist()
    loads = _loaders(dataset, shard, wanted["id"])
    asked = [
        (load, asker.question(asker.is_small(side)))
        for asker in asked_by
        for load, side in zip(loads, sides, strict=True)
    ]
    subjects = [Subject(key, load, question) for key, (load, question) in zip(keys, asked, strict=True)]
    transport = transport_for(dataset, config, _longest(config, waits))
    manners = Manners(prompt, waits, transport, _Told(len(asked_by)))

    async def all_of_them() -> Round:
        journal: Journal = await lines.process().journal(dataset, limits_of(config))
        if config.batch:
            api = BATCH_APIS[config.provider](client.endpoint)
            return await caption_in_batches(client, api, journal, dataset, subjects, manners)
        return await caption_all(client, journal, subjects, manners)

    return run(all_of_them())


def _longest(config: CaptionConfig, waits: Waits) -> float:
    """Seconds that one picture can be asked about: each request, its wait for a turn, and the pause after it."""
    if config.batch:
        return LONGEST_BATCH_S
    each = config.timeout_s + WAIT_FOR_A_TURN_S + waits.backoff.longest_retry_after_s
    return (1 + config.max_retries) * each


class _Told:
    """Lets whoever watches know of each picture that is through, and of what was spent."""

    def __init__(self, languages: int) -> None:
        self._languages = languages
        self._ended = 0

    def __call__(self, account: Account) -> None:
        # As many ends as languages are a sample's worth.
        self._ended += 1
        if self._ended % self._languages == 0:
            advance(Step.CAPTIONED, 1)
        note(Step.CAPTIONED, spent_so_far(account))


def _loaders(dataset: Dataset, shard: Shard, ids: pa.ChunkedArray) -> Sequence[Load]:
    """Bytes leave Arrow one picture at a time, when a request for it is built."""
    images = dataset.read(shard, Step.RAW, "images")
    places = pc.index_in(ids, value_set=images["id"]).to_pylist()
    column = images["image"]

    def loader(place: int) -> Callable[[], bytes]:
        return lambda: bytes(column[place].as_buffer())

    return [loader(place) for place in places]


def _tables(ids: list[str], attempts: Sequence[Attempt]) -> Answers:
    rows = [_row(id_, attempt) for id_, attempt in zip(ids, attempts, strict=True)]
    texts = [{"id": id_, "text": a.text} for id_, a in zip(ids, attempts, strict=True) if a.text]
    return Answers(pa.Table.from_pylist(rows, ATTEMPTS), pa.Table.from_pylist(texts, ANSWERS))


def _row(id_: str, attempt: Attempt) -> dict[str, object]:
    width, height, size, tokens = attempt.sent or (None, None, None, None)
    return {
        "id": id_,
        "key": attempt.key,
        "outcome": "failed" if attempt.failure else "captioned",
        "failure": attempt.failure,
        "http_status": attempt.http_status,
        "attempt": attempt.attempt,
        "requests": attempt.requests,
        "message": attempt.message,
        "input_tokens": attempt.input_tokens,
        "output_tokens": attempt.output_tokens,
        "cost": None if attempt.cost is None else attempt.cost / NANO,
        "time": None if attempt.at is None else int(attempt.at * 1000),
        "sent_width": width,
        "sent_height": height,
        "sent_bytes": size,
        "sent_tokens": tokens,
    }


def _result(answers: Answers) -> Result:
    asked, answered = answers.attempts.num_rows, answers.answers.num_rows
    counts = Counts(came=asked, kept=answered, failed=asked - answered)
    tables = {"attempts": answers.attempts, "answers": answers.answers}
    return Result(tables, counts, counts, open=answers.open)
