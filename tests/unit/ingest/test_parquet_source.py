"""Hugging Face style parquet."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmdata.checkpoint import Dataset
from vlmdata.config import ParquetSource
from vlmdata.config_reading import parse_config
from vlmdata.errors import SourceError
from vlmdata.ingest import listing
from vlmdata.ingest.parquet import list_rows, places, read_rows
from vlmdata.schema import LISTING

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, images: list[Any], type_: pa.DataType = IMAGE, rows_in_group: int = 3, **columns: Any) -> Path:
    pq.write_table(pa.table({"image": pa.array(images, type_), **columns}), path, row_group_size=rows_in_group)
    return path


def refused(path: Path, **options: str) -> str:
    with pytest.raises(SourceError) as error:
        list_rows(ParquetSource(path=str(path), **options))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_the_datasets_library_writes_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), "red").save(tmp_path / "red.png")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    image = {"bytes": (tmp_path / "red.png").read_bytes(), "path": "red.png"}
    table = datasets.Dataset.from_dict({"image": [image], "text": ["red"]}, features=features)
    table.to_parquet(str(tmp_path / "train.parquet"))
    source = ParquetSource(path=str(tmp_path))
    rows = list_rows(source)
    assert rows.schema == LISTING
    assert read_rows(source, rows) == ([(tmp_path / "red.png").read_bytes()], [None])
    assert rows["captions"].to_pylist() == [[{"text": "red", "lang": None}]]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("caption", ["a", None, ""], [["a"], [], [""]]),
        ("text", [["a", "b"], [], None], [["a", "b"], [], []]),
        (
            "captions",
            [[{"text": "a", "lang": "EN"}], [None], [{"text": None, "lang": "en"}]],
            [["a"], [], []],
        ),
    ],
)
def test_captions_come_in_three_shapes(tmp_path: Path, name: str, values: list[Any], said: list[list[str]]) -> None:
    images = [{"bytes": bytes([n]), "path": None} for n in range(3)]
    path = write(tmp_path / "a.parquet", images, **{name: values, "lang": ["DE", None, "fr"], "url": ["u", None, None]})
    rows = list_rows(ParquetSource(path=str(path))).to_pylist()
    assert [[caption["text"] for caption in row["captions"]] for row in rows] == said
    assert rows[0]["captions"][0]["lang"] == ("en" if name == "captions" else "de")
    assert rows[0]["url"] == "u"


def test_keys_come_from_a_column_else_the_path_else_the_row(tmp_path: Path) -> None:
    images = [{"bytes": b"0", "path": "p.jpg"}, {"bytes": b"1", "path": None}]
    write(tmp_path / "a.parquet", images)
    write(tmp_path / "b.parquet", [b"2", b"3"], pa.large_binary(), id=[7, None])
    rows = list_rows(ParquetSource(path=str(tmp_path)))
    assert rows["key"].to_pylist() == ["7", "a#1", "b#1", "p.jpg"]
    assert places(rows) == ["b.parquet#0", "a.parquet#1", "b.parquet#1", "a.parquet#0"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    images=st.lists(st.none() | st.binary(max_size=3), min_size=1, max_size=90).filter(any),
    group=st.integers(1, 50),
    statistics=st.booleans(),
    data=st.data(),
)
def test_any_rows_of_any_row_groups_come_back(
    tmp_path: Path, images: list[bytes | None], group: int, statistics: bool, data: st.DataObject
) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array([{"bytes": item, "path": None} for item in images], IMAGE)
    pq.write_table(pa.table({"image": column}), path, row_group_size=group, write_statistics=statistics)
    source = ParquetSource(path=str(path))
    rows = list_rows(source)
    at = {key: int(key.rpartition("#")[2]) for key in rows["key"].to_pylist()}
    assert rows["missing"].to_pylist() == [images[at[key]] is None for key in rows["key"].to_pylist()]
    there = rows.filter(pc.invert(rows["missing"]))
    chosen = data.draw(st.sets(st.integers(0, there.num_rows - 1)))
    some = there.take(pa.array(sorted(chosen), pa.int64()))
    found, reasons = read_rows(source, some)
    assert found == [images[at[key]] for key in some["key"].to_pylist()]
    assert reasons == [None] * some.num_rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    images=st.lists(st.none() | st.binary(max_size=500), min_size=1, max_size=40).filter(any),
    group=st.integers(1, 20),
    dictionary=st.booleans(),
)
def test_sizes_are_estimated_and_add_up_to_what_is_stored(
    tmp_path: Path, images: list[bytes | None], group: int, dictionary: bool
) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array([{"bytes": item, "path": None} for item in images], IMAGE)
    pq.write_table(pa.table({"image": column}), path, row_group_size=group, use_dictionary=dictionary)
    rows = list_rows(ParquetSource(path=str(path)))
    sizes = rows["size"].to_pylist()
    assert [size is None for size in sizes] == rows["missing"].to_pylist()
    stored = sum(len(item) for item in (set(images) if dictionary else images) if item)
    assert sum(size for size in sizes if size is not None) >= stored


def test_shards_of_parquet_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [{"bytes": bytes([n]) * 100_000, "path": None} for n in range(12)]
    write(tmp_path / "a.parquet", images, rows_in_group=12)
    monkeypatch.setattr(listing, "_SHARD_BYTES", 350_000)
    source = {"kind": "parquet", "path": str(tmp_path / "a.parquet")}
    config = parse_config({"dataset": "d", "store": str(tmp_path / "store"), "source": source})
    assert [shard.rows for shard in listing.list_source(Dataset(config.store, "d"), config)] == [3, 3, 3, 3]


def test_what_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    assert "no .parquet file found" in refused(tmp_path)
    images = [{"bytes": b"0", "path": None}]
    path = write(tmp_path / "a.parquet", images, caption=["x"])
    assert "image_column = 'img' is not one of its columns: image, caption" in refused(path, image_column="img")
    assert "caption_column = 'alt' is not one of" in refused(path, caption_column="alt")
    assert "should be binary or a struct" in refused(path, image_column="caption")
    assert "row 0: 3 should be" in refused(write(tmp_path / "b.parquet", images, caption=[3]))
    assert "none of its 1 rows" in refused(write(tmp_path / "c.parquet", [{"bytes": None, "path": "x"}]))
    (tmp_path / "d.parquet").write_bytes(path.read_bytes()[:-20])
    assert "d.parquet: not a whole parquet file" in refused(tmp_path / "d.parquet")


def test_a_file_that_changed_or_went_since_it_was_listed_says_so(tmp_path: Path) -> None:
    source = ParquetSource(path=str(tmp_path))
    write(tmp_path / "a.parquet", [{"bytes": b"0", "path": None}])
    write(tmp_path / "b.parquet", [{"bytes": b"1", "path": None}])
    rows = list_rows(source)
    write(tmp_path / "a.parquet", [{"bytes": b"new", "path": None}] * 2)
    assert read_rows(source, rows) == ([None, b"1"], ["the file has changed since it was listed", None])
    (tmp_path / "a.parquet").unlink()
    assert read_rows(source, rows)[1] == ["the file is gone", None]
