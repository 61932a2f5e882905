"""Caption files of a folder: `.jsonl`, `.csv` and `.parquet` become one table.

A `.jsonl` line is `{"file": "a/b.jpg", "captions": [{"text": "…", "lang": "en"}],
"license": "…", "url": "…"}`, or `{"file": "a/b.jpg", "caption": "…"}` for short;
`.csv` and `.parquet` have columns of these names. Further keys are ignored. A null
caption is no caption; an empty one is a caption, which a later stage rejects.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.errors import SourceError
from vlmdata.ingest.files import open_tree, reason, split_pattern
from vlmdata.schema import LISTING

Caption = dict[str, str | None]

CAPTION_LIST: pa.DataType = LISTING.field("captions").type

ROWS = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("captions", CAPTION_LIST),
        pa.field("license", pa.string()),
        pa.field("url", pa.string()),
    ]
)
"""What a caption file says of each picture; `line` is where."""

_FLUSH = 65_536

Row = dict[str, Any]


def read_captions(path: str) -> pa.Table:
    """The rows of a caption file, one a picture, with the columns of `ROWS`.

    Raises:
        SourceError: one line naming the file, the line and what was expected.
    """
    reader = _READERS.get(posixpath.splitext(path)[1].lower())
    if reader is None:
        raise SourceError(f"source.captions = {path!r}: expected a file ending in .jsonl, .csv or .parquet")
    folder, name = split_pattern(path)
    try:
        with open_tree(folder).open(name) as file:
            table = _table(reader(file, name))
    except FileNotFoundError:
        raise SourceError(f"source.captions = {path!r}: no such file; correct the path or leave it out") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{name}: not UTF-8 near byte {error.start}; save the file as UTF-8") from error
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"source.captions = {path!r}: cannot be read ({reason(error)})") from error
    table = _join_rows(table) if name.lower().endswith(".csv") else table
    _refuse_repeats(table, name)
    return table


def text_captions(data: bytes) -> list[Caption]:
    """The captions of a `.txt` beside a picture: each line that is not blank is one.

    A file of nothing but blanks is one empty caption, so that it is seen to be
    there. UnicodeDecodeError if it is not UTF-8.
    """
    lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    return [{"text": line, "lang": None} for line in lines if line] or [{"text": "", "lang": None}]


def parse_captions(value: Any, lang: str | None) -> list[Caption]:
    """Captions from what people write: a string, or a list of strings and `{"text", "lang"}`.

    Raises:
        ValueError: it is none of these.
    """
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    return [caption for item in items if (caption := _caption(item, lang)) is not None]


def _caption(item: Any, lang: str | None) -> Caption | None:
    if isinstance(item, dict):
        text, own = item.get("text"), item.get("lang", item.get("language"))
        if own is not None and not isinstance(own, str):
            raise ValueError(f"lang = {_short(own)} should be a string or null")
        item, lang = text, language(own) or lang
    if item is None:
        return None
    if not isinstance(item, str):
        raise ValueError(f"{_short(item)} should be a string or an object of text and lang")
    return {"text": item.encode("utf-8", "replace").decode(), "lang": lang}


@lru_cache(maxsize=4096)
def language(tag: str | None) -> str | None:
    """The tag in the case of RFC 5646, 2.1.1: `EN` is `en`, `zh_cn` is `zh-CN`; null if blank."""
    first, *rest = (tag or "").strip().replace("_", "-").split("-")
    if not first:
        return None
    cased = {2: str.upper, 4: str.title}
    return "-".join([first.lower(), *(cased.get(len(part), str.lower)(part) for part in rest)])


def caption_row(raw: Mapping[str, Any]) -> Row:
    """Captions, license and url of one object, however the field spells them.

    Raises:
        ValueError: a key has a value of the wrong type.
    """
    lang = language(_string(raw, "lang", "language"))
    given = next((raw[key] for key in ("captions", "caption", "text") if raw.get(key) is not None), None)
    return {
        "captions": parse_captions(given, lang),
        "license": _string(raw, "license", "LICENSE"),
        "url": _string(raw, "url", "URL"),
    }


def _string(raw: Mapping[str, Any], *keys: str) -> str | None:
    for key in keys:
        value = raw.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{key} = {_short(value)} should be a string or null")
        if value:
            return value.encode("utf-8", "replace").decode()
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _file(raw: Mapping[str, Any]) -> str:
    value = raw.get("file")
    if not isinstance(value, str) or not value:
        raise ValueError(f"file = {_short(value)} should be a path below the source's folder")
    return posixpath.normpath(value.encode("utf-8", "replace").decode())


def _jsonl(file: IO[bytes], name: str) -> Iterator[Row]:
    for line, data in enumerate(file, 1):
        text = data.decode("utf-8-sig" if line == 1 else "utf-8")
        if text.strip():
            yield _checked(text, name, f"line {line}", line)


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{_short(raw)} is not a JSON object")
    return raw


def _checked(given: str | Mapping[str, Any], name: str, place: str, line: int) -> Row:
    try:
        raw = _json_object(given) if isinstance(given, str) else given
        return {"file": _file(raw), "line": line, **caption_row(raw)}
    except ValueError as error:
        expected = 'expected {"file": "a/b.jpg", "captions": [{"text": "…", "lang": "en"}]}'
        raise SourceError(f"{name} {place}: {error}; {expected}") from None


def _csv(file: IO[bytes], name: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 24)
    rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
        columns = [column.strip() for column in rows.fieldnames or []]
        rows.fieldnames = columns
        _need_columns(columns, name, ("caption", "text"))
        for row in rows:
            yield _csv_row(row, name, rows.line_num)
    except csv.Error as error:
        raise SourceError(f"{name} line {rows.line_num}: not CSV: {error}") from error


def _csv_row(row: dict[str | None, Any], name: str, line: int) -> Row:
    if None in row or None in row.values():
        wrong = "more or fewer fields than the header"
        raise SourceError(f"{name} line {line}: {wrong}; put fields that hold a comma in quotes")
    return _checked({str(key): value for key, value in row.items()}, name, f"line {line}", line)


def _parquet(file: IO[bytes], name: str) -> Iterator[Row]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    columns = table.schema_arrow.names
    _need_columns(columns, name, ("captions", "caption", "text"))
    known = {"file", "captions", "caption", "text", "lang", "language", "license", "LICENSE", "url", "URL"}
    line = 0
    for batch in table.iter_batches(batch_size=8_192, columns=[name for name in columns if name in known]):
        for row in batch.to_pylist():
            yield _checked(row, name, f"row {line}", line)
            line += 1


def _need_columns(columns: list[str], name: str, captions: tuple[str, ...]) -> None:
    if "file" not in columns or not set(captions).intersection(columns):
        expected = f"file and {' or '.join(captions)}"
        raise SourceError(f"{name}: expected columns {expected}; it has {', '.join(columns) or 'none'}")


_READERS: dict[str, Callable[[IO[bytes], str], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _table(rows: Iterable[Row]) -> pa.Table:
    """Columns, flushed as they fill: a million rows are never a million dicts at once."""
    batches, waiting = [], []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _FLUSH:
            batches.append(pa.RecordBatch.from_pylist(waiting, schema=ROWS))
            waiting = []
    batches.append(pa.RecordBatch.from_pylist(waiting, schema=ROWS))
    return pa.Table.from_batches(batches, schema=ROWS).combine_chunks()


def _join_rows(table: pa.Table) -> pa.Table:
    """Rows of one file become one: a CSV row holds one caption. The first licence and url given stand."""
    if pc.count_distinct(table["file"]).as_py() == table.num_rows:
        return table
    joined: dict[str, Row] = {}
    for row in table.to_pylist():
        first = joined.setdefault(row["file"], {**row, "captions": []})
        first["captions"].extend(row["captions"])
        first["license"], first["url"] = first["license"] or row["license"], first["url"] or row["url"]
    return pa.Table.from_pylist(list(joined.values()), schema=ROWS)


def _refuse_repeats(table: pa.Table, name: str) -> None:
    if pc.count_distinct(table["file"]).as_py() == table.num_rows:
        return
    seen: dict[str, int] = {}
    for row, file in enumerate(table["file"].to_pylist()):
        if file in seen:
            _refuse_repeat(table, seen[file], row, name)
        seen[file] = row


def _refuse_repeat(table: pa.Table, earlier: int, later: int, name: str) -> None:
    word = "row" if name.lower().endswith(".parquet") else "line"
    file, line, before = table["file"][later], table["line"][later], table["line"][earlier]
    raise SourceError(
        f"{name} {word} {line}: {file.as_py()!r} already stands in {word} {before};"
        " put all captions of a picture in one row's captions list"
    )
