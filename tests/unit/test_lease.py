"""A lease: one holder at a time, known by name; whoever was killed loses it in the end."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest

from vlmdata.checkpoint import Dataset
from vlmdata.errors import HeldByOther
from vlmdata.layout import lease_path
from vlmdata.lease import leased


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "set")


def test_the_second_learns_who_is_at_it(dataset: Dataset) -> None:
    with leased(dataset, "flow run owl"):
        refused = pytest.raises(
            HeldByOther, match=r"dataset 'set': flow run owl on .*, process \d+ has been at it since 2"
        )
        with refused as told, leased(dataset, "flow run cat"):
            pass
    assert told.value.exit_code == 4
    with leased(dataset, "flow run cat"):
        pass


def test_it_is_given_back_when_the_work_fails(dataset: Dataset) -> None:
    with pytest.raises(RuntimeError), leased(dataset, "one"):
        raise RuntimeError
    assert not dataset.store.exists(lease_path("set"))


def test_it_is_renewed_while_the_work_goes_on(dataset: Dataset) -> None:
    with leased(dataset, "one", seconds=0.6):
        time.sleep(1.5)
        with pytest.raises(HeldByOther), leased(dataset, "two"):
            pass


def test_what_a_killed_one_held_ends(dataset: Dataset) -> None:
    with ExitStack() as stack:
        stack.enter_context(leased(dataset, "killed"))
        left = json.loads(dataset.store.get(lease_path("set")))
    left["until"] = (datetime.fromisoformat(left["since"]) - timedelta(seconds=1)).isoformat()
    dataset.store.replace(lease_path("set"), json.dumps(left).encode())
    with leased(dataset, "next"):
        assert b"next on" in dataset.store.get(lease_path("set"))


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"token": 1}'])
def test_a_lease_that_cannot_be_read_binds_nobody(dataset: Dataset, damaged: bytes) -> None:
    dataset.store.replace(lease_path("set"), damaged)
    with leased(dataset, "next"):
        pass
    assert not dataset.store.exists(lease_path("set"))


def test_of_many_at_once_one_holds_it(dataset: Dataset) -> None:
    barrier = Barrier(8)

    def night(number: int) -> bool:
        barrier.wait()
        try:
            with leased(Dataset(dataset.store_url, dataset.name), f"night {number}"):
                time.sleep(0.5)
        except HeldByOther:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(night, range(8))) == 1
