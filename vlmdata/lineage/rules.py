"""Every rule of stage 01 that was asked of a sample, with its value and its bound, passed or not.

Rules are asked again, of the measurements as they were; who said no is what the
checkpoint says. A rule after the one that said no was not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from vlmdata.checkpoint import Shard
from vlmdata.config import BuildConfig
from vlmdata.filtering.rules import Rule, rules
from vlmdata.filtering.rules.decodes import Decodes
from vlmdata.lineage.lookup import key_of
from vlmdata.lineage.neighbours import Neighbours, neighbours
from vlmdata.lineage.view import View
from vlmdata.opt_out import NOBODY

PASSED, REJECTED, NOT_ASKED = "passed", "rejected", "not asked"
NEAR = "near_duplicate"

Asked = dict[str, Any]
"""`{"rule", "outcome", "value", "bound"}`, and what else there is to say."""


def rules_asked(
    view: View, shard: Shard, facts: pa.Table, captions: Sequence[dict[str, Any]], reason: dict[str, Any]
) -> list[Asked]:
    """In the order in which they are asked.

    Args:
        view: Whose config and hashes.
        shard: Where the sample lies, as 01 left it.
        facts: Its row of `schema.FACTS`; none if it was not measured.
        captions: Those that 01 kept.
        reason: Its row of `schema.REJECTS`; empty if it passed.
    """
    code = reason.get("code")
    config = view.config
    if config is None or not facts.num_rows:
        return [{"rule": code, "outcome": REJECTED, **_measured(reason)}] if code else []
    asked = [*_opt_out(config), *(_of_facts(rule, facts) for rule in rules(config.filter, config.dedup, NOBODY))]
    asked.append(_near(view, shard, facts, config, reason))
    if captions:
        asked.append(_longest_caption(config, captions))
    return _until_one_says_no(asked, code)


def _opt_out(config: BuildConfig) -> Iterator[Asked]:
    """The list itself may be another one by now; who it named is on record."""
    if config.opt_out is not None:
        yield {"rule": "opted_out", "codes": {"opted_out"}, "value": None, "bound": None}


def _of_facts(rule: Rule, facts: pa.Table) -> Asked:
    verdict = rule.judge(facts)
    code = verdict.code if isinstance(verdict.code, str) else verdict.code[0].as_py()
    value = None if verdict.value is None else verdict.value[0].as_py()
    asked = {"rule": _name(rule), "codes": {code}, "value": value, "bound": None if value is None else verdict.bound}
    if isinstance(rule, Decodes) and not code:
        row = facts.to_pylist()[0]
        asked |= {"value": float(row["width"] * row["height"]), "bound": float(rule.max_pixels)}
    return asked


def _name(rule: Rule) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(rule).__name__).lower()


def _near(view: View, shard: Shard, facts: pa.Table, config: BuildConfig, reason: dict[str, Any]) -> Asked:
    """The distance to the one that displaced it, or to the nearest that stays."""
    asked: Asked = {"rule": NEAR, "codes": {NEAR}, "value": None, "bound": float(config.dedup.max_distance)}
    if config.dedup.confirm is not None:
        asked["confirm"] = config.dedup.confirm
    if reason.get("code") == NEAR:
        return {**asked, **_measured(reason), "related": reason["related"], "key": key_of(view, reason["related"])}
    sample, phash = facts["id"][0].as_py(), facts["phash"][0].as_py()
    if reason or phash is None:
        return asked
    near = neighbours(view, shard, sample, phash)
    if near.nearest:
        asked |= {"value": float(near.nearest.distance), "related": near.nearest.id}
        asked["key"] = key_of(view, near.nearest.id, near.nearest.shard)
    return {**asked, "displaced": _displaced(view, near)}


def _displaced(view: View, near: Neighbours) -> list[dict[str, Any]]:
    return [
        {"id": one.id, "key": key_of(view, one.id, one.shard), "distance": float(one.distance)}
        for one in near.displaced
    ]


def _longest_caption(config: BuildConfig, captions: Sequence[dict[str, Any]]) -> Asked:
    longest = max(len(caption["text"].strip()) for caption in captions)
    bound = float(config.filter.max_caption_chars)
    return {"rule": "longest_caption", "codes": set(), "value": float(longest), "bound": bound}


def _until_one_says_no(asked: Sequence[Asked], code: str | None) -> list[Asked]:
    told, over = [], False
    for rule in asked:
        said_no = not over and code is not None and code in rule["codes"]
        outcome = NOT_ASKED if over else REJECTED if said_no else PASSED
        told.append({"rule": rule["rule"], "outcome": outcome, **{k: v for k, v in rule.items() if k not in _INTERNAL}})
        over = over or said_no
    if code is not None and not over:
        # A rule that this version of the software does not have.
        told.append({"rule": code, "outcome": REJECTED, "value": None, "bound": None})
    return told


_INTERNAL = {"rule", "codes"}


def _measured(reason: dict[str, Any]) -> dict[str, Any]:
    return {name: reason.get(name) for name in ("value", "bound")}
