"""Where exports went that are not in the store: a withdrawal cannot reach them, and says so."""

from __future__ import annotations

import json
from hashlib import sha256

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.runs import Run
from vlmdata.store import open_store


def remember(dataset: Dataset, place: str) -> None:
    """An export is about to be copied to a folder or URL: from now on something of it may be there."""
    name = sha256(place.encode()).hexdigest()[:32]
    dataset.store.create(layout.outside_path(dataset.name, name), json.dumps({"place": place}).encode())


def outside(dataset: Dataset) -> list[str]:
    """All such places that are known; runs of earlier versions of this software told them at their end alone."""
    folder = layout.outside_path(dataset.name, "").rpartition("/")[0]
    copies = [json.loads(dataset.store.get(path))["place"] for path in dataset.store.list(folder)]
    runs = [Run(dataset, int(name)) for name in dataset.store.children(layout.runs_prefix(dataset.name))]
    ended = [run for run in runs if (run.read("end") or {}).get("export")]
    paths = [((run.read("start") or {}).get("config", {}).get("export") or {}).get("path") for run in ended]
    return sorted({*copies, *(open_store(path).url for path in paths if path)})
