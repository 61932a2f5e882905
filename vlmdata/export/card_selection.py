"""What a card says of splits, and of what was left out on purpose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from vlmdata.export.markdown import code, number, table, text
from vlmdata.export.tallies import Tallies


def splits_section(manifest: Mapping[str, Any]) -> str:
    """How many pictures each split has, and what no two of them share."""
    by = manifest["settings"].get("splits")
    if not by:
        return ""
    first = manifest["settings"]["formats"][0]
    held = Counter[str]()
    for file in manifest["files"]:
        if file["format"] == first:
            held[file["split"]] += file["samples"]
    rows = [[name, f"{held[name]:,}", f"{100 * share:.4g}"] for name, share in by.items()]
    shared = _shared({**_USUAL, **manifest["settings"].get("split_by", {})})
    told = f"No two pictures of different splits have {shared}." if shared else "Pictures were drawn one by one."
    return "\n\n".join(["## Splits", told, table(["split", "pictures", "asked for, %"], rows)])


_USUAL = {"max_distance": 14, "confirm": None, "cosine": 0.95, "captions": False, "caption_cosine": None}


def _shared(by: Mapping[str, Any]) -> str:
    parts = []
    if by["max_distance"] is not None:
        looks = f" and embeddings with a cosine of {number(by['confirm'])} or more" if by["confirm"] is not None else ""
        parts.append(f"pHashes within {by['max_distance']} bits{looks}")
    if by["cosine"] is not None:
        parts.append(f"embeddings with a cosine of {number(by['cosine'])} or more")
    if by["captions"]:
        parts.append("a caption in common")
    if by["caption_cosine"] is not None:
        parts.append(f"captions whose embeddings have a cosine of {number(by['caption_cosine'])} or more")
    return ", or ".join(parts)


def selection_section(settings: Mapping[str, Any], tallies: Tallies) -> str:
    """What was asked for, and how many it cost."""
    asked, cost = settings.get("select", {}), tallies.get("not_selected", Counter())
    lines = []
    if asked.get("top_fraction") is not None:
        lines.append(f"The best {100 * asked['top_fraction']:.4g} % by CLIPScore: {cost['below_top']:,} are left out.")
    for what, count in (("weights", "weight"), ("caps", "cap")):
        for dimension, named in sorted((asked.get(what) or {}).items()):
            said = ", ".join(f"{code(name)} {_number(value)}" for name, value in sorted(named.items()))
            lines.append(f"{what.capitalize()} by {dimension.replace('_', ' ')}: {said}.")
        if asked.get(what):
            lines.append(f"{cost[count]:,} are left out for {what}.")
    benchmarks = tallies.get("contaminated", Counter())
    lines += [
        f"{count:,} are pictures of the evaluation set {text(str(name))}, and are left out."
        for name, count in sorted(benchmarks.items(), key=lambda item: str(item[0]))
    ]
    if cost["split_conflict"]:
        lines.append(f"{cost['split_conflict']:,} are close to pictures of two splits, and are held.")
    return "\n\n".join(["## Selection", "\n".join(f"- {line}" for line in lines)]) if lines else ""


def _number(value: float) -> str:
    """A cap is told to the last digit."""
    return f"{value:,}" if isinstance(value, int) else number(value)
