"""Sources that grow: what was there stays in its shard, and is neither read nor decoded again."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import WebdatasetSource
from vlmdata.ingest import growth
from vlmdata.ingest.growth import keep_cut
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Step
from vlmdata.measure.facts import measure_shard
from vlmdata.versions.version import read_version


def keys(set_: Any, shards: Sequence[Shard]) -> dict[str, list[str]]:
    """Keys by shard."""
    return {
        shard.name: set_.dataset.read(shard, Step.LISTING, "listing", ["key"])["key"].to_pylist() for shard in shards
    }


def listed(set_: Any) -> list[Shard]:
    return list_source(set_.dataset, set_.config)


def test_what_is_new_goes_into_new_shards(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"b{n}.png": pictures.png(n) for n in range(5)})
    first = listed(set_)
    assert keys(set_, first) == {"00000": ["b0.png", "b1.png"], "00001": ["b2.png", "b3.png"], "00002": ["b4.png"]}
    set_.add({name: pictures.png(9) for name in ("a.png", "b22.png", "z.png")})
    second = listed(set_)
    assert second[:3] == first
    assert keys(set_, second[3:]) == {"00003": ["a.png", "b22.png"], "00004": ["z.png"]}
    assert listed(set_) == second


def test_a_picture_that_is_replaced_leaves_its_shard(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(4)})
    first = listed(set_)
    set_.add({"1.png": pictures.png(11)})
    second = listed(set_)
    assert keys(set_, second) == {"00000": ["0.png"], "00001": ["2.png", "3.png"], "00002": ["1.png"]}
    assert second[1] == first[1]


def test_a_shard_of_which_nothing_is_left_goes_and_its_number_is_not_given_again(
    growing: Callable[..., Any], pictures: Any
) -> None:
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(4)})
    listed(set_)
    set_.remove("0.png")
    set_.remove("1.png")
    set_.add({"9.png": pictures.png(9)})
    assert keys(set_, listed(set_)) == {"00001": ["2.png", "3.png"], "00002": ["9.png"]}


def test_a_caption_that_changes_stays_where_it_is(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(4)})
    first = listed(set_)
    set_.said["1.png"] = ["another caption"]
    set_.write_captions()
    second = listed(set_)
    assert keys(set_, second) == keys(set_, first)
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, True]


def test_nothing_is_read_or_decoded_twice(growing: Callable[..., Any], pictures: Any) -> None:
    """The files that were read are emptied with their times and sizes kept: whoever reads them again will notice."""
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(6)}, shard_size=3)

    def measured() -> list[dict[str, Any]]:
        raw = [ingest_shard(set_.dataset, shard, set_.config) for shard in listed(set_)]
        return set_.rows([measure_shard(set_.dataset, shard, set_.config.filter) for shard in raw], Step.FACTS, "facts")

    before = {row["id"]: row for row in measured()}
    for path in (set_.folder / "pictures").iterdir():
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    set_.remove("1.png")
    set_.said["4.png"] = ["another caption"]
    set_.add({"new.png": pictures.png(20)})
    after = measured()
    assert len(after) == 6 and all(row["error"] is None for row in after)
    assert [row for row in after if row["id"] in before] == [before[row["id"]] for row in after if row["id"] in before]
    assert sum(row["id"] in before for row in after) == 5


def write_tar(path: Path, samples: dict[str, bytes]) -> None:
    """A WebDataset tar; each picture has its key for a caption."""
    with tarfile.open(path, "w") as archive:
        for key, picture in samples.items():
            for name, data in ((f"{key}.png", picture), (f"{key}.txt", key.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def tars(growing: Callable[..., Any], pictures: Any, tmp_path: Path) -> Any:
    """A set of one tar with three pictures, two in a shard, published."""
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "a.tar", {f"a{n}": pictures.png(n) for n in range(3)})
    set_ = growing({})
    source = WebdatasetSource(path=str(tmp_path / "tars"))
    set_.tiny.config = set_.config.model_copy(update={"source": source})
    set_.publish()
    return set_


def test_a_tar_that_comes_is_read_and_those_that_were_there_are_not(tars: Any, pictures: Any, tmp_path: Path) -> None:
    """The picture of the first tar is spoilt where it lies, its size and time kept: whoever reads it will notice."""
    path = tmp_path / "tars" / "a.tar"
    stat, content = path.stat(), bytearray(path.read_bytes())
    for at in (n for n in range(0, len(content), 512) if content[n : n + 4] == b"\x89PNG"):
        content[at : at + 512] = bytes(512)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    first = read_version(tars.dataset, 1)
    write_tar(tmp_path / "tars" / "b.tar", {"b0": pictures.png(20), "a_copy": pictures.png(1, 128, 96)})
    second = tars.publish()
    assert first.steps[Step.RAW].items() < second.steps[Step.RAW].items()
    assert (first.samples, second.samples) == (3, 4)
    assert second.changes.model_dump() == {"added": 1, "removed": 0, "changed": 0}
    assert tars.near_duplicates(second.shards) == {"a_copy": "a1"}, "what is published stays"


def test_a_tar_that_is_replaced_supersedes_what_it_was(tars: Any, pictures: Any, tmp_path: Path) -> None:
    """One picture is another, one says something else, one has gone, one has come."""
    tar = {"a0": pictures.png(0), "a1": pictures.png(1, 128, 96), "new": pictures.png(9)}
    write_tar(tmp_path / "tars" / "a.tar", tar)
    second = tars.publish()
    assert sorted(tars.captions(second.shards)) == ["a0", "a1", "new"]
    assert second.changes.model_dump() == {"added": 1, "removed": 1, "changed": 1}
    assert tars.near_duplicates(second.shards) == {}, "it is no duplicate of its old self"


def test_what_could_not_be_read_is_tried_again_when_its_shard_changes(
    growing: Callable[..., Any], pictures: Any
) -> None:
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(3)}, shard_size=3)
    first = listed(set_)
    (set_.folder / "pictures" / "1.png").rename(set_.folder / "kept_away")
    [shard] = [ingest_shard(set_.dataset, shard, set_.config) for shard in first]
    assert set_.dataset.manifest(shard, Step.RAW).open == 1
    (set_.folder / "kept_away").rename(set_.folder / "pictures" / "1.png")
    set_.remove("0.png")
    [shard] = [ingest_shard(set_.dataset, shard, set_.config) for shard in listed(set_)]
    manifest = set_.dataset.manifest(shard, Step.RAW)
    assert (manifest.open, manifest.samples.kept) == (0, 2)


def test_another_run_that_was_first_is_built_upon(
    growing: Callable[..., Any], pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one run decides, another one, which saw one picture more, publishes."""
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(4)})
    listed(set_)
    set_.add({"5.png": pictures.png(5)})
    real, others = growth.publish, list[list[Shard]]()

    def late(*args: Any) -> str:
        if not others:
            others.append([])
            set_.add({"4.png": pictures.png(4)})
            others[0] = listed(set_)
        return real(*args)

    monkeypatch.setattr(growth, "publish", late)
    mine = listed(set_)
    there = {"00000": ["0.png", "1.png"], "00001": ["2.png", "3.png"]}
    assert keys(set_, others[0]) == {**there, "00002": ["4.png", "5.png"]}
    assert keys(set_, mine) == {**there, "00002": ["5.png"]}, "what this run saw, where the other one put it"
    assert keys(set_, listed(set_)) == {**there, "00002": ["5.png"], "00003": ["4.png"]}


