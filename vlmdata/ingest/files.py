"""A tree of files, on this machine or behind fsspec, that is only ever read.

Names are relative to the tree's root and use `/`. A name that leads outside the
root, by `..` or by a symbolic link, is treated as if it were not there: captions
and archives come from strangers. A link that is found there is listed as lost,
so that its absence is seen; a link to a folder is not followed.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import IO, Any

from vlmdata.errors import SourceError

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .pjpeg .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs .heic .heif .hif .ico"
    " .cur .ppm .pgm .pbm .pnm .pfm .jp2 .j2k .jpf .jpx .jxl .svg .svgz .tga .dds .exr .hdr .psd .qoi .pcx .sgi"
    " .eps .raw .dng .cr2 .cr3 .nef .arw .orf .rw2".split()
)
"""Generous: what cannot be decoded is then rejected with a reason, not passed over."""

LEADS_NOWHERE = "that leads outside of the source, or to nothing"

_OUTSIDE = "not a file of this source"


def is_picture(name: str) -> bool:
    """Whether the name ends as a picture's does, in any case."""
    return posixpath.splitext(name)[1].lower() in PICTURE_SUFFIXES


@dataclass(frozen=True, slots=True)
class File:
    """A file of a tree; `version` changes when the file does.

    One that is `lost` is a link that leads outside the tree or to nothing, and cannot be read.
    """

    name: str
    size: int
    version: str
    lost: bool = False


