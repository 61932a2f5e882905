"""A folder of pictures and its captions, with everything that strangers put there."""

import csv
import json
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmdata.config import FolderSource
from vlmdata.errors import SourceError
from vlmdata.ingest.captions import language, parse_captions, text_captions
from vlmdata.ingest.folder import list_rows, read_rows
from vlmdata.schema import LISTING


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "a").mkdir(parents=True)
    for name in ("a/b.jpg", "a/c.PNG", "d.webp"):
        (root / name).write_bytes(name.encode())
    return root


def listed(root: Path, captions: Path | None = None) -> dict[str, dict]:
    table = list_rows(FolderSource(path=str(root), captions=str(captions) if captions else None))
    assert table.schema == LISTING
    keys = table["key"].to_pylist()
    assert keys == sorted(keys)
    return {row["key"]: row for row in table.to_pylist()}


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def refused(root: Path, captions: Path | None = None) -> str:
    with pytest.raises(SourceError) as error:
        listed(root, captions)
    message = str(error.value)
    assert "\n" not in message
    return message


def texts(row: dict) -> list[tuple[str, str | None]]:
    return [(caption["text"], caption["lang"]) for caption in row["captions"] or []]


def test_pictures_are_found_by_suffix_and_by_caption_and_nothing_hidden(pictures: Path) -> None:
    for name in ("notes.txt", "a/b.json", ".hidden.jpg", "odd.bin"):
        (pictures / name).write_bytes(b"x")
    (pictures / ".cache").mkdir()
    (pictures / ".cache/e.jpg").write_bytes(b"x")
    captions = jsonl(pictures / "captions.jsonl", {"file": "./a/b.jpg", "caption": "x"}, {"file": "odd.bin"})
    rows = listed(pictures, captions)
    assert set(rows) == {"a/b.jpg", "a/c.PNG", "d.webp", "odd.bin"}
    assert texts(rows["a/b.jpg"]) == [("x", None)]
    assert texts(rows["d.webp"]) == []


def test_bytes_come_back_as_they_are_and_a_lost_file_says_why(pictures: Path) -> None:
    source = FolderSource(path=str(pictures))
    (pictures / "empty.jpg").write_bytes(b"")
    rows = list_rows(source)
    (pictures / "a/c.PNG").unlink()
    found, reasons = read_rows(source, rows)
    assert found == [b"a/b.jpg", None, b"d.webp", b""]
    assert [reason is None for reason in reasons] == [True, False, True, True]


def test_a_folder_behind_fsspec_lists_and_reads_alike(pictures: Path) -> None:
    import fsspec

    root = f"memory://{uuid.uuid4().hex}/in"
    (pictures / "a[1].jpg").write_bytes(b"brackets")
    (pictures / "d.txt").write_text("a bird")
    fsspec.filesystem("memory").put(f"{pictures}/", root, recursive=True)
    local, remote = FolderSource(path=str(pictures)), FolderSource(path=root)
    here, there = list_rows(local), list_rows(remote)
    assert here.drop(["version"]).equals(there.drop(["version"]))
    assert read_rows(local, here) == read_rows(remote, there)


def test_a_remote_folder_that_is_not_there_is_one_line() -> None:
    with pytest.raises(SourceError, match="no such folder"):
        list_rows(FolderSource(path=f"memory://{uuid.uuid4().hex}"))


