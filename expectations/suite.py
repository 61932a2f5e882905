"""Great Expectations judges a suite of rules: one row, a column a figure, an expectation a rule."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from expectations.rule import Rule
from vlmdata.config import Severity
from vlmdata.errors import BrokenInvariant

if TYPE_CHECKING:
    import pandas as pd

Results = dict[str, Any]
"""What a validation found, as Great Expectations writes it down."""

_SEVERITIES: dict[Severity, str] = {"stop": "critical", "warn": "warning"}


def validate(name: str, rules: Sequence[Rule]) -> Results:
    """Judge every rule.

    Raises:
        BrokenInvariant: fewer were evaluated than written (a suite that checks nothing passes).
    """
    import pandas as pd

    frame = pd.DataFrame({rule.column: [_plain(rule.figure.value)] for rule in rules})
    return judged(name, frame, [_expectation(rule) for rule in rules])


def judged(name: str, frame: pd.DataFrame, expectations: Sequence[Any]) -> Results:
    """Validate a frame against expectations.

    Raises:
        BrokenInvariant: there are none, fewer were evaluated than written, or one could not be.
    """
    gx = great_expectations()
    batch = _rows_of_any_frame().get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(name=name, expectations=list(expectations))
    results: Results = batch.validate(suite, result_format="SUMMARY").to_json_dict()
    found = results["results"]
    if not found or len(found) != len(expectations):
        raise BrokenInvariant(f"{name}: {len(found)} of {len(expectations)} expectations were evaluated")
    for one in found:
        if "observed_value" not in one["result"]:
            raise BrokenInvariant(f"{name}: {one['expectation_config']['type']} could not be evaluated")
    return results


def _plain(value: float | None) -> float:
    return float("nan") if value is None else value


def _expectation(rule: Rule) -> Any:
    from great_expectations import expectations as gxe

    from expectations import custom

    kind = getattr(custom, rule.expectation, None) or getattr(gxe, rule.expectation)
    figure = rule.figure
    return kind(
        column=rule.column,
        min_value=rule.at_least,
        max_value=rule.at_most,
        severity=_SEVERITIES[rule.severity],
        description=rule.asked,
        meta={
            "rule": rule.name,
            "asked": rule.asked,
            "of": figure.of,
            "unit": figure.unit,
            "share": figure.share,
            "ids": list(figure.ids),
            "seen": list(figure.seen),
        },
        **rule.settings,
    )


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
