"""A disk that is full, wherever an export has come to: one line, nothing that looks done, and a rerun goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.small_disk import SmallDisk
from vlmdata import cli
from vlmdata.checkpoint import Dataset
from vlmdata.config import ExportConfig
from vlmdata.errors import BuildIncomplete, StoreError
from vlmdata.export.finish import finish_export
from vlmdata.export.formats import FORMATS
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.export.verify import verify

Source = Callable[[int], dict[str, bytes]]
Cut = Callable[..., Any]
SETTINGS: dict[str, Any] = {"samples_per_shard": 2, "formats": tuple(FORMATS)}
STEP = 7
"""Pages that are free at each attempt: fewer than a shard takes in all formats."""


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def until_done(disk: SmallDisk, work: Callable[[], Any]) -> tuple[int, Any]:
    """Work with a little more room each time; how often there was too little, and what came of it in the end."""
    for failures in range(100):
        disk.leave(STEP)
        try:
            return failures, work()
        except StoreError as error:
            assert error.exit_code == 2 and "No space left on device; free space" in str(error)
            assert "\n" not in str(error) and str(disk.folder) in str(error)
        assert not [path for path in disk.folder.rglob("*") if path.name.startswith(".part-")]
    raise AssertionError("it never came to an end")


def export(dataset: Dataset, shards: Any, path: str | None = None) -> Path:
    config = ExportConfig(**SETTINGS, path=path)
    done = [export_shard(dataset, shard, config) for shard in plan_export(dataset, shards, config)]
    return Path(dataset.store.locate(finish_export(dataset, done, config, {})))


def test_in_the_store(small_disk: SmallDisk, source: Source, cut: Cut) -> None:
    whole = export(*cut(source(5), 5))
    dataset, shards = cut(source(5), 5, "disk/store")

    def work() -> Path:
        assert not [*small_disk.folder.rglob("MANIFEST.json")], "that would say that all is there"
        return export(dataset, shards)

    failures, place = until_done(small_disk, work)
    assert failures > 5
    assert tree(place) == tree(whole) and verify(str(place)).holds


def test_in_a_copy(small_disk: SmallDisk, source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(5), 5)
    whole, out = export(dataset, shards), small_disk.folder / "out"

    def work() -> Path:
        if (out / "MANIFEST.json").exists():
            with pytest.raises(BuildIncomplete, match="interrupted"):
                verify(str(out))
        return export(dataset, shards, str(out))

    failures, _ = until_done(small_disk, work)
    assert failures > 5
    assert tree(out) == tree(whole) and verify(str(out)).holds


def test_the_command_says_so_in_one_line(
    small_disk: SmallDisk, growing: Any, pictures: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = growing({f"{n}.png": pictures.png(n) for n in range(4)})
    night.publish()
    target = small_disk.folder / "out"
    words = ["vlmdata", "export", "1", "--store", night.dataset.store_url, "--dataset", "tiny", "--to", str(target)]
    monkeypatch.setattr(sys, "argv", words)
    small_disk.leave(3)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    progress, line = said.err.splitlines()
    assert (ended.value.code, said.out, progress) == (2, "", "04 export: 4 samples")
    assert line.startswith("vlmdata: ") and "No space left on device; free space" in line
    small_disk.leave(100)
    cli.app(words[1:], standalone_mode=False)
    assert verify(str(target)).holds
