"""Each format is read by the field's own reader, every sample compared; MDS, whose reader lives apart, elsewhere."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vlmdata.errors import BrokenInvariant, ConfigError
from vlmdata.export import llava, mds, parquet, webdataset
from vlmdata.export.format import FOUND, Format, Found, WithIndex
from vlmdata.export.formats import FORMATS, check_formats
from vlmdata.export.pixels import Picture
from vlmdata.export.rows import row_digests, with_captions

Exported = Callable[[int], tuple[pa.Table, list[Picture]]]


@pytest.fixture(params=list(FORMATS))
def format_(request: pytest.FixtureRequest) -> Format:
    """Each format in turn."""
    return FORMATS[request.param]


def written(format_: Format, rows: pa.Table, pictures: list[Picture], shard: str = "00000") -> dict[str, bytes]:
    """The files of a shard, that which stands for it last."""
    return {file.path: bytes(file.data) for file in format_.write(rows, pictures, shard)}


def read(format_: Format, files: dict[str, bytes]) -> Found:
    """A shard's files read back."""
    return format_.read_back(list(files)[-1], lambda path: pa.py_buffer(files[path]))


def alone(format_: Format, rows: pa.Table, pictures: list[Picture]) -> bytes:
    """The one file of a shard."""
    [data] = written(format_, rows, pictures).values()
    return data


def put(format_: Format, folder: Path, rows: pa.Table, pictures: list[Picture]) -> list[dict[str, Any]]:
    """Two shards and the index over them in a folder; returns the facts of the shards."""
    facts, half = [], len(pictures) // 2
    for number, (part, theirs) in enumerate([(rows[:half], pictures[:half]), (rows[half:], pictures[half:])]):
        files = written(format_, part, theirs, f"{number:05d}")
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        own = {"path": list(files)[-1], "bytes": len(data), "sha256": sha256(data).hexdigest(), "samples": len(theirs)}
        facts.append(own)
    if isinstance(format_, WithIndex):
        (folder / format_.INDEX).parent.mkdir(parents=True, exist_ok=True)
        (folder / format_.INDEX).write_bytes(_index(format_, folder, facts))
    return facts


def _index(format_: WithIndex, folder: Path, facts: list[dict[str, Any]]) -> bytes:
    return b"".join(format_.index(facts, lambda path: pa.py_buffer((folder / path).read_bytes())))


def test_what_is_written_is_found_and_the_same_twice(exported: Exported, format_: Format) -> None:
    rows, pictures = exported(12)
    files = written(format_, rows, pictures)
    assert files == written(format_, *exported(12))
    found = read(format_, files)
    assert found.rows.schema == FOUND
    assert found.rows["id"].to_pylist() == rows["id"].to_pylist()
    assert [one.to_pybytes() for one in found.pictures] == [picture.data for picture in pictures]
    assert found.rows["captions"].to_pylist() == [2] * 12


def test_it_is_found_where_the_rows_say(exported: Exported, format_: Format) -> None:
    rows, pictures = exported(5)
    files = written(format_, rows, pictures)
    for row, picture in zip(read(format_, files).rows.to_pylist(), pictures, strict=True):
        data = files[row["file"]]
        if row["file"].endswith((".parquet", ".lance")):
            assert rows["id"][row["offset"]].as_py() == row["id"]
        else:
            assert data[row["offset"] : row["offset"] + len(picture.data)] == picture.data


