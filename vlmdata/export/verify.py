"""`vlmdata verify`: proof that an export is whole, from its folder alone.

Every file that MANIFEST.json names is hashed, read back by its format and
counted; so are the files beside it. It needs no store and no config.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.export.format import WithFolder
from vlmdata.export.formats import FORMATS, check_formats
from vlmdata.export.listing import Listed, Listing, read_listing
from vlmdata.export.names import MANIFEST, folder_of_picture
from vlmdata.store import Store, open_store

_AT_ONCE = min(os.cpu_count() or 1, 8)
"""Files looked at at a time; of one that is far away there is a copy on the disk meanwhile."""

Wrong = tuple[str, str]
"""A path below the export's folder, and what is wrong with it."""


@dataclass(frozen=True)
class Proof:
    """What was looked at, and what was found; the export holds if nothing is wrong."""

    place: str
    dataset: str
    export: str
    formats: tuple[str, ...]
    files: int
    bytes: int
    samples: int
    captions: int
    wrong: tuple[Wrong, ...]
    strange: tuple[str, ...]
    """What lies in the folder beside the export, where no reader of a format looks."""

    @property
    def holds(self) -> bool:
        """Whether the export is what was written."""
        return not self.wrong

    def as_dict(self) -> dict[str, Any]:
        """For a program."""
        wrong = [{"path": path, "what": what} for path, what in self.wrong]
        return {**vars(self), "holds": self.holds, "wrong": wrong}

    def as_lines(self) -> list[str]:
        """For a person: a line for each file that does not hold, and what was looked at."""
        return [
            *(f"{path}: {what}" for path, what in self.wrong),
            *(f"{path}: is no file of the export; no reader takes it for one" for path in self.strange),
            f"{self.place}: {self.samples:,} samples with {self.captions:,} captions in {', '.join(self.formats)}; "
            f"{self.files:,} files and {self.bytes:,} bytes read, {len(self.wrong):,} wrong",
        ]


def verify(place: str) -> Proof:
    """Look at every file of an export: in the store, a copy, or an increment beside the exports that go with it.

    Args:
        place: Its folder, or s3:// URL.

    Raises:
        UserError: there is no export.
        BuildIncomplete: it was interrupted before it was finished.
        ConfigError: a format's package is missing.
        StoreError: the store refuses.
    """
    store = open_store(place, "EXPORT")
    told = read_listing(store)
    check_formats(told.formats)
    listed = [*told.files, *told.indexes, *told.earlier]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        seen = list(pool.map(lambda file: _look_at(_home(store, file), file), listed))
    known = set(told.about).union(*(one.paths for one, file in zip(seen, listed, strict=True) if file.export is None))
    wrong = [found for one in seen for found in one.wrong]
    unread = {file.pictures for one, file in zip(seen, listed, strict=True) if file.beside and len(one.paths) == 1}
    wrong += [*_sums(told), *_missing_about(store, told), *_left_over(store, told, known, unread)]
    ours = {
        MANIFEST,
        *(path.partition("/")[0] for path in told.about),
        "plots",
        *(file.folder.partition("/")[0] for file in (*told.files, *told.earlier)),
        *told.formats,
    }
    shards = [file for file in (*told.files, *told.earlier) if file.format == told.formats[0]]
    return Proof(
        place=store.url,
        dataset=told.dataset,
        export=told.export,
        formats=told.formats,
        files=sum(len(one.paths) for one in seen),
        bytes=sum(one.bytes for one in seen),
        samples=sum(file.samples or 0 for file in shards),
        captions=sum(file.captions or 0 for file in shards),
        wrong=tuple(wrong),
        strange=tuple(name for name in store.children("") if name not in ours),
    )


def _home(store: Store, file: Listed) -> Store:
    """Where a file lies: here, or in the folder of an earlier export beside this one."""
    return store if file.export is None else open_store(f"{store.url.rpartition('/')[0]}/{file.export}", "EXPORT")


