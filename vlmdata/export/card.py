"""README.md of an export: what is in it, what was left out, and what it does not prove."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from vlmdata.export.card_pixels import counted_fates, said_of_pixels
from vlmdata.export.tallies import Tallies, quantile
from vlmdata.schema import MADE

_LONGEST_LIST = 30
_RECALLS = ("r1", "r5", "r10")
_NONE = "-"

CIRCULAR = (
    "captions were written by the starter model and judged by the starter model. Such a score proves "
    "nothing: the model agrees with itself. Judge them with another model before training on them."
)

_LIMITS = [
    "A CLIPScore means something only beside the model that gave it; do not compare scores of two models.",
    "Near-duplicates are found by a perceptual hash: crops, mirrored and recoloured copies may remain.",
    "A transparent picture stands on white, an animated one is its first frame, a 16-bit one that had to be "
    "encoded anew has 8.",
]


class Threshold(TypedDict, total=False):
    """The bands that captions of one language were judged by."""

    language: str | None
    model: str
    accept_above: float
    reject_below: float
    note: str


class CardFacts(TypedDict, total=False):
    """What only the run knows. All of it may be absent."""

    stages: Mapping[str, Mapping[str, Any]]
    """The funnel: stage name to in, kept, rejected, held, failed, rejection_rate, mean_score, reasons."""
    thresholds: Sequence[Threshold]
    captioner: str | None
    """The model that was asked for captions, if any was."""
    retrieval: Mapping[str, Any]
    """The retrieval check, as `quality.retrieval.Retrieval.record` tells it."""
    scorers: Sequence[str]
    """What pictures were measured for beside the captions: nsfw, sharpness, text."""


def card(manifest: Mapping[str, Any], tallies: Tallies, facts: CardFacts) -> str:
    """The card, as Markdown; what strangers wrote is shown as text."""
    sections = [
        _head(manifest),
        _warning(tallies),
        _funnel(facts.get("stages", {})),
        _judged(facts.get("thresholds", []), tallies),
        _retrieval(facts.get("retrieval")),
        _captions(facts.get("captioner"), tallies),
        _mix(manifest["settings"].get("captions"), tallies),
        _pictures(manifest["settings"].get("pixels"), tallies),
        _counted("Licences", "licence", "pictures", tallies.get("license", Counter())),
        _counted("Languages", "language", "captions", tallies.get("language", Counter())),
        _limits(facts.get("scorers", [])),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _limits(scorers: Sequence[str]) -> str:
    looked_for = "private or copyrighted" if "nsfw" in scorers else "unsafe, private or copyrighted"
    unseen = f"Nothing here looked for {looked_for} content; licences are as the source states them."
    return "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in [*_LIMITS, unseen])


def _head(manifest: Mapping[str, Any]) -> str:
    formats = [[name, *_size(manifest["files"], name)] for name in manifest["settings"]["formats"]]
    return "\n\n".join(
        [
            f"# {_text(manifest['dataset'])}",
            f"{manifest['samples']:,} pictures with {manifest['captions']:,} captions. "
            f"Export `{manifest['export']}`; `MANIFEST.json` lists every file with its sha256.",
            _table(["format", "files", "pictures", "bytes"], formats),
        ]
    )


def _size(files: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    own = [file for file in files if file["format"] == name]
    beside = [file.get("beside", {"files": 0, "bytes": 0}) for file in own]
    files = len(own) + sum(one["files"] for one in beside)
    size = sum(file["bytes"] for file in own) + sum(one["bytes"] for one in beside)
    return [f"{files:,}", f"{sum(file['samples'] for file in own):,}", f"{size:,}"]


def _warning(tallies: Tallies) -> str:
    circular = sum(tallies.get("starter", Counter()).values())
    return f"> **Circular scores**: {circular:,} {CIRCULAR}" if circular else ""


def _funnel(stages: Mapping[str, Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    columns = ["in", "kept", "rejected", "held", "failed"]
    rows = [
        [name, *[f"{row.get(c, 0):,}" for c in columns], _percent(row), _number(row.get("mean_score"))]
        for name, row in stages.items()
    ]
    reasons = [
        [name, code, f"{count:,}"] for name, row in stages.items() for code, count in (row.get("reasons") or {}).items()
    ]
    funnel = "## Funnel\n\n" + _table(["stage", *columns, "rejected %", "mean score"], rows)
    return funnel + ("\n\n" + _table(["stage", "reason", "samples"], reasons) if reasons else "")


def _percent(row: Mapping[str, Any]) -> str:
    rate = row.get("rejection_rate")
    return _NONE if rate is None else f"{100 * rate:.1f}"


def _judged(thresholds: Sequence[Threshold], tallies: Tallies) -> str:
    rows = [
        [
            band.get("language") or "every other",
            band.get("model", _NONE),
            _number(band.get("accept_above")),
            _number(band.get("reject_below")),
            band.get("note", ""),
        ]
        for band in thresholds
    ]
    models = _counted("", "model", "captions", tallies.get("model", Counter()))
    bands = _table(["language", "model", "accepted above", "rejected below", "note"], rows) if rows else ""
    return "\n\n".join(part for part in ["## How captions were judged", bands, models] if part)


def _retrieval(found: Mapping[str, Any] | None) -> str:
    """How often an image finds its caption among others, and a caption its image."""
    if not found:
        return ""
    rows = [
        [f"{what}, {way.replace('_', ' ')}", f"{one['n']:,}", *_recalls(one)]
        for what, key in (("exported", "exports"), ("all that were scored", "scored"))
        for way, one in found[key].items()
    ]
    table = _table(["of", "images", "R@1 % (95 % interval)", "R@5 %", "R@10 %"], rows)
    warning = "**Too few to tell.** " if found["verdict"] == "too few to tell" else ""
    return f"## Retrieval\n\n{warning}{_text(found['sentence'])}.\n\n{table}"


def _captions(captioner: str | None, tallies: Tallies) -> str:
    asked = f"The captioner that was asked: {_code(captioner)}.\n\n" if captioner else ""
    return _counted("Where captions come from", "origin", "captions", tallies.get("origin", Counter()), asked)


def _mix(asked: Mapping[str, Any] | None, tallies: Tallies) -> str:
    """The mix of captions that was asked for, if one was, and what it came to."""
    if asked is None:
        return ""
    lines = [*_draw(asked["synthetic_share"], tallies), *_bounds(asked["min_words"], asked["max_words"], tallies)]
    return "\n\n".join(["## Caption mix", "\n".join(f"- {line}" for line in lines), _kinds(tallies), _lengths(tallies)])


def _draw(share: float | None, tallies: Tallies) -> list[str]:
    if share is None:
        return []
    drawn = tallies.get("drawn", Counter())
    both = drawn.total()
    reached = f" ({100 * drawn['synthetic'] / both:.1f} %)" if both else ""
    return [
        f"Asked for: of the pictures with captions of both kinds, {100 * share:.4g} % with a model's alone, "
        "the others with their originals alone.",
        f"Reached: a model's for {drawn['synthetic']:,}{reached} of {both:,} such pictures; "
        f"{_left_out(tallies, 'mix')}.",
    ]


def _bounds(least: int, most: int | None, tallies: Tallies) -> list[str]:
    bounds = {"at least": least or None, "at most": most}
    named = " and ".join(f"{which} {words:,}" for which, words in bounds.items() if words is not None)
    asked = f"Asked for: captions of {named} words, for pictures that have one"
    return [f"{asked}; {_left_out(tallies, 'length')}."] if named else []


def _left_out(tallies: Tallies, code: str) -> str:
    return f"{tallies.get('left_out', Counter())[code]:,} captions are left out for it"


def _kinds(tallies: Tallies) -> str:
    """Originals, whichever way they came, and each model's captions, whatever it was asked."""
    kinds: Counter[str] = Counter()
    for origin, count in tallies.get("origin", Counter()).items():
        model = str(origin).partition("|")[0]
        kinds[_code(model) if model.startswith(MADE) else "original"] += count
    rows = [[kind, f"{n:,}", f"{100 * n / kinds.total():.1f}"] for kind, n in sorted(kinds.items(), key=_most_first)]
    return _table(["written by", "captions", "%"], rows[:_LONGEST_LIST])


