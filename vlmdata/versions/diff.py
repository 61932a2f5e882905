"""Two versions side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vlmdata.checkpoint import Dataset
from vlmdata.health.drift import Moved, drift
from vlmdata.health.render import moved_as_lines
from vlmdata.health.saved import load
from vlmdata.runs import Run
from vlmdata.versions.changes import changes
from vlmdata.versions.version import Changes, Version, read_version


@dataclass(frozen=True)
class Difference:
    """What moved from one version to another.

    Attributes:
        before: The one.
        after: The other.
        changes: Samples that the other has and the one has not, and so on.
        moved: How the figures of their health differ; empty where one has none on record.
    """

    before: Version
    after: Version
    changes: Changes
    moved: list[Moved]

    def as_dict(self) -> dict[str, Any]:
        """`{"before", "after", "samples", "added", "removed", "changed", "health"}`."""
        return {
            "before": self.before.number,
            "after": self.after.number,
            "samples": [self.before.samples, self.after.samples],
            **self.changes.model_dump(),
            "health": [asdict(each) for each in self.moved],
        }


def compare(dataset: Dataset, before: int, after: int) -> Difference:
    """Two versions, by number.

    Raises:
        ConfigError: there is no such version.
    """
    one, other = read_version(dataset, before), read_version(dataset, after)
    then, now = (load(Run(dataset, version.run)) for version in (one, other))
    moved = drift(then, now) if then and now and then.stage == now.stage else []
    return Difference(one, other, changes(dataset, one.shards, other.shards), moved)


def as_lines(found: Difference) -> list[str]:
    """What people read."""
    moved, one, other = found.changes, found.before, found.after
    counts = f"{moved.added:,} added, {moved.removed:,} removed, {moved.changed:,} changed"
    head = f"Version {one.number} to {other.number}: {one.samples:,} to {other.samples:,} samples; {counts}"
    return [head, *moved_as_lines(found.moved)]