@dataclass
class _Seen:
    """What looking at one listed file came to, and at those beside it."""

    bytes: int = 0
    paths: set[str] = field(default_factory=set)
    wrong: list[Wrong] = field(default_factory=list)


def _look_at(store: Store, file: Listed) -> _Seen:
    seen = _Seen(paths={file.path})
    path = file.path if file.export is None else f"../{file.export}/{file.path}"
    try:
        with store.held(file.path) as data:
            seen.bytes = data.size
            what = _differs(data, file.bytes, file.sha256) or _counts(store, file, data)
            if not what and isinstance(format_ := FORMATS[file.format], WithFolder) and file.samples is not None:
                _look_beside(store, file, format_.beside(data), seen)
    except FileNotFoundError:
        what = "is gone"
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
    if what:
        seen.wrong.append((path, what))
    return seen


def _differs(data: pa.Buffer, size: int, digest: str) -> str:
    """What is wrong with a file's bytes; nothing, if nothing is."""
    if data.size != size:
        return f"has {data.size:,} bytes where {size:,} were written"
    return "" if sha256(data).hexdigest() == digest else "holds other bytes than were written"


def _counts(store: Store, file: Listed, data: pa.Buffer) -> str:
    """What is wrong with what a shard holds, as its format reads it."""
    if file.samples is None:
        return ""
    try:
        rows = (
            FORMATS[file.format]
            .read_back(file.name, lambda name: data if name == file.name else store.view(f"{file.folder}/{name}"))
            .rows
        )
    # Somebody may have listed anything at all; whatever a reader says of it is the reason.
    except Exception as error:
        return f"cannot be read as {file.format} ({' '.join(str(error).split())[:200] or type(error).__name__})"
    found = {"samples": rows.num_rows, "captions": pc.sum(rows["captions"]).as_py() or 0}
    for name, count in found.items():
        if count != getattr(file, name):
            return f"holds {count:,} {name} where {MANIFEST} says {getattr(file, name) or 0:,}"
    return ""


def _look_beside(store: Store, file: Listed, beside: dict[str, str], seen: _Seen) -> None:
    """Look at the files beside a shard's own, which tells the sha256 of each."""
    size = 0
    for name, digest in beside.items():
        path = f"{file.folder}/{name}"
        seen.paths.add(path)
        try:
            with store.held(path) as data:
                size += data.size
                what = _differs(data, data.size, digest)
        except FileNotFoundError:
            what = "is gone"
        except OSError as error:
            what = f"cannot be read ({error.strerror or error})"
        if what:
            seen.wrong.append((path, what))
    seen.bytes += size
    told = (file.beside.files, file.beside.bytes) if file.beside else (0, 0)
    if not seen.wrong and (len(beside), size) != told:
        seen.wrong.append((file.path, f"names {len(beside):,} files of {size:,} bytes where {MANIFEST} says {told}"))


def _sums(told: Listing) -> Iterator[Wrong]:
    """Whether each format has all samples."""
    for name in told.formats:
        own = [file for file in told.files if file.format == name]
        for what in ("samples", "captions"):
            count = sum(getattr(file, what) or 0 for file in own)
            if count != getattr(told, what):
                yield MANIFEST, f"lists {count:,} {what} in {name} where it says {getattr(told, what):,}"


def _missing_about(store: Store, told: Listing) -> Iterable[Wrong]:
    """README.md and the like: they tell of more than the export, so that no digest says what they are to be."""
    return [(path, "is gone") for path in told.about if not store.exists(path)]


def _left_over(store: Store, told: Listing, known: set[str], unread: set[str]) -> Iterator[Wrong]:
    """Files among those of a format that are none: whoever reads all that lies there would read them, too.

    Of the shards in `unread` nobody knows which files lie beside them.
    """
    for folder in sorted({file.folder for file in (*told.files, *told.earlier)} | set(told.formats)):
        for path in store.list(folder):
            if path not in known and folder_of_picture(path) not in unread:
                yield path, f"is not in {MANIFEST}, and who reads the folder would read it"
