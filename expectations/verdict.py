"""What Great Expectations found, as people read it: one verdict a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expectations.rule import number
from vlmdata.config import Severity
from vlmdata.layout import GATES, Stage
from vlmdata.runs import Run

RUN = "run"
"""What the suite over a whole run is called; the others are called as their stages are."""
_UNSAID = {"batch_id", "column"}


@dataclass(frozen=True)
class Verdict:
    """How one rule of one suite fared.

    Attributes:
        suite: The stage, or `run`.
        rule: Its name.
        severity: What happens if it does not hold.
        held: Whether it does.
        expectation: Which expectation judged it, with its settings.
        asked: What must hold.
        seen: What was seen, in a few words.
        ids: The first few rows that break it.
    """

    suite: str
    rule: str
    severity: Severity
    held: bool
    expectation: str
    asked: str
    seen: str
    ids: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        named = f": {', '.join(self.ids)}" if self.ids else ""
        verb = "held" if self.held else "did not hold"
        return f"{self.suite}: {self.rule}: {self.expectation} {verb}: {self.asked}; saw {self.seen}{named}"


def verdicts(results: Mapping[str, Any]) -> list[Verdict]:
    """One a rule, in their order."""
    return [_verdict(results["suite_name"], one) for one in results["results"]]


def record_name(suite: str) -> str:
    """What a run's record of a suite is called."""
    return f"{GATES}/{suite}"


def recorded(run: Run) -> list[Verdict]:
    """Every verdict of a run so far, stage by stage, then those of the whole."""
    found = [run.read(record_name(suite)) for suite in (*(stage.value for stage in Stage), RUN)]
    return [verdict for results in found if results is not None for verdict in verdicts(results)]


def _verdict(suite: str, one: Mapping[str, Any]) -> Verdict:
    config = one["expectation_config"]
    about = config["meta"]
    return Verdict(
        suite=suite,
        rule=about["rule"],
        severity="warn" if config["severity"] == "warning" else "stop",
        held=bool(one["success"]),
        expectation=_call(config),
        asked=about["asked"],
        seen=_seen(one["result"]["observed_value"], about),
        ids=tuple(about["ids"]),
    )


def _call(config: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in config["kwargs"].items() if name not in _UNSAID and value is not None}
    said = [config["kwargs"]["column"], *(f"{name}={number(value)}" for name, value in settings.items())]
    return f"{config['type']}({', '.join(said)})"


def _seen(value: float | None, about: Mapping[str, Any]) -> str:
    """A count or share of rows, with what they measure; or a figure alone."""
    if about["of"] is None or value is None:
        return number(value)
    amount = f"{value:.1%}" if about["share"] else number(value)
    what = f"{amount} of {number(about['of'])} {about['unit']}"
    return f"{', '.join(about['seen'])} in {what}" if about["seen"] else what
