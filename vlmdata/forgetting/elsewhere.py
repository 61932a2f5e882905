"""Other datasets of the store that hold what was forgotten here: named, with what takes it out of them."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import DoesNotHold

Held = Sequence[tuple[str, Sequence[str]]]
"""Path of an object, and the sha256 of what it holds."""
_MOST_NAMED = 8
"""Digests, or objects, in one line; those that are left are named when it is asked for again."""


def require_nowhere_else(dataset: Dataset, held: Held) -> None:
    """Raise unless no object of the store that is not the dataset's holds what was forgotten.

    Raises:
        DoesNotHold: one does; says which, and how to take it out.
    """
    if not held:
        return
    more = f" and {len(held) - 1:,} more objects of the store hold" if held[1:] else " holds"
    raise DoesNotHold(
        f"{dataset.store.locate(held[0][0])}{more} a picture that was forgotten in {dataset.name!r}, which is done "
        f"but not proven: {'; '.join(_steps(dataset, held))}; then this command again"
    )


def _steps(dataset: Dataset, held: Held) -> Iterator[str]:
    """A command for each dataset; what is no dataset's is for whoever put it there to delete."""
    by_owner = defaultdict[str, list[tuple[str, Sequence[str]]]](list)
    for path, digests in held:
        name = path.partition("/")[0]
        by_owner[name if dataset.store.children(layout.runs_prefix(name)) else ""].append((path, digests))
    for name, theirs in sorted(by_owner.items()):
        if name:
            digests = sorted({digest for _, each in theirs for digest in each})[:_MOST_NAMED]
            named = " ".join(f"--sha256 {digest}" for digest in digests)
            yield f"vlmdata forget --store {shlex.quote(dataset.store_url)} --dataset {name} {named}"
        else:
            yield f"delete {', '.join(dataset.store.locate(path) for path, _ in theirs[:_MOST_NAMED])}"
