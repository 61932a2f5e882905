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


def test_what_is_worth_noting_stands_beside_the_bar_of_its_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    with progress_bars():
        progress.note(Step.CAPTIONED, "of no step yet")
        progress.begin(Step.CAPTIONED, 12)
        progress.advance(Step.CAPTIONED, 5)
        progress.note(Step.CAPTIONED, "$0.0003, 194 tokens")
        progress.advance(Step.CAPTIONED, 7)
        progress.note(Step.CAPTIONED, "$0.0006, 388 tokens")
        progress.note(Step.CAPTIONED, "")
        progress.end(Step.CAPTIONED)
    drawn = capsys.readouterr().err
    assert "of no step yet" not in drawn
    last = drawn.rpartition("02 caption")[2]
    assert last.startswith(" ($0.0006, 388 tokens)") and "12/12" in last


def test_where_nobody_watches_the_last_note_stands_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars():
        progress.begin(Step.CAPTIONED, 12)
        progress.note(Step.CAPTIONED, "$0.0003, 194 tokens")
        progress.note(Step.CAPTIONED, "$0.0006, 388 tokens")
        progress.end(Step.CAPTIONED)
    assert capsys.readouterr().err == "02 caption: 12 samples ($0.0006, 388 tokens)\n"


def test_a_bar_tells_images_a_second_and_when_it_will_be_done_however_long_a_step_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1"), ("COLUMNS", "120"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    now = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    with progress_bars():
        progress.begin("train", 40_960)
        for _ in range(3):
            now[0] += 600
            progress.done("train", 4_096)
            progress.note("train", "loss 4.509")
    shown = next(line for line in reversed(capsys.readouterr().err.splitlines()) if "12288/40960" in line)
    assert "loss 4.509" in shown and "6.8 images/s" in shown
    assert "1:10:0" in shown, "28,672 more at 6.8 a second: 70 minutes"
