"""What others spend is told here."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.unit.captioning.test_plan import COST, write_down
from vlmdata import progress
from vlmdata.captioning.journal.book import Account
from vlmdata.captioning.questions import Asker
from vlmdata.captioning.watching import spending_told, spent_so_far
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.errors import StoreError
from vlmdata.layout import Step


class Ear(progress.Listener):
    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.something = threading.Event()

    def note(self, step: str, text: str) -> None:
        self.heard.append((step, text))
        if text:
            self.something.set()


@pytest.mark.parametrize(
    ("account", "told"),
    [
        (Account(), ""),
        (Account(settled=0, input_tokens=1_000, output_tokens=20), "1,020 tokens"),
        (Account(settled=5 * COST, input_tokens=1, output_tokens=1), "$0.0008, 2 tokens"),
    ],
)
def test_money_and_tokens_where_there_are_any(account: Account, told: str) -> None:
    assert spent_so_far(account) == told


def test_what_another_process_writes_down_is_heard_while_it_asks_and_at_the_end(tmp_path: Path) -> None:
    dataset, asker, ear = Dataset(str(tmp_path / "store"), "set"), Asker.of(CaptionConfig(model="m")), Ear()
    with progress.listening(ear), spending_told(dataset, every_s=0.01):
        write_down(dataset, asker, {"a" * 64: "A caption."})
        assert ear.something.wait(30)
        assert ear.heard[-1] == (Step.CAPTIONED, "$0.0002, 97 tokens")
        write_down(dataset, asker, {"b" * 64: "A caption."})
    assert ear.heard[-1] == (Step.CAPTIONED, "$0.0003, 194 tokens")


def test_a_store_that_cannot_be_read_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("no")

    monkeypatch.setattr("vlmdata.captioning.watching.run", refuse)
    monkeypatch.setattr("vlmdata.captioning.watching._account", lambda _: None)
    ear = Ear()
    with progress.listening(ear), spending_told(Dataset(str(tmp_path), "set")):
        pass
    assert ear.heard == []
