"""00_raw for one shard: its rows become pictures, captions and provenance, or a reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import BuildConfig, Source
from vlmdata.ingest.kinds import KINDS
from vlmdata.ingest.reading import Lost, Reading
from vlmdata.layout import Step
from vlmdata.progress import advance
from vlmdata.schema import CAPTION_REJECTS, FETCHES, ID, IMAGES, LISTING, REJECTS, SAMPLES, caption_table, sample_ids

Array = np.ndarray[Any, Any]


def ingest_shard(dataset: Dataset, shard: Shard, config: BuildConfig) -> Shard:
    """The shard's pictures, captions and provenance as a checkpoint of 00_raw.

    A row whose file is not there is rejected as `missing_file`, one that is to be
    left alone with the reason. One that cannot be read now has failed, and a later
    run reads just those again that time may mend. Of addresses, table `fetches`
    (`schema.FETCHES`) tells how each was fetched.
    """
    reads = [dataset.digest(shard, Step.LISTING, "listing", LISTING.names)]

    def work(before: Manifest | None) -> Result:
        listing = dataset.read(shard, Step.LISTING, "listing")
        return _account(config.source, listing, _rows(dataset, config, listing, before))

    done = run_once(dataset, shard, Step.RAW, reads, _settings(config), work)
    advance(Step.RAW, shard.rows)
    return done


def _settings(config: BuildConfig) -> dict[str, Any]:
    """What decides the bytes that are read; where they lie does not, nor what the listing has settled."""
    source = config.source.settings()
    settings = {name: value for name, value in source.items() if name in {"kind", "image_column"}}
    return {**settings, "network": config.network.settings()} if config.source.kind == "urls" else settings


_POSITION = pa.field("position", pa.int64())
_PICTURES = pa.schema([_POSITION, *SAMPLES, IMAGES.field("image")])
_FETCHES = pa.schema([_POSITION, *FETCHES])


@dataclass(frozen=True)
class _Rows:
    """What became of a shard's rows, by position in its listing."""

    pictures: pa.Table
    """Samples with bytes."""
    lost: dict[int, Lost]
    fetches: pa.Table
    """One row an address that was asked for; of other sources none."""


def _rows(dataset: Dataset, config: BuildConfig, listing: pa.Table, before: Manifest | None) -> _Rows:
    wanted = np.flatnonzero(~np.asarray(listing["missing"], dtype=bool) & np.asarray(listing["refused"].is_null()))
    if before is None:
        return _read(config, listing, wanted)
    again = np.asarray(before.facts["unread"], dtype=np.int64)
    earlier = _read_before(dataset, before, wanted, again)
    now = _read(config, listing, again)
    return _Rows(
        pa.concat_tables([earlier.pictures, now.pictures]).sort_by("position"),
        earlier.lost | now.lost,
        pa.concat_tables([earlier.fetches, now.fetches]).sort_by("position"),
    )


def _read(config: BuildConfig, listing: pa.Table, positions: Array) -> _Rows:
    rows = listing.take(positions)
    reading = _reading(config, rows)
    lost = {int(at): each for at, each in zip(positions, reading.pictures, strict=True) if isinstance(each, Lost)}
    got = [index for index, each in enumerate(reading.pictures) if not isinstance(each, Lost)]
    pictures = [each for each in reading.pictures if not isinstance(each, Lost)]
    if reading.digests is None:
        digests = [sha256(data).hexdigest() for data in pictures]
    else:
        digests = [reading.digests[index] or "" for index in got]
    rows = rows.take(pa.array(got, pa.int64()))
    columns = {
        "position": positions[got],
        "id": sample_ids(digests, rows["key"].to_pylist()),
        "key": rows["key"],
        "sha256": digests,
        "bytes": [len(data) for data in pictures],
        "source": _places(config.source, rows),
        "url": rows["url"],
        "license": rows["license"],
        "extra": rows["extra"],
        "image": pictures,
    }
    table = pa.table([columns[name] for name in _PICTURES.names], schema=_PICTURES)
    return _Rows(table, lost, _at(positions, reading.fetches))


