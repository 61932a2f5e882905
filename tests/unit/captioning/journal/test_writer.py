"""Whether a process that left a request open runs no more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.journal.writer import is_gone, this_writer

SAY = "from vlmdata.captioning.journal.writer import this_writer as w; print(w(), flush=True); input()"


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        process.kill()


def test_this_process_is_here() -> None:
    assert not is_gone(this_writer())
    assert this_writer() == this_writer()


def test_another_is_here_until_it_ends(child: tuple[subprocess.Popen[str], str]) -> None:
    process, name = child
    assert not is_gone(name) and name != this_writer()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name), "a zombie sends nothing"
    process.wait()
    assert is_gone(name)


def test_a_number_that_was_given_to_another_process_is_another_process() -> None:
    place, number, start = this_writer().rsplit(":", 2)
    assert is_gone(f"{place}:{number}:{int(start) - 1}")


@given(st.text())
def test_of_another_place_nothing_is_known(name: str) -> None:
    assert not is_gone(name)


@pytest.mark.parametrize("changed", ["another-boot/{}", "{}-other", "?{}"])
def test_of_another_machine_nothing_is_known(changed: str) -> None:
    place, _, _ = this_writer().rsplit(":", 2)
    assert not is_gone(f"{changed.format(place)}:1:1")
