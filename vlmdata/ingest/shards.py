"""00_raw for one shard: its rows become pictures, captions and provenance, or a reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import (
    Counts,
    Dataset,
    Manifest,
    Result,
    Shard,
    TableRef,
    TableWriter,
    find_done,
    run_once,
    step_key,
)
from vlmdata.config import BuildConfig, Source
from vlmdata.forgetting.tombstones import FORGOTTEN, Tombstones, read_tombstones
from vlmdata.ingest.growth import identities
from vlmdata.ingest.kinds import KINDS
from vlmdata.ingest.reading import Lost, Reading, slices
from vlmdata.layout import Step
from vlmdata.progress import advance
from vlmdata.schema import CAPTION_REJECTS, FETCHES, ID, IMAGES, LISTING, REJECTS, SAMPLES, caption_table, sample_ids

Array = np.ndarray[Any, Any]


def ingest_shard(dataset: Dataset, shard: Shard, config: BuildConfig) -> Shard:
    """The shard's pictures, captions and provenance as a checkpoint of 00_raw.

    A row whose file is not there is rejected as `missing_file`, one that is to be
    left alone with the reason. One that cannot be read now has failed, and a later
    run reads just those again that time may mend. Of addresses, table `fetches`
    (`schema.FETCHES`) tells how each row was fetched, or why it was not asked for.
    """

    def work(before: Manifest | None) -> Result:
        listing = dataset.read(shard, Step.LISTING, "listing")
        wanted = _wanted(listing)
        former = _former(dataset, shard, config) if before is None else None
        memory = _same_rows(dataset, before, listing) if before else _rows_of_former(dataset, former, listing)
        readings = _mended(config, listing, wanted, memory) if memory else _readings(config, listing, wanted)
        with TableWriter(dataset, Step.RAW, IMAGES) as images:
            rows = _rows(config, listing, images, _not_forgotten(readings, read_tombstones(dataset)))
            result = _account(config.source, listing, rows, images.finish())
            result.facts |= {"before": former.raw} if former else {}
            return result

    done = run_once(dataset, shard, Step.RAW, _reads(dataset, shard), _settings(config), work)
    advance(Step.RAW, shard.rows)
    return done


def find_ingested(dataset: Dataset, shards: Sequence[Shard], config: BuildConfig) -> list[Shard]:
    """Those that `ingest_shard` has nothing to do for, as it would return them."""
    settings = _settings(config)

    def find(shard: Shard) -> Shard | None:
        return find_done(dataset, shard, Step.RAW, _reads(dataset, shard), settings)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [shard for shard in pool.map(find, shards) if shard]


def _reads(dataset: Dataset, shard: Shard) -> list[str]:
    return [dataset.digest(shard, Step.LISTING, "listing", LISTING.names)]


def _settings(config: BuildConfig) -> dict[str, Any]:
    """What decides the bytes that are read; where they lie does not, nor what the listing has settled."""
    source = config.source.settings()
    settings = {name: value for name, value in source.items() if name in {"kind", "image_column"}}
    return {**settings, "network": config.network.settings()} if config.source.kind == "urls" else settings


AT_ONCE = 16
"""Shards of addresses that are read at a time: they wait for the web, and keep in memory what is under way alone."""


@dataclass
class _Rows:
    """What became of a shard's rows, by position in its listing; pictures are written as they come."""

    samples: list[pa.Table] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Of the samples."""
    lost: dict[int, Lost] = field(default_factory=dict)
    fetches: list[pa.Table] = field(default_factory=list)
    """Of addresses, a row each that was asked for, in their order."""


Readings = Iterator[tuple[Array, Reading]]
"""Positions in the listing, and what became of those rows."""


def _rows(config: BuildConfig, listing: pa.Table, images: TableWriter, readings: Readings) -> _Rows:
    """Take in all readings; the pictures go to `images`."""
    done = _Rows()
    for positions, reading in readings:
        lost = {int(at): each for at, each in zip(positions, reading.pictures, strict=True) if isinstance(each, Lost)}
        done.lost |= lost
        got = [index for index, each in enumerate(reading.pictures) if not isinstance(each, Lost)]
        pictures = [each for each in reading.pictures if not isinstance(each, Lost)]
        digests = _digests(reading, got, pictures)
        samples = _samples(config.source, listing.take(positions[got]), pictures, digests)
        images.write(pa.table([samples["id"], _binary(pictures)], schema=IMAGES), digests)
        done.samples.append(samples)
        done.positions += positions[got].tolist()
        if reading.fetches is not None:
            done.fetches.append(reading.fetches)
    return done


def _binary(pictures: Sequence[bytes]) -> pa.Array:
    """As Arrow would make of the list, without growing a buffer for it step by step."""
    offsets = np.zeros(len(pictures) + 1, np.int64)
    np.cumsum([len(data) for data in pictures], out=offsets[1:])
    data = pa.py_buffer(b"".join(pictures))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(pictures), [None, pa.py_buffer(offsets), data])


def _not_forgotten(readings: Readings, tombstones: Tombstones) -> Readings:
    """Pictures that were withdrawn are let go as soon as they are known."""
    for positions, reading in readings:
        if not tombstones:
            yield positions, reading
            continue
        every = reading.pictures
        digests = reading.digests or [None if isinstance(each, Lost) else sha256(each).hexdigest() for each in every]
        told = zip(every, digests, strict=True)
        left = [_WITHDRAWN if digest and tombstones.has_bytes(digest) else each for each, digest in told]
        yield positions, Reading(left, digests, reading.fetches)


def _digests(reading: Reading, got: list[int], pictures: Sequence[bytes]) -> list[str]:
    if reading.digests is None:
        return [sha256(data).hexdigest() for data in pictures]
    return [reading.digests[index] or "" for index in got]


def _samples(source: Source, rows: pa.Table, pictures: Sequence[bytes], digests: list[str]) -> pa.Table:
    columns = {
        "id": sample_ids(digests, rows["key"].to_pylist()),
        "key": rows["key"],
        "sha256": digests,
        "bytes": [len(data) for data in pictures],
        "source": _places(source, rows),
        "url": rows["url"],
        "license": rows["license"],
        "extra": rows["extra"],
    }
    return pa.table([columns[name] for name in SAMPLES.names], schema=SAMPLES)


def _places(source: Source, rows: pa.Table) -> list[str]:
    if source.kind == "urls":
        return list(rows["key"].to_pylist())
    return KINDS[source.kind].places(rows)


def _readings(config: BuildConfig, listing: pa.Table, positions: Array) -> Readings:
    """Rows that are read now."""
    start = 0
    for reading in _read(config, listing.take(positions)):
        stop = start + len(reading.pictures)
        yield positions[start:stop], reading
        start = stop


def _read(config: BuildConfig, rows: pa.Table) -> Iterator[Reading]:
    if config.source.kind == "urls":
        from vlmdata.ingest.web.fetching import fetch_rows
        from vlmdata.opt_out import OptOut

        yield from fetch_rows(config.network, OptOut.read(config.opt_out), rows)
        return
    found, reasons = KINDS[config.source.kind].read_rows(config.source, rows)
    unread = [Lost("unreadable", why or "", "failed", retryable=True) for why in reasons]
    pictures = [why if data is None else data for data, why in zip(found, unread, strict=True)]
    # They are in memory already.
    for some in slices([0] * len(pictures)):
        yield Reading(pictures[some])


def _wanted(listing: pa.Table) -> Array:
    """Positions of the rows that are to be read."""
    return np.flatnonzero(~np.asarray(listing["missing"], dtype=bool) & np.asarray(listing["refused"].is_null()))


def _mended(config: BuildConfig, listing: pa.Table, wanted: Array, memory: _Memory) -> Readings:
    """All rows once more: those that are new, or that time may mend, are read; the others are what they were."""
    again = np.array([at for at in wanted.tolist() if memory.asks_for(at)], dtype=np.int64)
    now = _Now(_readings(config, listing, again))
    sizes = [now.size(at) if at in now.pictures else memory.size(at) for at in wanted.tolist()]
    for some in slices(sizes):
        positions = wanted[some]
        told = [now.of(at) if at in now.pictures else memory.of(at) for at in positions.tolist()]
        pictures, digests, fetches = (list(each) for each in zip(*told, strict=True))
        table = None if fetches[0] is None else pa.Table.from_pylist(fetches, schema=FETCHES)
        yield positions, Reading(pictures, digests, table)


@dataclass(frozen=True)
class _Former:
    """A shard as it was before its listing changed: its rows, and the path of their checkpoint."""

    listing: pa.Table
    raw: str


def _former(dataset: Dataset, shard: Shard, config: BuildConfig) -> _Former | None:
    """The newest of the shard's former listings whose pictures were read as they would be now."""
    path: str | None = shard.manifests[Step.LISTING.value]
    while path:
        was, facts = Shard(shard.name, 0).at(Step.LISTING, path), dataset.manifest_at(path).facts
        for digest in (*_reads(dataset, was), *facts.get("was", ())):
            done = dataset.latest(Step.RAW, step_key(Step.RAW, [digest], _settings(config)))
            if done:
                return _Former(dataset.read(was, Step.LISTING, "listing"), done)
        path = facts.get("before")
    return None


