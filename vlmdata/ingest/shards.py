"""Lists a source, cuts the list into shards, and reads the shards one by one.

Listing looks at names, sizes and captions and at no picture; whatever is wrong
with a source as a whole is said there, before anything is written. Adding a kind
of source takes a module with `list_rows`, `read_rows` and `fingerprint`, and a
line in `_KINDS`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, encode_parquet, run_once
from vlmdata.config import BuildConfig, Source
from vlmdata.cuts import cuts
from vlmdata.errors import SourceError
from vlmdata.ingest import folder, parquet, webdataset
from vlmdata.layout import Step
from vlmdata.progress import advance
from vlmdata.schema import CAPTION_REJECTS, IMAGES, LISTING, REJECTS, SAMPLES, caption_table, sample_ids

_CHECKED_AT_ONCE = 256
_SHARD_BYTES = 512 << 20
"""Bytes of pictures in one shard, at most (one larger picture is a shard of its own)."""

Array = np.ndarray[Any, Any]


class SourceKind(Protocol):
    """What a kind of source does."""

    def fingerprint(self, source: Any) -> list[str] | None:
        """What the listing follows from, at the price of a stat; None if listing is as cheap."""

    def list_rows(self, source: Any) -> pa.Table:
        """Every sample, with the columns of `LISTING`, sorted by key; opens no picture."""

    def read_rows(self, source: Any, rows: pa.Table) -> tuple[list[bytes | None], list[str | None]]:
        """Bytes of listed samples; None and a reason for what cannot be read."""

    def places(self, rows: pa.Table) -> list[str]:
        """Where each sample lies below the source's root, for people."""


_KINDS: dict[str, SourceKind] = {"folder": folder, "webdataset": webdataset, "parquet": parquet}


def list_source(dataset: Dataset, config: BuildConfig) -> list[Shard]:
    """The source's samples in key order, cut into shards of at most `config.shard_size`.

    Raises:
        SourceError: the source cannot be used as it is; nothing has been written.
    """
    listing = _listing(dataset, config.source)
    sizes = pc.fill_null(listing["size"], 0).to_numpy()
    parts = [listing.slice(start, stop - start) for start, stop in cuts(sizes, config.shard_size, _SHARD_BYTES)]
    return [_list_shard(dataset, f"{number:05d}", rows.combine_chunks()) for number, rows in enumerate(parts)]


def _listing(dataset: Dataset, source: Source) -> pa.Table:
    """All rows; those of archives are kept in the store, for indexing one takes far longer than a stat."""
    kind = _KINDS[source.kind]
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


def _refuse_repeats(source: Source, listing: pa.Table) -> pa.Table:
    """The listing, unless two rows have one id (key and bytes); reads only where a key is repeated."""
    tally = listing["key"].value_counts()
    if len(tally) == listing.num_rows:
        return listing
    repeated = pc.struct_field(tally, "values").filter(pc.greater(pc.struct_field(tally, "counts"), 1))
    suspects = listing.filter(pc.is_in(listing["key"], value_set=repeated))
    seen: dict[str, str] = {}
    for start in range(0, suspects.num_rows, _CHECKED_AT_ONCE):
        rows = suspects.slice(start, _CHECKED_AT_ONCE)
        places = _KINDS[source.kind].places(rows)
        for id_, place in zip(_ids_now(source, rows), places, strict=True):
            if id_ in seen:
                what = "two rows with one id (same key, same bytes)"
                raise SourceError(f"{seen[id_]} and {place}: {what}; remove one of them")
            seen[id_] = place
    return listing


def _ids_now(source: Source, rows: pa.Table) -> list[str]:
    there = np.flatnonzero(~np.asarray(rows["missing"], dtype=bool))
    content = [""] * rows.num_rows
    found, reasons = _KINDS[source.kind].read_rows(source, rows.take(there))
    for position, data, why in zip(there, found, reasons, strict=True):
        if data is None:
            raise SourceError(f"{_KINDS[source.kind].places(rows)[position]}: cannot be read ({why})")
        content[position] = sha256(data).hexdigest()
    return sample_ids(content, rows["key"].to_pylist())


def ingest_shard(dataset: Dataset, shard: Shard, config: BuildConfig) -> Shard:
    """The shard's pictures, captions and provenance as a checkpoint of 00_raw.

    A row whose file is not there is rejected as `missing_file`. One that cannot be
    read now has failed as `unreadable`, and a later run reads just those again.
    """
    reads = [dataset.digest(shard, Step.LISTING, "listing", LISTING.names)]

    def work(before: Manifest | None) -> Result:
        listing = dataset.read(shard, Step.LISTING, "listing")
        return _account(config.source, listing, *_pictures(dataset, config.source, listing, before))

    done = run_once(dataset, shard, Step.RAW, reads, _settings(config.source), work)
    advance(Step.RAW, shard.rows)
    return done


def _settings(source: Source) -> dict[str, Any]:
    """What decides the bytes that are read; where they lie does not, nor what the listing has settled."""
    return {name: value for name, value in source.settings().items() if name in {"kind", "image_column"}}


_POSITION = pa.field("position", pa.int64())
_PICTURES = pa.schema([_POSITION, *SAMPLES, IMAGES.field("image")])


