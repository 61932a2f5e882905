"""How much of what: the best share by score, a share of each group, and at most so many of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import Dimension, Selection
from vlmdata.export.mix import draws
from vlmdata.export.selection.reasons import Reasons

if TYPE_CHECKING:
    from vlmdata.export.selection.candidates import Candidates

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
DECILES = tuple(str(at) for at in range(1, 11))
EVERY_OTHER = "*"
"""Names the groups that are not named."""


def below_top(scores: Floats, fraction: float) -> tuple[Flags, float]:
    """Whose best score is not among this share of the best, and the lowest score that is.

    DataComp's selection by CLIPScore (arXiv 2304.14108, section 3.2). Equal
    scores share a fate; who has no score (NaN) stays.
    """
    known = scores[~np.isnan(scores)]
    if not len(known):
        return np.zeros(len(scores), np.bool_), np.nan
    last = len(known) - max(1, round(fraction * len(known)))
    bound = float(np.partition(known, last)[last])
    return scores < bound, bound


def deciles(scores: Floats) -> pa.Array:
    """Each one's tenth by score, "1" the lowest to "10"; null without a score. Equal scores share a tenth."""
    known = np.flatnonzero(~np.isnan(scores))
    ordered = np.sort(scores[known])
    rank = np.searchsorted(ordered, scores[known], side="left")
    tenth = np.zeros(len(scores), np.int64)
    tenth[known] = 1 + rank * 10 // max(1, len(known))
    return pa.array(DECILES).take(pa.array(tenth - 1, mask=tenth == 0))


def lost_by_weight(groups: pa.Array, weights: Mapping[str, float], draws: Floats) -> tuple[Flags, Floats]:
    """Whose draw is not below the weight of their group, and that weight (1: the group is not weighed)."""
    weight = _of_group(groups, weights, 1.0)
    return draws >= weight, weight


def over_cap(groups: pa.Array, caps: Mapping[str, int], scores: Floats, draws: Floats) -> tuple[Flags, Floats]:
    """Who is more than a group may have, and how many it may (inf: no cap); the best by score stay, then the draw."""
    cap = _of_group(groups, caps, np.inf)
    places = pc.dictionary_encode(groups, null_encoding="encode").indices.to_numpy()
    order = np.lexsort((draws, -np.nan_to_num(scores, nan=-np.inf), places))
    begins = np.append(True, places[order][1:] != places[order][:-1])
    first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0)) if len(order) else order
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - first
    return rank >= cap, cap


def _of_group(groups: pa.Array, named: Mapping[str, float], otherwise: float) -> Floats:
    """What is said of each one's group."""
    otherwise = named.get(EVERY_OTHER, otherwise)
    said = {name: value for name, value in named.items() if name != EVERY_OTHER}
    values = np.array([*said.values(), otherwise], np.float64)
    at = pc.fill_null(pc.index_in(groups, value_set=pa.array(list(said), pa.string())), len(said))
    of_each: Floats = values[at.to_numpy()]
    return of_each


def by_quota(found: Candidates, wanted: Selection, reasons: Reasons) -> list[str]:
    """Leave out, of those that are left, whoever is not among the best by score, is not drawn, or is over a cap.

    Returns what people should know.
    """
    scores, warnings = found.scores, []
    if wanted.top_fraction is not None:
        rows = np.flatnonzero(reasons.none)
        low, bound = below_top(scores[rows], wanted.top_fraction)
        reasons.give(rows[low], "below_top", value=scores[rows[low]], bound=bound)
    for dimension, weights in sorted(wanted.weights.items()):
        rows = np.flatnonzero(reasons.none)
        groups, ids = (column.take(pa.array(rows)) for column in (found.group(dimension), found.ids))
        drawn = draws(ids, f"weight {dimension}")
        lost, weight = lost_by_weight(groups, weights, drawn)
        told = _told(dimension, groups)
        warnings += _strangers("weights", dimension, weights, groups)
        reasons.give(rows[lost], "weight", value=drawn[lost], bound=weight[lost], detail=told[lost])
    for dimension, caps in sorted(wanted.caps.items()):
        rows = np.flatnonzero(reasons.none)
        groups, ids = (column.take(pa.array(rows)) for column in (found.group(dimension), found.ids))
        lost, cap = over_cap(groups, caps, scores[rows], draws(ids, "cap"))
        told = _told(dimension, groups)
        warnings += _strangers("caps", dimension, caps, groups)
        reasons.give(rows[lost], "cap", value=scores[rows[lost]], bound=cap[lost], detail=told[lost])
    return warnings


def _told(dimension: Dimension, groups: pa.Array) -> npt.NDArray[np.object_]:
    """The dimension and each one's group."""
    names = pc.binary_join_element_wise(dimension, pc.fill_null(groups, "none"), " ")
    told: npt.NDArray[np.object_] = names.to_numpy(zero_copy_only=False)
    return told


def _strangers(what: str, dimension: Dimension, named: Mapping[str, float], groups: pa.Array) -> list[str]:
    """A name that no sample has is most often a slip."""
    strange = sorted(set(named) - {EVERY_OTHER} - set(pc.unique(groups).to_pylist()))
    return [f"export.select.{what}.{dimension}: no sample is of {', '.join(map(repr, strange))}"] if strange else []
