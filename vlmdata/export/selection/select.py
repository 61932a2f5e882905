"""The selection: which samples are exported and in which split, decided over all shards at once.

The one global decision of stage 04 beside the cut. What is asked for is asked
in this order, and the first that says no is the reason: contamination, splits,
the best by score, weights, caps. A split is for ever: the next version's
decision rests on this one's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import BuildConfig, ExportConfig, QualityConfig
from vlmdata.export.selection.candidates import Candidates, candidates, reads_of
from vlmdata.export.selection.check import read_lists
from vlmdata.export.selection.contamination import Benchmarks
from vlmdata.export.selection.kin import Splits
from vlmdata.export.selection.quotas import by_quota
from vlmdata.export.selection.reasons import Reasons
from vlmdata.export.selection.splitting import split_samples
from vlmdata.layout import Step
from vlmdata.quality.embeddings import embedding_settings
from vlmdata.quality.judges import judges

SELECTED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), metadata={"note": "null: there are no splits, or it is in none"}),
        pa.field("outcome", pa.string(), metadata={"note": "rejected | held; null: exported"}),
        pa.field("code", pa.string(), metadata={"note": "stable reason code; null: exported"}),
        pa.field("value", pa.float64(), metadata={"note": "what was measured"}),
        pa.field("bound", pa.float64(), metadata={"note": "what it was held against"}),
        pa.field("detail", pa.string(), metadata={"note": "for people"}),
    ]
)
"""Table `selected`: a row a sample that 03 lets through."""


def selects(config: ExportConfig) -> bool:
    """Whether a config asks for a selection at all."""
    wanted = config.select
    return bool(config.splits or config.decontaminate.lists or wanted.top_fraction or wanted.weights or wanted.caps)


def select(dataset: Dataset, shards: Sequence[Shard], config: BuildConfig, before: Iterable[str] = ()) -> list[Shard]:
    """Decide about all samples that 03 lets through, if the config asks for anything to be decided.

    Tables `selected` (`SELECTED`) and `former` (`FORMER`). Facts: `form`, what
    the splits follow from; `splits`, how many samples each has; `largest`, of the
    groups that no split may part; `warnings`, what people should know. About 200 bytes of memory a sample; 2 KB where
    `export.split_by.confirm` is set.

    Args:
        before: The selections of the versions before, newest first: whoever has a split there keeps it.

    Raises:
        ConfigError: a list of `export.decontaminate` cannot be used.
    """
    export, quality = config.export, config.quality
    if not selects(export):
        return list(shards)
    lists = Benchmarks(read_lists(export, quality))
    settings = selection_settings(export, quality, lists)
    form = sha256(repr([settings["splits"], settings["split_by"]]).encode()).hexdigest()[:32]
    alike = (path for path in before if dataset.manifest_at(path).facts["form"] == form)
    stands = next(alike, None) if export.splits else None

    def work(_: Manifest | None) -> Result:
        return _decided(dataset, candidates(dataset, shards), config, lists, stands, form)

    everything = Shard("all", sum(shard.rows for shard in shards))
    reads = [*reads_of(dataset, shards), stands or ""]
    selected = run_once(dataset, everything, Step.SELECTED, reads, settings, work).manifests[Step.SELECTED]
    return [shard.at(Step.SELECTED, selected) for shard in shards]


def selection_settings(config: ExportConfig, quality: QualityConfig, lists: Benchmarks) -> dict[str, Any]:
    """What decides a selection, beside the samples."""
    looks = _looks(config, lists)
    return {
        "splits": config.splits,
        "split_by": config.split_by.settings() if config.splits else None,
        "select": config.select.settings(),
        "decontaminate": {**config.decontaminate.settings(), "lists": [one.digest for one in lists.lists]},
        "look": embedding_settings(judges(quality).default, quality.device) if looks else None,
    }


def _looks(config: ExportConfig, lists: Benchmarks) -> bool:
    by = config.split_by
    in_splits = bool(config.splits) and (by.cosine is not None or by.confirm is not None)
    return in_splits or (config.decontaminate.cosine is not None and lists.has_looks())


def _decided(
    dataset: Dataset, found: Candidates, config: BuildConfig, lists: Benchmarks, before: str | None, form: str
) -> Result:
    reasons = Reasons(len(found.ids))
    _contaminated(found, config, lists, reasons)
    split, former, facts = split_samples(dataset, found, config, reasons, before)
    facts["warnings"] += by_quota(found, config.export.select, reasons)
    table = pa.table([found.ids, _names(split, config.export.splits), *reasons.columns()], schema=SELECTED)
    held = pc.sum(pc.equal(table["outcome"], "held"), min_count=0).as_py()
    left_out = len(table) - table["code"].null_count
    counts = Counts(came=len(table), kept=len(table) - left_out, held=held, rejected=left_out - held)
    return Result({"selected": table, "former": former}, samples=counts, facts={"form": form, **facts})


def _contaminated(found: Candidates, config: BuildConfig, lists: Benchmarks, reasons: Reasons) -> None:
    wanted = config.export.decontaminate
    if not lists.lists:
        return
    theirs = lists.by_hash(found.hashes, found.hashed, wanted)
    if wanted.cosine is not None and lists.has_looks():
        lists.by_look(theirs, found.looks(config.quality), wanted.cosine)
    rows = np.flatnonzero(theirs.row >= 0)
    named = lists.rows.take(pa.array(theirs.row[rows]))
    detail = pc.binary_join_element_wise(named["benchmark"], named["key"], ": ").to_numpy(zero_copy_only=False)
    reasons.give(rows, "contaminated", value=theirs.value[rows], bound=theirs.bound[rows], detail=detail)


def _names(split: Splits, shares: dict[str, float] | None) -> pa.Array:
    return pa.array(list(shares or ())).cast(pa.string()).take(pa.array(split, mask=split < 0))
