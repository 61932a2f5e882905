"""The rule over measurements: bounds belong to what goes on, in float32, and the first scorer is the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.config import ScoreBounds
from vlmdata.quality.scorers import SCORERS, beyond_bounds
from vlmdata.schema import REJECTS


def rejects(values: Mapping[str, list[Any]], **bounds: ScoreBounds) -> list[dict[str, Any]]:
    rows = len(next(iter(values.values())))
    names = [str(row) for row in range(rows)]
    samples = pa.table({"id": names, "key": names})
    measured = pa.table({SCORERS[name].column: pa.array(column, pa.float32()) for name, column in values.items()})
    found = beyond_bounds(samples, measured, {SCORERS[name]: one for name, one in bounds.items()})
    assert found.schema == REJECTS
    return found.to_pylist()


def test_the_bound_itself_goes_on() -> None:
    below, above = (float(np.nextafter(np.float32(0.3), np.float32(side))) for side in (-1, 1))
    low = rejects({"sharpness": [below, 0.3, above]}, sharpness=ScoreBounds(reject_below=0.3))
    assert [(row["id"], row["code"], row["outcome"]) for row in low] == [("0", "blurred", "rejected")]
    high = rejects({"text": [below, 0.3, above]}, text=ScoreBounds(reject_above=0.3))
    assert [(row["id"], row["code"], row["bound"]) for row in high] == [
        ("2", "text_in_picture", float(np.float32(0.3)))
    ]


def test_a_picture_that_was_not_measured_fails_where_there_is_a_bound() -> None:
    [row] = rejects({"nsfw": [None, 0.1]}, nsfw=ScoreBounds(reject_above=0.8))
    assert (row["outcome"], row["code"], row["detail"], row["value"]) == ("failed", "not_measured", "nsfw", None)
    assert rejects({"nsfw": [None, 0.1]}, nsfw=ScoreBounds()) == []


def test_nothing_asked_rejects_nothing() -> None:
    assert beyond_bounds(pa.table({"id": ["a"], "key": ["a"]}), pa.table({"id": ["a"]}), {}).num_rows == 0


def test_a_sample_has_one_reason_that_of_the_first_scorer() -> None:
    bounds = {name: ScoreBounds(reject_below=0.5) for name in ("nsfw", "text")}
    found = rejects({"nsfw": [0.1, 0.9, 0.9], "text": [0.1, 0.1, 0.9]}, **bounds)
    assert [(row["id"], row["code"]) for row in found] == [
        ("0", SCORERS["nsfw"].too_little),
        ("1", SCORERS["text"].too_little),
    ]


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_codes_and_columns_are_names(name: str) -> None:
    scorer = SCORERS[name]
    assert scorer.name == name
    assert all(word.replace("_", "").isalpha() for word in (scorer.column, scorer.too_little, scorer.too_much))


measurements = st.lists(st.floats(-2, 2, width=32) | st.none(), max_size=20)


@given(measurements, st.floats(-1, 1), st.floats(-1, 1))
def test_every_sample_is_within_or_has_one_row(values: list[Any], one: float, other: float) -> None:
    least, most = np.float32(min(one, other)), np.float32(max(one, other))
    bounds = ScoreBounds(reject_below=min(one, other), reject_above=max(one, other))
    found = {row["id"]: row for row in rejects({"nsfw": values}, nsfw=bounds)}
    assert len(found) == sum(value is None or value < least or value > most for value in values)
    for row, value in enumerate(values):
        if value is not None and str(row) in found:
            assert found[str(row)]["value"] == value
            assert found[str(row)]["code"] == (SCORERS["nsfw"].too_little if value < least else "nsfw")
