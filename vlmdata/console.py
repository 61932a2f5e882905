"""What the terminal shows: bars while a build runs, tables when it is done; plain where nobody watches."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from vlmdata import progress
from vlmdata.funnel import COLUMNS, rows, why
from vlmdata.layout import Step

if TYPE_CHECKING:
    import pyarrow as pa

    from vlmdata.captioning.plan import CaptionPlan
    from vlmdata.config import CaptionConfig

_LABELS = {
    Step.RAW: "00 ingest",
    Step.FACTS: "01 decode and hash",
    Step.FILTERED: "01 filter",
    Step.CAPTIONED: "02 caption",
    Step.SCORES: "03 embed and score",
    Step.CHECKED: "03 judge",
    Step.FINAL: "04 export",
}


_PIPE_WIDTH = 200
"""Where nobody watches there is no edge to keep to, and a number cut short is none."""


class _Rate(ProgressColumn):
    """Samples a second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")


class Bars(progress.Listener):
    """One bar a step; `say` shows what goes on before there are bars."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._bars: dict[Step, Any] = {}
        self._within: dict[Step, int] = {}
        self._whole: dict[Step, int] = {}
        self._note: Any = None

    def say(self, text: str) -> None:
        """Replace the line that says what goes on."""
        if self._note is not None:
            self._shown.remove_task(self._note)
        self._note = self._shown.add_task(text, total=None)

    def begin(self, step: Step, total: int) -> None:
        if self._note is not None:
            self._shown.remove_task(self._note)
            self._note = None
        self._bars[step] = self._shown.add_task(_LABELS.get(step, step), total=total)
        self._within[step] = self._whole[step] = 0

    def advance(self, step: Step, samples: int) -> None:
        if step in self._bars:
            self._within[step] += samples
            self._draw(step)

    def done(self, step: Step, samples: int) -> None:
        if step in self._bars:
            self._whole[step] += samples
            self._draw(step)

    def note(self, step: Step, text: str) -> None:
        if step in self._bars and text:
            self._shown.update(self._bars[step], description=f"{_LABELS.get(step, step)} ({text})")

    def _draw(self, step: Step) -> None:
        self._shown.update(self._bars[step], completed=max(self._within[step], self._whole[step]))


class Lines(Bars):
    """One plain line when a step is over, for logs and pipes."""

    def __init__(self) -> None:
        self._totals: dict[Step, int] = {}
        self._notes: dict[Step, str] = {}

    def say(self, text: str) -> None:
        """Nothing: nobody watches."""

    def begin(self, step: Step, total: int) -> None:
        self._totals[step] = total

    def advance(self, step: Step, samples: int) -> None:
        """Nothing: nobody watches."""

    def done(self, step: Step, samples: int) -> None:
        """Nothing: nobody watches."""

    def note(self, step: Step, text: str) -> None:
        self._notes[step] = text

    def end(self, step: Step) -> None:
        note = f" ({self._notes[step]})" if self._notes.get(step) else ""
        sys.stderr.write(f"{_LABELS.get(step, step)}: {self._totals[step]} samples{note}\n")


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show this process's progress on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = Lines()
        with progress.listening(lines):
            yield lines
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:
        bars = Bars(shown)
        with progress.listening(bars):
            yield bars


def print_funnel(told: dict[str, Any]) -> None:
    """The funnel, why samples fell out, and where the export lies."""
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    for table in funnel_tables(told):
        console.print(table)
    if told.get("message"):
        print_lines([told["message"]])
    if told.get("export"):
        print_lines([f"Export: {told['export']}"])


def funnel_tables(told: dict[str, Any]) -> list[Table]:
    """The funnel, and the reasons if there are any."""
    title = f"{told['dataset']}, run {told['run']}: {told['outcome']}"
    if told.get("unchanged"):
        title += " (nothing has changed since, so nothing was done)"
    reasons = why(told)
    tables = [_table(title, COLUMNS, rows(told))]
    return [*tables, _table("Why not kept", ("stage", "what", "reason", "number"), reasons)] if reasons else tables


def _table(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(head):
        numeric = all(row[position][:1].isdigit() or row[position] == "–" for row in body) and position > 0
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in body:
        table.add_row(*(escape(visible(cell)) for cell in row))
    return table


def print_plan(plan: CaptionPlan, config: CaptionConfig) -> None:
    """What captions will take, a line a figure."""
    figures = [
        ("pictures that want a caption", f"{plan.pictures:,}"),
        ("answered already, and paid for", f"{plan.answered:,}"),
        ("failed for good, or out of requests", f"{plan.failed:,}"),
        ("requests to send", f"{plan.requests:,}"),
        ("input tokens, about", f"{plan.input_tokens:,}"),
        ("output tokens, about", f"{plan.output_tokens:,}"),
        ("cost, about", _dollars(plan.cost)),
        ("cost at the very worst, of one request each", _dollars(plan.cost_at_worst)),
        ("time, about", f"{plan.minutes:,.1f} min"),
        ("spent so far, in all runs", f"{_dollars(plan.paid_cost)}, {plan.paid_requests:,} requests"),
    ]
    limits = [("caption.max_cost", config.max_cost), ("caption.max_requests", config.max_requests)]
    figures += [(name, f"{value:,}") for name, value in limits if value is not None]
    width = max(len(name) for name, _ in figures)
    print_lines([f"Captions by {config.model or 'no model yet'}:", *(f"  {n:<{width}}  {v}" for n, v in figures)])
    if not plan.fits:
        print_lines(["That is more than the limits allow: the run would stop before it, and end with exit code 4."])


def _dollars(amount: float | None) -> str:
    return "unknown (caption.prices has no price for this model)" if amount is None else f"${amount:,.4f}"


def print_failures(rows: pa.Table) -> None:
    """The ledger, a line a failure."""
    columns = ("stage", "class", "id", "http_status", "attempts", "time", "message")
    body = [[_cell(row[name]) for name in columns] for row in rows.to_pylist()]
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    console.print(_table(f"{len(body)} failures", columns, body))


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return "–" if value is None else str(value)


def print_lines(lines: Sequence[str]) -> None:
    """Plain lines, never wrapped, so that a path can be copied."""
    for line in lines:
        sys.stdout.write(visible(line) + "\n")


def print_story(story: dict[str, Any]) -> None:
    """A sample's story: a heading a stage, a line a fact."""
    console = Console(soft_wrap=True)
    console.print(f"[bold]{escape(story['id'])}[/]  {escape(visible(story['key']))}")
    for stage in story["stages"]:
        console.print(f"\n[bold]{stage['stage']}[/]  {escape(stage['outcome'])}")
        for name, value in stage["facts"].items():
            console.print(f"  {escape(name)}: {escape(_text(value))}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return "".join(f"\n    - {_text(item)}" for item in value) if value else "none"
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))


def visible(text: str) -> str:
    """Text from strangers, with what would command a terminal (escapes, bidi overrides) written out."""
    return "".join(_written_out(letter) if unicodedata.category(letter) in {"Cc", "Cf"} else letter for letter in text)


def _written_out(letter: str) -> str:
    # Joiners belong to the spelling of some languages and of emoji.
    return letter if letter in "\u200c\u200d" else letter.encode("unicode_escape").decode()
