"""Published versions, as people list them."""

from __future__ import annotations

from typing import Any

from vlmdata.checkpoint import Dataset
from vlmdata.export.finish import locate_export
from vlmdata.runs import existing_run
from vlmdata.versions.version import numbers, read_version


def list_versions(dataset: Dataset) -> list[dict[str, Any]]:
    """`{"version", "parent", "run", "published", "samples", "captions", "added", "removed", "changed", "export"}` each.

    Raises:
        ConfigError: the store has no run of this dataset.
    """
    found = [read_version(dataset, number) for number in numbers(dataset)]
    if not found:
        existing_run(dataset)
    return [
        {
            "version": version.number,
            "parent": version.parent,
            "run": version.run,
            "published": version.published,
            "samples": version.samples,
            "captions": version.captions,
            **version.changes.model_dump(),
            "export": locate_export(dataset.store, version.export),
        }
        for version in found
    ]
