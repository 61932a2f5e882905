"""Lists of addresses: every row is somewhere, in its order, however the list is written and cut."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.config import UrlsSource
from vlmdata.errors import SourceError
from vlmdata.ingest.url_list import SUFFIXES, fingerprint, list_parts
from vlmdata.schema import LISTING

Row = dict[str, Any]


def listed(path: Path, cut: int = 1000, **options: Any) -> list[Row]:
    """Rows of the listing, less what is null or false."""
    parts = [part for _, part in list_parts(UrlsSource(path=str(path), **options), cut)]
    assert all(part.schema == LISTING for part in parts)
    assert all(part.num_rows == cut for part in parts[:-1]) and 0 < parts[-1].num_rows <= cut
    rows = pa.concat_tables(parts).to_pylist()
    return [{name: value for name, value in row.items() if value not in (None, False)} for row in rows]


def write(path: Path, rows: Sequence[Row]) -> Path:
    """The rows in the format that the name asks for; all have the same keys but in JSON lines."""
    names = list(rows[0])
    lines = {
        ".jsonl": lambda: "\n".join(map(json.dumps, rows)),
        ".csv": lambda: "\n".join([",".join(names), *(",".join(map(quoted, row.values())) for row in rows)]) + "\n",
        ".tsv": lambda: "\n".join(["\t".join(names), *("\t".join(map(quoted, row.values())) for row in rows)]) + "\n",
        ".txt": lambda: "\n".join(row["url"] for row in rows),
    }
    suffix = path.name.removesuffix(".gz")[path.name.index(".") :]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        data = lines[suffix]().encode()
        path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def quoted(value: Any) -> str:
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'


def said(row: Row) -> list[tuple[str, str | None]]:
    return [(caption["text"], caption["lang"]) for caption in row["captions"]]


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".ndjson"])
def test_every_format_says_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [{"url": f"http://a.example/{n}.jpg?x=ü y", "caption": f'one, "two"\n{n}'} for n in range(5)]
    got = listed(write(tmp_path / f"list{suffix}", rows))
    assert [row["url"] for row in got] == [row["key"] for row in got] == [row["url"] for row in rows]
    if ".txt" not in suffix:
        assert [said(row) for row in got] == [[(row["caption"], None)] for row in rows]


def test_what_columns_mean(tmp_path: Path) -> None:
    row = {
        "link": " https://a.example/1.jpg\n",
        "words": [{"text": "eins", "lang": "DE"}, "two", None],
        "tongue": "en_us",
        "licence": "CC0-1.0",
        "sha": "AB" * 32,
        "width": 3,
        "about": {"by": ["x", None]},
        "empty": None,
    }
    names = {
        "url_column": "link",
        "caption_column": "words",
        "language_column": "tongue",
        "license_column": "licence",
        "hash_column": "sha",
    }
    [got] = listed(write(tmp_path / "a.jsonl", [row]), **names)
    assert got["url"] == "https://a.example/1.jpg" and got["license"] == "CC0-1.0" and got["sha256"] == "ab" * 32
    assert said(got) == [("eins", "de"), ("two", "en-US")]
    assert json.loads(got["extra"]) == {"width": 3, "about": {"by": ["x", None]}}


def test_parquet_keeps_what_it_can_of_further_columns(tmp_path: Path) -> None:
    rows = {"url": ["http://a/1", "http://a/2"], "b": [1.5, float("nan")], "a": [[1], None], "image": [b"x", b"y"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    first, second = listed(tmp_path / "a.parquet")
    assert first["extra"] == '{"a":[1],"b":1.5}' and "extra" not in second


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (pa.string(), "a", [("a", "fr")]),
        (pa.string(), None, []),
        (pa.list_(pa.string()), ["a", None, "b"], [("a", "fr"), ("b", "fr")]),
        (
            pa.list_(pa.struct([("text", pa.string()), ("lang", pa.string())])),
            [{"text": "a", "lang": "EN"}, {"text": None, "lang": "en"}, {"text": "b", "lang": None}],
            [("a", "en"), ("b", "fr")],
        ),
    ],
)
def test_captions_of_parquet(tmp_path: Path, type_: pa.DataType, value: Any, expected: list[Any]) -> None:
    columns = [pa.array(["http://a/1"]), pa.array([value], type_), pa.array(["fr"])]
    pq.write_table(pa.table(columns, names=["url", "caption", "lang"]), tmp_path / "a.parquet")
    [row] = listed(tmp_path / "a.parquet", language_column="lang")
    assert said(row) == expected


def test_an_address_that_is_listed_twice_is_one_sample_with_all_captions(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [{"url": "http://a/1", "caption": "one"}, {"url": "http://a/2", "caption": "two"}])
    write(tmp_path / "b.csv", [{"url": "http://a/3", "caption": "three"}, {"url": "http://a/1", "caption": "four"}])
    got = listed(tmp_path)
    assert [row["key"] for row in got] == ["http://a/1", "http://a/2", "http://a/3"]
    assert said(got[0]) == [("one", None), ("four", None)]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (None, "malformed_url"),
        ("", "malformed_url"),
        ("   ", "malformed_url"),
        ("example.org/a.jpg", "malformed_url"),
        ("//example.org/a.jpg", "malformed_url"),
        ("http://", "malformed_url"),
        ("http:///a.jpg", "malformed_url"),
        ("http://a/\x00.jpg", "malformed_url"),
        ("http://a/" + "x" * 9000, "malformed_url"),
        ("ftp://a/b.jpg", "unsupported_scheme"),
        ("data:image/png;base64,AA", "unsupported_scheme"),
        ("file:///etc/passwd", "unsupported_scheme"),
        ("HTTP://A.example/B.jpg", None),
    ],
)
def test_what_cannot_be_asked_stays_with_its_reason(tmp_path: Path, url: str | None, code: str | None) -> None:
    [row, good] = listed(write(tmp_path / "a.jsonl", [{"url": url, "caption": "x"}, {"url": "http://a/1"}]))
    assert row.get("refused") == code and "refused" not in good
    assert said(row) == [("x", None)] and row["key"] == ((url or "").strip() or "a.jsonl#0")


def test_licences_and_digests_are_looked_at(tmp_path: Path) -> None:
    licences = ["CC0", " cc0 ", "cc-by", None, ""]
    rows = [{"url": f"http://a/{n}", "lic": licence, "sha": ""} for n, licence in enumerate(licences)]
    digests = ["abc", "0" * 32, "F" * 64, "0" * 128, "0" * 40, "g" * 32]
    rows += [{"url": f"http://a/{at}", "lic": "CC0", "sha": digest} for at, digest in enumerate(digests, 9)]
    file = write(tmp_path / "a.jsonl", rows)
    got = listed(file, license_column="lic", allow_licenses=("cc0",), hash_column="sha")
    none = "license_not_allowed"
    wrong = "malformed_hash"
    of_digests = [wrong, None, None, None, wrong, wrong]
    assert [row.get("refused") for row in got] == [None, None, none, none, none, *of_digests]
    assert not any(row.get("refused") for row in listed(file, license_column="lic"))
    assert all(row.get("refused") == none for row in listed(file, license_column="lic", allow_licenses=()))


def test_of_two_rows_the_one_that_may_be_asked_for_counts(tmp_path: Path) -> None:
    rows = [
        {"url": "http://a/1", "lic": "no"},
        {"url": "http://a/2", "lic": "cc0"},
        {"url": "http://a/1", "lic": "cc0"},
    ]
    got = listed(write(tmp_path / "a.jsonl", rows), license_column="lic", allow_licenses=("cc0",))
    assert [(row["key"], row["license"]) for row in got] == [("http://a/2", "cc0"), ("http://a/1", "cc0")]


WRONG: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "no url column": (
        "a.csv",
        b"link,text\nhttp://a,b\n",
        {},
        r"a.csv: source.url_column = 'url' is .*: link, text",
    ),
    "none in JSON": ("a.jsonl", b'{"link": "http://a"}\n', {}, r"source.url_column = 'url' is not .*: link"),
    "a named column": (
        "a.csv",
        b"url\nhttp://a\n",
        {"caption_column": "t"},
        r"source.caption_column = 't' is not .*: url",
    ),
    "a language column": (
        "a.csv",
        b"url\nhttp://a\n",
        {"language_column": "l"},
        r"source.language_column = 'l' is not",
    ),
    "no row": ("a.csv", b"url,caption\n", {}, r"hold no row"),
    "nothing at all": ("a.csv", b"", {}, r"no line of column names"),
    "two alike": ("a.csv", b"url,url\na,b\n", {}, r"two columns are called 'url'"),
    "too many values": ("a.csv", b"url,caption\nhttp://a,b,c\n", {}, r"a.csv: cannot be read: .*Line: 2"),
    "not UTF-8": ("a.csv", b"url,caption\nhttp://a,\xff\n", {}, r"a.csv: not UTF-8 near byte"),
    "not UTF-8 further on": ("a.csv", b"url\n" + b"http://a\n" * 5000 + b"http://\xff\n", {}, r"a.csv: cannot be read"),
    "half an object": ("a.jsonl", b'{"url": "http://a"\n', {}, r"a.jsonl: cannot be read: .*JSON"),
    "a number": ("a.jsonl", b'{"url": "http://a", "caption": 3}\n', {}, r"a caption should be text, .*; it is 3"),
    "no parquet": ("a.parquet", b"PAR1", {}, r"a.parquet: cannot be read"),
    "no gzip": ("a.csv.gz", b"url\nhttp://a\n", {}, r"a.csv.gz: cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, case: str) -> None:
    name, data, options, words = WRONG[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=words) as told:
        listed(tmp_path / name, **options)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500 and "vlmdata-list" not in str(told.value)


def test_a_column_of_the_wrong_type_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet: column 'url' is BIGINT; expected text"):
        listed(tmp_path / "a.parquet")
    pq.write_table(pa.table({"url": ["http://a"], "caption": [1.5]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"source.caption_column = 'caption' is DOUBLE; expected text"):
        listed(tmp_path / "a.parquet")


def test_no_list_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(SourceError, match=r"no \.parquet file found|no such"):
            listed(path)


def test_names_and_values_are_no_sql(tmp_path: Path) -> None:
    evil = """x' OR 1=1; DROP TABLE listed; -- "]"""
    row = {"url": "http://a/1", evil: evil, "caption": evil, "lic": evil}
    file = write(tmp_path / "it's [1] $.jsonl", [row])
    [got] = listed(file, license_column="lic", allow_licenses=(evil,))
    assert said(got) == [(evil, None)] and json.loads(got["extra"]) == {evil: evil}
    [got] = listed(file, caption_column=evil, license_column=None)
    assert said(got) == [(evil, None)]
    pq.write_table(pa.table({"url": ["http://a/1"], evil: [evil]}), tmp_path / "b.parquet")
    [got] = listed(tmp_path / "b.parquet", caption_column=evil)
    assert said(got) == [(evil, None)]


