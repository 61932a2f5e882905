"""What each run did: append-only records in the store, one when it starts, one a stage, one when it ends.

A run claims the next number by putting its first record conditionally, and
names the run before it. `status` and `explain` read nothing else.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from vlmdata import __version__, layout
from vlmdata.checkpoint import Counts, Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.errors import ConfigError
from vlmdata.export.names import missing
from vlmdata.layout import REVISION, Stage, Step
from vlmdata.opt_out import OptOut

COMPLETED, IN_PART, STOPPED = "completed", "completed in part", "stopped"


@dataclass(frozen=True)
class StageReport:
    """A stage's accounts over all shards, and where its checkpoints are."""

    stage: Stage
    samples: Counts = Counts()
    captions: Counts = Counts()
    reasons: dict[str, int] = field(default_factory=dict)
    caption_reasons: dict[str, int] = field(default_factory=dict)
    open: int = 0
    score_sum: float = 0.0
    scored: tuple[float, float] = (0.0, 0.0)
    shards: tuple[Shard, ...] = ()
    score_count: int = 0

    @property
    def rejection_rate(self) -> float | None:
        """Rejected over in; None before anything came in."""
        return self.samples.rejected / self.samples.came if self.samples.came else None


def report(dataset: Dataset, stage: Stage, shards: Sequence[Shard]) -> StageReport:
    """Add up the manifests of a stage."""
    manifests = [dataset.manifest(shard, Step(stage.value)) for shard in shards]
    scored = [manifest.facts.get("scored", [0.0, 0.0]) for manifest in manifests]
    return StageReport(
        stage=stage,
        samples=sum((m.samples for m in manifests), Counts()),
        captions=sum((m.captions for m in manifests), Counts()),
        reasons=_total(m.reasons for m in manifests),
        caption_reasons=_total(m.caption_reasons for m in manifests),
        open=sum(_open(dataset, stage, shard) for shard in shards),
        score_sum=sum(m.facts.get("score_sum", 0.0) for m in manifests),
        score_count=sum(m.facts.get("score_count", 0) for m in manifests),
        scored=(sum(s for s, _ in scored), sum(n for _, n in scored)),
        shards=tuple(shards),
    )


def _open(dataset: Dataset, stage: Stage, shard: Shard) -> int:
    """Retryable failures of a stage: its own, and those of the facts that it rests on."""
    steps = [Step(step) for step in shard.manifests if step == stage or step.startswith(f"{stage}/")]
    return sum(dataset.manifest(shard, step).open for step in steps)


def _total(tallies: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally)
    return dict(sorted(total.items()))


@dataclass(frozen=True)
class Run:
    """A run that is under way, or one that was."""

    dataset: Dataset
    number: int

    def record(self, name: str, content: dict[str, Any]) -> None:
        """Put one record of this run."""
        path = layout.run_path(self.dataset.name, self.number, name)
        self.dataset.store.create(path, json.dumps(content, indent=1, sort_keys=True).encode())

    def read(self, name: str) -> dict[str, Any] | None:
        """One record of this run, or None."""
        try:
            content = self.dataset.store.get(layout.run_path(self.dataset.name, self.number, name))
        except FileNotFoundError:
            return None
        record: dict[str, Any] = json.loads(content)
        return record

    @property
    def base(self) -> int | None:
        """The newest version that was published when it started: its decisions rest on that."""
        found: int | None = (self.read("start") or {}).get("base")
        return found

    @property
    def parent(self) -> Run | None:
        """The run before this one, if there was one."""
        number = (self.read("start") or {}).get("parent")
        return None if number is None else Run(self.dataset, number)

    def stage_done(self, done: StageReport) -> None:
        """Record a stage's report."""
        content = asdict(done)
        content["samples"] = done.samples.model_dump(by_alias=True)
        content["captions"] = done.captions.model_dump(by_alias=True)
        self.record(done.stage.value, content)

    def attach(self, name: str, data: bytes) -> str:
        """Put a file beside the records, such as a page; returns where people find it."""
        path = layout.run_file(self.dataset.name, self.number, name)
        self.dataset.store.create(path, data)
        return self.dataset.store.locate(path)

    def stage(self, stage: Stage) -> StageReport | None:
        """A stage's report, or None if this run did not reach it."""
        content = self.read(stage.value)
        if content is None:
            return None
        return StageReport(
            **{
                **content,
                "stage": stage,
                "samples": Counts(**content["samples"]),
                "captions": Counts(**content["captions"]),
                "scored": tuple(content["scored"]),
                "shards": tuple(Shard(**shard) for shard in content["shards"]),
            }
        )

    def finish(self, outcome: str, message: str, **facts: Any) -> None:
        """Record how the run ended."""
        self.record("end", {"outcome": outcome, "message": message, "ended": _now(), **facts})


