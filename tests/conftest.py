"""What holds for every test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test sets in the environment ends with it: a command run in this process quiets Prefect, for one."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def pytest_unconfigure() -> None:
    """Prefect's server says goodbye after the streams that were captured have closed; nobody wants to read that."""
    logging.raiseExceptions = False
