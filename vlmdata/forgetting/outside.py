"""Where exports went that are not in the store: a withdrawal cannot reach them, and says so."""

from __future__ import annotations

import json
from hashlib import sha256

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.runs import Run


def remember(dataset: Dataset, place: str, version: int) -> None:
    """A version was copied to a folder or URL."""
    name = sha256(f"{place} {version}".encode()).hexdigest()[:32]
    told = {"place": place, "version": version}
    dataset.store.create(layout.outside_path(dataset.name, name), json.dumps(told).encode())


def outside(dataset: Dataset) -> list[str]:
    """All such places that are known."""
    folder = layout.outside_path(dataset.name, "").rpartition("/")[0]
    copies = [json.loads(dataset.store.get(path))["place"] for path in dataset.store.list(folder)]
    runs = [Run(dataset, int(name)) for name in dataset.store.children(layout.runs_prefix(dataset.name))]
    ended = [run for run in runs if (run.read("end") or {}).get("export")]
    paths = [((run.read("start") or {}).get("config", {}).get("export") or {}).get("path") for run in ended]
    return sorted({*copies, *(path for path in paths if path)})
