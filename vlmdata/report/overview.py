"""What is true of the whole run: its funnel, its health, what moved since the last version, what can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlmdata.health.counting import MOST_VALUES
from vlmdata.health.drift import Moved, drift
from vlmdata.health.health import Health
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import load, previous
from vlmdata.report.ledger import Ledger
from vlmdata.report.reasons import meaning
from vlmdata.runs import Run
from vlmdata.status import describe_run
from vlmdata.versions.version import Changes, read_version

Choice = tuple[str, str, int]
"""A value that can be asked for, what people call it, and how many samples have it."""


@dataclass(frozen=True)
class Overview:
    """What a page says of a whole run.

    Attributes:
        told: `status.describe_run`.
        health: Of what the run kept.
        moved: Since `since`; empty if there is nothing to compare with.
        since: In words, the run that is compared with.
        changes: Of the version that the run published, beside its parent.
        unfound: Rows of `schema.RETRIEVAL`, the worst first.
        ended: When the run ended, as it says; null: it has not.
    """

    told: dict[str, Any]
    health: Health
    moved: list[Moved]
    since: str | None
    changes: Changes | None
    unfound: list[dict[str, Any]]
    ended: str | None


def overview(run: Run) -> Overview:
    """Read from the run's records; its health is measured if it has none on record."""
    told = describe_run(run)
    health = load(run) or measure_health(run)
    before, since = _before(run, health.stage)
    version = told["version"]
    return Overview(
        told=told,
        health=health,
        moved=drift(before, health) if before else [],
        since=since,
        changes=read_version(run.dataset, version).changes if version else None,
        unfound=(run.read("retrieval") or {}).get("worst", []),
        ended=(run.read("end") or {}).get("ended"),
    )


def _before(run: Run, stage: str) -> tuple[Health | None, str | None]:
    """The health of the version that the run went on from; else of the run before it."""
    if run.base is not None:
        version = read_version(run.dataset, run.base)
        found = load(Run(run.dataset, version.run))
        if found is not None and found.stage == stage:
            return found, f"version {version.number} (run {version.run})"
    found = previous(run, stage)
    return found, f"run {found.run}" if found else None


def choices(ledger: Ledger) -> dict[str, Any]:
    """What can be filtered by, with how many samples each has, and the range of scores."""
    fate = (
        "SELECT {0} AS value, count(*) AS number FROM samples WHERE {0} IS NOT NULL GROUP BY ALL ORDER BY {1} LIMIT ?"
    )
    languages = (
        "SELECT language AS value, count(DISTINCT id) AS number FROM captions GROUP BY ALL"
        " ORDER BY number DESC, value LIMIT ?"
    )
    most = "number DESC, value"
    [scores] = ledger.rows("SELECT min(score) AS low, max(score) AS high FROM captions")
    return {
        "stage": _chosen(ledger, fate.format("stage", "value")),
        "outcome": _chosen(ledger, fate.format("outcome", most)),
        "reason": _reasons(ledger),
        "source": _chosen(ledger, fate.format("came_from", most)),
        "language": _chosen(ledger, languages),
        "score": [scores["low"], scores["high"]],
    }


def _chosen(ledger: Ledger, query: str) -> list[Choice]:
    return [(row["value"], row["value"], row["number"]) for row in ledger.rows(query, [MOST_VALUES])]


def _reasons(ledger: Ledger) -> list[Choice]:
    """Of samples and of captions: a sample is found by either."""
    rows = ledger.rows(
        "SELECT code, count(DISTINCT id) AS number FROM ("
        "  SELECT id, code FROM samples UNION ALL SELECT id, code FROM captions WHERE code NOT LIKE 'sample_%'"
        "  UNION ALL SELECT id, 'caption_' || failure FROM asked"
        ") WHERE code IS NOT NULL GROUP BY ALL ORDER BY number DESC, code LIMIT ?",
        [MOST_VALUES],
    )
    return [(row["code"], meaning(row["code"]).title, row["number"]) for row in rows]


def bounds(ledger: Ledger) -> dict[str, list[float | None]]:
    """By language, below what a caption was rejected and above what it was accepted, as far as one fell short of it."""
    rows = ledger.rows(
        "SELECT language, max(bound) FILTER (code = 'misaligned') AS low,"
        " max(bound) FILTER (code = 'borderline') AS high"
        " FROM captions WHERE bound IS NOT NULL GROUP BY language ORDER BY language LIMIT ?",
        [MOST_VALUES],
    )
    return {row["language"]: [row["low"], row["high"]] for row in rows}
