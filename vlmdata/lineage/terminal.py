"""A sample's story for people: a heading a stage, a line a fact; what the next stage repeats is left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from vlmdata.console import dollars, visible
from vlmdata.layout import Stage
from vlmdata.lineage.rules import NEAR

Row = dict[str, Any]
_LABEL = 17
"""Columns of the names of facts."""
_LEAST = 40
"""Columns that a value has, however narrow the terminal."""
_MARKS = {
    "kept": ("✓", "green"),
    "passed": ("✓", "green"),
    "accepted": ("✓", "green"),
    "captioned": ("✓", "green"),
    "answered": ("✓", "green"),
    "held": ("~", "yellow"),
    "rejected": ("✗", "red"),
    "failed": ("✗", "red"),
    "not asked": ("·", "dim"),
}


@dataclass(frozen=True)
class Line:
    """One fact: its name, what it is, and whether it is good."""

    name: str
    value: str
    outcome: str = ""


def print_story(story: Row) -> None:
    """The whole story; wrapped to a terminal, a line a fact where nobody watches."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(Text.assemble((visible(story["key"]), "bold"), "  ", story["id"]))
    for sentence in _heading(story):
        console.print(Text(sentence, "dim"))
    for stage in story["stages"]:
        mark, style = _MARKS.get(stage["outcome"], ("·", ""))
        console.print()
        console.print(Text.assemble((f"{mark} {stage['stage']}  {stage['outcome']}", f"bold {style}")))
        for line in _LINES[Stage(stage["stage"])](stage["facts"], stage["rules"]):
            _print(console, line)


def _print(console: Console, line: Line) -> None:
    mark, style = _MARKS.get(line.outcome, (" ", ""))
    value = Text(visible(line.value), "dim" if line.outcome == "not asked" else "")
    width = max(console.width - _LABEL - 5, _LEAST)
    parts: Sequence[Text] = list(value.wrap(console, width)) if sys.stdout.isatty() else [value]
    for number, part in enumerate(parts or [Text()]):
        name = f"{visible(line.name):<{_LABEL}}" if number == 0 else " " * _LABEL
        console.print(Text.assemble("  ", (mark if number == 0 else " ", style), " ", (name, "cyan"), part))


def _heading(story: Row) -> Iterator[str]:
    version = f", version {story['version']}" if story.get("version") else ", not published"
    spans = [f"{_fate(one)} in {_span(one)}" for one in story.get("versions", ())]
    yield f"run {story['run']}{version}; {'; '.join(spans) or 'in no version'}"
    if story.get("note"):
        yield story["note"]


def _fate(one: Row) -> str:
    return f"{one['outcome']} ({one['stage']}: {one['code']})" if one.get("code") else str(one["outcome"])


def _span(one: Row) -> str:
    return f"version {one['from']}" if one["from"] == one["to"] else f"versions {one['from']} to {one['to']}"


def _raw(facts: Row, rules: Sequence[Row]) -> Iterator[Line]:
    yield from _named(facts, {"url": "address", "source": "read from", "license": "licence"})
    if fetched := facts.get("fetched"):
        yield Line("fetched", _listed(fetched))
    if "bytes" in facts:
        yield Line("bytes", f"{facts['bytes']:,} in shard {facts['shard']}")
    yield from _named(facts, {"sha256": "sha256", "extra": "extra"})
    yield from _reason(facts, ("code", "detail"))
    yield from map(_caption, facts.get("captions", ()))
    yield from map(_caption, facts.get("captions not kept", ()))


def _filtered(facts: Row, rules: Sequence[Row]) -> Iterator[Line]:
    if "width" in facts:
        more = "" if facts.get("frames", 1) == 1 else f", the first of {facts['frames']} frames"
        turned = "" if facts.get("orientation", 1) == 1 else f", turned upright from EXIF {facts['orientation']}"
        hashed = f", pHash {facts['phash']}" if "phash" in facts else ""
        yield Line(
            "picture", f"{facts['format']} {facts['mode']}, {facts['width']} x {facts['height']}{hashed}{more}{turned}"
        )
    for rule in rules:
        yield Line(rule["rule"], _rule(rule), rule["outcome"])
        for other in rule.get("displaced", ()):
            yield Line("  displaced", f"{other['key']}, {_bits(other['distance'])} away")
    yield from _reason(facts)
    yield from (_caption(one) for one in facts.get("captions", ()) if one["origin"].startswith("duplicate:"))
    yield from map(_caption, facts.get("captions not kept", ()))