@pytest.mark.parametrize(
    "file",
    ["/etc/hostname", "../secret.jpg", "a/../../secret.jpg", "link.jpg", "linked/secret.jpg", "x\0.jpg"],
)
def test_nothing_outside_the_folder_is_ever_read(pictures: Path, tmp_path: Path, file: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for secret in (tmp_path / "secret.jpg", outside / "secret.jpg"):
        secret.write_bytes(b"secret")
    os.symlink(tmp_path / "secret.jpg", pictures / "link.jpg")
    os.symlink(outside, pictures / "linked")
    rows = listed(
        pictures,
        jsonl(tmp_path / "c.jsonl", {"file": file, "caption": "x"}, {"file": "d.webp", "caption": "y"}),
    )
    missing = [row for row in rows.values() if row["missing"]]
    assert {row["key"] for row in missing} == {os.path.normpath(file), "link.jpg"}
    assert texts(rows[os.path.normpath(file)]) == [("x", None)]
    source = FolderSource(path=str(pictures))
    found, reasons = (
        read_rows(source, pa.Table.from_pylist(missing, schema=LISTING)) if "\0" not in file else ([None], ["x"])
    )
    assert not any(found) and all(reasons)


@pytest.mark.parametrize("captioned", [False, True])
def test_a_link_to_outside_or_to_nothing_is_listed_as_missing(pictures: Path, tmp_path: Path, captioned: bool) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (pictures / "inside.txt").write_text("hello")
    for name, target in {
        "out.jpg": tmp_path / "secret.jpg",
        "out.txt": tmp_path / "secret.txt",
        "a/dangling.jpg": pictures / "gone.jpg",
        "loop.jpg": pictures / "loop.jpg",
        "inside.jpg": pictures / "d.webp",
        "folder": tmp_path,
        ".hidden.jpg": tmp_path / "secret.jpg",
    }.items():
        os.symlink(target, pictures / name)
    captions = jsonl(tmp_path / "c.jsonl", {"file": "inside.jpg", "caption": "hello"}) if captioned else None
    rows = listed(pictures, captions)
    assert {key for key, row in rows.items() if row["missing"]} == {"a/dangling.jpg", "loop.jpg", "out.jpg"}
    assert texts(rows["out.jpg"]) == []
    assert texts(rows["inside.jpg"]) == [("hello", None)]
    assert [rows["out.jpg"][name] for name in ("location", "size", "version")] == ["out.jpg", None, None]
    assert rows["inside.jpg"]["size"] == len(b"d.webp")


def test_a_folder_of_nothing_but_lost_links_is_refused(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone", tmp_path / "a.jpg")
    assert "each of its 1 pictures is a link that leads outside" in refused(tmp_path)


@pytest.mark.parametrize("name", ["c.jsonl\0.csv", "a\0b/c.csv"])
def test_a_path_with_a_nul_is_one_line(pictures: Path, tmp_path: Path, name: str) -> None:
    assert "no such folder" in refused(tmp_path / "gone")
    for message in (refused(tmp_path / "a\0b"), refused(pictures, tmp_path / name)):
        assert message.isprintable() and "\\x00" in message


def test_a_link_within_the_folder_is_followed(pictures: Path) -> None:
    os.symlink(pictures / "d.webp", pictures / "same.webp")
    rows = listed(pictures)
    assert rows["same.webp"]["size"] == len(b"d.webp")


def test_a_pipe_named_as_a_picture_is_not_opened(pictures: Path) -> None:
    os.mkfifo(pictures / "pipe.jpg")
    assert "pipe.jpg" not in listed(pictures)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_kind_of_caption_file_says_the_same(pictures: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"captions.{kind}"
    said = [("a/b.jpg", "a cat, a hat", "en"), ("a/b.jpg", "eine Katze", "de"), ("d.webp", "", None)]
    if kind == "jsonl":
        jsonl(
            path,
            "\ufeff"
            + json.dumps(
                {
                    "file": "a/b.jpg",
                    "captions": [{"text": t, "lang": la} for _, t, la in said[:2]],
                    "url": "u",
                }
            ),
            "",
            {"file": "d.webp", "caption": "", "license": "CC0", "extra": [1]},
        )
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "text", "lang", "license", "url"])
            writer.writerows([*(said[0] + ("", "u"), said[1] + ("", "")), ("d.webp", "", "", "CC0", "")])
    else:
        captions = [[{"text": t, "lang": la} for _, t, la in said[:2]], [{"text": "", "lang": None}]]
        table = {
            "file": ["a/b.jpg", "d.webp"],
            "captions": captions,
            "license": [None, "CC0"],
            "url": ["u", None],
        }
        pq.write_table(pa.table(table), path)
    rows = listed(pictures, path)
    assert texts(rows["a/b.jpg"]) == [("a cat, a hat", "en"), ("eine Katze", "de")]
    assert texts(rows["d.webp"]) == [("", None)]
    assert (rows["a/b.jpg"]["url"], rows["d.webp"]["license"]) == ("u", "CC0")


def test_text_beside_a_picture_is_a_caption_a_line(pictures: Path) -> None:
    (pictures / "a/b.txt").write_text("\ufeffone\r\n\n  two \n", encoding="utf-8")
    (pictures / "d.txt").write_text("\n")
    rows = listed(pictures)
    assert texts(rows["a/b.jpg"]) == [("one", None), ("two", None)]
    assert texts(rows["d.webp"]) == [("", None)]
    assert texts(rows["a/c.PNG"]) == []
    (pictures / "a/c.txt").write_bytes(b"\xff\xfe\xff")
    assert "a/c.txt" in refused(pictures)


def test_a_caption_row_without_its_file_is_listed_as_missing(pictures: Path, tmp_path: Path) -> None:
    rows = listed(pictures, jsonl(tmp_path / "c.jsonl", {"file": "gone.jpg", "caption": "x"}, {"file": "d.webp"}))
    assert [key for key, row in rows.items() if row["missing"]] == ["gone.jpg"]
    assert texts(rows["gone.jpg"]) == [("x", None)]


def test_only_if_every_caption_row_is_without_its_file_is_the_source_refused(pictures: Path, tmp_path: Path) -> None:
    message = refused(pictures, jsonl(tmp_path / "c.jsonl", {"file": "x.jpg"}, {"file": "y.jpg"}))
    assert message.startswith(f"none of the 2 files named in c.jsonl is under {pictures}; first: 'x.jpg'")


def test_two_rows_for_one_file_name_both_lines(pictures: Path, tmp_path: Path) -> None:
    rows = [{"file": "d.webp"}, "", {"file": "a/b.jpg"}, {"file": "./d.webp"}]
    message = refused(pictures, jsonl(tmp_path / "captions.jsonl", *rows))
    assert message.startswith("captions.jsonl line 4: 'd.webp' already stands in line 1; put all captions")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"caption": "x"}', "file = None"),
        ('{"file": 3}', "file = 3"),
        ('{"file": "d.webp", "caption": 3}', "3 should be a string"),
        ('{"file": "d.webp", "captions": [{"text": "x", "lang": 7}]}', "lang = 7"),
        ('{"file": "d.webp", "license": []}', "license = []"),
    ],
)
def test_a_wrong_line_is_named_with_what_was_expected(pictures: Path, tmp_path: Path, line: str, said: str) -> None:
    message = refused(pictures, jsonl(tmp_path / "captions.jsonl", {"file": "a/b.jpg"}, line))
    assert message.startswith("captions.jsonl line 2: ")
    assert said in message and "expected" in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.jsonl", None, "no such file"),
        ("c.jsonl", b'{"file": "\xff"}', "not UTF-8"),
        ("c.csv", b"file,caption\n\xff,x\n", "not UTF-8"),
        ("c.csv", b"name,caption\n", "it has name, caption"),
        ("c.csv", b"file,caption\nd.webp,a,b\n", "line 2: more or fewer fields"),
        ("c.csv", b'file,caption\nd.webp,"open\n', "not CSV"),
        ("c.parquet", b"PAR1", "cannot be read"),
        ("c.xlsx", b"", "expected a file ending in .jsonl"),
    ],
)
def test_a_caption_file_that_cannot_be_used_is_one_line(
    pictures: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    message = refused(pictures, tmp_path / name)
    assert name in message and said in message


def test_a_caption_file_that_is_a_folder_is_one_line(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").mkdir()
    assert "source.captions" in refused(pictures, tmp_path / "c.jsonl")


def test_missing_and_empty_folders_are_one_line(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "gone")
    assert "no picture found" in refused(tmp_path)
    (tmp_path / "file.jpg").write_bytes(b"x")
    assert "no such folder" in refused(tmp_path / "file.jpg")


def test_a_file_name_that_is_not_utf8_is_named(pictures: Path) -> None:
    (Path(os.fsdecode(os.fsencode(pictures) + b"/\xff.jpg"))).write_bytes(b"x")
    assert r"'\\xff.jpg' is not UTF-8" in refused(pictures)


@pytest.mark.parametrize(
    ("given", "tag"),
    [("EN", "en"), (" pt_br ", "pt-BR"), ("zh-hans-cn", "zh-Hans-CN"), ("", None), (None, None)],
)
def test_languages_are_cased_as_bcp_47_says(given: str | None, tag: str | None) -> None:
    assert language(given) == tag


def test_a_null_caption_is_none_and_an_empty_one_is_one() -> None:
    assert parse_captions([None, {"text": None, "lang": "en"}, ""], "de") == [{"text": "", "lang": "de"}]
    assert parse_captions(None, None) == []
    assert text_captions(b"") == [{"text": "", "lang": None}]
