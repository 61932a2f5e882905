"""Exports that held whom a withdrawal is about: their files are deleted and written again from what is left."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Manifest, Shard, made_again, put_table
from vlmdata.config import ExportConfig
from vlmdata.export.about import about
from vlmdata.export.card import CardFacts
from vlmdata.export.card_facts import card_facts
from vlmdata.export.finish import as_json, contents, lasting
from vlmdata.export.formats import beside
from vlmdata.export.indexes import indexes, is_index
from vlmdata.export.left_out import is_left_out
from vlmdata.export.names import MANIFEST, shard_of
from vlmdata.export.plan import PLAN, digests_now
from vlmdata.export.shards import write_files
from vlmdata.export.tallies import added_up
from vlmdata.forgetting.tables import Scrubber
from vlmdata.forgetting.who import manifests
from vlmdata.layout import Step
from vlmdata.runs import Run, config_of
from vlmdata.versions.version import numbers, read_version


def rewrite_exports(scrubber: Scrubber) -> set[str]:
    """Write the exports' files anew that held them, or a caption of theirs; returns the names of those exports."""
    dataset, who = scrubber.dataset, scrubber.who
    scrubber.scrub(Step.EXPORT_PLAN)
    scrubber.scrub(Step.FINAL, is_left_out)
    planned = manifests(dataset, Step.EXPORT_PLAN)
    plans = {(one.facts["export"], one.shard): (path, one) for path, one in planned.items()}
    theirs = pa.array(sorted(who.ids | who.bereft), pa.string())
    touched = set[str]()
    for path, final in manifests(dataset, Step.FINAL).items():
        if pc.any(pc.is_in(dataset.table(final.tables["samples"], ["id"])["id"], value_set=theirs)).as_py():
            _again(scrubber, *plans[final.facts["export"], final.shard], path, final)
            touched.add(final.facts["export"])
    for export in sorted(touched):
        _describe(dataset, export)
    return touched


def _replanned(dataset: Dataset, path: str, plan: Manifest) -> Manifest:
    """The plan with digests of what is said now."""
    rows = dataset.table(plan.tables["plan"])
    digests = digests_now(dataset, rows, shard_of(plan.shard)[0]) if rows.num_rows else rows["digest"]
    new = pa.table([digests if name == "digest" else rows[name] for name in PLAN.names], schema=PLAN)
    counts = plan.samples.model_copy(update={"came": new.num_rows, "kept": new.num_rows})
    tables = {**plan.tables, "plan": put_table(dataset, Step.EXPORT_PLAN, new)}
    plan = plan.model_copy(update={"tables": tables, "samples": counts})
    dataset.replace_manifest(path, plan)
    return plan


def _again(scrubber: Scrubber, plan_path: str, plan: Manifest, path: str, before: Manifest) -> None:
    dataset = scrubber.dataset
    plan = _replanned(dataset, plan_path, plan)
    prefix = layout.export_prefix(dataset.name, plan.facts["export"])
    for file in before.facts["files"]:
        _delete(dataset, prefix, file)
    if not dataset.store.exists(f"{prefix}/{MANIFEST}"):
        # It was interrupted, so nobody reads it; whoever goes on with it finds the plan as it is now.
        dataset.store.delete(path)
        return
    shard = Shard(plan.shard, plan.samples.kept, {Step.EXPORT_PLAN.value: plan_path})
    made = made_again(dataset, before, write_files(dataset, shard, _config(dataset, prefix)))
    dataset.replace_manifest(path, made)
    scrubber.replaced |= {ref.path for ref in before.tables.values()} - {ref.path for ref in made.tables.values()}


def _delete(dataset: Dataset, prefix: str, file: dict[str, Any]) -> None:
    """Take away a shard's file, and before it those that only it tells of."""
    if dataset.store.exists(f"{prefix}/{file['path']}"):
        for path in beside(dataset.store, prefix, file):
            dataset.store.delete(f"{prefix}/{path}")
    dataset.store.delete(f"{prefix}/{file['path']}")


def _config(dataset: Dataset, prefix: str) -> ExportConfig:
    manifest = json.loads(dataset.store.get(f"{prefix}/{MANIFEST}"))
    return ExportConfig.model_validate(manifest["settings"])


def _describe(dataset: Dataset, export: str) -> None:
    """Indexes, MANIFEST.json and what else tells of an export whose files have changed."""
    prefix = layout.export_prefix(dataset.name, export)
    if not dataset.store.exists(f"{prefix}/{MANIFEST}"):
        for path in dataset.store.list(prefix):
            if is_index(path):
                dataset.store.delete(path)
        return
    manifest: dict[str, Any] = json.loads(dataset.store.get(f"{prefix}/{MANIFEST}"))
    every = {(one.facts["export"], one.shard): one for one in manifests(dataset, Step.FINAL).values()}
    mine = [one for (key, _), one in every.items() if key == export]
    now = {(key, file["path"]): file for (key, _), one in every.items() for file in one.facts["files"]}
    earlier = [
        {"export": file["export"], **now[file["export"], file["path"]]}
        for file in manifest.get("earlier", ())
        if (file["export"], file["path"]) in now
    ]
    files = contents(mine, [])["files"]
    with indexes(manifest["settings"]["formats"], files, lambda path: dataset.store.view(f"{prefix}/{path}")) as made:
        for one in made:
            dataset.store.replace(f"{prefix}/{one.path}", one.data)
        manifest |= contents(mine, made)
    if earlier:
        manifest["earlier"] = earlier
    tallies = added_up(dataset.table(one.tables["tallies"]) for one in mine)
    said = about(manifest, tallies, _facts(dataset, prefix))
    plots = [path.removeprefix(f"{prefix}/") for path in dataset.store.list(f"{prefix}/plots")]
    for name in {*manifest.get("about", ()), *plots} - said.keys():
        dataset.store.delete(f"{prefix}/{name}")
    manifest["about"] = lasting(said)
    dataset.store.replace(f"{prefix}/{MANIFEST}", as_json(manifest))
    for name, data in said.items():
        dataset.store.replace(f"{prefix}/{name}", data)


def _facts(dataset: Dataset, prefix: str) -> CardFacts:
    """Of the run that made the export, if a version tells which."""
    for number in numbers(dataset):
        version = read_version(dataset, number)
        if version.export == prefix:
            run = Run(dataset, version.run)
            return card_facts(run, config_of(run))
    return {}