def test_a_flipped_bit_is_found(exported: Exported, format_: Format) -> None:
    rows, pictures = exported(3)
    files = written(format_, rows, pictures)
    [path] = [path for path, data in files.items() if pictures[1].data in data]
    data = bytearray(files[path])
    data[data.index(pictures[1].data) + len(pictures[1].data) // 2] ^= 1
    found = read(format_, {**files, path: bytes(data)})
    same = [one.to_pybytes() == picture.data for one, picture in zip(found.pictures, pictures, strict=True)]
    assert same == [True, False, True]


def test_no_samples_make_a_file_of_none(exported: Exported, format_: Format) -> None:
    rows, _ = exported(1)
    assert read(format_, written(format_, rows.slice(0, 0), [])).rows.num_rows == 0


def test_an_index_is_the_same_twice_and_there_may_be_no_shard(
    exported: Exported, format_: Format, tmp_path: Path
) -> None:
    facts = put(format_, tmp_path, *exported(4))
    if isinstance(format_, WithIndex):
        assert _index(format_, tmp_path, facts) == _index(format_, tmp_path, facts)
        assert _index(format_, tmp_path, [])


@given(data=st.binary(max_size=400))
def test_whatever_is_no_shard_is_refused_or_empty(data: bytes) -> None:
    """An export comes from strangers: a reader may raise, and nothing worse."""
    for name, format_ in FORMATS.items():
        if name == "lance":
            continue  # its reader is another project's; `verify` has its bytes hashed before it sees them
        try:
            found = format_.read_back("00000", lambda _: pa.py_buffer(data))
        except Exception as error:
            assert str(error) or type(error).__name__
        else:
            assert found.rows.num_rows == 0


def test_webdataset_reads_the_tar(exported: Exported, tmp_path: Path) -> None:
    import webdataset as wds

    rows, pictures = exported(9)
    file = tmp_path / "00000.tar"
    file.write_bytes(alone(webdataset, rows, pictures))
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


def test_open_clip_s_training_reader_reads_the_tars(
    exported: Exported, source: Callable[[int], dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes how much there is from sizes.json; shuffled to train, in order to validate.

    Its pixels are those of the source's own picture, where the stream was passed on or no pixel was lost.
    """
    from open_clip_train import data as open_clip_s
    from open_clip_train.data import get_dataset_size, get_wds_dataset

    # It asks for webdataset up to 0.2.86, which marks no ends of shards; with later ones it reads nobody's tars.
    unmarked = partial(open_clip_s.tar_file_expander, eof_value=None)
    monkeypatch.setattr(open_clip_s, "tar_file_expander", unmarked)
    rows, pictures = exported(6)
    put(webdataset, tmp_path, rows, pictures)
    shards = str(tmp_path / "{00000..00001}.tar")
    assert get_dataset_size(shards) == (6, 2)
    turned = [picture.reencoded for picture in pictures]
    assert turned == [False, False, False, False, True, False] and pictures[4].extension == "png"
    expected = list(zip(rows["caption"].to_pylist(), map(_upright_pixels, source(6).values()), strict=True))
    assert len(set(expected)) == 6
    for is_train in (True, False):
        options = SimpleNamespace(
            train_data=shards,
            train_num_samples=None,
            train_data_upsampling_factors=None,
            val_data=shards,
            val_num_samples=None,
            dataset_resampled=False,
            seed=1,
            batch_size=2,
            workers=1 if is_train else 0,
            world_size=1,
        )
        data = get_wds_dataset(options, _pixels, is_train=is_train, tokenizer=lambda text: [text])
        read = [(text, told) for batch, texts in data.dataloader for text, told in zip(texts, batch, strict=True)]
        assert (sorted(read), data.dataloader.num_samples) == (sorted(expected), 6) if is_train else read == expected


def _pixels(image: Image.Image) -> str:
    """Mode, size and every pixel of a picture: as words, since pictures of many sizes make no batch of arrays."""
    return f"{image.mode} {image.width} x {image.height} {sha256(image.tobytes()).hexdigest()}"


def _upright_pixels(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return _pixels(ImageOps.exif_transpose(image).convert("RGB"))


def test_the_tar_tells_provenance_and_scores_and_nothing_of_this_machine(exported: Exported) -> None:
    rows, pictures = exported(2)
    with tarfile.open(fileobj=io.BytesIO(alone(webdataset, rows, pictures))) as tar:
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


@given(name=st.text("abcdef0123456789.", min_size=1, max_size=100), size=st.integers(0, 8**11 - 1))
def test_a_header_is_what_the_standard_library_makes(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    assert webdataset._header(name, size) == member.tobuf(tarfile.USTAR_FORMAT)


def test_what_a_header_cannot_hold_is_refused() -> None:
    for name, size in (("a" * 101, 0), ("a", 8**11)):
        with pytest.raises(BrokenInvariant, match="a tar cannot hold"):
            webdataset._header(name, size)


def test_datasets_reads_the_parquet_with_a_real_image_feature(exported: Exported, tmp_path: Path) -> None:
    import datasets

    rows, pictures = exported(7)
    file = tmp_path / "00000.parquet"
    file.write_bytes(alone(parquet, rows, pictures))
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


def test_lance_reads_the_set(exported: Exported, tmp_path: Path) -> None:
    import lance as field_s

    rows, pictures = exported(9)
    put(FORMATS["lance"], tmp_path, rows, pictures)
    loaded = field_s.dataset(tmp_path)
    loaded.validate()
    assert (loaded.count_rows(), len(loaded.get_fragments()), loaded.version) == (9, 2, 1)
    table = loaded.to_table()
    assert table["image"].to_pylist() == [picture.data for picture in pictures]
    for name in ("id", "key", "caption", "captions", "license", "sha256"):
        assert table[name].to_pylist() == rows[name].to_pylist()
    assert table["phash"].to_pylist() == [f"{value:016x}" for value in rows["phash"].to_pylist()]
    assert table["width"].to_pylist() == [picture.width for picture in pictures]
    assert loaded.take([7, 1], columns=["id"])["id"].to_pylist() == [rows["id"][i].as_py() for i in (7, 1)]


def test_who_goes_on_writing_to_the_lance_set_can(exported: Exported, tmp_path: Path) -> None:
    """It has no clock and no transaction, which Lance does not miss."""
    import lance as field_s

    put(FORMATS["lance"], tmp_path, *exported(4))
    loaded = field_s.dataset(tmp_path)
    field_s.write_dataset(loaded.to_table().slice(0, 1), tmp_path, mode="append")
    loaded.checkout_version(2).delete(f"id = '{loaded.to_table()['id'][3]}'")
    assert [field_s.dataset(tmp_path, version=number).count_rows() for number in (1, 2, 3)] == [4, 5, 4]


def test_llava_s_records_are_what_its_readers_take(exported: Exported, tmp_path: Path) -> None:
    """As LLaVA's LazySupervisedDataset reads them: a list, images below the folder, turns that begin with a human."""
    rows, pictures = exported(6)
    put(llava, tmp_path, rows, pictures)
    records = json.loads((tmp_path / "llava.json").read_text(encoding="utf-8"))
    assert len({record["id"] for record in records}) == len(records) == 12
    spoken = [(row, said) for row in rows.to_pylist() for said in row["captions"]]
    for record, (row, said) in zip(records, spoken, strict=True):
        assert record["id"].startswith(row["id"])
        human, gpt = record["conversations"]
        assert (human["from"], gpt["from"], gpt["value"]) == ("human", "gpt", said["text"])
        token, question = human["value"].split("\n")
        assert token == "<image>" and question.endswith(" Answer in French.") == (said["lang"] == "fr")
        assert question.removesuffix(" Answer in French.") in llava.ASKED
    for picture, record in zip(pictures, records[::2], strict=True):
        data = (tmp_path / record["image"]).read_bytes()
        assert data == picture.data and record["sha256"] == picture.sha256
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.convert("RGB").size == (picture.width, picture.height)


def test_llama_factory_s_way_of_loading_finds_the_same(exported: Exported, tmp_path: Path) -> None:
    """It hands a folder's files to `datasets`, as JSON; its sharegpt format takes the columns from there."""
    import datasets

    put(llava, tmp_path, *exported(5))
    files = sorted(str(path) for path in (tmp_path / "shards").iterdir())
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == json.loads((tmp_path / "llava.json").read_text(encoding="utf-8"))
    for record in loaded:
        assert sum(turn["value"].count("<image>") for turn in record["conversations"]) == 1
        assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]


def test_a_caption_puts_no_picture_into_a_conversation(exported: Exported) -> None:
    rows, pictures = exported(1)
    mean = _one_sample(rows, ["an <image> of <video> and <b>bold</b>"], [0.3])
    *_, own = written(llava, mean, pictures).values()
    [record] = json.loads(own)
    assert record["conversations"][1]["value"] == "an < image> of < video> and <b>bold</b>"


def test_a_conversation_without_an_answer_is_none(exported: Exported) -> None:
    rows, pictures = exported(1)
    with pytest.raises(BrokenInvariant, match="has no caption"):
        llava.write(_one_sample(rows, [], []), pictures, "00000")


def test_a_list_that_names_files_elsewhere_is_not_followed() -> None:
    for path in ("../../etc/passwd", "/etc/passwd", "images/00000/../../x.jpg", "images/x/a.jpg"):
        data = pa.py_buffer(json.dumps([{"image": path, "sha256": ""}]).encode())
        for look in (llava.beside, lambda data: llava.read_back("shards/0.json", lambda _: data)):
            with pytest.raises(ValueError, match="is no picture of ours"):
                look(data)


def test_an_mds_shard_of_four_gigabytes_is_refused(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mds, "_MOST_BYTES", 1_000)
    with pytest.raises(ConfigError, match="mds shard 00000 would have"):
        mds.write(*exported(3), "00000")


def test_a_format_whose_package_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_formats(FORMATS)
    monkeypatch.setattr(FORMATS["lance"], "MODULE", "no_such_module")
    with pytest.raises(ConfigError, match=r"lance needs the package pylance.*install vlmdata\[lance\]"):
        check_formats(["parquet", "lance"])


def test_row_groups_are_small(exported: Exported) -> None:
    rows, pictures = exported(1)
    many = pa.concat_tables([rows] * 230)
    file = pq.ParquetFile(io.BytesIO(alone(parquet, many, pictures * 230)))
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
    with tarfile.open(fileobj=io.BytesIO(alone(webdataset, bare, pictures))) as tar:
        assert [name.split(".")[1] for name in tar.getnames()] == [pictures[0].extension, "json"]
    assert read(parquet, written(parquet, bare, pictures)).rows["captions"].to_pylist() == [0]


def test_a_mark_goes_out_with_its_caption(exported: Exported) -> None:
    rows, pictures = exported(1)
    marked = _one_sample(rows, ["a", "b", "c"], [0.1, 0.2, 0.3], [True, False, None])
    table = pq.read_table(io.BytesIO(alone(parquet, marked, pictures)))
    assert [caption["printed_text"] for caption in table["captions"][0].as_py()] == [True, False, None]
    with tarfile.open(fileobj=io.BytesIO(alone(webdataset, marked, pictures))) as tar:
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
