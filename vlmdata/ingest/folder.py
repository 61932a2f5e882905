"""A folder of pictures, with captions in one file or in a `.txt` beside each.

Every file whose name ends as a picture's does is a sample, and every file that a
caption row names; hidden files and folders are not. A caption row whose file is
not below the folder is listed as missing, and so is a picture that is a link to
somewhere outside of it or to nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import FolderSource
from vlmdata.errors import SourceError
from vlmdata.ingest.captions import CAPTION_LIST, Caption, read_captions, text_captions
from vlmdata.ingest.files import LEADS_NOWHERE, File, Tree, is_picture, open_tree, reason
from vlmdata.schema import LISTING, filled

_SIDECAR_BATCH = 4_096

_FILES = pa.schema([LISTING.field(name) for name in ("key", "size", "version", "missing")])


def fingerprint(source: FolderSource) -> None:
    """None: listing a folder costs what a look at it costs."""


def list_rows(source: FolderSource) -> pa.Table:
    """The folder's samples, sorted by path; no picture is opened.

    Raises:
        SourceError: there is no such folder, no picture in it that can be read, or captions that cannot be used.
    """
    tree = open_tree(source.path)
    rows = _with_caption_file(tree, source.captions) if source.captions else _with_sidecars(tree)
    if not rows.num_rows:
        raise SourceError(f"source.path = {source.path!r}: no picture found; expected files such as .jpg or .png")
    if pc.all(rows["missing"]).as_py():
        none = f"each of its {rows.num_rows} pictures is a link {LEADS_NOWHERE}"
        raise SourceError(f"source.path = {source.path!r}: {none}; put the files themselves there")
    return rows.sort_by("key")


def read_rows(source: FolderSource, rows: pa.Table) -> tuple[list[bytes | None], list[str | None]]:
    """Bytes of each listed file; None and the reason for one that is gone or cannot be read."""
    found = open_tree(source.path).read(rows["location"].to_pylist())
    failed = [reason(item) if isinstance(item, OSError) else None for item in found]
    return [None if isinstance(item, OSError) else item for item in found], failed


def places(rows: pa.Table) -> list[str]:
    """Paths below the folder."""
    return list(rows["location"].to_pylist())


def _with_caption_file(tree: Tree, path: str) -> pa.Table:
    captions = read_captions(path)
    files = _file_table(tree.scan())
    pictures = files.filter(_is_sample(files["key"], captions["file"], _name_below(tree, path)))
    there = pictures.filter(pc.invert(pictures["missing"]))
    named = captions.filter(pc.invert(pc.is_in(captions["file"], value_set=there["key"])))
    found, absent = _look_up(tree, named)
    if captions.num_rows and absent.num_rows == captions.num_rows:
        raise SourceError(_all_missing(tree, path, captions))
    lost = pictures.filter(pictures["missing"])
    silent = lost.filter(pc.invert(pc.is_in(lost["key"], value_set=captions["file"])))
    return pa.concat_tables([_listing(pa.concat_tables([there, found, silent]), captions), _missing(absent)])


def _is_sample(keys: pa.ChunkedArray, named: pa.ChunkedArray, caption_file: str | None) -> pa.Array:
    """Pictures by suffix, and whatever a caption row names."""
    by_suffix = pa.array([is_picture(key) and key != caption_file for key in keys.to_pylist()], pa.bool_())
    return pc.or_(by_suffix, pc.is_in(keys, value_set=named))


def _name_below(tree: Tree, path: str) -> str | None:
    root = tree.root.rstrip("/") + "/"
    return path.removeprefix(root) if path.startswith(root) else None


def _look_up(tree: Tree, named: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Files that the scan passed over (hidden, or behind a link within the folder), and rows of none."""
    found = [tree.stat(name) for name in named["file"].to_pylist()]
    there = pa.array([file is not None for file in found], pa.bool_())
    return _file_table(file for file in found if file), named.filter(pc.invert(there))


def _all_missing(tree: Tree, path: str, captions: pa.Table) -> str:
    name, first = posixpath.basename(path), captions["file"][0].as_py()
    return (
        f"none of the {captions.num_rows} files named in {name} is under {tree.root}; first: {first!r};"
        " expected paths relative to source.path"
    )


def _listing(files: pa.Table, captions: pa.Table) -> pa.Table:
    at = pc.index_in(files["key"], value_set=captions["file"])
    given = captions.select(["captions", "license", "url"]).take(at)
    return _rows(files, given["captions"], given["license"], given["url"])


def _missing(absent: pa.Table) -> pa.Table:
    files = filled(_FILES, absent.num_rows, key=absent["file"], missing=True)
    return _rows(files, absent["captions"], absent["license"], absent["url"])


def _rows(files: pa.Table, captions: pa.Array, licence: pa.Array, url: pa.Array) -> pa.Table:
    said = {"captions": captions, "license": licence, "url": url}
    known = {name: files[name] for name in _FILES.names}
    return filled(LISTING, files.num_rows, location=files["key"], **known, **said)


def _with_sidecars(tree: Tree) -> pa.Table:
    files = _file_table(tree.scan())
    pictures = files.filter(pa.array([is_picture(key) for key in files["key"].to_pylist()], pa.bool_()))
    keys = files.filter(pc.invert(files["missing"]))["key"].to_pylist()
    texts = {key for key in keys if key.endswith((".txt", ".TXT"))}
    captions = _sidecar_captions(tree, pictures["key"].to_pylist(), texts)
    nothing = pa.nulls(pictures.num_rows, pa.string())
    return _rows(pictures, captions, nothing, nothing)


def _sidecar_captions(tree: Tree, pictures: list[str], texts: set[str]) -> pa.ChunkedArray:
    chunks = []
    for start in range(0, len(pictures), _SIDECAR_BATCH):
        names = [_sidecar(picture, texts) for picture in pictures[start : start + _SIDECAR_BATCH]]
        given = [name for name in names if name]
        read = dict(zip(given, tree.read(given), strict=True))
        chunks.append(pa.array([_captions(name, read.get(name or "")) for name in names], CAPTION_LIST))
    return pa.chunked_array(chunks, CAPTION_LIST)


def _sidecar(picture: str, texts: set[str]) -> str | None:
    stem = posixpath.splitext(picture)[0]
    return next((name for name in (f"{stem}.txt", f"{stem}.TXT") if name in texts), None)


def _captions(name: str | None, data: bytes | OSError | None) -> list[Caption]:
    if isinstance(data, OSError):
        raise SourceError(f"{name}: cannot be read ({reason(data)})") from data
    if data is None:
        return []
    try:
        return text_captions(data)
    except UnicodeDecodeError as error:
        raise SourceError(f"{name}: not UTF-8 near byte {error.start}; save the file as UTF-8") from error


def _file_table(files: Iterator[File]) -> pa.Table:
    """Columns of files, flushed as they fill; of those that are lost there is nothing to say."""
    batches, waiting = [], []
    for file in files:
        size, version = (None, None) if file.lost else (file.size, file.version)
        waiting.append({"key": file.name, "size": size, "version": version, "missing": file.lost})
        if len(waiting) == _SIDECAR_BATCH:
            batches.append(pa.RecordBatch.from_pylist(waiting, schema=_FILES))
            waiting = []
    batches.append(pa.RecordBatch.from_pylist(waiting, schema=_FILES))
    return pa.Table.from_batches(batches, schema=_FILES)