def _pictures(
    dataset: Dataset, source: Source, listing: pa.Table, before: Manifest | None
) -> tuple[pa.Table, dict[int, str]]:
    """Samples with bytes and position in the listing; and positions that could not be read, and why."""
    there = np.flatnonzero(~np.asarray(listing["missing"], dtype=bool))
    if before is None:
        return _read(source, listing, there)
    again = np.asarray(before.facts["unread"], dtype=np.int64)
    earlier = _read_before(dataset, before, np.setdiff1d(there, again))
    mended, unread = _read(source, listing, again)
    return pa.concat_tables([earlier, mended]).sort_by("position"), unread


def _read(source: Source, listing: pa.Table, positions: Array) -> tuple[pa.Table, dict[int, str]]:
    kind = _KINDS[source.kind]
    rows = listing.take(positions)
    found, reasons = kind.read_rows(source, rows)
    unread = {int(at): why or "" for at, data, why in zip(positions, found, reasons, strict=True) if data is None}
    got = [index for index, data in enumerate(found) if data is not None]
    pictures = [data for data in found if data is not None]
    rows = rows.take(pa.array(got, pa.int64()))
    digests = [sha256(data).hexdigest() for data in pictures]
    columns = {
        "position": positions[got],
        "id": sample_ids(digests, rows["key"].to_pylist()),
        "key": rows["key"],
        "sha256": digests,
        "bytes": [len(data) for data in pictures],
        "source": kind.places(rows),
        "url": rows["url"],
        "license": rows["license"],
        "image": pictures,
    }
    return pa.table([columns[name] for name in _PICTURES.names], schema=_PICTURES), unread


def _read_before(dataset: Dataset, before: Manifest, positions: Array) -> pa.Table:
    samples, images = (dataset.table(before.tables[name]) for name in ("samples", "images"))
    return pa.table([positions, *samples.columns, images["image"]], schema=_PICTURES)


def _account(source: Source, listing: pa.Table, pictures: pa.Table, unread: dict[int, str]) -> Result:
    """Every row and every caption of the listing, as kept, rejected or failed."""
    ids = np.asarray(sample_ids([""] * listing.num_rows, listing["key"].to_pylist()), dtype=object)
    ids[pictures["position"].to_numpy()] = pictures["id"].to_pylist()
    codes = np.full(listing.num_rows, None, dtype=object)
    codes[np.asarray(listing["missing"], dtype=bool)] = _MISSING
    codes[list(unread)] = _UNREADABLE
    rejects = _rejects(source, listing, ids, codes, unread)
    captions, caption_rejects = _captions(listing, ids, codes)
    tables = {
        "samples": pictures.select(SAMPLES.names).cast(SAMPLES),
        "images": pictures.select(IMAGES.names).cast(IMAGES),
        "captions": captions,
        "rejects": rejects,
        "caption_rejects": caption_rejects,
    }
    return Result(
        tables,
        Counts.of(pictures.num_rows, rejects["outcome"], listing.num_rows),
        Counts.of(captions.num_rows, caption_rejects["outcome"], captions.num_rows + caption_rejects.num_rows),
        open=len(unread),
        facts={"unread": sorted(unread)},
    )


_MISSING, _UNREADABLE, _REPEATED = "missing_file", "unreadable", "repeated_caption"
_OUTCOME = {_MISSING: "rejected", _UNREADABLE: "failed", _REPEATED: "rejected"}


def _rejects(
    source: Source,
    listing: pa.Table,
    ids: Array,
    codes: Array,
    unread: dict[int, str],
) -> pa.Table:
    lost = np.flatnonzero(codes != None)  # noqa: E711  (elementwise)
    rows = listing.take(lost)
    places = _KINDS[source.kind].places(rows)
    why = [unread.get(int(at), "no such picture") for at in lost]
    details = [f"{place}: {words}" for place, words in zip(places, why, strict=True)]
    return pa.Table.from_pylist(
        [
            {
                "id": ids[at],
                "key": key,
                "outcome": _OUTCOME[codes[at]],
                "code": codes[at],
                "detail": detail,
                "retryable": codes[at] == _UNREADABLE,
            }
            for at, key, detail in zip(lost, rows["key"].to_pylist(), details, strict=True)
        ],
        schema=REJECTS,
    )


def _captions(listing: pa.Table, ids: Array, codes: Array) -> tuple[pa.Table, pa.Table]:
    """Captions that stay, and those that go: with their picture, or because it says the same twice."""
    column = listing["captions"].combine_chunks()
    row = pc.list_parent_indices(column).to_numpy()
    said = pc.list_flatten(column)
    texts, langs = (pc.struct_field(said, name).to_pylist() for name in ("text", "lang"))
    table = caption_table(list(ids[row]), texts, langs, ["source"] * len(texts))
    fate = codes[row]
    fate[(fate == None) & _repeats(table["caption_id"].to_pylist())] = _REPEATED  # noqa: E711  (elementwise)
    lost = np.flatnonzero(fate != None)  # noqa: E711  (elementwise)
    kept = table.take(np.flatnonzero(fate == None))  # noqa: E711  (elementwise)
    nothing = [None] * len(lost)
    outcomes = [_OUTCOME[code] for code in fate[lost]]
    columns = [*table.take(lost).columns, outcomes, list(fate[lost]), nothing, nothing, nothing]
    return kept, pa.table(columns, schema=CAPTION_REJECTS)


def _repeats(caption_ids: list[str]) -> Array:
    first: dict[str, int] = {}
    return np.array([first.setdefault(name, at) != at for at, name in enumerate(caption_ids)], dtype=bool)
