"""The disk of temporary files: what goes wrong with it is said in one line, whoever says it first."""

from __future__ import annotations

import errno
import os
import tempfile

import duckdb
import pytest

from vlmdata.errors import StoreError
from vlmdata.ingest.web.spill import spill
from vlmdata.scratch import scratch, temporary_file_errors

FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EROFS, os.strerror(errno.EROFS)),
    duckdb.IOException('IO Error: Could not write file "/t/rows.duckdb.wal": No space left on device'),
    duckdb.OutOfMemoryException("failed to offload data block of size 256.0 KiB\nlimit 'max_temp_directory_size'"),
    ValueError("LanceError(IO): write failed (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_said_in_one_line(error: Exception) -> None:
    with pytest.raises(StoreError, match=r"no space left .* set TMPDIR to another folder$") as told, scratch():
        raise error
    assert told.value.exit_code == 2 and "\n" not in str(told.value) and tempfile.gettempdir() in str(told.value)


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "x"), StoreError("No space left on device")]
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as told, scratch():
        raise error
    assert told.value is error


def test_bodies_without_room_are_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StoreError, match="set TMPDIR to another folder"), spill():
        pass


def test_no_place_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    with pytest.raises(StoreError, match=r"^temporary files: no space left or not to be written"), scratch():
        pass
    with pytest.raises(StoreError, match="set TMPDIR"), temporary_file_errors():
        tempfile.gettempdir()
