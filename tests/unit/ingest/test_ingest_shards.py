"""Listing, cutting and reading a source, and the accounts of it."""

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.errors import SourceError
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Step
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, IMAGES, REJECTS, SAMPLES, sample_ids

SCHEMAS = {
    "samples": SAMPLES,
    "captions": CAPTIONS,
    "images": IMAGES,
    "rejects": REJECTS,
    "caption_rejects": CAPTION_REJECTS,
}


def build(root: Path, kind: str = "folder", size: int = 4, **source: Any) -> tuple[Dataset, BuildConfig]:
    raw = {"kind": kind, "path": str(root / "in"), **source}
    config = parse_config({"dataset": "d", "store": str(root / "store"), "shard_size": size, "source": raw})
    return Dataset(config.store, "d"), config


def folder(root: Path, n: int = 10, missing: int = 2) -> Path:
    (root / "in").mkdir(parents=True)
    for number in range(n):
        (root / f"in/{number:02d}.jpg").write_bytes(b"picture %d" % number)
    rows = [
        {
            "file": f"{number:02d}.jpg",
            "captions": [{"text": f"t{number}", "lang": "en"}, f"u{number}"],
            "license": "CC0",
        }
        for number in range(n + missing)
    ]
    captions = root / "captions.jsonl"
    captions.write_text("\n".join(map(json.dumps, rows)))
    return captions


def ingest(dataset: Dataset, config: BuildConfig) -> list[Shard]:
    return [ingest_shard(dataset, shard, config) for shard in list_source(dataset, config)]


def rows(dataset: Dataset, shards: list[Shard], table: str) -> list[dict[str, Any]]:
    return [row for shard in shards for row in dataset.read(shard, Step.RAW, table).to_pylist()]


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_pictures_captions_and_rejects_of_a_folder(tmp_path: Path) -> None:
    dataset, config = build(tmp_path, captions=str(folder(tmp_path)))
    shards = ingest(dataset, config)
    assert [(shard.name, shard.rows) for shard in shards] == [("00000", 4), ("00001", 4), ("00002", 4)]
    for shard in shards:
        for name, schema in SCHEMAS.items():
            assert dataset.read(shard, Step.RAW, name).schema.equals(schema)
    samples, images = rows(dataset, shards, "samples"), rows(dataset, shards, "images")
    assert [row["key"] for row in samples] == [f"{number:02d}.jpg" for number in range(10)]
    assert [row["id"] for row in samples] == sample_ids(
        [row["sha256"] for row in samples], [row["key"] for row in samples]
    )
    assert [row["image"] for row in images] == [b"picture %d" % number for number in range(10)]
    rejects = rows(dataset, shards, "rejects")
    assert [(row["key"], row["code"], row["outcome"]) for row in rejects] == [
        ("10.jpg", "missing_file", "rejected"), ("11.jpg", "missing_file", "rejected"),
    ]  # fmt: skip
    assert [row["id"] for row in rejects] == sample_ids(["", ""], ["10.jpg", "11.jpg"])
    last = dataset.manifest(shards[-1], Step.RAW)
    assert (last.samples.came, last.samples.kept, last.samples.rejected) == (4, 2, 2)
    assert (last.captions.came, last.captions.kept, last.captions.rejected) == (8, 4, 4)
    assert last.caption_reasons == {"missing_file": 4}


