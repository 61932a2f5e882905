"""Versions: numbered once, immutable, each on top of the one before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmdata.errors import ConfigError, Overtaken, StoreError
from vlmdata.layout import Stage, Step, version_path
from vlmdata.versions.changes import changes
from vlmdata.versions.diff import as_lines, compare
from vlmdata.versions.listing import list_versions
from vlmdata.versions.version import newest_number, numbers, read_version


def test_versions_are_numbered_and_tell_what_changed(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1), "b.png": pictures.png(2), "c.png": pictures.png(3)})
    assert newest_number(set_.dataset) is None
    set_.publish()
    set_.add({"d.png": pictures.png(4), "e.png": pictures.png(5), "b.png": pictures.png(6)})
    set_.remove("a.png")
    set_.said["c.png"] = ["another caption"]
    set_.write_captions()
    set_.publish()
    rows = list_versions(set_.dataset)
    told = [
        (row["version"], row["parent"], row["samples"], row["added"], row["removed"], row["changed"]) for row in rows
    ]
    assert told == [(1, None, 3, 3, 0, 0), (2, 1, 4, 2, 1, 2)]
    assert compare(set_.dataset, 2, 1).changes.model_dump() == {"added": 1, "removed": 2, "changed": 2}
    assert as_lines(compare(set_.dataset, 1, 2)) == ["Version 1 to 2: 3 to 4 samples; 2 added, 1 removed, 2 changed"], (
        "no health is on record"
    )


def test_a_version_lists_the_shards_of_each_stage(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(5)})
    version = set_.publish()
    for stage in Stage:
        assert len(version.steps[stage]) == (1 if stage is Stage.FINAL else 3)
        assert all(set_.dataset.store.exists(path) for path in version.steps[stage].values())
    read = read_version(set_.dataset, 1)
    assert read == version
    assert [shard.name for shard in read.shards] == ["00000", "00001", "00002"]
    assert set_.dataset.read(read.shards[0], Step.RAW, "images").num_rows == 2
    assert changes(set_.dataset, read.shards, read.shards).model_dump() == {"added": 0, "removed": 0, "changed": 0}


def test_whoever_is_overtaken_says_by_whom(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1)})
    slow = set_.begin()
    quick = set_.begin()
    set_.publish(run=quick)
    set_.add({"b.png": pictures.png(2)})
    with pytest.raises(Overtaken, match=r"version 1: run 2 published it at .* run it again") as told:
        set_.publish(run=slow)
    assert told.value.exit_code == 4
    assert numbers(set_.dataset) == [1]
    assert set_.publish().samples == 2, "a rerun goes on from there"


def test_two_that_made_the_same_share_a_version(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1)})
    runs = [set_.begin(), set_.begin()]
    assert [set_.publish(run=run).number for run in runs] == [1, 1]


def test_a_version_that_is_not_there(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1)})
    with pytest.raises(ConfigError, match=r"version 3: .*nothing was published yet"):
        read_version(set_.dataset, 3)
    set_.publish()
    with pytest.raises(ConfigError, match=r"version 3: .*it has 1 to 1"):
        read_version(set_.dataset, 3)


def test_a_damaged_version_is_said_in_one_line(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1)})
    set_.publish()
    path = Path(set_.dataset.store.locate(version_path("tiny", 1)))
    path.write_text("{")
    with pytest.raises(StoreError, match=r"000001\.json: is damaged"):
        read_version(set_.dataset, 1)