def test_a_changed_list_is_another(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", [{"url": "http://a/1"}])
    before = fingerprint(UrlsSource(path=str(file)))
    write(file, [{"url": "http://a/1"}, {"url": "http://a/2"}])
    assert fingerprint(UrlsSource(path=str(file))) != before


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
lists = st.lists(st.tuples(st.sampled_from("abcdef"), st.lists(words, max_size=3)), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@given(rows=lists, cut=st.integers(1, 7), files=st.integers(1, 3))
def test_no_row_is_lost_and_the_order_stays(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[str]]], cut: int, files: int
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    for number in range(files):
        part = rows[number * len(rows) // files : (number + 1) * len(rows) // files]
        write(
            folder / f"{number}.jsonl", [{"url": f"http://a/{name}", "caption": texts} for name, texts in part] or [{}]
        )
    expected: dict[str, list[str]] = {}
    for name, texts in rows:
        expected.setdefault(f"http://a/{name}", []).extend(texts)
    got = [row for row in listed(folder, cut) if "refused" not in row]
    assert [(row["key"], [text for text, _ in said(row)]) for row in got] == list(expected.items())


def test_a_long_list_keeps_its_order(tmp_path: Path) -> None:
    n = 300_000
    (tmp_path / "a.csv").write_text("url,caption\n" + "".join(f"http://a/{i},c{i}\n" for i in range(n)))
    parts = [part for _, part in list_parts(UrlsSource(path=str(tmp_path / "a.csv")), 1000)]
    keys = pa.concat_tables(parts)["key"].to_pylist()
    assert keys == [f"http://a/{i}" for i in range(n)] and len(parts) == 300
