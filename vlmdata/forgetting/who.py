"""Whom a withdrawal is about: found in every checkpoint of 00, and followed to what was made of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Manifest, TableRef
from vlmdata.errors import ConfigError
from vlmdata.forgetting.tombstones import domains_of, hashed, read_tombstones, row_hashes
from vlmdata.ingest.kinds import KINDS
from vlmdata.layout import Step

_AT_ONCE = 16
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Asked:
    """What a person names."""

    samples: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    sha256s: frozenset[str] = frozenset()

    @classmethod
    def of(cls, samples: Sequence[str], urls: Sequence[str], domains: Sequence[str], sha256s: Sequence[str]) -> Asked:
        """From the words of a command.

        Raises:
            ConfigError: nothing is named, or a digest is none.
        """
        if not any((samples, urls, domains, sha256s)):
            raise ConfigError("nothing is named; expected --sample, --url, --domain or --sha256")
        for digest in sha256s:
            if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
                raise ConfigError(f"--sha256 {digest!r}: expected 64 hex digits")
        for domain in domains:
            if "/" in domain or not domain.strip("."):
                raise ConfigError(f"--domain {domain!r}: expected a domain, such as example.org; for an address: --url")
        named = [domain.lower().strip(".") for domain in domains]
        return cls(frozenset(samples), frozenset(urls), frozenset(named), frozenset(d.lower() for d in sha256s))

    def names(self, url: str | None) -> bool:
        """Whether it is about an address."""
        if not url:
            return False
        return url in self.urls or (bool(self.domains) and any(domain in self.domains for domain in domains_of(url)))


@dataclass
class Who:
    """Everything that stands for whom a withdrawal is about."""

    ids: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    captions: set[str] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    bereft: set[str] = field(default_factory=set)
    rows: set[str] = field(default_factory=set)
    places: set[tuple[str, str]] = field(default_factory=set)
    """Key and place, as samples tell them."""


def find(dataset: Dataset, asked: Asked) -> Who:
    """Look through all checkpoints.

    Raises:
        ConfigError: a sample that is named is nowhere, and never was forgotten.
    """
    who = Who(digests=set(asked.sha256s))
    exported = _exported(dataset, asked)
    samples = _read(dataset, Step.RAW, "samples", ["id", "key", "sha256", "source", "url"])
    found = [_named(table, asked, exported) for table in samples]
    who.digests |= {digest for table in found for digest in table["sha256"].to_pylist()}
    # The same bytes under another name are the same picture.
    theirs = pa.array(sorted(who.digests), pa.string())
    for table in (table.filter(pc.is_in(table["sha256"], value_set=theirs)) for table in samples):
        who.ids |= set(table["id"].to_pylist())
        who.places |= set(zip(table["key"].to_pylist(), table["source"].to_pylist(), strict=True))
    buried = frozenset[str]().union(*(one.ids for one in read_tombstones(dataset).each))
    unknown = sorted(asked.samples - who.ids - buried)
    if unknown:
        raise ConfigError(f"--sample {unknown[0]!r}: no checkpoint of 00_raw has a sample of that id")
    for table in _read(dataset, Step.RAW, "rejects", ["id", "key"]):
        rows = zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)
        who.ids |= {id_ for id_, key in rows if asked.names(key)}
    for table in _read(dataset, Step.LISTING, "listing", None):
        who.rows |= set(_rows(table, asked, who))
    _follow(dataset, who)
    return who


def _exported(dataset: Dataset, asked: Asked) -> frozenset[str]:
    """Ids of the samples that were exported as bytes that are named, whatever their original is."""
    if not asked.sha256s:
        return frozenset()
    theirs = pa.array(sorted(asked.sha256s), pa.string())
    tables = _read(dataset, Step.FINAL, "samples", ["id", "sha256"])
    found = [table.filter(pc.is_in(table["sha256"], value_set=theirs))["id"].to_pylist() for table in tables]
    return frozenset(id_ for ids in found for id_ in ids)


def _named(samples: pa.Table, asked: Asked, exported: Collection[str]) -> pa.Table:
    flags = [
        id_ in asked.samples or id_ in exported or asked.names(url) or asked.names(key) or digest in asked.sha256s
        for id_, key, digest, url in zip(
            *(samples[name].to_pylist() for name in ("id", "key", "sha256", "url")), strict=True
        )
    ]
    return samples.filter(pa.array(flags, pa.bool_()))


def _rows(listing: pa.Table, asked: Asked, who: Who) -> Iterator[str]:
    """Hashes of the rows that it is about, with or without a picture."""
    keys, urls = listing["key"].to_pylist(), listing["url"].to_pylist()
    places = [set(each) for each in zip(keys, *(kind.places(listing) for kind in KINDS.values()), strict=True)]
    for digest, key, url, there in zip(row_hashes(listing), keys, urls, places, strict=True):
        if asked.names(url) or asked.names(key) or any((key, place) in who.places for place in there):
            yield digest


def _follow(dataset: Dataset, who: Who) -> None:
    """Captions that came from it, questions about it, and what its bytes became in exports."""
    ids = pa.array(sorted(who.ids), pa.string())
    origins = pa.array([f"duplicate:{id_}" for id_ in sorted(who.ids)], pa.string())
    for step in (Step.RAW, Step.FILTERED, Step.CAPTIONED, Step.CHECKED):
        for name in ("captions", "caption_rejects"):
            for table in _read(dataset, step, name, ["id", "caption_id", "origin"]):
                theirs = pc.or_(pc.is_in(table["id"], value_set=ids), pc.is_in(table["origin"], value_set=origins))
                theirs = table.filter(theirs)
                who.captions |= set(theirs["caption_id"].to_pylist())
                who.bereft |= set(theirs["id"].to_pylist())
    who.bereft -= who.ids
    for step in (Step.ANSWERS, Step.CAPTIONED):
        for table in _read(dataset, step, "attempts", ["id", "key"]):
            who.questions |= set(table.filter(pc.is_in(table["id"], value_set=ids))["key"].to_pylist())
    for table in _read(dataset, Step.FINAL, "samples", ["id", "sha256"]):
        who.digests |= set(table.filter(pc.is_in(table["id"], value_set=ids))["sha256"].to_pylist())


def _read(dataset: Dataset, step: Step, name: str, columns: Sequence[str] | None) -> list[pa.Table]:
    """That table of every shard and generation there ever was; the same one once."""
    refs: dict[str, TableRef] = {}
    for manifest in manifests(dataset, step).values():
        for called, ref in manifest.tables.items():
            if called == name:
                refs[ref.path] = ref
    return list(each(lambda ref: dataset.table(ref, columns), refs.values()))


def manifests(dataset: Dataset, step: Step) -> dict[str, Manifest]:
    """Every manifest of a step, by its path: read anew, for this is where they change."""
    prefix = f"{dataset.name}/{step}/manifests"
    paths = dataset.store.list(prefix)
    read = each(lambda path: Manifest.model_validate_json(dataset.store.get(path)), paths)
    return dict(zip(paths, read, strict=True))


def each(make: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Done on threads: most of it is waiting for the store."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(make, items))


def address_hashes(asked: Asked) -> tuple[frozenset[str], frozenset[str]]:
    """Of addresses and of domains, as a tombstone has them."""
    return frozenset(map(hashed, asked.urls)), frozenset(map(hashed, asked.domains))