def _same_rows(dataset: Dataset, before: Manifest, listing: pa.Table) -> _Memory:
    return _Memory(dataset, before, listing, np.arange(listing.num_rows))


def _rows_of_former(dataset: Dataset, former: _Former | None, listing: pa.Table) -> _Memory | None:
    if former is None:
        return None
    named = [
        pc.binary_join_element_wise(identities(each), _hash_wanted(each), "\0") for each in (listing, former.listing)
    ]
    at = pc.fill_null(pc.index_in(named[0], value_set=named[1]), -1).to_numpy()
    return _Memory(dataset, dataset.manifest_at(former.raw), former.listing, at)


def _hash_wanted(listing: pa.Table) -> pa.Array:
    return pc.fill_null(listing["sha256"], "").combine_chunks()


Told = tuple[bytes | Lost, str | None, dict[str, Any] | None]
"""A picture, its digest and how it was fetched."""


class _Now:
    """Rows that were read again."""

    def __init__(self, readings: Readings) -> None:
        self.pictures: dict[int, bytes | Lost] = {}
        self._fetches: dict[int, dict[str, Any]] = {}
        for positions, reading in readings:
            self.pictures |= dict(zip(positions.tolist(), reading.pictures, strict=True))
            if reading.fetches is not None:
                self._fetches |= dict(zip(positions.tolist(), reading.fetches.to_pylist(), strict=True))

    def of(self, at: int) -> Told:
        """By position."""
        picture = self.pictures[at]
        digest = None if isinstance(picture, Lost) else sha256(picture).hexdigest()
        return picture, digest, self._fetches.get(at)

    def size(self, at: int) -> int:
        """Bytes that came."""
        return _size(self._fetches.get(at))


