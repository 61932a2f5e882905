"""Lists of addresses: `.parquet`, `.csv`, `.tsv`, `.jsonl` and `.txt` files, of any length.

DuckDB reads them and keeps what it reads on disk, so that memory does not grow
with the list. An address that is listed twice is one sample, in its first place,
with the captions of all its rows. A row that cannot be asked for stays in the
listing, with the reason.
"""

from __future__ import annotations

import csv
import gzip
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import UrlsSource
from vlmdata.errors import SourceError
from vlmdata.ingest.captions import CAPTION_LIST, language
from vlmdata.ingest.digests import DIGESTS
from vlmdata.ingest.files import File, LocalTree, Tree, archive_tree, find_archives
from vlmdata.schema import LISTING, filled
from vlmdata.scratch import is_full, scratch

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".txt", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".txt.gz")
_MEMORY = "512MB"
_MOST_THREADS = 4
_LONGEST_ADDRESS = 8_192
_LONGEST_LINE = 8 << 20
_DIGEST = "|".join(f"[0-9a-f]{{{digits}}}" for digits in DIGESTS)
_RULES = "rows are read as of 2"
"""Goes up when a row may come to another end than before, so that lists that were read are read again."""

_CAPTIONS = "STRUCT(text VARCHAR, lang VARCHAR)[]"


def fingerprint(source: UrlsSource) -> list[str]:
    """Name, size and time of every file, and by which rules they are read."""
    return [_RULES, *(f"{file.name} {file.version}" for file in find_archives(source.path, SUFFIXES))]


Part = tuple[int | None, pa.Table]
"""Which known shard it is, if one; and its rows."""


def list_parts(source: UrlsSource, rows: int, known: Iterable[tuple[int, pa.Table]] = ()) -> Iterator[Part]:
    """The list cut into tables of `schema.LISTING`: known shards first, then what is new, at most `rows` rows each.

    Args:
        source: The list.
        rows: In a new part.
        known: Number and addresses (column `key`) of shards that were cut before; what is left of each is a part.

    Raises:
        SourceError: no file, no row, a damaged file, or a column that is not there or not as expected.
        StoreError: the disk of temporary files is full.
    """
    tree, files = archive_tree(source.path, SUFFIXES), find_archives(source.path, SUFFIXES)
    with _database() as (db, folder):
        for number, file in enumerate(files):
            _read_file(db, source, file.name, number, _at_hand(tree, file, folder))
        if not db.execute("SELECT 1 FROM listed LIMIT 1").fetchall():
            raise SourceError(f"source.path = {source.path!r}: its {len(files)} files hold no row; expected addresses")
        for number, keys in known:
            db.register("cut_before", keys)
            db.execute(f"INSERT INTO known SELECT key, {int(number)} FROM cut_before")
            db.unregister("cut_before")
        yield from _known(db, rows)
        yield from _new(db, rows)


def _known(db: DuckDBPyConnection, rows: int) -> Iterator[Part]:
    """What is left of each known shard, in the list's order."""
    waiting = pa.Table.from_batches([], _OWNED)
    for batch in db.sql(f"{_IN_ORDER} WHERE shard IS NOT NULL ORDER BY shard, place").to_arrow_reader(rows):
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(_OWNED)])
        *whole, waiting = _by_shard(waiting)
        yield from (_part(rows) for rows in whole)
    if waiting.num_rows:
        yield _part(waiting)


def _by_shard(rows: pa.Table) -> list[pa.Table]:
    """Runs of rows of one shard; at least one."""
    numbers = rows["shard"].to_numpy()
    starts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), rows.num_rows]
    return [rows.slice(start, stop - start) for start, stop in pairwise(starts)]


def _part(rows: pa.Table) -> Part:
    return rows["shard"][0].as_py(), _listing(rows.combine_chunks())


def _new(db: DuckDBPyConnection, rows: int) -> Iterator[Part]:
    """Rows of no known shard, in the list's order, cut."""
    waiting = pa.Table.from_batches([], _OWNED)
    for batch in db.sql(f"{_IN_ORDER} WHERE shard IS NULL ORDER BY place").to_arrow_reader(rows):
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(_OWNED)])
        while waiting.num_rows >= rows:
            yield None, _listing(waiting.slice(0, rows).combine_chunks())
            waiting = waiting.slice(rows)
    if waiting.num_rows:
        yield None, _listing(waiting.combine_chunks())


_ARROW = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in ("key", "url", "license", "sha256", "extra")],
        pa.field("refused", pa.string()),
        pa.field("captions", CAPTION_LIST),
    ]
)


