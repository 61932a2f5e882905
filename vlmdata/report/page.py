"""The page: one HTML file with its style, its script, its charts and its data; nothing is fetched from anywhere."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

from vlmdata import funnel
from vlmdata.console import visible
from vlmdata.health import plots
from vlmdata.report.overview import Overview
from vlmdata.report.training import HEAD, Trained

_LONGEST_TABLE = 60
_LONGEST_CELL = 200
_CURVES = "Losses, learning rate, logit scale, gradient norms, alignment and uniformity by step; retrieval by epoch"

SERVED = "img-src 'self' data:; connect-src 'self'"
ALONE = "img-src data:"


def about(seen: Overview, training: Trained | None = None) -> dict[str, str]:
    """What the page says of the whole run, as HTML by its place in the template; draws the charts."""
    return {
        "title": _text(f"{seen.told['dataset']}, run {seen.told['run']}"),
        "dataset": _text(seen.told["dataset"]),
        "about": _about(seen),
        "tiles": _tiles(seen),
        "funnel": _figure("The funnel", plots.funnel(seen.told), funnel.COLUMNS, funnel.rows(seen.told)),
        "reasons": _figure("Why not kept", "", ("stage", "what", "reason", "number"), funnel.why(seen.told)),
        "said": _said(seen),
        "health": _health(seen),
        "alignment": _alignment(seen),
        "drift": _drift(seen),
        "training": _training(training),
    }


def page(told: Mapping[str, str], data: Mapping[str, Any], may: str = ALONE) -> bytes:
    """A whole HTML page.

    Args:
        told: What `about` says.
        data: What the script shows: samples, galleries, choices.
        may: Where pictures and data may come from, as a Content-Security-Policy says it.
    """
    template, style, script = map(_file, ("page.html", "style.css", "script.js"))
    own = f"style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"default-src 'none'; {may}; {own}; base-uri 'none'; form-action 'none'"
    parts = {**told, "policy": policy, "style": style, "script": script, "data": as_script(data)}
    return _filled(template, parts).encode()


def _file(name: str) -> str:
    return files("vlmdata.report").joinpath("page", name).read_text("utf-8")


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """`{{name}}` replaced once each, so that nothing in a part is taken for a name."""
    pieces = template.split("{{")
    rest = (piece.split("}}", 1) for piece in pieces[1:])
    return pieces[0] + "".join(parts[name] + text for name, text in rest)


def as_script(data: Any) -> str:
    """JSON that ends no script element and starts no comment, whatever strangers wrote in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    # A lone surrogate is no UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _text(text: object) -> str:
    """As HTML shows it; what would turn or hide letters is written out."""
    return escape(visible(str(text)))


def _about(seen: Overview) -> str:
    told = seen.told
    version = f", published as version {told['version']}" if told["version"] else ""
    ended = f" on {seen.ended[:16].replace('T', ' ')} UTC" if seen.ended else ""
    return _text(f"Run {told['run']}: {told['outcome']}{ended}{version}.")


def _tiles(seen: Overview) -> str:
    stages, figures = seen.told["stages"], seen.health.figures
    came = stages["00_raw"]["in"]
    kept = stages["04_final"]["kept"] or int(figures["images"] or 0)
    captions, score, copies = figures["captions"] or 0, figures["mean_score"], figures["duplicates_removed"] or 0
    tiles = [
        (f"{came:,}", "samples came in"),
        (f"{kept:,}", f"were kept, {kept / came:.1%}" if came else "were kept"),
        (f"{captions:,.0f}", f"captions, {captions / kept:.1f} a picture" if kept else "captions"),
        (f"{copies:,.0f}", "near-duplicates removed"),
        ("–" if score is None else f"{score:.3f}", "mean best CLIPScore"),
    ]
    return "".join(f"<div><dd>{_text(value)}</dd><dt>{_text(name)}</dt></div>" for value, name in tiles)


def _said(seen: Overview) -> str:
    """What the run itself said: how pictures found their captions, what did not hold."""
    told = seen.told
    lines = [*([told["message"]] if told["message"] else []), *told["warnings"]]
    if told["retrieval"] and told["retrieval"]["sentence"] not in lines:
        lines.append(told["retrieval"]["sentence"])
    return (
        f"<ul class=said>{''.join(f'<li>{_text(line)[:2_000]}' for line in lines[:_LONGEST_TABLE])}</ul>"
        if lines
        else ""
    )


