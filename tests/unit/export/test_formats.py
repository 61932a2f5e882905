"""Both formats are read by the field's own readers, every sample compared."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmdata.export import parquet, webdataset
from vlmdata.export.format import FOUND, Format
from vlmdata.export.pixels import Picture
from vlmdata.export.rows import row_digests, with_captions

Exported = Callable[[int], tuple[pa.Table, list[Picture]]]
FORMATS: list[Format] = [webdataset, parquet]


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_written_is_found_and_the_same_twice(exported: Exported, format_: Format) -> None:
    rows, pictures = exported(12)
    data = format_.write(rows, pictures)
    assert data == format_.write(*exported(12))
    found = format_.read_back(data)
    assert found.schema == FOUND
    assert found["id"].to_pylist() == rows["id"].to_pylist()
    assert found["sha256"].to_pylist() == [picture.sha256 for picture in pictures]
    assert found["captions"].to_pylist() == [2] * 12


@pytest.mark.parametrize("format_", FORMATS)
def test_a_flipped_bit_is_found(exported: Exported, format_: Format) -> None:
    rows, pictures = exported(3)
    data = bytearray(format_.write(rows, pictures))
    data[data.index(pictures[1].data) + len(pictures[1].data) // 2] ^= 1
    found = format_.read_back(bytes(data))
    same = [a == b.sha256 for a, b in zip(found["sha256"].to_pylist(), pictures, strict=True)]
    assert same == [True, False, True]


@pytest.mark.parametrize("format_", FORMATS)
def test_no_samples_make_a_file_of_none(exported: Exported, format_: Format) -> None:
    rows, _ = exported(1)
    assert format_.read_back(format_.write(rows.slice(0, 0), [])).num_rows == 0


def test_webdataset_reads_the_tar(exported: Exported, tmp_path: Path) -> None:
    import webdataset as wds

    rows, pictures = exported(9)
    file = tmp_path / "00000.tar"
    file.write_bytes(webdataset.write(rows, pictures))
    read = list(
        wds.WebDataset(str(file), shardshuffle=False)
        .decode("pilrgb")
        .to_tuple("__key__", "jpg;png;webp", "txt", "json")
    )
    assert [key for key, *_ in read] == rows["id"].to_pylist()
    for (_, image, text, story), row, picture in zip(read, rows.to_pylist(), pictures, strict=True):
        with Image.open(io.BytesIO(picture.data)) as ours:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(ours.convert("RGB")))
        assert text == row["caption"] and text.startswith("a better picture")
        assert (story["width"], story["height"]) == image.size
        assert [caption["text"] for caption in story["captions"]] == [c["text"] for c in row["captions"]]


def test_open_clip_s_training_reader_reads_the_tar(exported: Exported, tmp_path: Path) -> None:
    from open_clip_train.data import get_wds_dataset

    rows, pictures = exported(6)
    file = tmp_path / "00000.tar"
    file.write_bytes(webdataset.write(rows, pictures))
    options = SimpleNamespace(val_data=str(file), val_num_samples=6, batch_size=2, workers=0)
    data = get_wds_dataset(options, lambda image: image.size, is_train=False, tokenizer=lambda text: [text])
    texts, sizes = [], []
    for batch in data.dataloader:
        sizes += [tuple(map(int, size)) for size in batch[0]]
        texts += list(batch[1])
    assert texts == rows["caption"].to_pylist()
    assert sizes == [(picture.width, picture.height) for picture in pictures]


def test_the_tar_tells_provenance_and_scores_and_nothing_of_this_machine(exported: Exported) -> None:
    rows, pictures = exported(2)
    with tarfile.open(fileobj=io.BytesIO(webdataset.write(rows, pictures))) as tar:
        members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        opened = tar.extractfile(next(m for m in members if m.name.endswith(".json")))
        assert opened is not None
        text = opened.read().decode()
    story = json.loads(text)
    assert list(story) == sorted(story)
    assert story["phash"] == f"{rows['phash'][0].as_py():016x}"
    assert [caption["score"] for caption in story["captions"]] == [0.25, 0.35] and '"score": 0.35,' in text
    assert {caption["model"] for caption in story["captions"]} == {"ViT-B-32:abc"}
    assert story["sha256"] == rows["sha256"][0].as_py() and story["license"] == "CC0-1.0" and story["url"] is None


def test_the_tar_s_offsets_lead_to_the_pictures(exported: Exported) -> None:
    rows, pictures = exported(5)
    data = webdataset.write(rows, pictures)
    for offset, picture in zip(webdataset.read_back(data)["offset"].to_pylist(), pictures, strict=True):
        assert data[offset : offset + len(picture.data)] == picture.data


def test_datasets_reads_the_parquet_with_a_real_image_feature(exported: Exported, tmp_path: Path) -> None:
    import datasets

    rows, pictures = exported(7)
    file = tmp_path / "00000.parquet"
    file.write_bytes(parquet.write(rows, pictures))
    loaded = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["image"], datasets.Image)
    assert len(loaded) == 7
    for read, row, picture in zip(loaded, rows.to_pylist(), pictures, strict=True):
        with Image.open(io.BytesIO(picture.data)) as ours:
            np.testing.assert_array_equal(np.asarray(read["image"]), np.asarray(ours))
        assert read["captions"] == row["captions"]
        assert [read[name] for name in ("id", "key", "caption", "license")] == [
            row[name] for name in ("id", "key", "caption", "license")
        ]
        assert (read["width"], read["height"]) == read["image"].size
        assert read["phash"] == f"{row['phash']:016x}"


def test_row_groups_are_small(exported: Exported) -> None:
    rows, pictures = exported(1)
    many = pa.concat_tables([rows] * 230)
    file = pq.ParquetFile(io.BytesIO(parquet.write(many, pictures * 230)))
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [100, 100, 30]


def _one_sample(
    rows: pa.Table, texts: list[str], scores: list[float | None], printed: list[bool | None] | None = None
) -> pa.Table:
    sample = rows.slice(0, 1).drop_columns(["caption", "captions"])
    count = len(texts)
    captions = pa.table(
        {
            "id": pa.array([sample["id"][0].as_py()] * count, pa.string()),
            "text": pa.array(texts, pa.string()),
            "lang": pa.nulls(count, pa.string()),
            "origin": pa.array(["source"] * count, pa.string()),
            "score": pa.array(scores, pa.float32()),
            "model": pa.nulls(count, pa.string()),
            "printed_text": pa.array(printed or [None] * count, pa.bool_()),
        }
    )
    return with_captions(sample, captions)


def test_the_best_caption_is_the_highest_the_first_of_equals_and_scored_before_unscored(
    exported: Exported,
) -> None:
    rows, _ = exported(1)
    scores: list[float | None] = [None, 0.3, 0.4, 0.4, float("nan")]
    assert _one_sample(rows, list("abcde"), scores)["caption"].to_pylist() == ["c"]
    assert _one_sample(rows, list("ab"), [None, None])["caption"].to_pylist() == ["a"]
    assert _one_sample(rows, [], [])["caption"].to_pylist() == [None]


def test_a_sample_without_captions_has_no_text_file(exported: Exported) -> None:
    rows, pictures = exported(1)
    bare = _one_sample(rows, [], [])
    with tarfile.open(fileobj=io.BytesIO(webdataset.write(bare, pictures))) as tar:
        assert [name.split(".")[1] for name in tar.getnames()] == [pictures[0].extension, "json"]
    assert parquet.read_back(parquet.write(bare, pictures))["captions"].to_pylist() == [0]


def test_a_mark_goes_out_with_its_caption(exported: Exported) -> None:
    rows, pictures = exported(1)
    marked = _one_sample(rows, ["a", "b", "c"], [0.1, 0.2, 0.3], [True, False, None])
    table = pq.read_table(io.BytesIO(parquet.write(marked, pictures)))
    assert [caption["printed_text"] for caption in table["captions"][0].as_py()] == [True, False, None]
    with tarfile.open(fileobj=io.BytesIO(webdataset.write(marked, pictures))) as tar:
        story = json.loads(tar.extractfile(f"{rows['id'][0]}.json").read())  # type: ignore[union-attr]
    assert [caption["printed_text"] for caption in story["captions"]] == [True, False, None]


def test_a_digest_changes_with_anything_that_is_exported(exported: Exported) -> None:
    rows, _ = exported(1)
    seen = {row_digests(_one_sample(rows, ["ab", "c"], [0.1, 0.2]))[0].as_py()}
    others = [
        _one_sample(rows, ["a", "bc"], [0.1, 0.2]),
        _one_sample(rows, ["ab", "c"], [0.1, 0.3]),
        _one_sample(rows, ["ab", "c"], [0.1, None]),
        _one_sample(rows, ["c", "ab"], [0.2, 0.1]),
        _one_sample(rows, ["ab"], [0.1]),
        _one_sample(rows, ["ab", "c"], [0.1, 0.2], [True, None]),
        _one_sample(rows, ["ab", "c"], [0.1, 0.2], [False, None]),
        _one_sample(rows, [], []),
    ]
    changed = rows.slice(0, 1)
    position = changed.column_names.index("url")
    others.append(changed.set_column(position, changed.field("url"), pa.array(["http://x"], pa.string())))
    digests = [row_digests(other)[0].as_py() for other in others]
    assert len(seen.union(digests)) == len(others) + 1


def test_a_digest_does_not_depend_on_the_rows_around_it(exported: Exported) -> None:
    rows, _ = exported(6)
    whole = row_digests(rows).to_pylist()
    assert [row_digests(rows.slice(index, 1))[0].as_py() for index in range(6)] == whole
