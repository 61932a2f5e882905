"""Data Docs of a run: every rule of every stage on one page that needs no network and runs no script.

The pages that Great Expectations builds fetch their styles, scripts and a logo
from other hosts, and tell nothing of samples that were counted before it looked.
This one is made of the same validation results, which lie beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import groupby

from expectations.verdict import Verdict, recorded
from vlmdata.layout import GATES_PAGE
from vlmdata.runs import Run

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif;
  --line: #d5d8dc; --quiet: #5b636b; --held: #1b6e3c; --warns: #8a5200; --stops: #b3261e; --broken: #fdf1ef; }
@media (prefers-color-scheme: dark) { :root {
  --line: #3c4249; --quiet: #a2abb4; --held: #7ed09d; --warns: #f0b35c; --stops: #ff9d94; --broken: #3a2220; } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0; } small, .quiet { color: var(--quiet); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 58rem; table-layout: fixed; }
th, td { padding: .45rem .9rem .45rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--quiet); font-size: .85rem; }
td { overflow-wrap: anywhere; } th:nth-child(1), th:nth-child(3) { width: 5.5rem; } th:nth-child(2) { width: 19rem; }
ul { padding-left: 0; list-style: none; } li { margin: .3rem 0; overflow-wrap: anywhere; }
tr.broken { background: var(--broken); }
.held { color: var(--held); } .warns { color: var(--warns); font-weight: 600; }
.stops { color: var(--stops); font-weight: 600; }
code { font: .82rem ui-monospace, monospace; }
"""
_SIGNS = {"held": "✓ held", "warns": "! warns", "stops": "✕ stops"}
_HEAD = "".join(f"<th scope=col>{name}" for name in ("verdict", "rule", "severity", "asked", "seen", "first few"))


def write_docs(run: Run) -> str | None:
    """Put the page beside a run that is about to end, however it ends; returns where people find it.

    None if no rule was judged. The page is written once: later verdicts are not on it.
    """
    every = recorded(run)
    return run.attach(GATES_PAGE, docs_page(run.dataset.name, run.number, every)) if every else None


def docs_page(dataset: str, run: int, every: Sequence[Verdict]) -> bytes:
    """A whole HTML page about the verdicts of a run."""
    title = f"Gates of {escape(dataset)}, run {run}"
    head = (
        "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style>"
    )
    suites = "".join(_suite(name, list(found)) for name, found in groupby(every, key=lambda one: one.suite))
    body = f"<h1>{title}</h1>{_summary(every)}{suites}"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>".encode()


def _summary(every: Sequence[Verdict]) -> str:
    counts = Counter(map(_fate, every))
    told = ", ".join(f"<span class={fate}>{counts[fate]} {fate}</span>" for fate in _SIGNS if counts[fate])
    rules = "1 rule" if len(every) == 1 else f"{len(every)} rules"
    broken = "".join(map(_item, (one for one in every if not one.held)))
    listed = f"<ul>{broken}</ul>" if broken else ""
    return (
        f"<p>Of {rules}: {told}. What stops lets nothing past it; what warns is said, and the run goes on.</p>{listed}"
    )


def _item(one: Verdict) -> str:
    fate, place = _fate(one), escape(one.suite)
    said = f"{escape(one.rule)}: {escape(one.asked)}; saw {escape(one.seen)}"
    return f"<li><span class={fate}>{_SIGNS[fate]}</span> <a href='#{place}'>{place}</a> {said}"


def _suite(name: str, found: Sequence[Verdict]) -> str:
    file = escape(f"{name}.json")
    rows = "".join(map(_row, found))
    return (
        f"<h2 id='{escape(name)}'>{escape(name)}</h2>"
        f"<div class=wide><table><thead><tr>{_HEAD}</thead><tbody>{rows}</tbody></table></div>"
        f"<p><small>As Great Expectations wrote it down: <a href='{file}'>{file}</a></small></p>"
    )


def _row(one: Verdict) -> str:
    fate = _fate(one)
    ids = "<br>".join(f"<code>{escape(name)}</code>" for name in one.ids)
    cells = [
        f"<span class={fate}>{_SIGNS[fate]}</span>",
        f"{escape(one.rule)}<br><small><code>{escape(one.expectation).replace('(', '(<wbr>', 1)}</code></small>",
        one.severity,
        escape(one.asked),
        escape(one.seen),
        ids or "<span class=quiet>–</span>",
    ]
    shown = " class=broken" if not one.held else ""
    return f"<tr{shown}>{''.join(f'<td>{cell}' for cell in cells)}"


def _fate(one: Verdict) -> str:
    if one.held:
        return "held"
    return "warns" if one.severity == "warn" else "stops"
