"""What a card tells of the run that made the export."""

from __future__ import annotations

from typing import Any

from vlmdata.config import BuildConfig, CaptionConfig
from vlmdata.errors import ConfigError
from vlmdata.export.card import CardFacts
from vlmdata.export.card_judged import Threshold
from vlmdata.export.recipe import shown_config, software
from vlmdata.health.bars import plots
from vlmdata.health.saved import load
from vlmdata.layout import Stage, Step
from vlmdata.quality.judges import judges
from vlmdata.runs import Run
from vlmdata.status import describe_run


def card_facts(run: Run, config: BuildConfig) -> CardFacts:
    """The run's funnel, health and retrieval check, its models, bounds and prompts, and how to build it again."""
    shown, health = shown_config(config), load(run)
    about: CardFacts = {
        "stages": describe_run(run)["stages"],
        **_judged(config),
        "retrieval": run.read("retrieval") or {},
        "source": shown["source"],
        "health": health,
        "plots": plots(health) if health else {},
        "prompts": _prompts(config.caption) if _asks(config.caption) else (),
        "chance_drops": _chance_drops(run, config),
        "config": shown,
        "software": software(),
    }
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
            "found_for": judge.language,
            "borrowed": judge.borrowed,
        }
        for language, judge in named
    ]
    captioner = config.caption.model if _asks(config.caption) else None
    return {"thresholds": thresholds, "captioner": captioner, "scorers": sorted(config.quality.scorers)}


def _asks(caption: CaptionConfig) -> bool:
    return caption.policy != "none" and caption.base_url is not None


def _prompts(caption: CaptionConfig) -> list[dict[str, str]]:
    """The words that were sent with a picture, and those with a small one, if they are others."""
    from vlmdata.captioning.prompts import load_prompt

    try:
        prompt = load_prompt(caption.prompt)
    except ConfigError:
        # The file is gone since; captions name the prompt that they were made with.
        return []
    told = []
    for language in caption.languages:
        # With one language there is nothing to tell apart.
        name = prompt.identity if len(caption.languages) == 1 else f"{prompt.identity}, {language}"
        told.append({"identity": name, "text": prompt.render(language, low_resolution=False)})
        if caption.low_resolution_below:
            small = f"{name}, for pictures below {caption.low_resolution_below} px"
            told.append({"identity": small, "text": prompt.render(language, low_resolution=True)})
    return told


def _chance_drops(run: Run, config: BuildConfig) -> float | None:
    """Null where pictures were looked at, too, before one went."""
    report = run.stage(Stage.FILTERED)
    if report is None or not report.shards or config.dedup.confirm is not None:
        return None
    facts: dict[str, Any] = run.dataset.manifest(report.shards[0], Step.DUPLICATES).facts
    expected: float | None = facts.get("expected_chance_drops")
    return expected
