"""Where everything lies in the store. Nothing else builds a path.

<dataset>/<step>/manifests/<key>/<generation>.json
<dataset>/<step>/data/<2 hex>/<content hash>.parquet
<dataset>/04_final/<key>/<format>/<number>.<ext>
<dataset>/runs/<number>/<step>.json
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """The five checkpoints that people see."""

    RAW = "00_raw"
    FILTERED = "01_filtered"
    CAPTIONED = "02_captioned"
    CHECKED = "03_quality_checked"
    FINAL = "04_final"


class Step(StrEnum):
    """Every kind of checkpoint: a stage's result, and the facts it rests on."""

    LISTING = "00_raw/listing"
    RAW = "00_raw"
    FACTS = "01_filtered/facts"
    DUPLICATES = "01_filtered/duplicates"
    FILTERED = "01_filtered"
    ANSWERS = "02_captioned/answers"
    CAPTIONED = "02_captioned"
    EMBEDDINGS = "03_quality_checked/embeddings"
    SCORES = "03_quality_checked/scores"
    CHECKED = "03_quality_checked"
    EXPORT_PLAN = "04_final/plan"
    FINAL = "04_final"


REVISION: dict[Step, int] = dict.fromkeys(Step, 1)
"""Goes up when a step's output changes for the same input; a golden test guards it."""


def data_path(dataset: str, step: Step, digest: str) -> str:
    """A content-addressed table."""
    return f"{dataset}/{step}/data/{digest[:2]}/{digest}.parquet"


def manifest_prefix(dataset: str, step: Step, key: str) -> str:
    """The folder of one key's generations."""
    return f"{dataset}/{step}/manifests/{key}"


def manifest_path(dataset: str, step: Step, key: str, generation: int) -> str:
    """One generation: numbered, put once, never overwritten."""
    return f"{manifest_prefix(dataset, step, key)}/{generation:05d}.json"


def export_prefix(dataset: str, key: str) -> str:
    """One export: its files and MANIFEST.json."""
    return f"{dataset}/{Stage.FINAL}/{key}"


def runs_prefix(dataset: str) -> str:
    """All runs of a dataset."""
    return f"{dataset}/runs"


def run_path(dataset: str, number: int, name: str) -> str:
    """One record of one run."""
    return f"{runs_prefix(dataset)}/{number:06d}/{name}.json"
