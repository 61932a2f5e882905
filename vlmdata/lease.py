"""A lease on a dataset: who works on it now, and until when at the latest.

A courtesy, so that two nights do not do the same work side by side. What makes
two of them safe is the conditional put of the next version: a lease that was
taken twice, or that a stopped clock kept, costs work and nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import HeldByOther, StoreError

SECONDS = 300.0
"""How long a lease outlives whoever was killed."""
_RENEWALS = 3
"""In the time that a lease lasts."""

_log = logging.getLogger(__name__)


class _Lease(BaseModel):
    model_config = ConfigDict(frozen=True)

    token: str
    holder: str
    since: datetime
    until: datetime


@contextmanager
def leased(dataset: Dataset, holder: str, seconds: float = SECONDS) -> Iterator[None]:
    """Hold the dataset for as long as the block runs; the lease is renewed meanwhile, and given back after it.

    Args:
        holder: Who it is, for whoever finds it held; the machine and the process are added.
        seconds: How long it lasts without being renewed.

    Raises:
        HeldByOther: somebody else holds it; says who, and until when.
    """
    lease = _take(dataset, f"{holder} on {socket.gethostname()}, process {os.getpid()}", seconds)
    over = Event()
    renewing = Thread(target=_renew, args=(dataset, lease, seconds, over), name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        _give_back(dataset, lease)


def _take(dataset: Dataset, holder: str, seconds: float) -> _Lease:
    now = datetime.now(UTC)
    mine = _Lease(token=uuid4().hex, holder=holder, since=now, until=now + timedelta(seconds=seconds))
    path = layout.lease_path(dataset.name)
    if not dataset.store.create(path, _bytes(mine)):
        _refuse(dataset, _read(dataset))
        dataset.store.replace(path, _bytes(mine))
    found = _read(dataset)
    if found is not None and found.token != mine.token:
        _refuse(dataset, found)
    return mine


def _refuse(dataset: Dataset, lease: _Lease | None) -> None:
    """Raise HeldByOther unless the lease has ended."""
    if lease is None or lease.until <= datetime.now(UTC):
        return
    since, until = (moment.isoformat(timespec="seconds") for moment in (lease.since, lease.until))
    raise HeldByOther(
        f"dataset {dataset.name!r}: {lease.holder} has been at it since {since}; "
        f"wait for its end, or, if it was killed, until {until}"
    )


def _renew(dataset: Dataset, lease: _Lease, seconds: float, over: Event) -> None:
    while not over.wait(seconds / _RENEWALS):
        try:
            found = _read(dataset)
            if found is None or found.token != lease.token:
                return
            lease = lease.model_copy(update={"until": datetime.now(UTC) + timedelta(seconds=seconds)})
            dataset.store.replace(layout.lease_path(dataset.name), _bytes(lease))
        except StoreError as error:
            _log.warning("the lease could not be renewed, and another run may begin: %s", error)


def _give_back(dataset: Dataset, lease: _Lease) -> None:
    found = _read(dataset)
    if found is not None and found.token == lease.token:
        dataset.store.delete(layout.lease_path(dataset.name))


def _read(dataset: Dataset) -> _Lease | None:
    """The lease that is there; one that cannot be read binds nobody."""
    try:
        return _Lease.model_validate_json(dataset.store.get(layout.lease_path(dataset.name)))
    except (FileNotFoundError, ValidationError):
        return None


def _bytes(lease: _Lease) -> bytes:
    return lease.model_dump_json().encode()