def _rule(rule: Row) -> str:
    if rule["rule"] == NEAR:
        return _near(rule)
    words = {
        "min_side": "{} px, at least {}",
        "decodes": "{} pixels, at most {}",
        "longest_caption": "{} characters, at most {}",
    }
    if rule["value"] is None:
        return ""
    return words.get(rule["rule"], "{}, at most {}").format(_number(rule["value"]), _number(rule["bound"]))


def _near(rule: Row) -> str:
    bound = _number(rule["bound"])
    if rule["outcome"] == "rejected":
        return f"{_bits(rule['value'])} from {rule['key'] or rule['related']}, which stays; the bound is {bound}"
    if rule["value"] is None:
        return "" if rule["outcome"] == "not asked" else f"nothing that stays is within {bound} bits"
    near = f"the nearest that stays is {_bits(rule['value'])} away, {rule['key'] or rule['related']}"
    seen = f", or looks alike (cosine {rule['confirm']})" if "confirm" in rule else ""
    return f"nothing that stays is within {bound} bits{seen}; {near}"


def _bits(distance: float) -> str:
    return f"{_number(distance)} bit{'' if distance == 1 else 's'}"


def _captioned(facts: Row, rules: Sequence[Row]) -> Iterator[Line]:
    for one in facts.get("asked", ()):
        version = f" v{one['prompt_version']} ({one['prompt_digest']})" if "prompt_name" in one else ""
        what = f"{one.get('model', 'a model')} with {one.get('prompt_name', 'a prompt')}{version}"
        again = f", again (take {one['again']})" if one.get("again") else ""
        yield Line("asked", f"{what}{again}: {one['outcome']}, {_spent(one)}", one["outcome"])
        if one.get("message"):
            yield Line("  message", one["message"])
        sent = one.get("requests_sent", ())
        for request in sent if len(sent) > 1 else ():
            yield Line(f"  request {request['attempt']}.{request['request']}", _request(request), request["outcome"])
    yield from _reason(facts)
    yield from (_caption(one) for one in facts.get("captions", ()) if one["origin"].startswith("model:"))
    yield from map(_caption, facts.get("captions not kept", ()))


def _spent(one: Row) -> str:
    requests = f"attempt {one['attempt']}, {one['requests']} request{'' if one['requests'] == 1 else 's'}"
    cost = one.get("cost_in_all", one.get("cost"))
    sent = one.get("requests_sent", ())
    least = "" if all("cost" in request for request in sent) else "at least "
    # Requests and tokens are the last attempt's.
    money = [] if cost is None else [f"{least}{dollars(cost)}{' in all' if len(sent) > 1 else ''}"]
    return ", ".join([requests, *_tokens(one), *money])


def _tokens(one: Row) -> list[str]:
    return [f"{one['input_tokens']:,} + {one['output_tokens'] or 0:,} tokens"] if one.get("input_tokens") else []


def _request(one: Row) -> str:
    cost = [dollars(one["cost"])] if "cost" in one else [f"at most {dollars(one['cost_at_most'])}"]
    status = [f"HTTP {one['http_status']}"] if "http_status" in one else []
    seconds = [f"{one['seconds']:.1f} s"] if "seconds" in one else []
    words = [one["message"]] if one.get("message") else []
    return ", ".join(
        [one["outcome"], *status, *_tokens(one), *cost, *seconds, *words, *([one["time"]] if "time" in one else [])]
    )


