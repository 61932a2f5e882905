"""The run's summary: what a config asks of health figures, of languages and of retrieval."""

from __future__ import annotations

from collections.abc import Iterator

from expectations.rule import AT_LEAST, Figure, Rule, number
from vlmdata.config import GateBounds, GatesConfig
from vlmdata.health.counting import OTHERS
from vlmdata.health.health import Health
from vlmdata.quality.retrieval import TOO_FEW, Retrieval


def rules(gates: GatesConfig, health: Health, retrieval: Retrieval | None) -> list[Rule]:
    """The rules of a run.

    Args:
        gates: What the config asks for.
        health: Of the run, whose figures are those that `gates.health` may name.
        retrieval: What the retrieval check found; None: it was not made, and is not asked about.
    """
    images = Figure(health.figures["images"])
    always = Rule("not_empty", "something is left", "images", images, at_least=1, expectation=AT_LEAST)
    found = [always, *_figures(gates, health), *_languages(gates, health)]
    if gates.recall_at_10 is not None and retrieval is not None:
        found.append(_recall(gates.recall_at_10, retrieval))
    return found


def _figures(gates: GatesConfig, health: Health) -> Iterator[Rule]:
    for name, bounds in gates.health.items():
        figure = Figure(health.figures[name])
        yield _bounded(f"health.{name}", name, figure, bounds, "ExpectHealthFigureToBeBetween", figure=name)


def _languages(gates: GatesConfig, health: Health) -> Iterator[Rule]:
    counts = health.distribution("language")
    total = counts.total()
    for tag, bounds in gates.languages.items():
        captions = counts[tag.lower()]
        # A rare language may have been counted among the others.
        known = total and (captions or not counts[OTHERS])
        figure = Figure(captions / total if known else None, total, "captions", share=True)
        asked = f"share of captions in {tag}"
        yield _bounded(f"languages.{tag}", asked, figure, bounds, "ExpectLanguageShareToBeBetween", language=tag)


def _recall(bounds: GateBounds, retrieval: Retrieval) -> Rule:
    recall = retrieval.exports["image_to_text"]
    asked = "R@10, image to text, of would-be exports"
    if recall.n < TOO_FEW:
        asked += f" (fewer than {TOO_FEW}: too few to tell, so it only warns)"
        bounds = bounds.model_copy(update={"severity": "warn"})
    figure = Figure(recall.r10 if recall.n else None, recall.n, "images", share=True)
    return _bounded(
        "recall_at_10", asked, figure, bounds, "ExpectRecallAt10ToBeBetween", gallery=max(retrieval.galleries or (0,))
    )


def _bounded(name: str, what: str, counted: Figure, bounds: GateBounds, expectation: str, **settings: object) -> Rule:
    limits = [("at least", bounds.at_least), ("at most", bounds.at_most)]
    asked = " and ".join(f"{word} {number(limit)}" for word, limit in limits if limit is not None)
    return Rule(
        name=name,
        asked=f"{what} {asked}",
        column=name,
        figure=counted,
        at_least=bounds.at_least,
        at_most=bounds.at_most,
        expectation=expectation,
        settings=settings,
        severity=bounds.severity,
    )
