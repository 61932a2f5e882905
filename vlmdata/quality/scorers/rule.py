"""The one rule over what scorers measured: a picture beyond a bound does not go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import ScoreBounds
from vlmdata.quality.scorers.base import Scorer
from vlmdata.schema import REJECTS, filled

NOT_MEASURED = "not_measured"


def beyond_bounds(samples: pa.Table, measured: pa.Table, asked: Mapping[Scorer, ScoreBounds]) -> pa.Table:
    """Rows of `schema.REJECTS` for the samples that a bound does not let through.

    A picture that measures the bound itself goes on. One that a scorer with a
    bound could not measure fails (`not_measured`): nobody knows what it is. A
    sample's reason is that of the first scorer; measurements and bounds are
    float32 when they are compared.

    Args:
        samples: n rows with id and key.
        measured: their measurements in the same order, a column a scorer.
        asked: the scorers and their bounds.
    """
    rejects = [REJECTS.empty_table()]
    left = pa.repeat(pa.scalar(True), samples.num_rows)
    for scorer, bounds in asked.items():
        value = measured[scorer.column].combine_chunks()
        for lost, reason in _verdicts(scorer, bounds, value):
            newly = pc.and_(left, lost)
            rejects.append(_rejects(samples.filter(newly), value.filter(newly), reason))
            left = pc.and_not(left, newly)
    return pa.concat_tables(rejects)


def _verdicts(scorer: Scorer, bounds: ScoreBounds, value: pa.Array) -> Iterator[tuple[pa.Array, dict[str, Any]]]:
    """Which rows are lost, and why."""
    least, most = bounds.reject_below, bounds.reject_above
    if least is not None:
        yield _holds(pc.less(value, pa.scalar(least, pa.float32()))), _rejected(scorer.too_little, least)
    if most is not None:
        yield _holds(pc.greater(value, pa.scalar(most, pa.float32()))), _rejected(scorer.too_much, most)
    if least is not None or most is not None:
        yield pc.is_null(value), {"outcome": "failed", "code": NOT_MEASURED, "detail": scorer.name}


def _holds(found: pa.Array) -> pa.Array:
    return pc.fill_null(found, False)


def _rejected(code: str, bound: float) -> dict[str, Any]:
    return {"outcome": "rejected", "code": code, "bound": float(np.float32(bound))}


def _rejects(samples: pa.Table, value: pa.Array, reason: dict[str, Any]) -> pa.Table:
    return filled(
        REJECTS, samples.num_rows, id=samples["id"], key=samples["key"], value=value, retryable=False, **reason
    )