def start_run(dataset: Dataset, config: BuildConfig, version: int | None = None) -> Run:
    """Claim the next run number, for a run that goes on from a published version."""
    while True:
        before = last_run(dataset)
        run = Run(dataset, before.number + 1 if before else 1)
        content = {
            "number": run.number,
            "parent": before.number if before else None,
            "started": _now(),
            "by": f"{socket.gethostname()}, process {os.getpid()}",
            "version": __version__,
            "base": version,
            "config": config.model_dump(mode="json"),
        }
        path = layout.run_path(dataset.name, run.number, "start")
        if dataset.store.create(path, json.dumps(content, indent=1, sort_keys=True).encode()):
            return run


def last_run(dataset: Dataset) -> Run | None:
    """The newest run of a dataset."""
    prefix = f"{layout.runs_prefix(dataset.name)}/"
    names = {path.removeprefix(prefix).split("/", 1)[0] for path in dataset.store.list(prefix)}
    numbers = [int(name) for name in names if name.isdecimal()]
    return Run(dataset, max(numbers)) if numbers else None


def existing_run(dataset: Dataset) -> Run:
    """The newest run, for commands that need one.

    Raises:
        ConfigError: the store has no run of this dataset; the ones it has are named.
    """
    run = last_run(dataset)
    if run is None:
        known = dataset.store.children("")
        hint = f"it has {', '.join(known)}" if known else "it is empty"
        raise ConfigError(f"dataset = {dataset.name!r}: no run of it in {dataset.store_url} ({hint})")
    return run


def config_of_newest(dataset: Dataset) -> BuildConfig:
    """The config of the newest run, over the store that it is read from.

    Raises:
        ConfigError: there is no run, or another version of this software wrote its config.
    """
    return config_of(existing_run(dataset))


def config_of(run: Run) -> BuildConfig:
    """The config of a run, over the store that it is read from.

    Raises:
        ConfigError: another version of this software wrote it.
    """
    raw = {**(run.read("start") or {}).get("config", {}), "store": run.dataset.store_url}
    return parse_config(raw, where=f"the config of run {run.number}")


def fingerprint(dataset: Dataset, config: BuildConfig, listing: Sequence[Shard], to: Stage) -> str:
    """What decides the outcome of a build that goes up to a stage: the listing, the settings, the code's revisions."""
    from vlmdata.export.selection.benchmark_list import digest_of_file

    parts: dict[str, Any] = {
        "listing": [shard.manifests[Step.LISTING] for shard in listing],
        "settings": config.settings(),
        "opt_out": OptOut.read(config.opt_out).digest,
        "revisions": {step.value: revision for step, revision in REVISION.items()},
    }
    if to >= Stage.CHECKED:
        parts |= _of_models(config)
    if to is Stage.FINAL:
        parts["evaluation_sets"] = [digest_of_file(path) for path in config.export.decontaminate.lists]
    else:
        parts["to"] = to.value
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _of_models(config: BuildConfig) -> dict[str, Any]:
    """What models and scorers add; without them a stage before theirs needs no weights."""
    from vlmdata.quality.judges import judges
    from vlmdata.quality.scorers import scorers

    bench = judges(config.quality)
    return {
        "models": [bench.default.settings(), {tag: judge.settings() for tag, judge in bench.special.items()}],
        "search": {
            identity: [search.gallery, search.max_miss_rate]
            for identity, search in bench.search(config.quality.retrieval).items()
        },
        "scorers": [scorer.identity() for scorer in scorers(config.quality)],
    }


def finished_alike(dataset: Dataset, fingerprint: str, to: Stage) -> Run | None:
    """The newest run, if it completed from the same source and settings, and what it made is still there."""
    run = last_run(dataset)
    end = run.read("end") if run else None
    if run is None or end is None or end["outcome"] != COMPLETED or end.get("fingerprint") != fingerprint:
        return None
    there = _is_whole(dataset, end.get("whole")) if to is Stage.FINAL else _is_there(run, to)
    return run if there else None


def _is_there(run: Run, stage: Stage) -> bool:
    """Whether the manifests that a run recorded for a stage are in the store."""
    done, step = run.stage(stage), Step(stage.value)
    if done is None:
        return False
    paths = {shard.manifests[step] for shard in done.shards}
    return paths <= set(run.dataset.store.list(layout.manifests_prefix(run.dataset.name, step)))


def _is_whole(dataset: Dataset, manifest: str | None) -> bool:
    """Whether an export's MANIFEST.json and every file that it names are there."""
    if not manifest or not dataset.store.exists(manifest):
        return False
    told = json.loads(dataset.store.get(manifest))
    by_export: dict[str, list[dict[str, Any]]] = {}
    for file in (*told["files"], *told.get("indexes", ()), *told.get("earlier", ())):
        by_export.setdefault(file.get("export", told["export"]), []).append(file)
    for export, files in by_export.items():
        prefix = layout.export_prefix(dataset.name, export)
        if missing(files, {path.removeprefix(f"{prefix}/") for path in dataset.store.list(prefix)}):
            return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
