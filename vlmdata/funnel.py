"""The funnel as a table that people read."""

from __future__ import annotations

from typing import Any

COLUMNS = ("stage", "in", "kept", "rejected", "held", "failed", "rate", "mean score")


def rows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row of text a stage, in the order of `COLUMNS`, from `status.describe_run`."""
    return [_row(stage, numbers) for stage, numbers in told["stages"].items()]


def _row(stage: str, numbers: dict[str, Any]) -> tuple[str, ...]:
    rate, score = numbers["rejection_rate"], numbers["mean_score"]
    counts = [f"{numbers[name]:,}" for name in ("in", "kept", "rejected", "held", "failed")]
    return (stage, *counts, "–" if rate is None else f"{rate:.1%}", "–" if score is None else f"{score:.3f}")


def why(told: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Every reason: stage, samples or captions, code, number."""
    found = []
    for stage, numbers in told["stages"].items():
        for what, reasons in (("samples", numbers["reasons"]), ("captions", numbers["captions"]["reasons"])):
            found += [(stage, what, code, f"{number:,}") for code, number in reasons.items()]
    return found


LANGUAGE_COLUMNS = ("captions in", "against", "judged by", "n", "mean", "AUC", "accepted", "held", "rejected")


def languages(told: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row of text a pair of languages, in the order of `LANGUAGE_COLUMNS`."""
    return [_language(row) for row in told["languages"]]


def _language(row: dict[str, Any]) -> tuple[str, ...]:
    against = f"captions in {row['source_language']}" if row["source_language"] else "images"
    model = (row["model"] or "nobody").partition("@")[0]
    shares = ["–" if row[name] is None else f"{row[name]:.3f}" for name in ("mean", "auc")]
    counts = ["–" if row[name] is None else f"{row[name]:,}" for name in ("accepted", "held", "rejected")]
    return (row["language"], against, model, f"{row['n']:,}", *shares, *counts)


def as_markdown(told: dict[str, Any]) -> str:
    """The funnel and its reasons as markdown; codes and numbers only, nothing from the data."""
    lines = [f"## {told['dataset']}, run {told['run']}: {told['outcome']}", ""]
    lines += _table(COLUMNS, rows(told))
    reasons = why(told)
    if reasons:
        lines += ["", "### Why not kept", "", *_table(("stage", "what", "reason", "number"), reasons)]
    return "\n".join(lines)


def _table(head: tuple[str, ...], body: list[Any]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
