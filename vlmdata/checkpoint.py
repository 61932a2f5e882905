"""A checkpoint is a name: what a step read and how it was set decide where its result lies.

A step's key is the hash of the columns it reads, its settings and its
revision. Under the key lie manifests, numbered generations that are put last
and never overwritten; a manifest names content-addressed tables and holds the
accounts. A shard without a manifest was interrupted and is done again. A
manifest with open failures may be followed by another generation that does
just those.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlmdata import layout
from vlmdata.errors import BrokenInvariant, StoreError
from vlmdata.layout import REVISION, Step
from vlmdata.store import Store, open_store

_UNHASHED = {"image"}
"""Columns that are named by another one (an image by its sha256)."""
_WRITERS = 8
"""Tables on their way to the store at a time."""


class Counts(BaseModel):
    """in = kept + rejected + held + failed."""

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    came: int = Field(0, alias="in")
    kept: int = 0
    rejected: int = 0
    held: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = self.model_dump(), other.model_dump()
        return Counts(**{name: mine[name] + theirs[name] for name in mine})

    @classmethod
    def of(cls, kept: int, outcomes: pa.ChunkedArray, came: int) -> Counts:
        """From the rows that stay and the outcome column of those that do not."""
        tally = Counter(outcomes.to_pylist())
        return cls(came=came, kept=kept, rejected=tally["rejected"], held=tally["held"], failed=tally["failed"])

    def check(self, what: str) -> None:
        """Raise BrokenInvariant unless every one is accounted for."""
        out = self.kept + self.rejected + self.held + self.failed
        if out != self.came:
            raise BrokenInvariant(f"{what}: {self.came} came in, {out} are accounted for: {self.model_dump()}")


class TableRef(BaseModel):
    """A table in the store: its path, size and a digest of each column."""

    model_config = ConfigDict(frozen=True)

    path: str
    rows: int
    bytes: int
    columns: dict[str, str]

    def digest(self, columns: Sequence[str]) -> str:
        """One digest of the named columns, in that order."""
        return _hash(json.dumps([[name, self.columns[name]] for name in columns]).encode())


class Manifest(BaseModel):
    """One generation of one step of one shard."""

    model_config = ConfigDict(frozen=True)

    step: str
    shard: str
    key: str
    revision: int
    generation: int = 0
    tables: dict[str, TableRef] = {}
    samples: Counts = Counts()
    captions: Counts = Counts()
    reasons: dict[str, int] = {}
    caption_reasons: dict[str, int] = {}
    open: int = 0
    facts: dict[str, Any] = {}


@dataclass
class Result:
    """What a step made of a shard, before it has a name."""

    tables: dict[str, pa.Table | TableRef]
    """Those that are references were written while they were made."""
    samples: Counts = Counts()
    captions: Counts = Counts()
    open: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """A shard's checkpoints so far: the reference that tasks hand on, never data."""

    name: str
    rows: int
    manifests: Mapping[str, str] = field(default_factory=dict)

    def at(self, step: Step, manifest: str) -> Shard:
        """The same shard with one more checkpoint."""
        return replace(self, manifests={**self.manifests, step.value: manifest})


