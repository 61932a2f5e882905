"""A disk that is full or refuses writes in the middle of an ingest: one line, a rerun ends as if nothing had been."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmdata.checkpoint import Dataset
from vlmdata.config import UrlsSource
from vlmdata.errors import StoreError
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.ingest.url_list import list_parts


@dataclass
class Disk:
    """A small disk of its own, mounted somewhere."""

    path: Path

    def remount(self, options: str) -> None:
        """Change its size, or whether it may be written to."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("only root can mount a small disk")
    yield Disk(path)
    subprocess.run(["umount", str(path)], check=True)


def noise(seed: int) -> bytes:
    """A picture that nothing makes smaller: about 120 kB."""
    with tempfile.SpooledTemporaryFile() as file:
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (200, 200, 3), np.uint8)).save(file, "PNG")
        file.seek(0)
        return file.read()


def tree(store: str) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in Path(store).rglob("*") if path.is_file()}


@pytest.mark.parametrize(("wrong", "right"), [("size=1000k", "size=64m"), ("ro", "rw")])
def test_a_rerun_goes_on_after_the_store_refused(
    tiny: Callable[..., Any], disk: Disk, tmp_path: Path, wrong: str, right: str
) -> None:
    files = {f"{number:02}.png": noise(number) for number in range(12)}
    made = tiny(files, {name: [name] for name in files}, shard_size=3, store=str(disk.path / "store"))
    shards = list_source(made.dataset, made.config)
    ingest_shard(made.dataset, shards[0], made.config)
    disk.remount(wrong)
    with pytest.raises(StoreError) as told:
        for shard in shards:
            ingest_shard(made.dataset, shard, made.config)
    assert told.value.exit_code == 2 and "\n" not in str(told.value) and str(disk.path) in str(told.value)
    disk.remount(right)
    made.ingested()
    other = type(made)(Dataset(str(tmp_path / "elsewhere"), "tiny"), made.config).ingested()
    assert tree(made.dataset.store_url) == tree(other.dataset.store_url), "nothing half written is left either"


def test_a_list_that_does_not_fit_among_temporary_files_is_said(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"url": f"http://a.example/{n}.jpg", "caption": os.urandom(40).hex()} for n in range(20_000)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    with pytest.raises(StoreError, match=rf"^{disk.path}: no space left .* set TMPDIR to another folder$"):
        list(list_parts(UrlsSource(path=str(tmp_path / "list.jsonl")), 1_000))
    disk.remount("size=64m")
    assert sum(rows.num_rows for _, rows in list_parts(UrlsSource(path=str(tmp_path / "list.jsonl")), 1_000)) == 20_000
