"""Known limits of a set, from what is known of it: what is said of every set comes last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmdata.export.markdown import code, text
from vlmdata.export.tallies import Tallies
from vlmdata.health.health import Health
from vlmdata.schema import MADE

_ALWAYS = [
    "A CLIPScore means something only beside the model that gave it; do not compare scores of two models.",
    "Near-duplicates are found by a perceptual hash: crops, mirrored and recoloured copies may remain.",
    "A transparent picture stands on white, an animated one is its first frame, a 16-bit one that had to be "
    "encoded anew has 8.",
]
_FEWEST_JUDGED = 100
"""Captions of a language below which a mean of theirs says little."""


def limits_section(manifest: Mapping[str, Any], tallies: Tallies, facts: Mapping[str, Any]) -> str:
    """The section; `facts` are `card.CardFacts`."""
    found = [
        *_unjudged(manifest, tallies, facts.get("health")),
        *_judges(tallies, facts.get("thresholds", ()), facts.get("health")),
        *_synthetic(manifest, tallies),
        *_retrieval(facts.get("retrieval")),
        *_chance(facts.get("chance_drops")),
        *_licences(manifest, tallies),
        *_left(facts.get("stages", {})),
        *_ALWAYS,
        _unseen(facts.get("scorers", ())),
    ]
    return "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in found)


def _unjudged(manifest: Mapping[str, Any], tallies: Tallies, health: Health | None) -> Iterator[str]:
    unverified = tallies.get("model", Counter())[None]
    if unverified:
        share = _share(unverified, manifest["captions"])
        yield f"{share} of the exported captions are unverified: no model at hand knows their language."
    rows = health.judged.to_pylist() if health else []
    unknown = Counter({row["language"]: row["count"] for row in rows if row["model"] is None})
    if unknown:
        yield f"No model at hand knows {_named(unknown)}; such captions were not judged."
    few = Counter({row["language"]: row["scored"] for row in rows if 0 < row["scored"] < _FEWEST_JUDGED})
    if few:
        yield f"Fewer than {_FEWEST_JUDGED} captions were scored in {_named(few)}: too few to tell how well they match."


def _judges(tallies: Tallies, thresholds: Sequence[Mapping[str, Any]], health: Health | None) -> Iterator[str]:
    """Bounds that were found for something else, and a model that judged itself."""
    by_language = {one.get("language"): one for one in thresholds}
    default = by_language.get(None, {})
    elsewhere: dict[str, Counter[str | None]] = {}
    for row in health.judged.to_pylist() if health else ():
        found_for = by_language.get(row["language"], default).get("found_for")
        if row["model"] is not None and found_for not in (None, row["language"]):
            elsewhere.setdefault(found_for, Counter())[row["language"]] += row["count"]
    for found_for, which in sorted(elsewhere.items()):
        yield f"Bounds that were found on captions in {code(found_for)} were used for {_named(which)}."
    for one in thresholds:
        if one.get("borrowed"):
            model = code(one.get("model", "the model"))
            yield f"The bounds of {model} are not its own: {text(one.get('note', ''))}."
    starter = sum(tallies.get("starter", Counter()).values())
    if starter:
        yield f"The starter model wrote {starter:,} captions and judged them itself, which proves nothing."


def _synthetic(manifest: Mapping[str, Any], tallies: Tallies) -> Iterator[str]:
    made = sum(n for origin, n in tallies.get("origin", Counter()).items() if origin and origin.startswith(MADE))
    if made:
        yield f"{_share(made, manifest['captions'])} of the captions were written by a model, not by people."


def _retrieval(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found and found["verdict"] == "too few to tell":
        yield "There are too few pictures to tell from the retrieval check whether captions match."


def _chance(expected: float | None) -> Iterator[str]:
    if expected is not None:
        drops = "fewer than one picture was" if expected < 1 else f"about {expected:,.0f} pictures were"
        yield f"By chance alone, {drops} dropped as a near-duplicate without being one: that is the least to expect."


def _licences(manifest: Mapping[str, Any], tallies: Tallies) -> Iterator[str]:
    unknown = tallies.get("license", Counter())[None]
    if unknown:
        yield f"{_share(unknown, manifest['samples'])} of the pictures come without a licence."


def _left(stages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What a person or another run might still bring in."""
    held, failed = (sum(row.get(fate, 0) for row in stages.values()) for fate in ("held", "failed"))
    if held:
        yield f"{held:,} samples are held and not in the set: they are neither known to match nor known not to."
    if failed:
        yield f"{failed:,} samples failed and are not in the set; what is left out so is not drawn at random."


def _unseen(scorers: Sequence[str]) -> str:
    looked_for = "private or copyrighted" if "nsfw" in scorers else "unsafe, private or copyrighted"
    return f"Nothing here looked for {looked_for} content; licences are as the source states them."


def _share(number: int, whole: int) -> str:
    return f"{number:,} ({number / whole:.1%})" if whole else f"{number:,}"


def _named(counts: Counter[str | None]) -> str:
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0] or ""))[:10]
    return ", ".join(f"{code(language or 'no language')} ({count:,})" for language, count in ranked)
