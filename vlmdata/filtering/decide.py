"""Ask the rules about measured columns; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.filtering.rules import Rule, Verdict
from vlmdata.filtering.rules.opted_out import NAMES
from vlmdata.schema import REJECTS, filled


def judge(keys: pa.ChunkedArray, facts: pa.Table, rules: Sequence[Rule]) -> tuple[pa.Array, pa.Table]:
    """Which rows pass every rule (bool, n), and a row of `schema.REJECTS` for each that does not.

    A row is rejected by the first rule that says no.
    """
    passes = pa.repeat(pa.scalar(True), facts.num_rows)
    rejects = [REJECTS.empty_table()]
    for rule in rules:
        verdict = rule.judge(facts)
        newly = pc.and_(passes, _combined(verdict.rejected))
        rejects.append(_rejected(keys, facts, newly, verdict))
        passes = pc.and_not(passes, newly)
    return passes, pa.concat_tables(rejects)


def with_names(facts: pa.Table, samples: pa.Table) -> pa.Table:
    """Facts, and what a sample goes by elsewhere; row i of both is one sample."""
    for name in NAMES:
        facts = facts.append_column(samples.schema.field(name), samples[name])
    return facts


def _rejected(keys: pa.ChunkedArray, facts: pa.Table, mask: pa.Array, verdict: Verdict) -> pa.Table:
    def pick(column: pa.ChunkedArray) -> pa.ChunkedArray:
        return column.filter(mask)

    retryable = pick(facts["retryable"])
    value = None if verdict.value is None else pick(verdict.value)
    # A bound belongs to a measured value; a picture that does not decode has neither.
    bound = None if value is None else pc.if_else(pc.is_valid(value), verdict.bound, pa.scalar(None, pa.float64()))
    return filled(
        REJECTS,
        len(retryable),
        id=pick(facts["id"]),
        key=pick(keys),
        outcome=pc.if_else(retryable, "failed", "rejected"),
        code=verdict.code if isinstance(verdict.code, str) else pick(verdict.code),
        value=value,
        bound=bound,
        detail=None if verdict.detail is None else pick(verdict.detail),
        retryable=retryable,
    )


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
