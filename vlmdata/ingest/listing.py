"""Lists a source and cuts the list into shards.

Listing looks at names, sizes and captions and at no picture; whatever is wrong
with a source as a whole is said there, before anything is written. A list of
addresses may be longer than memory: it is cut while it is read.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, encode_parquet, run_once
from vlmdata.config import BuildConfig, FileSource, UrlsSource
from vlmdata.cuts import cuts
from vlmdata.errors import SourceError
from vlmdata.forgetting.tombstones import read_tombstones
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
    sizes = pc.fill_null(listing["size"], 0).to_numpy()
    parts = [listing.slice(start, stop - start) for start, stop in cuts(sizes, config.shard_size, _SHARD_BYTES)]
    return [_list_shard(dataset, f"{number:05d}", rows.combine_chunks()) for number, rows in enumerate(parts)]


_SHARDS = pa.schema([("name", pa.string()), ("rows", pa.int64()), ("manifest", pa.string())])


def _list_urls(dataset: Dataset, source: UrlsSource, shard_size: int) -> list[Shard]:
    """A list that was cut before is not read again: which shards it gave is kept in the store."""

    from vlmdata.ingest.url_list import fingerprint, list_parts

    def work(_: Manifest | None) -> Result:
        parts, tombstones = enumerate(list_parts(source, shard_size)), read_tombstones(dataset)
        cut = [_list_shard(dataset, f"{number:05d}", tombstones.without(part)) for number, part in parts]
        manifests = [shard.manifests[Step.LISTING.value] for shard in cut]
        table = pa.table([[shard.name for shard in cut], [shard.rows for shard in cut], manifests], schema=_SHARDS)
        rows = sum(shard.rows for shard in cut)
        return Result({"shards": table}, Counts(came=rows, kept=rows))

    settings = {"cut": source.settings(), "shard_size": shard_size}
    whole = run_once(dataset, Shard("all", 0), Step.LISTING, fingerprint(source), settings, work)
    shards = dataset.read(whole, Step.LISTING, "shards").to_pylist()
    return [Shard(each["name"], each["rows"]).at(Step.LISTING, each["manifest"]) for each in shards]


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


def _list_shard(dataset: Dataset, name: str, rows: pa.Table) -> Shard:
    reads = [sha256(encode_parquet(rows)).hexdigest()]
    return run_once(dataset, Shard(name, rows.num_rows), Step.LISTING, reads, {}, lambda _: _listed(rows))


def _listed(rows: pa.Table) -> Result:
    captions = len(pc.list_flatten(rows["captions"]))
    return Result(
        {"listing": rows},
        Counts(came=rows.num_rows, kept=rows.num_rows),
        Counts(came=captions, kept=captions),
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
