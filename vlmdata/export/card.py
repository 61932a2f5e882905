"""README.md of an export: what is in it, what was left out, and what it does not prove."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypedDict

from vlmdata.export.card_head import head
from vlmdata.export.card_health import health_section
from vlmdata.export.card_judged import Threshold, judged_section, retrieval_section
from vlmdata.export.card_limits import limits_section
from vlmdata.export.card_pixels import counted_fates, said_of_pixels
from vlmdata.export.card_recipe import Prompts, config_section, prompts_section, rebuild_section, software_section
from vlmdata.export.card_selection import selection_section, splits_section
from vlmdata.export.markdown import LONGEST_LIST, NONE, block, code, counted, number, table, text
from vlmdata.export.tallies import Tallies, quantile
from vlmdata.health.health import Health
from vlmdata.schema import MADE

CIRCULAR = (
    "captions were written by the starter model and judged by the starter model. Such a score proves "
    "nothing: the model agrees with itself. Judge them with another model before training on them."
)


_OPENED = {
    "parquet": """from datasets import load_dataset

load_dataset("parquet", data_files="{folder}/*.parquet", split="train")""",
    # `datasets` opens tars only if all their pictures are of one format.
    "webdataset": """from glob import glob
from webdataset import WebDataset

WebDataset(sorted(glob("{folder}/*.tar")), shardshuffle=False).decode("pil")""",
}
"""How each format is opened."""


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
        judged_section(facts.get("thresholds", []), tallies, facts.get("health")),
        retrieval_section(facts.get("retrieval")),
        _captions(facts.get("captioner"), tallies),
        prompts_section(facts.get("prompts", ())),
        _mix(manifest["settings"].get("captions"), tallies),
        selection_section(manifest["settings"], tallies),
        splits_section(manifest),
        _pictures(manifest["settings"].get("pixels"), tallies),
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
    beside = [file.get("beside", {"files": 0, "bytes": 0}) for file in own]
    files = len(own) + sum(one["files"] for one in beside)
    size = sum(file["bytes"] for file in own) + sum(one["bytes"] for one in beside)
    return [f"{files:,}", f"{sum(file['samples'] for file in own):,}", f"{size:,}"]


def _loading(manifest: Mapping[str, Any]) -> str:
    """How the exported files are opened, a line a format."""
    shares = manifest["settings"].get("splits") or {}
    main = max(shares, key=lambda split: float(shares[split]), default=None)
    own = [file for file in manifest["files"] if file.get("split") == main]
    folders = {file["format"]: str(PurePosixPath(file["path"]).parent) for file in own}
    told = [block(lines.format(folder=folders[name]), "python") for name, lines in _OPENED.items() if name in folders]
    return "\n\n".join(["## How to load it", *told]) if told else ""


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


def _pictures(asked: Mapping[str, Any] | None, tallies: Tallies) -> str:
    """What happened to pixels on their way out, as it was asked for, and to how many."""
    rows = counted_fates(tallies)
    return f"## Pictures\n\n{said_of_pixels(asked)}\n\n{table(['what was done', 'pictures'], rows)}" if rows else ""
