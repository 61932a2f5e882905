"""Lists a source and cuts the list into shards, on top of how it was cut before.

Listing looks at names, sizes and captions and at no picture; whatever is wrong
with a source as a whole is said there, before anything is written. A list of
addresses may be longer than memory: it is cut while it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, encode_parquet, run_once
from vlmdata.config import BuildConfig, FileSource, UrlsSource
from vlmdata.cuts import cuts
from vlmdata.errors import SourceError
from vlmdata.forgetting.tombstones import read_tombstones
from vlmdata.ingest.growth import first_free, keep_cut, owners
from vlmdata.ingest.kinds import KINDS
from vlmdata.layout import Step
from vlmdata.schema import sample_ids

_CHECKED_AT_ONCE = 256
_SHARD_BYTES = 512 << 20
"""Bytes of pictures in one shard, at most (one larger picture is a shard of its own)."""


def list_source(dataset: Dataset, config: BuildConfig) -> list[Shard]:
    """The source's samples, cut into shards of at most `config.shard_size`: by key, or in the order of a list of URLs.

    Raises:
        SourceError: the source cannot be used as it is; of a source of files nothing has been written.
    """
    if isinstance(config.source, UrlsSource):
        return _list_urls(dataset, config.source, config.shard_size)
    listing = read_tombstones(dataset).without(_listing(dataset, config.source))
    settings = {"source": config.source.settings(), "shard_size": config.shard_size}
    return keep_cut(dataset, settings, lambda known: _cut(dataset, known, listing, config.shard_size))


def _cut(dataset: Dataset, known: Sequence[Shard], listing: pa.Table, shard_size: int) -> list[Shard]:
    """Rows that were there stay in their shards; the others are cut into new ones."""
    owner = owners(dataset, known, listing)
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(-1, len(known)), side="right").tolist()
    listing = listing.take(order)
    stay = [
        _list_shard(dataset, shard.name, listing.slice(start, stop - start), shard)
        for shard, start, stop in zip(known, ends[:-1], ends[1:], strict=True)
        if stop > start
    ]
    new, first = listing.slice(0, ends[0]), first_free(known)
    sizes = pc.fill_null(new["size"], 0).to_numpy()
    parts = enumerate(cuts(sizes, shard_size, _SHARD_BYTES), first)
    return stay + [
        _list_shard(dataset, f"{number:05d}", new.slice(start, stop - start)) for number, (start, stop) in parts
    ]


def _list_urls(dataset: Dataset, source: UrlsSource, shard_size: int) -> list[Shard]:
    """A list that was cut before is not read again."""
    from vlmdata.ingest.url_list import fingerprint, list_parts

    def cut(known: Sequence[Shard]) -> list[Shard]:
        tombstones, first = read_tombstones(dataset), first_free(known)
        keys = ((at, dataset.read(shard, Step.LISTING, "listing", ["key"])) for at, shard in enumerate(known))
        found, new = list[Shard](), list[Shard]()
        for owner, part in list_parts(source, shard_size, keys):
            rows = tombstones.without(part)
            if owner is None:
                new.append(_list_shard(dataset, f"{first + len(new):05d}", rows))
            else:
                found.append(_list_shard(dataset, known[owner].name, rows, known[owner]))
        return found + new

    settings = {"source": source.settings(), "shard_size": shard_size}
    return keep_cut(dataset, settings, cut, seen=sha256("\n".join(fingerprint(source)).encode()).hexdigest())


def _listing(dataset: Dataset, source: FileSource) -> pa.Table:
    """All rows; those of archives are kept in the store, for indexing one takes far longer than a stat."""
    kind = KINDS[source.kind]
    reads = kind.fingerprint(source)
    if reads is None:
        return _refuse_repeats(source, kind.list_rows(source))

    def work(_: Manifest | None) -> Result:
        return _listed(_refuse_repeats(source, kind.list_rows(source)))

    whole = run_once(dataset, Shard("all", 0), Step.LISTING, reads, {"whole": source.settings()}, work)
    return dataset.read(whole, Step.LISTING, "listing")


def _list_shard(dataset: Dataset, name: str, rows: pa.Table, before: Shard | None = None) -> Shard:
    """A shard's rows as a checkpoint; it names the one before, of which 00_raw may have most pictures."""
    rows = rows.combine_chunks()
    reads = [sha256(encode_parquet(rows)).hexdigest()]
    facts = {"before": before.manifests[Step.LISTING.value]} if before else {}
    return run_once(dataset, Shard(name, rows.num_rows), Step.LISTING, reads, {}, lambda _: _listed(rows, facts))


def _listed(rows: pa.Table, facts: dict[str, str] | None = None) -> Result:
    captions = len(pc.list_flatten(rows["captions"]))
    return Result(
        {"listing": rows},
        Counts(came=rows.num_rows, kept=rows.num_rows),
        Counts(came=captions, kept=captions),
        facts=dict(facts or {}),
    )


def _refuse_repeats(source: FileSource, listing: pa.Table) -> pa.Table:
    """The listing, unless two rows have one id (key and bytes); reads only where a key is repeated."""
    tally = listing["key"].value_counts()
    if len(tally) == listing.num_rows:
        return listing
    repeated = pc.struct_field(tally, "values").filter(pc.greater(pc.struct_field(tally, "counts"), 1))
    suspects = listing.filter(pc.is_in(listing["key"], value_set=repeated))
    seen: dict[str, str] = {}
    for start in range(0, suspects.num_rows, _CHECKED_AT_ONCE):
        rows = suspects.slice(start, _CHECKED_AT_ONCE)
        places = KINDS[source.kind].places(rows)
        for id_, place in zip(_ids_now(source, rows), places, strict=True):
            if id_ in seen:
                what = "two rows with one id (same key, same bytes)"
                raise SourceError(f"{seen[id_]} and {place}: {what}; remove one of them")
            seen[id_] = place
    return listing


def _ids_now(source: FileSource, rows: pa.Table) -> list[str]:
    there = np.flatnonzero(~np.asarray(rows["missing"], dtype=bool))
    content = [""] * rows.num_rows
    found, reasons = KINDS[source.kind].read_rows(source, rows.take(there))
    for position, data, why in zip(there, found, reasons, strict=True):
        if data is None:
            raise SourceError(f"{KINDS[source.kind].places(rows)[position]}: cannot be read ({why})")
        content[position] = sha256(data).hexdigest()
    return sample_ids(content, rows["key"].to_pylist())
