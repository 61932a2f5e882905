"""What a run's tasks share, and how their failures reach people."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote, urlsplit

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import FailedRun
from prefect.states import Failed

from vlmdata import errors
from vlmdata.checkpoint import Dataset
from vlmdata.config import BuildConfig
from vlmdata.errors import ConfigError, StoreError, VlmdataError
from vlmdata.export.markdown import code
from vlmdata.runs import Run
from vlmdata.store import open_store

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Job:
    """One run of one config: small, and safe to send anywhere."""

    config: BuildConfig
    number: int

    @property
    def dataset(self) -> Dataset:
        """Where its checkpoints are."""
        return dataset_of(self.config)

    @property
    def run(self) -> Run:
        """Its records."""
        return Run(self.dataset, self.number)


def dataset_of(config: BuildConfig) -> Dataset:
    """The dataset that a config builds."""
    return Dataset(config.store, config.dataset)


def named_failures(function: Callable[P, R]) -> Callable[P, R]:
    """Turn this library's errors into a failed state of their name and one line.

    So people read a reason, not a traceback, and `raise_named` finds the error again.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return function(*args, **kwargs)
        except VlmdataError as error:
            return Failed(name=type(error).__name__, message=str(error))

    return wrapped


class _OneLine(logging.Filter):
    """Prefect's engine adds a traceback of its own to a run that a worker ran and that ended failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(error := record.exc_info[1], FailedRun):
            record.msg, record.args, record.exc_info = str(error), (), None
        return True


for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_OneLine())


def raise_named(state: State[Any]) -> None:
    """Raise the library error that a failed state stands for, if it stands for one."""
    kind = getattr(errors, state.name or "", None)
    if state.is_failed() and isinstance(kind, type) and issubclass(kind, VlmdataError):
        raise kind(state.message or "")


def worth_retrying(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """Prefect repeats what failed on our side, the store included; a user's mistake stays one."""
    return getattr(errors, state.name or "", None) in {None, StoreError}


SHARD: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [1, 10],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": worth_retrying,
    # The store is the only cache: a checkpoint's name says whether work is done.
    "cache_policy": NO_CACHE,
}
"""Settings of a task that works on one shard."""

ONCE: dict[str, Any] = {**SHARD, "retries": 1}
"""Settings of a task that runs once in a build."""


PAGES_URL = "VLMDATA_PAGES_URL"
"""The variable that holds the address under which people's browsers find what is in the store."""


def address_of(page: str, store: str) -> str:
    """Where a browser finds a page of the store: below `PAGES_URL` if that is set, else where it lies.

    Who reads it there is up to who serves that address: a link that grants anything is never made.
    """
    base, root = pages_url(), open_store(store).locate("")
    if base and page.startswith(root):
        return f"{base}/{quote(page.removeprefix(root).lstrip('/'))}"
    return Path(page).as_uri() if Path(page).is_absolute() else page


def pages_url() -> str | None:
    """`PAGES_URL` without a slash at its end, or None.

    Raises:
        ConfigError: it is no address that may be shown to everybody.
    """
    url = os.environ.get(PAGES_URL, "").strip().rstrip("/")
    parts = urlsplit(url)
    plain = parts.scheme in {"http", "https"} and parts.netloc and "@" not in parts.netloc
    if url and (not plain or parts.query or parts.fragment):
        raise ConfigError(
            f"{PAGES_URL}: expected http(s)://host/path without a user, a query or a fragment, as it becomes part of "
            "links that everybody sees; correct it or unset it"
        )
    return url or None


def artifact_key(job: Job, name: str) -> str:
    """Artifact keys may hold lower-case letters, digits and dashes only."""
    text = f"{job.config.dataset}-{name}".lower()
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)


def as_words(rows: Sequence[Mapping[str, Any]], *columns: str) -> list[dict[str, Any]]:
    """A table artifact's rows, with what strangers wrote as code: Prefect reads each cell as markdown."""
    return [
        {name: code(value) if name in columns and value is not None else value for name, value in row.items()}
        for row in rows
    ]