def _reading(config: BuildConfig, rows: pa.Table) -> Reading:
    if config.source.kind == "urls":
        from vlmdata.ingest.web.fetching import fetch_rows
        from vlmdata.opt_out import OptOut

        return fetch_rows(config.network, OptOut.read(config.opt_out), rows)
    found, reasons = KINDS[config.source.kind].read_rows(config.source, rows)
    unread = [Lost("unreadable", why or "", "failed", retryable=True) for why in reasons]
    return Reading([why if data is None else data for data, why in zip(found, unread, strict=True)])


def _places(source: Source, rows: pa.Table) -> list[str]:
    if source.kind == "urls":
        return list(rows["key"].to_pylist())
    return KINDS[source.kind].places(rows)


def _at(positions: Array, fetches: pa.Table | None) -> pa.Table:
    if fetches is None:
        return _FETCHES.empty_table()
    return pa.table([positions, *fetches.columns], schema=_FETCHES)


def _read_before(dataset: Dataset, before: Manifest, wanted: Array, again: Array) -> _Rows:
    """All that is not to be read again."""
    fetches = _FETCHES.empty_table()
    if "fetches" in before.tables:
        fetches = _at(wanted, dataset.table(before.tables["fetches"], FETCHES.names))
        fetches = fetches.filter(pc.invert(pc.is_in(fetches["position"], value_set=pa.array(again))))
    gone = fetches.filter(pc.not_equal(fetches["outcome"], "kept")).to_pylist()
    lost = {row["position"]: Lost(row["code"], row["detail"], row["outcome"], row["retryable"]) for row in gone}
    samples, images = (dataset.table(before.tables[name]) for name in ("samples", "images"))
    kept = np.setdiff1d(np.setdiff1d(wanted, again), np.array(list(lost), dtype=np.int64))
    return _Rows(pa.table([kept, *samples.columns, images["image"]], schema=_PICTURES), lost, fetches)


def _account(source: Source, listing: pa.Table, rows: _Rows) -> Result:
    """Every row and every caption of the listing, as kept, rejected or failed."""
    ids = np.asarray(sample_ids([""] * listing.num_rows, listing["key"].to_pylist()), dtype=object)
    ids[rows.pictures["position"].to_numpy()] = rows.pictures["id"].to_pylist()
    lost = _never_read(listing) | rows.lost
    rejects = _rejects(source, listing, ids, lost)
    captions, caption_rejects = _captions(listing, ids, lost)
    tables = {
        "samples": rows.pictures.select(SAMPLES.names).cast(SAMPLES),
        "images": rows.pictures.select(IMAGES.names).cast(IMAGES),
        "captions": captions,
        "rejects": rejects,
        "caption_rejects": caption_rejects,
    }
    if rows.fetches.num_rows:
        tables["fetches"] = rows.fetches.select(FETCHES.names).add_column(
            0, ID, pa.array(ids[rows.fetches["position"].to_numpy()], pa.string())
        )
    unread = sorted(at for at, why in rows.lost.items() if why.retryable)
    return Result(
        tables,
        Counts.of(rows.pictures.num_rows, rejects["outcome"], listing.num_rows),
        Counts.of(captions.num_rows, caption_rejects["outcome"], captions.num_rows + caption_rejects.num_rows),
        open=len(unread),
        facts={"unread": unread},
    )


_MISSING = Lost("missing_file", "no such picture", "rejected")
_REPEATED = Lost("repeated_caption", "says the same twice", "rejected")
_REFUSED = {
    "malformed_url": "no address that can be asked",
    "unsupported_scheme": "only http and https are asked",
    "license_not_allowed": "its licence is not one of source.allow_licenses",
    "malformed_hash": "its digest is no sha256",
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
                "detail": f"{place}: {lost[at].detail}",
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
