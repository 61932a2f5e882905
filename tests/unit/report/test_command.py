"""`vlmdata report`: mistakes and full disks are one line, and no page is cut short."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.small_disk import PAGE, SmallDisk
from vlmdata import cli
from vlmdata.errors import StoreError
from vlmdata.report.ledger import ledger_of
from vlmdata.report.make import make_report
from vlmdata.runs import existing_run


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, str]]:
    """`vlmdata report` of a store: its exit code, and the one line that it said."""

    def _run(store: str, *more: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["vlmdata", "report", "--store", store, "--dataset", "tiny", *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        [line] = (said.out + said.err).splitlines()
        return ended.value.code, line

    return _run


def test_the_page_is_there_whole_or_not_at_all(small_disk: SmallDisk, story: Any, run: Any) -> None:
    target = small_disk.folder / "page.html"
    small_disk.leave(10)
    code, line = run(story.dataset.store_url, "--out", str(target))
    assert code == 2 and f"--out {target}: cannot be written (No space left on device)" in line
    assert os.listdir(small_disk.folder) == ["filler"]
    small_disk.leave(100)
    code, line = run(story.dataset.store_url, "--out", str(target))
    assert code == 0 and line.startswith(f"Wrote {target} (0.1 MB): run 1 of tiny.")
    assert target.read_bytes() == make_report(existing_run(story.dataset))
    assert target.stat().st_size > 10 * PAGE


def test_mistakes(story: Any, run: Any, tmp_path: Path) -> None:
    code, line = run(str(tmp_path))
    assert code == 2 and "dataset = 'tiny'" in line
    (tmp_path / "file").touch()
    code, line = run(story.dataset.store_url, "--out", str(tmp_path / "file" / "page.html"))
    assert code == 2 and "--out" in line


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
