"""Run a suite of rules: one that does not hold stops the run, or warns, and names the samples."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from expectations import accounts, captioned, filtered, final, quality_checked, raw, whole_run
from expectations.columns import joined, parts
from expectations.rule import Rule
from expectations.severities import check_gates, weighed
from expectations.suite import great_expectations, validate
from expectations.verdict import RUN, record_name, verdicts
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.errors import GateFailed
from vlmdata.filtering.look import looks_of
from vlmdata.health.health import Health
from vlmdata.layout import Stage, Step
from vlmdata.quality.retrieval import Retrieval
from vlmdata.runs import Run

__all__ = ["SUITES", "check_gates", "check_run", "check_stage", "great_expectations"]

SUITES: dict[Stage, ModuleType] = {
    Stage.RAW: raw,
    Stage.FILTERED: filtered,
    Stage.CAPTIONED: captioned,
    Stage.CHECKED: quality_checked,
    Stage.FINAL: final,
}


def check_stage(
    dataset: Dataset, shards: Sequence[Shard], stage: Stage, config: BuildConfig, run: Run | None = None
) -> list[str]:
    """Judge a stage's accounts and rows.

    Args:
        dataset: Where the shards are.
        shards: At the stage, all of them.
        stage: Which one.
        config: Bounds and severities.
        run: Beside which the verdicts are written down, whatever they are; None: they are not.

    Returns:
        A sentence for each rule that did not hold, and that warns.

    Raises:
        GateFailed: names the first rule that did not hold and that stops, and samples.
        ConfigError: it names a rule that is not there.
    """
    check_gates(config.gates)
    suite, step = SUITES[stage], Step(stage.value)
    written = parts(dataset, shards, step, "samples", suite.SAMPLES)
    captions = joined(parts(dataset, shards, step, "captions", suite.CAPTIONS), suite.CAPTIONS)
    rules = accounts.rules(dataset, shards, stage, written, _kept_before(run, stage))
    samples = joined(written, suite.SAMPLES)
    if suite is filtered and config.dedup.confirm is not None:
        rules += filtered.rules(samples, captions, config, looks_of(dataset, shards))
    else:
        rules += suite.rules(samples, captions, config)
    if suite is final:
        rules += final.split_rules(dataset, shards, written, config)
    return _judge(stage.value, rules, config, run)


def _kept_before(run: Run | None, stage: Stage) -> int | None:
    checked = run.stage(Stage.CHECKED) if run and stage is Stage.FINAL else None
    return checked.samples.kept if checked else None


def check_run(run: Run, config: BuildConfig, health: Health, retrieval: Retrieval | None) -> list[str]:
    """Judge a run's figures by what `gates` says of them; to be done before anything is exported.

    Args:
        run: Beside which the verdicts are written down.
        config: Bounds and severities.
        health: What the run kept, counted.
        retrieval: What the retrieval check found; None: it was not made, and R@10 is not asked about.

    Returns:
        A sentence for each rule that did not hold, and that warns.

    Raises:
        GateFailed: names the first rule that did not hold and that stops.
        ConfigError: it names a rule or a figure that is not there.
    """
    check_gates(config.gates, health.figures)
    return _judge(RUN, whole_run.rules(config.gates, health, retrieval), config, run)


def _judge(name: str, rules: Sequence[Rule], config: BuildConfig, run: Run | None) -> list[str]:
    results = validate(name, weighed(rules, config.gates))
    if run is not None:
        run.record(record_name(name), results)
    broken = [verdict for verdict in verdicts(results) if not verdict.held]
    stops = [verdict.sentence for verdict in broken if verdict.severity == "stop"]
    if stops:
        more = f"; {len(stops) - 1} more of its rules did not hold" if stops[1:] else ""
        raise GateFailed(stops[0] + more)
    return [verdict.sentence for verdict in broken]