class _Memory:
    """Rows as an earlier checkpoint has them; `at` is where each row of the present listing was in its, -1: nowhere."""

    def __init__(self, dataset: Dataset, before: Manifest, listing: pa.Table, at: Array) -> None:
        self._at = at
        self._open = frozenset(before.facts["unread"])
        wanted = _wanted(listing)
        self._there = frozenset(wanted.tolist())
        self._fetches: dict[int, dict[str, Any]] = {}
        if "fetches" in before.tables:
            told = {row["url"]: row for row in dataset.table(before.tables["fetches"], FETCHES.names).to_pylist()}
            keys = listing["key"].take(wanted).to_pylist()
            self._fetches = {there: told[key] for there, key in zip(wanted.tolist(), keys, strict=True)}
        self._lost = {there: _as_lost(row) for there, row in self._fetches.items() if row["outcome"] != "kept"}
        self._lost |= dict.fromkeys(before.facts.get("withdrawn", ()), _WITHDRAWN)
        away = {*self._open, *self._lost}
        kept = [there for there in wanted.tolist() if there not in away]
        self._row = {there: row for row, there in enumerate(kept)}
        self._digests = dataset.table(before.tables["samples"], ["sha256"])["sha256"].to_pylist()
        self._images = dataset.table(before.tables["images"], ["image"])["image"]

    def asks_for(self, at: int) -> bool:
        """Whether a row is to be read: it is new, or may be mended."""
        there = int(self._at[at])
        return there not in self._there or there in self._open

    def of(self, at: int) -> Told:
        """By position in the present listing."""
        there = int(self._at[at])
        if there in self._lost:
            return self._lost[there], None, self._fetches.get(there)
        row = self._row[there]
        return self._images[row].as_py(), self._digests[row], self._fetches.get(there)

    def size(self, at: int) -> int:
        """Bytes that had come."""
        return _size(self._fetches.get(int(self._at[at])))


def _size(fetched: dict[str, Any] | None) -> int:
    """As the first reading of an address counts it; files are cut by their number alone."""
    return (fetched or {}).get("bytes") or 0


def _as_lost(row: dict[str, Any]) -> Lost:
    return Lost(row["code"], row["detail"], row["outcome"], row["retryable"])


def _account(source: Source, listing: pa.Table, rows: _Rows, images: TableRef) -> Result:
    """Every row and every caption of the listing, as kept, rejected or failed."""
    samples = pa.concat_tables([SAMPLES.empty_table(), *rows.samples])
    ids = np.asarray(sample_ids([""] * listing.num_rows, listing["key"].to_pylist()), dtype=object)
    ids[rows.positions] = samples["id"].to_pylist()
    lost = _never_read(listing) | rows.lost
    rejects = _rejects(source, listing, ids, lost)
    captions, caption_rejects = _captions(listing, ids, lost)
    tables: dict[str, pa.Table | TableRef] = {
        "samples": samples,
        "images": images,
        "captions": captions,
        "rejects": rejects,
        "caption_rejects": caption_rejects,
    }
    if source.kind == "urls":
        tables["fetches"] = _fetches(listing, ids, lost, rows.fetches)
    unread = sorted(at for at, why in rows.lost.items() if why.retryable)
    withdrawn = sorted(at for at, why in rows.lost.items() if why.code == FORGOTTEN)
    return Result(
        tables,
        Counts.of(samples.num_rows, rejects["outcome"], listing.num_rows),
        Counts.of(captions.num_rows, caption_rejects["outcome"], captions.num_rows + caption_rejects.num_rows),
        open=len(unread),
        facts={"unread": unread, **({"withdrawn": withdrawn} if withdrawn else {})},
    )


