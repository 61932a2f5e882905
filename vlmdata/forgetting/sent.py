"""Pictures on their way to a captioner by link: made smaller, and so known by what they were made of."""

from __future__ import annotations

from collections.abc import Collection

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.forgetting.who import each


def scrub_sent(dataset: Dataset, digests: Collection[str]) -> int:
    """Delete what was made of these originals (sha256), whether or not its link has ended; returns how many."""
    sent = dataset.store.list(layout.sent_picture(dataset.name, "").rstrip("/"))
    theirs = [path for path in sent if layout.original_of_sent(path) in digests]
    each(dataset.store.delete, theirs)
    return len(theirs)
