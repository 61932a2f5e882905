"""How stage 03 judged one sample: each score with its model, the bounds in force, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata import layout
from vlmdata.checkpoint import Shard
from vlmdata.errors import ConfigError
from vlmdata.layout import Step
from vlmdata.lineage.plain import plain
from vlmdata.lineage.rules import NOT_ASKED, PASSED, Asked
from vlmdata.lineage.view import View

_INTERNAL = {"id", "caption_id"}


def scores(
    view: View,
    shard: Shard,
    scored: Sequence[dict[str, Any]],
    texts: Mapping[str, str],
    rejected: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Every caption's score, the bounds it was held against, and what became of the caption.

    Args:
        view: Whose config.
        shard: Where the sample lies, as 03 left it.
        scored: Its rows of `schema.SCORES`.
        texts: Of its captions, by caption id.
        rejected: Its rows of `schema.CAPTION_REJECTS`, with their ids.
    """
    bounds = _bounds(view, shard, sorted({row["language"] for row in scored}))
    lost = {row["caption_id"]: row for row in rejected}
    told = []
    for row in scored:
        decision = {name: lost.get(row["caption_id"], {}).get(name) for name in ("outcome", "code")}
        decision["outcome"] = decision["outcome"] or "accepted"
        held_to = {name: value for name, value in bounds.get(row["language"], {}).items() if name != "model"}
        text = texts.get(row["caption_id"])
        told.append(plain({"text": text, **row, **decision, **held_to}, _INTERNAL))
    return told


def _bounds(view: View, shard: Shard, languages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """As the checkpoint says; of one that does not say, as the config gives them today."""
    from vlmdata.quality.bands import bounds_of
    from vlmdata.quality.judges import judges

    recorded = view.dataset.manifest(shard, Step.CHECKED).facts.get("bounds")
    if recorded is not None:
        return {language: _named(one) for language, one in recorded.items()}
    if view.config is None or not languages:
        return {}
    try:
        found = bounds_of(judges(view.config.quality), pa.chunked_array([pa.array(languages)]))
    except ConfigError:
        # A model or a calibration is gone: what was decided is on record all the same.
        return {}
    return {language: _named(one) for language, one in found.items()}


def _named(bounds: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "accept_above": bounds["accept_above"],
        "reject_below": bounds["reject_below"],
        "bounds_from": bounds["from"],
        "bounds_found_for": bounds["found_for"],
    }


def rules_asked(view: View, row: Mapping[str, Any], reason: Mapping[str, Any]) -> list[Asked]:
    """The scorers' rules: what was measured of the picture, and what it may measure.

    Args:
        view: Whose config.
        row: The sample's row of `schema.CHECKED`; empty if it did not pass.
        reason: Its row of `schema.REJECTS`; empty if it did.
    """
    from vlmdata.quality.scorers import scorers

    told: list[Asked] = []
    over = False
    for scorer, bounds in scorers(view.config.quality).items() if view.config else ():
        said_no = reason.get("code") in {scorer.too_little, scorer.too_much}
        value = reason.get("value") if said_no else row.get(scorer.column)
        outcome = "rejected" if said_no else NOT_ASKED if over else PASSED
        told.append({"rule": scorer.name, "outcome": outcome, "value": value, **bounds.settings()})
        over = over or said_no
    return told


def rank(view: View, sample: str) -> dict[str, Any]:
    """Where a sample's caption was among its gallery's in the retrieval check; empty: it was not drawn."""
    from vlmdata.quality.retrieval import RANKS_FILE

    path = layout.run_file(view.dataset.name, view.run.number, RANKS_FILE)
    try:
        rows = pq.read_table(pa.BufferReader(view.dataset.store.get(path)))
    except FileNotFoundError:
        return {}
    mine = rows.filter(pc.equal(rows["id"], pa.scalar(sample))).to_pylist()
    if not mine:
        return {}
    top_k = (view.run.read("retrieval") or {}).get("top_k")
    return plain({**mine[0], "top_k": top_k})
