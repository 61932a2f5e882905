"""A training on an export that lies where it was built: which version of the set it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.training.conftest import Configured
from vlmdata.training.samples import open_samples
from vlmdata.training.story import story_of


def version_told(configured: Configured, data: str, out: Path) -> tuple[Any, Any]:
    """Set and version, as run.json has them."""
    out.mkdir(exist_ok=True)
    config = configured(data=data, validation_share=0.5)
    told = story_of(config, open_samples(config, out))["data"]
    return told["dataset"], told["version"]


def test_run_json_names_the_version_that_an_export_was_published_as(
    growing: Callable[..., Any], pictures: Any, configured: Configured, tmp_path: Path
) -> None:
    set_ = growing({f"a{n}.png": pictures.png(n) for n in range(12)}, export={"formats": ["webdataset"]})
    first = set_.publish()
    set_.add({f"b{n}.png": pictures.png(20 + n) for n in range(12)})
    second = set_.publish()
    assert (first.number, second.number) == (1, 2) and first.export != second.export
    store = set_.dataset.store
    for version in (first, second):
        where = store.locate(version.export)
        for data in (where, f"{where}/"):
            assert version_told(configured, data, tmp_path / f"out-{version.number}") == ("tiny", version.number)
    # A copy elsewhere is of that export, too, and nothing there says which version it was.
    shutil.copytree(store.locate(first.export), tmp_path / "copy")
    assert version_told(configured, str(tmp_path / "copy"), tmp_path / "out-copy") == ("tiny", None)
    # What lies around an export may be damaged, or nobody's to read: a training goes on without.
    store.replace("tiny/versions/000002.json", b"{")
    assert version_told(configured, store.locate(second.export), tmp_path / "out-2") == ("tiny", None)
