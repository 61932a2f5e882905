"""A disk that is full while a report is made or written: one line, and no page that is cut short."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.small_disk import PAGE, SmallDisk
from vlmdata import cli
from vlmdata.errors import StoreError
from vlmdata.report.ledger import ledger_of
from vlmdata.report.make import make_report
from vlmdata.runs import existing_run


def test_the_page_is_there_whole_or_not_at_all(
    small_disk: SmallDisk, story: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = small_disk.folder / "page.html"
    words = ["vlmdata", "report", "--store", story.dataset.store_url, "--dataset", "tiny", "--out", str(target)]
    monkeypatch.setattr(sys, "argv", words)
    small_disk.leave(10)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"--out {target}: cannot be written (No space left on device)" in said.err
    assert os.listdir(small_disk.folder) == ["filler"]
    small_disk.leave(100)
    cli.app(words[1:], standalone_mode=False)
    assert target.read_bytes() == make_report(existing_run(story.dataset))
    assert target.stat().st_size > 10 * PAGE


def test_temporary_files_have_no_room(small_disk: SmallDisk, story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk.folder))
    for pages in (0, 3):
        small_disk.leave(pages)
        with pytest.raises(
            StoreError, match="no space left for the report's tables; free space, or set TMPDIR"
        ) as told:
            make_report(existing_run(story.dataset))
        assert "\n" not in str(told.value) and Path(small_disk.folder).name in str(told.value)
    assert os.listdir(small_disk.folder) == ["filler"]


def test_what_duckdb_says_when_nothing_more_fits_on_the_disk_is_told_as_that(story: Any) -> None:
    import duckdb

    with pytest.raises(StoreError, match="no space left"), ledger_of(existing_run(story.dataset)):
        raise duckdb.OutOfMemoryException("set by the 'max_temp_directory_size' setting")
    with pytest.raises(duckdb.OutOfMemoryException), ledger_of(existing_run(story.dataset)):
        raise duckdb.OutOfMemoryException("a query of ours is too large")
