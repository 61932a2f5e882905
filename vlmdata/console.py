"""What the terminal shows: bars while a build runs, tables when it is done; plain where nobody watches."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
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
from rich.table import Column, Table
from rich.text import Text

from vlmdata import progress
from vlmdata.funnel import COLUMNS, LANGUAGE_COLUMNS, languages, rows, why
from vlmdata.layout import Stage, Step

if TYPE_CHECKING:
    import pyarrow as pa

    from vlmdata.captioning.plan import CaptionPlan
    from vlmdata.config import CaptionConfig

_LABELS: dict[str, str] = {
    Step.RAW: "00 ingest",
    Step.FACTS: "01 decode and hash",
    Step.LOOKS: "01 look at what is close",
    Step.FILTERED: "01 filter",
    Step.CAPTIONED: "02 caption",
    Step.SCORES: "03 embed and score",
    Step.CHECKED: "03 judge",
    Step.FINAL: "04 export",
}


_PIPE_WIDTH = 200
"""Where nobody watches there is no edge to keep to, and a number cut short is none."""


def _label(step: str, *, before: bool) -> str:
    """A step that comes back does so for what is held."""
    return f"{_LABELS.get(step, step)}{' again' if before else ''}"


class _Rate(ProgressColumn):
    """Pictures a second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed) if speed else "", style="progress.data.speed")


def _rate(speed: float) -> str:
    return f"{speed:,.0f} images/s" if speed >= 10 else f"{speed:,.2g} images/s"


_SHORTEST_BAR, _LONGEST_BAR, _BESIDE_A_BAR = 4, 40, 74
"""Columns of a terminal: what a narrow one has too few of, the bar goes without."""
_LOOKED_BACK_S = 3_600
"""Of a training's steps there may be one in minutes."""


class Bars(progress.Listener):
    """One bar a step; `say` shows what goes on before there are bars."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._bars: dict[str, Any] = {}
        self._within: dict[str, int] = {}
        self._whole: dict[str, int] = {}
        self._note: Any = None
        self._labels: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Replace the line that says what goes on."""
        if self._note is not None:
            self._shown.remove_task(self._note)
        self._note = self._shown.add_task(text, total=None)

    def begin(self, step: str, total: int) -> None:
        if self._note is not None:
            self._shown.remove_task(self._note)
            self._note = None
        self._labels[step] = _label(step, before=step in self._bars)
        self._bars[step] = self._shown.add_task(self._labels[step], total=total)
        self._within[step] = self._whole[step] = 0

    def advance(self, step: str, samples: int) -> None:
        if step in self._bars:
            self._within[step] += samples
            self._draw(step)

    def done(self, step: str, samples: int) -> None:
        if step in self._bars:
            self._whole[step] += samples
            self._draw(step)

    def note(self, step: str, text: str) -> None:
        if step in self._bars and text:
            self._shown.update(self._bars[step], description=f"{self._labels[step]} ({text})")

    def _draw(self, step: str) -> None:
        self._shown.update(self._bars[step], completed=max(self._within[step], self._whole[step]))