def _most_first(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


def _lengths(tallies: Tallies) -> str:
    words = tallies.get("words", Counter())
    if not words:
        return "No captions."
    median, p5, p95 = (quantile(words, share) for share in (0.5, 0.05, 0.95))
    return (
        f"Words a caption: median {median}, p5 {p5}, p95 {p95}. "
        "Each Chinese or Japanese character counts as a word, having no spaces between."
    )


def _pictures(asked: Mapping[str, Any] | None, tallies: Tallies) -> str:
    """What happened to pixels on their way out, as it was asked for, and to how many."""
    rows = counted_fates(tallies)
    table = _table(["what was done", "pictures"], rows)
    return f"## Pictures\n\n{said_of_pixels(asked)}\n\n{table}" if rows else ""


def _counted(title: str, what: str, of: str, counts: Counter[str | None], before: str = "") -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
    shown = ranked[:_LONGEST_LIST]
    rows = [["not stated" if value is None else _code(value), f"{n:,}"] for value, n in shown]
    rest = ranked[_LONGEST_LIST:]
    if rest:
        rows.append([f"{len(rest):,} others", f"{sum(n for _, n in rest):,}"])
    heading = f"## {title}\n\n" if title else ""
    return heading + before + (_table([what, of], rows) if rows else "None.")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *[[_text(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"


def _code(value: str) -> str:
    return f"`{_short(value).replace('`', chr(39))}`"


def _text(value: str) -> str:
    """Text that cannot end a table cell, nor be read as HTML or a link outside code."""
    if re.fullmatch(r"`[^`]*`", value):
        return value.replace("|", "\\|")
    return re.sub(r"[<>\[\]*`|\\]", lambda found: f"&#{ord(found[0])};", _short(value))


def _recalls(one: Mapping[str, Any]) -> list[str]:
    shares = zip(_RECALLS, one["intervals"], strict=True)
    return [f"{100 * one[name]:.1f} ({100 * low:.1f} to {100 * high:.1f})" for name, (low, high) in shares]


_LONGEST = 300
"""Characters of one thing that is named; where bounds come from, and what a check found, are shorter."""


def _short(value: str) -> str:
    plain = " ".join(value.split())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."