def _fetches(listing: pa.Table, ids: Array, lost: dict[int, Lost], asked: Sequence[pa.Table]) -> pa.Table:
    """A row of every address, in the listing's order; of those that were not asked for it tells why."""
    at = np.full(listing.num_rows, -1)
    at[_wanted(listing)] = np.arange(sum(part.num_rows for part in asked))
    rows = pa.concat_tables([FETCHES.empty_table(), *asked]).take(pa.array(at, mask=at < 0))
    ends = [lost.get(each) for each in range(listing.num_rows)]
    columns = {
        "id": pa.array(ids, pa.string()),
        "url": listing["key"],
        "outcome": [why.outcome if why else "kept" for why in ends],
        "code": [why and why.code for why in ends],
        "detail": [why and why.detail for why in ends],
        "retryable": [bool(why and why.retryable) for why in ends],
        "attempts": pc.fill_null(rows["attempts"], 0),
    }
    schema = pa.schema([ID, *FETCHES])
    return pa.table([columns[name] if name in columns else rows[name] for name in schema.names], schema=schema)


_MISSING = Lost("missing_file", "no such picture", "rejected")
_REPEATED = Lost("repeated_caption", "says the same twice", "rejected")
_WITHDRAWN = Lost(FORGOTTEN, "it was withdrawn", "rejected")
_REFUSED = {
    FORGOTTEN: _WITHDRAWN.detail,
    "malformed_url": "no address that can be asked",
    "unsupported_scheme": "only http and https are asked",
    "license_not_allowed": "its licence is not one of source.allow_licenses",
    "malformed_hash": "its digest is no md5, sha256 or sha512 in hex",
}


def _never_read(listing: pa.Table) -> dict[int, Lost]:
    """Rows that the listing itself gives up."""
    absent = np.flatnonzero(np.asarray(listing["missing"], dtype=bool))
    refused = listing["refused"].to_pylist()
    lost = {at: Lost(code, _REFUSED[code], "rejected") for at, code in enumerate(refused) if code}
    return lost | {int(at): _MISSING for at in absent}


def _rejects(source: Source, listing: pa.Table, ids: Array, lost: dict[int, Lost]) -> pa.Table:
    positions = sorted(lost)
    rows = listing.take(pa.array(positions, pa.int64()))
    told = zip(positions, rows["key"].to_pylist(), _places(source, rows), strict=True)
    return pa.Table.from_pylist(
        [
            {
                "id": ids[at],
                "key": key,
                "outcome": lost[at].outcome,
                "code": lost[at].code,
                "detail": lost[at].detail if lost[at].code == FORGOTTEN else f"{place}: {lost[at].detail}",
                "retryable": lost[at].retryable,
            }
            for at, key, place in told
        ],
        schema=REJECTS,
    )


def _captions(listing: pa.Table, ids: Array, lost: dict[int, Lost]) -> tuple[pa.Table, pa.Table]:
    """Captions that stay, and those that go: with their picture, or because it says the same twice."""
    column = listing["captions"].combine_chunks()
    row = pc.list_parent_indices(column).to_numpy()
    said = pc.list_flatten(column)
    texts, langs = (pc.struct_field(said, name).to_pylist() for name in ("text", "lang"))
    table = caption_table(list(ids[row]), texts, langs, ["source"] * len(texts))
    without_picture = np.isin(row, list(lost))
    gone = np.flatnonzero(without_picture | _repeats(table["caption_id"].to_pylist()))
    why = [lost.get(int(at), _REPEATED) for at in row[gone]]
    nothing = [None] * len(gone)
    told = [[each.outcome for each in why], [each.code for each in why], nothing, nothing, nothing]
    kept = table.take(np.setdiff1d(np.arange(table.num_rows), gone))
    return kept, pa.table([*table.take(gone).columns, *told], schema=CAPTION_REJECTS)


def _repeats(caption_ids: list[str]) -> Array:
    first: dict[str, int] = {}
    return np.array([first.setdefault(name, at) != at for at, name in enumerate(caption_ids)], dtype=bool)
