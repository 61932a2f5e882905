"""What holds for every test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    # Before torch is imported, and for what is started, too: two threads a core for each of two workers wait for each
    # other more than they do (models of tests took twice as long).
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test sets in the environment ends with it: a command run in this process quiets Prefect, for one."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


LONG = (
    "test_nightly",
    "test_report",
    "test_training",
    "test_prefect",
    "test_retry",
    "test_forget",
    "test_engines",
    "test_kill",
    "test_retrieval",
    "test_gates",
)
"""Files that take a minute or more; two workers each take one of them after the other, and small ones at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long first, or one worker does it alone while the others have nothing left."""
    first = {name: place for place, name in enumerate(LONG)}

    def place(item: pytest.Item) -> tuple[int, bool]:
        here = "integration" in item.path.parts
        return first.get(item.path.stem, len(LONG)) if here else len(LONG), not here

    items.sort(key=place)


def pytest_unconfigure() -> None:
    """Prefect's server says goodbye after the streams that were captured have closed; nobody wants to read that."""
    logging.raiseExceptions = False
