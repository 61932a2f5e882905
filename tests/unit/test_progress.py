"""Progress is heard by whoever listens, and costs nothing if nobody does."""

from __future__ import annotations

import pytest

from vlmdata import progress
from vlmdata.console import progress_bars
from vlmdata.layout import Step


class Ear(progress.Listener):
    def __init__(self) -> None:
        self.samples = 0

    def advance(self, step: Step, samples: int) -> None:
        self.samples += samples


def test_only_those_that_listen_hear() -> None:
    first, second = Ear(), Ear()
    progress.advance(Step.RAW, 1)
    with progress.listening(first), progress.listening(second):
        progress.advance(Step.RAW, 2)
    with pytest.raises(ValueError, match="out"), progress.listening(second):
        progress.advance(Step.RAW, 4)
        raise ValueError("out")
    progress.advance(Step.RAW, 8)
    assert (first.samples, second.samples) == (2, 6)


def test_where_nobody_watches_there_is_one_plain_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as bars:
        bars.say("unheard")
        progress.begin(Step.FACTS, 12)
        progress.advance(Step.FACTS, 5)
        progress.done(Step.FACTS, 12)
        progress.end(Step.FACTS)
    assert capsys.readouterr().err == "01 decode and hash: 12 samples\n"


def test_bars_take_any_order_of_events(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress_bars() as bars:
        bars.say("first")
        bars.say("second")
        progress.advance(Step.RAW, 3)
        progress.begin(Step.RAW, 10)
        progress.advance(Step.RAW, 3)
        progress.done(Step.RAW, 10)
        progress.end(Step.RAW)
    assert "10/10" in capsys.readouterr().err
