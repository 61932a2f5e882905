"""What is not to come back, as hashes only: nobody can read from a tombstone what it stands for.

<dataset>/forgotten/<number>.json
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError
from yarl import URL

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import StoreError
from vlmdata.schema import LISTING

FORGOTTEN = "forgotten"
"""The reason code of what is left alone because of a tombstone."""


class Tombstone(BaseModel):
    """One withdrawal.

    Attributes:
        ids: Of the samples that were there.
        digests: sha256 of their original bytes, and of those that were exported.
        captions: Ids of the captions that went with them.
        questions: The journal's names of what was asked about them.
        bereft: Ids of samples that stay, and lose captions that came from them.
        rows, urls, domains: sha256 of rows of the source, of addresses and of domains.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    at: str
    ids: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()
    captions: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()
    bereft: frozenset[str] = frozenset()
    rows: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()


class Tombstones:
    """All withdrawals of a dataset."""

    def __init__(self, each: Sequence[Tombstone]) -> None:
        self.each = tuple(each)
        self._digests = frozenset[str]().union(*(one.digests for one in each))
        self._rows = frozenset[str]().union(*(one.rows for one in each))
        self._urls = frozenset[str]().union(*(one.urls for one in each))
        self._domains = frozenset[str]().union(*(one.domains for one in each))

    def __bool__(self) -> bool:
        return bool(self.each)

    def has_bytes(self, digest: str) -> bool:
        """Whether a picture with this sha256 was forgotten."""
        return digest in self._digests

    def has_address(self, url: str | None) -> bool:
        """Whether an address, its domain or one above that was."""
        if not url or not (self._urls or self._domains):
            return False
        return hashed(url) in self._urls or any(hashed(domain) in self._domains for domain in domains_of(url))

    def without(self, listing: pa.Table) -> pa.Table:
        """A listing (`schema.LISTING`) whose forgotten rows say no more than that they are."""
        if not self or not listing.num_rows:
            return listing
        gone = [
            row in self._rows or self.has_address(url) or self.has_address(key) or (digest or "") in self._digests
            for row, url, key, digest in zip(
                row_hashes(listing), *(listing[name].to_pylist() for name in ("url", "key", "sha256")), strict=True
            )
        ]
        return blank(listing, gone)


def read_tombstones(dataset: Dataset) -> Tombstones:
    """All that there are; each is read once a process, for none ever changes."""
    prefix = layout.forgotten_prefix(dataset.name)
    paths = [path for path in dataset.store.list(prefix) if path.removeprefix(f"{prefix}/")[:-5].isdecimal()]
    return _tombstones(dataset, tuple(paths))


@lru_cache(maxsize=4)
def _tombstones(dataset: Dataset, paths: tuple[str, ...]) -> Tombstones:
    return Tombstones([_read(dataset, path) for path in paths])


def _read(dataset: Dataset, path: str) -> Tombstone:
    try:
        return Tombstone.model_validate_json(dataset.store.get(path))
    except ValidationError as error:
        # Going on without it would bring back what somebody was promised is gone.
        raise StoreError(f"{dataset.store.locate(path)}: is damaged; restore it from a backup of the store") from error


def row_hashes(listing: pa.Table) -> list[str]:
    """A hash of what makes each row of a listing this row: its key and place, not what is said of it."""
    names = ("key", "location", "member", "offset")
    parts = zip(*(listing[name].to_pylist() for name in names), strict=True)
    return [hashed("\0".join("" if part is None else str(part) for part in row)) for row in parts]


def blank(listing: pa.Table, gone: Sequence[bool]) -> pa.Table:
    """The listing with nothing said of the rows that are gone, but that they are."""
    if not any(gone):
        return listing
    keys = [f"{FORGOTTEN}:{digest[:32]}" for digest in row_hashes(listing)]
    mask = pa.array(list(gone), pa.bool_())
    told = {
        "key": pc.if_else(mask, pa.array(keys, pa.string()), listing["key"]),
        "missing": pc.if_else(mask, False, listing["missing"]),
        "refused": pc.if_else(mask, FORGOTTEN, listing["refused"]),
        "captions": _emptied(listing["captions"], gone),
    }
    nothing = {
        field.name: pc.if_else(mask, pa.scalar(None, field.type), listing[field.name])
        for field in LISTING
        if field.name not in told
    }
    return pa.table([{**told, **nothing}[name] for name in LISTING.names], schema=LISTING)


def _emptied(captions: pa.ChunkedArray, gone: Sequence[bool]) -> pa.Array:
    # Arrow has no if_else for lists of structs.
    said = captions.to_pylist()
    return pa.array([[] if away else each for each, away in zip(said, gone, strict=True)], captions.type)


def domains_of(url: str) -> Iterable[str]:
    """Its host, and every domain above that."""
    try:
        host = (URL(url).raw_host or "").rstrip(".")
    except ValueError:
        host = ""
    while host:
        yield host
        host = host.partition(".")[2]


def hashed(text: str) -> str:
    """sha256, 64 hex digits."""
    return sha256(text.encode()).hexdigest()