_OWNED = pa.schema([pa.field("shard", pa.int64()), *_ARROW])


def _listing(rows: pa.Table) -> pa.Table:
    columns = {name: rows[name] for name in _ARROW.names}
    columns["captions"] = _with_tags(rows["captions"].combine_chunks())
    return filled(LISTING, rows.num_rows, missing=False, **columns)


def _with_tags(captions: pa.Array) -> pa.Array:
    """Languages spelled as everywhere else."""
    said = captions.flatten()
    tags = pc.struct_field(said, "lang").dictionary_encode()
    spelled = pa.array([language(tag) for tag in tags.dictionary.to_pylist()], pa.string()).take(tags.indices)
    said = pa.StructArray.from_arrays([pc.struct_field(said, "text"), spelled], fields=list(CAPTION_LIST.value_type))
    offsets = pc.subtract(captions.offsets, captions.offsets[0])
    return pa.ListArray.from_arrays(offsets, said, type=CAPTION_LIST)


# The database


_TABLE = f"""
CREATE TABLE listed (
    key VARCHAR, place BIGINT, url VARCHAR, license VARCHAR, sha256 VARCHAR,
    extra VARCHAR, refused VARCHAR, captions {_CAPTIONS}
)
"""

_IN_ORDER = """
WITH repeated AS (SELECT key FROM listed GROUP BY key HAVING count(*) > 1),
once AS (SELECT * FROM listed ANTI JOIN repeated USING (key)),
folded AS (
    SELECT key, first.*, captions FROM (
        SELECT key,
            arg_min(
                {place: place, url: url, license: license, sha256: sha256,
                 extra: extra, refused: refused},
                {later: refused IS NOT NULL, place: place}
            ) AS first,
            flatten(list(captions ORDER BY place)) AS captions
        FROM listed SEMI JOIN repeated USING (key) GROUP BY key
    )
)
SELECT shard, key, url, license, sha256, extra, refused, captions
FROM (SELECT * FROM once UNION ALL BY NAME SELECT * FROM folded) LEFT JOIN known USING (key)
"""
"""Of an address that is listed twice, a row that may be asked for goes before one that may not."""


@contextmanager
def _database() -> Iterator[tuple[DuckDBPyConnection, Path]]:
    """A database on disk, and a folder beside it, that are gone afterwards."""
    import duckdb

    with scratch() as folder, duckdb.connect(folder / "rows.duckdb") as db:
        db.execute(f"SET memory_limit = '{_MEMORY}'")
        db.execute(f"SET threads = {min(_MOST_THREADS, os.cpu_count() or 1)}")
        db.execute("SET enable_progress_bar = false")
        db.execute("SET autoinstall_known_extensions = false")
        db.execute(_TABLE)
        db.execute("CREATE TABLE known (key VARCHAR, shard BIGINT)")
        yield db, folder


def _at_hand(tree: Tree, file: File, folder: Path) -> Path:
    """The file on this machine, under a name that holds no pattern."""
    path = folder / f"list{_suffix(file.name)}"
    path.unlink(missing_ok=True)
    if isinstance(tree, LocalTree):
        path.symlink_to(os.path.realpath(os.path.join(tree.root, file.name)))
        return path
    try:
        with tree.open(file.name) as far, path.open("wb") as near:
            shutil.copyfileobj(far, near, 1 << 20)
    except OSError as error:
        if is_full(error):
            raise
        raise SourceError(f"{file.name}: cannot be read ({error.strerror or error})") from error
    return path


def _suffix(name: str) -> str:
    return next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(suffix))


# One file


class _Part:
    """A file of the list, and the words of SQL that read it."""

    def __init__(self, source: UrlsSource, name: str, number: int, path: Path) -> None:
        self.source, self.name, self.number, self.path = source, name, number, path
        self.kind = _suffix(name).removesuffix(".gz").removeprefix(".")
        self.header = self._header() if self.kind in {"csv", "tsv"} else []
        self.scan = self._scan(str(path).replace("'", "''"))

    @property
    def delimiter(self) -> str:
        """Between two values."""
        return "\t" if self.kind == "tsv" else ","

    def _header(self) -> list[str]:
        opened = gzip.open if self.name.lower().endswith(".gz") else open
        with opened(self.path, "rt", encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=self.delimiter), [])
        if not names:
            raise SourceError(f"{self.name}: no line of column names; expected one, with {self.source.url_column!r}")
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise SourceError(f"{self.name}: two columns are called {repeated!r}; rename one of them")
        return names

    def _scan(self, path: str) -> str:
        compressed = "compression = 'gzip'" if self.name.lower().endswith(".gz") else "compression = 'auto_detect'"
        if self.kind == "parquet":
            return f"read_parquet('{path}')"
        if self.kind in {"csv", "tsv"}:
            names = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in self.header)
            options = f"auto_detect = false, header = true, columns = {{{names}}}, delim = '{self.delimiter}'"
            options += f", quote = '\"', escape = '\"', max_line_size = {_LONGEST_LINE}"
            return f"read_csv('{path}', {options}, {compressed})"
        if self.kind == "txt":
            options = "auto_detect = false, header = false, columns = {url: 'VARCHAR'}, delim = e'\\x01'"
            lines = f"read_csv('{path}', {options}, quote = '', escape = '', {compressed})"
            return f"(SELECT url FROM {lines} WHERE trim(url) <> '')"
        return f"read_ndjson_objects('{path}', maximum_object_size = {_LONGEST_LINE}, {compressed})"


