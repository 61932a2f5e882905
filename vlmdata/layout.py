"""Where everything lies in the store. Nothing else builds a path.

<dataset>/<step>/manifests/<key>/<generation>.json
<dataset>/<step>/data/<2 hex>/<content hash>.parquet
<dataset>/04_final/<key>/<format>/<number>.<ext>
<dataset>/02_captioned/journal/{log,snapshots,tables,batches}/…
<dataset>/runs/<number>/<step>.json
<dataset>/versions/<number>.json
<dataset>/forgotten/<number>.json
<dataset>/lease.json
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
    CLOSE = "01_filtered/close"
    LOOKS = "01_filtered/looks"
    DUPLICATES = "01_filtered/duplicates"
    FILTERED = "01_filtered"
    ANSWERS = "02_captioned/answers"
    CAPTIONED = "02_captioned"
    EMBEDDINGS = "03_quality_checked/embeddings"
    MIRRORED = "03_quality_checked/mirrored"
    MARKS = "03_quality_checked/marks"
    SCORES = "03_quality_checked/scores"
    CHECKED = "03_quality_checked"
    SELECTED = "04_final/selected"
    EXPORT_PLAN = "04_final/plan"
    FINAL = "04_final"


REVISION: dict[Step, int] = {
    **dict.fromkeys(Step, 1),
    Step.LISTING: 3,
    Step.RAW: 3,
    Step.DUPLICATES: 3,
    Step.FILTERED: 3,
    Step.ANSWERS: 2,
    Step.CAPTIONED: 3,
    Step.SCORES: 3,
    Step.CHECKED: 4,
    Step.SELECTED: 2,
    Step.EXPORT_PLAN: 4,
    Step.FINAL: 4,
}
"""Goes up when a step's output changes for the same input; a golden test guards it."""


def data_path(dataset: str, step: Step, digest: str) -> str:
    """A content-addressed table."""
    return f"{dataset}/{step}/data/{digest[:2]}/{digest}.parquet"


def manifests_prefix(dataset: str, step: Step) -> str:
    """All manifests of a step."""
    return f"{dataset}/{step}/manifests"


def manifest_prefix(dataset: str, step: Step, key: str) -> str:
    """The folder of one key's generations."""
    return f"{manifests_prefix(dataset, step)}/{key}"


def manifest_path(dataset: str, step: Step, key: str, generation: int) -> str:
    """One generation: numbered, put once, never overwritten."""
    return f"{manifest_prefix(dataset, step, key)}/{generation:05d}.json"


def export_prefix(dataset: str, key: str) -> str:
    """One export: its files and MANIFEST.json."""
    return f"{dataset}/{Stage.FINAL}/{key}"


def journal(dataset: str) -> str:
    """All that the journal keeps."""
    return f"{dataset}/{Stage.CAPTIONED}/journal"


_SEGMENTS_A_FOLDER = 1_000


def journal_thousand(number: int) -> int:
    """Which folder of the log holds a segment."""
    return number // _SEGMENTS_A_FOLDER


def journal_folder(dataset: str, thousand: int) -> str:
    """A folder of the log."""
    return f"{journal(dataset)}/log/{thousand:06d}"


def journal_segment(dataset: str, number: int) -> str:
    """One segment of the log: numbered from 1, put once."""
    return f"{journal_folder(dataset, journal_thousand(number))}/{number:09d}.jsonl"


def journal_snapshots(dataset: str) -> str:
    """All snapshots of the log."""
    return f"{journal(dataset)}/snapshots"


def journal_snapshot(dataset: str, number: int) -> str:
    """What the log up to a segment adds up to."""
    return f"{journal_snapshots(dataset)}/{number:09d}.json"


def journal_tables(dataset: str) -> str:
    """Settled records, by content."""
    return f"{journal(dataset)}/tables"


def journal_batch(dataset: str, token: str) -> str:
    """Which batch of the API a token stands for."""
    return f"{journal(dataset)}/batches/{token}.json"


_SHA256_DIGITS = 64


def sent_picture(dataset: str, name: str) -> str:
    """A picture that a captioner fetches by a link, for as long as it is asked about."""
    return f"{dataset}/{Stage.CAPTIONED}/sent/{name}"


def sent_name(ends: int, whose: str, original: str, random: str) -> str:
    """Such a picture's name, less its suffix: whatever was made of the original, its sha256 finds it."""
    return f"{ends}-{whose}-{original}{random}"


def original_of_sent(path: str) -> str | None:
    """The sha256 of what such a picture was made of; None: the object is none."""
    folder, _, name = path.rpartition("/")
    parts = name.partition(".")[0].split("-")
    is_one = path == sent_picture(folder.partition("/")[0], name) and len(parts) == 3
    return parts[2][:_SHA256_DIGITS] if is_one else None


def versions_prefix(dataset: str) -> str:
    """All published versions of a dataset."""
    return f"{dataset}/versions"


def version_path(dataset: str, number: int) -> str:
    """One version: put once, never overwritten."""
    return f"{versions_prefix(dataset)}/{number:06d}.json"


def forgotten_prefix(dataset: str) -> str:
    """What is not to come back, and the receipts."""
    return f"{dataset}/forgotten"


def forgotten_path(dataset: str, name: str) -> str:
    """A tombstone (a number), or a receipt."""
    return f"{forgotten_prefix(dataset)}/{name}.json"


def outside_path(dataset: str, name: str) -> str:
    """Where a copy of an export went, outside of the store."""
    return f"{dataset}/{Stage.FINAL}/outside/{name}.json"


def lease_path(dataset: str) -> str:
    """Who works on the dataset now: the one object that is overwritten."""
    return f"{dataset}/lease.json"


def runs_prefix(dataset: str) -> str:
    """All runs of a dataset."""
    return f"{dataset}/runs"


def run_path(dataset: str, number: int, name: str) -> str:
    """One record of one run."""
    return run_file(dataset, number, f"{name}.json")


GATES = "gates"
"""Where a run keeps all that its gates wrote."""
GATES_PAGE = f"{GATES}/index.html"
"""Every rule of a run, what it asked and what it saw."""
REPORT = "report.html"
"""A run's report, beside its records."""


def run_file(dataset: str, number: int, name: str) -> str:
    """A file beside a run's records."""
    return f"{runs_prefix(dataset)}/{number:06d}/{name}"
