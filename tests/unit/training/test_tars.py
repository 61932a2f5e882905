"""Bytes of tars: the same from a folder and from a bucket, and of a bucket nothing stays."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.errors import SourceError
from vlmdata.training.order import batches, part_of
from vlmdata.training.tars import Tars

CONTENTS = [bytes([number]) * 40 + bytes(range(60)) for number in range(3)]


def in_bucket(contents: list[bytes]) -> Tars:
    root = f"memory://{uuid.uuid4().hex}"
    names = [f"train/{number}.tar" for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        fsspec.filesystem("memory").pipe_file(f"{root}/{name}", content)
    return verified(Tars(root, names))


def in_folder(folder: Path, contents: list[bytes]) -> Tars:
    for number, content in enumerate(contents):
        (folder / f"{number}.tar").write_bytes(content)
    return verified(Tars(str(folder), [f"{number}.tar" for number in range(len(contents))]))


def verified(tars: Tars) -> Tars:
    return replace(tars, versions=[version for found in tars.sizes_and_versions() if found for _, version in [found]])


SPANS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99), st.integers(0, 99)), max_size=20)


@given(spans=SPANS)
def test_what_is_read_is_what_lies_there(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, ...]]
) -> None:
    asked = [(number, offset, min(size, 100 - offset)) for number, offset, size in spans]
    expected = [CONTENTS[number][offset : offset + size] for number, offset, size in asked]
    assert in_bucket(CONTENTS).read(asked) == expected
    assert in_folder(tmp_path_factory.mktemp("tars"), CONTENTS).read(asked) == expected


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    devices=st.integers(1, 3),
    per_device=st.integers(1, 4),
    workers=st.integers(1, 3),
    buffer=st.integers(1, 50),
)
def test_devices_and_workers_stream_every_sample_once(
    sizes: list[int], devices: int, per_device: int, workers: int, buffer: int
) -> None:
    """A sample is a byte pair that no other has: that of its tar, and that of its place."""
    tars = in_bucket([bytes(itertools.chain(*((number, at) for at in range(n)))) for number, n in enumerate(sizes)])
    spans = [(number, 2 * at, 2) for number, size in enumerate(sizes) for at in range(size)]
    ends = np.cumsum(sizes)
    shards = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    read: list[bytes] = []
    for rank in range(devices):
        mine = [part_of(batch, rank, devices) for batch in batches(shards, 1, 2, buffer, devices * per_device)]
        for worker in range(workers):
            own = replace(tars)  # each process has its own
            read += [one for rows in mine[worker::workers] for one in own.read([spans[row] for row in rows])]
    whole = sum(sizes) // (devices * per_device) * devices * per_device
    assert len(read) == len(set(read)) == whole
    assert set(read) <= {bytes([number, at]) for number, size in enumerate(sizes) for at in range(size)}


def test_one_tar_of_a_bucket_is_here_at_a_time_and_none_afterwards(tmp_path: Path) -> None:
    tars = in_bucket(CONTENTS)
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched/9.tar").write_bytes(b"of a run that was killed")
    for number, content in enumerate(CONTENTS):
        with tars.whole(number, tmp_path / "fetched") as path:
            assert path.read_bytes() == content
            assert list((tmp_path / "fetched").iterdir()) == [path]
        assert not list(tmp_path.iterdir())


def test_one_of_a_folder_stays_where_it_is(tmp_path: Path) -> None:
    tars = in_folder(tmp_path, CONTENTS)
    with tars.whole(1, tmp_path / "fetched") as path:
        assert path == tmp_path / "1.tar"
    assert path.is_file()


@pytest.mark.parametrize("place", ["bucket", "folder"])
@pytest.mark.parametrize(
    ("change", "expected"), [("other", "1.tar is another file than the one that"), ("gone", "1.tar is gone")]
)
def test_what_changed_since_it_was_verified_is_not_read(tmp_path: Path, place: str, change: str, expected: str) -> None:
    tars = in_bucket(CONTENTS) if place == "bucket" else in_folder(tmp_path, CONTENTS)
    fs = fsspec.filesystem("memory" if place == "bucket" else "file")
    if change == "other":
        fs.pipe_file(tars.where(1), CONTENTS[0] + b"more")
    else:
        fs.rm_file(tars.where(1))
    assert tars.read([(0, 0, 4)]) == [CONTENTS[0][:4]]
    with pytest.raises(SourceError, match=expected):
        tars.read([(1, 0, 4)])


def test_a_store_that_fails_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other picture stands in for one that is only out of reach."""
    tars = in_folder(tmp_path, CONTENTS)

    def fails(*_: object) -> list[bytes]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("vlmdata.ingest.files.LocalTree.ranges", fails)
    with pytest.raises(SourceError, match=r"0.tar cannot be read \(Input/output error\); start the training again"):
        tars.read([(0, 0, 4)])