def _read_file(db: DuckDBPyConnection, source: UrlsSource, name: str, number: int, path: Path) -> None:
    import duckdb

    try:
        part = _Part(source, name, number, path)
        db.execute(_insertion(part, _columns(db, part)))
    except UnicodeDecodeError as error:
        raise SourceError(f"{name}: not UTF-8 near byte {error.start}; save the file as UTF-8") from error
    except (duckdb.Error, OSError, csv.Error) as error:
        if is_full(error):
            raise
        # DuckDB says what of our copy is wrong.
        told = str(error).replace(str(path), name).partition("Possible")[0].partition("LINE 1:")[0]
        told = " ".join(told.split())[:300].rstrip(". ")
        raise SourceError(f"{name}: cannot be read: {told}") from error


def _columns(db: DuckDBPyConnection, part: _Part) -> dict[str, str]:
    """Columns that the rows have, and their types; of JSON lines the keys of the first thousand objects."""
    if part.kind == "txt":
        return {"url": "VARCHAR"}
    if part.kind in {"jsonl", "ndjson"}:
        keys = f"SELECT unnest(json_keys(json)) AS name FROM (SELECT json FROM {part.scan} LIMIT 1000)"
        found = {
            str(name): "JSON" for (name,) in db.execute(f"SELECT DISTINCT name FROM ({keys}) ORDER BY 1").fetchall()
        }
        if not found:
            return {part.source.url_column: "JSON"}
    elif part.header:
        found = dict.fromkeys(part.header, "VARCHAR")
    else:
        found = {str(row[0]): str(row[1]) for row in db.execute(f"DESCRIBE SELECT * FROM {part.scan}").fetchall()}
    _require(part, found)
    return found


def _require(part: _Part, found: dict[str, str]) -> None:
    """Raise SourceError unless the columns that the config names are there."""
    source, asked = part.source, part.source.model_fields_set
    for key in ("url_column", "caption_column", "language_column", "license_column", "hash_column"):
        name = getattr(source, key)
        # A list without captions is a list all the same, unless somebody asked for theirs.
        optional = key == "caption_column" and key not in asked
        if name is not None and name not in found and not optional:
            raise SourceError(f"{part.name}: source.{key} = {name!r} is not one of its columns: {', '.join(found)}")


def _insertion(part: _Part, columns: dict[str, str]) -> str:
    source, scan = part.source, part.scan
    url, licence = _value(part, columns, source.url_column), _value(part, columns, source.license_column)
    digest, tag = _value(part, columns, source.hash_column), _value(part, columns, source.language_column)
    captions = _captions(part, columns, tag)
    extra = _extra(part, columns)
    name = part.name.replace("'", "''")
    return f"""
    INSERT INTO listed
    SELECT coalesce(nullif(url, ''), '{name}#' || row), {part.number}::BIGINT << 40 | row,
        nullif(url, ''), license, lower(digest), extra, {_refused(source)}, captions
    FROM (
        SELECT trim({url}, e' \\t\\r\\n\\xEF\\xBB\\xBF') AS url, {licence} AS license, trim({digest}) AS digest,
            coalesce({captions}, []) AS captions, nullif({extra}, '{{}}') AS extra,
            row_number() OVER () - 1 AS row
        FROM {scan}
    )
    """


def _value(part: _Part, columns: dict[str, str], name: str | None) -> str:
    """A column as text."""
    if name is None or name not in columns:
        return "NULL::VARCHAR"
    if columns[name] == "JSON" and part.kind != "parquet":
        return f"(json ->> {_path(name)})"
    if columns[name] != "VARCHAR":
        raise SourceError(f"{part.name}: column {name!r} is {columns[name]}; expected text")
    return _quoted(name)