class Lines(Bars):
    """One plain line when a step is over, for logs and pipes."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._notes: dict[str, str] = {}
        self._over: set[str] = set()

    def say(self, text: str) -> None:
        """Nothing: nobody watches."""

    def begin(self, step: str, total: int) -> None:
        self._totals[step] = total

    def advance(self, step: str, samples: int) -> None:
        """Nothing: nobody watches."""

    def done(self, step: str, samples: int) -> None:
        """Nothing: nobody watches."""

    def note(self, step: str, text: str) -> None:
        self._notes[step] = text

    def end(self, step: str) -> None:
        note = f" ({self._notes[step]})" if self._notes.get(step) else ""
        sys.stderr.write(f"{_label(step, before=step in self._over)}: {self._totals[step]} samples{note}\n")
        self._over.add(step)


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
        BarColumn(max(_SHORTEST_BAR, min(_LONGEST_BAR, console.width - _BESIDE_A_BAR))),
        MofNCompleteColumn(),
        _Rate(Column(no_wrap=True)),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=_LOOKED_BACK_S) as shown:
        bars = Bars(shown)
        with progress.listening(bars):
            yield bars


def print_funnel(told: dict[str, Any]) -> None:
    """The funnel, why samples fell out, and where the export lies."""
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    for table in funnel_tables(told):
        console.print(table)
    if spent := _spent(told):
        print_lines([spent])
    warnings = told.get("warnings", ())
    if told.get("retrieval") and told["retrieval"]["sentence"] not in warnings:
        print_lines([_capitalized(told["retrieval"]["sentence"])])
    print_lines([f"Warning: {warning}" for warning in warnings])
    if told.get("message"):
        print_lines([told["message"]])
    if told.get("version"):
        print_lines([f"Version: {told['version']}"])
    for name in ("export", "gates", "report"):
        if told.get(name):
            print_lines([f"{name.capitalize()}: {told[name]}"])


def _capitalized(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _spent(told: dict[str, Any]) -> str | None:
    """What captions took, if anything."""
    spent = told["stages"].get(Stage.CAPTIONED.value, {}).get("spent")
    if not spent or not spent["requests"]:
        return None
    tokens = f"{spent['input_tokens']:,} input and {spent['output_tokens']:,} output tokens"
    money = "" if spent["cost"] is None else f", {dollars(spent['cost'])}"
    return f"Spent on captions, over all runs: {_several(spent['requests'], 'request')}, {tokens}{money}"


def funnel_tables(told: dict[str, Any]) -> list[Table]:
    """The funnel; and, if there are any, the reasons, and what was measured by language."""
    title = f"{told['dataset']}, run {told['run']}: {told['outcome']}"
    if told.get("unchanged"):
        title += " (nothing has changed since, so nothing was done)"
    tables = [_table(title, COLUMNS, rows(told))]
    if reasons := why(told):
        tables.append(_table("Why not kept", ("stage", "what", "reason", "number"), reasons))
    if told.get("languages"):
        tables.append(_table("How well captions match", LANGUAGE_COLUMNS, languages(told)))
    return tables


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
    several = [("languages, a caption in each", f"{plan.languages:,}")] if plan.languages > 1 else []
    asked = [
        ("pictures that want a caption", f"{plan.pictures:,}"),
        *several,
        ("answered already, and paid for", f"{plan.answered:,}"),
        ("failed for good, or out of requests", f"{plan.failed:,}"),
        ("to ask, a request each", f"{plan.requests:,}"),
    ]
    takes = [
        ("input tokens, about", f"{plan.input_tokens:,}"),
        ("output tokens, about", f"{plan.output_tokens:,}"),
        ("cost, about", dollars(plan.cost)),
        ("cost at most", dollars(plan.cost_at_worst)),
        ("time, about", _duration(plan.minutes)),
    ]
    print_lines([f"Captions by {config.model or 'no model yet (caption.model is not set)'}:"])
    print_figures(asked + (takes if plan.requests else []))
    if plan.paid_requests or plan.max_cost is not None or plan.max_requests is not None:
        print_lines(["The dataset's account, over all runs:"])
        print_figures(_account(plan))
    print_lines(_remarks(plan, config))


def _account(plan: CaptionPlan) -> list[tuple[str, str]]:
    limits = [
        ("requests sent", plan.paid_requests, "caption.max_requests", plan.max_requests, _count),
        ("spent", plan.paid_cost, "caption.max_cost", plan.max_cost, dollars),
    ]
    return [
        (name, told(spent) + ("" if limit is None else f" of {told(limit)} ({key})"))
        for name, spent, key, limit, told in limits
    ]


def _remarks(plan: CaptionPlan, config: CaptionConfig) -> list[str]:
    from vlmdata.captioning.again import times_again

    lines = []
    if not plan.fits:
        lines.append("That is more than the limits allow: a build would stop before it, and end with exit code 4.")
    if plan.requests and plan.cost is None:
        lines.append(f"No price: set caption.prices.{config.model} to {{input: …, output: …}}, for a million tokens.")
    if times := times_again(config):
        lines.append(f"Not in it: samples that are held are asked about anew, up to {times}x (caption.recaption_held).")
    return lines


def print_figures(figures: Sequence[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in figures)
    print_lines([f"  {name:<{width}}  {value}" for name, value in figures])


def _count(number: float | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def dollars(amount: float | None) -> str:
    """Cents where it is dollars; where it is less, four figures that count."""
    if amount is None:
        return "unknown"
    figures = Decimal(f"{amount:.4g}")
    return f"${amount:,.2f}" if figures >= 1 or amount == 0 else f"${figures:f}"


def _duration(minutes: float) -> str:
    if minutes < 1:
        return "under a minute"
    return f"{minutes:,.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def print_failures(rows: pa.Table) -> None:
    """The ledger: how many of each kind, then a line a failure."""
    failed = rows.to_pylist()
    if not failed:
        print_lines(["No failure of that kind in the newest run."])
        return
    kinds = Counter((row["stage"], row["class"]) for row in failed)
    print_lines([f"{_several(len(failed), 'failure')}: {', '.join(f'{s} {c} {n:,}' for (s, c), n in kinds.items())}"])
    columns = ("stage", "class", "id", "http", "requests", "message")
    names = ("stage", "class", "id", "http_status", "attempts", "message")
    body = [[_cell(row[name]) for name in names] for row in failed]
    for row in body:
        # The beginning is enough for `explain`, and leaves the line to the message.
        row[columns.index("id")] = row[columns.index("id")][:12]
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    table = _table("", columns, body)
    table.columns[-1].no_wrap, table.columns[-1].overflow = False, "fold"
    console.print(table)


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def print_retry(tried: pa.Table, failed: int) -> None:
    """What a retry will do, and what it will not."""
    lost = failed - tried.num_rows
    why = f"{_several(lost, 'failure')} would only happen again, as the picture is what it is" if lost else ""
    if tried.num_rows:
        print_lines([f"Trying {_several(tried.num_rows, 'failure')} again{'; ' + why if why else ''}."])
    else:
        print_lines([f"Nothing to retry: {why or 'no failure of that kind in the newest run'}."])


def _several(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def print_versions(rows: Sequence[dict[str, Any]]) -> None:
    """Every published version, newest last."""
    head = ("version", "published", "run", "samples", "added", "removed", "changed", "export")
    body = [tuple(_number_or_text(row[name]) for name in head) for row in rows]
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    console.print(_table("Versions", head, body))


def _number_or_text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_lines(lines: Sequence[str]) -> None:
    """Plain lines, never wrapped, so that a path can be copied."""
    for line in lines:
        sys.stdout.write(visible(line) + "\n")


def visible(text: str) -> str:
    """Text from strangers, with what would command a terminal (escapes, bidi overrides) written out."""
    return "".join(_written_out(letter) if unicodedata.category(letter) in {"Cc", "Cf"} else letter for letter in text)


def _written_out(letter: str) -> str:
    # Joiners belong to the spelling of some languages and of emoji.
    return letter if letter in "\u200c\u200d" else letter.encode("unicode_escape").decode()
