"""Versions: numbered once, immutable, each on top of the one before."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmdata.errors import ConfigError, Overtaken, StoreError
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import save
from vlmdata.layout import Stage, Step, version_path
from vlmdata.runs import report
from vlmdata.versions.changes import changes
from vlmdata.versions.diff import as_lines, compare
from vlmdata.versions.listing import list_versions
from vlmdata.versions.version import Version, newest_number, numbers, read_version


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
    mine = f"{re.escape(socket.gethostname())}, process {os.getpid()}"
    who = rf"version 1: run 2 on {mine}, begun at 2\S+, published it at 2\S+, while this run, 1, .* run it again"
    with pytest.raises(Overtaken, match=who) as told:
        set_.publish(run=slow)
    assert told.value.exit_code == 4
    assert numbers(set_.dataset) == [1]
    assert set_.publish().samples == 2, "a rerun goes on from there"


def test_two_that_made_the_same_share_a_version(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1)})
    runs = [set_.begin(), set_.begin()]
    assert [set_.publish(run=run).number for run in runs] == [1, 1]


def with_health(set_: Any) -> Version:
    """A night that leaves its health, as a build does."""
    run = set_.begin()
    version: Version = set_.publish(run=run)
    for stage in Stage:
        shards = version.exported if stage is Stage.FINAL else version.shards
        run.stage_done(report(set_.dataset, stage, shards))
    save(run, measure_health(run))
    return version


def test_a_difference_tells_how_health_moved(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(3)})
    with_health(set_)
    set_.add({f"large{n}.png": pictures.png(10 + n, 640, 480) for n in range(5)})
    with_health(set_)
    found = compare(set_.dataset, 1, 2)
    sizes = next(moved for moved in found.moved if "size" in moved.name)
    assert sizes.psi and found.as_dict()["health"][0]["psi"]
    head, *lines = as_lines(found)
    assert head.startswith("Version 1 to 2: 3 to 8 samples") and any(sizes.name in line for line in lines)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_night_that_is_killed_about_its_publishing_is_made_up_for(
    growing: Callable[..., Any], pictures: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(5)})
    set_.publish()
    set_.add({"late.png": pictures.png(20)})
    create = set_.dataset.store.create

    def killed(path: str, data: Any) -> bool:
        if "/versions/" not in path:
            return create(path, data)
        if when == "after":
            create(path, data)
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(set_.dataset.store, "create", killed)
        set_.publish()
    assert numbers(set_.dataset) == ([1] if when == "before" else [1, 2])
    again = set_.publish()
    assert (again.number, again.samples, again.changes.added) == (2, 6, 1)
    assert numbers(set_.dataset) == [1, 2], "what was published is not published twice"


def test_whichever_write_of_a_night_fails_the_rerun_goes_on(
    growing: Callable[..., Any], pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every attempt one more object is written, and the disk fails at the next."""
    set_ = growing({f"{n}.png": pictures.png(n) for n in range(4)})
    set_.publish()
    set_.add({"late.png": pictures.png(20), "0.png": pictures.png(21)})
    set_.remove("3.png")
    store = Path(set_.dataset.store_url)
    shutil.copytree(store, before := store.with_name("before"))
    whole = set_.publish()
    shutil.rmtree(store)
    shutil.copytree(before, store)
    run, failures, link = set_.begin(), 0, os.link
    found: Version | None = None
    while found is None:
        assert failures < 200, "it goes on"
        room = threading.Semaphore(1)

        def link_once(source: str, target: Path, room: threading.Semaphore = room) -> None:
            if not room.acquire(blocking=False):
                raise OSError(errno.EIO, "Input/output error")
            try:
                link(source, target)
            except FileExistsError:  # nothing was written
                room.release()
                raise

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", link_once)
            try:
                found = set_.publish(run=run)
            except StoreError as error:
                assert error.exit_code == 2 and "\n" not in str(error) and "Input/output error" in str(error)
                assert numbers(set_.dataset) == [1], "not even a part of it is published"
                failures += 1
    assert failures > 20 and numbers(set_.dataset) == [1, 2]
    assert found.same_content(whole) and found.changes == whole.changes and found.export == whole.export


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
