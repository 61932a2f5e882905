"""Tars: indexed by offset, whole or refused, and never unpacked."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmdata.config import WebdatasetSource
from vlmdata.errors import SourceError
from vlmdata.ingest.webdataset import fingerprint, list_rows, places, read_rows
from vlmdata.schema import LISTING


def tar(path: Path, *members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as error:
        list_rows(WebdatasetSource(path=str(path)))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_samples_are_what_the_webdataset_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "set-000.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(5):
            writer.write(
                {
                    "__key__": f"dir.x/{number}",
                    "jpg": bytes([number]) * number,
                    "txt": f"picture {number}",
                    "cls": 1,
                }
            )
    source = WebdatasetSource(path=str(tmp_path))
    rows = list_rows(source)
    assert rows.schema == LISTING
    theirs = {sample["__key__"]: sample["jpg"] for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    found, reasons = read_rows(source, rows)
    assert dict(zip(rows["key"].to_pylist(), found, strict=True)) == theirs
    assert reasons == [None] * 5
    assert [row["captions"] for row in rows.to_pylist()][3] == [{"text": "picture 3", "lang": None}]
    assert places(rows)[0] == "set-000.tar!dir.x/0.jpg"


@pytest.mark.parametrize("path", ["", "sub/b.tar", "*/b.tar", "**/b.tar", "sub/[b].tar"])
def test_a_folder_a_file_or_a_pattern(tmp_path: Path, path: str) -> None:
    tar(tmp_path / "sub/b.tar", ("x.jpg", b"1"))
    source = WebdatasetSource(path=f"{tmp_path}/{path}".rstrip("/"))
    assert read_rows(source, list_rows(source))[0] == [b"1"]


def test_json_says_more_than_text(tmp_path: Path) -> None:
    said = {
        "captions": [{"text": "un chat", "lang": "FR", "origin": "source", "score": 0.3}],
        "url": "u",
        "license": None,
        "key": "k",
    }
    tar(
        tmp_path / "a.tar",
        ("ours.txt", b"from the text"), ("ours.jpg", b"1"), ("ours.json", json.dumps(said).encode()),
        ("img2dataset.jpg", b"2"),
        ("img2dataset.json", b'{"caption": "a\\nb", "url": "v", "LICENSE": "CC0", "width": 3}'),
        ("labels.jpg", b"3"), ("labels.json", b"[1, 2]"), ("labels.txt", b"one\ntwo\n"),
    )  # fmt: skip
    rows = {row["key"]: row for row in list_rows(WebdatasetSource(path=str(tmp_path))).to_pylist()}
    assert rows["ours"]["captions"] == [{"text": "un chat", "lang": "fr"}]
    assert rows["img2dataset"]["captions"] == [{"text": "a\nb", "lang": None}]
    assert (rows["ours"]["url"], rows["img2dataset"]["license"]) == ("u", "CC0")
    assert [caption["text"] for caption in rows["labels"]["captions"]] == ["one", "two"]


def test_captions_without_a_picture_and_links_are_missing(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("x.jpg", b"1"), ("alone.txt", b"hello"), ("meta.json", b"{}"))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    rows = list_rows(WebdatasetSource(path=str(tmp_path)))
    assert dict(zip(rows["key"].to_pylist(), rows["missing"].to_pylist(), strict=True)) == {
        "alone": True, "link": True, "x": False,
    }  # fmt: skip


def test_no_picture_of_a_sample_is_lost_and_masks_are_none(tmp_path: Path) -> None:
    tar(
        tmp_path / "a.tar",
        ("x.jpg", b"1"),
        ("x.mask.png", b"2"),
        ("y.jpg", b"3"),
        ("y.webp", b"4"),
        ("z.left.jpg", b"5"),
    )
    source = WebdatasetSource(path=str(tmp_path))
    rows = list_rows(source)
    assert sorted(zip(rows["key"].to_pylist(), read_rows(source, rows)[0], strict=True)) == [
        ("x", b"1"), ("y", b"3"), ("y", b"4"), ("z", b"5"),
    ]  # fmt: skip


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    names = ["../../escape.jpg", "/abs/olute.jpg", "a/" + "long" * 80 + ".jpg", "ünï.jpg"]
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tar(tmp_path / f"in/{format}.tar", *((name, name.encode()) for name in names), format=format)
        source = WebdatasetSource(path=str(path))
        rows = list_rows(source)
        assert read_rows(source, rows)[0] == [name.encode() for name in rows["member"].to_pylist()]
    assert not (tmp_path / "escape.jpg").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(cut=st.integers(min_value=1, max_value=10_240))
def test_a_tar_cut_anywhere_in_its_content_is_refused(tmp_path: Path, cut: int) -> None:
    whole = tar(tmp_path / "whole/a.tar", *((f"{n}.jpg", bytes([n + 1]) * 700) for n in range(4))).read_bytes()
    content = len(whole.rstrip(b"\0"))
    short = tmp_path / "short/a.tar"
    short.parent.mkdir(exist_ok=True)
    short.write_bytes(whole[: min(cut, content - 1)])
    assert "a.tar: not a whole tar" in refused(short.parent)


def test_a_tar_cut_between_two_members_or_damaged_in_a_header_is_refused(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", ("a.jpg", b"1" * 512), ("b.jpg", b"2" * 512)).read_bytes()
    (tmp_path / "between.tar").write_bytes(whole[:1024])
    assert "without an end mark" in refused(tmp_path / "between.tar")
    (tmp_path / "damaged.tar").write_bytes(whole[:1024] + b"?" + whole[1025:])
    assert "after byte 1024" in refused(tmp_path / "damaged.tar")
    (tmp_path / "two.tar").write_bytes(whole + whole)
    assert "not a whole tar" in refused(tmp_path / "two.tar")


def test_what_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    assert "no .tar file found" in refused(tmp_path)
    path = tar(tmp_path / "in/a.tar", ("x.cls", b"1"))
    assert "no picture" in refused(path)
    (tmp_path / "z").mkdir()
    (tmp_path / "z/a.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert "compressed with gzip; decompress it" in refused(tmp_path / "z")
    (tmp_path / "empty.tar").write_bytes(b"")
    assert "not a whole tar" in refused(tmp_path / "empty.tar")
    said = refused(tar(tmp_path / "j.tar", ("x.jpg", b"1"), ("x.json", b"{")))
    assert said == "j.tar!x.json: not JSON"
    assert "x.txt: not UTF-8" in refused(tar(tmp_path / "t.tar", ("x.jpg", b"1"), ("x.txt", b"\xff")))


def test_a_tar_that_changed_since_it_was_listed_is_not_read_by_old_offsets(tmp_path: Path) -> None:
    source = WebdatasetSource(path=str(tmp_path))
    tar(tmp_path / "a.tar", ("x.jpg", b"1"))
    tar(tmp_path / "b.tar", ("y.jpg", b"2"))
    rows, before = list_rows(source), fingerprint(source)
    tar(tmp_path / "a.tar", ("w.jpg", b"0" * 600), ("x.jpg", b"1"))
    found, reasons = read_rows(source, rows)
    assert found == [None, b"2"] and reasons == ["the tar has changed since it was listed", None]
    assert fingerprint(source) != before
    (tmp_path / "a.tar").unlink()
    assert read_rows(source, rows)[1] == ["the tar is gone", None]


@pytest.mark.parametrize("pattern", ["", "/*.tar"])
def test_a_tar_that_is_a_link_to_outside_is_named_not_passed_over(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.tar").symlink_to(tmp_path / "elsewhere.tar")
    with pytest.raises(SourceError, match=r"in/b\.tar: a link that leads outside of the source, or to nothing"):
        list_rows(WebdatasetSource(path=f"{tmp_path}/in{pattern}"))