NIGHT = st.tuples(
    st.dictionaries(st.integers(0, 12), st.integers(1, 40), max_size=5),
    st.sets(st.integers(0, 12), max_size=3),
    st.sets(st.integers(0, 12), max_size=3),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=st.lists(NIGHT, min_size=1, max_size=5), number=st.integers())
def test_any_history_ends_with_each_row_once_and_what_was_there_where_it_was(
    growing: Callable[..., Any], pictures: Any, nights: list[Any], number: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files of so many bytes come, go, and are said something else of; none is opened."""
    folder = tmp_path_factory.mktemp("history")
    set_ = growing({"always.png": b"x"})
    set_.folder = folder
    (folder / "pictures").mkdir()
    set_.tiny.config = set_.config.model_copy(
        update={
            "source": set_.config.source.model_copy(
                update={"path": str(folder / "pictures"), "captions": str(folder / "captions.jsonl")}
            )
        }
    )
    set_.tiny.dataset = Dataset(str(folder / "store"), "set")
    set_.said.clear()
    set_.add({"always.png": b"x"})
    place: dict[tuple[str, str], str] = {}
    for come, go, say in nights:
        set_.add({f"{n}.png": b"y" * size for n, size in come.items()})
        for n in go:
            if f"{n}.png" in set_.said:
                set_.remove(f"{n}.png")
        for n in say & {int(name[:-4]) for name in set_.said if name != "always.png"}:
            set_.said[f"{n}.png"] = [f"said in another way {len(place)}"]
        set_.write_captions()
        shards = listed(set_)
        rows = [(shard.name, row) for shard in shards for row in set_.rows([shard], Step.LISTING, "listing")]
        assert sorted(row["key"] for _, row in rows) == sorted(set_.said)
        assert all([each["text"] for each in row["captions"]] == set_.said[row["key"]] for _, row in rows)
        assert all(0 < shard.rows <= 2 for shard in shards)
        now = {(row["key"], row["version"]): name for name, row in rows}
        assert all(place[row] == name for row, name in now.items() if row in place)
        place = now


def test_a_listing_that_was_seen_is_not_cut_again(tmp_path: Path) -> None:
    dataset, asked = Dataset(str(tmp_path), "set"), list[int]()

    def cut(known: Sequence[Shard]) -> list[Shard]:
        asked.append(len(known))
        return [Shard("00000", 3).at(Step.LISTING, "somewhere")]

    for seen in ("a", "a", "b", "b"):
        assert keep_cut(dataset, {"source": 1}, cut, seen)[0].rows == 3
    assert asked == [0, 1]


def test_rows_are_told_apart_by_all_that_names_them() -> None:
    rows = [("a", None, "b"), ("a", "b", None), ("ab", None, None), ("a", "b", "")]
    columns = {name: [row[at] for row in rows] for at, name in enumerate(("key", "location", "member"))}
    table = pa.table({**columns, **dict.fromkeys(("offset", "size", "version"), [None] * 4)})
    names = growth.identities(table).to_pylist()
    assert len(set(names)) == 3 and names[1] == names[3]