def _checked(facts: Row, rules: Sequence[Row]) -> Iterator[Line]:
    for rule in rules:
        bounds = [
            f"{name.replace('_', ' ')} {rule[name]}"
            for name in ("reject_below", "reject_above")
            if rule.get(name) is not None
        ]
        yield Line(rule["rule"], ", ".join([_number(rule["value"]), *bounds]), rule["outcome"])
    for one in facts.get("scores", ()):
        score = f"{one['score']:.4f}" if "score" in one else "no score"
        yield Line(f"score {score}", f"{one.get('text', '')}  [{_held_to(one)}]", one["outcome"])
    yield from _judges(facts.get("scores", ()))
    if rank := facts.get("retrieval"):
        bound = f" (to be among {rank['top_k']})" if "top_k" in rank else ""
        found = f"image to text: rank {rank['to_text']} of {rank['gallery']:,}{bound}"
        yield Line("retrieval", f"{found}; text to image: rank {rank['to_image']}")
    yield from _reason(facts)


def _held_to(one: Row) -> str:
    """The caption's language, the bounds in force, and why it was not accepted."""
    bounds = []
    if "score" in one and "accept_above" in one:
        bounds = [f"accepted above {one['accept_above']}", f"rejected below {one['reject_below']}"]
    why = f"; {one['code']}" if one.get("code") else ""
    return f"{', '.join([one['language'], *bounds])}{why}"


def _judges(scores: Iterable[Row]) -> Iterator[Line]:
    """Each model once, with where its bounds come from."""
    judges: dict[tuple[str, str], list[str]] = {}
    for one in scores:
        if "model" in one:
            weights = f", weights {one['weights']}" if "weights" in one else ""
            judges.setdefault((f"{one['model']}{weights}", one.get("bounds_from", "")), []).append(one["language"])
    for (model, source), languages in judges.items():
        yield Line("judge", f"{model} ({', '.join(dict.fromkeys(languages))}){f'; bounds: {source}' if source else ''}")


def _final(facts: Row, rules: Sequence[Row]) -> Iterator[Line]:
    if "extension" in facts:
        how = "encoded anew" if facts["reencoded"] else "the source's own stream"
        said = f"{facts['captions']} caption{'' if facts['captions'] == 1 else 's'}"
        yield Line(
            "exported",
            f"{facts['extension']}, {facts['width']} x {facts['height']}, {how}, {said}; export {facts['export']}",
        )
        yield Line("sha256", facts["sha256"])
    for place in facts.get("places", ()):
        where = "row" if place["format"] in ("parquet", "lance") else "at"
        digest = f"; its sha256 {place['sha256']}" if "sha256" in place else ""
        yield Line(place["format"], f"{place['file']}, {where} {place['offset']:,}{digest}")
    yield from _reason(facts, ("code", "value", "bound", "detail"))
    yield from map(_caption, facts.get("captions not kept", ()))


_LINES: dict[Stage, Callable[[Row, Sequence[Row]], Iterator[Line]]] = {
    Stage.RAW: _raw,
    Stage.FILTERED: _filtered,
    Stage.CAPTIONED: _captioned,
    Stage.CHECKED: _checked,
    Stage.FINAL: _final,
}


def _named(facts: Row, names: dict[str, str]) -> Iterator[Line]:
    yield from (Line(shown, str(facts[name])) for name, shown in names.items() if name in facts)


def _reason(facts: Row, names: Sequence[str] | None = None) -> Iterator[Line]:
    """Why it stops there; of stages that keep no such row, the facts of those names."""
    reason = facts.get("reason") or {name: facts[name] for name in names or () if name in facts}
    if "code" in reason:
        yield Line("reason", _listed(reason), "rejected")


def _caption(one: Row) -> Line:
    by = "" if one["origin"] == "source" else f", {one['origin']}"
    why = f"; {_listed({k: one[k] for k in ('code', 'value', 'bound', 'detail') if k in one})}" if "code" in one else ""
    return Line("caption", f"{one['text']}  [{one.get('lang', 'no language')}{by}{why}]", one.get("outcome", ""))


def _listed(row: Row) -> str:
    return ", ".join(f"{name} {_number(value) if isinstance(value, float) else value}" for name, value in row.items())


def _number(value: float | None) -> str:
    """Whole numbers whole, others with four figures that count."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