def _health(seen: Overview) -> str:
    health = seen.health
    drawn = [
        ("Shorter side", plots.sizes(health), ("px", "pictures"), "size"),
        ("Aspect ratio", plots.aspect_ratios(health), ("shape", "pictures"), "aspect_ratio"),
        ("Length of captions", plots.caption_lengths(health), ("words", "captions"), "words"),
        ("Languages", plots.languages(health), ("language", "captions"), "language"),
        ("Sources", plots.sources(health), ("source", "pictures"), "source"),
        ("Licences", "", ("licence", "pictures"), "license"),
        ("Who wrote the captions", "", ("origin", "captions"), "origin"),
    ]
    return "".join(_figure(title, svg, head, _distribution(seen, what)) for title, svg, head, what in drawn)


def _distribution(seen: Overview, what: str) -> list[tuple[str, str]]:
    return [("not stated" if value is None else value, f"{n:,}") for value, n in seen.health.distribution(what).items()]


def _alignment(seen: Overview) -> str:
    scores = plots.scores(seen.health)
    rows = [
        (row["language"], row["model"], f"{row['low']:.2f}", f"{row['high']:.2f}", f"{row['count']:,}")
        for row in seen.health.scores.to_pylist()
    ]
    figure = _figure("Scores by language", scores, ("language", "judged by", "from", "to", "captions"), rows, most=400)
    pairs = _figure("Each pair of languages", "", funnel.LANGUAGE_COLUMNS, funnel.languages(seen.told))
    return f"<div class='beside narrow'>{figure}{pairs}</div>"


def _drift(seen: Overview) -> str:
    parts = []
    if seen.changes:
        one = seen.changes
        words = f"{one.added:,} samples added, {one.removed:,} removed, {one.changed:,} changed in this version."
        parts.append(f"<p>{words}</p>")
    if not seen.moved:
        why = f"Nothing moved since {seen.since}." if seen.since else "There is nothing to compare with yet."
        return "".join([*parts, f"<p>{_text(why)}</p>"])
    rows = [
        (
            one.name.replace("_", " "),
            ("not stated" if one.value is None else one.value) if one.psi is not None else "–",
            *(_share(value) if one.psi is not None else _number(value) for value in (one.before, one.now)),
            _number(one.psi),
            "over the bound" if one.over else "",
        )
        for one in seen.moved
    ]
    head = ("what", "moved most", "before", "now", "PSI", "")
    return "".join(
        [*parts, f"<p>Beside {_text(seen.since)}.</p>", _figure("What moved", plots.drifts(seen.moved), head, rows)]
    )


def _training(training: Trained | None) -> str:
    """A section of its own; nothing, if no training is shown."""
    if training is None:
        return ""
    said = "".join(f"<p>{_text(line)[:2_000]}</p>" for line in training.about[:_LONGEST_TABLE])
    drawn = ""
    if training.curves:
        image = f'<img src="data:image/png;base64,{b64encode(training.curves).decode()}" alt="{_CURVES}">'
        drawn = f"<figure><figcaption>Curves</figcaption>{image}</figure>"
    recall = _figure("Retrieval of held-out pictures after each epoch", "", HEAD, training.rows[-_LONGEST_TABLE:])
    title = "<h2>What a model learned from it</h2>"
    return f'<section id="training" data-name="Training">{title}{said}{recall}{drawn}</section>'


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"


def _figure(
    title: str, svg: str, head: Sequence[str], rows: Sequence[Sequence[str]], most: int = _LONGEST_TABLE
) -> str:
    """A chart with the table that it was drawn from; the table alone, if there is no chart."""
    if not rows:
        return ""
    table = _table(head, rows, most)
    body = f"{svg}<details><summary>As a table</summary>{table}</details>" if svg else table
    return f"<figure><figcaption>{_text(title)}</figcaption>{body}</figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int = _LONGEST_TABLE) -> str:
    if not rows:
        return ""
    shown = [list(map(_cell, row)) for row in rows[:most]]
    lines = "".join(f"<tr>{''.join(row)}" for row in shown)
    titles = "".join(f"<th scope=col>{_text(name)}" if name else "<td>" for name in head)
    more = f"<p class=quiet>{len(rows) - most:,} more</p>" if len(rows) > most else ""
    table = f"<table><thead><tr>{titles}<tbody>{lines}</table>"
    return f"<div class=wide tabindex=0 role=group aria-label=Table>{table}</div>{more}"


def _cell(text: str) -> str:
    number = text[:1].isdigit() or text[:1] in "–-"
    return f"<td{' class=n' if number else ''}>{_text(_short(text))}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"
