"""Run a stage's suites; a rule that does not hold stops the run and names the samples."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from expectations import accounts, captioned, filtered, final, quality_checked, raw
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.errors import BrokenInvariant, GateFailed
from vlmdata.layout import Stage

if TYPE_CHECKING:
    import pandas as pd

SUITES = {
    Stage.RAW: raw,
    Stage.FILTERED: filtered,
    Stage.CAPTIONED: captioned,
    Stage.CHECKED: quality_checked,
    Stage.FINAL: final,
}
_ROWS_AT_A_TIME = 500_000
_SAMPLES_NAMED = 5


def check_stage(dataset: Dataset, shards: Sequence[Shard], stage: Stage, config: BuildConfig) -> int:
    """Validate a stage's accounts and rows; returns how many expectations were evaluated.

    Raises:
        GateFailed: names the first expectation that does not hold, and samples.
    """
    suite = SUITES[stage]
    evaluated = validate(f"{stage} accounts", accounts.frame(dataset, shards, stage), accounts.expectations())
    for rows in _chunks(suite.frame(dataset, shards, config)):
        evaluated += validate(f"{stage} samples", rows, suite.expectations(config))
    return evaluated


def _chunks(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows in parts that fit in memory as pandas; how often each id occurs is counted over all of them."""
    counted = pc.value_counts(rows["id"])
    values, counts = counted.field("values"), counted.field("counts")
    rows = rows.append_column("copies", counts.take(pc.index_in(rows["id"], value_set=values)))
    for start in range(0, max(rows.num_rows, 1), _ROWS_AT_A_TIME):
        yield rows.slice(start, _ROWS_AT_A_TIME)


def validate(name: str, rows: pa.Table, expectations: Sequence[Any]) -> int:
    """Validate plain columns against expectations; rows are named by their first column.

    Raises:
        GateFailed: one does not hold.
        BrokenInvariant: fewer were evaluated than written (a suite that checks nothing passes).
    """
    result = _validated(name, rows.to_pandas(), expectations, index=rows.column_names[0])
    if len(result.results) != len(expectations):
        raise BrokenInvariant(f"{name}: {len(result.results)} of {len(expectations)} expectations were evaluated")
    for one in result.results:
        if not one.success:
            raise GateFailed(f"{name}: {_sentence(one, rows.column_names[0])}")
    return len(expectations)


def _validated(name: str, frame: pd.DataFrame, expectations: Sequence[Any], index: str) -> Any:
    gx = great_expectations()
    batch = _rows_of_any_frame().get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(name=name, expectations=list(expectations))
    wanted = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": [index],
        "partial_unexpected_count": _SAMPLES_NAMED,
    }
    return batch.validate(suite, result_format=wanted)


@cache
def _rows_of_any_frame() -> Any:
    """One context a process: each makes a temporary folder."""
    context = great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("all")


def great_expectations() -> Any:
    """The library, imported when first needed (6 s) and silent."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    # One of its modules sets a level of its own.
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return gx


def _sentence(one: Any, index: str) -> str:
    """Which expectation, what was seen, and which rows, in one line."""
    config = one.expectation_config
    asked = {key: value for key, value in config.kwargs.items() if key not in {"batch_id", "column"}}
    column = config.kwargs.get("column")
    seen = one.result.get("observed_value", one.result.get("partial_unexpected_list"))
    rows = [str(row[index]) for row in one.result.get("partial_unexpected_index_list") or []]
    number = one.result.get("unexpected_count")
    parts = [f"{config.type}({', '.join(filter(None, [column, *(f'{k}={v}' for k, v in asked.items())]))})"]
    parts.append(f"did not hold: saw {seen}")
    if number:
        parts.append(f"in {number} rows")
    if rows:
        parts.append(f"{index} {', '.join(rows)}")
    return " ".join(parts)
