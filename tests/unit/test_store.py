"""A folder as an object store: whole or not there, and one winner for every name."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from vlmdata.errors import StoreError
from vlmdata.store import LocalStore, S3Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def files(store: LocalStore) -> list[str]:
    return sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())


def test_what_was_put_is_there(store: LocalStore) -> None:
    store.put("a/b/c.bin", b"bytes")
    store.put("a/b/c.bin", b"bytes")
    assert (store.get("a/b/c.bin"), store.exists("a/b/c.bin"), files(store)) == (b"bytes", True, ["a/b/c.bin"])
    assert Path(store.locate("a/b/c.bin")).read_bytes() == b"bytes"


def test_an_object_says_when_it_was_written(store: LocalStore) -> None:
    store.put("a", b"1")
    assert abs(store.written("a") - time.time()) < 60
    with pytest.raises(FileNotFoundError):
        store.written("b")


def test_what_was_not_put_is_not(store: LocalStore) -> None:
    store.put("a/b/c.bin", memoryview(b""))
    assert not store.exists("a/b")
    assert not store.exists("a/b/d.bin")
    with pytest.raises(FileNotFoundError):
        store.get("a/d.bin")


def test_a_name_is_won_once(store: LocalStore) -> None:
    barrier = Barrier(16)

    def attempt(number: int) -> bool:
        barrier.wait()
        return store.create("runs/000001/start.json", str(number).encode())

    for _ in range(3):
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(attempt, range(16)))
        assert won.count(True) == 1
        assert store.get("runs/000001/start.json") == str(won.index(True)).encode()
        assert files(store) == ["runs/000001/start.json"]
        (store.root / "runs/000001/start.json").unlink()


def test_processes_race_as_threads_do(store: LocalStore) -> None:
    script = "import sys; from vlmdata.store import LocalStore; print(LocalStore(sys.argv[1]).create('x', b'1'))"
    racers = [subprocess.Popen([sys.executable, "-c", script, store.url], stdout=subprocess.PIPE) for _ in range(4)]
    assert sorted(racer.communicate()[0].decode().strip() for racer in racers) == ["False", "False", "False", "True"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_interrupted_write_leaves_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=os.strerror(number)):
        store.create("a/b.bin", b"bytes")
    assert files(store) == []
    assert not store.exists("a/b.bin")


def test_a_killed_writer_leaves_nothing_that_counts(store: LocalStore) -> None:
    script = (
        "import os, sys; from vlmdata.store import LocalStore\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), 9)\n"
        "LocalStore(sys.argv[1]).create('a/b.bin', b'bytes')"
    )
    assert subprocess.run([sys.executable, "-c", script, store.url], check=False).returncode == -9
    assert (store.list(""), store.children("a"), store.exists("a/b.bin")) == ([], [], False)
    assert store.create("a/b.bin", b"bytes")


def test_lists_are_sorted_and_below_the_prefix(store: LocalStore) -> None:
    for path in ("d/runs/000010/a.json", "d/runs/000002/b.json", "d/raw/x", "other/y"):
        store.put(path, b"")
    assert store.list("d/runs") == store.list("d/runs/") == ["d/runs/000002/b.json", "d/runs/000010/a.json"]
    assert store.children("") == ["d", "other"]
    assert store.children("d") == ["raw", "runs"]
    assert store.list("nowhere") == store.children("nowhere") == []


def test_a_name_can_be_replaced_and_deleted(store: LocalStore) -> None:
    store.replace("a/b", b"first")
    store.replace("a/b", b"second")
    assert (store.get("a/b"), files(store)) == (b"second", ["a/b"])
    for _ in range(2):
        store.delete("a/b")
    store.delete("nowhere/at/all")
    assert files(store) == []


def test_a_delete_below_a_file_is_harmless(store: LocalStore) -> None:
    store.put("a", b"")
    store.delete("a/b")
    assert files(store) == ["a"]


def test_a_replacement_that_is_interrupted_leaves_what_was_there(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"first")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="free space"):
        store.replace("a", b"second")
    assert (store.get("a"), files(store)) == (b"first", ["a"])


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_refused_before_anything_is_done(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    store.check(create=False)
    with pytest.raises(StoreError, match=r"makes no hard links .*; choose another store$"):
        store.check()
    assert list(tmp_path.iterdir()) == []


def test_a_check_leaves_nothing_behind(store: LocalStore) -> None:
    store.check()
    assert not store.root.exists()
    store.put("a", b"")
    store.check()
    assert files(store) == ["a"]


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_file_where_the_store_should_be(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    store = LocalStore(f"{tmp_path}/file{below}")
    for act in (store.check, lambda: store.create("a/b", b""), lambda: store.put("c", b"")):
        with pytest.raises(StoreError) as error:
            act()
        assert "\n" not in str(error.value)
        assert str(tmp_path / "file") in str(error.value)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        LocalStore(str(tmp_path / "store")).check()


@pytest.mark.parametrize("url", ["gs://bucket", "s3://", "s3:///", "http://x/y"])
def test_addresses_that_are_no_store(url: str) -> None:
    with pytest.raises(StoreError, match="expected a folder or s3://bucket/prefix"):
        open_store(url)


@pytest.mark.parametrize("url", ["/tmp/a\0b", "s3://bucket/\0", "file:///\0"])
def test_an_address_with_a_nul_is_one_line(url: str) -> None:
    with pytest.raises(StoreError, match="holds a NUL") as error:
        open_store(url)
    assert str(error.value).isprintable()


def test_an_error_names_the_key_that_holds_the_address() -> None:
    with pytest.raises(StoreError, match=r"^export\.path = 'gs://x'"):
        open_store("gs://x", "export.path")


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("s3://bucket/a/", S3Store, "s3://bucket/a"),
        ("/tmp/x", LocalStore, "/tmp/x"),
        ("file:///tmp/x", LocalStore, "/tmp/x"),
    ],
)
def test_addresses(url: str, kind: type[Any], shown: str) -> None:
    store = open_store(url)
    assert (type(store), store.url) == (kind, shown)


def test_home_and_relative_folders_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_store("~/s").url == open_store("./s").url == str(tmp_path / "s")


def test_a_folder_in_which_nothing_can_be_made_is_one_line() -> None:
    with pytest.raises(
        StoreError,
        match=r"^out: /proc/nothing/out: cannot be written \(No such file or directory\); choose another out$",
    ):
        LocalStore("/proc/nothing/out", "out").check(create=False)


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"out: .*File name too long"):
        LocalStore(str(tmp_path / ("x" * 300)), "out").check(create=False)