def _captions(part: _Part, columns: dict[str, str], tag: str) -> str:
    name = part.source.caption_column
    if name is None or name not in columns:
        return "NULL"
    kind = columns[name]
    if kind == "JSON" and part.kind != "parquet":
        return _json_captions(f"json -> {_path(name)}", tag)
    column = _quoted(name)
    if kind == "VARCHAR":
        return f"CASE WHEN {column} IS NULL THEN [] ELSE [{{text: {column}, lang: {tag}}}] END"
    if kind == "VARCHAR[]":
        return f"[{{text: said, lang: {tag}}} FOR said IN {column} IF said IS NOT NULL]"
    if kind.startswith("STRUCT(") and kind.endswith("[]"):
        return _json_captions(f"to_json({column})", tag)
    expected = "text, a list of texts, or of text and lang"
    raise SourceError(f"{part.name}: source.caption_column = {name!r} is {kind}; expected {expected}")


def _json_captions(value: str, tag: str) -> str:
    """A string, or a list of strings and objects of text and lang; all else is said to be no caption."""
    wrong = "error('a caption should be text, a list of texts, or of text and lang; it is ' || left(item::VARCHAR, 80))"
    one = f"""
    CASE coalesce(json_type(item), 'NULL')
        WHEN 'NULL' THEN {{text: NULL, lang: NULL}}
        WHEN 'VARCHAR' THEN {{text: item ->> '$', lang: {tag}}}
        WHEN 'OBJECT' THEN {{text: item ->> 'text', lang: coalesce(item ->> 'lang', item ->> 'language', {tag})}}
        ELSE {wrong}
    END
    """
    said = f"""
    CASE json_type({value}) WHEN 'ARRAY' THEN from_json({value}, '["JSON"]') ELSE [{value}] END
    """
    return f"[each FOR each IN [{one} FOR item IN {said}] IF each.text IS NOT NULL]"


def _extra(part: _Part, columns: dict[str, str]) -> str:
    """Columns that have no meaning here, as one object; what is null or bytes is left out."""
    source = part.source
    known = {source.url_column, source.caption_column, source.language_column, source.license_column}
    known |= {source.hash_column}
    if part.kind == "txt":
        return "NULL::VARCHAR"
    if part.kind in {"jsonl", "ndjson"}:
        without = ", ".join(f"{_text(name)}, NULL" for name in sorted(name for name in known if name))
        return f"json_merge_patch('{{}}'::JSON, json_merge_patch(json, json_object({without})))::VARCHAR"
    others = sorted(name for name, kind in columns.items() if name not in known and "BLOB" not in kind)
    if not others:
        return "NULL::VARCHAR"
    fields = ", ".join(f"{_text(name)}, {_finite(name, columns[name])}" for name in others)
    return f"json_merge_patch('{{}}'::JSON, json_object({fields}))::VARCHAR"


def _finite(name: str, kind: str) -> str:
    """JSON has no NaN and no infinity."""
    column = _quoted(name)
    return f"CASE WHEN isfinite({column}) THEN {column} END" if kind in {"DOUBLE", "FLOAT"} else column


def _refused(source: UrlsSource) -> str:
    """The reason code of a row that is not asked for, else null."""
    allowed = ", ".join(_text(name.strip().lower()) for name in source.allow_licenses or ())
    licence = ""
    if source.allow_licenses is not None:
        inside = f"coalesce(lower(trim(license)) IN ({allowed}), false)" if allowed else "false"
        licence = f"WHEN NOT {inside} THEN 'license_not_allowed'"
    return f"""
    CASE
        WHEN url IS NULL OR url = '' OR length(url) > {_LONGEST_ADDRESS} THEN 'malformed_url'
        WHEN regexp_matches(url, '[\\x00-\\x1f\\x7f]') THEN 'malformed_url'
        WHEN NOT regexp_matches(url, '^[A-Za-z][A-Za-z0-9+.-]*:') THEN 'malformed_url'
        WHEN NOT regexp_matches(url, '^[Hh][Tt][Tt][Pp][Ss]?:') THEN 'unsupported_scheme'
        WHEN NOT regexp_matches(url, '^[A-Za-z]+://[^/?#\\s]') THEN 'malformed_url'
        {licence}
        WHEN digest <> '' AND NOT regexp_full_match(lower(digest), '{_DIGEST}') THEN 'malformed_hash'
    END
    """


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _path(name: str) -> str:
    """A key of an object, whatever it holds."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return _text(f'$."{escaped}"')