class Tree:
    """What a source asks of the place that holds its files."""

    root: str

    def scan(self) -> Iterator[File]:
        """Every regular or lost file that is not hidden nor in a hidden folder, in any order.

        Raises:
            SourceError: there is no such folder, or part of it may not be listed.
        """
        raise NotImplementedError

    def stat(self, name: str) -> File | None:
        """One file, hidden or not; None if it is not there."""
        raise NotImplementedError

    def read(self, names: Sequence[str]) -> list[bytes | OSError]:
        """Whole files; for each that cannot be read, why."""
        raise NotImplementedError

    def open(self, name: str) -> IO[bytes]:
        """A seekable file; OSError if it cannot be opened."""
        raise NotImplementedError

    def ranges(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of one file, each an offset and a size; OSError if it cannot be read."""
        with self.open(name) as file:
            return [_part(file, offset, size) for offset, size in spans]


def open_tree(path: str) -> Tree:
    """The folder at `path`: local, or any URL that fsspec knows, such as s3://bucket/pictures.

    Raises:
        SourceError: no folder can have that name, or the URL cannot be used.
    """
    if "\0" in path:
        raise SourceError(f"source: {path!r} holds a NUL character, which no path can; correct it")
    scheme, separator, rest = path.partition("://")
    if not separator:
        return LocalTree(path)
    return LocalTree(rest) if scheme == "file" else RemoteTree(path)


def split_pattern(path: str) -> tuple[str, str]:
    """The folder above the first wildcard or the last part, and the rest: `a/*/b.tar` is `a`, `*/b.tar`."""
    head, separator, rest = path.rpartition("://")
    parts = rest.split("/")
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts) - 1)
    folder = "/".join(parts[:fixed]) or ("/" if rest.startswith("/") else ".")
    return f"{head}{separator}{folder}", "/".join(parts[fixed:])


def archive_tree(path: str, suffixes: tuple[str, ...]) -> Tree:
    """The tree that holds the files `path` means: a folder, one file with such a suffix, or a pattern."""
    if not _is_literal(path):
        return open_tree(split_pattern(path)[0])
    folder, slash, _ = path.rpartition("/")
    return open_tree((folder or slash or ".") if path.lower().endswith(suffixes) else path)


def find_archives(path: str, suffixes: tuple[str, ...]) -> list[File]:
    """The files of one kind that `path` means, sorted by name.

    Raises:
        SourceError: there are none, or one is lost.
    """
    tree = archive_tree(path, suffixes)
    if not _is_literal(path):
        found = [file for file in tree.scan() if _matches(file.name, split_pattern(path)[1])]
    elif path.lower().endswith(suffixes):
        one = tree.stat(posixpath.basename(path))
        found = [one] if one else []
    else:
        found = [file for file in tree.scan() if file.name.lower().endswith(suffixes)]
    if not found:
        expected = "give a folder that holds some, one file, or a pattern"
        raise SourceError(f"source.path = {path!r}: no {suffixes[0]} file found; {expected}")
    if lost := next((file.name for file in found if file.lost), None):
        where = f"{tree.root.rstrip('/')}/{lost}"
        raise SourceError(f"{where}: a link {LEADS_NOWHERE}; put the file itself there, or remove the link")
    return sorted(found, key=lambda file: file.name)


def _is_literal(path: str) -> bool:
    return not any(c in path for c in "*?[") or os.path.exists(path)


def _matches(name: str, pattern: str) -> bool:
    if "**" in pattern:
        return fnmatchcase(name, pattern.replace("**/", "*"))
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


class LocalTree(Tree):
    """A folder of this machine."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))
        self._real = os.path.realpath(self.root)

    def scan(self) -> Iterator[File]:
        if not os.path.isdir(self._real):
            raise SourceError(f"source.path = {self.root!r}: no such folder; give the one that holds the files")
        yield from self._scan("")

    def _scan(self, below: str) -> Iterator[File]:
        folders = []
        try:
            with os.scandir(os.path.join(self._real, below)) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = _text(f"{below}{entry.name}", self.root)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    elif found := self._entry(entry, name):
                        yield found
        except OSError as error:
            folder = os.path.join(self.root, below)
            raise SourceError(f"{folder}: cannot be listed ({error.strerror})") from error
        for folder in folders:
            yield from self._scan(folder)

    def _entry(self, entry: os.DirEntry[str], name: str) -> File | None:
        if entry.is_symlink():
            return self._linked(name)
        if not entry.is_file(follow_symlinks=False):
            return None
        return _local_file(name, entry.stat(follow_symlinks=False))

    def _linked(self, name: str) -> File | None:
        try:
            return _local_file(name, os.stat(self._inside(name)))
        except OSError:
            return File(name, 0, "", lost=True)

    def stat(self, name: str) -> File | None:
        try:
            return _local_file(name, os.stat(self._inside(name)))
        except (OSError, ValueError):
            return None

    def read(self, names: Sequence[str]) -> list[bytes | OSError]:
        return [self._read(name) for name in names]

    def _read(self, name: str) -> bytes | OSError:
        try:
            with self.open(name) as file:
                return file.read()
        except OSError as error:
            return error

    def open(self, name: str) -> IO[bytes]:
        path = self._inside(name)
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileNotFoundError(0, _OUTSIDE, name)
        return open(path, "rb")

    def _inside(self, name: str) -> str:
        if "\0" in name:
            raise FileNotFoundError(0, _OUTSIDE, name)
        path = os.path.realpath(os.path.join(self._real, name))
        if os.path.isabs(name) or os.path.commonpath([path, self._real]) != self._real:
            raise FileNotFoundError(0, _OUTSIDE, name)
        return path


def _local_file(name: str, found: os.stat_result) -> File | None:
    if not stat.S_ISREG(found.st_mode):
        return None
    return File(name, found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def _text(name: str, root: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise SourceError(f"{root}: the name of {shown!r} is not UTF-8; rename the file") from None
    return name


class RemoteTree(Tree):
    """A prefix of an object store, by its URL."""

    def __init__(self, root: str) -> None:
        from fsspec.core import url_to_fs

        self.root = root.rstrip("/")
        with _remote_errors(self.root):
            self._fs, self._base = url_to_fs(self.root, use_listings_cache=False)

    def scan(self) -> Iterator[File]:
        found: dict[str, dict[str, Any]] = {}
        with _remote_errors(self.root), suppress(FileNotFoundError):
            found = self._fs.find(self._base, detail=True)
        if not found:
            raise SourceError(f"source.path = {self.root!r}: no such folder, or nothing in it")
        for path, info in found.items():
            name = self._name(path)
            if name and info["type"] == "file" and not any(part.startswith(".") for part in name.split("/")):
                yield _remote_file(name, info)

    def _name(self, path: str) -> str:
        return path.lstrip("/").removeprefix(self._base.strip("/")).lstrip("/")

    def stat(self, name: str) -> File | None:
        try:
            with _remote_errors(self.root):
                info = self._fs.info(self._path(name))
        except FileNotFoundError:
            return None
        return _remote_file(name, info) if info["type"] == "file" else None

    def read(self, names: Sequence[str]) -> list[bytes | OSError]:
        paths = [self._path(name) for name in names]
        # Not `cat`: it would take a file called `a[1].jpg` for a pattern.
        found = self._fs.cat_ranges(paths, None, None, on_error="return") if paths else []
        return [_bytes_or_error(content, path) for content, path in zip(found, paths, strict=True)]

    def open(self, name: str) -> IO[bytes]:
        with _as_os_errors():
            file: IO[bytes] = self._fs.open(self._path(name), "rb")
        return file

    def ranges(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        path = self._path(name)
        some = [(offset, offset + size) for offset, size in spans if size]
        starts, ends = [list(side) for side in zip(*some, strict=True)] if some else ([], [])
        with _as_os_errors():
            parts = iter(self._fs.cat_ranges([path] * len(some), starts, ends, on_error="raise"))
        return [_whole(next(parts), offset, size) if size else b"" for offset, size in spans]

    def _path(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/"):
            raise FileNotFoundError(0, _OUTSIDE, name)
        return f"{self._base.rstrip('/')}/{name}"


def _remote_file(name: str, info: dict[str, Any]) -> File:
    changed = info.get("ETag") or info.get("LastModified") or info.get("created") or ""
    changed = changed.isoformat() if isinstance(changed, datetime) else str(changed).strip('"')
    return File(name, int(info["size"]), f"{info['size']}-{changed}")


def _bytes_or_error(content: Any, path: str) -> bytes | OSError:
    if isinstance(content, bytes | OSError):
        return content
    if isinstance(content, Exception):
        return OSError(0, " ".join(str(content).split()) or type(content).__name__, path)
    return FileNotFoundError(0, "no answer", path)


def _part(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return _whole(file.read(size), offset, size)


def _whole(data: bytes, offset: int, size: int) -> bytes:
    if len(data) != size:
        raise OSError(0, f"ends at byte {offset + len(data)}, before byte {offset + size}")
    return data


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """What the S3 client raises of its own, such as a lost connection, as OSError."""
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except BotoCoreError as error:
        raise OSError(0, reason(error)) from error


@contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    """An object store's refusals as one line; FileNotFoundError passes."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    try:
        yield
    except FileNotFoundError:
        raise
    except NoCredentialsError:
        raise SourceError(f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except PermissionError as error:
        raise SourceError(f"{url}: these credentials may not read it ({reason(error)})") from error
    except (OSError, BotoCoreError, ValueError, ImportError) as error:
        raise SourceError(f"{url}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Why, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(text).split()) or type(error).__name__
