"""What a card tells of the run that made the export."""

from __future__ import annotations

from vlmdata.config import BuildConfig
from vlmdata.export.card import CardFacts, Threshold
from vlmdata.quality.judges import judges
from vlmdata.runs import Run
from vlmdata.status import describe_run


def card_facts(run: Run, config: BuildConfig) -> CardFacts:
    """The run's funnel and retrieval check, its models and their bounds."""
    about: CardFacts = {"stages": describe_run(run)["stages"], **_judged(config)}
    about["retrieval"] = run.read("retrieval") or {}
    return about


def _judged(config: BuildConfig) -> CardFacts:
    """Models and bounds, as the card tells them."""
    bench = judges(config.quality)
    named = [(None, bench.default), *bench.special.items()]
    thresholds: list[Threshold] = [
        {
            "language": language,
            "model": judge.identity,
            "accept_above": float(str(judge.accept_above)),
            "reject_below": float(str(judge.reject_below)),
            "note": judge.note,
        }
        for language, judge in named
    ]
    asked = config.caption.policy != "none" and config.caption.base_url is not None
    captioner = config.caption.model if asked else None
    return {"thresholds": thresholds, "captioner": captioner, "scorers": sorted(config.quality.scorers)}
