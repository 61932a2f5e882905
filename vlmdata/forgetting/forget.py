"""A withdrawal, from the words of a person to the receipt.

The tombstone is put first, so that nothing comes back meanwhile; it also says
what is left to do if this is interrupted: the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import BrokenInvariant
from vlmdata.forgetting.elsewhere import require_nowhere_else
from vlmdata.forgetting.exports import rewrite_exports
from vlmdata.forgetting.index import scrub_versions
from vlmdata.forgetting.journal import scrub_journal
from vlmdata.forgetting.outside import outside
from vlmdata.forgetting.pages import scrub_pages
from vlmdata.forgetting.sent import scrub_sent
from vlmdata.forgetting.tables import Scrubber, named_tables
from vlmdata.forgetting.tombstones import Tombstone, read_tombstones
from vlmdata.forgetting.verify import Verified, verify
from vlmdata.forgetting.who import Asked, Who, address_hashes, find
from vlmdata.layout import Step
from vlmdata.lease import leased
from vlmdata.versions.version import Changes, Version, newest_number, put_version

_TABLES = [step for step in Step if step not in {Step.EXPORT_PLAN, Step.FINAL}]


@dataclass(frozen=True)
class Receipt:
    """What was done, in numbers and places.

    Attributes:
        number: Of the tombstone.
        samples: That were there.
        captions: That went with them.
        manifests, tables, journal, pages: Objects that were written anew or deleted.
        sent: Pictures that were deleted on their way to a captioner by link.
        exports: Those of which files were written anew.
        version: The one that was published without them; null: none had them.
        verified: Of the proof.
        outside: Places outside of the store that exports were copied to; they are not ours to change.
    """

    number: int
    at: str
    samples: int
    captions: int
    manifests: int
    tables: int
    exports: list[str]
    journal: int
    pages: int
    sent: int
    version: int | None
    verified: dict[str, Any]
    outside: list[str]


def forget(dataset: Dataset, asked: Asked, say: Callable[[str], None] = lambda _: None) -> Receipt:
    """Take what is named, and all that was made of it, out of the dataset, and prove it.

    Args:
        asked: Samples, addresses, domains, digests.
        say: Is told what is done next.

    Raises:
        ConfigError: a sample that is named is nowhere.
        HeldByOther: a night is under way; what it writes meanwhile could hold them.
        DoesNotHold: it is out of this dataset, and another one of the store has it too; says which.
        BrokenInvariant: the proof found something in this dataset; a defect of ours.
    """
    with leased(dataset, "vlmdata forget"):
        say("Looking for it in every checkpoint")
        who = find(dataset, asked)
        tombstone = _bury(dataset, asked, who)
        return _carry_out(dataset, _unfinished(dataset, who), tombstone, say)


def _bury(dataset: Dataset, asked: Asked, who: Who) -> Tombstone:
    urls, domains = address_hashes(asked)
    while True:
        number = len(read_tombstones(dataset).each) + 1
        tombstone = Tombstone(
            number=number,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            ids=frozenset(who.ids),
            digests=frozenset(who.digests),
            captions=frozenset(who.captions),
            questions=frozenset(who.questions),
            bereft=frozenset(who.bereft),
            rows=frozenset(who.rows),
            urls=urls,
            domains=domains,
        )
        if dataset.store.create(layout.forgotten_path(dataset.name, f"{number:06d}"), _sorted(tombstone)):
            return tombstone


def _sorted(tombstone: Tombstone) -> bytes:
    told = {name: sorted(v) if isinstance(v, frozenset) else v for name, v in tombstone.model_dump().items()}
    return json.dumps(told, indent=1).encode()


def _unfinished(dataset: Dataset, who: Who) -> Who:
    """Those, and whoever an earlier withdrawal was about that was interrupted."""
    store = dataset.store
    open_ = [one for one in read_tombstones(dataset).each if not store.exists(_receipt_path(dataset, one.number))]
    return Who(
        ids=who.ids.union(*(one.ids for one in open_)),
        digests=who.digests.union(*(one.digests for one in open_)),
        captions=who.captions.union(*(one.captions for one in open_)),
        questions=who.questions.union(*(one.questions for one in open_)),
        bereft=who.bereft.union(*(one.bereft for one in open_)),
        rows=who.rows.union(*(one.rows for one in open_)),
    )


def _carry_out(dataset: Dataset, who: Who, tombstone: Tombstone, say: Callable[[str], None]) -> Receipt:
    scrubber = Scrubber(dataset, who)
    say("Taking it out of every checkpoint")
    for step in _TABLES:
        scrubber.scrub(step)
    say("Writing exports again without it")
    exported = rewrite_exports(scrubber)
    say("Taking it out of versions, the journal and pages")
    versions = scrub_versions(scrubber)
    journal = scrub_journal(dataset, who.questions)
    pages = scrub_pages(dataset, who.ids | who.captions)
    sent = scrub_sent(dataset, who.digests)
    tables = scrubber.forget_tables()
    version = _publish(dataset, *versions[-1], exported) if versions else None
    say("Proving that it is in no object of the store")
    proof = _prove(dataset)
    require_nowhere_else(dataset, proof.elsewhere)
    receipt = Receipt(
        number=tombstone.number,
        at=tombstone.at,
        samples=len(tombstone.ids),
        captions=len(tombstone.captions),
        manifests=scrubber.rewritten,
        tables=tables,
        exports=sorted(exported),
        journal=journal,
        pages=pages,
        sent=sent,
        version=version.number if version else None,
        verified={"objects": proof.objects, "bytes": proof.bytes, "pictures": proof.pictures},
        outside=outside(dataset),
    )
    for one in read_tombstones(dataset).each:
        dataset.store.create(_receipt_path(dataset, one.number), json.dumps(asdict(receipt), indent=1).encode())
    return receipt


def _publish(dataset: Dataset, before: Version, now: Version, exported: set[str]) -> Version | None:
    """The newest version once more, as the next, if its files are others than before."""
    final = [dataset.manifest(shard, Step.FINAL) for shard in now.exported]
    if not exported.intersection(one.facts["export"] for one in final):
        return None
    while True:
        told = {
            "number": (newest_number(dataset) or 0) + 1,
            "parent": now.number,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "changes": Changes(removed=before.samples - now.samples),
        }
        made = now.model_copy(update=told)
        if put_version(dataset, made):
            return made


def _prove(dataset: Dataset) -> Verified:
    """Look everywhere; what a killed build or an interrupted withdrawal left, and nothing names, is deleted."""
    tombstones = read_tombstones(dataset)
    proof = verify(dataset, tombstones)
    if proof.found:
        named = named_tables(dataset)
        for path, _ in proof.found:
            if "/data/" in path and path not in named:
                dataset.store.delete(path)
        proof = verify(dataset, tombstones)
    if proof.found:
        path, what = proof.found[0]
        raise BrokenInvariant(f"{dataset.store.locate(path)}: still holds {what} that was to be forgotten")
    return proof


def _receipt_path(dataset: Dataset, number: int) -> str:
    return layout.forgotten_path(dataset.name, f"{number:06d}-receipt")


def as_lines(receipt: Receipt) -> list[str]:
    """What people read."""
    seen = receipt.verified
    lines = [
        f"Forgotten: {receipt.samples:,} samples and {receipt.captions:,} captions, under number {receipt.number}.",
        f"Written anew or deleted: {receipt.manifests:,} manifests, {receipt.tables:,} tables, "
        f"{len(receipt.exports):,} exports, {receipt.journal:,} objects of the journal, "
        f"{receipt.pages:,} records and pages of runs, {receipt.sent:,} pictures on their way to a captioner.",
        f"Proof: all {seen['objects']:,} objects of the store ({seen['bytes']:,} bytes) were opened and "
        f"{seen['pictures']:,} pictures hashed; it is in none of them.",
    ]
    if receipt.version:
        lines.append(f"Version {receipt.version} is the newest one without it.")
    lines += [f"Not ours to change: a copy of an export went to {place}" for place in receipt.outside]
    return lines
