"""An output that changes raises its step's revision, or old checkpoints would pass for new ones.

The golden file holds digests of what each step makes of six pictures. Write it
anew with `python tests/contracts/test_revisions.py --write`, after raising
`layout.REVISION` for every step that the test names.

Left out: what follows from clocks and paths (listings, manifests' names), from
a library's wording (`detail`), and from a model (embeddings, scores).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.pool import Terms
from vlmdata.filtering.shards import filter_shard
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import REVISION, Step
from vlmdata.measure.facts import measure_shard
from vlmdata.quality.bands import judge_shard
from vlmdata.schema import SCORES, filled

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FILE = GOLDEN / "revisions.json"
STEPS = [
    Step.RAW,
    Step.FACTS,
    Step.DUPLICATES,
    Step.FILTERED,
    Step.CAPTIONED,
    Step.CHECKED,
    Step.EXPORT_PLAN,
    Step.FINAL,
]
UNSTABLE = {"detail", "checked", "raw"}
SCORES_OF = {"a turned picture": 0.1, "second caption": 0.25}


def build(folder: str) -> tuple[Dataset, Shard, Shard]:
    """All five stages with the library alone: the one shard, and the one exported."""
    config = _config(folder)
    dataset = Dataset(config.store, config.dataset)
    [shard] = list_source(dataset, config)
    shard = measure_shard(dataset, ingest_shard(dataset, shard, config), config.filter)
    [shard] = find_duplicates(dataset, [shard], Terms(config.filter, config.dedup))
    shard = caption_shard(dataset, filter_shard(dataset, shard, config.filter, config.dedup), config.caption)
    shard = judge_shard(dataset, _given_scores(dataset, shard), config.quality)
    [planned] = plan_export(dataset, [shard], config.export)
    return dataset, shard, export_shard(dataset, planned, config.export)


def _config(folder: str) -> BuildConfig:
    return parse_config(
        {
            "dataset": "golden",
            "store": folder,
            "source": {"kind": "folder", "path": str(GOLDEN / "pictures"), "captions": str(GOLDEN / "captions.jsonl")},
            "filter": {"min_side": 32},
            "caption": {"policy": "none"},
            "export": {"formats": ["webdataset"]},
        }
    )


def _given_scores(dataset: Dataset, shard: Shard) -> Shard:
    captions = dataset.read(shard, Step.CAPTIONED, "captions")
    values = pa.array([SCORES_OF.get(text, 0.5) for text in captions["text"].to_pylist()], pa.float32())
    names = {"id": captions["id"], "caption_id": captions["caption_id"]}
    table = filled(SCORES, len(values), **names, score=values, model="given", language="en")
    counts = Counts(came=len(values), kept=len(values))
    made = publish(
        dataset, shard.name, Step.SCORES, step_key(Step.SCORES, [], {}), Result({"scores": table}, captions=counts)
    )
    return shard.at(Step.SCORES, made)


def outputs() -> dict[str, dict[str, Any]]:
    """For each step its revision, and a digest of every column that it makes."""
    with tempfile.TemporaryDirectory() as folder:
        dataset, shard, exported = build(folder)
        found = {}
        for step in STEPS:
            manifest = dataset.manifest(exported if step.value in exported.manifests else shard, step)
            columns = {
                f"{table}.{column}": digest
                for table, ref in sorted(manifest.tables.items())
                for column, digest in ref.columns.items()
                if column not in UNSTABLE
            }
            files = {file["path"]: file["sha256"] for file in manifest.facts.get("files", [])}
            found[step.value] = {"revision": manifest.revision, "columns": columns, "files": files}
    return found


@pytest.fixture(scope="module")
def now() -> dict[str, dict[str, Any]]:
    return outputs()


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of columns and files that are not what they were."""
    pairs = [({**one["columns"], **one["files"]}) for one in (before, after)]
    return sorted(name for name in pairs[0].keys() | pairs[1].keys() if pairs[0].get(name) != pairs[1].get(name))


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_makes_changes_with_its_revision_only(
    now: dict[str, dict[str, Any]], golden: dict[str, dict[str, Any]], step: Step
) -> None:
    changed = changes(golden[step], now[step])
    raised = REVISION[step] > golden[step]["revision"]
    assert not changed or raised, (
        f"{step} makes other {', '.join(changed)} than before: raise layout.REVISION[Step.{step.name}], "
        "or old checkpoints pass for new ones; then write the golden file anew"
    )
    assert REVISION[step] == golden[step]["revision"], (
        f"{step} has revision {REVISION[step]}, the golden file {golden[step]['revision']}: "
        "write it anew with `python tests/contracts/test_revisions.py --write`"
    )


def test_no_revision_is_taken_back(golden: dict[str, dict[str, Any]]) -> None:
    assert all(REVISION[Step(step)] >= one["revision"] for step, one in golden.items())


def test_the_golden_pictures_meet_every_fate(tmp_path: Path) -> None:
    """Else a change could pass unseen."""
    dataset, shard, exported = build(str(tmp_path))
    filtered, checked = (dataset.manifest(shard, step) for step in (Step.FILTERED, Step.CHECKED))
    assert filtered.reasons == {"near_duplicate": 1, "too_small": 1, "truncated": 1}
    assert set(filtered.caption_reasons) == {"empty_caption", "sample_rejected"}
    assert (checked.reasons, checked.caption_reasons) == ({"misaligned": 1}, {"borderline": 1, "misaligned": 1})
    assert dataset.manifest(exported, Step.FINAL).samples.kept == 2


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/contracts/test_revisions.py --write")
    FILE.write_text(json.dumps(outputs(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {FILE}\n")