@dataclass(frozen=True)
class Dataset:
    """A dataset in a store: two strings, so that it can go anywhere."""

    store_url: str
    name: str

    @cached_property
    def store(self) -> Store:
        """The open store."""
        return open_store(self.store_url)

    def __reduce__(self) -> tuple[type[Dataset], tuple[str, str]]:
        return Dataset, (self.store_url, self.name)

    def manifest(self, shard: Shard, step: Step) -> Manifest:
        """The shard's checkpoint at a step."""
        return _read_manifest(self.store, shard.manifests[step.value])

    def manifest_at(self, path: str) -> Manifest:
        """The manifest at a path."""
        return _read_manifest(self.store, path)

    def table(self, ref: TableRef, columns: Sequence[str] | None = None) -> pa.Table:
        """A table, or some columns of it, whole in memory."""
        wanted = None if columns is None else list(columns)
        with _damaged(self.store, ref.path):
            data = pa.BufferReader(self.store.view(ref.path))
            # Threads would have nothing to wait for.
            table = pq.ParquetFile(data).read(columns=wanted, use_threads=False)
        return table if wanted is None else table.select(wanted)

    def read(self, shard: Shard, step: Step, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One table of a shard's checkpoint."""
        return self.table(self.manifest(shard, step).tables[table], columns)

    def digest(self, shard: Shard, step: Step, table: str, columns: Sequence[str]) -> str:
        """What a later step's key says of columns that it reads."""
        return self.manifest(shard, step).tables[table].digest(columns)

    def replace_manifest(self, path: str, manifest: Manifest) -> None:
        """Write a manifest in the place of one that may not stay: forgetting alone does that."""
        self.store.replace(path, manifest.model_dump_json(by_alias=True, indent=1).encode())
        _manifests.pop((self.store.url, path), None)

    def latest(self, step: Step, key: str) -> str | None:
        """Path of the newest generation under a key, if there is one."""
        found = self.store.list(layout.manifest_prefix(self.name, step, key))
        return found[-1] if found else None


@contextmanager
def _damaged(store: Store, path: str) -> Iterator[None]:
    """An object that a record names, and that is gone or no longer what was written, is said in one line."""
    try:
        yield
    except (FileNotFoundError, ValidationError, pa.ArrowInvalid, OSError) as error:
        what = "is gone" if isinstance(error, FileNotFoundError) else "is damaged"
        step = path.split("/manifests/")[0].split("/data/")[0]
        raise StoreError(
            f"{store.locate(path)}: {what}, and a checkpoint rests on it; "
            f"delete {store.locate(step)}/manifests and build again"
        ) from error


_MOST_MANIFESTS = 4096
_manifests: dict[tuple[str, str], Manifest] = {}


def _read_manifest(store: Store, path: str) -> Manifest:
    """Manifests never change, so each is fetched once a process."""
    found = _manifests.get((store.url, path))
    if found is None:
        with _damaged(store, path):
            found = Manifest.model_validate_json(store.get(path))
        if len(_manifests) >= _MOST_MANIFESTS:
            _manifests.clear()
        _manifests[store.url, path] = found
    return found


def step_key(step: Step, reads: Sequence[str], settings: Any) -> str:
    """The name under which a step's result lies: 32 hex digits."""
    parts = {"step": step.value, "revision": REVISION[step], "reads": list(reads), "settings": settings}
    return _hash(json.dumps(parts, sort_keys=True).encode())


Work = Callable[[Manifest | None], Result]
"""Does a step. Given the last generation if that left failures open."""


def run_once(dataset: Dataset, shard: Shard, step: Step, reads: Sequence[str], settings: Any, work: Work) -> Shard:
    """The shard with `step` done: from the store if it is there, else by `work`.

    Raises:
        BrokenInvariant: a sample or a caption is not accounted for; nothing is published.
    """
    key = step_key(step, reads, settings)
    done = dataset.latest(step, key)
    before = dataset.manifest_at(done) if done else None
    if done and before and not before.open:
        return shard.at(step, done)
    return shard.at(step, publish(dataset, shard.name, step, key, work(before), before))


def find_done(dataset: Dataset, shard: Shard, step: Step, reads: Sequence[str], settings: Any) -> Shard | None:
    """What `run_once` would return without work; None: there is work to do."""
    done = dataset.latest(step, step_key(step, reads, settings))
    return shard.at(step, done) if done and not dataset.manifest_at(done).open else None


def made_again(dataset: Dataset, before: Manifest, result: Result) -> Manifest:
    """A manifest with another result in it: for what takes the place of one that may not stay."""
    return _made(dataset, Step(before.step), before.shard, before.key, before.generation, result)


def publish(dataset: Dataset, shard: str, step: Step, key: str, result: Result, before: Manifest | None = None) -> str:
    """Write the tables, then the manifest that makes them count; returns its path.

    If another run published this generation first, that one stands.
    """
    manifest = _made(dataset, step, shard, key, before.generation + 1 if before else 0, result)
    path = layout.manifest_path(dataset.name, step, key, manifest.generation)
    if dataset.store.create(path, manifest.model_dump_json(by_alias=True, indent=1).encode()):
        # A person may have emptied the store in the middle of this process.
        _manifests.pop((dataset.store.url, path), None)
    return path


def _made(dataset: Dataset, step: Step, shard: str, key: str, generation: int, result: Result) -> Manifest:
    """Check the accounts, write the tables, and name both."""
    result.samples.check(f"{step} shard {shard}, samples")
    result.captions.check(f"{step} shard {shard}, captions")
    return Manifest(
        step=step.value,
        shard=shard,
        key=key,
        revision=REVISION[step],
        generation=generation,
        tables=_put_tables(dataset, step, result.tables),
        samples=result.samples,
        captions=result.captions,
        reasons=_tally(result.tables.get("rejects")),
        caption_reasons=_tally(result.tables.get("caption_rejects")),
        open=result.open,
        facts=result.facts,
    )


def _tally(rejects: pa.Table | TableRef | None) -> dict[str, int]:
    if rejects is None or isinstance(rejects, TableRef):
        return {}
    return dict(sorted(Counter(rejects["code"].to_pylist()).items()))


def _put_tables(dataset: Dataset, step: Step, tables: Mapping[str, pa.Table | TableRef]) -> dict[str, TableRef]:
    """Tables written side by side: a disk's sync, or the way to S3 and back, is waited for once."""

    def put(table: pa.Table | TableRef) -> TableRef:
        return table if isinstance(table, TableRef) else put_table(dataset, step, table)

    writing = [_writers(os.getpid()).submit(put, table) for table in tables.values()]
    wait(writing)  # all of them: who is told that one failed finds nothing of the others half written
    return {name: written.result() for name, written in zip(tables, writing, strict=True)}


@lru_cache(maxsize=1)
def _writers(pid: int) -> ThreadPoolExecutor:
    """This process's own: threads do not survive a fork."""
    return ThreadPoolExecutor(_WRITERS, thread_name_prefix="write")


def put_table(dataset: Dataset, step: Step, table: pa.Table) -> TableRef:
    """Write a table under the hash of its bytes."""
    data = encode_parquet(table)
    path = layout.data_path(dataset.name, step, _hash(data))
    dataset.store.put(path, data)
    columns = {name: _column_digest(table, name) for name in table.column_names if name not in _UNHASHED}
    return TableRef(path=path, rows=table.num_rows, bytes=len(data), columns=columns)


class TableWriter:
    """A table of pictures that is written while it is made: it never is in memory as a whole.

    Each `write` is a row group. Its name follows from the other columns and the
    pictures' own digests, so that no picture is hashed twice.
    """

    def __init__(self, dataset: Dataset, step: Step, schema: pa.Schema) -> None:
        self._dataset, self._step, self._schema = dataset, step, schema
        self._pictures = sha256()
        self._hashed: list[pa.Table] = []

    def __enter__(self) -> TableWriter:
        self._stack = ExitStack()
        self._part = self._stack.enter_context(self._dataset.store.writing())
        self._parquet = pq.ParquetWriter(self._part.file, self._schema, **_encoding(self._schema))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, rows: pa.Table, digests: Sequence[str]) -> None:
        """The next rows, and the sha256 of each one's picture."""
        if rows.num_rows:
            self._parquet.write_table(rows)
            self._pictures.update("".join(digests).encode())
            self._hashed.append(rows.drop_columns([name for name in rows.column_names if name in _UNHASHED]))

    def finish(self) -> TableRef:
        """Give it its name."""
        self._parquet.close()
        rows = pa.concat_tables(self._hashed) if self._hashed else self._schema.empty_table()
        columns = {name: _column_digest(rows, name) for name in self._schema.names if name not in _UNHASHED}
        name = _hash(json.dumps([columns, self._pictures.hexdigest()]).encode())
        path = layout.data_path(self._dataset.name, self._step, name)
        size = self._part.put(path)
        return TableRef(path=path, rows=rows.num_rows, bytes=size, columns=columns)


def encode_parquet(table: pa.Table) -> pa.Buffer:
    """Parquet bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_encoding(table.schema))
    return sink.getvalue()


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """Zstd, except pictures, which are compressed already."""
    pictures = _UNHASHED.intersection(schema.names)
    return {
        "compression": {n: "NONE" if n in pictures else "ZSTD" for n in schema.names} if pictures else "ZSTD",
        "use_dictionary": [field.name for field in schema if pa.types.is_string(field.type)],
        "write_statistics": [name for name in schema.names if name not in _UNHASHED],
    }


def _column_digest(table: pa.Table, name: str) -> str:
    """Of values alone: IPC drops empty null maps and rebases slices; what lies under a null is taken out."""
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if column.null_count:
        column = column.take(pc.if_else(column.is_valid(), pa.array(range(len(column)), pa.int64()), None))
    batch = pa.record_batch([column], schema=pa.schema([pa.field("c", column.type)]))
    return _hash(batch.serialize())


def _hash(data: Any) -> str:
    return sha256(data).hexdigest()[:32]
