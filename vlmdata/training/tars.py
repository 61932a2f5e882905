"""Bytes of a set's tars, of a folder or a bucket, by number and offset; of a bucket nothing is kept on disk."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vlmdata.errors import SourceError
from vlmdata.ingest.files import Tree, open_tree, reason

Span = tuple[int, int, int]
"""A tar's number, an offset in it, and a size."""

_AT_ONCE = 32
_BLOCK = 1 << 24


@dataclass
class Tars:
    """Where tars lie, and what they were when they were verified.

    Attributes:
        root: a folder, or the URL of a bucket or of a prefix in one.
        names: below it, by number.
        versions: by number; another one, when it is read, is another tar.
    """

    root: str
    names: Sequence[str]
    versions: Sequence[str] = ()
    _seen: set[int] = field(default_factory=set, init=False, repr=False)

    @property
    def remote(self) -> bool:
        """Whether they lie in a bucket."""
        return "://" in self.root

    def where(self, number: int) -> str:
        """A tar's path or URL, for people."""
        return f"{self.root.rstrip('/')}/{self.names[number]}"

    def sizes_and_versions(self) -> list[tuple[int, str] | None]:
        """Of each tar, as it is now; None: it is not there."""
        tree = _tree(self.root, os.getpid())
        with ThreadPoolExecutor(_AT_ONCE) as several:
            found = list(several.map(tree.stat, self.names))
        return [(file.size, file.version) if file else None for file in found]

    @contextmanager
    def whole(self, number: int, folder: Path) -> Iterator[Path]:
        """A tar as a file, for as long as the block runs; one of a bucket is fetched into `folder`, which is then gone.

        Raises:
            SourceError: it cannot be read.
        """
        if not self.remote:
            yield Path(self.where(number))
            return
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir(parents=True)
        path = folder / posixpath.basename(self.names[number])
        try:
            self._fetch(number, path)
            yield path
        finally:
            shutil.rmtree(folder)

    def _fetch(self, number: int, path: Path) -> None:
        try:
            with _tree(self.root, os.getpid()).open(self.names[number]) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, _BLOCK)
        except OSError as error:
            self._refuse(number, error)

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """Parts of tars; from a bucket all are asked for at once.

        Raises:
            SourceError: a tar is gone, is another one by now, or cannot be read.
        """
        of_tar: dict[int, list[int]] = {}
        for at, (number, _, _) in enumerate(spans):
            of_tar.setdefault(number, []).append(at)
        found = [b""] * len(spans)
        asked = [(number, [spans[at][1:] for at in places]) for number, places in of_tar.items()]
        for places, parts in zip(of_tar.values(), self._all_parts(asked), strict=True):
            for at, part in zip(places, parts, strict=True):
                found[at] = part
        return found

    def _all_parts(self, asked: list[tuple[int, list[tuple[int, int]]]]) -> list[list[bytes]]:
        if not self.remote or len(asked) < 2:
            return [self._parts(*one) for one in asked]
        # Tar after tar, a batch would wait once for each.
        with ThreadPoolExecutor(min(len(asked), _AT_ONCE)) as several:
            return list(several.map(lambda one: self._parts(*one), asked))

    def _parts(self, number: int, spans: list[tuple[int, int]]) -> list[bytes]:
        tree = _tree(self.root, os.getpid())
        try:
            if number not in self._seen:
                self._check(number, tree)
            return tree.ranges(self.names[number], spans)
        except OSError as error:
            return self._refuse(number, error)

    def _check(self, number: int, tree: Tree) -> None:
        """Before the first read: what is there is what was verified."""
        now = tree.stat(self.names[number])
        if self.versions and (now is None or now.version != self.versions[number]):
            what = "gone" if now is None else "another file than the one that was verified"
            raise SourceError(f"data: {self.where(number)} is {what}; put it back, and start the training again")
        self._seen.add(number)

    def _refuse(self, number: int, error: OSError) -> list[bytes]:
        raise SourceError(
            f"data: {self.where(number)} cannot be read ({reason(error)}); start the training again when it can, and it"
            " goes on from its newest checkpoint"
        ) from error


@lru_cache(maxsize=4)
def _tree(root: str, process: int) -> Tree:
    """One a process: a connection does not survive a fork."""
    return open_tree(root)
