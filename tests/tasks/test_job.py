"""Failures of ours travel through Prefect as named states, and come back as themselves."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
from prefect.states import Completed, Crashed, Failed

from tasks.job import Job, named_failures, raise_named, worth_retrying
from vlmdata import errors
from vlmdata.config_reading import parse_config
from vlmdata.errors import StoreError, UserError, VlmdataError

OURS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, VlmdataError)]
CONFIG = parse_config({"dataset": "set", "store": "/store", "source": {"kind": "folder", "path": "/p"}})


@pytest.mark.parametrize("kind", OURS)
def test_an_error_of_ours_comes_back_as_itself(kind: type[VlmdataError]) -> None:
    @named_failures
    def fail() -> None:
        raise kind("one line")

    state: Any = fail()
    assert (state.name, state.message, state.is_failed()) == (kind.__name__, "one line", True)
    with pytest.raises(VlmdataError, match="one line") as caught:
        raise_named(state)
    assert caught.type is kind
    assert worth_retrying(None, None, state) == (kind is StoreError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "state", [Completed(), Failed(), Crashed(), Failed(name="OSError"), Completed(name="ConfigError")]
)
def test_other_states_pass(state: Any) -> None:
    raise_named(state)


@pytest.mark.parametrize("state", [Failed(), Crashed(), Failed(name="TimedOut")])
def test_what_failed_on_our_side_is_tried_again(state: Any) -> None:
    assert worth_retrying(None, None, state)  # type: ignore[arg-type]


def test_other_errors_stay_errors() -> None:
    @named_failures
    def fail() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()


def test_what_succeeds_is_handed_on() -> None:
    @named_failures
    def work(a: int, *, b: int) -> int:
        """Adds."""
        return a + b

    assert (work(1, b=2), work.__name__, work.__doc__) == (3, "work", "Adds.")


def test_a_job_is_two_values_that_travel() -> None:
    job = pickle.loads(pickle.dumps(Job(CONFIG, 7)))
    assert (job.dataset.store_url, job.dataset.name, job.run.number) == ("/store", "set", 7)


def test_exit_codes() -> None:
    assert {kind.__name__: kind.exit_code for kind in OURS} == {
        "VlmdataError": 1,
        "UserError": 2,
        "ConfigError": 2,
        "SourceError": 2,
        "StoreError": 2,
        "GateFailed": 3,
        "NeedsCleaning": 3,
        "BuildIncomplete": 4,
        "Overtaken": 4,
        "HeldByOther": 4,
        "DoesNotHold": 1,
        "Diverged": 1,
        "BrokenInvariant": 1,
    }
    assert issubclass(errors.StoreError, UserError)
