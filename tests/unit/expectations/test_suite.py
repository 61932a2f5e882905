"""A suite that checks nothing does not pass, and a figure holds exactly where its bounds say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.rule import Figure, Rule, none_may
from expectations.suite import judged, validate
from expectations.verdict import Verdict, verdicts
from vlmdata.errors import BrokenInvariant

CUSTOM: list[tuple[str, dict[str, Any]]] = [
    ("ExpectColumnMaxToBeBetween", {}),
    ("ExpectColumnMinToBeBetween", {}),
    ("ExpectNoTwoHashesWithin", {"radius": 8}),
    ("ExpectInToEqualOut", {"what": "samples"}),
    ("ExpectRecallAt10ToBeBetween", {"gallery": 1000}),
    ("ExpectHealthFigureToBeBetween", {"figure": "mean_score"}),
    ("ExpectLanguageShareToBeBetween", {"language": "en"}),
]
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


def verdict(rule: Rule) -> Verdict:
    [found] = verdicts(validate("a suite", [rule]))
    return found


@pytest.mark.parametrize(("expectation", "settings"), CUSTOM)
@given(value=st.none() | NUMBERS, low=st.none() | NUMBERS, high=st.none() | NUMBERS)
def test_a_figure_holds_within_its_bounds_and_nothing_does_not(
    expectation: str, settings: dict[str, Any], value: float | None, low: float | None, high: float | None
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    rule = Rule("a", "asked", "column", Figure(value), low, high, expectation, settings)
    holds = value is not None and (low is None or value >= low) and (high is None or value <= high)
    assert verdict(rule).held == holds


def test_verdicts_are_in_order_and_say_all_that_was_found() -> None:
    figure = Figure(2, 10, "captions", ("one", "two"), ("0.1", "0.2"))
    rules = [none_may(name, f"asked of {name}", f"column_{name}", figure) for name in "cab"]
    rules[1] = replace(rules[1], severity="warn")
    found = verdicts(validate("03_quality_checked", rules))
    assert [one.rule for one in found] == ["c", "a", "b"]
    assert [one.severity for one in found] == ["stop", "warn", "stop"]
    assert found[0].sentence == (
        "03_quality_checked: c: expect_column_max_to_be_between(column_c, max_value=0) did not hold:"
        " asked of c; saw 0.1, 0.2 in 2 of 10 captions: one, two"
    )


def test_a_suite_without_a_rule_is_a_defect() -> None:
    with pytest.raises(BrokenInvariant, match="0 of 0 expectations"):
        validate("x", [])


def test_an_expectation_of_a_column_that_is_not_there_is_a_defect() -> None:
    from great_expectations import expectations as gxe

    with pytest.raises(BrokenInvariant, match="expect_column_max_to_be_between could not be evaluated"):
        judged("x", pd.DataFrame({"a": [1]}), [gxe.ExpectColumnMaxToBeBetween(column="nothing", max_value=1)])


def test_fewer_than_written_are_a_defect() -> None:
    from great_expectations import expectations as gxe

    unknown = {"type": "expect_what_nobody_wrote", "kwargs": {}}
    known = gxe.ExpectColumnMaxToBeBetween(column="a", max_value=1)
    with pytest.raises(BrokenInvariant, match="1 of 2 expectations"):
        judged("x", pd.DataFrame({"a": [1]}), [known, unknown])
