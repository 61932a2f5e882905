"""A file with other samples than it should have is refused as soon as it is written, however it came about."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import ExportConfig
from vlmdata.errors import BrokenInvariant
from vlmdata.export.format import File
from vlmdata.export.formats import FORMATS
from vlmdata.export.names import MANIFEST
from vlmdata.export.pixels import Picture
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.layout import Step

Source = Callable[[int], dict[str, bytes]]
Cut = Callable[..., tuple[Dataset, list[Shard]]]
Given = tuple[pa.Table, Sequence[Picture]]
SAMPLES = 5


def fewer(rows: pa.Table, pictures: Sequence[Picture]) -> Given:
    return rows.slice(0, rows.num_rows - 1), pictures[:-1]


def none(rows: pa.Table, pictures: Sequence[Picture]) -> Given:
    return rows.slice(0, 0), pictures[:0]


def more(rows: pa.Table, pictures: Sequence[Picture]) -> Given:
    """The first once more, under another id."""
    first = rows.slice(0, 1)
    place = first.column_names.index("id")
    first = first.set_column(place, first.field("id"), pa.array(["f" * 32], pa.string()))
    return pa.concat_tables([rows, first]), [*pictures, pictures[0]]


def twice(rows: pa.Table, pictures: Sequence[Picture]) -> Given:
    """As many as there should be: the first in the place of the last, too."""
    return pa.concat_tables([rows.slice(0, rows.num_rows - 1), rows.slice(0, 1)]), [*pictures[:-1], pictures[0]]


def refused(dataset: Dataset, shards: list[Shard], name: str) -> str:
    """Why an export in this format ends; nothing of it looks done."""
    config = ExportConfig(formats=(name,), samples_per_shard=SAMPLES)
    [planned] = plan_export(dataset, shards, config)
    key = dataset.manifest(planned, Step.EXPORT_PLAN).key
    with pytest.raises(BrokenInvariant) as told:
        export_shard(dataset, planned, config)
    assert dataset.latest(Step.FINAL, key) is None
    prefix = layout.export_prefix(dataset.name, dataset.manifest(planned, Step.EXPORT_PLAN).facts["export"])
    assert not dataset.store.exists(f"{prefix}/{MANIFEST}")
    return str(told.value)


@pytest.mark.parametrize("change", [fewer, none, more, twice])
@pytest.mark.parametrize("name", list(FORMATS))
def test_a_file_with_other_samples_than_it_should_have_is_refused_when_it_is_written(
    source: Source, cut: Cut, monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[..., Given]
) -> None:
    write = FORMATS[name].write

    def written(rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
        return write(*change(rows, pictures), shard)

    monkeypatch.setattr(FORMATS[name], "write", written)
    said = refused(*cut(source(SAMPLES), SAMPLES), name)
    assert said.startswith(f"export {name}/") and said.endswith("reads back other than it was written")
    assert "00000" in said and "\n" not in said


def rewrite_tars(monkeypatch: pytest.MonkeyPatch, change: Callable[..., bytes]) -> None:
    """Each tar is written as `change` makes it of its bytes, its members, its rows and its pictures."""
    write = FORMATS["webdataset"].write

    def written(rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
        [file] = write(rows, pictures, shard)
        data = bytes(file.data)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return [File(file.path, change(data, tar.getmembers(), rows, pictures))]

    monkeypatch.setattr(FORMATS["webdataset"], "write", written)


@pytest.mark.parametrize("kept", range(SAMPLES))
def test_a_tar_that_ends_after_a_whole_sample_is_refused(
    source: Source, cut: Cut, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """To a reader of tars it is a tar like any other, of fewer samples."""

    def cut_short(data: bytes, members: list[tarfile.TarInfo], rows: pa.Table, _: Sequence[Picture]) -> bytes:
        following = rows["id"][kept].as_py()
        return data[: next(member.offset for member in members if member.name.startswith(following))] + bytes(1024)

    rewrite_tars(monkeypatch, cut_short)
    dataset, shards = cut(source(SAMPLES), SAMPLES)
    said = refused(dataset, shards, "webdataset")
    assert said == "export webdataset/00000.tar: column 'id' reads back other than it was written"
    [path] = [path for path in dataset.store.list(f"stamps/{Step.FINAL}") if path.endswith(".tar")]
    with tarfile.open(fileobj=io.BytesIO(dataset.store.get(path))) as tar:
        assert len({name.partition(".")[0] for name in tar.getnames()}) == kept


@pytest.mark.parametrize("lost", range(SAMPLES))
def test_a_tar_without_one_of_its_pictures_is_refused(
    source: Source, cut: Cut, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """By their names its samples are as many as they should be."""

    def without(data: bytes, members: list[tarfile.TarInfo], _: pa.Table, pictures: Sequence[Picture]) -> bytes:
        picture, after = members[3 * lost : 3 * lost + 2]
        assert picture.size == len(pictures[lost].data)
        return data[: picture.offset] + data[after.offset :]

    rewrite_tars(monkeypatch, without)
    said = refused(*cut(source(SAMPLES), SAMPLES), "webdataset")
    assert said == f"export webdataset/00000.tar: picture {lost} reads back other than it was written"
