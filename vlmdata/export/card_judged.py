"""How captions were judged, as the card tells it: models, their bounds, and the retrieval check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from vlmdata.export.markdown import NONE, counted, number, table, text
from vlmdata.export.tallies import Tallies
from vlmdata.health.health import Health

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


def judged_section(thresholds: Sequence[Threshold], tallies: Tallies, health: Health | None) -> str:
    """Models and bounds; of languages that the set has, if it is known which these are."""
    spoken = set(health.judged["language"].to_pylist()) if health else None
    silent = [band for band in thresholds if spoken is not None and band.get("language") not in {None, *spoken}]
    rows = [
        [
            band.get("language") or "every other",
            band.get("model", NONE),
            number(band.get("accept_above")),
            number(band.get("reject_below")),
            band.get("note", ""),
        ]
        for band in thresholds
        if band not in silent
    ]
    models = counted("", "model", "captions", tallies.get("model", Counter()))
    bands = table(["language", "model", "accepted above", "rejected below", "note"], rows) if rows else ""
    others = (
        f"{len(silent):,} more languages, of which no caption was judged, have bounds of their own." if silent else ""
    )
    return "\n\n".join(part for part in ["## How captions were judged", bands, others, models] if part)


def retrieval_section(found: Mapping[str, Any] | None) -> str:
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


def _recalls(one: Mapping[str, Any]) -> list[str]:
    shares = zip(_RECALLS, one["intervals"], strict=True)
    return [f"{100 * one[name]:.1f} ({100 * low:.1f} to {100 * high:.1f})" for name, (low, high) in shares]
