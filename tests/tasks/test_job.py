"""Failures of ours travel through Prefect as named states, and come back as themselves."""

from __future__ import annotations

import inspect
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prefect.states import Completed, Crashed, Failed

from tasks.job import PAGES_URL, Job, address_of, as_words, named_failures, pages_url, raise_named, worth_retrying
from vlmdata import errors
from vlmdata.config_reading import parse_config
from vlmdata.errors import ConfigError, StoreError, UserError, VlmdataError

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


def test_what_strangers_wrote_is_no_markup_in_a_table() -> None:
    rows = [{"value": "![x](https://elsewhere.example/p.png) `<b>`", "count": 3}, {"value": None, "count": 4}]
    assert as_words(rows, "value") == [
        {"value": "`![x](https://elsewhere.example/p.png) '<b>'`", "count": 3},
        {"value": None, "count": 4},
    ]


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


PAGE = "set/runs/000001/a gate.html"


def test_pages_are_linked_where_people_see_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / PAGE
    page.parent.mkdir(parents=True)
    page.write_text("every rule")
    assert address_of(str(page), str(tmp_path)) == page.as_uri()
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(PAGES_URL, f"http://127.0.0.1:{server.server_port}/")
        with urlopen(address_of(str(page), str(tmp_path))) as answer:
            assert answer.read() == b"every rule"
        server.shutdown()


@pytest.mark.parametrize("store", ["s3://bucket/sets", "s3://bucket/sets/"])
def test_pages_of_a_bucket_are_linked_without_a_signature(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f"s3://bucket/sets/{PAGE}"
    assert address_of(page, store) == page
    monkeypatch.setenv(PAGES_URL, "https://pages.example/x")
    assert address_of(page, store) == "https://pages.example/x/set/runs/000001/a%20gate.html"


@pytest.mark.parametrize(
    "url",
    ["pages.example", "s3://bucket", "https://", "https://me:secret@pages.example", "https://pages.example/?sig=1"],
)
def test_an_address_that_may_not_be_shown_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PAGES_URL, url)
    with pytest.raises(ConfigError, match=PAGES_URL) as caught:
        pages_url()
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
