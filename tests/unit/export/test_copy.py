"""A copy of an export that is killed, wherever it is: started again it ends the same, and sends nothing twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import ExportConfig
from vlmdata.errors import BuildIncomplete
from vlmdata.export.finish import finish_export
from vlmdata.export.formats import FORMATS
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.export.verify import verify
from vlmdata.store import LocalStore

Source = Callable[[int], dict[str, bytes]]
Cut = Callable[..., tuple[Dataset, list[Shard]]]
SETTINGS: dict[str, Any] = {"samples_per_shard": 2, "formats": tuple(FORMATS)}

KILLED = """
import os, sys
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import ExportConfig
from vlmdata.export.finish import finish_export
from vlmdata.export.formats import FORMATS
from vlmdata.store import LocalStore

url, name, out, when, *finals = sys.argv[1:]
left, replace = int(when), LocalStore.replace

def counted(store, path, data, **more):
    global left
    if store.url == out:
        left -= 1
        if left == -1:
            os.fsync = lambda _: os.kill(os.getpid(), 9)
    replace(store, path, data, **more)

LocalStore.replace = counted
shards = [Shard(str(number), 0, {"04_final": path}) for number, path in enumerate(finals)]
finish_export(Dataset(url, name), shards, ExportConfig(samples_per_shard=2, formats=tuple(FORMATS), path=out), {})
"""


@pytest.fixture
def exported(source: Source, cut: Cut) -> tuple[Dataset, list[Shard]]:
    """Three shards in every format."""
    dataset, shards = cut(source(5), 5)
    config = ExportConfig(**SETTINGS)
    done = [export_shard(dataset, shard, config) for shard in plan_export(dataset, shards, config)]
    finish_export(dataset, done, config, {})
    return dataset, done


def tree(folder: Path) -> dict[str, bytes]:
    """Every whole file below a folder: of one that was being written, no reader sees anything."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".part-"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Paths that are written over, in their order."""
    paths: list[str] = []
    replace = LocalStore.replace

    def counted(store: LocalStore, path: str, data: Any, **more: Any) -> None:
        paths.append(path)
        replace(store, path, data, **more)

    monkeypatch.setattr(LocalStore, "replace", counted)
    yield paths


@pytest.mark.parametrize("when", [0, 1, 7, 21])
def test_killed_in_a_copy_it_goes_on(
    exported: tuple[Dataset, list[Shard]], sent: list[str], tmp_path: Path, when: int
) -> None:
    dataset, done = exported
    out = tmp_path / "out"
    finals = [shard.manifests["04_final"] for shard in done]
    command = [sys.executable, "-c", KILLED, dataset.store_url, dataset.name, str(out), str(when), *finals]
    assert subprocess.run(command, check=False).returncode == -9
    left = tree(out)
    assert len(left) >= when - 3, "of the four that were under way"
    if when:
        with pytest.raises(BuildIncomplete, match="interrupted"):
            verify(str(out))
    sent.clear()
    finish_export(dataset, done, ExportConfig(**SETTINGS, path=str(out)), {})
    original = Path(dataset.store.locate(finish_export(dataset, done, ExportConfig(**SETTINGS), {})))
    assert tree(out) == tree(original) and verify(str(out)).holds
    assert [sent[0], *sent[-3:]] == ["MANIFEST.json", "README.md", "croissant.json", "MANIFEST.json"]
    assert {*left} & {*sent} <= {"MANIFEST.json", "README.md", "croissant.json"}, "what was there whole is left alone"
    sent.clear()
    finish_export(dataset, done, ExportConfig(**SETTINGS, path=str(out)), {})
    assert sent == []


def test_a_smaller_export_takes_the_place_of_a_larger_one_pictures_included(
    exported: tuple[Dataset, list[Shard]], source: Source, cut: Cut, tmp_path: Path
) -> None:
    dataset, done = exported
    out = tmp_path / "out"
    finish_export(dataset, done, ExportConfig(**SETTINGS, path=str(out)), {})
    mine = out / "llava/images/00002/mine.jpg"
    mine.write_bytes(b"mine")
    dataset, shards = cut(source(2), 2, "less")
    config = ExportConfig(**SETTINGS, path=str(out))
    less = [export_shard(dataset, shard, config) for shard in plan_export(dataset, shards, config)]
    finish_export(dataset, less, config, {})
    original = Path(dataset.store.locate(finish_export(dataset, less, ExportConfig(**SETTINGS), {})))
    assert tree(out) == {**tree(original), "llava/images/00002/mine.jpg": b"mine"}
