"""README.md of an export: what is in it, what was left out, and what it does not prove."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from vlmdata.export.card_head import head
from vlmdata.export.card_health import health_section
from vlmdata.export.card_limits import limits_section
from vlmdata.export.card_recipe import Prompts, config_section, prompts_section, rebuild_section, software_section
from vlmdata.export.markdown import LONGEST_LIST, NONE, block, code, counted, number, table, text
from vlmdata.export.tallies import Tallies, quantile
from vlmdata.health.health import Health
from vlmdata.schema import MADE

CIRCULAR = (
    "captions were written by the starter model and judged by the starter model. Such a score proves "
    "nothing: the model agrees with itself. Judge them with another model before training on them."
)
_RECALLS = ("r1", "r5", "r10")


class Threshold(TypedDict, total=False):
    """The bands that captions of one language were judged by."""

    language: str | None
    model: str
    accept_above: float
    reject_below: float
    note: str
    found_for: str | None
    """The language that the bounds were found on; null: the config gives them."""
    borrowed: bool
    """They are another model's."""


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
    source: Mapping[str, Any]
    """What kind of source it was, and its name."""
    health: Health | None
    plots: Mapping[str, str]
    """Pictures of its health: name to SVG."""
    prompts: Prompts
    chance_drops: float | None
    """Pictures that hashes dropped by chance, at least."""
    config: Mapping[str, Any]
    """As `recipe.shown_config` has it."""
    software: Mapping[str, str]


def card(manifest: Mapping[str, Any], tallies: Tallies, facts: CardFacts) -> str:
    """The card, as Markdown; what strangers wrote is shown as text."""
    config, software = facts.get("config"), facts.get("software", {})
    sections = [
        head(manifest, tallies),
        _title(manifest),
        _warning(tallies),
        _loading(manifest),
        _sources(facts.get("source"), facts.get("health")),
        counted("Licences", "licence", "pictures", tallies.get("license", Counter())),
        _funnel(facts.get("stages", {})),
        health_section(facts.get("health"), facts.get("plots", {})),
        _judged(facts.get("thresholds", []), tallies),
        _retrieval(facts.get("retrieval")),
        _captions(facts.get("captioner"), tallies),
        prompts_section(facts.get("prompts", ())),
        _mix(manifest["settings"].get("captions"), tallies),
        counted("Languages", "language", "captions", tallies.get("language", Counter())),
        limits_section(manifest, tallies, facts),
        config_section(config),
        software_section(software),
        rebuild_section(manifest, config, software),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(manifest: Mapping[str, Any]) -> str:
    formats = [[name, *_size(manifest["files"], name)] for name in manifest["settings"]["formats"]]
    return "\n\n".join(
        [
            f"# {text(manifest['dataset'])}",
            f"{manifest['samples']:,} pictures with {manifest['captions']:,} captions. "
            f"Export `{manifest['export']}`; `MANIFEST.json` lists every file with its sha256.",
            table(["format", "files", "pictures", "bytes"], formats),
        ]
    )


def _size(files: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    own = [file for file in files if file["format"] == name]
    return [f"{len(own):,}", f"{sum(f['samples'] for f in own):,}", f"{sum(f['bytes'] for f in own):,}"]


def _loading(manifest: Mapping[str, Any]) -> str:
    """How the exported files are opened, a line a format."""
    opened = {
        "parquet": 'load_dataset("parquet", data_files="parquet/*.parquet", split="train")',
        "webdataset": 'load_dataset("webdataset", data_files="webdataset/*.tar", split="train")',
    }
    there = [line for name, line in opened.items() if _size(manifest["files"], name)[0] != "0"]
    lines = ["from datasets import load_dataset", "", *there]
    return f"## How to load it\n\n{block(chr(10).join(lines), 'python')}" if there else ""


def _sources(source: Mapping[str, Any] | None, health: Health | None) -> str:
    """What was read; and where its pictures come from, as coarse as people speak of it."""
    if not source:
        return ""
    named = f"A source of kind {code(source['kind'])}, {code(source['path'])}."
    counts = health.distribution("source") if health else Counter[str | None]()
    rows = counted("", "host or folder", "pictures that passed", counts) if counts else ""
    return "\n\n".join(part for part in ["## Sources", named, rows] if part)


def _warning(tallies: Tallies) -> str:
    circular = sum(tallies.get("starter", Counter()).values())
    return f"> **Circular scores**: {circular:,} {CIRCULAR}" if circular else ""


def _funnel(stages: Mapping[str, Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    columns = ["in", "kept", "rejected", "held", "failed"]
    rows = [
        [name, *[f"{row.get(c, 0):,}" for c in columns], _percent(row), number(row.get("mean_score"))]
        for name, row in stages.items()
    ]
    reasons = [
        [name, code, f"{count:,}"] for name, row in stages.items() for code, count in (row.get("reasons") or {}).items()
    ]
    funnel = "## Funnel\n\n" + table(["stage", *columns, "rejected %", "mean score"], rows)
    return funnel + ("\n\n" + table(["stage", "reason", "samples"], reasons) if reasons else "")


def _percent(row: Mapping[str, Any]) -> str:
    rate = row.get("rejection_rate")
    return NONE if rate is None else f"{100 * rate:.1f}"


def _judged(thresholds: Sequence[Threshold], tallies: Tallies) -> str:
    rows = [
        [
            band.get("language") or "every other",
            band.get("model", NONE),
            number(band.get("accept_above")),
            number(band.get("reject_below")),
            band.get("note", ""),
        ]
        for band in thresholds
    ]
    models = counted("", "model", "captions", tallies.get("model", Counter()))
    bands = table(["language", "model", "accepted above", "rejected below", "note"], rows) if rows else ""
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
    ranks = table(["of", "images", "R@1 % (95 % interval)", "R@5 %", "R@10 %"], rows)
    warning = "**Too few to tell.** " if found["verdict"] == "too few to tell" else ""
    return f"## Retrieval\n\n{warning}{text(found['sentence'])}.\n\n{ranks}"


def _captions(captioner: str | None, tallies: Tallies) -> str:
    asked = f"The captioner that was asked: {code(captioner)}.\n\n" if captioner else ""
    return counted("Where captions come from", "origin", "captions", tallies.get("origin", Counter()), asked)


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
        kinds[code(model) if model.startswith(MADE) else "original"] += count
    rows = [[kind, f"{n:,}", f"{100 * n / kinds.total():.1f}"] for kind, n in sorted(kinds.items(), key=_most_first)]
    return table(["written by", "captions", "%"], rows[:LONGEST_LIST])


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


def _recalls(one: Mapping[str, Any]) -> list[str]:
    shares = zip(_RECALLS, one["intervals"], strict=True)
    return [f"{100 * one[name]:.1f} ({100 * low:.1f} to {100 * high:.1f})" for name, (low, high) in shares]