@settings(max_examples=12, deadline=None)
@given(size=st.integers(1, 15))
def test_shards_cut_at_any_size_hold_the_same(size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        captions = str(folder(Path(name)))
        whole, cut = (
            build(Path(name), captions=captions, size=100),
            build(Path(name), captions=captions, size=size),
        )
        assert all(shard.rows <= size for shard in list_source(*cut))
        one, many = ingest(*whole), ingest(*cut)
        for table in SCHEMAS:
            assert rows(whole[0], one, table) == rows(cut[0], many, table)


def test_the_same_pictures_elsewhere_give_the_same_tables(tmp_path: Path) -> None:
    there = []
    for place in (tmp_path / "a", tmp_path / "b/c"):
        dataset, config = build(place, captions=str(folder(place)))
        there.append([dataset.manifest(shard, Step.RAW).tables for shard in ingest(dataset, config)])
    assert there[0] == there[1]


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    dataset, config = build(tmp_path, captions=str(folder(tmp_path)))
    first, before = ingest(dataset, config), files(tmp_path / "store")
    assert ingest(dataset, config) == first
    assert files(tmp_path / "store") == before


def test_a_refused_source_writes_nothing(tmp_path: Path) -> None:
    captions = folder(tmp_path)
    with captions.open("a") as file:
        file.write('\n{"file": 3}')
    dataset, config = build(tmp_path, captions=str(captions))
    with pytest.raises(SourceError, match="line 13"):
        list_source(dataset, config)
    assert not (tmp_path / "store").exists()


def test_a_file_that_vanished_has_failed_and_is_read_again_alone(tmp_path: Path) -> None:
    dataset, config = build(tmp_path, captions=str(folder(tmp_path)))
    undisturbed = [dataset.manifest(shard, Step.RAW) for shard in ingest(dataset, config)]
    again, _ = build(tmp_path / "other")
    listed = list_source(again, config)
    lost = tmp_path / "in/05.jpg"
    data = lost.read_bytes()
    lost.unlink()
    shards = [ingest_shard(again, shard, config) for shard in listed]
    manifest = again.manifest(shards[1], Step.RAW)
    assert (manifest.samples.failed, manifest.captions.failed, manifest.open) == (1, 2, 1)
    reject = rows(again, shards, "rejects")[0]
    assert (reject["key"], reject["code"], reject["outcome"], reject["retryable"]) == (
        "05.jpg",
        "unreadable",
        "failed",
        True,
    )
    lost.write_bytes(data)
    for kept in ("04.jpg", "06.jpg", "07.jpg"):
        (tmp_path / "in" / kept).unlink()
    mended = [again.manifest(ingest_shard(again, shard, config), Step.RAW) for shard in listed]
    assert [found.tables for found in mended] == [found.tables for found in undisturbed]
    assert (mended[1].generation, mended[1].open) == (1, 0)


def test_a_picture_that_is_still_gone_stays_open(tmp_path: Path) -> None:
    dataset, config = build(tmp_path, captions=str(folder(tmp_path, missing=0)), size=100)
    [shard] = list_source(dataset, config)
    (tmp_path / "in/00.jpg").unlink()
    for generation in range(3):
        manifest = dataset.manifest(ingest_shard(dataset, shard, config), Step.RAW)
        assert (manifest.generation, manifest.open, manifest.samples.kept) == (generation, 1, 9)


def test_a_caption_said_twice_of_one_picture_is_rejected_once(tmp_path: Path) -> None:
    folder(tmp_path, n=1)
    captions = tmp_path / "twice.jsonl"
    said = [{"text": "x", "lang": "en"}, {"text": "x", "lang": "EN"}, {"text": "x"}, "", None]
    captions.write_text(json.dumps({"file": "00.jpg", "captions": said}))
    dataset, config = build(tmp_path, captions=str(captions))
    [shard] = ingest(dataset, config)
    kept = [(row["text"], row["lang"], row["origin"]) for row in rows(dataset, [shard], "captions")]
    assert kept == [("x", "en", "source"), ("x", None, "source"), ("", None, "source")]
    assert dataset.manifest(shard, Step.RAW).caption_reasons == {"repeated_caption": 1}


def test_an_empty_file_is_ingested_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.jpg").write_bytes(b"")
    dataset, config = build(tmp_path)
    assert rows(dataset, ingest(dataset, config), "images")[0]["image"] == b""


def tar(path: Path, **members: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_tars_are_listed_once_and_read_by_offset(tmp_path: Path) -> None:
    tar(tmp_path / "in/a.tar", x_jpg=b"1", x_txt=b"one", y_jpg=b"2")
    tar(tmp_path / "in/b.tar", x_jpg=b"other bytes, same key")
    dataset, config = build(tmp_path, "webdataset", size=2)
    shards = ingest(dataset, config)
    samples = rows(dataset, shards, "samples")
    assert [row["source"] for row in samples] == ["a.tar!x.jpg", "b.tar!x.jpg", "a.tar!y.jpg"]
    assert len({row["id"] for row in samples}) == 3
    before = files(tmp_path / "store")
    assert ingest(dataset, config) == shards
    assert files(tmp_path / "store") == before
    tar(tmp_path / "in/c.tar", z_jpg=b"3")
    assert sum(shard.rows for shard in list_source(dataset, config)) == 4


def test_two_rows_with_one_id_name_both_places(tmp_path: Path) -> None:
    tar(tmp_path / "in/a.tar", x_jpg=b"same", y_jpg=b"1")
    tar(tmp_path / "in/b.tar", x_jpg=b"same", y_jpg=b"2")
    dataset, config = build(tmp_path, "webdataset")
    with pytest.raises(SourceError, match=r"^a.tar!x.jpg and b.tar!x.jpg: two rows with one id"):
        list_source(dataset, config)
    assert not (tmp_path / "store").exists()


def test_a_damaged_tar_beside_a_whole_one_writes_nothing(tmp_path: Path) -> None:
    tar(tmp_path / "in/a.tar", x_jpg=b"1")
    (tmp_path / "in/b.tar").write_bytes((tmp_path / "in/a.tar").read_bytes()[:600])
    dataset, config = build(tmp_path, "webdataset")
    with pytest.raises(SourceError, match=r"b\.tar"):
        list_source(dataset, config)
    assert not (tmp_path / "store").exists()
